"""How many workers."""

from __future__ import annotations

import operator

from parfit.core.errors import InvalidInputError, InvalidTypeError

__all__ = ["cpu_count", "worker_count"]


def cpu_count() -> int:
    """The number of cores that this process may use: affinity and container limits are heeded.

    Returns
    -------
    int
        At least 1.
    """
    import loky

    return int(loky.cpu_count())


def worker_count(workers: int | None, name: str = "workers") -> int:
    """`workers` (the argument `name`) as a positive number; by default the number of usable cores."""
    if workers is None:
        return cpu_count()
    try:
        n = operator.index(workers)
    except TypeError:
        raise InvalidTypeError(f"{name} must be a whole number or None, not {workers!r}") from None
    if n == -1:
        return cpu_count()
    if n < 1:
        raise InvalidInputError(f"{name} must be at least 1 (or None for one per core), not {n}")
    return n
