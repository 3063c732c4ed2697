"""Constraints in SciPy's forms: read and checked once, and handed to SciPy for the free parameters alone."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import scipy
from numpy.typing import NDArray

from parfit.core.errors import InvalidInputError, InvalidTypeError, refuse_unknown
from parfit.core.parameters import Parameters
from parfit.core.problem import BoundProblem
from parfit.core.values import as_floats

__all__ = ["on_free", "read_constraints", "refuse_misfits"]

#: Untyped: SciPy's stubs are narrower than what its functions take. `scipy.optimize` is loaded on first use: the
#: caller's process, which only reads the arguments, is 40 MB smaller without it.
_scipy: Any = scipy
FloatArray = NDArray[np.float64]
_DIFFERENCES = ("2-point", "3-point", "cs")


def read_constraints(given: Any) -> tuple[Any, ...]:
    """The constraints as a tuple, each of a kind that SciPy knows.

    Raises
    ------
    InvalidInputError, InvalidTypeError, UnknownNameError
        For one that is none.
    """
    made = tuple(given) if isinstance(given, (list, tuple)) else () if given is None else (given,)
    for i, constraint in enumerate(made):
        where = _name(i, len(made))
        if isinstance(constraint, Mapping):
            _read_dict(constraint, where)
        elif isinstance(constraint, _scipy.optimize.NonlinearConstraint):
            _read_nonlinear(constraint, where)
        elif not isinstance(constraint, _scipy.optimize.LinearConstraint):
            raise InvalidTypeError(
                f"a constraint of type {type(constraint).__name__} is not understood: a dict with 'type' and 'fun', "
                "a LinearConstraint or a NonlinearConstraint is wanted"
            )
    return made


def _name(i: int, n: int) -> str:
    return "the constraint" if n == 1 else f"constraint {i}"


def _read_dict(constraint: Mapping[Any, Any], where: str) -> None:
    if not callable(constraint.get("fun")) or str(constraint.get("type")).lower() not in ("eq", "ineq"):
        raise InvalidInputError("a constraint as a dict has a 'type', 'eq' or 'ineq', and a function 'fun'")
    for key in constraint:
        if key not in ("type", "fun", "jac", "args"):
            refuse_unknown("entry of a constraint", key, ("type", "fun", "jac", "args"))
    _refuse_derivative(constraint.get("jac"), f"'jac' of {where}")


def _read_nonlinear(constraint: Any, where: str) -> None:
    if not callable(constraint.fun):
        raise InvalidTypeError(f"'fun' of {where} must be a function, not {constraint.fun!r}")
    _refuse_derivative(constraint.jac, f"'jac' of {where}")
    if not isinstance(constraint.hess, _scipy.optimize.HessianUpdateStrategy):
        _refuse_derivative(constraint.hess, f"'hess' of {where}")


def _refuse_derivative(derivative: Any, what: str) -> None:
    """Refuse what is neither a function nor the name of a difference scheme."""
    if isinstance(derivative, str) and derivative not in _DIFFERENCES:
        refuse_unknown(f"value of {what}", derivative, _DIFFERENCES)
    if not (derivative is None or isinstance(derivative, (str, bool)) or callable(derivative)):
        raise InvalidTypeError(f"{what} must be a function or one of {_DIFFERENCES}, not {derivative!r}")


# ---- against the parameters


def refuse_misfits(constraints: tuple[Any, ...], parameters: Parameters) -> None:
    """Refuse a constraint whose width is not that of the parameters; functions are called once, at the first start.

    Where one raises there, nothing is said: it may do better where the datasets start, and a row says so if not.
    """
    n = len(parameters.names)
    start = np.atleast_2d(parameters.start)
    if not n or not len(start) or not np.isfinite(start[0]).all():
        return
    for i, constraint in enumerate(constraints):
        where = _name(i, len(constraints))
        if isinstance(constraint, _scipy.optimize.LinearConstraint):
            width = constraint.A.shape[-1]
            if width != n:
                raise InvalidInputError(
                    f"{where} has a matrix A of {width} columns for {n} parameters, {_listed(parameters.names)}"
                )
            continue
        is_dict = isinstance(constraint, Mapping)
        fun, jac = (constraint["fun"], constraint.get("jac")) if is_dict else (constraint.fun, constraint.jac)
        args = constraint.get("args", ()) if is_dict else ()
        args = args if isinstance(args, tuple) else (args,)
        params = parameters.structure.unflatten(start[0].copy())
        value = _called(fun, params, args)
        if value is not None:
            _refuse_values(value, None if is_dict else constraint, where)
        if callable(jac) and (J := _called(jac, params, args)) is not None:
            shape = np.shape(J[0]) if not hasattr(J[0], "shape") else J[0].shape
            if shape and shape[-1] != n:
                raise InvalidInputError(f"'jac' of {where} gave shape {shape} for {n} parameters: constraints × {n}")


def _called(function: Callable[..., Any], params: Any, args: tuple[Any, ...]) -> tuple[Any] | None:
    """What a function of the user's gives, in a tuple; None where it raises."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        try:
            return (function(params, *args),)
        except Exception:  # noqa: BLE001 - it is for the rows to tell
            return None


