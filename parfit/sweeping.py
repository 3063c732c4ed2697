"""`sweep`: one function over many parameter sets."""

from __future__ import annotations

import inspect
import itertools
import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from parfit import executors
from parfit.core.errors import InvalidInputError, InvalidTypeError, ParfitWarning, UnknownNameError, refuse_unknown
from parfit.core.solution import Outcome, OutcomeKind
from parfit.executors.interrupts import one_ctrl_c
from parfit.executors.limits import time_limit, whole_number
from parfit.progress import Progress, reporting
from parfit.warned import Warned

__all__ = ["sweep"]

#: The columns that are always there, after the parameters and what the function returned.
_FATE = ("status", "message", "seconds")
_VARIABLE = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
#: Combinations of a grid; its table would not fit into memory soon after.
_LARGEST_GRID = 10_000_000
_FORMS = (
    "a DataFrame with a set per row, a mapping of sequences, {'a': [1, 2], 'b': [3, 4]}, whose combinations are the "
    "sets, or a sequence of mappings, [{'a': 1, 'b': 3}, {'a': 2, 'b': 4}]"
)


def sweep(
    function: Callable[..., Any],
    parameter_sets: Any,
    *,
    executor: Any = None,
    workers: int | None = None,
    timeout: float | None = None,
    memory_limit: int | str | None = None,
    retries: int = 1,
    on_error: str = "record",
    progress: Progress = None,
) -> pd.DataFrame:
    """One function over many parameter sets, in parallel.

    Parameters
    ----------
    function : callable
        ``function(**parameters)``. It returns a number (or anything else), or a mapping or Series of several.
    parameter_sets : DataFrame, mapping of sequences, or iterable of mappings
        A set per row of a DataFrame or per mapping; a mapping of sequences is the grid of all combinations, the last
        name running fastest.
    executor, workers, timeout, memory_limit, retries, progress
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

    Raises
    ------
    UnknownNameError, InvalidInputError
        For names that are no parameters of `function`, and parameters that are not named.
    Exception
        With ``on_error="raise"``, what `function` raises.

    Warns
    -----
    ParfitWarning
        For what `function` warns of, and where every set fails in the same way.

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
    if sets:
        _check_names(function, list(sets[0]))
    timeout, retries = time_limit("timeout", timeout), whole_number("retries", retries)
    recipe = executors.resolve(executor, workers, timeout, memory_limit)
    outcomes: dict[int, Outcome] = {}
    warned = Warned()
    with (
        one_ctrl_c(),
        reporting(progress, len(sets), "sets") as count,
        recipe.open(_Swept(function), retries=retries) as pool,
    ):
        for outcome in pool.imap_unordered(_sweep_one, list(enumerate(sets)), timeout):
            if on_error == "raise":
                _raise_if_failed(outcome, sets[outcome.key])
            warned.note(outcome.warnings)
            outcomes[outcome.key] = outcome
            count(1)
    warned.tell(getattr(function, "__name__", "the function"), stacklevel=2)
    done = [outcomes[i] for i in range(len(sets))]
    _warn_if_all_failed(done)
    values = _values(done, frame.index)
    taken = {*map(str, frame.columns), *_FATE}
    values.columns = pd.Index([f"{name}_result" if name in taken else name for name in values.columns])
    return pd.concat([frame, values, _fates(done, frame.index)], axis=1)


def _check_names(function: Callable[..., Any], names: list[str]) -> None:
    """Refuse names that the function has no parameter for, and parameters that are not named."""
    try:
        known = inspect.signature(function).parameters
    except (TypeError, ValueError):  # it does not say: one written in C
        return
    what = f"{getattr(function, '__name__', type(function).__name__)}()"
    by_name = [name for name, p in known.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    takes_any = any(p.kind is p.VAR_KEYWORD for p in known.values())
    for name in names:
        if name not in by_name and not takes_any:
            if not by_name:
                raise UnknownNameError(f"{what} takes no parameter by name, and parameter_sets has {name!r}")
            refuse_unknown(f"parameter of {what} in parameter_sets:", name, by_name)
    wanted = [name for name, p in known.items() if p.default is p.empty and p.kind not in _VARIABLE]
    if any(known[name].kind is inspect.Parameter.POSITIONAL_ONLY for name in wanted):
        raise InvalidInputError(f"sweep calls {what} with names, and {wanted[0]!r} can only be given by its position")
    if missing := [name for name in wanted if name not in names]:
        raise InvalidInputError(f"{what} needs {', '.join(map(repr, missing))}, which parameter_sets does not have")


def _warn_if_all_failed(outcomes: list[Outcome]) -> None:
    """One warning for a function that fails with every set in the same way."""
    errors = [outcome.error for outcome in outcomes]
    first = errors[0] if errors else None
    if first is not None and len(errors) > 1 and all(e is not None and e.type == first.type for e in errors):
        text = f"every parameter set raised {first.type}, the first of them: {first.message}; see the column 'message'"
        warnings.warn(text, ParfitWarning, stacklevel=3)


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
        size = math.prod(map(len, axes))
        if size > _LARGEST_GRID:
            raise InvalidInputError(
                f"the grid of parameter_sets has {size:,} combinations ({' x '.join(str(len(a)) for a in axes)}): "
                "give those that are wanted, as a DataFrame with a set per row"
            )
        combinations = list(itertools.product(*axes))
        sets = [dict(zip(map(str, names), row, strict=True)) for row in combinations]
        frame = _table(names, combinations)
    else:
        given = _mappings(given)
        names = list(given[0]) if given else []
        for one in given:
            if set(one) != set(names):
                raise InvalidInputError(f"every parameter set needs the same names; {one} differs from {given[0]}")
        sets = [{str(name): one[name] for name in names} for one in given]
        frame = _table(names, [tuple(one[name] for name in names) for one in given])
    texts = [str(name) for name in names]
    for name in texts:
        if texts.count(name) > 1:
            raise InvalidInputError(f"parameter_sets has two columns of the name {name!r}")
        if name in _FATE:
            raise InvalidInputError(f"a parameter cannot be named {name!r}: the result has a column of that name")
    return frame, sets


def _mappings(given: Any) -> list[Mapping[Any, Any]]:
    """A sequence of mappings, or an iterator of them."""
    if isinstance(given, (str, bytes)) or not isinstance(given, Iterable):
        raise InvalidTypeError(f"parameter_sets must be {_FORMS}; not {type(given).__name__}")
    sets = list(given)
    for one in sets:
        if not isinstance(one, Mapping):
            raise InvalidTypeError(f"parameter_sets must be {_FORMS}; its item {one!r} is {type(one).__name__}")
    return sets


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
    messages = [f"{o.error.type.rpartition('.')[2]}: {o.error.message}" if o.error else "" for o in outcomes]
    seconds = np.array([outcome.seconds for outcome in outcomes], dtype=float)
    return pd.DataFrame({"status": [o.kind.value for o in outcomes], "message": messages, "seconds": seconds}, index)
