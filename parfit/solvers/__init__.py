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
from parfit.solvers.global_search import GlobalSearch
from parfit.solvers.least_squares import LeastSquares
from parfit.solvers.minimize import Minimize
from parfit.solvers.spsa import SPSASolver

__all__ = ["METHODS", "DefaultSolver", "GlobalSearch", "LeastSquares", "Minimize", "SPSASolver", "resolve"]

METHODS: tuple[str, ...] = (*least_squares.METHODS, *minimize.METHODS, *global_search.METHODS, "spsa")


def _key(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "").replace(" ", "")


_BY_KEY = {_key(name): name for name in METHODS}


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
        raise InvalidTypeError(f"method must be a name, a Solver or None, not {type(method).__name__}")
    if _key(method) not in _BY_KEY:
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
        if option not in known:
            refuse_unknown("option of method 'spsa'", option, known)
    return SPSASolver(**chosen)


@dataclass(frozen=True)
class DefaultSolver(Solver):
    """``lm`` for residuals, bounded where there are bounds; ``L-BFGS-B`` for scalars."""

    options: Mapping[str, Any] = field(default_factory=dict)
    name: str = "lm or L-BFGS-B"

    def __post_init__(self) -> None:
        known = dict.fromkeys((*least_squares.OPTIONS, *minimize.METHODS["L-BFGS-B"], "tol"))
        for option in self.options:
            if option not in known:
                refuse_unknown("option", option, known)

    @property
    def accepts_bounds(self) -> bool:
        return True

    def solve(self, problem: BoundProblem) -> Solution:
        kind: type[LeastSquares | Minimize] = LeastSquares if problem.is_residuals else Minimize
        name = "lm" if problem.is_residuals else "L-BFGS-B"
        try:
            solver = kind(name, self.options)
        except UnknownNameError as exc:
            gives = "residuals" if problem.is_residuals else "a scalar"
            text = f"the objective gives {gives}, which is fitted by {name!r} where no method is chosen: {exc}"
            raise MethodMismatchError(text) from None
        return solver.solve(problem)
