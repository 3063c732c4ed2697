"""One worker that keeps its state from call to call, and one thread that drives many of them at once.

        caller's thread
    ┌────────────────────────┐   stream 0: Outcome, Outcome, None, …  ┌────────────┐  socket   ┌──────────┐
    │ drive                  │ ◀───────────────────────────────────── │ LonePool 0 │ ◀───────▶ │ worker 0 │
    │   waits on one selector│   stream 1                             ├────────────┤           ├──────────┤
    │   over the selectors   │ ◀───────────────────────────────────── │ LonePool 1 │ ◀───────▶ │ worker 1 │
    │   of all LonePools     │                                        └────────────┘           └──────────┘
    └────────────────────────┘

A `ProcessPool` shares its tasks among equal workers; here each worker has what only it has, so that each is a
pool of its own. `LonePool.stream` is `imap_unordered` that never waits: where it would, it yields None. There are
no threads: a Ctrl-C is raised in `drive`, which closes the streams, and these end the workers that are busy.
"""

from __future__ import annotations

import contextlib
import selectors
import time
from collections.abc import Callable, Generator, Hashable, Iterable, Iterator, Mapping
from typing import Any

from parfit.core.protocols import TaskFunction, Tasks
from parfit.core.solution import Outcome
from parfit.executors import payload as pl
from parfit.executors.chunking import ChunkSizer
from parfit.executors.place import Place
from parfit.executors.workers.lanes import Backlog
from parfit.executors.workers.pool import ProcessPool
from parfit.executors.workers.watch import LOOK_S, Watch, check_memory_can_be_watched

__all__ = ["LonePool", "ReplacedError", "Stream", "drive"]

#: The outcomes of a call; None where nothing has come and the caller is to wait.
Stream = Generator[Outcome | None, None, None]

_NOTHING: pl.Payload = (0, [])


class ReplacedError(Exception):
    """A sealed pool has lost its worker; `jobs` are the blocks that are still to run, to be given to `stream`."""

    def __init__(self, jobs: list[Any]) -> None:
        super().__init__("the worker is gone, and with it what it kept")
        self.jobs = jobs


