"""The cluster's side of `dask` and `ray`: what a row may do, it does in a worker process of ours, not in the cluster's.

    caller                              a worker of the cluster (the host)          beside it (workers.worker)
    ┌────────────┐  lodging, number     ┌────────────────────────────────┐  socket  ┌──────────────────────────┐
    │ ClusterPool│ ───────────────────▶ │ run_lodged ── Lodger           │ ───────▶ │ setup, function, block   │
    │            │ ◀─────────────────── │   opens nothing that it passes │ ◀─────── │ outcomes                 │
    └────────────┘  "outcomes" |        └────────────────────────────────┘   board  └──────────────────────────┘
                    "broken", a Fate | "failed" | …

So a row that dies or never ends costs the cluster nothing, and it is known which row that was. The host passes payloads
on as they came (`Sealed`): what is in them need not be importable there, and is never copied for it. Setup and function
come to each host once, by the cluster's own ways of sharing data.
"""

from __future__ import annotations

import contextlib
import functools
import os
import platform
import select
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from parfit.core.solution import TaskError
from parfit.executors import payload as pl
from parfit.executors.payload import Sealed
from parfit.executors.place import Place
from parfit.executors.workers.board import Position
from parfit.executors.workers.idle import idle_workers
from parfit.executors.workers.launch import WorkerProcess
from parfit.executors.workers.watch import LOOK_S, Watch, needs_more

__all__ = ["Fate", "Lodging", "evict", "greet", "run_lodged", "this_machine"]

#: A worker that dies in its setup is started again this often.
_SETUP_DEATHS = 2
#: Whether a block is still wanted is asked this often, s.
_WANTED_S = 1.0
#: Lodgers that nobody has called for so long are let go of, s.
_IDLE_S = 60.0


@dataclass(frozen=True)
class Lodging:
    """What a host has to know of an open executor, beside what is shared once.

    Attributes
    ----------
    token
        Which open executor this is; unique in the world.
    run
        The number of its function.
    machine
        The caller's.
    timeout, memory_limit
        The limits for each task, s, and each worker, bytes.
    fresh
        The block is for a worker that has run nothing else.
    """

    token: str
    run: int
    machine: str
    timeout: float | None
    memory_limit: int | None
    fresh: bool = False


class Fate(NamedTuple):
    """What ended a worker in the middle of a block.

    Attributes
    ----------
    task, seconds
        The task that it was on, -1 for none, and for how long, s.
    how
        The exit in words; None where it was ended for a limit.
    size
        How large it was, bytes; None where it was not ended for that.
    used
        Whether it had run other blocks before.
    """

    task: int
    seconds: float
    how: str | None = None
    size: int | None = None
    used: bool = False


class _EvictedError(Exception):
    """Nobody wants the rest."""


class _FailedError(Exception):
    """A worker has not got through its setup: an error of it, or a sentence."""


