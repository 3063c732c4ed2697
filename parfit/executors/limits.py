"""Limits that users give: a time, or a number of attempts, checked and in one form."""

from __future__ import annotations

import math
import operator
from typing import Any

from parfit.core.errors import InvalidInputError, InvalidTypeError

__all__ = ["time_limit", "whole_number"]


def time_limit(name: str, seconds: Any) -> float | None:
    """The argument `name` as seconds; None where there is no limit."""
    if seconds is None:
        return None
    if isinstance(seconds, (str, bytes, bool)):
        raise InvalidTypeError(f"{name} must be a number of seconds or None, not {seconds!r}")
    try:
        value = float(seconds)
    except (TypeError, ValueError):
        raise InvalidTypeError(f"{name} must be a number of seconds or None, not {seconds!r}") from None
    if not value > 0:
        raise InvalidInputError(f"{name} must be more than 0 s, not {seconds!r}")
    return None if math.isinf(value) else value


def whole_number(name: str, n: Any) -> int:
    """The argument `name` as a number from 0 on."""
    try:
        value = operator.index(n)
    except TypeError:
        raise InvalidTypeError(f"{name} must be a whole number, not {n!r}") from None
    if value < 0:
        raise InvalidInputError(f"{name} must be 0 or more, not {n}")
    return value
