"""The default executor: plain interpreter processes, one socket each, watched by the caller.

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
import selectors
from collections import deque
from collections.abc import Callable, Generator, Hashable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from parfit.core.errors import SetupError
from parfit.core.protocols import Block, Capabilities, Executor, Pool, TaskFunction, Tasks
from parfit.core.solution import Outcome, OutcomeKind, TaskError
from parfit.executors import payload as pl
from parfit.executors.baggage import packed, setup_failed, task_error
from parfit.executors.chunking import ChunkSizer, as_tasks
from parfit.executors.cpus import worker_count
from parfit.executors.foreign.jobs import superseded
from parfit.executors.place import Place
from parfit.executors.workers.idle import idle_workers, shutdown_workers
from parfit.executors.workers.launch import WorkerProcess

__all__ = ["ProcessPool", "ProcessesExecutor"]

#: A worker that dies in its setup is started again this often.
_SETUP_DEATHS = 2
#: Where the kernel cannot announce an exit (no pidfd), look this often, s.
_POLL_S = 0.2


@dataclass(frozen=True)
class ProcessesExecutor(Executor):
    """Worker processes of our own.

    Parameters
    ----------
    workers
        How many; by default as many as this process may use cores.
    """

    workers: int | None = None
    name: ClassVar[str] = "processes"
    capabilities: ClassVar[Capabilities] = Capabilities(
        survives_worker_death=True, enforces_timeout=True, own_process=True
    )

    @contextlib.contextmanager
    def open(self, setup: Callable[[], Any] | None = None, *, retries: int = 1) -> Iterator[Pool]:
        pool = ProcessPool(worker_count(self.workers), setup, retries)
        try:
            yield pool
        except KeyboardInterrupt:
            pool.close(keep=False)
            shutdown_workers()
            raise
        finally:
            pool.close(keep=True)


@dataclass
class _Job:
    """A block on its way, how often it has been started, and how many of its outcomes are in."""

    block: Block
    attempts: int = 1
    received: int = 0


class _Lane:
    """A worker and what it is on."""

    def __init__(self, worker: WorkerProcess, *, reused: bool) -> None:
        self.worker = worker
        self.reused = reused
        self.ready = False
        self.job: _Job | None = None
        self.sending = False


class ProcessPool(Pool):
    """Live worker processes; `imap_unordered` is the event loop that feeds and watches them."""

    def __init__(self, workers: int, setup: Callable[[], Any] | None, retries: int) -> None:
        self._workers = workers
        self._retries = retries
        self._setup = packed("setup", setup)
        self._lanes: list[_Lane] = []
        self._selector = selectors.DefaultSelector()
        self._setup_deaths = 0
        self._jobs: deque[_Job] = deque()
        self._sizer = ChunkSizer(workers)
        self._source: Tasks | None = None
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
        self._source, total = as_tasks(tasks)
        self._sizer = ChunkSizer(self._workers, total)
        self._jobs.clear()
        try:
            self._teach()
            while True:
                yield from self._feed()
                if all(lane.ready and lane.job is None for lane in self._lanes):
                    return
                for lane in self._wait(timeout):
                    yield from self._hear(lane)
                if timeout is not None:
                    for lane in list(self._lanes):
                        yield from self._enforce(lane, timeout)
        finally:
            # What a worker still has to say must not be taken for an answer to the next call.
            for lane in [lane for lane in self._lanes if lane.job is not None or not lane.ready]:
                self._drop(lane)
            self._source = None

    def _teach(self) -> None:
        """Send the function to the workers that an earlier call has left."""
        for lane in list(self._lanes):
            lane.ready = False
            try:
                self._post(lane, "function", None, self._function)
            except OSError:  # it has died since
                self._drop(lane)

    def _post(self, lane: _Lane, word: str, argument: Any, body: pl.Payload) -> None:
        """Send a message to a worker that may not be reading; `_hear` goes on with what it does not take at once."""
        lane.worker.post(word, argument, body)
        self._go_on_sending(lane)

    def _go_on_sending(self, lane: _Lane) -> None:
        """Send what the worker takes, and be told when it takes more."""
        pending = lane.worker.flush()
        if pending != lane.sending:
            lane.sending = pending
            events = selectors.EVENT_READ | (selectors.EVENT_WRITE if pending else 0)
            self._selector.modify(lane.worker.sock, events, lane)

    # ---- feeding

    def _next_job(self) -> _Job | None:
        if self._jobs:
            return self._jobs.popleft()
        if self._source is None:
            return None
        block = self._source.take(self._sizer.next_size())
        if block is None:
            self._source = None
            return None
        self._sizer.sent(len(block))
        return _Job(block)

    def _feed(self) -> Iterator[Outcome]:
        """Give every free worker a block, and start workers while there are blocks for them."""
        for lane in list(self._lanes):
            while lane.ready and lane.job is None and (job := self._next_job()) is not None:
                yield from self._send(lane, job)
        while True:
            fresh = []
            while len(self._lanes) < self._workers and (job := self._next_job()) is not None:
                fresh.append(self._launch(job))
            if not fresh:
                return
            for lane in fresh:  # all are on their way before the first is sent a setup that may be large
                self._introduce(lane)

    def _launch(self, job: _Job) -> _Lane:
        """Find or start a worker that is to run `job` as soon as it is ready."""
        worker = idle_workers.take()
        lane = _Lane(worker or WorkerProcess(), reused=worker is not None)
        lane.job = job
        self._lanes.append(lane)
        self._selector.register(lane.worker.sock, selectors.EVENT_READ, lane)
        if lane.worker.exit_fd is not None:
            self._selector.register(lane.worker.exit_fd, selectors.EVENT_READ, lane)
        return lane

    def _introduce(self, lane: _Lane) -> None:
        """Send a worker the setup and the function."""
        try:
            self._post(lane, "begin", Place(), self._setup)
            self._post(lane, "function", None, self._function)
        except OSError:  # it is gone: its block goes to another
            if lane.job is not None:
                self._jobs.appendleft(lane.job)
            self._drop(lane)
            if not lane.reused:
                self._setup_died(lane)

    def _send(self, lane: _Lane, job: _Job) -> Iterator[Outcome]:
        """Send a block; what cannot be pickled is an outcome, alone."""
        try:
            body = pl.dumps(job.block)
        except Exception as exc:  # noqa: BLE001 - pickling raises what it likes
            yield from self._unreadable(job, task_error(job.block, exc))
            return
        lane.job = job
        with contextlib.suppress(OSError):  # a worker that is gone is noticed by `_wait`
            lane.worker.send("run", False, body)

    def _unreadable(self, job: _Job, error: TaskError) -> Iterator[Outcome]:
        if len(job.block) == 1:
            yield Outcome(job.block.keys()[0], OutcomeKind.ERROR, None, error, 0.0, job.attempts)
        else:
            self._requeue(job, 0, len(job.block), alone=True)

    # ---- hearing

    def _wait(self, timeout: float | None) -> list[_Lane]:
        """The lanes that have something to say, or have ended."""
        wait: float | None = None
        if timeout is not None:
            wait = 0.05
            for lane in self._lanes:
                if lane.job is not None and (at := lane.worker.position()) is not None:
                    wait = min(wait, max(0.0, timeout - at.seconds) + 0.001)
        if any(lane.worker.exit_fd is None for lane in self._lanes):
            wait = min(wait or _POLL_S, _POLL_S)
        lanes = list(dict.fromkeys(key.data for key, _ in self._selector.select(wait)))
        if wait is not None:
            lanes += [lane for lane in self._lanes if lane not in lanes and lane.worker.gone]
        return lanes

    def _hear(self, lane: _Lane) -> Iterator[Outcome]:
        """Take in all messages of a lane, and its end."""
        ended = lane.worker.gone
        if lane.sending:
            with contextlib.suppress(OSError):  # it is gone: it is heard below
                self._go_on_sending(lane)
        while lane in self._lanes and (frame := lane.worker.read()) is not None:
            yield from self._message(lane, frame)
        if lane in self._lanes and (ended or lane.worker.gone):
            yield from self._died(lane)

    def _message(self, lane: _Lane, frame: pl.Payload) -> Iterator[Outcome]:
        job = lane.job
        try:
            word, *rest = pl.loads(frame)
        except Exception as exc:  # noqa: BLE001 - a value of the user's that cannot be rebuilt here
            self._drop(lane)
            if job is not None:
                broken = TaskError.from_exception(exc, skip_frames=1)
                job.block = job.block.part(job.received, len(job.block))
                yield from self._unreadable(job, broken)
            return
        if word == "ready":
            lane.ready = True
            lane.job = None
            if job is not None:
                yield from self._send(lane, job)
        elif word == "stale":
            self._drop(lane)
            if job is not None:
                self._jobs.appendleft(job)
        elif word == "failed":
            raise setup_failed(rest[0]) from rest[0].to_exception()
        elif word == "unreadable" and job is not None:
            lane.job = None
            yield from self._unreadable(job, rest[0])
        elif job is not None:
            outcomes: list[Outcome] = rest[0]
            job.received += len(outcomes)
            if word == "done":
                lane.job = None
            self._sizer.took(len(outcomes), sum(o.seconds for o in outcomes))
            if job.attempts > 1:
                outcomes = [dataclasses.replace(o, attempts=job.attempts) for o in outcomes]
            yield from outcomes

    # ---- losing

    def _requeue(self, job: _Job, start: int, stop: int, *, alone: bool = False) -> None:
        """Run a part of a block again; it was not at fault."""
        if alone:
            self._jobs.extend(_Job(job.block.part(i, i + 1), job.attempts) for i in range(start, stop))
        elif stop > start:
            self._jobs.append(_Job(job.block.part(start, stop), job.attempts))

    def _died(self, lane: _Lane) -> Iterator[Outcome]:
        """A worker has ended: its task is retried alone or lost, the chunk-mates run elsewhere."""
        job, at = lane.job, lane.worker.position()
        self._drop(lane)
        if job is None:
            return
        if not lane.ready:
            if not lane.reused:
                self._setup_died(lane)
            self._jobs.appendleft(job)
            return
        how = lane.worker.how_it_ended()
        n, first = len(job.block), job.received
        if at is None or not first <= at.task < n:
            if n - first > 1:  # it died between tasks: none is known to be at fault
                self._requeue(job, first, n, alone=True)
                return
            index, seconds = first, 0.0
        else:
            index, seconds = at
        self._requeue(job, first, index)
        self._requeue(job, index + 1, n)
        if index >= n:
            return
        if job.attempts > self._retries:
            yield Outcome.lost(job.block.keys()[index], seconds, job.attempts, how)
        else:
            self._jobs.append(_Job(job.block.part(index, index + 1), job.attempts + 1))

    def _enforce(self, lane: _Lane, timeout: float) -> Iterator[Outcome]:
        """Kill a worker whose task is over its limit."""
        at = lane.worker.position()
        if lane.job is None or not lane.ready or at is None or at.seconds <= timeout:
            return
        lane.worker.kill()
        job = lane.job
        while (frame := lane.worker.read()) is not None:
            yield from self._message(lane, frame)
        self._drop(lane)
        if lane.job is None:
            return
        if at.task < job.received:
            self._requeue(job, job.received, len(job.block))
            return
        self._requeue(job, job.received, at.task)
        self._requeue(job, at.task + 1, len(job.block))
        yield Outcome.timed_out(job.block.keys()[at.task], at.seconds, job.attempts, timeout)

    def _setup_died(self, lane: _Lane) -> None:
        self._setup_deaths += 1
        if self._setup_deaths > _SETUP_DEATHS:
            how = lane.worker.how_it_ended()
            raise SetupError(f"{self._setup_deaths} workers died before they were ready; the last was {how}")

    def _drop(self, lane: _Lane) -> None:
        self._forget(lane)
        lane.worker.close()

    def _forget(self, lane: _Lane) -> None:
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
