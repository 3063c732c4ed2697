"""The default executor: plain interpreter processes of our own (`workers.pool`)."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from parfit.core.protocols import Capabilities, Executor, Pool
from parfit.executors.cpus import worker_count
from parfit.executors.limits import memory_limit
from parfit.executors.workers.idle import shutdown_workers
from parfit.executors.workers.pool import ProcessPool

__all__ = ["ProcessesExecutor"]


@dataclass(frozen=True)
class ProcessesExecutor(Executor):
    """Worker processes of our own.

    Parameters
    ----------
    workers
        How many; by default as many as this process may use cores.
    memory_limit
        How large each may become, in bytes or as text such as ``"2 GiB"``.
    """

    workers: int | None = None
    memory_limit: int | str | None = None
    name: ClassVar[str] = "processes"
    capabilities: ClassVar[Capabilities] = Capabilities(
        survives_worker_death=True, enforces_timeout=True, own_process=True, limits_memory=True
    )

    def __post_init__(self) -> None:
        object.__setattr__(self, "memory_limit", memory_limit(self.memory_limit))

    @contextlib.contextmanager
    def open(self, setup: Callable[[], Any] | None = None, *, retries: int = 1) -> Iterator[Pool]:
        pool = ProcessPool(worker_count(self.workers), setup, retries, memory_limit(self.memory_limit))
        try:
            yield pool
        except KeyboardInterrupt:
            pool.close(keep=False)
            shutdown_workers()
            raise
        finally:
            pool.close(keep=True)
