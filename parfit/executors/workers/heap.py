"""The memory limit as a worker itself keeps it: what is asked for at once, and would be over it, is a `MemoryError`.

The parent looks at its workers' sizes every now and then (`watch`), which something that takes all of the machine's
memory in one go could outrun. So the kernel refuses a worker what it asks for beyond what it has at the beginning of
the call, the limit, and some more. That is no measure of what it uses: much of what programs ask for they never touch,
so that the parent's look at what is resident is to come first wherever it comes in time.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from typing import Any

from parfit.core.solution import Outcome
from parfit.executors.limits import in_bytes

__all__ = ["Heap", "die_before_parent"]

#: A processor touches some GB in a second: this much between two looks of the parent, bytes.
_MARGIN = 1 << 28
_STATM = "/proc/self/statm"
#: Of 1000: how much rather than others the kernel ends a worker, where memory has run out.
_RATHER = 500
_SCORE = "/proc/self/oom_score_adj"


def die_before_parent() -> None:
    """Have the kernel end this process, where memory has run out, and not the parent, which may be larger (Linux)."""
    with contextlib.suppress(OSError, ValueError), open(_SCORE, "r+") as file:
        if int(file.read()) < _RATHER:
            file.write(str(_RATHER))


class Heap:
    """What this process may ask for."""

    def __init__(self) -> None:
        self._limit: int | None = None
        self._resource: Any = None
        try:
            import resource

            self._size()
            self._before = resource.getrlimit(resource.RLIMIT_DATA)
            self._resource = resource
        except (ImportError, OSError):  # not here
            return

    @staticmethod
    def _size() -> int:
        """Data and stacks of this process, touched or not, bytes."""
        with open(_STATM, "rb") as file:
            return int(file.read().split()[5]) * os.sysconf("SC_PAGE_SIZE")

    def limit(self, limit: int | None) -> None:
        """Let this process ask for `limit` bytes more than it has, about; None for as much as it might at its start."""
        if self._resource is None or limit == self._limit is None:
            return
        self._limit = limit
        soft, hard = self._before
        if limit is not None:
            wanted = self._size() + limit + _MARGIN
            soft = wanted if soft < 0 else min(wanted, soft)
        self._resource.setrlimit(self._resource.RLIMIT_DATA, (soft, hard))

    def explained(self, outcome: Outcome) -> Outcome:
        """The outcome; where memory was refused, its message says by whom."""
        error = outcome.error
        if self._limit is None or error is None or "MemoryError" not in error.type:
            return outcome
        over = f"over memory_limit={in_bytes(self._limit)}"
        text = f"{error.message} ({over})" if error.message else over
        return dataclasses.replace(outcome, error=dataclasses.replace(error, message=text))
