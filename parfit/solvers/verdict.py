"""What a solver's own word is worth: success is checked before it is called ``converged``.

SciPy reports success where it stopped beside a wall of NaN, where nothing ever moved, and where NaN came out.
`screen` looks at the start before the solver runs, `judge` at the end.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parfit.core.bounds import at_bound
from parfit.core.problem import BoundProblem
from parfit.core.solution import Solution, Status

__all__ = ["falls_short", "guarded", "judge", "screen"]

FloatArray = NDArray[np.float64]

#: How far around a solution NaN is looked for, relative to each parameter.
_WALL_STEP = 1e-4
#: The cosine between the residuals and a column of the Jacobian below which a point is stationary enough.
_ORTHOGONAL = 1e-2
#: A Gauss-Newton step shorter than this, relative to the parameters, is none.
_NO_STEP = 1e-6
#: And one that lowers the cost by less than this, relative to that of the start.
_NO_GAIN = 1e-10
#: A step is small that is both shorter than this, relative to the parameters ...
_SMALL_STEP = 1e-4
#: ... and lowers the cost by less than this, relative to that of the start: of a peak at 5000 with a width of 1, a
#: shift by 1e-4 of the parameter is no small one.
_SMALL_GAIN = 1e-7
#: And so is one shorter than this in standard errors, parameter by parameter. These three were chosen on decays and
#: peaks in units of 1e-6 to 1e6, with noise of 0 to 10 %: `test_gtol_in_small_units_is_judged_by_what_is_left`.
_SMALL_IN_STDERR = 0.05
#: A fall of the cost, relative to it, that is worth another step.
_FALLS = 1e-6


def screen(problem: BoundProblem) -> Solution | None:
    """Call the objective at the start; the solution where there is nothing to solve, else None."""
    cost = problem.start_cost
    m = problem.n_residuals
    residuals = m is not None and m >= 0
    if m == 0:
        return _ended(problem, Status.INVALID, "the objective gave no residuals (an array of length 0)")
    if residuals and m < problem.n:  # type: ignore[operator]
        text = f"{m} residual{'s' * (m != 1)} cannot determine {problem.n} free parameters"
        hint = " (a scalar is returned as a number, not as an array of length 1)" if m == 1 else ""
        return _ended(problem, Status.INVALID, text + hint)
    if not math.isfinite(cost) and not (residuals and np.isfinite(problem.start()).all()):
        bad = "residuals hold NaN or infinity" if residuals else "objective is NaN or infinite"
        return _ended(problem, Status.NONFINITE, f"the {bad} at the start")
    if problem.n == 0:
        solution = _ended(problem, Status.CONVERGED, "no parameter is free: the objective was evaluated")
        solution.cost = problem.fun(problem.x0)
        solution.optimality = 0.0
        return solution
    return None


def _ended(problem: BoundProblem, status: Status, message: str) -> Solution:
    return Solution(problem.x0, status, message, nfev=1, nit=0)


def guarded(problem: BoundProblem, solve: Callable[[], Any]) -> Any:
    """Run a solver of SciPy's; what it raises over the numbers becomes a `Solution`, all other errors pass."""
    try:
        return solve()
    except Exception as exc:  # noqa: BLE001 - raised again below, unless it is the solver's own
        if not _is_own(exc, problem):
            status = Status.NONFINITE if problem.nonfinite else Status.STALLED
            return Solution(problem.x0, status, f"{type(exc).__name__}: {exc}", nfev=problem.nfev)
        found = exc
    # some solvers wrap what the objective raises in a sentence of their own
    raise problem.raised if problem.raised is not None and _within(found, problem.raised) else found


def _is_own(exc: Exception, problem: BoundProblem) -> bool:
    """Whether `exc` comes from the user's functions or arguments, and not from the numbers that a solver met."""
    if problem.raised is not None and _within(exc, problem.raised):
        return True
    if type(exc).__module__ == "parfit.core.errors":
        return True
    if problem.nonfinite and isinstance(exc, (ValueError, TypeError, IndexError)):
        return False
    return not isinstance(exc, (ArithmeticError, np.linalg.LinAlgError))


def _within(exc: BaseException, raised: BaseException) -> bool:
    """Whether `exc` is `raised`, or was raised because of it."""
    seen: BaseException | None = exc
    while seen is not None and seen is not raised:
        seen = seen.__cause__ or seen.__context__
    return seen is raised


