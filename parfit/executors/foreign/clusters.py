"""What `dask` and `ray` have in common: shares that go to each worker once, and blocks that come back in parts.

        ClusterPool ── LodgingCarrier ── ClusterCrew (of one library) ──▶ lodging.run_lodged, on the workers

A row that ends its process, or is over its limit, breaks off its block (`lodging.Fate`): it is retried alone or lost,
and its chunk-mates run again elsewhere. Where a worker of the cluster itself is lost, its block is run again.
"""

from __future__ import annotations

import contextlib
import queue
import uuid
from abc import abstractmethod
from collections.abc import Callable, Iterator
from enum import Enum
from typing import Any

from parfit.core.errors import SetupError
from parfit.core.protocols import Capabilities, Pool, TaskFunction
from parfit.core.solution import Outcome, TaskError
from parfit.executors import payload as pl
from parfit.executors.baggage import packed
from parfit.executors.foreign.carriers import Carrier, Parcel
from parfit.executors.foreign.crews import Crew
from parfit.executors.foreign.jobs import Job
from parfit.executors.foreign.lodging import Fate, Lodging, run_lodged, this_machine
from parfit.executors.foreign.pool import Run
from parfit.executors.futures import FuturesPool, opened
from parfit.executors.limits import in_bytes, memory_limit
from parfit.executors.place import Place

__all__ = ["CLUSTER", "ClusterCrew", "ClusterPool", "Verdict", "cluster_pool"]

#: What a cluster of either kind can promise.
CLUSTER = Capabilities(
    survives_worker_death=True, enforces_timeout=True, own_process=True, limits_memory=True, other_machines=True
)
#: Blocks that are larger travel as data of the cluster's, bytes, not as part of a call.
_LARGE = 1 << 20
#: Whether the cluster has grown is looked at this often, s.
_LOOK_S = 0.25
#: Shared data may be lost with workers this often in a row.
_STRANDED = 5


class Verdict(Enum):
    """What an exception of a cluster's says of the call that it came for."""

    LOST = "the worker of the cluster that ran it is lost"
    STRANDED = "what had been shared with it is lost"
    OVER = "the cluster takes no more calls"
    UNKNOWN = "something else"


class ClusterCrew(Crew):
    """Workers of a cluster, by the library that runs them.

    Attributes
    ----------
    token
        By which hosts know this open executor; another one after what ran has been dismissed.
    """

    ours = False

    def __init__(self) -> None:
        self.token = uuid.uuid4().hex

    @property
    @abstractmethod
    def workers(self) -> int:
        """How many tasks it runs at a time, now."""

    @property
    @abstractmethod
    def room(self) -> int:
        """How many calls it is to be given."""

    @abstractmethod
    def share(self, thing: Any) -> Any:
        """Something that many calls need, to be given to `submit` in its place: it goes to each worker once."""

    @abstractmethod
    def verdict(self, exc: BaseException) -> Verdict:
        """What an exception means that did not come from `run_lodged`."""

    @abstractmethod
    def evict(self, *, keep: bool) -> None:
        """End what runs for us on all workers."""

    def dismiss(self) -> None:
        self.evict(keep=False)
        self.token = uuid.uuid4().hex

    def close(self) -> None:
        self.evict(keep=True)


class LodgingCarrier(Carrier):
    """To worker processes of ours beside the workers of a cluster."""

    def __init__(self, setup: Callable[[], Any] | None, crew: ClusterCrew, memory_limit: int | None) -> None:
        self._crew = crew
        self._memory_limit = memory_limit
        place = pl.dumps(Place(), by_value=False)
        self._common = (pl.Sealed(place), pl.Sealed(packed("setup", setup)))
        self._function = pl.Sealed((0, []))
        self._shared: tuple[Any, Any] | None = None
        self._run = 0
        self._timeout: float | None = None
        #: The last call, and the last that was made with what had been shared before.
        self._last = self._since = 0

    def learn(self, function: TaskFunction, timeout: float | None) -> None:
        self._function = pl.Sealed(packed("function", function))
        self._run += 1
        self._timeout = timeout
        common = self._shared[0] if self._shared is not None else self._crew.share(self._common)
        self._shared = common, self._crew.share(self._function)

    def stranded(self, number: int) -> None:
        """What was shared with this call is lost: share it again, unless that has been done since."""
        if number > self._since:
            self._shared = self._crew.share(self._common), self._crew.share(self._function)
            self._since = self._last

    def parcel(self, number: int, job: Job) -> Parcel:
        self._last = number
        block: Any = pl.Sealed(pl.dumps(job.block))
        if block.size > _LARGE:
            with contextlib.suppress(Exception):  # a cluster that is lost: the call itself will say so
                block = self._crew.share(block)
        assert self._shared is not None
        limits = self._timeout, self._memory_limit
        lodging = Lodging(self._crew.token, self._run, this_machine(), *limits, job.fresh)
        return run_lodged, lodging, number, block, *self._shared

    def open(self, reply: Any) -> tuple[str, Any]:
        word, value = reply
        if word == "outcomes":
            value = _opened(value)
        elif word == "broken":
            value = _opened(value[0]), value[1]
        return word, value

    def stop(self) -> None:
        """Leave it to the crew, which evicts."""

    def close(self) -> None:
        self._shared = None


