"""Which engine runs: all rows at once where that is the same fit, else one by one; and why."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from parfit.core.data import Datasets
from parfit.core.errors import InvalidInputError, MethodMismatchError, missing_package
from parfit.core.problem import Problem
from parfit.core.protocols import BatchedSolver, Solver
from parfit.core.windows import Windows
from parfit.solvers import DefaultSolver, LeastSquares, Minimize

if TYPE_CHECKING:
    from parfit.batched import Plan, Shape

__all__ = ["ENGINES", "choose", "planned"]

ENGINES = ("auto", "rows", "batch")
#: The options of SciPy's methods that their batched counterparts have too.
_OPTIONS = {
    "lm": ("ftol", "xtol", "gtol", "max_nfev", "x_scale"),
    "L-BFGS-B": ("ftol", "gtol", "maxiter", "maxfun", "maxcor", "maxls"),
    "Nelder-Mead": ("xatol", "fatol", "maxiter", "maxfev", "adaptive"),
}
#: Compiling takes longer than a second for each thousand operations.
_MOST_OPERATIONS = 3000
#: Arguments that say how and where Python runs, and what only calls of it can give.
_OF_ROWS = {
    "executor": "is for engine='rows' where it is no cluster: it says where Python runs",
    "timeout": "needs workers that can be stopped",
    "memory_limit": "needs workers that can be stopped",
    "chunk_size": "says what travels to workers",
    "history": "records calls of Python",
}


def choose(
    problem: Problem,
    solver: Solver,
    datasets: Datasets,
    work: Windows,
    given: Mapping[str, Any],
    *,
    spread: bool = False,
) -> tuple[Plan | None, str]:
    """The plan of the batched engine, or None; and the reason.

    Parameters
    ----------
    spread
        The executor is a cluster, which runs either engine.

    Raises
    ------
    InvalidInputError, MissingPackageError
        Where ``engine="batch"`` was asked for, and cannot be.
    """
    engine = given["engine"]
    if engine == "rows":
        return None, "engine='rows' was asked for"
    why = _against(problem, solver, {**given, "executor": None, "chunk_size": None} if spread else given)
    if why is None and importlib.util.find_spec("jax") is None:
        if engine == "batch":
            raise missing_package("jax", "engine='batch'", "jax")
        why = "jax is not installed (pip install 'parfit[jax]')"
    if why is None and len(work):
        from parfit import batched

        try:
            most = _MOST_OPERATIONS if engine == "auto" else None
            plan = planned(problem, solver, datasets, work, given["dtype"], most)
        except batched.Untraceable as exc:
            why = str(exc)
        else:
            return plan, plan.how if engine == "auto" else "engine='batch' was asked for"
    if engine == "batch" and why is not None:
        raise InvalidInputError(f"engine='batch' cannot run this: {why}; engine='rows' can")
    return None, why or "there is nothing to fit"


def planned(
    problem: Problem,
    solver: Solver,
    datasets: Datasets,
    work: Windows,
    dtype: Any,
    most_operations: int | None = None,
    shape: Shape | None = None,
) -> Plan:
    """As `parfit.batched.make_plan`, with the counterpart of a solver of SciPy's."""
    from parfit import batched

    counterpart = functools.partial(_counterpart, solver, problem)
    return batched.make_plan(problem, datasets, work, counterpart, dtype, most_operations, shape)


def _against(problem: Problem, solver: Solver, given: Mapping[str, Any]) -> str | None:
    """What speaks against the batched engine before anything is traced; None for nothing."""
    for name, text in _OF_ROWS.items():
        if given[name] is not None and given[name] is not False:
            return f"{name}={_shown(given[name])} {text}"
    if problem.constraints:
        return "constraints are for the methods of SciPy"
    if problem.jac is not None and problem.jac != "jax":
        return f"jac={_shown(problem.jac)} is for the methods of SciPy"
    if isinstance(solver, DefaultSolver):
        known = {option for name in ("lm", "L-BFGS-B") for option in _OPTIONS[name]}
        name = "the default method"
    elif isinstance(solver, (LeastSquares, Minimize)) and solver.name in _OPTIONS:
        known, name = set(_OPTIONS[solver.name]) | ({"tol"} if isinstance(solver, Minimize) else set()), solver.name
    else:
        return f"method {solver.name!r} has no batched counterpart (these have: {', '.join(_OPTIONS)})"
    other = next((option for option in solver.options if option not in known), None)
    if other is not None:
        return f"the option {other!r} is for SciPy's own {name}"
    return None


def _shown(value: Any) -> str:
    return repr(value) if isinstance(value, (str, int, float, bool)) else f"<{type(value).__name__}>"


def _counterpart(solver: Solver, problem: Problem, residuals: bool) -> BatchedSolver:
    """The batched solver that does what `solver` would."""
    from parfit import batched

    options: Mapping[str, Any] = solver.options  # type: ignore[attr-defined]
    if isinstance(solver, DefaultSolver):
        solver = solver.chosen(residuals)
    if problem.maximize and residuals:
        raise MethodMismatchError("maximize=True needs a scalar objective, and this one gives residuals")
    if isinstance(solver, LeastSquares) and not residuals:
        raise MethodMismatchError(
            f"method {solver.name!r} fits residuals, and the objective gives a scalar: "
            "return the vector of residuals, or choose a method of scipy.optimize.minimize"
        )
    return batched.METHODS[solver.name](**_translated(solver.name, options, problem))


def _translated(name: str, options: Mapping[str, Any], problem: Problem) -> dict[str, Any]:
    """The options as the batched solver takes them."""
    made = {option: value for option, value in options.items() if option != "tol"}
    tol = options.get("tol")
    if tol is not None:
        for option in {"L-BFGS-B": ("ftol", "gtol"), "Nelder-Mead": ("xatol", "fatol")}[name]:
            made.setdefault(option, tol)
    for option in ("ftol", "xtol", "gtol"):
        if name == "lm" and option in made:
            made[option] = 0.0 if made[option] is None else float(made[option])
    scale = made.get("x_scale")
    if scale is not None and not isinstance(scale, str):
        scale = np.asarray(scale, dtype=float)
        fixed = problem.parameters.fixed
        made["x_scale"] = tuple((scale[~fixed] if scale.size == len(fixed) > 1 else scale.reshape(-1)).tolist())
        if len(made["x_scale"]) == 1:
            made["x_scale"] = made["x_scale"][0]
    elif scale is not None:
        made["x_scale"] = None
    return made
