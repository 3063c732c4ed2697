"""Any backend of joblib's, through `joblib.Parallel`.

        caller's thread                    joblib's threads                         workers
    ┌──────────────────────────┐      ┌──────────────────────────────┐      ┌────────────────────────┐
    │ _round: reads replies    │ ◀─── │ pull the next call from      │ ───▶ │ remote.run_remote, or  │
    │ from joblib's generator  │      │ `calls` when one has ended   │ ◀─── │ LocalCarrier (threads) │
    └──────────────────────────┘      └──────────────────────────────┘      └────────────────────────┘

joblib pulls the calls, and with them the tasks, in whatever thread has just seen one end; it never pulls twice at
a time. Between the two sides there are only the run's `JobQueue`, from which one side takes and to which the
other gives back, and `flight`, a dict with one writer for each key.

A round is one call of `Parallel`. There is a second one only where a worker was lost: joblib then gives up the
round, and what was on its way is run in the next.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import warnings
from collections.abc import Callable, Hashable, Iterable, Iterator
from concurrent.futures import BrokenExecutor
from dataclasses import dataclass, field
from typing import Any, ClassVar

from parfit.core.errors import InvalidInputError, SetupError, missing_package
from parfit.core.protocols import Capabilities, Executor, Pool, TaskFunction, Tasks
from parfit.core.solution import Outcome
from parfit.executors.cpus import worker_count
from parfit.executors.foreign.carriers import Carrier, LocalCarrier, RemoteCarrier
from parfit.executors.foreign.exits import end_at_exit, ended
from parfit.executors.foreign.jobs import superseded
from parfit.executors.foreign.pool import ForeignPool, Run
from parfit.executors.running import recording_warnings_together, single_threaded_blas

__all__ = ["JoblibExecutor"]

_PROCESSES = Capabilities(survives_worker_death=True, enforces_timeout=True, own_process=True)
_THREADS = Capabilities(survives_worker_death=False, enforces_timeout=False, own_process=False)
_UNKNOWN = Capabilities(survives_worker_death=False, enforces_timeout=False, own_process=True)


@dataclass(frozen=True)
class JoblibExecutor(Executor):
    """Joblib's workers.

    Parameters
    ----------
    workers
        How many; by default as many as this process may use cores. Joblib starts at least two processes.
    backend
        ``"loky"`` (the default), ``"threading"``, or the name of a backend that was registered with joblib.
        Its ``"multiprocessing"`` forks, and waits for ever for a task whose worker has died; it is refused.
    """

    workers: int | None = None
    backend: str | None = None
    name: ClassVar[str] = "joblib"
    capabilities: ClassVar[Capabilities] = _PROCESSES

    def __post_init__(self) -> None:
        if self.backend == "multiprocessing":
            raise InvalidInputError(
                "joblib's backend 'multiprocessing' cannot be used: it never notices that a worker has died; "
                "use executor='multiprocessing', or joblib's backend 'loky'"
            )
        known = {None: _PROCESSES, "loky": _PROCESSES, "threading": _THREADS}
        object.__setattr__(self, "capabilities", known.get(self.backend, _UNKNOWN))

    @contextlib.contextmanager
    def open(self, setup: Callable[[], Any] | None = None, *, retries: int = 1) -> Iterator[Pool]:
        try:
            import joblib
        except ImportError:
            raise missing_package("joblib", "executor 'joblib'", "all") from None
        backend = self.backend or "loky"
        if backend not in joblib.parallel.BACKENDS and backend not in joblib.parallel.EXTERNAL_BACKENDS:
            known = ", ".join(repr(name) for name in joblib.parallel.BACKENDS if name != "multiprocessing")
            raise InvalidInputError(f"joblib has no backend {backend!r}; it has {known}")
        with contextlib.ExitStack() as stack:
            carrier: Carrier
            if self.capabilities.own_process:
                carrier = RemoteCarrier(setup, private=False, watched=backend == "loky")
            else:
                stack.enter_context(recording_warnings_together())
                stack.enter_context(single_threaded_blas())
                carrier = LocalCarrier(setup)
            pool = JoblibPool(self, carrier, worker_count(self.workers), retries)
            stack.callback(pool.close)
            yield pool


@dataclass
class _JoblibRun(Run):
    """A run, and what happened to it in joblib's threads."""

    unsent: list[Outcome] = field(default_factory=list)
    failures: list[BaseException] = field(default_factory=list)


