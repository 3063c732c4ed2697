"""Scalar objectives through `scipy.optimize.minimize`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import optimize

from parfit.core.errors import InvalidInputError, InvalidTypeError, refuse_unknown
from parfit.core.problem import BoundProblem
from parfit.core.protocols import Solver
from parfit.core.solution import Solution, Status
from parfit.solvers.verdict import guarded, judge, numerical_gradient, numerical_jacobian, screen

__all__ = ["METHODS", "Minimize"]

#: Untyped: SciPy's stubs are narrower than what its functions take.
_scipy: Any = optimize

FloatArray = NDArray[np.float64]

_COMMON = ("disp", "maxiter", "return_all")
_LINE_SEARCH = ("gtol", "norm", "eps", "finite_diff_rel_step", "c1", "c2")
_TNC = ("ftol", "xtol", "gtol", "rescale", "finite_diff_rel_step", "maxfun")
_BARRIER = (
    "barrier_tol",
    "initial_tr_radius",
    "initial_constr_penalty",
    "initial_barrier_parameter",
    "initial_barrier_tolerance",
    "factorization_method",
)
_TRUST = ("initial_trust_radius", "max_trust_radius", "eta", "gtol")
#: The options of each method, from SciPy's reference (`scipy.optimize.show_options`).
METHODS: dict[str, tuple[str, ...]] = {
    "Nelder-Mead": ("maxfev", "initial_simplex", "xatol", "fatol", "adaptive"),
    "Powell": ("xtol", "ftol", "maxfev", "direc"),
    "CG": _LINE_SEARCH,
    "BFGS": (*_LINE_SEARCH, "xrtol", "hess_inv0"),
    "Newton-CG": ("xtol", "eps", "c1", "c2"),
    "L-BFGS-B": ("maxcor", "ftol", "gtol", "eps", "maxfun", "iprint", "maxls", "finite_diff_rel_step"),
    "TNC": ("eps", "scale", "offset", "maxCGit", "eta", "stepmx", "accuracy", "minfev", *_TNC),
    "COBYLA": ("rhobeg", "catol", "f_target"),
    "COBYQA": ("maxfev", "f_target", "feasibility_tol", "initial_tr_radius", "final_tr_radius", "scale"),
    "SLSQP": ("ftol", "eps", "finite_diff_rel_step"),
    "trust-constr": ("gtol", "xtol", "sparse_jacobian", "finite_diff_rel_step", "verbose", *_BARRIER),
    "dogleg": _TRUST,
    "trust-ncg": _TRUST,
    "trust-exact": (*_TRUST, "subproblem_maxiter"),
    "trust-krylov": (*_TRUST, "inexact"),
}
_WITHOUT_GRADIENT = ("Nelder-Mead", "Powell", "COBYLA", "COBYQA")
_BOUNDED = ("Nelder-Mead", "Powell", "L-BFGS-B", "TNC", "COBYLA", "COBYQA", "SLSQP", "trust-constr")
_CONSTRAINED = ("COBYLA", "COBYQA", "SLSQP", "trust-constr")
_NEEDS_GRADIENT = ("Newton-CG", "dogleg", "trust-ncg", "trust-exact", "trust-krylov")
_NEEDS_HESSIAN = ("dogleg", "trust-ncg", "trust-exact", "trust-krylov")
#: Method and SciPy's status code where the code, not the message, says what happened.
_MAX_STEPS = {
    ("Nelder-Mead", 1), ("Nelder-Mead", 2), ("Powell", 1), ("Powell", 2), ("CG", 1), ("BFGS", 1), ("Newton-CG", 1),
    ("L-BFGS-B", 1), ("TNC", 3), ("COBYLA", 2), ("COBYLA", 3), ("COBYQA", 5), ("COBYQA", 6), ("SLSQP", 9),
    ("trust-constr", 0), ("dogleg", 1), ("trust-ncg", 1), ("trust-exact", 1), ("trust-krylov", 1),
}  # fmt: skip
_NONFINITE = {("Powell", 3), ("CG", 3), ("BFGS", 3), ("Newton-CG", 3)}


@dataclass(frozen=True)
class Minimize(Solver):
    """A method of SciPy's `minimize`; residuals are handed to it as half their sum of squares.

    Parameters
    ----------
    name
        The method.
    options
        Its options, and ``tol``, ``hess``, ``hessp`` as `minimize` takes them; ``hess(params, dataset, *args)``
        gives the Hessian in all parameters.
    """

    name: str = "L-BFGS-B"
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        known = (*METHODS[self.name], *_COMMON, "tol", "hess", "hessp")
        for option in self.options:
            if option not in known:
                refuse_unknown(f"option of method {self.name!r}", option, known)

    @property
    def accepts_bounds(self) -> bool:
        return self.name in _BOUNDED

    @property
    def accepts_constraints(self) -> bool:
        return self.name in _CONSTRAINED

    def solve(self, problem: BoundProblem) -> Solution:
        if (ended := screen(problem)) is not None:
            return ended
        if problem.bounded and not self.accepts_bounds:
            raise InvalidInputError(f"method {self.name!r} takes no bounds; these do: {', '.join(_BOUNDED)}")
        with_gradient = problem.jac is True
        jac = True if with_gradient else self._gradient(problem)
        bounds = _scipy.Bounds(problem.lower, problem.upper) if problem.bounded else None
        options = {k: v for k, v in self.options.items() if k not in ("tol", "hess", "hessp")}
        found = guarded(
            problem,
            lambda: _scipy.minimize(
                problem.fun_and_gradient if with_gradient else problem.fun,
                problem.x0,
                method=self.name,
                jac=jac,
                bounds=bounds,
                constraints=[_on_free(c, problem) for c in problem.constraints],
                tol=self.options.get("tol"),
                options=options,
                **self._hessian(problem),
            ),
        )
        if isinstance(found, Solution):
            return found
        return judge(problem, self._solution(problem, found))

    def _gradient(self, problem: BoundProblem) -> Any:
        if self.name in _WITHOUT_GRADIENT:
            return None
        jac = problem.jac
        if callable(jac) and problem.is_residuals:
            return lambda z: jac(z).T @ problem.residuals(z)
        if jac is None and self.name in _NEEDS_GRADIENT:
            return lambda z: numerical_gradient(problem, z)
        return jac

    def _hessian(self, problem: BoundProblem) -> dict[str, Any]:
        for name in ("hess", "hessp"):
            given = self.options.get(name)
            if callable(given):
                if name == "hessp" and problem.free is not None:
                    raise InvalidInputError("hessp cannot be used with fixed parameters; give hess")
                return {name: problem.second_derivative(given)}
            if given is not None:
                return {name: given}
        if self.name in _NEEDS_HESSIAN:
            return {"hess": lambda z: _numerical_hessian(problem, z)}
        return {}

    def _solution(self, problem: BoundProblem, found: Any) -> Solution:
        z = np.asarray(found.x, dtype=np.float64).reshape(-1)
        code = (self.name, int(found.status))
        if found.success:
            status = Status.CONVERGED
        elif code in _MAX_STEPS:
            status = Status.MAX_STEPS
        else:
            status = Status.NONFINITE if code in _NONFINITE else Status.STALLED
        cost = float(np.asarray(found.fun).reshape(-1)[0])
        gradient = found.get("jac", found.get("grad"))
        optimality = np.nan
        if gradient is not None and np.shape(gradient) == z.shape:
            optimality = _projected(np.asarray(gradient, dtype=np.float64), z, problem)
        return Solution(
            x=z,
            status=status,
            message=str(found.message),
            cost=cost,
            njev=int(found.get("njev", -1)),
            nit=int(found.get("nit", -1)),
            optimality=optimality,
            jac=final_jacobian(problem, z),
        )


def final_jacobian(problem: BoundProblem, z: FloatArray) -> FloatArray | None:
    """The Jacobian of residuals at the solution of a method that has none; None for a scalar objective."""
    if not problem.is_residuals:
        return None
    nfev, nonfinite = problem.nfev, problem.nonfinite
    jac = problem.jac
    found: FloatArray = jac(z) if callable(jac) else numerical_jacobian(problem, z)
    problem.nfev, problem.nonfinite = nfev, nonfinite
    return found


def _projected(g: FloatArray, z: FloatArray, problem: BoundProblem) -> float:
    """The infinity norm of the gradient, without what pushes against a bound."""
    step = np.clip(z - g, problem.lower, problem.upper) - z
    return float(np.max(np.abs(step), initial=0.0))


def _numerical_hessian(problem: BoundProblem, z: FloatArray) -> FloatArray:
    """Central differences of the gradient, symmetrised."""
    gradient = problem.jac if callable(problem.jac) else None
    h = 1e-4
    H = np.empty((len(z), len(z)))
    for i in range(len(z)):
        step = np.zeros(len(z))
        step[i] = h * max(abs(z[i]), 1.0)
        up, down = (
            gradient(z + s) if gradient is not None and not problem.is_residuals else numerical_gradient(problem, z + s)
            for s in (step, -step)
        )
        H[i] = (up - down) / (2 * step[i])
    return 0.5 * (H + H.T)


def _on_free(constraint: Any, problem: BoundProblem) -> Any:
    """A constraint on the user's parameters as one on the free vector."""
    if isinstance(constraint, _scipy.LinearConstraint):
        A = np.atleast_2d(constraint.A)
        if problem.free is None:
            return constraint
        rest = A @ problem.expand(np.zeros(problem.n))
        return _scipy.LinearConstraint(
            A[:, problem.free], constraint.lb - rest, constraint.ub - rest, constraint.keep_feasible
        )
    if isinstance(constraint, _scipy.NonlinearConstraint):
        fun = constraint.fun
        return _scipy.NonlinearConstraint(
            lambda z: fun(problem.params(z)),
            constraint.lb,
            constraint.ub,
            jac=_on_free_jacobian(constraint.jac, problem),
            keep_feasible=constraint.keep_feasible,
        )
    if isinstance(constraint, Mapping):
        made = dict(constraint)
        inner: Callable[..., Any] = made["fun"]
        made["fun"] = lambda z, *args: inner(problem.params(z), *args)
        if callable(made.get("jac")):
            made["jac"] = _on_free_jacobian(made["jac"], problem)
        return made
    raise InvalidTypeError(f"a constraint of type {type(constraint).__name__} is not understood")


def _on_free_jacobian(jac: Any, problem: BoundProblem) -> Any:
    if not callable(jac):
        return jac

    def reduced(z: FloatArray, *args: Any) -> Any:
        J = np.asarray(jac(problem.params(z), *args), dtype=np.float64)
        return J if problem.free is None else J[..., problem.free]

    return reduced
