"""`apply_by_multiprocessing`: `DataFrame.apply` over all cores. `sweep`: one function over many parameter sets."""

from __future__ import annotations

import inspect
import itertools
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from parfit import executors
from parfit.core.errors import InvalidInputError, InvalidTypeError, ParfitWarning, refuse_unknown
from parfit.core.protocols import Block
from parfit.core.solution import Outcome, OutcomeKind
from parfit.executors.chunking import ChunkSizer, PairBlock
from parfit.executors.cpus import cpu_count
from parfit.progress import Progress, reporting

__all__ = ["apply_by_multiprocessing", "sweep"]

_APPLY_OPTIONS = tuple(
    name
    for name, p in inspect.signature(pd.DataFrame.apply).parameters.items()
    if name not in ("self", "func", "axis", "args") and p.kind is not p.VAR_KEYWORD
)
#: Long against what it costs to cut, send and unpack a block of a frame (about 0.5 ms).
_BLOCK_S = 0.04


def apply_by_multiprocessing(
    df: pd.DataFrame,
    func: Callable[..., Any],
    workers: int | None = None,
    *,
    axis: Any = 1,
    executor: Any = None,
    progress: Progress = None,
    **kwargs: Any,
) -> Any:
    """`DataFrame.apply` over all cores.

    Parameters
    ----------
    df : DataFrame
        The data.
    func : callable
        Called with each row (``axis=1``) or column (``axis=0``) as a Series. Lambdas, closures and functions of a
        notebook are fine.
    workers : int, optional
        How many; by default one per usable core.
    axis : {1, 0, "columns", "index"}
        As for `DataFrame.apply`; here rows are the default.
    executor
        As for `parfit.fit`.
    progress : bool or callable, optional
        As for `parfit.fit`.
    **kwargs
        Those of `DataFrame.apply` (``raw``, ``result_type``, ``args``, …), and any others for `func`.

    Returns
    -------
    Series or DataFrame
        What ``df.apply(func, axis=axis, **kwargs)`` returns: same values, index, columns and dtypes.

    Raises
    ------
    Exception
        What `func` raises, with the worker's traceback as its cause and the row's label as a note.
    WorkerLostError
        Where `func` kills its process, twice.

    Examples
    --------
    >>> import pandas as pd, parfit
    >>> df = pd.DataFrame({"a": [1, 2], "b": [3, 4]}, index=["x", "y"])
    >>> parfit.apply_by_multiprocessing(df, lambda row: row["a"] + row["b"], workers=1)
    x    4
    y    6
    dtype: int64
    """
    if not isinstance(df, pd.DataFrame):
        raise InvalidTypeError(f"a DataFrame is wanted, not {type(df).__name__}")
    if axis not in (0, 1, "index", "columns", "rows"):
        refuse_unknown("axis", axis, (0, 1, "index", "columns"))
    along = 1 if axis in (1, "columns") else 0
    recipe = executors.resolve(executor, workers)
    total = df.shape[1 - along]
    if not callable(func) or isinstance(func, np.ufunc) or not all(df.shape) or kwargs.get("engine") is not None:
        return df.apply(func, axis=axis, **kwargs)  # nothing to share out: pandas does these on whole columns
    options = {name: kwargs.pop(name) for name in _APPLY_OPTIONS if name in kwargs}
    call = _Applied(func, along, bool(options.get("raw", False)), tuple(kwargs.pop("args", ())), kwargs)
    parts: dict[int, _Packed] = {}
    blocks = _FrameBlocks(df, along, recipe.workers if hasattr(recipe, "workers") else None)
    with reporting(progress, total, "rows" if along else "columns") as count, recipe.open(call) as pool:
        for outcome in pool.imap_unordered(_apply_block, blocks):
            packed = outcome.result()
            parts[outcome.key] = packed
            blocks.sizer.took(packed.length, outcome.seconds)
            _show_warnings(outcome, func)
            count(packed.length)
    return _joined(df, along, [parts[start] for start in sorted(parts)], options)


def _show_warnings(outcome: Outcome, func: Any) -> None:
    name = getattr(func, "__name__", "the function")
    for w in outcome.warnings:
        times = f" ({w.count} times)" if w.count > 1 else ""
        warnings.warn(f"{name}: {w.category}: {w.message}{times}", ParfitWarning, stacklevel=3)


@dataclass(frozen=True)
class _Applied:
    """The call that every block gets; its own setup."""

    func: Callable[..., Any]
    axis: int
    raw: bool
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]

    def __call__(self) -> _Applied:
        return self


@dataclass(frozen=True)
class _Slice:
    """Rows (or columns) of a frame: all of them, or the one after the first `skip`.

    One row alone lies in memory otherwise than among others, and BLAS may then round otherwise; so a single row
    travels with a neighbour, which is passed over.
    """

    frame: pd.DataFrame
    skip: int
    count: int


