"""Scalar objectives through SciPy's global optimisers, by name."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import scipy

from parfit.core.problem import BoundProblem
from parfit.core.protocols import Solver
from parfit.core.solution import Solution, Status
from parfit.solvers.minimize import final_jacobian
from parfit.solvers.options import checked_options, refuse_unknown_options
from parfit.solvers.verdict import guarded, judge, screen

__all__ = ["METHODS", "GlobalSearch", "option_names"]

#: Untyped: SciPy's stubs are narrower than what its functions take. `scipy.optimize` is loaded on first use: the
#: caller's process, which only reads the arguments, is 40 MB smaller without it.
_scipy: Any = scipy

METHODS = ("differential_evolution", "dual_annealing", "shgo", "basinhopping", "direct", "brute")
_TAKEN = ("func", "bounds", "ranges", "x0", "args", "rng", "seed", "callback", "full_output", "constraints")
_LIMIT_WORDS = ("maximum number", "maximum iteration", "exceeded", "reached", "larger than max")


def option_names(name: str) -> tuple[str, ...]:
    """The options of one of SciPy's functions."""
    return tuple(p for p in inspect.signature(getattr(_scipy.optimize, name)).parameters if p not in _TAKEN)


@dataclass(frozen=True)
class GlobalSearch(Solver):
    """A global optimiser of SciPy's. All but ``basinhopping`` search a box, and need finite bounds for it.

    Parameters
    ----------
    name
        The function in `scipy.optimize`.
    options
        Its keyword arguments. Its random numbers are the dataset's own.
    """

    name: str = "differential_evolution"
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.options:
            refuse_unknown_options(f"method {self.name!r}", self.options, option_names(self.name))
        object.__setattr__(self, "options", checked_options(self.name, self.options))

    @property
    def accepts_bounds(self) -> bool:
        return True

    @property
    def needs_bounds(self) -> bool:
        return self.name != "basinhopping"

    def solve(self, problem: BoundProblem) -> Solution:
        if self.needs_bounds and not (np.isfinite(problem.lower).all() and np.isfinite(problem.upper).all()):
            text = f"{self.name} needs finite bounds for every free parameter"
            return Solution(problem.x0, Status.INVALID, text)
        ended = screen(problem)
        if ended is not None and ended.status is not Status.NONFINITE:
            return ended
        found = guarded(problem, lambda: self._run(problem))
        if isinstance(found, Solution):
            return found
        z = np.asarray(found.x if found.x is not None else problem.x0, dtype=np.float64).reshape(-1)
        z = np.clip(z, problem.lower, problem.upper)
        message = " ".join(m if isinstance(m, str) else str(m) for m in np.atleast_1d(found.message))
        status = Status.CONVERGED if found.success else Status.STALLED
        if not found.success and any(word in message.lower() for word in _LIMIT_WORDS):
            status = Status.MAX_STEPS
        cost = problem.fun(z) if found.fun is None else float(np.asarray(found.fun).reshape(-1)[0])
        njev, nit = (int(found.get(name, -1)) for name in ("njev", "nit"))
        solution = Solution(z, status, message, cost, njev=njev, nit=nit, jac=final_jacobian(problem, z))
        walls, problem.nonfinite = problem.nonfinite, 0  # a search of a whole box may well meet NaN, and go on
        solution = judge(problem, solution)
        problem.nonfinite = walls
        return solution

    def _run(self, problem: BoundProblem) -> Any:
        f, options = problem.fun, dict(self.options)
        box = list(zip(problem.lower.tolist(), problem.upper.tolist(), strict=True))
        if self.name == "differential_evolution":
            return _scipy.optimize.differential_evolution(f, box, rng=problem.rng, x0=problem.x0, **options)
        if self.name == "dual_annealing":
            return _scipy.optimize.dual_annealing(f, box, rng=problem.rng, x0=problem.x0, **options)
        if self.name == "shgo":
            return _scipy.optimize.shgo(f, box, **options)
        if self.name == "direct":
            return _scipy.optimize.direct(f, box, **options)
        if self.name == "basinhopping":
            if problem.bounded:
                inner = options.get("minimizer_kwargs") or {}
                options["minimizer_kwargs"] = {"method": "L-BFGS-B", "bounds": box, **inner}
            return _basinhopping(f, problem, options)
        return self._brute(problem, box, options)

    def _brute(self, problem: BoundProblem, box: list[tuple[float, float]], options: dict[str, Any]) -> Any:
        """The best point of a grid, polished within the box unless ``finish`` is None or says how."""
        polish = options.pop("finish", "polish")
        finish = None if polish == "polish" else polish
        z, cost, *_ = _scipy.optimize.brute(problem.fun, box, full_output=True, finish=finish, **options)
        z = np.atleast_1d(np.asarray(z, dtype=np.float64))
        message = "the best point of the grid"
        if polish == "polish":
            start = np.clip(z, problem.lower, problem.upper)
            polished = _scipy.optimize.minimize(problem.fun, start, method="Nelder-Mead", bounds=box)
            if polished.fun <= cost:
                z, cost, message = polished.x, polished.fun, f"{message}, polished: {polished.message}"
        return _scipy.optimize.OptimizeResult(x=z, fun=cost, success=True, message=message, nit=1)


def _basinhopping(f: Any, problem: BoundProblem, options: dict[str, Any]) -> Any:
    found = _scipy.optimize.basinhopping(f, problem.x0, rng=problem.rng, **options)
    # basinhopping calls the end of its iterations a success only where the last local search was one
    if found.lowest_optimization_result.success:
        found.success = True
    return found
