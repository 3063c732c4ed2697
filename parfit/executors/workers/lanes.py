"""A worker of `processes` as its pool sees it, the block that it is on, and those that are still to be run."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from typing import Any

from parfit.core.protocols import Block, Tasks
from parfit.executors.chunking import Blocks, ChunkSizer
from parfit.executors.workers.board import Position
from parfit.executors.workers.launch import WorkerProcess

__all__ = ["Backlog", "Job", "Lane"]


@dataclass(eq=False)
class Job:
    """A block on its way.

    Attributes
    ----------
    block
        The tasks.
    attempts
        How often they have been started, this time included.
    received
        How many of its outcomes are in.
    fresh
        To be run in a worker that has run nothing else: it was over its memory limit in one that had.
    """

    block: Block
    attempts: int = 1
    received: int = 0
    fresh: bool = False


class Lane:
    """A worker and what it is on.

    Attributes
    ----------
    used
        It has run tasks before those of its present block.
    ready
        It has its setup and the function.
    job
        The block that it is on, or is to be on as soon as it is ready.
    sending
        It has not taken all that has been posted.
    """

    def __init__(self, worker: WorkerProcess, *, reused: bool) -> None:
        self.worker = worker
        self.reused = self.used = reused
        self.ready = False
        self.job: Job | None = None
        self.sending = False


class Backlog:
    """What is still to be run in a call: first what has to be run again, then blocks cut from the tasks as wanted.

    Parameters
    ----------
    workers
        The number of workers.
    tasks
        Pairs or `Tasks`; pulled lazily.
    jobs
        What another backlog has left.
    sizer
        What is known of the tasks' cost.
    """

    def __init__(
        self,
        workers: int,
        tasks: Tasks | Iterable[tuple[Hashable, Any]] = (),
        jobs: Iterable[Job] = (),
        sizer: ChunkSizer | None = None,
    ) -> None:
        self._blocks = Blocks(tasks, workers, sizer)
        self.jobs = deque(jobs)

    @property
    def waits(self) -> bool:
        """Whether there is something to be run again."""
        return bool(self.jobs)

    def next(self, suits: Callable[[Job], bool] | None = None) -> Job | None:
        """The next block that suits; None where there is none."""
        for job in self.jobs:
            if suits is None or suits(job):
                self.jobs.remove(job)
                return job
        block = self._blocks.next()
        return None if block is None else Job(block)

    def took(self, n: int, seconds: float) -> None:
        """`n` tasks took `seconds` in all."""
        self._blocks.took(n, seconds)

    def end(self) -> None:
        """Pull no more tasks."""
        self._blocks.end()

    # ---- again

    def put_back(self, job: Job) -> None:
        """Run a block after all: none of it was started."""
        self.jobs.appendleft(job)

    def again(self, job: Job, start: int, stop: int, *, alone: bool = False) -> None:
        """Run a part of a block again, as it is or each task alone; it was not at fault, or that is not known."""
        if alone:
            self.jobs.extend(Job(job.block.part(i, i + 1), job.attempts) for i in range(start, stop))
        elif stop > start:
            self.jobs.append(Job(job.block.part(start, stop), job.attempts))

    def retry(self, job: Job, index: int) -> None:
        """Start a task once more, alone: its worker has died."""
        self.jobs.append(Job(job.block.part(index, index + 1), job.attempts + 1))

    def elsewhere(self, job: Job, index: int) -> None:
        """Start a task once more, in a worker that has run nothing else."""
        self.jobs.appendleft(Job(job.block.part(index, index + 1), job.attempts + 1, fresh=True))

    def culprit(self, job: Job, at: Position | None) -> int | None:
        """The task of a lost block that is at fault; the others are run again, also where none is known to be."""
        n, first = len(job.block), job.received
        if first >= n:
            return None
        if at is None or not first <= at.task < n:
            if n - first > 1:
                self.again(job, first, n, alone=True)
                return None
            return first
        self.again(job, first, at.task)
        self.again(job, at.task + 1, n)
        return at.task