class _FrameBlocks:
    """A frame cut into slices, one task each, by the measured cost of its rows."""

    def __init__(self, df: pd.DataFrame, axis: int, workers: int | None) -> None:
        self._df = df
        self._axis = axis
        self._at = 0
        self._total = df.shape[1 - axis]
        self.sizer = ChunkSizer(workers or cpu_count(), self._total, _BLOCK_S)

    def take(self, n: int) -> Block | None:  # noqa: ARG002 - a task is a slice, of the size that suits this frame
        start = self._at
        if start >= self._total:
            return None
        stop = min(start + self.sizer.next_size(), self._total)
        self._at = stop
        self.sizer.sent(stop - start)
        first, last = (start, stop) if stop - start > 1 else (min(start, max(self._total - 2, 0)), start + 2)
        chosen = slice(first, last)
        frame = self._df.iloc[chosen] if self._axis == 1 else self._df.iloc[:, chosen]
        return PairBlock([(start, _Slice(frame, start - first, stop - start))])


class _Enough(Exception):  # noqa: N818 - a signal, not an error
    """The wanted rows are done."""


@dataclass(frozen=True)
class _Packed:
    """Results of a slice: of one plain type as an array, of Series with one index as a table, or as they are."""

    length: int
    kind: type | None = None
    values: Any = None
    index: Any = None
    items: list[Any] | None = None

    def unpacked(self) -> list[Any]:
        """The results, one by one."""
        if self.items is not None:
            return self.items
        if self.index is not None:
            return [pd.Series(row, index=self.index) for row in self.values]
        found: list[Any] = self.values.tolist()
        return found


def _apply_block(call: _Applied, part: _Slice) -> _Packed:
    """In the worker: pandas hands out the rows, exactly as it does in the caller's process."""
    found: list[Any] = []
    keep = found.append
    func, args, kwargs, series = call.func, call.args, call.kwargs, pd.Series
    current: Any = None

    def each(row: Any) -> None:
        nonlocal current
        current = row
        value = func(row, *args, **kwargs)
        keep(value.copy(deep=False) if isinstance(value, series) else value)

    def alone(row: Any) -> None:
        if len(passed) == part.skip:
            each(row)
            raise _Enough
        passed.append(row)

    passed: list[Any] = []
    visit = each if len(part.frame) == part.count or (call.axis == 0 and part.frame.shape[1] == part.count) else alone
    frame: Any = part.frame
    try:
        frame.apply(visit, axis=call.axis, raw=call.raw)
    except _Enough:
        pass
    except Exception as exc:
        exc.add_note(f"in the {'row' if call.axis else 'column'} {getattr(current, 'name', f'number {len(found)}')!r}")
        raise
    return _packed(found)


def _packed(found: list[Any]) -> _Packed:
    kinds = set(map(type, found))
    if len(kinds) == 1:
        kind = kinds.pop()
        if kind in (float, np.float64, bool):
            return _Packed(len(found), kind, np.array(found))
        if kind is int and -(2**63) <= min(found) and max(found) < 2**63:
            return _Packed(len(found), kind, np.array(found, dtype=np.int64))
        if kind is pd.Series:
            index, dtype = found[0].index, found[0].dtype
            same = all(s.dtype == dtype and s.index.equals(index) and s.index.names == index.names for s in found)
            if same and dtype in (np.float64, np.int64, np.bool_):
                return _Packed(len(found), kind, np.stack([s.to_numpy() for s in found]), index)
    return _Packed(len(found), items=found)


def _joined(df: pd.DataFrame, axis: int, parts: list[_Packed], options: dict[str, Any]) -> Any:
    """What pandas makes of the results; it does it itself, unless they are all of one plain kind."""
    kinds = {(part.kind, None if part.values is None else part.values.dtype) for part in parts}
    plain = type(df) is pd.DataFrame and not options and len(kinds) == 1 and parts[0].kind is not None
    labels = df.axes[1 - axis]
    if plain and parts[0].index is None:
        return pd.Series(np.concatenate([part.values for part in parts]), index=labels)
    if plain and axis == 1 and all(_same_index(part.index, parts[0].index) for part in parts):
        return pd.DataFrame(np.concatenate([part.values for part in parts]), index=labels, columns=parts[0].index)
    results = itertools.chain.from_iterable(part.unpacked() for part in parts)
    return df.apply(lambda _: next(results), axis=axis, **options)


def _same_index(a: pd.Index[Any], b: pd.Index[Any]) -> bool:
    return type(a) is type(b) and a.dtype == b.dtype and a.names == b.names and a.equals(b)


