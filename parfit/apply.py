"""`apply_by_multiprocessing`: `DataFrame.apply` over all cores."""

from __future__ import annotations

import array
import functools
import inspect
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, TypeAlias

import numpy as np
import pandas as pd

from parfit import executors
from parfit.core.errors import InvalidTypeError, WorkerLostError, refuse_unknown
from parfit.core.protocols import Pool
from parfit.core.solution import Outcome, OutcomeKind, TaskError
from parfit.executors.interrupts import one_ctrl_c
from parfit.progress import Progress, reporting
from parfit.slices import FrameBlocks, Slice, own, writeable
from parfit.warned import Warned

__all__ = ["apply_by_multiprocessing"]

_APPLY_OPTIONS = tuple(
    name
    for name, p in inspect.signature(pd.DataFrame.apply).parameters.items()
    if name not in ("self", "func", "axis", "args") and p.kind is not p.VAR_KEYWORD
)


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
        What ``df.apply(func, axis=axis, **kwargs)`` returns: same values, index, columns and dtypes. What `func`
        writes into a row does not reach `df`.

    Raises
    ------
    Exception
        What `func` raises, with the worker's traceback as its cause and the row's label as a note; of several rows
        that raise, the first in the order of `df`.
    WorkerLostError
        Where `func` kills its process, also when the row is tried again alone; it names the row.

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
    if kwargs.get("result_type") == "broadcast" and not df.axes[1 - along].is_unique:
        return df.apply(func, axis=axis, **kwargs)  # where labels repeat, pandas hands out a frame of all that have one
    options = {name: kwargs.pop(name) for name in _APPLY_OPTIONS if name in kwargs}
    shared = not recipe.capabilities.own_process
    call = _Applied(func, along, options, tuple(kwargs.pop("args", ())), kwargs, shared)
    blocks = FrameBlocks(df, along, call.raw, recipe.workers if hasattr(recipe, "workers") else None)
    results = _Results(df.axes[1 - along], along)
    with one_ctrl_c(), reporting(progress, total, "rows" if along else "columns") as count, recipe.open(call) as pool:
        while blocks.next < results.first_failure:
            results.gather(pool, blocks, count)
            if recipe.capabilities.survives_worker_death and (suspects := results.suspects()):
                results.gather(pool, blocks.singly(suspects), count)
    results.raise_first()
    results.warned.tell(getattr(func, "__name__", "the function"), stacklevel=2)
    return _joined(df, along, [results.parts[start] for start in sorted(results.parts)], options)


@dataclass(frozen=True)
class _Applied:
    """The call that every block gets; its own setup."""

    func: Callable[..., Any]
    axis: int
    options: Mapping[str, Any]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    shared: bool

    def __call__(self) -> _Applied:
        return self

    @property
    def broadcast(self) -> bool:
        return self.options.get("result_type") == "broadcast"

    @property
    def raw(self) -> bool:
        return bool(self.options.get("raw", False)) and not self.broadcast


class _Enough(Exception):  # noqa: N818 - a signal, not an error
    """The wanted rows are done."""


@dataclass(frozen=True)
class _Packed:
    """Results of a slice: of one plain type as an array, of Series with one index as a table, or as they are."""

    length: int
    kind: type | None = None
    values: Any = None
    index: Any = None
    names: list[Any] | None = None
    items: list[Any] | None = None

    def unpacked(self) -> list[Any]:
        """The results, one by one."""
        if self.items is not None:
            return self.items
        if self.index is not None:
            assert self.names is not None
            return [pd.Series(v, index=self.index, name=n) for v, n in zip(self.values, self.names, strict=True)]
        found: list[Any] = list(self.values) if self.kind is np.float64 else self.values.tolist()
        return found


@dataclass(frozen=True)
class _Failed:
    """What the function raised, and the position of the row in the slice."""

    at: int
    error: TaskError


