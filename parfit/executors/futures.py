"""Executors over the `concurrent.futures` interface: threads, process pools, loky, and whatever the user has.

          caller's thread                    threads of the foreign executor          workers
    ┌─────────────────────────┐   submit    ┌───────────────────────────────┐   ┌───────────────────┐
    │ FuturesPool             │ ──────────▶ │ feeds and reads the workers   │ ─▶│ remote.run_remote │
    │   imap_unordered        │ ◀────────── │ runs the futures' callbacks   │ ◀─│  (or a thread:    │
    │   (run.done, a queue)   │   callback  └───────────────────────────────┘   │   LocalCarrier)   │
    └─────────────────────────┘                                                 └───────────────────┘

The callback only puts the future into the queue of its run, and when the first future breaks, asks the crew who
has died. Everything else happens in the caller's thread. A run that was abandoned has a queue of its own, so
that what comes late reaches nobody.
"""

from __future__ import annotations

import contextlib
import functools
import queue
from collections.abc import Callable, Hashable, Iterable, Iterator
from concurrent.futures import BrokenExecutor, CancelledError, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, ClassVar

from parfit.core.errors import InvalidTypeError, SetupError
from parfit.core.protocols import Capabilities, Executor, Pool, TaskFunction, Tasks
from parfit.core.solution import Outcome, TaskError
from parfit.executors.cpus import worker_count
from parfit.executors.foreign.carriers import Carrier, LocalCarrier, RemoteCarrier
from parfit.executors.foreign.crews import Crew, GivenCrew, LokyCrew, SpawnCrew, ThreadCrew
from parfit.executors.foreign.guard import refuse_unguarded
from parfit.executors.foreign.jobs import Job, superseded
from parfit.executors.foreign.pool import ForeignPool, Run
from parfit.executors.running import recording_warnings_together, single_threaded_blas

__all__ = ["FuturesExecutor", "FuturesPool", "LokyExecutor", "MultiprocessingExecutor", "ThreadsExecutor", "opened"]

#: Calls on their way per worker: one runs, one waits for it to end.
_PER_WORKER = 2


@dataclass
class _FuturesRun(Run):
    """A run, with its futures and where they are put when they are done; `refused` is why no more can be made."""

    futures: dict[Any, int] = field(default_factory=dict)
    done: queue.SimpleQueue[Any] = field(default_factory=queue.SimpleQueue)
    dead: dict[int, str] | None = None
    refused: Exception | None = None


