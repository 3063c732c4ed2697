"""Limits of time and memory, as the parent of the workers keeps them: when to look, and who is over.

A worker's clock goes on while this process does not run (it was stopped, or its machine was paused), and so does the
work, or not: both may have been stopped together. How long that was shows in a wait that took longer than was asked
for, and no task is charged for it. A laptop's sleep needs none of this: no clock that is looked at counts it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable

from parfit.core.errors import InvalidInputError
from parfit.executors.limits import in_bytes
from parfit.executors.workers.board import Position

__all__ = ["LOOK_S", "Watch", "check_memory_can_be_watched", "needs_more", "resident"]

#: Workers are looked at this often, s. Memory fills at some GB/s at most, a tenth of that in between.
LOOK_S = 0.05
#: A wait that is over by this much was no busy machine, s.
_STOPPED_S = 0.2
_STATM = "/proc/{}/statm"


class Watch:
    """The limits of one call.

    Parameters
    ----------
    timeout
        For each task, s.
    memory_limit
        For each worker, bytes.
    """

    def __init__(self, timeout: float | None = None, memory_limit: int | None = None) -> None:
        self.timeout = timeout
        self.memory_limit = memory_limit
        self._stops: list[tuple[float, float]] = []
        self._looked = 0.0

    def patience(self, positions: Iterable[Position | None]) -> float | None:
        """When to look at the workers, which are at `positions`, again at the latest, s; None for no limits."""
        if self.timeout is None:
            return None if self.memory_limit is None else LOOK_S
        ran = max((self._ran(at) for at in positions if at is not None), default=0.0)
        return min(LOOK_S, max(0.0, self.timeout - ran) + 0.001)

    def waited(self, asked: float | None, begin: float) -> None:
        """Note a wait that began at `begin`, on the monotonic clock, and was to take `asked` seconds at most."""
        if asked is not None and (end := time.monotonic()) - begin - asked > _STOPPED_S:
            self._stops.append((begin + asked, end))

    def late(self, at: Position | None) -> bool:
        """Whether a task has run for too long."""
        return at is not None and self.timeout is not None and self._ran(at) > self.timeout

    def _ran(self, at: Position) -> float:
        """For how long a task has run while this process did."""
        if not self._stops:
            return at.seconds
        begin = time.monotonic() - at.seconds
        return at.seconds - sum(max(0.0, end - max(start, begin)) for start, end in self._stops)

    def looks_at_memory(self) -> bool:
        """Whether it is time to ask `over`."""
        if self.memory_limit is None or (now := time.monotonic()) - self._looked < 0.5 * LOOK_S:
            return False
        self._looked = now
        return True

    def over(self, pid: int) -> int | None:
        """How large a process is, bytes, where that is over the limit."""
        size = resident(pid)
        return size if self.memory_limit is not None and size > self.memory_limit else None


def resident(pid: int | str) -> int:
    """The resident memory of a process, bytes; 0 where it has ended."""
    try:
        with open(_STATM.format(pid), "rb") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return 0


def needs_more(limit: int | None, size: int) -> str:
    """What to say of a limit that a worker was over before it had a task."""
    assert limit is not None
    words = f"memory_limit={in_bytes(limit)} is less than a worker needs to begin"
    return f"{words}: one had reached {in_bytes(size, limit)} before its first task"


def check_memory_can_be_watched() -> None:
    """Raise `InvalidInputError` where the system does not tell how large a process is."""
    if not resident("self"):
        raise InvalidInputError(
            "memory_limit needs to see how large each worker is, which only Linux tells (in /proc); leave it out here"
        )