def _apply_block(call: _Applied, part: Slice) -> _Packed | _Failed:
    """In the worker: pandas hands out the rows, exactly as it does in the caller's process.

    The loop is left by an exception as soon as the wanted rows are done, which also spares pandas the work of
    making a result that nobody wants.
    """
    found: Any = []
    kind: type | None = None
    wanted, func = part.count, call.func
    if call.args or call.kwargs:
        func = functools.partial(_with_arguments, call)

    def each(row: Any) -> None:
        nonlocal found, kind
        value = func(row)
        if type(value) is not kind:
            found, kind, value = _admitted(found, kind, value)
        found.append(value)
        if len(found) == wanted:
            raise _Enough

    def each_but_some(row: Any) -> Any:
        whole = row.copy()  # can be broadcast, whatever the function does to the row
        if next(passed) >= part.skip:
            each(row)
        return whole

    passed = itertools.count()
    visit = each_but_some if part.skip or call.broadcast else each
    frame: Any = own(part.frame) if call.shared else part.frame
    try:
        if call.raw:
            values = frame.to_numpy()
            np.apply_along_axis(visit, call.axis, values.copy("K") if part.writeable else values)
        else:
            frame = writeable(frame) if call.axis else frame
            frame.apply(visit, axis=call.axis, result_type="broadcast" if call.broadcast else None)
    except _Enough:
        return _packed(found, kind)
    except Exception as exc:  # noqa: BLE001 - the user's own function
        label = part.frame.axes[1 - call.axis][part.skip + len(found)]
        exc.add_note(_where(call.axis, label))
        return _Failed(len(found), TaskError.from_exception(exc.with_traceback(_inside(exc, each))))
    raise RuntimeError(f"pandas called the function for {len(found)} of {wanted} rows")


def _where(axis: int, label: Any) -> str:
    return f"in the {'row' if axis else 'column'} {label!r}"


def _inside(exc: BaseException, caller: Callable[..., Any]) -> TracebackType | None:
    """The traceback of an exception from the frame on that `caller` has called."""
    tb = exc.__traceback__
    while tb is not None:
        if tb.tb_frame.f_code is caller.__code__:
            return tb.tb_next or tb
        tb = tb.tb_next
    return exc.__traceback__


def _with_arguments(call: _Applied, row: Any) -> Any:
    return call.func(row, *call.args, **call.kwargs)


_Found: TypeAlias = "array.array[float] | list[Any]"


def _admitted(found: _Found, kind: type | None, value: Any) -> tuple[_Found, type | None, Any]:
    """A value that is not of the `kind` of those before it, or a Series; where it goes, and the kind from here on.

    Floats go to an array while there is nothing else: 28 ns a row less than a list that is made into one.
    """
    now: type | None = type(value)
    if isinstance(value, pd.Series):
        now, value = None, value.copy(deep=False)  # it may be a view on the row, whose memory pandas uses again
    if not found:
        return array.array("d") if now in (float, np.float64) else [], now, value
    if isinstance(found, array.array):
        assert kind is not None
        found = list(map(kind, found))
    return found, None, value


def _packed(found: _Found, kind: type | None) -> _Packed:
    if isinstance(found, array.array):
        return _Packed(len(found), kind, np.frombuffer(found))
    if kind is bool:
        return _Packed(len(found), kind, np.array(found))
    if kind is int and -(2**63) <= min(found) and max(found) < 2**63:
        return _Packed(len(found), kind, np.array(found, dtype=np.int64))
    if all(type(value) is pd.Series for value in found):
        index, dtype = found[0].index, found[0].dtype
        same = all(s.dtype == dtype and _same_index(s.index, index) for s in found)
        if same and dtype in (np.float64, np.int64, np.bool_):
            names = [s.name for s in found]
            return _Packed(len(found), pd.Series, np.stack([s.to_numpy() for s in found]), index, names)
    return _Packed(len(found), items=found)


