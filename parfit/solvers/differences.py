"""Derivatives by difference quotients.

`ForwardDifferences` gives the Jacobian that `scipy.optimize.least_squares` makes for itself with ``jac="2-point"``:
the same steps, so the same numbers, at a third of what SciPy's general code costs around each evaluation
(benchmarks/rows_vs_peers.py, the fourth table). Steps are the root of the machine epsilon of what the objective gives,
the third root for central differences.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from parfit.core.problem import BoundProblem

__all__ = ["ForwardDifferences", "numerical_gradient", "numerical_jacobian"]

FloatArray = NDArray[np.float64]


class ForwardDifferences:
    """The residuals of a problem, and their Jacobian by forward differences; backward where a bound is in the way.

    The residuals of the last call are kept: a solver asks for the Jacobian where it has just been.
    """

    def __init__(self, problem: BoundProblem) -> None:
        self._problem = problem
        self._bounded = problem.bounded
        self._relative = math.sqrt(problem.resolution)
        self._z: FloatArray | None = None
        self._r: FloatArray | None = None

    def residuals(self, z: FloatArray) -> FloatArray:
        """The residuals, shape (m,), for the solver to keep or to write into."""
        r = self._problem.residuals(z)
        self._z, self._r = z.copy(), r
        return r.copy()

    def jacobian(self, z: FloatArray) -> FloatArray:
        """The Jacobian, shape (m, n)."""
        problem, base = self._problem, self._r
        if base is None or not np.array_equal(z, self._z):  # type: ignore[arg-type]
            base = problem.residuals(z)
        transposed = np.empty((len(z), len(base)))
        for i, at in enumerate(z.tolist()):
            there = at + self._step(i, at)
            near = z.copy()
            near[i] = there
            np.subtract(problem.seen_residuals(near), base, out=transposed[i])
            transposed[i] /= there - at
        return transposed.T

    def _step(self, i: int, at: float) -> float:
        step = self._relative * max(1.0, abs(at))
        if at < 0:
            step = -step
        if self._bounded:
            below, above = at - float(self._problem.lower[i]), float(self._problem.upper[i]) - at
            if not -below <= step <= above:
                if abs(step) <= max(below, above):
                    return -step
                return above if above >= below else -below
        return step


def numerical_jacobian(problem: BoundProblem, z: FloatArray) -> FloatArray:
    """Central differences of the residuals, shape (m, n), one-sided at a bound."""
    columns = []
    for i in range(len(z)):
        up, down = _either_side(problem, z, i)
        columns.append((problem.residuals(up) - problem.residuals(down)) / (up[i] - down[i]))
    return np.stack(columns, axis=1)


def numerical_gradient(problem: BoundProblem, z: FloatArray) -> FloatArray:
    """Central differences of the objective, shape (n,), one-sided at a bound."""
    g = np.empty(len(z))
    for i in range(len(z)):
        up, down = _either_side(problem, z, i)
        g[i] = (problem.fun(up) - problem.fun(down)) / (up[i] - down[i])
    return g


def _either_side(problem: BoundProblem, z: FloatArray, i: int) -> tuple[FloatArray, FloatArray]:
    step = math.cbrt(problem.resolution) * max(abs(z[i]), 1.0)
    up, down = z.copy(), z.copy()
    up[i] = min(z[i] + step, problem.upper[i])
    down[i] = max(z[i] - step, problem.lower[i])
    return up, down
