"""A worker of `processes` as its pool sees it, and a block on its way to one."""

from __future__ import annotations

from dataclasses import dataclass

from parfit.core.protocols import Block
from parfit.executors.workers.launch import WorkerProcess

__all__ = ["Job", "Lane"]


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
