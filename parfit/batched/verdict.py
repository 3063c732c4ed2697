"""What a solver's end is worth, for all rows that have ended at once: the statuses that the rows engine gives too.

A solver stops where its tests are met; that the cost cannot be lowered any more is looked at here, with a Newton step
from the normal equations or the Hessian that it ended with.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from parfit.batched.blocks import Finished
from parfit.batched.ends import End
from parfit.batched.loop import Loop
from parfit.core.solution import Status

__all__ = ["Verdict", "held_of", "judged"]

FloatArray = NDArray[np.float64]

_STATUS = {
    End.RUNNING: Status.NOT_RUN,
    End.GRADIENT: Status.CONVERGED,
    End.COST: Status.CONVERGED,
    End.STEP: Status.CONVERGED,
    End.BOTH: Status.CONVERGED,
    End.EXACT: Status.CONVERGED,
    End.LIMIT: Status.MAX_STEPS,
    End.NO_DESCENT: Status.STALLED,
    End.NONFINITE_START: Status.NONFINITE,
}
#: What each end says, by the solver's name; where it has nothing of its own, what it says for all. Least squares says
#: what the rows engine's does.
_SENTENCES: dict[str, dict[End, str]] = {
    "": {
        End.RUNNING: Status.NOT_RUN.sentence,
        End.LIMIT: Status.MAX_STEPS.sentence,
        End.EXACT: "the cost is zero",
        End.NO_DESCENT: "no lower cost was found along the steepest descent",
        End.NONFINITE_START: "the objective is NaN or infinite at the start",
    },
    "lm": {
        End.GRADIENT: "`gtol` termination condition is satisfied.",
        End.COST: "`ftol` termination condition is satisfied.",
        End.STEP: "`xtol` termination condition is satisfied.",
        End.BOTH: "Both `ftol` and `xtol` termination conditions are satisfied.",
        End.NONFINITE_START: "the residuals hold NaN or infinity at the start",
    },
    "L-BFGS-B": {
        End.GRADIENT: "gtol: the projected gradient is small enough",
        End.COST: "ftol: the relative fall of the cost is small enough",
    },
    "Nelder-Mead": {End.BOTH: "xatol and fatol: the simplex is small enough"},
}
#: As in the rows engine: a cosine below which residuals are orthogonal, and falls of the cost that are none, relative
#: to it and to that of the start.
_ORTHOGONAL = 1e-2
_FALLS = 1e-6
_NO_GAIN = 1e-10
#: A step that is none, relative to the parameters.
_SMALL_STEP = 1e-3
_SHARES = (1.0, 0.3, 0.1, 0.01)
_ORDER = tuple(Status)


def held_of(lower: FloatArray, upper: FloatArray, x: FloatArray, g: FloatArray) -> NDArray[np.bool_]:
    """What stands at a bound with its gradient pointing outside, or cannot move; shape (k, n)."""
    held: NDArray[np.bool_] = ~(lower < upper) | ((x <= lower) & (g >= 0)) | ((x >= upper) & (g <= 0))
    return held


#: Positions in `Status`, by the number of the end.
_CODES = np.array([_ORDER.index(_STATUS[end]) for end in End], dtype=np.int8)


class Verdict(NamedTuple):
    """Of each row: status, message and messages as in `Solutions`, and the optimality."""

    status: NDArray[np.int8]
    message: NDArray[np.intp]
    messages: list[str]
    optimality: FloatArray

    def change(self, rows: NDArray[np.intp], status: Status, text: str) -> None:
        """Another status, with the reason, for some rows."""
        for code in np.unique(self.message[rows]).tolist():
            self.messages.append(f"{text} ({self.messages[code]})")
            self.message[rows[self.message[rows] == code]] = len(self.messages) - 1
        self.status[rows] = _ORDER.index(status)


def judged(loop: Loop, found: Finished) -> Verdict:
    """What the end of each row is worth."""
    state, name = found.state, loop.solver.name
    own = {**_SENTENCES[""], **_SENTENCES.get(name, {})}
    messages = [own.get(end, "converged") for end in End]
    said = Verdict(_CODES[state.end], state.end.astype(np.intp), messages, np.zeros(len(state.end)))
    x, g = state.x, state.g
    held = held_of(found.read("lower"), found.read("upper"), x, g)
    slope = np.where(held, 0.0, g)
    converged = said.status == _ORDER.index(Status.CONVERGED)
    M = state.A if loop.solver.residuals else found.extra
    if M is None:
        said.optimality[:] = np.nan
        return said
    said.optimality[:] = np.abs(slope).max(axis=1, initial=0.0)
    flat = (np.diagonal(M, axis1=1, axis2=2) == 0).all(axis=1) & (slope == 0).all(axis=1) & (state.cost != 0)
    moved = (x != found.read("start")).any(axis=1)
    said.change(np.flatnonzero(converged & flat & ~moved), Status.UNMOVED, Status.UNMOVED.sentence)
    short = _short(loop, found, M, slope, held, converged & ~flat)
    if not loop.solver.residuals:
        kinks = _kinks(found, M, slope, converged & ~flat)
        said.change(np.setdiff1d(kinks, short), Status.STALLED, "the slope is not zero, and there is no curvature")
    beside = state.nonfinite[short] > 0
    said.change(short[beside], Status.NONFINITE, "stopped beside NaN or infinity")
    said.change(short[~beside], Status.STALLED, "the cost still falls")
    return said


def _short(
    loop: Loop,
    found: Finished,
    M: FloatArray,
    slope: FloatArray,
    held: NDArray[np.bool_],
    converged: NDArray[np.bool_],
) -> NDArray[np.intp]:
    """Rows whose solver claims success where the cost still falls."""
    state = found.state
    scale = np.sqrt(np.abs(np.diagonal(M, axis1=1, axis2=2)))
    with np.errstate(over="ignore", invalid="ignore"):
        reach = scale * np.sqrt(2 * np.abs(state.cost))[:, None]
        steep = (np.abs(slope) > _ORTHOGONAL * reach).any(axis=1)
    cost = np.abs(state.cost)
    fall = np.maximum(max(_FALLS, 10 * getattr(loop.solver, "ftol", 0.0)) * cost, _NO_GAIN * np.abs(state.start_cost))
    high = (cost > fall) | (not loop.solver.residuals)  # a sum of squares falls by no more than what it is
    asked = np.flatnonzero(converged & steep & high & np.isfinite(M).all(axis=(1, 2)))
    if not len(asked):
        return asked
    step, promise = _newton(M[asked], slope[asked], held[asked], np.where(scale[asked] > 0, scale[asked], 1.0))
    worth = np.flatnonzero(promise > fall[asked])
    asked, step = asked[worth], step[worth]
    if not len(asked):
        return asked
    rows = found.rows(asked)
    short = np.zeros(len(asked), dtype=bool)
    for share in _SHARES:
        there = np.clip(state.x[asked] + share * step, rows["lower"], rows["upper"])
        short |= loop.costs(rows, there.astype(state.x.dtype)) < (state.cost - fall)[asked]
    # beside NaN, where a step that is short enough does not lower the cost at all, there is nothing to show
    beside = state.nonfinite[asked] > 0
    found_short: NDArray[np.intp] = asked[short | beside]
    return found_short


def _kinks(found: Finished, H: FloatArray, slope: FloatArray, converged: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Scalars that claim success on a slope without curvature, as at the edge of a maximum of absolute values."""
    state = found.state
    steep = (np.abs(slope) * _SMALL_STEP * (1 + np.abs(state.x)) > _FALLS * np.abs(state.cost)[:, None]).any(axis=1)
    asked = np.flatnonzero(converged & steep & np.isfinite(H).all(axis=(1, 2)))
    if not len(asked):
        return asked
    scale = np.sqrt(np.abs(np.diagonal(H[asked], axis1=1, axis2=2)))
    scale = np.where(scale > 0, scale, 1.0)
    values, V = np.linalg.eigh(H[asked] / scale[:, :, None] / scale[:, None, :])
    level = len(scale[0]) * np.finfo(float).eps * np.abs(values).max(axis=1, keepdims=True)
    along = np.einsum("kij,ki->kj", V, slope[asked] / scale)
    on_level = np.where(np.abs(values) <= level, along, 0.0)
    part = np.abs(np.einsum("kij,kj->ki", V, on_level) * scale)  # of the slope, where nothing curves
    still = part * _SMALL_STEP * (1 + np.abs(state.x[asked])) > _FALLS * np.abs(state.cost[asked])[:, None]
    kinks: NDArray[np.intp] = asked[still.any(axis=1)]
    return kinks


def _newton(
    M: FloatArray, slope: FloatArray, held: NDArray[np.bool_], scale: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Newton's step in what is not held, and by how much it promises to lower the cost."""
    inner = ~(held[:, :, None] | held[:, None, :])
    scaled = np.where(inner, M, 0.0) / scale[:, :, None] / scale[:, None, :]
    values, V = np.linalg.eigh(scaled)
    kept = values > len(scale[0]) * np.finfo(float).eps * np.abs(values).max(axis=1, keepdims=True)
    along = np.einsum("kij,ki->kj", V, slope / scale)
    inverse = np.where(kept, 1 / np.where(kept, values, 1.0), 0.0)
    step = -np.einsum("kij,kj->ki", V, along * inverse) / scale
    return step, 0.5 * (along**2 * inverse).sum(axis=1)
