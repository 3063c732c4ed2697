"""Levenberg-Marquardt for one row, with box bounds.

The radius of the trust region follows the ratio of what a step gains to what the model promises; that, the scaling by
the longest columns of the Jacobian so far, and the tests for the end are MINPACK's (J.J. Moré, The Levenberg-Marquardt
algorithm: implementation and theory, in Numerical Analysis, Lecture Notes in Mathematics 630, Springer 1978; J.J. Moré,
B.S. Garbow, K.E. Hillstrom, User guide for MINPACK-1, ANL-80-74, Argonne 1980), so that what `leastsq` solves is solved
here. Bounds by an active set: a parameter at its bound whose gradient points outside is held, the step is cut at the
bounds, and the others move once more given what was cut off.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import jax.numpy as jnp
from jax import Array

from parfit.batched.ends import End
from parfit.batched.lane import Lane
from parfit.batched.linalg import epsilon, factor
from parfit.batched.normal import normal_equations
from parfit.batched.trust import trust_step
from parfit.core.protocols import BatchedSolver

__all__ = ["LM", "LMState"]

#: The first radius, in lengths of the start.
_FIRST_RADIUS = 100.0
#: A step that gains less than this of what the model promises is not taken.
_LEAST_RATIO = 1e-4


class LMState(NamedTuple):
    """Where one row is.

    Attributes
    ----------
    x, trial : Array, shape (n,)
        The best parameters so far, and those that are evaluated next.
    cost, start_cost
        Half the sum of squares at `x` and at the start; infinite before the first evaluation.
    A, g
        The normal equations at `x`, shapes (n, n) and (n,).
    D : Array, shape (n,)
        The squared scale of each parameter.
    radius, damping
        The radius of the trust region, and the damping of the last step.
    length, fall, slope
        Of the trial: its scaled distance from `x`, the fall of the cost that the model promises, and ``g @ step``.
    nfev, nit, nonfinite
        Counts: of evaluations, steps taken, and trials with NaN or infinity since the last step.
    end
        Why it has ended (`End`); between `step` and `terminate`, why the tests of `ftol` and `xtol` would end it.
    """

    x: Array
    trial: Array
    cost: Array
    start_cost: Array
    A: Array
    g: Array
    D: Array
    radius: Array
    damping: Array
    length: Array
    fall: Array
    slope: Array
    nfev: Array
    nit: Array
    nonfinite: Array
    end: Array

    @property
    def njev(self) -> Array:
        """The number of Jacobians: one comes with each evaluation."""
        return self.nfev


@dataclass(frozen=True)
class LM(BatchedSolver):
    """Levenberg-Marquardt, for residuals.

    Parameters
    ----------
    ftol, xtol, gtol
        As for ``method="lm"`` of `scipy.optimize.least_squares`: the relative fall of the cost, the relative length of
        a step, and the cosine between the residuals and a column of the Jacobian, below which a fit has converged.
    max_nfev
        The limit of evaluations, by default 100 (n + 1).
    x_scale
        The size of each free parameter, or of all; by default the Jacobian tells.
    """

    ftol: float = 1e-8
    xtol: float = 1e-8
    gtol: float = 1e-8
    max_nfev: int | None = None
    x_scale: float | tuple[float, ...] | None = None
    name: ClassVar[str] = "lm"
    residuals: ClassVar[bool] = True

    def init(self, lane: Lane) -> LMState:
        x = lane.start
        n = x.shape[0]
        zero = jnp.zeros((), x.dtype)
        count = jnp.zeros((), jnp.int32)
        return LMState(
            x=x,
            trial=x,
            cost=zero + jnp.inf,
            start_cost=zero + jnp.inf,
            A=jnp.zeros((n, n), x.dtype),
            g=jnp.zeros_like(x),
            D=jnp.zeros_like(x),
            radius=zero,
            damping=zero,
            length=zero,
            fall=zero,
            slope=zero,
            nfev=count,
            nit=count,
            nonfinite=count,
            end=count,
        )

    def step(self, lane: Lane, state: LMState) -> LMState:
        A, g, cost = normal_equations(lane.objective, state.trial, together=lane.together)
        return self._proposed(lane, self._judged(state, A, g, cost))

    def _judged(self, s: LMState, A: Array, g: Array, cost: Array) -> LMState:
        """Take the trial or stay, and change the radius by what it gained."""
        first = s.nfev == 0
        finite = jnp.isfinite(cost) & jnp.isfinite(jnp.sum(g)) & jnp.isfinite(jnp.sum(jnp.diagonal(A)))
        size = jnp.where((s.cost > 0) & ~first, s.cost, 1)
        gain = jnp.where(finite & (cost < 100 * s.cost), 1 - cost / size, -1)
        promise = s.fall / size
        ratio = jnp.where(promise > 0, gain / jnp.where(promise > 0, promise, 1), 0)
        taken = finite & (first | ((ratio >= _LEAST_RATIO) & (cost < s.cost)))
        slope = s.slope / (2 * size)
        shrink = jnp.where(gain >= 0, 0.5, 0.5 * slope / (slope + 0.5 * gain))
        shrink = jnp.where((gain <= -1) | ~(shrink >= 0.1), 0.1, shrink)
        poor = ratio <= 0.25
        good = (s.damping == 0) | (ratio >= 0.75)
        radius = jnp.where(poor, shrink * jnp.minimum(s.radius, 10 * s.length), jnp.where(good, 2 * s.length, s.radius))
        damping = jnp.where(poor, s.damping / shrink, jnp.where(good, 0.5 * s.damping, s.damping))
        D = jnp.where(taken, self._scale(s.D, A), s.D)
        x = jnp.where(taken, s.trial, s.x)
        reach = jnp.sqrt(jnp.sum(jnp.where(D > 0, D, 1) * x * x))
        eps = epsilon(cost.dtype)
        ftol, xtol = max(self.ftol, 2 * eps), max(self.xtol, eps)
        small_fall = ~first & (jnp.abs(gain) <= ftol) & (promise <= ftol) & (ratio <= 2)
        small_step = ~first & (radius <= xtol * reach)
        claims = ((small_fall & small_step, End.BOTH), (small_fall, End.COST), (small_step, End.STEP))
        return s._replace(
            x=x,
            cost=jnp.where(taken | first, cost, s.cost),
            start_cost=jnp.where(first, cost, s.start_cost),
            A=jnp.where(taken, A, s.A),
            g=jnp.where(taken, g, s.g),
            D=D,
            radius=jnp.where(first, _FIRST_RADIUS * jnp.where(reach > 0, reach, 1), radius),
            damping=damping,
            nfev=s.nfev + 1,
            nit=s.nit + (taken & ~first),
            nonfinite=jnp.where(taken, 0, s.nonfinite + ~finite),
            end=_first_of(claims, End.RUNNING),
        )

    def _scale(self, D: Array, A: Array) -> Array:
        if self.x_scale is None:
            return jnp.maximum(D, jnp.diagonal(A))
        return jnp.broadcast_to(1 / jnp.asarray(self.x_scale, A.dtype) ** 2, D.shape)

    def _proposed(self, lane: Lane, s: LMState) -> LMState:
        """The next trial."""
        D = jnp.where(s.D > 0, s.D, 1)
        held = lane.held(s.x, s.g)
        A, g = _reduced(s.A, s.g, held) if lane.bounded else (s.A, s.g)
        step, length, damping = trust_step(A, g, D, s.radius, s.damping)
        if lane.bounded:
            step = _cut(lane, s, step, held, damping * D)
            length = jnp.sqrt(jnp.sum(D * step * step))
        slope = s.g @ step
        return s._replace(
            trial=lane.inside(s.x + step),  # which rounding may have left
            radius=jnp.where(s.nfev == 1, jnp.minimum(s.radius, length), s.radius),
            damping=damping,
            length=length,
            fall=-slope - 0.5 * (step @ (s.A @ step)),
            slope=slope,
        )

    def terminate(self, lane: Lane, state: LMState) -> Array:
        s = state
        limit = self.max_nfev or 100 * (s.x.shape[0] + 1)
        norms = jnp.sqrt(jnp.diagonal(s.A) * 2 * s.cost)
        cosines = jnp.where(lane.held(s.x, s.g) | (norms == 0), 0, jnp.abs(s.g) / jnp.where(norms > 0, norms, 1))
        ends = (
            ((s.nfev == 1) & (s.nonfinite > 0), End.NONFINITE_START),
            (s.cost == 0, End.EXACT),
            (jnp.max(cosines) <= self.gtol, End.GRADIENT),
            (s.end != int(End.RUNNING), s.end),
            (s.nfev >= limit, End.LIMIT),
        )
        return _first_of(ends, End.RUNNING)


def _first_of(ends: Sequence[tuple[Array, Array | End]], other: End) -> Array:
    """Of the reasons for an end the first that is met."""
    return jnp.select([met for met, _ in ends], [jnp.int32(end) for _, end in ends], jnp.int32(other))


def _reduced(A: Array, g: Array, held: Array) -> tuple[Array, Array]:
    """The normal equations in what is not held; what is will not move."""
    kept = ~(held[:, None] | held[None, :])
    return jnp.where(kept, A, jnp.eye(len(g), dtype=A.dtype)), jnp.where(held, 0, g)


def _cut(lane: Lane, s: LMState, step: Array, held: Array, damping: Array) -> Array:
    """The step inside the bounds: where it was cut, the others move once more, given what was cut off."""
    cut = lane.inside(s.x + step) - s.x
    stopped = ~held & (cut != step)
    given = jnp.where(stopped, cut, 0)
    A, g = _reduced(s.A + jnp.diag(damping), s.g + s.A @ given, held | stopped)
    again = factor(A).solve(-g)
    moved = lane.inside(s.x + jnp.where(stopped, cut, again)) - s.x
    return jnp.where(jnp.any(stopped), moved, cut)
