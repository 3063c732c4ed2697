"""The simplex method of Nelder and Mead for one row, for objectives without useful derivatives.

J.A. Nelder, R. Mead, A simplex method for function minimization, The Computer Journal 7, 1965; bounds by clipping, and
the coefficients for many parameters of F. Gao, L. Han, Implementing the Nelder-Mead simplex algorithm with adaptive
parameters, Computational Optimization and Applications 51, 2012. Start simplex, order of the moves and tests are those
of `scipy.optimize.minimize`, so that a row takes the same path.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import jax.numpy as jnp
from jax import Array

from parfit.batched.ends import End
from parfit.batched.lane import Lane
from parfit.core.protocols import BatchedSolver

__all__ = ["NelderMead", "NelderMeadState"]

#: What is evaluated: a vertex of the first simplex, a move of the worst vertex, or a vertex of a shrunk simplex.
_FIRST, _REFLECT, _EXPAND, _OUTSIDE, _INSIDE, _SHRINK = range(6)


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
    nfev, njev, nit, nonfinite
        Counts, as in the other solvers.
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
    nfev: Array
    njev: Array
    nit: Array
    nonfinite: Array
    end: Array


@dataclass(frozen=True)
class NelderMead(BatchedSolver):
    """Nelder and Mead's method.

    Parameters
    ----------
    xatol, fatol
        A fit has converged where the vertices differ by no more than this, and their values by no more than that.
    maxiter, maxfev
        The limits of iterations and evaluations, by default 200 a free parameter.
    adaptive
        Whether the coefficients follow the number of parameters.
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
            nfev=count,
            njev=count,
            nit=count,
            nonfinite=count,
            end=count,
        )

    def step(self, lane: Lane, state: NelderMeadState) -> NelderMeadState:
        raw = lane.cost(state.trial)
        finite = jnp.isfinite(raw)
        s = self._taken(lane, state, jnp.where(jnp.isnan(raw), jnp.inf, raw))
        better = s.values[0] < state.cost
        return s._replace(
            x=jnp.where(better, s.simplex[0], state.x),
            cost=jnp.where(state.nfev == 0, raw, jnp.where(better, s.values[0], state.cost)),
            start_cost=jnp.where(state.nfev == 0, raw, state.start_cost),
            nfev=state.nfev + 1,
            nonfinite=jnp.where(finite, 0, state.nonfinite + 1),
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
        point = jnp.where(kept, s.reflected, s.trial)
        values = jnp.where(placed, value, jnp.where(at_worst, jnp.where(kept, s.value, value), s.values))
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
        return s._replace(
            trial=jnp.where((phase == _FIRST) | (phase == _SHRINK), simplex[jnp.minimum(vertex, last)], move),
            simplex=simplex,
            values=values,
            reflected=jnp.where(reflecting, s.trial, s.reflected),
            value=jnp.where(reflecting, value, s.value),
            phase=phase,
            vertex=vertex.astype(jnp.int32),
            nit=s.nit + complete,
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
        ends = (
            ((s.nfev == 1) & ~jnp.isfinite(s.start_cost), End.NONFINITE_START),
            (limit, End.LIMIT),
            (ready & (spread <= self.xatol) & (fall <= self.fatol), End.BOTH),
        )
        return jnp.select([met for met, _ in ends], [jnp.int32(end) for _, end in ends], jnp.int32(End.RUNNING))