class LonePool(ProcessPool):
    """A `ProcessPool` of one worker, whose state stays between calls.

    Parameters
    ----------
    setup
        Makes the pickled setup each time that a worker is started, so that none is held in between.
    retries
        How often a task whose worker died is started again, alone.

    Attributes
    ----------
    sealed
        While True, no worker is started: a call that would need one raises `ReplacedError`.
    waiting
        While True, `stream` waits for something that `fileno` does not announce.
    retries, memory_limit
        As above, and how large the worker may become, bytes; may be changed between calls.
    """

    def __init__(self, setup: Callable[[], pl.Payload], retries: int = 0) -> None:
        super().__init__(1, None, retries)
        self._make_setup = setup
        self.sealed = False
        self.waiting = False

    @property
    def retries(self) -> int:
        return self._retries

    @retries.setter
    def retries(self, n: int) -> None:
        self._retries = n

    @property
    def memory_limit(self) -> int | None:
        return self._memory_limit

    @memory_limit.setter
    def memory_limit(self, limit: int | None) -> None:
        if limit is not None:
            check_memory_can_be_watched()
        self._memory_limit = limit

    @property
    def alive(self) -> bool:
        """Whether the worker is there; lets go of one that has ended."""
        for lane in [lane for lane in self._lanes if lane.worker.gone]:
            self._drop(lane)
        return bool(self._lanes)

    @property
    def sending(self) -> bool:
        """Whether something that has been pickled is still to be sent."""
        return any(lane.sending for lane in self._lanes)

    def stream(
        self,
        function: TaskFunction | pl.Payload,
        tasks: Tasks | Iterable[tuple[Hashable, Any]],
        timeout: float | None = None,
        *,
        begin: pl.Payload | None = None,
        jobs: Iterable[Any] = (),
        sizer: ChunkSizer | None = None,
    ) -> Stream:
        """As `Pool.imap_unordered`, but yields None where that would wait (`drive` knows for what).

        Parameters
        ----------
        function
            The function, or pickled; the same pickled object twice in a row is not sent again.
        begin
            A setup that takes the place of a living worker's state.
        jobs
            What a `ReplacedError` has left, to be run as well.
        sizer
            What is known of the tasks' cost.
        """
        payload = function if isinstance(function, tuple) else pl.dumps(function)
        self._setup_deaths = 0
        self._watch = Watch(timeout, self._memory_limit)
        self._backlog = Backlog(1, tasks, jobs, sizer)
        try:
            self._greet(payload, begin)
            while True:
                yield from self._feed()
                if all(lane.ready and lane.job is None for lane in self._lanes):
                    return
                heard = self._heard()
                if not heard:
                    yield None
                for lane in heard:
                    yield from self._hear(lane)
                yield from self._enforce()
        finally:
            # whatever a busy worker would still say must not be taken for an answer to the next call
            for lane in [lane for lane in self._lanes if lane.job is not None or not lane.ready]:
                self._drop(lane)
            self._backlog.end()

    def _greet(self, function: pl.Payload, begin: pl.Payload | None) -> None:
        """Tell the worker that is there what is to be done."""
        known, self._function = function is self._function and begin is None, function
        for lane in list(self._lanes):
            if known and lane.ready and not lane.worker.gone:
                continue
            lane.ready = False  # a Ctrl-C between two messages must not leave a lane that looks free
            try:
                if begin is not None:
                    self._post(lane, "begin", (Place(), self._memory_limit), begin)
                self._post(lane, "function", None, function)
            except OSError:
                self._drop(lane)

    def _launch(self, job: Any) -> Any:
        if self.sealed:
            raise ReplacedError([job, *self._backlog.jobs])
        return super()._launch(job)

    def _may_have(self, lane: Any, job: Any) -> bool:  # noqa: ARG002 - its worker is as new as one that keeps can be
        return True

    def _introduce(self, lane: Any) -> None:
        self._setup = self._make_setup()
        try:
            super()._introduce(lane)
        finally:
            self._setup = _NOTHING

    def _heard(self) -> list[Any]:
        """The lanes that have something to say, or have ended, now."""
        lanes = list(dict.fromkeys(key.data for key, _ in self._selector.select(0)))
        return lanes + [lane for lane in self._lanes if lane not in lanes and lane.worker.gone]

    def fileno(self) -> int | None:
        """What becomes readable when `stream` is to be asked again; None where the system has no such thing."""
        number: Callable[[], int] | None = getattr(self._selector, "fileno", None)
        return None if number is None else number()

    def patience(self) -> float | None:
        """When to ask `stream` again at the latest, s; None where `fileno` announces everything."""
        waits = [LOOK_S] if self.waiting else []
        wait = self._watch.patience(lane.worker.position() for lane in self._lanes if lane.job is not None)
        if wait is not None:
            waits.append(wait)
        if self.fileno() is None or any(lane.worker.exit_fd is None for lane in self._lanes):
            waits.append(LOOK_S)
        return min(waits, default=None)

    def waited(self, asked: float | None, begin: float) -> None:
        """As `Watch.waited`."""
        self._watch.waited(asked, begin)

    def drop(self) -> None:
        """End the worker; the next call starts another."""
        for lane in list(self._lanes):
            self._drop(lane)

    def disown(self) -> None:
        """In a forked child: the worker is the parent's, and so is what the selector shares with it."""
        lanes, self._lanes = self._lanes, []
        self._selector.close()
        self._selector = selectors.DefaultSelector()
        for lane in lanes:
            lane.worker.abandon()


def drive(streams: Mapping[LonePool, Stream]) -> Iterator[Outcome]:
    """Run the streams of several pools at once, and yield their outcomes as they come."""
    live = dict(streams)
    with contextlib.ExitStack() as stack:
        for stream in live.values():
            stack.callback(stream.close)
        selector = stack.enter_context(selectors.DefaultSelector())
        for pool in live:
            if (fd := pool.fileno()) is not None:
                selector.register(fd, selectors.EVENT_READ, pool)
        ready = list(live)
        while True:
            for pool in ready:
                ended = yield from _until_waiting(live[pool])
                if ended:
                    del live[pool]
                    if (fd := pool.fileno()) is not None:  # its worker may yet have something to say: the next call's
                        selector.unregister(fd)
            if not live:
                return
            waits = [wait for pool in live if (wait := pool.patience()) is not None]
            wait, begin = min(waits, default=None), time.monotonic()
            keys = selector.select(wait)
            for pool in live:
                pool.waited(wait, begin)
            ready = list(live) if waits else [key.data for key, _ in keys]


def _until_waiting(stream: Stream) -> Generator[Outcome, None, bool]:
    """Pass on the outcomes that have come; whether that was all."""
    for outcome in stream:
        if outcome is None:
            return False
        yield outcome
    return True