class Lodger:
    """A worker process of ours on a host, with the setup and the function of one open executor."""

    def __init__(self, lodging: Lodging, place: Sealed, setup: Sealed) -> None:
        given: Place = place.open()
        self._place = given.beside() if lodging.machine == this_machine() else given.abroad()
        self._setup = setup.payload
        self._run = -1
        self._worker: WorkerProcess | None = None
        self._used = False
        self._wanted: Callable[[], bool] | None = None
        self._gone = threading.Event()

    def run(
        self, lodging: Lodging, function: Sealed, block: Sealed, wanted: Callable[[], bool] | None = None
    ) -> tuple[str, Any]:
        """Run a block; ``("outcomes", …)``, ``("broken", …)``, ``("failed", …)`` or ``("unreadable", …)``."""
        self._wanted = wanted
        if lodging.fresh:
            self._end()
        try:
            worker = self._ready(lodging, function)
            worker.send("run", True, block.payload)
        except _FailedError as exc:
            return "failed", exc.args[0]
        except OSError:  # it has died while nothing ran
            self._end()
            return self.run(lodging, function, block, wanted)
        found: list[Sealed] = []
        for word, *rest in self._words(worker, lodging):
            if word in ("broken", "unreadable"):
                return word, (found, rest[0]) if word == "broken" else rest[0]
            found.append(rest[0])
            if word == "done":
                self._used = True
                return "outcomes", found
        raise AssertionError("unreachable")

    def _ready(self, lodging: Lodging, function: Sealed) -> WorkerProcess:
        """The worker, with setup and function."""
        deaths = 0
        while True:
            worker = self._worker
            if worker is not None and not worker.gone and self._run == lodging.run:
                return worker
            fresh = worker is None or worker.gone
            if fresh:
                worker = self._start(idle=not lodging.fresh)
            assert worker is not None
            try:
                if fresh:
                    worker.send("begin", (self._place, lodging.memory_limit), self._setup)
                worker.send("function", None, function.payload)
                word, *rest = next(self._words(worker, replace(lodging, timeout=None)))
            except OSError:
                word, rest = "broken", [Fate(-1, 0.0, worker.end())]
            if word == "ready":
                self._run = lodging.run
                return worker
            reused = self._used
            self._end()
            if word == "failed":
                raise _FailedError(rest[0])
            if word == "broken" and not reused:
                fate = rest[0]
                if fate.size is not None:
                    raise _FailedError(needs_more(lodging.memory_limit, fate.size))
                deaths += 1
                if deaths > _SETUP_DEATHS:
                    raise _FailedError(f"{deaths} workers died before they were ready; the last was {fate.how}")

    def _start(self, *, idle: bool) -> WorkerProcess:
        """Find or start a worker."""
        self._end()
        if self._gone.is_set():
            raise _EvictedError
        found = idle_workers.take() if idle else None
        self._used = found is not None
        worker = self._worker = found or WorkerProcess()
        if self._gone.is_set():  # in the meantime
            self._end()
            raise _EvictedError
        return worker

    def _words(self, worker: WorkerProcess, lodging: Lodging) -> Iterator[tuple[Any, ...]]:
        """What the worker says, until it has ended, or is over a limit and has been ended."""
        watch = Watch(lodging.timeout, lodging.memory_limit)
        ends = [worker.sock] + ([] if worker.exit_fd is None else [worker.exit_fd])
        while True:
            ended = worker.gone
            yield from self._said(worker)
            if self._gone.is_set() or (self._wanted is not None and not self._wanted()):
                self._end()
                raise _EvictedError
            at = worker.position()
            if ended or worker.gone:
                self._worker = None
                how = worker.end()
                yield "broken", self._fate(None if worker.cut_off else at, how=how)
                return
            size = watch.over(worker.pid) if watch.looks_at_memory() else None
            if size is not None or watch.late(at):
                worker.kill()
                at = worker.position() or at
                yield from self._said(worker)  # it may have ended just then
                self._end()
                yield "broken", self._fate(at, size=size)
                return
            wait = watch.patience([at])
            if worker.exit_fd is None:
                wait = LOOK_S if wait is None else min(wait, LOOK_S)
            elif wait is None and self._wanted is not None:
                wait = _WANTED_S
            begin = time.monotonic()
            select.select(ends, [], [], wait)
            watch.waited(wait, begin)

    @staticmethod
    def _said(worker: WorkerProcess) -> Iterator[tuple[Any, ...]]:
        while (frame := worker.read()) is not None:
            yield pl.loads(frame)

    def _fate(self, at: Position | None, **ending: Any) -> Fate:
        task, seconds = (-1, 0.0) if at is None else at
        return Fate(task, seconds, used=self._used, **ending)

    def _end(self) -> None:
        worker, self._worker = self._worker, None
        self._run = -1
        if worker is not None:
            worker.close()

    def evict(self) -> None:
        """End the worker now; called from another thread than the one that runs a block."""
        self._gone.set()
        worker = self._worker
        if worker is not None:
            with contextlib.suppress(OSError):
                worker.kill()

    def close(self, *, keep: bool) -> None:
        """Let go of the worker: for the next who needs one, or for good."""
        worker, self._worker = self._worker, None
        if worker is None:
            return
        if keep and not worker.gone:
            idle_workers.give(worker)
        else:
            worker.close()