def judge(problem: BoundProblem, solution: Solution) -> Solution:
    """Check what the solver claims, and put the true status in."""
    solution.n_residuals = -1 if problem.n_residuals is None else problem.n_residuals
    solution.nfev = problem.nfev
    solution.at_bound = at_bound(solution.x, problem.lower, problem.upper, solution.at_bound)
    if not math.isfinite(solution.cost):
        solution.status = Status.NONFINITE
        solution.message = f"the objective is NaN or infinite at the end ({solution.message})"
        return solution
    steps = len(problem.trace)
    if problem.nonfinite and (where := _unescaped(problem, solution)) is not None:
        solution.status = Status.NONFINITE
        solution.message = f"stopped beside NaN or infinity: {where} ({solution.message})"
    if solution.status is Status.CONVERGED and (how := _never_better(problem, solution)) is not None:
        solution.status = Status.UNMOVED
        solution.message = f"{how} ({solution.message})"
    del problem.trace[steps:]  # the history is the solver's
    return solution


def _unescaped(problem: BoundProblem, solution: Solution) -> str | None:
    """Why a solver that met NaN or infinity did not get away from it; None where it did."""
    if solution.status is Status.MAX_STEPS:
        return "the last evaluation gave it" if problem.last_nonfinite == problem.nfev else None
    if (where := _wall(problem, solution)) is not None:
        return where
    if solution.status is Status.STALLED and solution.jac is None:
        return None if _is_minimum(problem, solution.x, solution.cost) else "the cost still falls"
    return None


def _never_better(problem: BoundProblem, solution: Solution) -> str | None:
    """How a claim of success is empty where the solver has not come down from its start; None where it is not."""
    if np.array_equal(solution.x, problem.x0):
        return None if _start_is_solution(problem, solution) else Status.UNMOVED.sentence
    if solution.cost >= problem.start_cost and not problem.constraints:  # a start may be better, and not allowed
        if not _is_minimum(problem, solution.x, solution.cost):
            return "the solver claims success, and is no better than its start"
    return None


def _cost(problem: BoundProblem, z: FloatArray) -> float:
    """What is minimised, at a point where no solver has been: NaN where the objective raises."""
    try:
        return problem.fun(z)
    except Exception:  # noqa: BLE001 - a look around must not cost a fit that has succeeded
        return math.nan


def _wall(problem: BoundProblem, solution: Solution) -> str | None:
    """Where NaN stands close to the solution, or that it is no stationary point; None where it has escaped."""
    z = solution.x
    for i in range(len(z)):
        for side in (-1.0, 1.0):
            near = _beside(problem, z, i, side * (_WALL_STEP * abs(z[i]) or _WALL_STEP**2))
            cost = _cost(problem, near)
            if math.isfinite(cost) and cost < solution.cost:  # downhill there: look further
                near = _beside(problem, z, i, 10 * (near[i] - z[i]))
                cost = _cost(problem, near)
            if not math.isfinite(cost):
                return f"at {near[i]:.6g} in place of {z[i]:.6g} in free parameter {i}"
    if solution.jac is not None and not _is_at_rest(problem, solution, solution.jac):
        return "the solution is not stationary"
    return None


def _is_at_rest(problem: BoundProblem, solution: Solution, J: FloatArray) -> bool:
    """Whether residuals with the Jacobian `J` leave nothing to gain in the parameters that are not at a bound."""
    r, free = problem.residuals(solution.x), solution.at_bound == 0
    return _is_stationary(r, J[:, free]) or _is_close(problem, J[:, free], r, solution.x[free])


def _beside(problem: BoundProblem, z: FloatArray, i: int, step: float) -> FloatArray:
    """`z` with one parameter moved, as far as its bounds allow."""
    near = z.copy()
    near[i] = min(max(z[i] + step, problem.lower[i]), problem.upper[i])
    return near


def _is_stationary(r: FloatArray, J: FloatArray) -> bool:
    """Whether the residuals are as good as orthogonal to every column of their Jacobian."""
    norms = np.linalg.norm(J, axis=0) * np.linalg.norm(r)
    cosines = np.abs(J.T @ r)[norms > 0] / norms[norms > 0]
    return not len(cosines) or bool(cosines.max() <= _ORTHOGONAL)