def sweep(
    function: Callable[..., Any],
    parameter_sets: Any,
    *,
    executor: Any = None,
    workers: int | None = None,
    timeout: float | None = None,
    retries: int = 1,
    on_error: str = "record",
    progress: Progress = None,
) -> pd.DataFrame:
    """One function over many parameter sets, in parallel.

    Parameters
    ----------
    function : callable
        ``function(**parameters)``. It returns a number (or anything else), or a mapping or Series of several.
    parameter_sets : DataFrame, mapping of sequences, or sequence of mappings
        A set per row of a DataFrame or per mapping; a mapping of sequences is the grid of all combinations.
    executor, workers, timeout, retries, progress
        As for `parfit.fit`.
    on_error : {"record", "raise"}
        ``"record"``: a set that fails is a row with a status, and the others go on.

    Returns
    -------
    DataFrame
        One row per set, in the order given: its parameters, what the function returned (``value``, or a column per
        entry), ``status`` (``done``, ``error``, ``timeout``, ``worker_lost``), ``message`` and ``seconds``.

    Examples
    --------
    >>> import parfit
    >>> parfit.sweep(lambda a, b: a * b, {"a": [1, 2], "b": [10, 20]}, workers=1)[["a", "b", "value"]]
       a   b  value
    0  1  10     10
    1  1  20     20
    2  2  10     20
    3  2  20     40
    """
    if not callable(function):
        raise InvalidTypeError(f"function must be callable, not {type(function).__name__}")
    if on_error not in ("record", "raise"):
        refuse_unknown("value of `on_error`", on_error, ("record", "raise"))
    sets = _parameter_frame(parameter_sets)
    recipe = executors.resolve(executor, workers, timeout)
    names = [str(name) for name in sets.columns]
    outcomes: list[Outcome | None] = [None] * len(sets)
    tasks = ((i, dict(zip(names, values, strict=True))) for i, values in enumerate(_rows(sets)))
    with reporting(progress, len(sets), "sets") as count, recipe.open(_Swept(function), retries=retries) as pool:
        for outcome in pool.imap_unordered(_sweep_one, tasks, timeout):
            if on_error == "raise":
                outcome.result()
            outcomes[outcome.key] = outcome
            count(1)
    done = [outcome for outcome in outcomes if outcome is not None]
    return pd.concat([sets, _values(done, sets.index), _fates(done, sets.index)], axis=1)


@dataclass(frozen=True)
class _Swept:
    function: Callable[..., Any]

    def __call__(self) -> Callable[..., Any]:
        return self.function


def _sweep_one(function: Callable[..., Any], parameters: dict[str, Any]) -> Any:
    return function(**parameters)


def _rows(sets: pd.DataFrame) -> Iterator[tuple[Any, ...]]:
    return zip(*(sets[name].tolist() for name in sets.columns), strict=True)


def _parameter_frame(sets: Any) -> pd.DataFrame:
    if isinstance(sets, pd.DataFrame):
        if not sets.columns.is_unique:
            raise InvalidInputError("parameter_sets has two columns of one name")
        return sets
    if isinstance(sets, Mapping):
        axes = {name: [v] if isinstance(v, str) or np.ndim(v) == 0 else list(v) for name, v in sets.items()}
        return pd.DataFrame(list(itertools.product(*axes.values())), columns=list(axes))
    if isinstance(sets, Sequence) and all(isinstance(one, Mapping) for one in sets):
        for one in sets:
            if set(one) != set(sets[0]):
                raise InvalidInputError(f"every parameter set needs the same names; {one} differs from {sets[0]}")
        return pd.DataFrame(list(sets))
    raise InvalidTypeError(
        "parameter_sets must be a DataFrame, a mapping of sequences (a grid), or a sequence of mappings, "
        f"not {type(sets).__name__}"
    )


def _values(outcomes: list[Outcome], index: pd.Index[Any]) -> pd.DataFrame:
    """What the function returned, a column per entry of a mapping or Series, else the one column ``value``."""
    values = [outcome.value for outcome in outcomes]
    first = next((o.value for o in outcomes if o.kind is OutcomeKind.DONE), None)
    if isinstance(first, (Mapping, pd.Series)):
        rows = [dict(v) if isinstance(v, (Mapping, pd.Series)) else {} for v in values]
        return pd.DataFrame(rows, index=index)
    if any(np.ndim(v) for v in values if v is not None):
        return pd.DataFrame({"value": pd.Series(values, index=index, dtype=object)})
    return pd.DataFrame({"value": values}, index=index)


def _fates(outcomes: list[Outcome], index: pd.Index[Any]) -> pd.DataFrame:
    messages = [f"{o.error.type}: {o.error.message}" if o.error is not None else "" for o in outcomes]
    made = {"status": [o.kind.value for o in outcomes], "message": messages, "seconds": [o.seconds for o in outcomes]}
    return pd.DataFrame(made, index=index)
