"""Scalar objectives through `scipy.optimize.minimize`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import scipy
from numpy.typing import NDArray

from parfit.core.errors import InvalidInputError, UnknownNameError
from parfit.core.problem import BoundProblem
from parfit.core.protocols import Solver
from parfit.core.solution import Solution, Status
from parfit.solvers.constraints import on_free
from parfit.solvers.differences import numerical_gradient, numerical_jacobian
from parfit.solvers.options import checked_options, refuse_unknown_options
from parfit.solvers.second_look import Best, still_falls
from parfit.solvers.verdict import guarded, judge, screen

__all__ = ["BOUNDED", "CONSTRAINED", "METHODS", "Minimize"]

#: Untyped: SciPy's stubs are narrower than what its functions take. `scipy.optimize` is loaded on first use: the
#: caller's process, which only reads the arguments, is 40 MB smaller without it.
_scipy: Any = scipy

FloatArray = NDArray[np.float64]

_ALL = ("maxiter", "disp")
_LINE_SEARCH = (*_ALL, "gtol", "norm", "eps", "finite_diff_rel_step", "c1", "c2", "return_all")
_TNC = ("disp", "maxfun", "eps", "scale", "offset", "maxCGit", "eta", "stepmx", "accuracy", "minfev", "ftol", "xtol")
_BARRIER = (
    "barrier_tol",
    "initial_tr_radius",
    "initial_constr_penalty",
    "initial_barrier_parameter",
    "initial_barrier_tolerance",
    "factorization_method",
)
_TRUST = (*_ALL, "initial_trust_radius", "max_trust_radius", "eta", "gtol", "return_all")
_DIFFERENCES = ("eps", "finite_diff_rel_step")
_RADII = ("feasibility_tol", "initial_tr_radius", "final_tr_radius")
#: The options of each method, from SciPy's reference (`scipy.optimize.show_options`).
METHODS: dict[str, tuple[str, ...]] = {
    "Nelder-Mead": (*_ALL, "maxfev", "initial_simplex", "xatol", "fatol", "adaptive", "return_all"),
    "Powell": (*_ALL, "xtol", "ftol", "maxfev", "direc", "return_all"),
    "CG": _LINE_SEARCH,
    "BFGS": (*_LINE_SEARCH, "xrtol", "hess_inv0"),
    "Newton-CG": (*_ALL, "xtol", "eps", "c1", "c2", "return_all"),
    "L-BFGS-B": (*_ALL, *_DIFFERENCES, "maxcor", "ftol", "gtol", "maxfun", "iprint", "maxls"),
    "TNC": (*_TNC, "gtol", "rescale", "finite_diff_rel_step"),
    "COBYLA": (*_ALL, "rhobeg", "catol", "f_target"),
    "COBYQA": (*_ALL, *_RADII, "maxfev", "f_target", "scale"),
    "SLSQP": (*_ALL, *_DIFFERENCES, "ftol", "iprint"),
    "trust-constr": (*_ALL, *_BARRIER, "gtol", "xtol", "sparse_jacobian", "finite_diff_rel_step", "verbose"),
    "dogleg": _TRUST,
    "trust-ncg": _TRUST,
    "trust-exact": (*_TRUST, "subproblem_maxiter"),
    "trust-krylov": (*_TRUST, "inexact"),
}
_WITHOUT_GRADIENT = ("Nelder-Mead", "Powell", "COBYLA", "COBYQA")
BOUNDED = ("Nelder-Mead", "Powell", "L-BFGS-B", "TNC", "COBYLA", "COBYQA", "SLSQP", "trust-constr")
CONSTRAINED = ("SLSQP", "trust-constr", "COBYLA", "COBYQA")
_NEEDS_GRADIENT = ("Newton-CG", "dogleg", "trust-ncg", "trust-exact", "trust-krylov")
_NEEDS_HESSIAN = ("dogleg", "trust-ncg", "trust-exact", "trust-krylov")
_TAKES_HESSIAN = ("Newton-CG", "trust-constr", *_NEEDS_HESSIAN)
_TAKES_PRODUCT = ("Newton-CG", "trust-constr", "trust-ncg", "trust-krylov")
#: Method and SciPy's status code where the code, not the message, says what happened.
_MAX_STEPS = {
    ("Nelder-Mead", 1), ("Nelder-Mead", 2), ("Powell", 1), ("Powell", 2), ("CG", 1), ("BFGS", 1), ("Newton-CG", 1),
    ("L-BFGS-B", 1), ("TNC", 3), ("COBYLA", 2), ("COBYLA", 3), ("COBYQA", 5), ("COBYQA", 6), ("SLSQP", 9),
    ("trust-constr", 0), ("dogleg", 1), ("trust-ncg", 1), ("trust-exact", 1), ("trust-krylov", 1),
}  # fmt: skip
_NO_LOWER = "the line search found no lower value: most often noise in the objective, a kink, or a wrong gradient"
#: What SciPy's words for a status code mean, where they do not say.
_MEANING = {
    ("L-BFGS-B", 2): _NO_LOWER, ("TNC", 4): _NO_LOWER, ("BFGS", 2): _NO_LOWER, ("CG", 2): _NO_LOWER,
    ("Newton-CG", 2): _NO_LOWER, ("SLSQP", 8): _NO_LOWER,
}  # fmt: skip
_SHORT = (
    "the solver claims success where the cost still falls: measure parameters and cost in units that make them about "
    "1, choose a smaller `tol`, or another method such as {!r}"
)
_KEEP_OFF = "; bounds or a nearer start keep it off where the objective is NaN or infinite"
#: The method to try next, where it is not Nelder-Mead.
_OTHER = {"Nelder-Mead": "L-BFGS-B"}
_LOST = "the solver ended at NaN or infinity: the parameters are the best that it met where the objective is finite"
_NONFINITE = {("Powell", 3), ("CG", 3), ("BFGS", 3), ("Newton-CG", 3)}


@dataclass(frozen=True)
class Minimize(Solver):
    """A method of SciPy's `minimize`; residuals are handed to it as half their sum of squares.

    Parameters
    ----------
    name
        The method.
    options
        Its options, and ``tol``, ``hess``, ``hessp`` as `minimize` takes them: ``hess(params, dataset, *args)``
        gives the Hessian in all parameters, ``hessp(params, p, dataset, *args)`` its product with the vector `p`.
    """

    name: str = "L-BFGS-B"
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        known = [*METHODS[self.name], "tol"]
        for option, takers in (("hess", _TAKES_HESSIAN), ("hessp", _TAKES_PRODUCT)):
            if self.name in takers:
                known.append(option)
            elif option in self.options:
                raise UnknownNameError(f"method {self.name!r} takes no {option!r}; these do: {', '.join(takers)}")
        refuse_unknown_options(f"method {self.name!r}", self.options, known)
        object.__setattr__(self, "options", checked_options(self.name, self.options))

    @property
    def accepts_bounds(self) -> bool:
        return self.name in BOUNDED

    @property
    def accepts_constraints(self) -> bool:
        return self.name in CONSTRAINED

    def solve(self, problem: BoundProblem) -> Solution:
        if (ended := screen(problem)) is not None:
            return ended
        if problem.bounded and not self.accepts_bounds:
            raise InvalidInputError(f"method {self.name!r} takes no bounds; these do: {', '.join(BOUNDED)}")
        with_gradient = problem.jac is True and self.name not in _WITHOUT_GRADIENT
        jac = True if with_gradient else self._gradient(problem)
        bounds = _scipy.optimize.Bounds(problem.lower, problem.upper) if problem.bounded else None
        options = {k: v for k, v in self.options.items() if k not in ("tol", "hess", "hessp")}
        best = Best()
        fun = best.noting(problem.fun_and_gradient if with_gradient else problem.fun)
        found = guarded(
            problem,
            lambda: _scipy.optimize.minimize(
                fun,
                problem.x0,
                method=self.name,
                jac=jac,
                bounds=bounds,
                constraints=[on_free(c, problem) for c in problem.constraints],
                tol=self.options.get("tol"),
                options=options,
                **self._hessian(problem),
            ),
        )
        known = best.z is not None and not problem.constraints  # with constraints it may not be allowed
        if isinstance(found, Solution):
            return replace(found, x=best.z, cost=best.cost) if known and best.z is not None else found
        if known and not np.isfinite(found.fun).all():
            return judge(problem, _lost(problem, found, best))
        solution = judge(problem, self._solution(problem, found))
        if solution.status is Status.CONVERGED and not problem.constraints:
            hint = _KEEP_OFF if problem.nonfinite else ""
            if still_falls(problem, solution, _gradient_of(found), self.name, self.options):
                solution.status = Status.STALLED
                what_to_do = _SHORT.format(_OTHER.get(self.name, "Nelder-Mead"))
                solution.message = f"{what_to_do}{hint} ({solution.message})"
        return solution

    def _gradient(self, problem: BoundProblem) -> Any:
        if self.name in _WITHOUT_GRADIENT:
            return None
        jac = problem.jac
        if callable(jac) and problem.is_residuals:
            return lambda z: jac(z).T @ problem.residuals(z)
        if jac is None and (self.name in _NEEDS_GRADIENT or problem.is_single_precision):
            return lambda z: numerical_gradient(problem, z)
        return jac

    def _hessian(self, problem: BoundProblem) -> dict[str, Any]:
        for name in ("hess", "hessp"):
            given = self.options.get(name)
            if callable(given):
                return {name: problem.hessian(given) if name == "hess" else problem.hessian_product(given)}
            if given is not None:
                return {name: given}
        if self.name in _NEEDS_HESSIAN or (self.name == "Newton-CG" and problem.jac is None):
            return {"hess": lambda z: _numerical_hessian(problem, z)}
        return {}

    def _solution(self, problem: BoundProblem, found: Any) -> Solution:
        z = np.asarray(found.x, dtype=np.float64).reshape(-1)
        code = (self.name, int(found.status))
        if found.success:
            status = Status.CONVERGED
        elif code in _MAX_STEPS:
            status = Status.MAX_STEPS
        else:  # Newton-CG has one code for NaN and for a Hessian that is not positive definite
            status = Status.NONFINITE if code in _NONFINITE and problem.nonfinite else Status.STALLED
        cost = float(np.asarray(found.fun).reshape(-1)[0])
        gradient = _gradient_of(found)
        optimality = float(found.get("optimality", np.nan))
        if np.isnan(optimality) and gradient is not None and not problem.constraints:
            optimality = _projected(gradient, z, problem)
        return Solution(
            x=z,
            status=status,
            message=_explained(code, str(found.message)),
            cost=cost,
            njev=int(found.get("njev", -1)),
            nit=int(found.get("nit", -1)),
            optimality=optimality,
            at_bound=_beside_bound(found, z, problem) if self.name == "trust-constr" else None,
            jac=final_jacobian(problem, z),
        )


def _gradient_of(found: Any) -> FloatArray | None:
    gradient = found.get("grad", found.get("jac"))  # trust-constr has the constraints' Jacobians in `jac`
    return None if gradient is None else np.asarray(gradient, dtype=np.float64).reshape(-1)


def _lost(problem: BoundProblem, found: Any, best: Best) -> Solution:
    """Where a solver ends at NaN or infinity: the best point that it met."""
    message = f"{_LOST} ({str(found.message).strip(' :')})"
    assert best.z is not None
    njev, nit = int(found.get("njev", -1)), int(found.get("nit", -1))
    jac = final_jacobian(problem, best.z)
    return Solution(best.z, Status.NONFINITE, message, best.cost, njev=njev, nit=nit, jac=jac)


def _explained(code: tuple[str, int], message: str) -> str:
    """SciPy's words, and what they mean where they need it."""
    return f"{_MEANING[code]} ({message.strip(' :')})" if code in _MEANING else message