def falls_short(problem: BoundProblem, solution: Solution, g: FloatArray, options: Mapping[str, Any]) -> bool:
    """Whether a least-squares solver claims success where the cost still falls, by more than its tolerances allow.

    It does so where the gradient is small only because the residuals are (``gtol`` is absolute), and where difference
    quotients are wrong, so that no step succeeds (SciPy's steps are 1.5e-8, however small a parameter is).

    Parameters
    ----------
    g : ndarray, shape (n,)
        The gradient at the solution.
    options
        The tolerances that the user chose.
    """
    J = solution.jac
    assert J is not None
    ftol, gtol = options.get("ftol") or 0.0, options.get("gtol") or 0.0
    slope = np.abs(g) > _ORTHOGONAL * math.sqrt(2 * solution.cost) * np.sqrt((J * J).sum(axis=0))
    if not slope.any() or solution.optimality <= gtol or options.get("loss", "linear") != "linear":
        return False
    z = solution.x
    room = np.where(g > 0, z - problem.lower, problem.upper - z)
    size = np.where(problem.x0 == 0, 1.0, np.minimum(1.0, np.abs(problem.x0)))
    free = solution.at_bound == 0
    slope &= free & (room > 1e-3 * np.maximum(np.abs(z), 1e-3 * size))
    if not slope.any():
        return False
    steps = len(problem.trace)
    r = problem.residuals(z)
    if _is_close(problem, J[:, free], r, z[free], 10 * (options.get("xtol") or 0.0)):
        falls = False
    else:
        enough = solution.cost - max(max(_FALLS, 10 * ftol) * solution.cost, _NO_GAIN * problem.start_cost)
        step = np.zeros(len(z))
        step[free] = _gauss_newton(J[:, free], r)[0]
        falls = any(_cost(problem, there) < enough for there in _around(problem, z, step))
    del problem.trace[steps:]
    return falls


def _around(problem: BoundProblem, z: FloatArray, step: FloatArray) -> Iterator[FloatArray]:
    """Points where the cost may be lower: along a step, and along each parameter."""
    for share in (1.0, 0.3, 0.1, 0.01):
        yield np.clip(z + share * step, problem.lower, problem.upper)
    for i in range(len(z)):
        for share in (-1e-2, 1e-2, -1e-4, 1e-4):
            yield _beside(problem, z, i, share * abs(z[i]))


def _gauss_newton(J: FloatArray, r: FloatArray) -> tuple[FloatArray, FloatArray, float]:
    """The step to the minimum of the linearised problem, the standard errors there, and how far the cost falls.

    The columns are brought to length 1 first, so that what is of full rank does not depend on the parameters' units.
    """
    norms = np.linalg.norm(J, axis=0)
    norms[norms == 0] = 1.0
    U, s, Vt = np.linalg.svd(J / norms, full_matrices=False)
    kept = s > max(J.shape) * np.finfo(float).eps * s.max(initial=0.0)
    along = U.T[kept] @ r
    back = Vt[kept].T / s[kept]  # shape (n, rank)
    gain = 0.5 * float(along @ along)
    left = max(float(r @ r) - 2 * gain, 0.0) / max(len(r) - int(kept.sum()), 1)
    return -(back @ along) / norms, math.sqrt(left) * np.linalg.norm(back, axis=1) / norms, gain


def _is_close(problem: BoundProblem, J: FloatArray, r: FloatArray, z: FloatArray, xtol: float = 0.0) -> bool:
    """Whether a Gauss-Newton step has next to nothing to gain, or moves by next to nothing.

    Nothing is measured against the cost of the start, the parameters and their standard errors. Residuals that are
    nothing but rounding errors may point anywhere.
    """
    step, stderr, gain = _gauss_newton(J, r)
    share = gain / problem.start_cost if problem.start_cost > 0 else 0.0
    if share <= _NO_GAIN:
        return True
    relative = _SMALL_STEP if share <= _SMALL_GAIN else _NO_STEP
    size = np.maximum(np.abs(z), _NO_STEP)
    return bool((np.abs(step) <= np.maximum(max(relative, xtol) * size, _SMALL_IN_STDERR * stderr)).all())


def _start_is_solution(problem: BoundProblem, solution: Solution) -> bool:
    """Whether the start, where the solver stayed, is a minimum, and not just flat or badly scaled."""
    z, J = solution.x, solution.jac
    if J is None:
        return _is_minimum(problem, z, solution.cost)
    return bool(np.isfinite(J).all() and J.any()) and _is_at_rest(problem, solution, J)


def _is_minimum(problem: BoundProblem, z: FloatArray, cost: float) -> bool:
    """Whether the objective rises from `z` along one parameter at least, and falls along none."""
    rises = False
    for i in range(len(z)):
        step = 1e-3 * max(abs(z[i]), 1e-3)
        for side in (-step, step):
            near = _beside(problem, z, i, side)
            if abs(near[i] - z[i]) <= 1e-3 * step:  # at its bound, or as good as
                continue
            there = _cost(problem, near)
            if not there >= cost:
                return False
            rises = rises or there > cost
    return rises
