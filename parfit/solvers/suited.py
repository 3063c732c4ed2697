"""Whether a solver suits what it is to fit: what is wrong for every dataset is refused before any worker starts."""

from __future__ import annotations

from typing import Any

import numpy as np

from parfit.core.errors import InvalidInputError
from parfit.core.parameters import Parameters
from parfit.core.protocols import Solver
from parfit.solvers import global_search, least_squares, minimize
from parfit.solvers.constraints import refuse_misfits

__all__ = ["refuse_unsuited"]

#: The parameters' own shapes of SciPy's options, in the free parameters.
_SHAPES = {"initial_simplex": "n + 1 × n", "direc": "n × n", "hess_inv0": "n × n"}
_BOUNDED = (*least_squares.METHODS, *minimize.BOUNDED, *global_search.METHODS, "spsa")
_BOXLESS = tuple(name for name in _BOUNDED if name == "basinhopping" or name not in global_search.METHODS)


def refuse_unsuited(solver: Solver, parameters: Parameters, constraints: tuple[Any, ...]) -> None:
    """Refuse bounds, constraints or option arrays that the solver cannot work with for any dataset.

    Raises
    ------
    InvalidInputError, InvalidTypeError
        With the methods that can.
    """
    if parameters.bounded and not solver.accepts_bounds:
        raise InvalidInputError(f"method {solver.name!r} takes no bounds; these do: {', '.join(_BOUNDED)}")
    if constraints and not solver.accepts_constraints:
        raise InvalidInputError(
            f"method {solver.name!r} takes no constraints; these do: {', '.join(minimize.CONSTRAINED)}"
        )
    if solver.needs_bounds and parameters.bounds_of is None:
        _refuse_without_box(solver, parameters)
    _refuse_shapes(solver, parameters)
    refuse_misfits(constraints, parameters)


def _refuse_without_box(solver: Solver, p: Parameters) -> None:
    free = ~p.fixed
    finite = np.isfinite(p.lower[..., free]) & np.isfinite(p.upper[..., free])
    if finite.reshape(-1, int(free.sum())).all(axis=1).any():
        return
    names = np.array(p.names, dtype=object)[free][~finite.reshape(-1, int(free.sum())).any(axis=0)].tolist()
    without = f" ({', '.join(map(repr, names[:6]))}{', …' * (len(names) > 6)} without)" if names else ""
    raise InvalidInputError(
        f"method {solver.name!r} needs finite bounds for every free parameter{without}; "
        f"these need none: {', '.join(_BOXLESS)}"
    )


def _refuse_shapes(solver: Solver, p: Parameters) -> None:
    """Refuse arrays in the options that have the wrong number of parameters."""
    options = getattr(solver, "options", None) or {}
    n = len(p.names)
    free = _n_free(p)
    sizes = {1, n, n if free is None else free}
    for name in ("x_scale", "diff_step", "param_tol", "scale"):
        value = options.get(name, getattr(solver, name, None))
        if value is not None and not isinstance(value, str) and np.size(value) not in sizes:
            raise InvalidInputError(
                f"option {name!r} of method {solver.name!r} has {np.size(value)} numbers for {n} parameters; "
                f"give 1 or {n}"
            )
    for name, shape in _SHAPES.items():
        value = options.get(name)
        if value is None or free is None:
            continue
        wanted = (free + (name == "initial_simplex"), free)
        if np.shape(value) != wanted:
            raise InvalidInputError(
                f"option {name!r} of method {solver.name!r} has shape {np.shape(value)}; {wanted} is wanted: {shape}, "
                "for the parameters that are not fixed"
            )


def _n_free(p: Parameters) -> int | None:
    """How many parameters are free in every dataset; None where that differs, or is not known yet."""
    if p.bounds_of is not None:
        return None
    free = np.atleast_2d(~p.fixed & (p.lower < p.upper)).sum(axis=1)
    return int(free[0]) if len(free) and (free == free[0]).all() else None