def final_jacobian(problem: BoundProblem, z: FloatArray) -> FloatArray | None:
    """The Jacobian of residuals at the solution of a method that has none; None for a scalar objective."""
    if not problem.is_residuals:
        return None
    nfev, nonfinite, steps = problem.nfev, problem.nonfinite, len(problem.trace)
    jac = problem.jac
    found: FloatArray | None
    try:
        found = jac(z) if callable(jac) else numerical_jacobian(problem, z)
    except Exception:  # noqa: BLE001 - the fit is there; what raised beside it only costs the standard errors
        found = None
    problem.nfev, problem.nonfinite = nfev, nonfinite
    del problem.trace[steps:]
    return found


def _beside_bound(found: Any, z: FloatArray, problem: BoundProblem) -> NDArray[np.int8]:
    """The bounds that an interior-point method has come to rest beside: its gradient still pushes there."""
    near = 1e-5 * np.maximum(1.0, np.abs(z))
    pushes = np.abs(found.grad) > 1e3 * max(float(found.optimality), 1e-12)
    low = pushes & (found.grad > 0) & (z - problem.lower <= near)
    high = pushes & (found.grad < 0) & (problem.upper - z <= near)
    sides: NDArray[np.int8] = high.astype(np.int8) - low.astype(np.int8)
    return sides


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