class _House:
    """The lodgers of this process. As many for an executor as the cluster runs tasks here at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._free: dict[str, list[Lodger]] = {}
        self._busy: dict[str, list[Lodger]] = {}
        self._called: dict[str, float] = {}
        self._evicted: deque[str] = deque(maxlen=1000)
        self._timer: threading.Timer | None = None

    @contextlib.contextmanager
    def lodger(self, lodging: Lodging, place: Sealed, setup: Sealed) -> Iterator[Lodger]:
        token = lodging.token
        with self._lock:
            if token in self._evicted:  # a call that the cluster had not heard to be cancelled
                raise _EvictedError
            free = self._free.get(token)
            lodger = free.pop() if free else Lodger(lodging, place, setup)
            self._busy.setdefault(token, []).append(lodger)
            self._look_again()
        try:
            yield lodger
        finally:
            with self._lock:
                mine = self._busy.get(token, [])
                evicted = lodger not in mine
                if not evicted:
                    mine.remove(lodger)
                    self._free.setdefault(token, []).append(lodger)
                    self._called[token] = time.monotonic()
                if not mine:
                    self._busy.pop(token, None)
            if evicted:
                lodger.close(keep=False)

    def evict(self, token: str, *, keep: bool) -> None:
        with self._lock:
            self._evicted.append(token)
            self._called.pop(token, None)
            free, busy = self._free.pop(token, []), self._busy.pop(token, [])
        for lodger in busy:
            lodger.evict()
        for lodger in free:
            lodger.close(keep=keep)

    def _look_again(self) -> None:
        if self._timer is None:
            self._timer = threading.Timer(_IDLE_S, self._reap)
            self._timer.daemon = True
            self._timer.start()

    def _reap(self) -> None:
        """Let go of lodgers whose caller has died, or has not called for long."""
        now = time.monotonic()
        with self._lock:
            self._timer = None
            silent = [token for token, called in self._called.items() if now > called + _IDLE_S]
            left = [lodger for token in silent for lodger in self._free.pop(token, [])]
            for token in silent:
                del self._called[token]
            if self._free or self._busy:
                self._look_again()
        for lodger in left:
            lodger.close(keep=False)


_house = _House()


def run_lodged(
    lodging: Lodging,
    number: int,
    block: Sealed,
    shared: tuple[Sealed, Sealed],
    function: Sealed,
    wanted: Callable[[], bool] | None = None,
) -> tuple[str, Any]:
    """Run a block beside this worker of a cluster.

    Parameters
    ----------
    lodging, number, block
        What to run, and the number by which the caller knows it.
    shared
        Place and setup.
    function
        The tasks' function.
    wanted
        Tells whether somebody still waits for it.

    Returns
    -------
    tuple
        ``("outcomes", [Sealed, …])``; ``("broken", ([Sealed, …], Fate))`` where the worker has not got through the
        block; ``("failed", TaskError or text)`` for the setup or the function; ``("unreadable", TaskError)`` for the
        block.
    """
    del number  # for those who look at the cluster's own record of calls
    try:
        with _house.lodger(lodging, *shared) as lodger:
            return lodger.run(lodging, function, block, wanted)
    except _EvictedError:
        return "outcomes", []
    except Exception as exc:  # noqa: BLE001 - whatever it is, the caller is told
        return "failed", TaskError.from_exception(exc, skip_frames=1)


def evict(token: str, keep: bool) -> None:
    """End what runs on this host for an executor: it has been closed, or nobody wants the rest."""
    _house.evict(token, keep=keep)


def greet() -> tuple[str, int]:
    """Which process this is: its machine and its number."""
    return this_machine(), os.getpid()


@functools.cache
def this_machine() -> str:
    """What tells this machine, as it has been started, from others, also from those of the same name."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            return f"{platform.node()} {file.read().strip()}"
    except OSError:
        return platform.node()
