"""What runs in the workers: one dataset, one solver, one solution fit to travel."""

from __future__ import annotations

import importlib
import random
import sys
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np

from parfit import inference
from parfit.core.errors import InvalidInputError, MethodMismatchError
from parfit.core.parameters import Parameters
from parfit.core.problem import BoundProblem, Problem
from parfit.core.protocols import Solver
from parfit.core.randomness import seeds_are_unused
from parfit.core.solution import Solution, Status
from parfit.core.tasks import RowTask

__all__ = ["fit_one", "random_state", "ready"]


def ready(problem: Problem, solver: Solver) -> tuple[Problem, Solver]:
    """What each worker is set up with. What solvers load on first use is loaded here, on no dataset's time limit."""
    importlib.import_module("scipy.optimize")
    derivatives = sys.modules.get("parfit.batched.derivatives")  # which a problem with jac="jax" has brought along
    if derivatives is not None and isinstance(problem.jac, derivatives.Derivative):
        problem.jac.compile()
    return problem, solver


def fit_one(state: tuple[Problem, Solver], task: RowTask) -> Solution:
    """Fit one dataset; what its objective raises goes to the executor."""
    with _double_precision():
        return _fit_one(*state, task)


def _double_precision() -> AbstractContextManager[Any]:
    """Where the objective has brought JAX along, its numbers have 64 bits, as those of NumPy and of SciPy do."""
    enabled = getattr(sys.modules.get("jax"), "enable_x64", None)
    return nullcontext() if enabled is None else enabled(True)


def _fit_one(problem: Problem, solver: Solver, task: RowTask) -> Solution:
    seeded = problem.seed_globals(task.position)
    bound = None
    try:
        bound = problem.bind(task)
    except InvalidInputError as exc:
        found = Solution(np.full(len(problem.parameters.names), np.nan), Status.INVALID, str(exc), nfev=0, nit=0)
    else:
        found = _solved(problem, solver, bound)
    if problem.noted:
        found.start = None if bound is None or not bound.starts_alone else bound.full
        found.drew = seeded is not None and ((bound is not None and bound.has_rng) or not seeds_are_unused(seeded))
    return found


def _solved(problem: Problem, solver: Solver, bound: BoundProblem) -> Solution:
    try:
        if problem.maximize and bound.is_residuals:
            raise MethodMismatchError("maximize=True needs a scalar objective, and this one gives residuals")
        return _expanded(bound, solver.solve(bound))
    except KeyError as exc:
        _explain(exc, problem.parameters)
        raise


def _explain(exc: KeyError, parameters: Parameters) -> None:
    """Say how a table of parameters is read, to an objective that takes it for a dict."""
    if parameters.structure.is_table and exc.args and str(exc.args[0]) in parameters.names:
        key = exc.args[0]
        exc.add_note(f"the parameters are a table, as x0 is: params.loc[{key!r}, 'value'], or params['value'][{key!r}]")


def _expanded(bound: BoundProblem, solution: Solution) -> Solution:
    """The solution in all parameters, with what its Jacobian says, fit to travel."""
    if solution.jac is not None:
        cov, solution.rank, solution.condition = inference.from_jacobian(solution.jac, solution.cost)
        solution.cov = cov if solution.status is Status.CONVERGED else None
        solution.jac = None
    if bound.trace:
        solution.history = np.array(bound.trace)
    if solution.n_residuals == -1 and bound.n_residuals is not None:
        solution.n_residuals = bound.n_residuals
    if bound.free is not None:
        free, n = bound.free, len(bound.full)
        if solution.at_bound is not None:
            at = np.zeros(n, dtype=np.int8)
            at[free] = solution.at_bound
            solution.at_bound = at
        if solution.cov is not None:
            cov = np.zeros((n, n))
            cov[np.ix_(free, free)] = solution.cov
            solution.cov = cov
        solution.x = bound.expand(solution.x)
    return solution


class random_state:  # noqa: N801 - used like contextlib's functions
    """Puts the caller's global random state back where tasks are seeded in this process."""

    def __init__(self, *, kept: bool) -> None:
        self._kept = kept

    def __enter__(self) -> None:
        if self._kept:
            self._states = np.random.get_state(), random.getstate()  # noqa: NPY002

    def __exit__(self, *_: object) -> None:
        if self._kept:
            np.random.set_state(self._states[0])  # noqa: NPY002
            random.setstate(self._states[1])