class JoblibPool(ForeignPool):
    """Lets joblib pull calls, round after round, and hands on what comes back."""

    def __init__(self, recipe: JoblibExecutor, carrier: Carrier, workers: int, retries: int) -> None:
        super().__init__(recipe.name, recipe.capabilities, carrier, workers, retries)
        self._backend = recipe.backend or "loky"
        self._found = _loky_workers()
        self._replies: Any = None
        self._threads: Any = None

    def imap_unordered(
        self,
        function: TaskFunction,
        tasks: Tasks | Iterable[tuple[Hashable, Any]],
        timeout: float | None = None,
    ) -> Iterator[Outcome]:
        run = self._begin(function, tasks, timeout)
        try:
            while run.jobs.pending:
                yield from self._round(run)
                if run.over:
                    raise superseded()
        finally:
            self._abandon(run)

    def _begin(self, *args: Any) -> _JoblibRun:
        begun = super()._begin(*args)
        run = self._run = _JoblibRun(begun.jobs, begun.timeout)
        return run

    def _abandon(self, run: Run) -> None:
        super()._abandon(run)
        if run is self._run:
            self._end_round()
        run.flight.clear()

    def _end_round(self) -> None:
        replies, self._replies = self._replies, None
        if replies is not None:
            with warnings.catch_warnings():  # joblib regrets the work that is lost
                warnings.simplefilter("ignore")
                replies.close()

    def _round(self, run: _JoblibRun) -> Iterator[Outcome]:
        """Have joblib run what there is to run."""
        from joblib import delayed

        apart = run.jobs.next_is_apart
        failure: Exception | None = None
        replies: Any = None
        try:
            replies = self._replies = self._parallel(apart=apart)(self._calls(run, delayed(_numbered), apart=apart))
        except Exception as exc:  # noqa: BLE001 - of the backend's own making, or of the caller's tasks
            failure = exc
        while failure is None and not run.over:
            try:
                number, reply = next(replies)
            except StopIteration:
                break
            except Exception as exc:  # noqa: BLE001
                failure = exc
                break
            if not run.started:
                run.started = True
                end_at_exit(self, self._backend)
            job = run.flight.pop(number, None)
            if job is not None:  # else of a call that was abandoned: a thread of joblib's had not heard of that
                yield from self._hear(run, job, reply)
                yield from self._unsent(run)
        if run.over:
            return
        self._end_round()
        yield from self._unsent(run)
        if failure is None:
            self._forgotten(run)
        if run.failures:
            raise run.failures[0]
        if failure is not None:
            yield from self._lost(run, failure)

    def _parallel(self, *, apart: bool) -> Any:
        if self._threads is not None:
            return self._threads
        from joblib import Parallel

        parallel = Parallel(
            n_jobs=max(2, self._workers),  # with one, joblib would run the tasks in this process
            backend=self._backend,
            return_as="generator_unordered",
            batch_size=1,
            pre_dispatch=1 if apart or self._workers == 1 else 2 * self._workers,
        )
        if not self._capabilities.own_process:
            self._threads = parallel.__enter__()  # the same threads, with their states, for all calls
        return parallel

    def _calls(self, run: _JoblibRun, delayed: Callable[..., Any], *, apart: bool) -> Iterator[Any]:
        """Called by joblib, in its threads, when it wants another call."""
        while not run.over and run.jobs.next_is_apart == apart:
            try:
                job = run.jobs.next()
            except BaseException as exc:
                run.failures.append(exc)
                raise
            if job is None:
                return
            number, parcel, outcomes = self._parcel(run, job)
            run.unsent.extend(outcomes)
            if parcel is not None:
                run.flight[number] = job
                yield delayed(number, *parcel)
            if apart:
                return

    def _unsent(self, run: _JoblibRun) -> Iterator[Outcome]:
        while run.unsent:
            yield run.unsent.pop()

    def _forgotten(self, run: _JoblibRun) -> None:
        """Run again what joblib has no answer for: it counted the answer to an abandoned call instead."""
        for job in run.flight.values():
            run.jobs.put_back(job)
        run.flight.clear()

    def _lost(self, run: _JoblibRun, failure: Exception) -> Iterator[Outcome]:
        """The round has failed as a whole. Joblib has ended its workers by now."""
        if self._capabilities.survives_worker_death and isinstance(failure, BrokenExecutor):
            yield from self._settle(run, {})
        elif run.started:
            yield from self._give_up(run, failure)
        else:
            raise SetupError(f"joblib's backend {self._backend!r} runs no tasks: {failure}") from failure

    def close(self) -> None:
        """End joblib's workers, unless there were some before us, and remove what was written for them."""
        ended(self)
        try:
            if self._run is not None:
                self._abandon(self._run)
            if self._threads is not None:
                self._threads.__exit__(None, None, None)
            if not self._found:
                self._end_processes()
        finally:
            self._carrier.close()

    def end_now(self) -> None:
        """The interpreter ends, with a call that nobody has ended."""
        with contextlib.suppress(ValueError):  # it is in another thread
            self._end_round()
        self._end_processes()

    def _end_processes(self) -> None:
        if self._backend == "loky" and _loky_workers():
            from joblib.externals.loky import get_reusable_executor

            get_reusable_executor(reuse=True).shutdown(wait=True, kill_workers=True)


def _numbered(number: int, call: Callable[..., Any], *args: Any) -> tuple[int, Any]:
    return number, call(*args)


def _loky_workers() -> bool:
    """Whether joblib has worker processes now, for whomever."""
    return any(type(process).__name__ == "LokyProcess" for process in multiprocessing.active_children())
