"""``jac="jax"``: exact derivatives of a traceable objective for the methods of SciPy, and the Hessians that some take.

JAX is imported here where this was asked for, and in the workers for the same reason only.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from parfit.core.data import Datasets
from parfit.core.errors import UnknownNameError
from parfit.core.problem import Problem
from parfit.core.protocols import Solver
from parfit.core.tasks import FitTasks, RowTask
from parfit.fitting.worker import random_state
from parfit.solvers import Minimize

if TYPE_CHECKING:
    from parfit.batched.derivatives import Derivative

__all__ = ["with_derivatives"]

#: Datasets that are tried, to find one that the objective does not raise on.
_TRIED = 8


def with_derivatives(
    problem: Problem, solver: Solver, datasets: Datasets, positions: NDArray[np.intp]
) -> tuple[Problem, Solver]:
    """The problem and the solver with functions in place of ``jac="jax"``; as they are where there is none.

    An objective that gives JAX's arrays, which are of single precision unless JAX is told otherwise, is replaced by its
    compiled self, so that values and derivatives belong together.

    Raises
    ------
    InvalidInputError
        Where the objective cannot be traced, or gives another value then, for the first dataset that it can evaluate.
    """
    if not (isinstance(problem.jac, str) and problem.jac == "jax"):
        return problem, solver
    from parfit.batched.derivatives import Derivative

    fixed = problem.parameters.fixed
    free = np.flatnonzero(~fixed) if fixed.any() else None
    derivative = Derivative(problem.objective, problem.parameters.structure, problem.args, free)
    made = dataclasses.replace(problem, jac=derivative)
    solver, wanted = _with_hessian(solver, derivative)
    with random_state(kept=True):
        found = _first_value(problem, datasets, positions)
        if found is not None:
            params, dataset, value = found
            if _is_of_jax(value):
                wanted += ("value",)
                made = dataclasses.replace(made, objective=derivative.value)
            derivative.learn(params, dataset, wanted)
    return made, solver


def _with_hessian(solver: Solver, derivative: Derivative) -> tuple[Solver, tuple[str, ...]]:
    """The solver with the exact Hessian, where it takes one and was given none; and what that needs compiled."""
    if not isinstance(solver, Minimize) or any(solver.options.get(name) is not None for name in ("hess", "hessp")):
        return solver, ()
    try:
        return Minimize(solver.name, {**solver.options, "hess": derivative.hessian}), ("curvature",)
    except UnknownNameError:  # it takes none
        return solver, ()


def _first_value(problem: Problem, datasets: Datasets, positions: NDArray[np.intp]) -> tuple[Any, Any, Any] | None:
    """Start, dataset and plain value of the first dataset that can be evaluated; None where none of a few can."""
    found: list[tuple[Any, Any, Any]] = []

    def evaluate(_: Any, task: RowTask) -> None:
        problem.seed_globals(task.position)
        try:
            bound = problem.bind(task)
            value = problem.objective(bound.params(bound.x0.copy()), task.dataset, *problem.args)
        except Exception:  # noqa: BLE001 - the user's own function; its worker will say so, dataset by dataset
            return
        found.append((bound.params(bound.x0.copy()), task.dataset, value))

    for position in positions[:_TRIED]:
        block = FitTasks(datasets, problem.parameters, np.array([position])).take(1)
        assert block is not None
        block.visit(evaluate)
        if found:
            return found[0]
    return None


def _is_of_jax(value: Any) -> bool:
    one = value[0] if isinstance(value, (list, tuple)) and len(value) else value
    return type(one).__module__.partition(".")[0] in ("jax", "jaxlib")
