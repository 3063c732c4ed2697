"""Fit one dataset at a time, with NumPy and SciPy. Names of all methods."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from parfit.core.errors import (
    InvalidInputError,
    InvalidTypeError,
    MethodMismatchError,
    UnknownNameError,
    refuse_unknown,
)
from parfit.core.problem import BoundProblem
from parfit.core.protocols import Solver
from parfit.core.solution import Solution
from parfit.solvers import global_search, least_squares, minimize
from parfit.solvers.constraints import read_constraints
from parfit.solvers.global_search import GlobalSearch
from parfit.solvers.least_squares import LeastSquares
from parfit.solvers.minimize import Minimize
from parfit.solvers.options import checked_options, refuse_unknown_options
from parfit.solvers.spsa_solver import SPSA_ONLY, SPSASolver
from parfit.solvers.suited import refuse_unsuited

__all__ = [
    "METHODS",
    "DefaultSolver",
    "GlobalSearch",
    "LeastSquares",
    "Minimize",
    "SPSASolver",
    "read_constraints",
    "refuse_unsuited",
    "resolve",
]

METHODS: tuple[str, ...] = (*least_squares.METHODS, *minimize.METHODS, *global_search.METHODS, "spsa")


def _key(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "").replace(" ", "")


_BY_KEY = {_key(name): name for name in METHODS}


#: What users of other packages, or of SciPy's functions, may write.
_OTHER_NAMES = {
    "anneal": "dual_annealing",
    "bh": "basinhopping",
    "curvefit": "lm",
    "de": "differential_evolution",
    "fmin": "Nelder-Mead",
    "lbfgs": "L-BFGS-B",
    "leastsq": "lm",
    "leastsquares": "lm",
    "levenberg": "lm",
    "levenbergmarquardt": "lm",
    "marquardt": "lm",
    "simplex": "Nelder-Mead",
}


def _described(method: Any) -> str:
    """What is no method, and the name to write where it is the function of one."""
    name = getattr(method, "__name__", None) if callable(method) else None
    if name is None:
        return type(method).__name__
    key = _key(name)
    known = _BY_KEY.get(key, _OTHER_NAMES.get(key))
    return f"the function {name}" + (f": write method={known!r}" if known else "")


def resolve(method: Any, options: Mapping[str, Any] | None, *, constrained: bool = False) -> Solver:
    """The recipe for what the user asked for.

    Parameters
    ----------
    method
        None for the default, a name without regard to case and hyphens, or a `Solver`.
    options
        Options of the method.
    constrained
        Whether there are constraints; decides the default.

    Raises
    ------
    UnknownNameError
        For a method or an option that does not exist, with the nearest match.
    """
    chosen = dict(options or {})
    if isinstance(method, Solver):
        if chosen:
            raise InvalidInputError("a Solver has its options already; leave out `options`")
        return method
    if method is None:
        return Minimize("SLSQP", chosen) if constrained else DefaultSolver(chosen)
    if not isinstance(method, str):
        raise InvalidTypeError(f"method must be a name, a Solver or None, not {_described(method)}")
    if _key(method) not in _BY_KEY:
        if (name := _OTHER_NAMES.get(_key(method))) is not None:
            raise UnknownNameError(f"unknown method {method!r}. Did you mean {name!r}?")
        refuse_unknown("method", method, METHODS, limit=len(METHODS))
    name = _BY_KEY[_key(method)]
    if name in least_squares.METHODS:
        return LeastSquares(name, chosen)
    if name in minimize.METHODS:
        return Minimize(name, chosen)
    if name in global_search.METHODS:
        return GlobalSearch(name, chosen)
    known = SPSASolver.__dataclass_fields__
    for option in chosen:
        if option not in known and option in SPSA_ONLY:
            raise UnknownNameError(f"{option!r} is an argument of parfit.SPSA, and no option of method 'spsa' in fit")
    refuse_unknown_options("method 'spsa'", chosen, known)
    return SPSASolver(**chosen)


def _refuse_value(option: str, value: Any) -> None:
    """Refuse a value that neither of the two default methods can use."""
    refusals = []
    for name, known in (("lm", least_squares.option_names()), ("L-BFGS-B", (*minimize.METHODS["L-BFGS-B"], "tol"))):
        if option in known:
            try:
                checked_options(name, {option: value})
            except (InvalidInputError, InvalidTypeError) as exc:
                refusals.append(exc)
            else:
                return
    if refusals:
        raise refusals[0]


@dataclass(frozen=True)
class DefaultSolver(Solver):
    """``lm`` for residuals, bounded where there are bounds; ``L-BFGS-B`` for scalars."""

    options: Mapping[str, Any] = field(default_factory=dict)
    name: str = "lm or L-BFGS-B"

    def __post_init__(self) -> None:
        if not self.options:
            return
        known = dict.fromkeys((*least_squares.option_names(), *minimize.METHODS["L-BFGS-B"], "tol"))
        refuse_unknown_options(f"the default method, {self.name}", self.options, known)
        for option, value in self.options.items():
            _refuse_value(option, value)

    @property
    def accepts_bounds(self) -> bool:
        return True

    def chosen(self, residuals: bool) -> LeastSquares | Minimize:
        """The solver for residuals or a scalar; a `MethodMismatchError` where it does not take the options."""
        kind: type[LeastSquares | Minimize] = LeastSquares if residuals else Minimize
        name = "lm" if residuals else "L-BFGS-B"
        try:
            return kind(name, self.options)
        except (InvalidInputError, InvalidTypeError) as exc:
            gives = "residuals, which are" if residuals else "a scalar, which is"
            text = f"the objective gives {gives} fitted by {name!r} where no method is chosen: {exc}"
            raise MethodMismatchError(text) from None

    def solve(self, problem: BoundProblem) -> Solution:
        return self.chosen(problem.is_residuals).solve(problem)
