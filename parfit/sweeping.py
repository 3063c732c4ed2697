"""`sweep`: one function over many parameter sets."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from parfit import executors
from parfit.core.errors import InvalidInputError, InvalidTypeError, refuse_unknown
from parfit.core.solution import Outcome, OutcomeKind
from parfit.progress import Progress, reporting
from parfit.warned import Warned

__all__ = ["sweep"]

#: The columns that are always there, after the parameters and what the function returned.
_FATE = ("status", "message", "seconds")


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
        A set per row of a DataFrame or per mapping; a mapping of sequences is the grid of all combinations, the last
        name running fastest.
    executor, workers, timeout, retries, progress
        As for `parfit.fit`.
    on_error : {"record", "raise"}
        ``"record"``: a set that fails is a row with a status, and the others go on. ``"raise"`` stops at the first,
        with its parameters in a note.

    Returns
    -------
    DataFrame
        One row per set, in the order given: its parameters, what the function returned (``value``, or a column per
        entry), ``status`` (``done``, ``error``, ``timeout``, ``worker_lost``), ``message`` and ``seconds``. An entry
        whose name is taken by a parameter or a status has ``_result`` added to it.

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
    frame, sets = _parameter_sets(parameter_sets)
    recipe = executors.resolve(executor, workers, timeout)
    outcomes: dict[int, Outcome] = {}
    warned = Warned()
    with reporting(progress, len(sets), "sets") as count, recipe.open(_Swept(function), retries=retries) as pool:
        for outcome in pool.imap_unordered(_sweep_one, list(enumerate(sets)), timeout):
            if on_error == "raise":
                _raise_if_failed(outcome, sets[outcome.key])
            warned.note(outcome.warnings)
            outcomes[outcome.key] = outcome
            count(1)
    warned.tell(getattr(function, "__name__", "the function"), stacklevel=2)
    done = [outcomes[i] for i in range(len(sets))]
    values = _values(done, frame.index)
    taken = {*map(str, frame.columns), *_FATE}
    values.columns = pd.Index([f"{name}_result" if name in taken else name for name in values.columns])
    return pd.concat([frame, values, _fates(done, frame.index)], axis=1)


@dataclass(frozen=True)
class _Swept:
    function: Callable[..., Any]

    def __call__(self) -> Callable[..., Any]:
        return self.function


def _sweep_one(function: Callable[..., Any], parameters: dict[str, Any]) -> Any:
    return function(**parameters)


def _raise_if_failed(outcome: Outcome, parameters: dict[str, Any]) -> None:
    if outcome.error is not None:
        exc = outcome.error.to_exception()
        exc.add_note("with " + ", ".join(f"{name}={value!r}" for name, value in parameters.items()))
        raise exc


def _parameter_sets(given: Any) -> tuple[pd.DataFrame, list[dict[str, Any]]]:
    """The sets as the table that comes back, and as what the function is called with."""
    if isinstance(given, pd.DataFrame):
        frame = given
        columns = [frame.iloc[:, i].tolist() for i in range(frame.shape[1])]
        rows: Iterator[tuple[Any, ...]] = zip(*columns, strict=True) if columns else iter([()] * len(frame))
        names = list(frame.columns)
        sets = [dict(zip(map(str, names), row, strict=True)) for row in rows]
    elif isinstance(given, Mapping):
        names = list(given)
        axes = [list(axis) if _is_axis(axis) else [axis] for axis in given.values()]
        combinations = list(itertools.product(*axes))
        sets = [dict(zip(map(str, names), row, strict=True)) for row in combinations]
        frame = _table(names, combinations)
    elif isinstance(given, Sequence) and all(isinstance(one, Mapping) for one in given):
        names = list(given[0]) if len(given) else []
        for one in given:
            if set(one) != set(names):
                raise InvalidInputError(f"every parameter set needs the same names; {one} differs from {given[0]}")
        sets = [{str(name): one[name] for name in names} for one in given]
        frame = _table(names, [tuple(one[name] for name in names) for one in given])
    else:
        raise InvalidTypeError(
            "parameter_sets must be a DataFrame, a mapping of sequences (a grid), or a sequence of mappings, "
            f"not {type(given).__name__}"
        )
    texts = [str(name) for name in names]
    for name in texts:
        if texts.count(name) > 1:
            raise InvalidInputError(f"parameter_sets has two columns of the name {name!r}")
        if name in _FATE:
            raise InvalidInputError(f"a parameter cannot be named {name!r}: the result has a column of that name")
    return frame, sets


def _is_axis(values: Any) -> bool:
    if isinstance(values, (str, bytes, Mapping)):
        return False
    return isinstance(values, Iterable) and getattr(values, "ndim", 1) > 0


def _table(names: list[Any], rows: list[tuple[Any, ...]]) -> pd.DataFrame:
    """A frame of rows, in which an array or a list is one cell."""
    index = pd.RangeIndex(len(rows))
    return pd.DataFrame({name: _column([row[k] for row in rows], index) for k, name in enumerate(names)}, index)


def _column(values: list[Any], index: pd.Index[Any]) -> pd.Series[Any]:
    """A column of whatever type suits the values."""
    values = [np.asarray(v)[()] if hasattr(v, "dtype") and np.ndim(v) == 0 else v for v in values]
    if all(pd.api.types.is_scalar(value) for value in values):
        return pd.Series(values, index=index, dtype=None if values else object)
    cells = np.empty(len(values), dtype=object)
    for i, value in enumerate(values):
        cells[i] = value
    return pd.Series(cells, index=index)


def _values(outcomes: list[Outcome], index: pd.Index[Any]) -> pd.DataFrame:
    """What the function returned, a column per entry of a mapping or Series, else the one column ``value``."""
    done = [outcome.value for outcome in outcomes if outcome.kind is OutcomeKind.DONE]
    if done and all(isinstance(value, (Mapping, pd.Series)) for value in done):
        entries = [dict(o.value) if o.kind is OutcomeKind.DONE else {} for o in outcomes]
        names = dict.fromkeys(itertools.chain.from_iterable(entries))
        return pd.DataFrame({name: _column([e.get(name) for e in entries], index) for name in names}, index=index)
    return pd.DataFrame({"value": _column([outcome.value for outcome in outcomes], index)})


def _fates(outcomes: list[Outcome], index: pd.Index[Any]) -> pd.DataFrame:
    messages = [f"{o.error.type}: {o.error.message}" if o.error is not None else "" for o in outcomes]
    seconds = np.array([outcome.seconds for outcome in outcomes], dtype=float)
    return pd.DataFrame({"status": [o.kind.value for o in outcomes], "message": messages, "seconds": seconds}, index)