def _refuse_values(value: tuple[Any], constraint: Any, where: str) -> None:
    try:
        values = np.asarray(value[0])
        if values.dtype.kind not in "biufO":
            raise ValueError(f"dtype {values.dtype}")
        values = np.array([float(v) for v in values.ravel()])  # NumPy makes NaN of None
    except (TypeError, ValueError):
        text = f"'fun' of {where} must give a number or an array of numbers, not {value[0]!r}"
        raise InvalidTypeError(text) from None
    for side in ("lb", "ub") if constraint is not None else ():
        shape = np.shape(getattr(constraint, side))
        if shape not in ((), (1,), values.shape) and values.size > 1:
            raise InvalidInputError(
                f"'fun' of {where} gives {values.size} value{'s' * (values.size != 1)}, and its {side!r} has {shape[0]}"
            )


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(map(repr, names[:6])) + ", …" * (len(names) > 6)


# ---- for SciPy


def on_free(constraint: Any, problem: BoundProblem) -> Any:
    """A constraint on the user's parameters as one on the free vector."""
    if isinstance(constraint, _scipy.optimize.LinearConstraint):
        if problem.free is None:
            return constraint
        A = constraint.A.toarray() if hasattr(constraint.A, "toarray") else np.atleast_2d(constraint.A)
        rest = A @ problem.expand(np.zeros(problem.n))
        return _scipy.optimize.LinearConstraint(
            A[:, problem.free], constraint.lb - rest, constraint.ub - rest, constraint.keep_feasible
        )
    if isinstance(constraint, _scipy.optimize.NonlinearConstraint):
        step = constraint.finite_diff_rel_step
        return _scipy.optimize.NonlinearConstraint(
            _of_params(constraint.fun, problem),
            constraint.lb,
            constraint.ub,
            jac=_on_free_jacobian(constraint.jac, problem),
            hess=_on_free_hessian(constraint.hess, problem),
            keep_feasible=constraint.keep_feasible,
            finite_diff_rel_step=step if problem.free is None or np.ndim(step) == 0 else np.asarray(step)[problem.free],
        )
    made = dict(constraint)
    made["fun"] = _of_params(made["fun"], problem)
    if callable(made.get("jac")):
        made["jac"] = _on_free_jacobian(made["jac"], problem)
    return made


def _of_params(function: Callable[..., Any], problem: BoundProblem) -> Callable[..., Any]:
    return lambda z, *args: problem.call(function, problem.params(z), *args)


def _on_free_jacobian(jac: Any, problem: BoundProblem) -> Any:
    if not callable(jac):
        return jac

    def reduced(z: FloatArray, *args: Any) -> Any:
        J = as_floats(problem.call(jac, problem.params(z), *args), "Jacobian of a constraint")
        return J if problem.free is None else J[..., problem.free]

    return reduced


def _on_free_hessian(hess: Any, problem: BoundProblem) -> Any:
    if not callable(hess):
        return hess

    def reduced(z: FloatArray, v: FloatArray) -> Any:
        H = as_floats(problem.call(hess, problem.params(z), v), "Hessian of a constraint")
        return H if problem.free is None else H[np.ix_(problem.free, problem.free)]

    return reduced
