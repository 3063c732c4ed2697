"""The starts and bounds of all rows, checked: what cannot be fitted is found before anything runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parfit.core.bounds import row_bounds
from parfit.core.data import Datasets
from parfit.core.errors import InvalidInputError
from parfit.core.parameters import Parameters, frame_of, made_start, moved_inside, settled

__all__ = ["Starts", "read_starts"]

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Starts:
    """Start, lower and upper bounds, shape (k, n) each, of the rows at some positions, and what is wrong with any.

    Attributes
    ----------
    wrong
        Index among the k -> why this row cannot be fitted.
    """

    start: FloatArray
    lower: FloatArray
    upper: FloatArray
    wrong: dict[int, str]


def read_starts(p: Parameters, datasets: Datasets, positions: NDArray[np.intp]) -> Starts:
    """The starts of the rows at `positions`, each settled inside its bounds as `frame_of` does it."""
    k, n = len(positions), len(p.names)
    own = p.start_of is not None or p.bounds_of is not None
    start, lower, upper = (
        v[positions] if v.ndim == 2 else (np.array if own else np.asarray)(np.broadcast_to(v, (k, n)))
        for v in (p.start, p.lower, p.upper)
    )
    wrong: dict[int, str] = {}
    _own(p, datasets, positions, (start, lower, upper), wrong)
    if p.inside:
        start = moved_inside(start, lower, upper, p.fixed)
    with np.errstate(invalid="ignore"):
        settled_start = settled(start, lower, upper, p.fixed)
        fine = np.isfinite(settled_start).all(axis=1)
        fine &= ((lower <= settled_start) & (settled_start <= upper)).all(axis=1)
        fine &= ~(np.isinf(lower) & (lower == upper)).any(axis=1)
    for i in np.flatnonzero(~fine).tolist():
        if i not in wrong:
            wrong[i] = _why(p, start[i], lower[i], upper[i])
    return Starts(settled_start, lower, upper, wrong)


def _own(
    p: Parameters,
    datasets: Datasets,
    positions: NDArray[np.intp],
    into: tuple[FloatArray, FloatArray, FloatArray],
    wrong: dict[int, str],
) -> None:
    """What callables of a dataset say of each."""
    if p.start_of is None and p.bounds_of is None:
        return
    start, lower, upper = into

    def one(i: int, dataset: Any) -> None:
        try:
            if p.start_of is not None:
                start[i] = made_start(p, dataset, None if p.start.ndim == 1 else start[i])
            if p.bounds_of is not None:
                lower[i], upper[i] = row_bounds(p.structure, p.bounds_of(dataset))
        except InvalidInputError as exc:
            wrong[i] = str(exc)

    datasets.block(positions).visit(one)


def _why(p: Parameters, start: FloatArray, lower: FloatArray, upper: FloatArray) -> str:
    try:
        frame_of(p, start, lower, upper)
    except InvalidInputError as exc:
        return str(exc)
    raise AssertionError("a start that was found wrong is right")
