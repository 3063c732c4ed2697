"""Residual vectors through `scipy.optimize.least_squares`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import scipy
from numpy.typing import NDArray

from parfit.core.errors import InvalidInputError, MethodMismatchError
from parfit.core.problem import BoundProblem
from parfit.core.protocols import Solver
from parfit.core.solution import Solution, Status
from parfit.solvers.differences import ForwardDifferences
from parfit.solvers.options import checked_options, refuse_unknown_options
from parfit.solvers.verdict import falls_short, guarded, judge, screen

__all__ = ["METHODS", "LeastSquares", "option_names"]

#: Untyped: SciPy's stubs are narrower than what its functions take. `scipy.optimize` is loaded on first use: the
#: caller's process, which only reads the arguments, is 40 MB smaller without it.
_scipy: Any = scipy
FloatArray = NDArray[np.float64]

METHODS = ("lm", "trf", "dogbox")

_TAKEN = ("fun", "x0", "jac", "bounds", "method", "args", "kwargs", "callback", "workers")

_TOLERANCES = ("ftol", "xtol", "gtol")
#: MINPACK's tolerances cannot be switched off; with this one they are as good as.
_EPSILON = float(np.finfo(float).eps)
_STATUS = {0: Status.MAX_STEPS, 1: Status.CONVERGED, 2: Status.CONVERGED, 3: Status.CONVERGED, 4: Status.CONVERGED}
_SHORT = (
    "the solver claims success where the cost still falls: measure parameters and residuals in units that make them "
    "about 1, or give `jac`, or the options gtol=None or diff_step"
)


def option_names() -> tuple[str, ...]:
    """The options of `least_squares`."""
    known = inspect.signature(_scipy.optimize.least_squares).parameters
    return tuple(name for name in known if name not in _TAKEN)


@dataclass(frozen=True)
class LeastSquares(Solver):
    """Least squares by SciPy.

    Parameters
    ----------
    name
        ``"lm"`` (MINPACK's Levenberg-Marquardt; the trust-region reflective method where a dataset has bounds, or
        where `options` asks for a robust loss, neither of which MINPACK knows), ``"trf"`` or ``"dogbox"``.
    options
        Keyword arguments of `least_squares`: ``ftol``, ``xtol``, ``gtol``, ``max_nfev``, ``x_scale``, ``loss``, ...
    """

    name: str = "lm"
    options: Mapping[str, Any] = field(default_factory=dict)
    residuals: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.options:
            refuse_unknown_options(f"method {self.name!r}", self.options, option_names())
        object.__setattr__(self, "options", checked_options(self.name, self.options))
        if all(self.options.get(name, 1.0) in (None, 0) for name in _TOLERANCES):
            raise InvalidInputError(f"of the options {', '.join(_TOLERANCES)} one at least must be above 0")

    @property
    def accepts_bounds(self) -> bool:
        return True

    def solve(self, problem: BoundProblem) -> Solution:
        ended = screen(problem)
        if not problem.is_residuals:
            if ended is not None and ended.status is Status.NONFINITE:
                return ended  # NaN in place of residuals says nothing about what the objective is
            raise MethodMismatchError(
                f"method {self.name!r} fits residuals, and the objective gives a scalar: "
                "return the vector of residuals, or choose a method of scipy.optimize.minimize"
            )
        if ended is not None:
            return ended
        options, call = self._call(problem)
        found = guarded(problem, call)
        if isinstance(found, Solution):
            return found
        J = found.jac.toarray() if hasattr(found.jac, "toarray") else np.asarray(found.jac)
        solution = Solution(
            x=found.x,
            status=_STATUS.get(found.status, Status.STALLED),
            message=found.message,
            cost=float(found.cost),
            njev=-1 if found.njev is None else int(found.njev),
            nit=int(getattr(found, "nit", -1)),
            optimality=float(found.optimality),
            at_bound=np.asarray(found.active_mask),
            jac=J,
        )
        solution = judge(problem, solution)
        if solution.status is Status.CONVERGED and falls_short(problem, solution, found.grad, options):
            solution.status = Status.STALLED
            solution.message = f"{_SHORT} ({found.message})"
        return solution

    def _call(self, problem: BoundProblem) -> tuple[dict[str, Any], Callable[[], Any]]:
        """The options as they suit this problem, and the call of SciPy's function."""
        method: str = self.name
        bounds: Any = (-np.inf, np.inf)
        if problem.bounded:
            bounds = (problem.lower, problem.upper)
        start = problem.x0
        options = dict(self.options)
        for name in ("x_scale", "diff_step"):
            value: Any = options.get(name)
            if problem.free is not None and np.size(value) == len(problem.full) > 1:
                options[name] = np.asarray(value)[problem.free]
        if method == "lm" and (problem.bounded or options.get("loss", "linear") != "linear"):
            method = "trf"
            options.setdefault("gtol", None)  # an absolute limit, which MINPACK has not; ftol and xtol remain
        if method == "lm":
            options.update({name: _EPSILON for name in _TOLERANCES if options.get(name, 1.0) in (None, 0)})
        if method == "trf":
            start = _off_bounds(start, problem)
        residuals, jac = problem.residuals, problem.jac or "2-point"
        if jac == "2-point" and not any(options.get(name) is not None for name in ("diff_step", "jac_sparsity")):
            differences = ForwardDifferences(problem)
            residuals, jac = differences.residuals, differences.jacobian
        return options, lambda: _scipy.optimize.least_squares(
            residuals, start, jac=jac, bounds=bounds, method=method, **options
        )


def _off_bounds(z: FloatArray, problem: BoundProblem) -> FloatArray:
    """The start, moved inside where it is on a bound.

    The trust-region reflective method scales each parameter by its distance from the bound; SciPy moves a start on a
    bound inside by 1e-10 only, from where the method may take no step at all and call that success.
    """
    lower, upper = problem.lower, problem.upper
    step = 1e-2 * np.minimum(np.maximum(1.0, np.abs(z)), upper - lower)
    moved = np.where(z <= lower, lower + step, np.where(z >= upper, upper - step, z))
    return moved if (moved != z).any() else z
