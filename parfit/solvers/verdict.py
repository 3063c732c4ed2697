"""What a solver's own word is worth: success is checked before it is called ``converged``.

SciPy reports success where it stopped beside a wall of NaN, where nothing ever moved, and where NaN came out.
`screen` looks at the start before the solver runs, `judge` at the end.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parfit.core.problem import BoundProblem
from parfit.core.solution import Solution, Status

__all__ = ["at_bound", "guarded", "judge", "numerical_gradient", "numerical_jacobian", "screen"]

FloatArray = NDArray[np.float64]

#: A parameter within this of its bound, relative to the bound's size, is at the bound (as SciPy's `trf`).
_BOUND_RTOL = 1e-8
#: How far around a solution NaN is looked for, relative to each parameter.
_WALL_STEP = 1e-4
#: The cosine between the residuals and a column of the Jacobian below which a point is stationary enough.
_ORTHOGONAL = 1e-2
#: Steps of the difference quotients: the cube root of the machine epsilon balances truncation and rounding.
_CENTRAL_STEP = float(np.finfo(float).eps ** (1 / 3))


def screen(problem: BoundProblem) -> Solution | None:
    """Call the objective at the start; the solution where there is nothing to solve, else None."""
    value = problem.start()
    gradient_too = type(value) is tuple
    if gradient_too:
        value = value[0]
    z = problem.x0
    m = problem.n_residuals
    if m is not None and m >= 0:
        if m == 0:
            return _ended(problem, Status.INVALID, "the objective gave no residuals (an array of length 0)")
        if m < problem.n:
            text = f"{m} residuals cannot determine {problem.n} free parameters"
            return _ended(problem, Status.INVALID, text)
        finite = bool(np.isfinite(value).all())
        cost = 0.5 * float(value.dot(value)) if finite else math.nan
    else:
        cost = float(value)
        finite = math.isfinite(cost)
    if not finite:
        bad = "residuals hold" if m is not None and m >= 0 else "objective is"
        return _ended(problem, Status.NONFINITE, f"the {bad} NaN or infinite at the start")
    if problem.n == 0:
        solution = _ended(problem, Status.CONVERGED, "no parameter is free: the objective was evaluated")
        solution.cost = problem.fun(z)
        solution.optimality = 0.0
        return solution
    return None


def _ended(problem: BoundProblem, status: Status, message: str) -> Solution:
    return Solution(problem.x0, status, message, nfev=1, nit=0)


def guarded(problem: BoundProblem, solve: Callable[[], Any]) -> Any:
    """Run a solver of SciPy's; what it raises by itself becomes a `Solution`, the objective's errors pass."""
    try:
        return solve()
    except (ValueError, TypeError, ArithmeticError, np.linalg.LinAlgError, IndexError) as exc:
        if exc is problem.raised or _within(exc, problem.raised):
            raise
        status = Status.NONFINITE if problem.nonfinite else Status.STALLED
        return Solution(problem.x0, status, f"{type(exc).__name__}: {exc}", nfev=problem.nfev)


def _within(exc: BaseException, raised: BaseException | None) -> bool:
    """Whether `exc` comes from parfit's own checks of the objective's value, or from `raised`."""
    seen: BaseException | None = exc
    while seen is not None:
        if seen is raised and raised is not None:
            return True
        seen = seen.__cause__ or seen.__context__
    return type(exc).__module__ == "parfit.core.errors"


def judge(problem: BoundProblem, solution: Solution) -> Solution:
    """Check what the solver claims, and put the true status in."""
    solution.n_residuals = -1 if problem.n_residuals is None else problem.n_residuals
    solution.nfev = problem.nfev
    solution.at_bound = at_bound(solution.x, problem.lower, problem.upper, solution.at_bound)
    if not math.isfinite(solution.cost):
        solution.status = Status.NONFINITE
        solution.message = f"the objective is NaN or infinite at the end ({solution.message})"
    elif solution.status is Status.CONVERGED:
        if problem.nonfinite and (where := _wall(problem, solution)) is not None:
            solution.status = Status.NONFINITE
            solution.message = f"stopped beside NaN or infinity: {where} ({solution.message})"
        elif np.array_equal(solution.x, problem.x0) and not _start_is_solution(problem, solution):
            solution.status = Status.UNMOVED
            solution.message = f"{Status.UNMOVED.sentence} ({solution.message})"
    return solution


def at_bound(z: FloatArray, lower: FloatArray, upper: FloatArray, known: NDArray[np.int8] | None) -> NDArray[np.int8]:
    """-1, 0 or 1 for each parameter: at its lower bound, free, at its upper bound."""
    mask = np.zeros(len(z), dtype=np.int8) if known is None else known.astype(np.int8)
    if not np.isfinite(lower).any() and not np.isfinite(upper).any():
        return mask
    with np.errstate(invalid="ignore"):
        mask[np.isfinite(lower) & (z - lower <= _BOUND_RTOL * np.maximum(1.0, np.abs(lower)))] = -1
        mask[np.isfinite(upper) & (upper - z <= _BOUND_RTOL * np.maximum(1.0, np.abs(upper)))] = 1
    return mask


def _is_finite(problem: BoundProblem, z: FloatArray) -> bool:
    if problem.is_residuals:
        return bool(np.isfinite(problem.residuals(z)).all())
    return math.isfinite(problem.fun(z))


def _wall(problem: BoundProblem, solution: Solution) -> str | None:
    """Where NaN stands close to the solution, or that it is no stationary point; None where it has escaped."""
    z = solution.x
    for i in range(len(z)):
        for side in (-1.0, 1.0):
            near = z.copy()
            near[i] += side * (_WALL_STEP * abs(z[i]) or _WALL_STEP**2)
            near[i] = min(max(near[i], problem.lower[i]), problem.upper[i])
            if not _is_finite(problem, near):
                return f"at {near[i]:.6g} in place of {z[i]:.6g} in free parameter {i}"
    if solution.jac is not None and (r := problem.residuals(z)).any():
        free = solution.at_bound == 0
        J = solution.jac[:, free]
        norms = np.linalg.norm(J, axis=0) * np.linalg.norm(r)
        cosines = np.abs(J.T @ r)[norms > 0] / norms[norms > 0]
        if len(cosines) and cosines.max() > _ORTHOGONAL:
            return "the solution is not stationary"
    return None


def _start_is_solution(problem: BoundProblem, solution: Solution) -> bool:
    """Whether the start, where the solver stayed, is a minimum, and not just flat."""
    if solution.jac is not None:
        return bool(np.any(solution.jac))
    z, cost = solution.x, solution.cost
    for i in range(len(z)):
        step = 1e-3 * max(abs(z[i]), 1e-3)
        for side in (-step, step):
            near = z.copy()
            near[i] = min(max(z[i] + side, problem.lower[i]), problem.upper[i])
            if near[i] != z[i] and not problem.fun(near) > cost:
                return False
    return True


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
    step = _CENTRAL_STEP * max(abs(z[i]), 1.0)
    up, down = z.copy(), z.copy()
    up[i] = min(z[i] + step, problem.upper[i])
    down[i] = max(z[i] - step, problem.lower[i])
    return up, down
