"""Limits that users give: a time, a size, or a number of attempts, checked and in one form."""

from __future__ import annotations

import math
import operator
import re
from typing import Any

from parfit.core.errors import InvalidInputError, InvalidTypeError

__all__ = ["in_bytes", "memory_limit", "time_limit", "whole_number"]

_UNITS = (
    {"B": 1}
    | {f"{k}B": 1000**i for i, k in enumerate("kMGT", 1)}
    | {f"{k}iB": 1024**i for i, k in enumerate("KMGT", 1)}
)


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


def memory_limit(size: Any) -> int | None:
    """The argument `memory_limit` as a number of bytes; None where there is no limit."""
    if size is None:
        return None
    if isinstance(size, str):
        value = _bytes_of(size)
    else:
        try:
            value = operator.index(size) if not isinstance(size, bool) else None
        except TypeError:
            value = None
    if value is None:
        raise InvalidTypeError(
            f"memory_limit must be a number of bytes, or text such as '500 MB' or '2 GiB', not {size!r} "
            f"(units: {', '.join(_UNITS)})"
        )
    if value <= 0:
        raise InvalidInputError(f"memory_limit must be more than 0 bytes, not {size!r}")
    return value


def _bytes_of(text: str) -> int | None:
    found = re.fullmatch(r"\s*(\d+\.?\d*|\.\d+)\s*([a-z]*)\s*", text, re.IGNORECASE)
    factors = {unit.lower(): factor for unit, factor in _UNITS.items()}
    if found is None or (unit := found[2].lower() or "b") not in factors:
        return None
    return int(float(found[1]) * factors[unit])


def in_bytes(size: int, like: int | None = None) -> str:
    """A size in words: in powers of 1024 where `like` (or the size itself) is a whole number of MiB, else of 1000."""
    binary = (size if like is None else like) % 1024**2 == 0
    units = [(unit, factor) for unit, factor in _UNITS.items() if ("i" in unit) is binary or unit == "B"]
    unit, factor = [pair for pair in units if pair[1] <= size][-1]
    return f"{size / factor:.4g} {unit}"
