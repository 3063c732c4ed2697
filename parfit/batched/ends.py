"""Why a row has ended, as the numbers that the compiled programs hand out."""

from __future__ import annotations

from enum import IntEnum

__all__ = ["End"]


class End(IntEnum):
    """Why a solver stopped; what it is worth is judged afterwards (`parfit.batched.verdict`)."""

    RUNNING = 0
    GRADIENT = 1
    COST = 2
    STEP = 3
    BOTH = 4
    LIMIT = 5
    NO_DESCENT = 6
    NONFINITE_START = 7
    EXACT = 8