class _Results:
    """What has come of the slices, by the position of their first row."""

    def __init__(self, labels: pd.Index[Any], axis: int) -> None:
        self._labels = labels
        self._axis = axis
        self._lost: dict[int, tuple[int, TaskError]] = {}
        self._errors: dict[int, BaseException] = {}
        self.parts: dict[int, _Packed] = {}
        self.warned = Warned()

    @property
    def first_failure(self) -> int:
        """The position of the first row that has failed, or may have; the number of rows where none has."""
        return min([*self._errors, *self._lost], default=len(self._labels))

    def gather(self, pool: Pool, blocks: FrameBlocks, count: Callable[[int], None]) -> None:
        """Run the slices, until one fails; those before it are finished, since the first is to be raised."""
        blocks.limit = self.first_failure
        for outcome in pool.imap_unordered(_apply_block, blocks):
            start, stop = outcome.key, blocks.sent.pop(outcome.key)
            self.warned.note(outcome.warnings)
            if isinstance(outcome.value, _Packed):
                self.parts[start] = outcome.value
                blocks.sizer.took(stop - start, outcome.seconds)
                count(stop - start)
            else:
                self._fail(start, stop, outcome)
            blocks.limit = self.first_failure
            if self._errors and min(self._errors) < min(blocks.sent, default=blocks.limit + 1):
                return

    def _fail(self, start: int, stop: int, outcome: Outcome) -> None:
        if isinstance(outcome.value, _Failed):
            error, at = outcome.value.error, start + outcome.value.at
            where = _where(self._axis, self._labels[at])
        else:
            assert outcome.error is not None
            error, at = outcome.error, start
            where = self._rows(start, stop)
        if outcome.kind is OutcomeKind.WORKER_LOST:
            self._lost[start] = (stop, error)
            return
        exc = error.to_exception()
        if where not in getattr(exc, "__notes__", ()):
            exc.add_note(where)
        self._errors[at] = exc

    def _rows(self, start: int, stop: int) -> str:
        where = _where(self._axis, self._labels[start])
        return where if stop - start == 1 else f"{where} or one of the {stop - start - 1} after it"

    def suspects(self) -> list[int]:
        """The rows of the slices of several that lost their worker; they are to be tried one by one."""
        several = {start: stop for start, (stop, _) in self._lost.items() if stop - start > 1}
        self._lost = {start: lost for start, lost in self._lost.items() if start not in several}
        rows = itertools.chain.from_iterable(range(start, several[start]) for start in sorted(several))
        return [row for row in rows if row < self.first_failure]

    def raise_first(self) -> None:
        """Raise what happened to the first row that failed, if any did."""
        for start, (stop, error) in self._lost.items():
            self._errors[start] = WorkerLostError(f"{self._rows(start, stop)}: {error.message}")
        if self._errors:
            raise self._errors[min(self._errors)]


def _joined(df: pd.DataFrame, axis: int, parts: list[_Packed], options: dict[str, Any]) -> Any:
    """What pandas makes of the results; it does it itself, unless they are all of one plain kind."""
    kinds = {(part.kind, None if part.values is None else part.values.dtype) for part in parts}
    plain = type(df) is pd.DataFrame and not options and len(kinds) == 1 and parts[0].kind is not None
    labels = df.axes[1 - axis]
    if plain and parts[0].index is None:
        column: Any = pd.Series(np.concatenate([part.values for part in parts]), index=labels)
        return column.__finalize__(df, method="apply")
    if plain and axis == 1 and all(_same_index(part.index, parts[0].index) for part in parts):
        table: Any = pd.DataFrame(np.concatenate([part.values for part in parts]), index=labels, columns=parts[0].index)
        return table.__finalize__(df, method="apply")
    results = itertools.chain.from_iterable(part.unpacked() for part in parts)
    whole: Any = df
    return whole.apply(lambda _: next(results), axis=axis, **options)


def _same_index(a: Any, b: Any) -> bool:
    if a is b:
        return True
    alike = type(a) is type(b) and a.dtype == b.dtype and a.names == b.names and a.equals(b)
    return alike and getattr(a, "freq", None) == getattr(b, "freq", None)