class FuturesPool(ForeignPool):
    """Keeps a crew supplied, and hands on what comes back."""

    def __init__(
        self, name: str, capabilities: Capabilities, crew: Crew, carrier: Carrier, workers: int, retries: int
    ) -> None:
        super().__init__(name, capabilities, carrier, workers, retries)
        self._crew = crew

    def imap_unordered(
        self,
        function: TaskFunction,
        tasks: Tasks | Iterable[tuple[Hashable, Any]],
        timeout: float | None = None,
    ) -> Iterator[Outcome]:
        run = self._begin(function, tasks, timeout)
        try:
            while True:
                yield from self._fill(run)
                if run.over:
                    raise superseded()
                if not run.flight:
                    return
                if (future := self._next(run)) is not None:
                    yield from self._take(run, future)
        finally:
            self._abandon(run)

    def _begin(self, *args: Any) -> _FuturesRun:
        begun = super()._begin(*args)
        run = self._run = _FuturesRun(begun.jobs, begun.timeout)
        return run

    def _abandon(self, run: Run) -> None:
        super()._abandon(run)
        assert isinstance(run, _FuturesRun)
        if run.flight:
            self._crew.cancel(run.futures)
            run.flight.clear()
            run.futures.clear()
            self._crew.dismiss()

    # ---- feeding

    def _fill(self, run: _FuturesRun) -> Iterator[Outcome]:
        """Submit jobs while there are workers for them."""
        while not run.over:
            if run.refused is not None:
                if run.flight:  # these may still be done; or will say that it broke, and who is to blame
                    return
                if not self._crew.ours:
                    yield from self._give_up(run, run.refused)
                    return
                yield from self._broken(run)
            if len(run.flight) >= self._room():
                return
            if run.flight and (run.jobs.next_is_apart or any(job.apart for job in run.flight.values())):
                return
            job = run.jobs.next()
            if job is None:
                return
            number, parcel, outcomes = self._parcel(run, job)
            yield from outcomes
            if parcel is not None:
                self._submit(run, number, job, parcel)

    def _room(self) -> int:
        """How many calls may be on their way."""
        return _PER_WORKER * self._workers

    def _next(self, run: _FuturesRun) -> Any:
        """Wait for a future that is done; None where it is time to see whether there is room for more."""
        return run.done.get()

    def _submit(self, run: _FuturesRun, number: int, job: Job, parcel: Any) -> None:
        try:
            future = self._crew.submit(*parcel)
        except Exception as exc:
            if self._crew.ours and not isinstance(exc, BrokenExecutor):
                raise
            if not self._crew.ours and not run.started:
                raise SetupError(f"the executor that was given takes no tasks: {exc}") from exc
            run.jobs.put_back(job)
            run.refused = exc
            return
        if not callable(getattr(future, "add_done_callback", None)):
            raise InvalidTypeError(
                f"submit() of the executor that was given returned {type(future).__name__}, which is no future: "
                "it has no add_done_callback"
            )
        run.started = True
        run.flight[number] = job
        run.futures[future] = number
        future.add_done_callback(functools.partial(self._done, run, run.done))

    def _done(self, run: _FuturesRun, done: queue.SimpleQueue[Any], future: Any) -> None:
        """Called in a thread of the foreign executor."""
        # `dead` before `done`, and set the other way round in `_broken`: else a future of the pool that broke
        # could report all of its workers, which are being killed by now, as the next pool's casualties.
        if self._crew.ours and run.dead is None and run.done is done and not future.cancelled():
            if isinstance(future.exception(), BrokenExecutor):
                run.dead = self._crew.casualties()
        done.put(future)

    # ---- hearing

    def _take(self, run: _FuturesRun, future: Any) -> Iterator[Outcome]:
        """Take in a future that is done."""
        number = run.futures.pop(future)
        try:
            reply = future.result()
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as exc:  # noqa: BLE001 - of the foreign executor's own making
            yield from self._failed(run, number, exc)
        else:
            yield from self._hear(run, run.flight.pop(number), reply)

    def _failed(self, run: _FuturesRun, number: int, exc: BaseException) -> Iterator[Outcome]:
        """A call has not come back, for a reason of the executor's own."""
        if not isinstance(exc, (BrokenExecutor, CancelledError)):
            yield from self._unreadable(run, run.flight.pop(number), TaskError.from_exception(exc))
        elif self._crew.ours:
            yield from self._broken(run)
        else:
            yield from self._give_up(run, exc)

    def _broken(self, run: _FuturesRun) -> Iterator[Outcome]:
        """A worker is lost, and the crew with it."""
        run.refused = None
        run.futures.clear()
        run.done = queue.SimpleQueue()
        dead, run.dead = run.dead or {}, None
        self._crew.dismiss()
        yield from self._settle(run, dead)

    def close(self, *, kill: bool) -> None:
        """End the workers, if they are ours, and remove what was written for them."""
        try:
            if self._run is not None:
                kill = kill or bool(self._run.flight)
                self._abandon(self._run)
            if kill:
                self._crew.dismiss()
            else:
                self._crew.close()
        finally:
            self._carrier.close()


@contextlib.contextmanager
def opened(pool: FuturesPool) -> Iterator[Pool]:
    """A pool that is closed at the end, and whose workers are ended at once where that was an exception."""
    try:
        yield pool
    except BaseException:
        pool.close(kill=True)
        raise
    else:
        pool.close(kill=False)


@dataclass(frozen=True)
class ThreadsExecutor(Executor):
    """Threads of this process: for functions that let go of the GIL.

    Parameters
    ----------
    workers
        How many; by default as many as this process may use cores.
    """

    workers: int | None = None
    name: ClassVar[str] = "threads"
    capabilities: ClassVar[Capabilities] = Capabilities(
        survives_worker_death=False, enforces_timeout=False, own_process=False
    )

    @contextlib.contextmanager
    def open(self, setup: Callable[[], Any] | None = None, *, retries: int = 1) -> Iterator[Pool]:
        workers = worker_count(self.workers)
        pool = FuturesPool(self.name, self.capabilities, ThreadCrew(workers), LocalCarrier(setup), workers, retries)
        # Filters and BLAS limits belong to the process: set once, around everything that the threads do.
        with recording_warnings_together(), single_threaded_blas(), opened(pool) as ready:
            yield ready


