"""Blocks that are to be run: cut from the tasks as they are wanted, and run again where a worker was lost."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from typing import Any

from parfit.core.errors import ParfitError
from parfit.core.protocols import Block, Tasks
from parfit.executors.chunking import Blocks

__all__ = ["Job", "JobQueue", "superseded"]


def superseded() -> ParfitError:
    """What an unfinished call raises once the same pool has been called again."""
    return ParfitError("the pool was called again before this call had ended, which has ended it: one at a time")


@dataclass
class Job:
    """A block on its way.

    Attributes
    ----------
    block
        The tasks.
    attempts
        How often they have been started, this time included.
    apart
        To be run while nothing else runs, since it may have ended its worker.
    by_hand
        Send the setup along: the worker could not find it.
    fresh
        To be run in a worker that has run nothing else: it was over its memory limit in one that had.
    """

    block: Block
    attempts: int = 1
    apart: bool = False
    by_hand: bool = False
    fresh: bool = False


class JobQueue:
    """The jobs of one run; those that are run again come first.

    Parameters
    ----------
    tasks
        Pairs or `Tasks`; pulled lazily.
    workers
        The number of workers.
    """

    def __init__(self, tasks: Tasks | Iterable[tuple[Hashable, Any]], workers: int) -> None:
        self._blocks = Blocks(tasks, workers)
        self._again: deque[Job] = deque()
        self._apart: deque[Job] = deque()

    def next(self) -> Job | None:
        """The next job; None when there are no more at present."""
        if self._apart:
            return self._apart.popleft()
        if self._again:
            return self._again.popleft()
        block = self._blocks.next()
        return None if block is None else Job(block)

    @property
    def next_is_apart(self) -> bool:
        """Whether the next job is to be run while nothing else runs."""
        return bool(self._apart)

    @property
    def pending(self) -> bool:
        """Whether there may be another job."""
        return bool(self._apart or self._again or not self._blocks.ended)

    def took(self, n: int, seconds: float) -> None:
        """`n` tasks took `seconds` in all."""
        self._blocks.took(n, seconds)

    def put_back(self, job: Job) -> None:
        """Run a job after all: it was not started, or was not at fault."""
        (self._apart if job.apart else self._again).appendleft(job)

    def again(self, job: Job, start: int, stop: int) -> None:
        """Run a part of a block again; it was not at fault."""
        if stop > start:
            self._again.append(Job(job.block.part(start, stop), job.attempts))

    def singly(self, job: Job) -> None:
        """Run the tasks of a block again, each by itself, to find out which of them is at fault."""
        self._again.extend(Job(job.block.part(i, i + 1), job.attempts) for i in range(len(job.block)))

    def elsewhere(self, job: Job, index: int) -> None:
        """Start a task once more, in a worker that has run nothing else."""
        self._again.append(Job(job.block.part(index, index + 1), job.attempts + 1, fresh=True))

    def retry(self, job: Job, index: int, *, apart: bool = False) -> None:
        """Start a task once more, by itself: its worker died; where that may be another's fault, `apart`."""
        again = Job(job.block.part(index, index + 1), job.attempts + 1, apart)
        (self._apart if apart else self._again).append(again)
