"""SPSA as a recipe for `parfit.fit`; apart from the function `SPSA`, whose result needs `scipy.optimize`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from parfit.core.errors import InvalidInputError
from parfit.core.problem import BoundProblem
from parfit.core.protocols import Solver
from parfit.core.solution import Solution, Status
from parfit.solvers.spsa_options import SPSAOptions
from parfit.solvers.spsa_steps import Stop, answered, describe, iterate
from parfit.solvers.verdict import screen

__all__ = ["SPSA_ONLY", "SPSASolver"]

_STATUS = {
    Stop.FTOL: Status.CONVERGED,
    Stop.PARAM_TOL: Status.CONVERGED,
    Stop.FIXED: Status.CONVERGED,
    Stop.MAXITER: Status.MAX_STEPS,
    Stop.NONFINITE: Status.NONFINITE,
}

#: Arguments of the function that are no options of the recipe.
SPSA_ONLY = ("callback", "disp", "print_iters", "save_iters", "savestate", "tol")


@dataclass(frozen=True)
class SPSASolver(SPSAOptions, Solver):
    """SPSA as a recipe for `parfit.fit`; the options are those of `SPSA`.

    By default it finds its gain (``a_par=None``), measures each parameter by its start (``scale="auto"``) and
    has converged where no parameter moves by more than 1e-6 of that over the window. The random numbers come
    from the dataset's own generator.
    """

    name = "spsa"

    @property
    def accepts_bounds(self) -> bool:
        return True

    def solve(self, problem: BoundProblem) -> Solution:
        ended = screen(problem)
        if ended is not None and ended.status is not Status.NONFINITE:  # NaN it may step over
            return ended
        x0, options = np.array(problem.x0, dtype=np.float64), self.on_free(problem.free, len(problem.full))
        lower, upper = (np.array(b, dtype=np.float64) for b in (problem.lower, problem.upper))
        try:
            recipe = options.bind(x0, lower, upper)
        except InvalidInputError as exc:
            return Solution(x=x0, status=Status.INVALID, message=str(exc), nfev=0, nit=0)
        state, stop = iterate(recipe, lambda x: float(problem.fun(x.copy())), recipe.init(problem.rng), problem.rng)
        stop, message = describe(stop, state)
        x, value = answered(state)
        return Solution(
            x=x.copy(),
            status=_STATUS[stop],
            message=message,
            cost=value,
            nfev=state.nfev,
            njev=0,
            nit=state.nit,
            at_bound=np.where(x <= lower, -1, np.where(x >= upper, 1, 0)).astype(np.int8),
        )