def _opened(sealed: list[pl.Sealed]) -> list[Outcome]:
    return [outcome for part in sealed for outcome in part.open()[0]]


class ClusterPool(FuturesPool):
    """Keeps a cluster supplied, as large as it is at the time."""

    _crew: ClusterCrew
    _carrier: LodgingCarrier

    def __init__(
        self, name: str, crew: ClusterCrew, setup: Callable[[], Any] | None, retries: int, memory_limit: int | None
    ) -> None:
        carrier = LodgingCarrier(setup, crew, memory_limit)
        super().__init__(name, CLUSTER, crew, carrier, crew.workers, retries)
        self._memory_limit = memory_limit
        self._stranded = 0

    def _begin(self, *args: Any) -> Any:
        self._workers = self._crew.workers
        return super()._begin(*args)

    def _room(self) -> int:
        return self._crew.room

    def _next(self, run: Any) -> Any:
        try:
            return run.done.get(timeout=_LOOK_S)
        except queue.Empty:
            return None

    def _hear(self, run: Run, job: Job, reply: Any) -> list[Outcome]:
        self._stranded = 0
        if reply[0] == "failed" and isinstance(reply[1], str):
            raise SetupError(reply[1])
        if reply[0] != "broken":
            return super()._hear(run, job, reply)
        try:
            _, (outcomes, fate) = self._carrier.open(reply)
        except Exception as exc:  # noqa: BLE001 - a value of the user's that cannot be rebuilt here
            return self._unreadable(run, job, TaskError.from_exception(exc, skip_frames=1))
        done = len(outcomes)
        return [*self._taken(run, job, outcomes), *self._broken_off(run, job, done, fate)]

    def _taken(self, run: Run, job: Job, outcomes: list[Outcome]) -> list[Outcome]:
        if self._memory_limit is not None and not job.fresh:
            for i, outcome in reversed(list(enumerate(outcomes))):
                if (
                    outcome.error is not None and "MemoryError" in outcome.error.type
                ):  # for what others have left, perhaps
                    run.jobs.elsewhere(job, i)
                    del outcomes[i]
        return super()._taken(run, job, outcomes)

    def _broken_off(self, run: Run, job: Job, done: int, fate: Fate) -> Iterator[Outcome]:
        """Say what became of the rest of a block whose worker has ended."""
        n, index = len(job.block), fate.task
        if not done <= index < n:
            if n - done > 1:  # between tasks: none is known to be at fault
                run.jobs.singly(Job(job.block.part(done, n), job.attempts))
                return
            index = done
        if index == n:
            return
        run.jobs.again(job, done, index)
        run.jobs.again(job, index + 1, n)
        key = job.block.keys()[index]
        if fate.size is not None:
            assert self._memory_limit is not None
            if not job.fresh and (fate.used or index):  # by what others have left, perhaps
                run.jobs.elsewhere(job, index)
                return
            sizes = in_bytes(self._memory_limit), in_bytes(fate.size, self._memory_limit)
            yield Outcome.outgrown(key, fate.seconds, job.attempts, *sizes)
        elif fate.how is None:
            assert run.timeout is not None
            yield Outcome.timed_out(key, fate.seconds, job.attempts, run.timeout)
        elif job.attempts <= self._retries:
            run.jobs.retry(job, index)
        else:
            yield Outcome.lost(key, fate.seconds, job.attempts, fate.how)

    def _failed(self, run: Any, number: int, exc: BaseException) -> Iterator[Outcome]:
        verdict = self._crew.verdict(exc)
        if verdict is Verdict.STRANDED:
            verdict = self._stranding(number)
        if verdict is Verdict.OVER:
            yield from self._give_up(run, ConnectionError(f"the cluster is lost: {exc}"))
            return
        job = run.flight.pop(number)
        if verdict is Verdict.UNKNOWN:
            yield from self._unreadable(run, job, TaskError.from_exception(exc))
        elif verdict is Verdict.STRANDED:
            run.jobs.put_back(job)
        elif job.attempts <= self._retries:
            run.jobs.put_back(Job(job.block, job.attempts + 1))
        elif len(job.block) > 1:
            run.jobs.singly(Job(job.block, job.attempts + 1))
        else:
            yield Outcome.lost(job.block.keys()[0], 0.0, job.attempts, str(exc))

    def _stranding(self, number: int) -> Verdict:
        """Share again what has been lost, where there still is somebody to share it with."""
        self._stranded += 1
        if self._stranded > _STRANDED * self._room():
            return Verdict.OVER
        try:
            self._carrier.stranded(number)
        except Exception:  # noqa: BLE001 - a cluster that is lost raises what it likes
            return Verdict.OVER
        return Verdict.STRANDED


def cluster_pool(
    name: str, crew: ClusterCrew, setup: Callable[[], Any] | None, retries: int, limit: int | str | None
) -> contextlib.AbstractContextManager[Pool]:
    """A pool over a crew, which is left as it was."""
    return opened(ClusterPool(name, crew, setup, retries, memory_limit(limit)))
