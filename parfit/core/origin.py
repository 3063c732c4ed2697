"""Where a `Fits` comes from: the call of `fit` that made it, as far as its results need it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parfit.core.solution import Solution

__all__ = ["Origin"]

#: Refits some positions of a `Fits` with changed arguments of `fit`, starting from what is there.
Refit = Callable[[Any, NDArray[np.intp], dict[str, Any]], Any]


@dataclass(frozen=True, eq=False)
class Origin:
    """Where a `Fits` comes from.

    Attributes
    ----------
    engine, engine_reason
        Which engine ran, and why.
    seconds
        The wall time of the call, s.
    workers
        In words: which executor.
    maximize
        Whether ``cost`` is the negative of the objective.
    refit, debug
        Run rows again; None where the data are not at hand.
    sensitivity
        How the solutions of a `Fits` move with the data, or a further argument; None likewise.
    """

    engine: str
    engine_reason: str
    seconds: float
    executor: str
    maximize: bool = False
    refit: Refit | None = None
    debug: Callable[[int], Solution] | None = None
    sensitivity: Callable[[Any, Any], Any] | None = None
