"""`sweep`: one function over many parameter sets."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from parfit import executors
from parfit.core.errors import InvalidInputError, InvalidTypeError, refuse_unknown
from parfit.core.solution import Outcome, OutcomeKind
from parfit.progress import Progress, reporting

__all__ = ["sweep"]


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
