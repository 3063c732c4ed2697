"""Every method that `fit` knows by name, with what it takes, and SciPy called directly as its referee.

A new solver adds a line to `TABLE` and inherits every test of `test_solver_contract`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy import optimize

Fun = Callable[[np.ndarray], float]
Box = Sequence[tuple[float, float]] | None

#: The random numbers of the dataset at position 0 with the default seed.
SEED = (0, 0)


@dataclass(frozen=True)
class Entry:
    """One method.

    Attributes
    ----------
    name
        As SciPy spells it.
    referee
        Minimises a function from a start, in a box or without one; None where SciPy has no such method.
    options
        Options to run it with.
    residuals
        Whether it wants residuals; a referee takes them then, in place of a scalar.
    bounded, constrained
        Whether it takes bounds and constraints.
    needs_box
        Whether it cannot do without bounds.
    rtol
        How near it gets to a minimum; loose where the method is.
    draws
        Whether it draws random numbers.
    """

    name: str
    referee: Callable[..., Any] | None
    options: dict[str, Any] = field(default_factory=dict)
    residuals: bool = False
    bounded: bool = False
    constrained: bool = False
    needs_box: bool = False
    rtol: float = 1e-4
    draws: bool = False

    def __repr__(self) -> str:
        return self.name

    def box(self, box: Box) -> Box:
        """The box, where the method cannot do without."""
        return box if self.needs_box else None


def _minimize(name: str, **given: Any) -> Entry:
    def referee(fun: Fun, x0: Any, box: Box, options: dict[str, Any], **more: Any) -> Any:
        bounds = None if box is None else optimize.Bounds(*np.transpose(box))
        return optimize.minimize(fun, x0, method=name, bounds=bounds, options=options, **more)

    return Entry(name, referee, **given)


def _least_squares(name: str) -> Entry:
    def referee(fun: Any, x0: Any, box: Box, options: dict[str, Any], **more: Any) -> Any:
        bounds = (-np.inf, np.inf) if box is None else tuple(np.transpose(box))
        method = "trf" if name == "lm" and box is not None else name
        return optimize.least_squares(fun, x0, bounds=bounds, method=method, **options, **more)

    return Entry(name, referee, residuals=True, bounded=True)


def _global(name: str, call: Callable[..., Any], **given: Any) -> Entry:
    given = {"bounded": True, "needs_box": True, **given}
    return Entry(name, lambda fun, x0, box, options: call(fun, x0, box, **options), **given)


def _brute(fun: Fun, x0: Any, box: Box, **options: Any) -> Any:
    x, value, *_ = optimize.brute(fun, box, full_output=True, **options)
    return optimize.OptimizeResult(x=x, fun=value)


#: Small enough for the tests' patience; SciPy is given the same.
TABLE = (
    _least_squares("lm"),
    _least_squares("trf"),
    _least_squares("dogbox"),
    _minimize("Nelder-Mead", bounded=True),
    _minimize("Powell", bounded=True),
    _minimize("CG"),
    _minimize("BFGS"),
    _minimize("Newton-CG"),
    _minimize("L-BFGS-B", bounded=True),
    _minimize("TNC", bounded=True, rtol=1e-3),
    _minimize("COBYLA", bounded=True, constrained=True, options={"rhobeg": 0.5, "maxiter": 3000}, rtol=0.03),
    _minimize("COBYQA", bounded=True, constrained=True),
    _minimize("SLSQP", bounded=True, constrained=True, rtol=1e-3),
    _minimize("trust-constr", bounded=True, constrained=True),
    _minimize("dogleg"),
    _minimize("trust-ncg"),
    _minimize("trust-exact"),
    _minimize("trust-krylov"),
    _global(
        "differential_evolution",
        lambda f, x0, box, **o: optimize.differential_evolution(f, box, x0=x0, rng=np.random.default_rng(SEED), **o),
        options={"popsize": 6, "tol": 0.05},
        draws=True,
    ),
    _global(
        "dual_annealing",
        lambda f, x0, box, **o: optimize.dual_annealing(f, box, x0=x0, rng=np.random.default_rng(SEED), **o),
        options={"maxiter": 30},
        draws=True,
    ),
    _global("shgo", lambda f, x0, box, **o: optimize.shgo(f, box, **o)),
    _global(
        "direct",
        lambda f, x0, box, **o: optimize.direct(f, box, **o),
        options={"len_tol": 1e-4, "maxfun": 10000},
        rtol=0.02,
    ),
    _global(
        "basinhopping",
        lambda f, x0, box, **o: optimize.basinhopping(f, x0, rng=np.random.default_rng(SEED), **o),
        options={"niter": 3},
        needs_box=False,
        draws=True,
    ),
    _global("brute", _brute, options={"Ns": 40, "finish": None}, rtol=0.1),
    Entry("spsa", None, options={"maxiter": 3000}, bounded=True, rtol=0.1, draws=True),
)
BY_NAME = {entry.name: entry for entry in TABLE}
SCALAR = tuple(entry for entry in TABLE if not entry.residuals)
REFEREED = tuple(entry for entry in TABLE if entry.referee is not None)
#: Those whose gradient and Hessian SciPy does not find by itself: `fit` differentiates for them.
WITHOUT_DERIVATIVES = ("Newton-CG", "dogleg", "trust-ncg", "trust-exact", "trust-krylov")
