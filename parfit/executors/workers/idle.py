"""Workers between two calls: kept for a minute, so that the next call need not start any."""

from __future__ import annotations

import atexit
import os
import sys
import threading
from collections.abc import Callable

from parfit.executors.workers.launch import WorkerProcess
from parfit.executors.workers.worker import IDLE_S

__all__ = ["at_shutdown", "idle_workers", "shutdown_workers", "warm_up"]


class IdleWorkers:
    """Workers between two calls. Shared by the threads of this process; not by its forked children."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._workers: list[WorkerProcess] = []
        self._timer: threading.Timer | None = None

    def take(self) -> WorkerProcess | None:
        """The worker that was used last, if any is alive."""
        while True:
            with self._lock:
                if not self._workers:
                    return None
                worker = self._workers.pop()
            if not worker.gone:
                return worker
            worker.close()

    def count(self) -> int:
        """How many there are."""
        with self._lock:
            return len(self._workers)

    def give(self, worker: WorkerProcess) -> None:
        """Keep a worker for the next call; it ends by itself after a while."""
        if sys.is_finalizing():  # there is no next call, and starting the timer's thread would never return
            worker.close()
            return
        try:
            worker.send("end")
        except OSError:
            worker.close()
            return
        with self._lock:
            self._workers.append(worker)
            self._come_again()

    def _come_again(self) -> None:
        """Have `_reap` called in a while: by one timer at a time, however many calls there are."""
        if self._timer is None:
            self._timer = threading.Timer(IDLE_S + 1.0, self._reap)
            self._timer.daemon = True
            self._timer.start()

    def _reap(self) -> None:
        with self._lock:
            self._timer = None
            ended = [worker for worker in self._workers if worker.gone]
            self._workers = [worker for worker in self._workers if worker not in ended]
            if self._workers:
                self._come_again()
        for worker in ended:
            worker.close()

    def shutdown(self) -> None:
        """End them all, now."""
        with self._lock:
            workers, self._workers = self._workers, []
        for worker in workers:
            worker.close()

    def disown(self) -> None:
        """In a forked child: the workers are the parent's."""
        self._lock = threading.Lock()
        self._timer = None
        workers, self._workers = self._workers, []
        for worker in workers:
            worker.abandon()


idle_workers = IdleWorkers()
atexit.register(idle_workers.shutdown)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=idle_workers.disown)


def warm_up(workers: int) -> None:
    """Start as many workers, to be found idle: all at once, where the first call would start one by one."""
    for _ in range(workers - idle_workers.count()):
        idle_workers.give(WorkerProcess())


#: What else is to end with the idle workers: those that keep data (parfit.executors.keeping.kept).
_closers: list[Callable[[], None]] = []


def at_shutdown(close: Callable[[], None]) -> None:
    """Have `close` called by `shutdown_workers`."""
    _closers.append(close)


def shutdown_workers() -> None:
    """End the idle worker processes that are kept for the next call, and those that keep data for it."""
    for close in _closers:
        close()
    idle_workers.shutdown()
