"""Every batched solver, and the rows that each is given.

A new batched solver adds a line to `TABLE` and inherits every test of `test_batched_contract`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from parfit.batched import METHODS

Array = np.ndarray


@dataclass(frozen=True, eq=False)
class Entry:
    """One solver.

    Attributes
    ----------
    name
        As SciPy spells it.
    options
        To run it with, tight.
    limit
        Options that end it early.
    rtol, xtol
        How near it gets to the lowest cost, and to the parameters there.
    elsewhere
        Names of rows where it ends above the minimum, as SciPy's own does.
    """

    name: str
    options: dict[str, Any] = field(default_factory=dict)
    limit: dict[str, Any] = field(default_factory=dict)
    rtol: float = 1e-9
    xtol: float = 1e-5
    elsewhere: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return self.name

    def solver(self, **more: Any) -> Any:
        return METHODS[self.name](**{**self.options, **more})


_ALL = (
    Entry("lm", {"ftol": 1e-13, "xtol": 1e-13, "gtol": 1e-13}, {"max_nfev": 4}),
    Entry("L-BFGS-B", {"ftol": 1e-15, "gtol": 1e-9}, {"maxiter": 3}),
    Entry(
        "Nelder-Mead",
        {"xatol": 1e-9, "fatol": 1e-13, "maxiter": 2000, "maxfev": 4000},
        {"maxiter": 5},
        elsewhere=("from a bound",),  # the simplex is pressed flat against it
    ),
)
TABLE = tuple(entry for entry in _ALL if entry.name in METHODS)


@dataclass(frozen=True)
class Row:
    """A row: two parameters whose best values the data move about.

    Attributes
    ----------
    steep
        How bent the valley is that the minimum lies in; 0 for a bowl.
    at
        Where the minimum is.
    """

    start: tuple[float, float]
    at: tuple[float, float] = (1.0, -2.0)
    steep: float = 0.0
    lower: tuple[float, float] = (-np.inf, -np.inf)
    upper: tuple[float, float] = (np.inf, np.inf)

    def residuals(self, z: Any) -> Array:
        return np.array(residuals(z, self.at, self.steep))


def residuals(z: Any, at: Any, steep: Any) -> list[Any]:
    """Rosenbrock's valley through `at`, and a bowl where it is not bent; never 0, so that a cost is relative."""
    u, v = z[0] - at[0], z[1] - at[1]
    return [3 * (v + 0.5 * u - steep * u**2), u - 0.5 * v, 0.5 + 0 * u]


ROWS = {
    "bowl": Row((0.0, 0.0)),
    "valley": Row((-1.0, 1.0), (1.0, 1.0), 1.0),
    "far": Row((300.0, -500.0)),
    "wide bounds": Row((0.0, 0.0), lower=(-50.0, -50.0), upper=(50.0, 50.0)),
    "at an upper bound": Row((0.0, 0.0), upper=(0.5, np.inf)),
    "at a lower bound": Row((0.0, 0.0), lower=(-np.inf, -1.5)),
    "in a corner": Row((0.0, 0.0), lower=(-3.0, -1.0), upper=(0.5, 4.0)),
    "valley at a bound": Row((-1.0, 1.0), (1.0, 1.0), 1.0, upper=(0.3, np.inf)),
    "from a bound": Row((0.0, 0.0), lower=(0.0, -9.0), upper=(9.0, 0.0)),
    "from its minimum": Row((1.0, -2.0)),
    "one fixed": Row((0.0, 0.5), lower=(-np.inf, 0.5), upper=(np.inf, 0.5)),
}
NAN = Row((0.0, 0.0), (np.nan, 0.0))