@dataclass(frozen=True)
class MultiprocessingExecutor(Executor):
    """The standard library's process pool. A script must guard its top level.

    Parameters
    ----------
    workers
        How many; by default as many as this process may use cores.
    """

    workers: int | None = None
    name: ClassVar[str] = "multiprocessing"
    capabilities: ClassVar[Capabilities] = Capabilities(
        survives_worker_death=True, enforces_timeout=True, own_process=True, needs_main_guard=True
    )

    @contextlib.contextmanager
    def open(self, setup: Callable[[], Any] | None = None, *, retries: int = 1) -> Iterator[Pool]:
        refuse_unguarded(self.name)
        workers = worker_count(self.workers)
        carrier = RemoteCarrier(setup, private=True, watched=True)
        crew = SpawnCrew(workers, carrier.spool.folder)
        with opened(FuturesPool(self.name, self.capabilities, crew, carrier, workers, retries)) as pool:
            yield pool


@dataclass(frozen=True)
class LokyExecutor(Executor):
    """Loky's process pool.

    Parameters
    ----------
    workers
        How many; by default as many as this process may use cores.
    """

    workers: int | None = None
    name: ClassVar[str] = "loky"
    capabilities: ClassVar[Capabilities] = Capabilities(
        survives_worker_death=True, enforces_timeout=True, own_process=True
    )

    @contextlib.contextmanager
    def open(self, setup: Callable[[], Any] | None = None, *, retries: int = 1) -> Iterator[Pool]:
        workers = worker_count(self.workers)
        carrier = RemoteCarrier(setup, private=True, watched=True)
        crew = LokyCrew(workers, carrier.spool.folder)
        with opened(FuturesPool(self.name, self.capabilities, crew, carrier, workers, retries)) as pool:
            yield pool


@dataclass(frozen=True)
class FuturesExecutor(Executor):
    """An executor that the user has made: anything whose `submit` returns futures. It is not ended here.

    Parameters
    ----------
    executor
        For instance of `concurrent.futures`, or one that runs on other machines.
    workers
        How many workers it has; by default what it says itself, else the number of usable cores.
    """

    executor: Any
    workers: int | None = None
    name: ClassVar[str] = "futures"
    capabilities: ClassVar[Capabilities] = Capabilities(
        survives_worker_death=False, enforces_timeout=False, own_process=True
    )

    def __post_init__(self) -> None:
        if not callable(getattr(self.executor, "submit", None)):
            raise InvalidTypeError(f"{type(self.executor).__name__} has no method `submit`")
        # The pool of processes of the standard library spawns, or will, and then imports the caller's script.
        guard = _is_a(self.executor, "concurrent.futures.process", "ProcessPoolExecutor")
        promises = Capabilities(
            survives_worker_death=False,
            enforces_timeout=False,
            own_process=not self._threads,
            needs_main_guard=guard,
        )
        object.__setattr__(self, "capabilities", promises)

    @property
    def _threads(self) -> bool:
        # An interpreter pool is a thread pool to the standard library, but shares no objects.
        return isinstance(self.executor, ThreadPoolExecutor) and not _is_a(
            self.executor, "concurrent.futures.interpreter", "InterpreterPoolExecutor"
        )

    @contextlib.contextmanager
    def open(self, setup: Callable[[], Any] | None = None, *, retries: int = 1) -> Iterator[Pool]:
        # Where the executors of the standard library, of loky and of joblib keep their number of workers, and mpi4py's.
        known = getattr(self.executor, "_max_workers", None) or getattr(self.executor, "num_workers", None)
        workers = worker_count(self.workers or known)
        crew = GivenCrew(self.executor)
        with contextlib.ExitStack() as stack:
            carrier: Carrier
            if self._threads:
                stack.enter_context(recording_warnings_together())
                stack.enter_context(single_threaded_blas())
                carrier = LocalCarrier(setup)
            else:
                carrier = RemoteCarrier(setup, private=False, watched=False)
            pool = FuturesPool(self.name, self.capabilities, crew, carrier, workers, retries)
            yield stack.enter_context(opened(pool))


def _is_a(obj: Any, module: str, name: str) -> bool:
    return any(kind.__module__ == module and kind.__name__ == name for kind in type(obj).__mro__)
