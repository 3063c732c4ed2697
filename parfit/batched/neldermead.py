"""The simplex method of Nelder and Mead for one row, for objectives without useful derivatives.

J.A. Nelder, R. Mead, A simplex method for function minimization, The Computer Journal 7, 1965; bounds by clipping, and
the coefficients for many parameters of F. Gao, L. Han, Implementing the Nelder-Mead simplex algorithm with adaptive
parameters, Computational Optimization and Applications 51, 2012. Start simplex, order of the moves and tests are those
of `scipy.optimize.minimize`, so that a row takes the same path. One evaluation is one step:

      FIRST ──▶ REFLECT ─┬▶ EXPAND ─────────────────────────▶ REFLECT
    (n + 1 points)       ├──────────────────────────────────▶ REFLECT
                         └▶ OUTSIDE or INSIDE (contraction) ─▶ REFLECT
                                        └▶ SHRINK (n points) ▶ REFLECT
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import jax.numpy as jnp
from jax import Array

from parfit.batched.ends import End
from parfit.batched.lane import Lane
from parfit.batched.linalg import epsilon
from parfit.core.protocols import BatchedSolver

__all__ = ["NelderMead", "NelderMeadState"]

#: What is evaluated: a vertex of the first simplex, a move of the worst vertex, or a vertex of a shrunk simplex.
_FIRST, _REFLECT, _EXPAND, _OUTSIDE, _INSIDE, _SHRINK = range(6)
#: Distances and differences of values below this, in units of the machine epsilon, are rounding errors.
_ROUNDING = 2


class NelderMeadState(NamedTuple):
    """Where one row is.

    Attributes
    ----------
    x, trial : Array, shape (n,)
        The best parameters so far, and those that are evaluated next.
    cost, start_cost
        The objective at `x` and at the start.
    g : Array, shape (n,)
        Zeros: there is no gradient.
    simplex, values : Array, shapes (n + 1, n) and (n + 1,)
        The vertices, best first, and their values; infinite for those that stand for parameters that are not free.
    reflected, value
        The reflected point, and its value.
    phase, vertex
        What is evaluated next, and which vertex it is.
    bottomless
        Whether the objective has been minus infinity somewhere.
    nfev, njev, nit, nonfinite
        Counts: of evaluations, gradients (none), iterations with the first simplex as one, and trials with NaN or
        infinity since the last that became a vertex.
    end
        Why it has ended (`End`).
    """

    x: Array
    trial: Array
    cost: Array
    start_cost: Array
    g: Array
    simplex: Array
    values: Array
    reflected: Array
    value: Array
    phase: Array
    vertex: Array
    bottomless: Array
    nfev: Array
    njev: Array
    nit: Array
    nonfinite: Array
    end: Array


@dataclass(frozen=True)
class NelderMead(BatchedSolver):
    """Nelder and Mead's method, for scalars; residuals are taken as half their sum of squares.

    Parameters
    ----------
    xatol, fatol
        As for ``method="Nelder-Mead"`` of `scipy.optimize.minimize`: a fit has converged where no vertex differs from
        the best by more than `xatol` in any parameter, nor by more than `fatol` in its value.
    maxiter, maxfev
        The limits of iterations and evaluations, by default 200 a free parameter; one that is given lifts the other.
    adaptive
        Whether the coefficients follow the number of free parameters.
    """

    xatol: float = 1e-4
    fatol: float = 1e-4
    maxiter: float | None = None
    maxfev: float | None = None
    adaptive: bool = False
    name: ClassVar[str] = "Nelder-Mead"
    residuals: ClassVar[bool] = False

    def init(self, lane: Lane) -> NelderMeadState:
        x = lane.inside(lane.start)
        n = len(x)
        free = lane.free
        own = jnp.argsort(~free, stable=True)  # the coordinate that each vertex moves: those that are free first
        moved = jnp.where(x != 0, 1.05 * x, 0.00025)
        if lane.bounded:
            moved = lane.inside(jnp.where(moved > lane.upper, 2 * lane.upper - moved, moved))
        vertices = jnp.where(jnp.arange(n)[None, :] == own[:, None], moved[None, :], x[None, :])
        count, zero = jnp.zeros((), jnp.int32), jnp.zeros((), x.dtype)
        return NelderMeadState(
            x=x,
            trial=x,
            cost=zero + jnp.inf,
            start_cost=zero + jnp.inf,
            g=jnp.zeros_like(x),
            simplex=jnp.concatenate([x[None, :], vertices]),
            values=jnp.full(n + 1, jnp.inf, x.dtype),
            reflected=x,
            value=zero,
            phase=count + _FIRST,
            vertex=count,
            bottomless=jnp.zeros((), bool),
            nfev=count,
            njev=count,
            nit=count,
            nonfinite=count,
            end=count,
        )

    def step(self, lane: Lane, state: NelderMeadState) -> NelderMeadState:
        raw = lane.cost(state.trial)
        start, finite = state.nfev == 0, jnp.isfinite(raw)
        s = self._taken(lane, state, jnp.where(finite, raw, jnp.inf))
        return s._replace(
            cost=jnp.where(start, raw, s.cost),
            start_cost=jnp.where(start, raw, s.start_cost),
            bottomless=s.bottomless | (raw == -jnp.inf),
            nfev=s.nfev + 1,
            nit=s.nit + (start & finite),
            nonfinite=jnp.where(finite, s.nonfinite, state.nonfinite + 1),
        )

    def _taken(self, lane: Lane, s: NelderMeadState, value: Array) -> NelderMeadState:
        """What a value means for the simplex, and what is evaluated next."""
        last = jnp.sum(lane.free)  # the worst vertex; those beyond it stand for parameters that are not free
        worst, second = s.values[last], s.values[jnp.maximum(last - 1, 0)]
        first, shrinking = s.phase == _FIRST, s.phase == _SHRINK
        reflecting, expanding = s.phase == _REFLECT, s.phase == _EXPAND
        outside, inside = s.phase == _OUTSIDE, s.phase == _INSIDE
        expand = reflecting & (value < s.values[0])
        contract = reflecting & ~expand & (value >= second)
        shrink = (outside & (value > s.value)) | (inside & (value >= worst))
        placed = (first | shrinking) & (jnp.arange(len(s.values)) == s.vertex)
        replaced = (reflecting & ~expand & ~contract) | expanding | (outside & ~shrink) | (inside & ~shrink)
        kept = expanding & (value >= s.value)  # the expansion is no better than the reflection
        at_worst = replaced & (jnp.arange(len(s.values)) == last)
        point, height = jnp.where(kept, s.reflected, s.trial), jnp.where(kept, s.value, value)
        values = jnp.where(placed | at_worst, height, s.values)
        simplex = jnp.where(at_worst[:, None], point[None, :], s.simplex)
        complete = replaced | ((first | shrinking) & (s.vertex >= last))
        order = jnp.argsort(values, stable=True)
        values = jnp.where(complete, values[order], values)
        simplex = jnp.where(complete, simplex[order], simplex)
        rho, chi, psi, sigma = self._coefficients(last.astype(value.dtype))
        best = simplex[0]
        shrunk = lane.inside(best + sigma * (simplex - best))
        simplex = jnp.where(shrink & (jnp.arange(len(values)) > 0)[:, None], shrunk, simplex)
        vertex = jnp.where(shrink, 1, jnp.where(complete, 0, s.vertex + (first | shrinking)))
        phase = jnp.where(
            complete,
            _REFLECT,
            jnp.where(
                expand,
                _EXPAND,
                jnp.where(contract, jnp.where(value < worst, _OUTSIDE, _INSIDE), jnp.where(shrink, _SHRINK, s.phase)),
            ),
        ).astype(jnp.int32)
        centre = jnp.sum(jnp.where((jnp.arange(len(values)) < last)[:, None], simplex, 0), 0) / jnp.maximum(last, 1)
        far = jnp.select([phase == _REFLECT, phase == _EXPAND, phase == _OUTSIDE], [rho, rho * chi, psi * rho], -psi)
        move = lane.inside((1 + far) * centre - far * simplex[last])
        # a mean of equal numbers may be off by a rounding error
        move = jnp.where(lane.free, move, s.x)
        becomes = first | shrinking | replaced
        better = becomes & (height < s.cost)
        return s._replace(
            x=jnp.where(better, point, s.x),
            cost=jnp.where(better, height, s.cost),
            trial=jnp.where((phase == _FIRST) | (phase == _SHRINK), simplex[jnp.minimum(vertex, last)], move),
            simplex=simplex,
            values=values,
            reflected=jnp.where(reflecting, s.trial, s.reflected),
            value=jnp.where(reflecting, value, s.value),
            phase=phase,
            vertex=vertex.astype(jnp.int32),
            nit=s.nit + (complete & ~first),
            nonfinite=jnp.where(becomes, 0, s.nonfinite),
        )

    def _coefficients(self, n: Array) -> tuple[Array | float, Array | float, Array | float, Array | float]:
        """Of reflection, expansion, contraction and shrinking."""
        if not self.adaptive:
            return 1.0, 2.0, 0.5, 0.5
        return 1.0, 1 + 2 / n, 0.75 - 1 / (2 * n), 1 - 1 / n

    def terminate(self, lane: Lane, state: NelderMeadState) -> Array:
        s = state
        last = jnp.sum(lane.free)
        there = jnp.arange(len(s.values)) <= last
        spread = jnp.max(jnp.where(there[:, None], jnp.abs(s.simplex - s.simplex[0]), 0))
        fall = jnp.max(jnp.where(there, jnp.abs(s.values - s.values[0]), 0))
        # both limits are 200 a parameter where neither is given; one that is given makes the other infinite
        neither = self.maxiter is None and self.maxfev is None
        usual = 200.0 * last if neither else jnp.inf
        most = usual if self.maxiter is None else self.maxiter
        calls = usual if self.maxfev is None else self.maxfev
        ready = s.phase == _REFLECT
        limit = (s.nfev >= calls) | (ready & (s.nit >= most))
        eps = _ROUNDING * epsilon(s.x.dtype)
        small = spread <= jnp.maximum(self.xatol, eps * jnp.max(jnp.abs(s.simplex[0])))
        small &= fall <= jnp.maximum(self.fatol, eps * jnp.abs(s.values[0]))
        ends = (
            ((s.nfev == 1) & ~jnp.isfinite(s.start_cost), End.NONFINITE_START),
            (limit & (last > 0), End.LIMIT),
            (ready & small & s.bottomless, End.NO_DESCENT),
            (ready & small, End.BOTH),
        )
        return jnp.select([met for met, _ in ends], [jnp.int32(end) for _, end in ends], jnp.int32(End.RUNNING))
