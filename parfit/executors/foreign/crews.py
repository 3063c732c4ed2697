"""Foreign executors with the `concurrent.futures` interface, as `futures.FuturesPool` drives them: a `Crew` each.

A crew starts its executor when it is first given something to do, and again after it was dismissed.
"""

from __future__ import annotations

import contextlib
import copy
import multiprocessing
import os
import queue
import signal
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from concurrent.futures.process import ProcessPoolExecutor
from multiprocessing import connection
from typing import Any

from parfit.executors.foreign.exits import end_at_exit
from parfit.executors.foreign.remote import start_worker
from parfit.executors.running import worker_environment
from parfit.executors.workers.launch import exit_in_words

__all__ = ["Crew", "GivenCrew", "LokyCrew", "ProcessCrew", "SpawnCrew", "ThreadCrew"]

#: A process that has closed its end is reaped within this, s.
_REAP_S = 5.0


class Crew(ABC):
    """Workers that are handed calls.

    Attributes
    ----------
    ours
        It is made here, so that it can be ended and made again.
    """

    ours = True

    @abstractmethod
    def submit(self, call: Callable[..., Any], /, *args: Any) -> Any:
        """Hand over a call; returns its future."""

    def cancel(self, futures: Iterable[Any]) -> None:
        """Nobody waits for these any more; what runs already may go on."""
        for future in futures:
            future.cancel()

    def casualties(self) -> dict[int, str]:
        """The worker processes that have died by themselves, and how; asked when the first future breaks."""
        return {}

    @abstractmethod
    def dismiss(self) -> None:
        """End all workers now, whatever they are on; those that cannot be ended stop after their task."""

    def close(self) -> None:
        """End the workers, all of which are free."""
        self.dismiss()


class ThreadCrew(Crew):
    """Threads of our own: unlike those of the standard library, they do not keep the interpreter from ending."""

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._threads: list[threading.Thread] = []
        self._calls: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def submit(self, call: Callable[..., Any], /, *args: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self._calls.put((future, call, args))
        if len(self._threads) < self._workers:
            name = f"parfit-thread-{len(self._threads)}"
            thread = threading.Thread(target=_serve, args=(self._calls,), daemon=True, name=name)
            self._threads.append(thread)
            thread.start()
        return future

    def dismiss(self) -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                self._calls.get_nowait()[0].cancel()
        for _ in self._threads:
            self._calls.put(None)
        self._threads, self._calls = [], queue.SimpleQueue()

    def close(self) -> None:
        threads = self._threads
        self.dismiss()
        for thread in threads:
            thread.join()


def _serve(calls: queue.SimpleQueue[Any]) -> None:
    while (item := calls.get()) is not None:
        future, call, args = item
        if future.set_running_or_notify_cancel():
            try:
                result = call(*args)
            except BaseException as exc:  # noqa: BLE001 - it is handed to whoever waits for the future
                future.set_exception(exc)
            else:
                future.set_result(result)
        del item, future, call, args


class GivenCrew(Crew):
    """The executor that the user has made and will end."""

    ours = False

    def __init__(self, executor: Any) -> None:
        self._executor = executor

    def submit(self, call: Callable[..., Any], /, *args: Any) -> Any:
        return self._executor.submit(call, *args)

    def dismiss(self) -> None:
        """Leave the workers alone: they are the user's."""


class ProcessCrew(Crew):
    """A process pool of our own. It notes each process that it starts, so that it can end just those."""

    def __init__(self, workers: int, folder: str) -> None:
        self._workers = workers
        self._hello = (folder, os.getpid(), worker_environment())
        self._executor: Any = None
        self._processes: list[Any] = []

    @abstractmethod
    def _make(self) -> Any:
        """The executor, not yet started."""

    def submit(self, call: Callable[..., Any], /, *args: Any) -> Future[Any]:
        new = self._executor is None
        if new:
            self._processes = []
            self._executor = self._make()
        future: Future[Any] = self._executor.submit(call, *args)
        if new:
            end_at_exit(self, type(self).__name__)
        return future

    def _noting(self, context: Any) -> Any:
        """A multiprocessing context whose processes are noted here."""
        noting, make, processes = copy.copy(context), context.Process, self._processes

        def process(*args: Any, **kwargs: Any) -> Any:
            made = make(*args, **kwargs)
            processes.append(made)
            return made

        noting.Process = process
        return noting

    def casualties(self) -> dict[int, str]:
        # Called in the pool's own thread, after it has marked its futures and before it ends the other
        # workers. The end of a process is told by its pipe: its exit code may be a moment behind.
        started = [process for process in self._processes if process.pid is not None]
        ended = connection.wait([process.sentinel for process in started], timeout=0)
        dead = [process for process in started if process.sentinel in ended]
        for process in dead:
            process.join(_REAP_S)
        return {process.pid: exit_in_words(process.exitcode) for process in dead}

    def dismiss(self) -> None:
        # Killed also where they are free: asked to end, a worker first waits for threads that a task has left.
        executor, self._executor = self._executor, None
        if executor is None:
            return
        started = [process for process in self._processes if process.pid is not None]
        for process in started:
            _kill(process)
        self._shut_down(executor)
        for process in started:
            process.join(_REAP_S)

    def end_now(self) -> None:
        """The interpreter ends."""
        self.dismiss()

    @abstractmethod
    def _shut_down(self, executor: Any) -> None:
        """Have the executor notice that its workers have ended, and end its own threads."""


def _kill(process: Any) -> None:
    """As `Process.kill`, which loky's processes lack."""
    if not hasattr(signal, "SIGKILL"):
        process.terminate()
    elif process.exitcode is None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)


class SpawnCrew(ProcessCrew):
    """`concurrent.futures.ProcessPoolExecutor` with spawned processes: a fork after jax has started may hang."""

    def _make(self) -> Any:
        context = self._noting(multiprocessing.get_context("spawn"))
        return ProcessPoolExecutor(self._workers, context, initializer=start_worker, initargs=self._hello)

    def _shut_down(self, executor: Any) -> None:
        executor.shutdown(wait=True, cancel_futures=True)


class LokyCrew(ProcessCrew):
    """A `loky.ProcessPoolExecutor` of its own."""

    def _make(self) -> Any:
        import loky
        from loky.backend.context import get_context

        return loky.ProcessPoolExecutor(
            self._workers,
            context=self._noting(get_context("loky")),
            initializer=start_worker,
            initargs=self._hello,
            env=worker_environment(),
        )

    def _shut_down(self, executor: Any) -> None:
        executor.shutdown(wait=True, kill_workers=True)
