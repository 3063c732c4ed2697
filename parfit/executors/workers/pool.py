"""Plain interpreter processes, one socket each, watched by the caller: the pool of `processes`.

         caller's thread                                          worker k (parfit.executors.workers.worker)
    ┌───────────────────────┐   socket k: setup, function, blocks   ┌──────────────────────────┐
    │ imap_unordered        │ ────────────────────────────────────▶ │ run_block → outcomes     │
    │   select over sockets │ ◀──────────────────────────────────── │                          │
    │   and process exits   │   board k: which task, since when     │                          │
    │   (no threads)        │ ◀ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ │                          │
    └───────────────────────┘   lifeline k: closes when we die  ─ ▶ └──────────────────────────┘

Setup and function are sent as far as the worker, which may be in a long setup, reads them (`wire.Writer`); a block is
sent when it waits for one, and it has one at most. So neither side ever blocks on a full socket. Outcomes come back in
the order of the block; with the board, that tells exactly which task a dead or late worker was on. Workers never import
the caller's ``__main__``: what is defined there travels by value.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
import selectors
import time
from collections.abc import Callable, Generator, Hashable, Iterable, Iterator
from typing import Any

from parfit.core.errors import SetupError
from parfit.core.protocols import Pool, TaskFunction, Tasks
from parfit.core.solution import Outcome, OutcomeKind, TaskError
from parfit.executors import payload as pl
from parfit.executors.baggage import packed, setup_failed, task_error
from parfit.executors.foreign.jobs import superseded
from parfit.executors.limits import in_bytes
from parfit.executors.place import Place
from parfit.executors.workers.board import Position
from parfit.executors.workers.idle import idle_workers
from parfit.executors.workers.lanes import Backlog, Job, Lane
from parfit.executors.workers.launch import WorkerProcess
from parfit.executors.workers.watch import Watch, check_memory_can_be_watched, needs_more

__all__ = ["ProcessPool"]

#: A worker that dies in its setup is started again this often in a row.
_SETUP_DEATHS = 2
#: And, where others have got through it, for this long: whoever kills workers kills those that are starting, too, s.
_SETUP_DEATHS_S = 60.0
#: Where the kernel cannot announce an exit (no pidfd), look this often, s.
_POLL_S = 0.2


class ProcessPool(Pool):
    """Live worker processes; `imap_unordered` is the event loop that feeds and watches them."""

    def __init__(
        self, workers: int, setup: Callable[[], Any] | None, retries: int, memory_limit: int | None = None
    ) -> None:
        if memory_limit is not None:
            check_memory_can_be_watched()
        self._workers = workers
        self._retries = retries
        self._memory_limit = memory_limit
        self._watch = Watch()
        self._setup = packed("setup", setup)
        self._lanes: list[Lane] = []
        self._selector = selectors.DefaultSelector()
        self._setup_deaths, self._was_ready = 0, -math.inf
        self._backlog = Backlog(workers)
        self._function: pl.Payload = (0, [])
        self._unfinished: Generator[Outcome, None, None] | None = None

    def imap_unordered(
        self,
        function: TaskFunction,
        tasks: Tasks | Iterable[tuple[Hashable, Any]],
        timeout: float | None = None,
    ) -> Iterator[Outcome]:
        if self._unfinished is not None:
            self._unfinished.close()  # else its lanes would tell it what is meant for this call
        call = self._unfinished = self._outcomes(function, tasks, timeout)
        yield from call
        if self._unfinished is not call:
            raise superseded()
        self._unfinished = None

    def _outcomes(
        self,
        function: TaskFunction,
        tasks: Tasks | Iterable[tuple[Hashable, Any]],
        timeout: float | None,
    ) -> Generator[Outcome, None, None]:
        self._function = packed("function", function)
        self._backlog = Backlog(self._workers, tasks)
        self._watch = Watch(timeout, self._memory_limit)
        try:
            self._teach()
            while True:
                yield from self._feed()
                if all(lane.ready and lane.job is None for lane in self._lanes):
                    return
                for lane in self._wait():
                    yield from self._hear(lane)
                yield from self._enforce()
        finally:
            # What a worker still has to say must not be taken for an answer to the next call.
            for lane in [lane for lane in self._lanes if lane.job is not None or not lane.ready]:
                self._drop(lane)
            self._backlog.end()

    def _teach(self) -> None:
        """Send the function to the workers that an earlier call has left."""
        for lane in list(self._lanes):
            lane.ready = False
            try:
                self._post(lane, "function", None, self._function)
            except OSError:  # it has died since
                self._drop(lane)

    def _post(self, lane: Lane, word: str, argument: Any, body: pl.Payload) -> None:
        """Send a message to a worker that may not be reading; `_hear` goes on with what it does not take at once."""
        lane.worker.post(word, argument, body)
        self._go_on_sending(lane)

    def _go_on_sending(self, lane: Lane) -> None:
        """Send what the worker takes, and be told when it takes more."""
        pending = lane.worker.flush()
        if pending != lane.sending:
            lane.sending = pending
            events = selectors.EVENT_READ | (selectors.EVENT_WRITE if pending else 0)
            self._selector.modify(lane.worker.sock, events, lane)

    # ---- feeding

    def _may_have(self, lane: Lane, job: Job) -> bool:
        return not job.fresh or not lane.used

    def _feed(self) -> Iterator[Outcome]:
        """Give every free worker a block, and start workers while there are blocks for them."""
        for lane in list(self._lanes):
            while (
                lane.ready
                and lane.job is None
                and (job := self._backlog.next(functools.partial(self._may_have, lane))) is not None
            ):
                yield from self._send(lane, job)
            full = len(self._lanes) == self._workers
            if full and lane.ready and lane.job is None and self._backlog.waits:  # these want a new worker in its place
                self._drop(lane)
        while True:
            fresh = []
            while len(self._lanes) < self._workers and (job := self._backlog.next()) is not None:
                fresh.append(self._launch(job))
            if not fresh:
                return
            for lane in fresh:  # all are on their way before the first is sent a setup that may be large
                self._introduce(lane)

    def _launch(self, job: Job) -> Lane:
        """Find or start a worker that is to run `job` as soon as it is ready."""
        worker = None if job.fresh else idle_workers.take()
        lane = Lane(worker or WorkerProcess(), reused=worker is not None)
        lane.job = job
        self._lanes.append(lane)
        self._selector.register(lane.worker.sock, selectors.EVENT_READ, lane)
        if lane.worker.exit_fd is not None:
            self._selector.register(lane.worker.exit_fd, selectors.EVENT_READ, lane)
        return lane

    def _introduce(self, lane: Lane) -> None:
        """Send a worker the setup and the function."""
        try:
            self._post(lane, "begin", (Place(), self._memory_limit), self._setup)
            self._post(lane, "function", None, self._function)
        except OSError:  # it is gone: its block goes to another
            if lane.job is not None:
                self._backlog.put_back(lane.job)
            how = self._end(lane)
            if not lane.reused:
                self._setup_died(how)

    def _send(self, lane: Lane, job: Job) -> Iterator[Outcome]:
        """Send a block; what cannot be pickled is an outcome, alone."""
        try:
            body = pl.dumps(job.block)
        except Exception as exc:  # noqa: BLE001 - pickling raises what it likes
            yield from self._unreadable(job, task_error(job.block, exc))
            return
        lane.job = job
        with contextlib.suppress(OSError):  # a worker that is gone is noticed by `_wait`
            lane.worker.send("run", False, body)

    def _unreadable(self, job: Job, error: TaskError) -> Iterator[Outcome]:
        if len(job.block) == 1:
            yield Outcome(job.block.keys()[0], OutcomeKind.ERROR, None, error, 0.0, job.attempts)
        else:
            self._backlog.again(job, 0, len(job.block), alone=True)

    # ---- hearing

    def _wait(self) -> list[Lane]:
        """The lanes that have something to say, or have ended."""
        wait = self._watch.patience(lane.worker.position() for lane in self._lanes if lane.job is not None)
        if any(lane.worker.exit_fd is None for lane in self._lanes):
            wait = min(wait or _POLL_S, _POLL_S)
        begin = time.monotonic()
        lanes = list(dict.fromkeys(key.data for key, _ in self._selector.select(wait)))
        self._watch.waited(wait, begin)
        if wait is not None:
            lanes += [lane for lane in self._lanes if lane not in lanes and lane.worker.gone]
        return lanes

    def _hear(self, lane: Lane) -> Iterator[Outcome]:
        """Take in all messages of a lane, and its end."""
        ended = lane.worker.gone
        if lane.sending:
            with contextlib.suppress(OSError):  # it is gone: it is heard below
                self._go_on_sending(lane)
        while lane in self._lanes and (frame := lane.worker.read()) is not None:
            yield from self._message(lane, frame)
        if lane in self._lanes and (ended or lane.worker.gone):
            yield from self._died(lane)

    def _message(self, lane: Lane, frame: pl.Payload) -> Iterator[Outcome]:
        job = lane.job
        try:
            word, *rest = pl.loads(frame)
        except Exception as exc:  # noqa: BLE001 - a value of the user's that cannot be rebuilt here
            self._drop(lane)
            lane.job = None
            if job is not None:
                broken = TaskError.from_exception(exc, skip_frames=1)
                job.block = job.block.part(job.received, len(job.block))
                yield from self._unreadable(job, broken)
            return
        if word == "ready":
            lane.ready, lane.job = True, None
            self._setup_deaths, self._was_ready = 0, time.monotonic()
            if job is not None:
                yield from self._send(lane, job)
        elif word == "stale":
            self._drop(lane)
            lane.job = None
            if job is not None:
                self._backlog.put_back(job)
        elif word == "failed":
            raise setup_failed(rest[0]) from rest[0].to_exception()
        elif word == "unreadable" and job is not None:
            lane.job = None
            yield from self._unreadable(job, rest[0])
        elif job is not None:
            outcomes: list[Outcome] = rest[0]
            starved = self._starved(lane, job, outcomes)
            outcomes = outcomes[:starved]
            job.received += len(outcomes)
            if starved is not None:
                self._drop(lane)
                self._backlog.elsewhere(job, job.received)
                self._backlog.again(job, job.received + 1, len(job.block))
            if word == "done" or starved is not None:
                lane.job, lane.used = None, True
            self._backlog.took(len(outcomes), sum(o.seconds for o in outcomes))
            if job.attempts > 1:
                outcomes = [dataclasses.replace(o, attempts=job.attempts) for o in outcomes]
            yield from outcomes

    # ---- losing

    def _died(self, lane: Lane) -> Iterator[Outcome]:
        """A worker has ended: its task is retried alone or lost, the chunk-mates run elsewhere."""
        job, at = lane.job, lane.worker.position()
        how = self._end(lane)
        if job is None:
            return
        if not lane.ready:
            if not lane.reused:
                self._setup_died(how)
            self._backlog.put_back(job)
            return
        culprit = self._backlog.culprit(job, None if lane.worker.cut_off else at)
        if culprit is None:
            return
        if job.attempts > self._retries:
            yield Outcome.lost(job.block.keys()[culprit], at.seconds if at else 0.0, job.attempts, how)
        else:
            self._backlog.retry(job, culprit)

    def _enforce(self) -> Iterator[Outcome]:
        """Kill the workers that are over a limit."""
        for lane in list(self._lanes):
            at = lane.worker.position()
            busy = lane.job is not None and lane.ready and not lane.worker.gone  # one that has died will be heard
            if busy and at is not None and self._watch.late(at):
                yield from self._late(lane, at)
        if self._watch.looks_at_memory():
            for lane in list(self._lanes):
                if (size := self._watch.over(lane.worker.pid)) is not None:
                    yield from self._outgrown(lane, size)

    def _kill(self, lane: Lane) -> Generator[Outcome, None, Position | None]:
        """Kill a worker, and take in what it had said before; where it was."""
        lane.worker.kill()
        at = lane.worker.position()
        while lane in self._lanes and (frame := lane.worker.read()) is not None:
            yield from self._message(lane, frame)
        if lane in self._lanes:
            self._drop(lane)
        return at

    def _late(self, lane: Lane, at: Position) -> Iterator[Outcome]:
        job, timeout = lane.job, self._watch.timeout
        assert job is not None
        assert timeout is not None
        yield from self._kill(lane)
        if lane.job is None:
            return
        if at.task < job.received:
            self._backlog.again(job, job.received, len(job.block))
        elif (culprit := self._backlog.culprit(job, at)) is not None:
            yield Outcome.timed_out(job.block.keys()[culprit], at.seconds, job.attempts, timeout)

    def _outgrown(self, lane: Lane, size: int) -> Iterator[Outcome]:
        """Kill a worker that is too large: by what earlier tasks have left, perhaps, so that a new one has to tell."""
        job, ready, limit = lane.job, lane.ready, self._watch.memory_limit
        assert limit is not None
        at = yield from self._kill(lane)
        if job is None or (ready and lane.job is None):
            return
        if not ready:
            if not lane.reused:
                raise SetupError(needs_more(limit, size))
            self._backlog.put_back(job)
            return
        if (culprit := self._backlog.culprit(job, at)) is None:
            return
        if job.fresh or not (lane.used or culprit):
            key, seconds = job.block.keys()[culprit], at.seconds if at else 0.0
            yield Outcome.outgrown(key, seconds, job.attempts, in_bytes(limit), in_bytes(size, limit))
        else:
            self._backlog.elsewhere(job, culprit)

    def _starved(self, lane: Lane, job: Job, outcomes: list[Outcome]) -> int | None:
        """The first outcome that is for lack of memory, where that may be what earlier tasks have left."""
        if self._watch.memory_limit is None or job.fresh:
            return None
        for i, outcome in enumerate(outcomes):
            short = outcome.error is not None and "MemoryError" in outcome.error.type
            if short and (lane.used or job.received + i):
                return i
        return None

    def _setup_died(self, how: str) -> None:
        self._setup_deaths += 1
        if self._setup_deaths > _SETUP_DEATHS and time.monotonic() - self._was_ready > _SETUP_DEATHS_S:
            raise SetupError(f"{self._setup_deaths} workers died before they were ready; the last was {how}")

    def _drop(self, lane: Lane) -> None:
        self._forget(lane)
        lane.worker.close()

    def _end(self, lane: Lane) -> str:
        """Let go of a worker that has ended; how it did, in words."""
        self._forget(lane)
        return lane.worker.end()

    def _forget(self, lane: Lane) -> None:
        self._lanes.remove(lane)
        for end in (lane.worker.sock, lane.worker.exit_fd):
            with contextlib.suppress(KeyError, ValueError):  # a Ctrl-C may have come before it was registered
                self._selector.unregister(end)  # type: ignore[arg-type]

    def close(self, *, keep: bool) -> None:
        """Keep the workers that are free for the next call, and end the others."""
        for lane in list(self._lanes):
            if keep and lane.ready and lane.job is None:
                self._forget(lane)
                idle_workers.give(lane.worker)
            else:
                self._drop(lane)
        self._selector.close()
