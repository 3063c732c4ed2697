"""Data spread over workers that keep it: each worker loads its share once, and every call finds it there.

    Shards.run(call)
      Router: tasks by owner        shard 0: LonePool ── worker 0: datasets 0, 2, 4, …   (keeping.shelf)
        queue 0  ─────────────────▶     1. greet: is the worker there, has it its share?
        queue 1  ────────────┐          2. load what this call needs and is not loaded, dataset by dataset
                             │          3. the call's own tasks, under the call's time limit
                             └────▶ shard 1: LonePool ── worker 1: datasets 1, 3, 5, …

A worker that is lost during 3 takes its share with it: the shard goes back to 1 with another worker, and then on
with the tasks that are left (`ReplacedError`). What cannot be loaded is an outcome of each task on that dataset.
A share is pickled when the one before it has been sent, so that there is one copy of one share at a time.
One call runs at a time. The workers end with `close`; a forked child starts its own.
"""

from __future__ import annotations

import functools
import os
import threading
import weakref
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from parfit.core.errors import InvalidInputError, SetupError
from parfit.core.protocols import TaskFunction, Tasks
from parfit.core.solution import Outcome, OutcomeKind, WarningText
from parfit.executors import payload as pl
from parfit.executors.baggage import packed
from parfit.executors.chunking import ChunkSizer, PairBlock
from parfit.executors.keeping import shelf
from parfit.executors.keeping.routing import Own, Router, positions
from parfit.executors.lone import LonePool, ReplacedError, Stream, drive
from parfit.executors.running import recording_warnings, run_block
from parfit.executors.workers.idle import warm_up

__all__ = ["BusyError", "Call", "SerialShards", "Shards"]

#: A share that has not been loaded after so many rounds, each ended by the worker's death, is given up.
_ROUNDS = 4
#: Datasets travel and are dealt out in runs of at most this many.
_RUN = 64


class BusyError(InvalidInputError):
    """The workers are in use, or are no more."""


@dataclass
class Call:
    """One call on all shards.

    Attributes
    ----------
    function
        Called in the workers with a `shelf.State` and the task's payload.
    datasets
        The datasets from one position to another, for a worker that has yet to get them.
    setup
        Called once in each worker; what it returns is ``state.own``.
    timeout
        The limit for each task, s. The loading of a dataset is not counted.
    retries
        How often a task whose worker died is started again.
    renew
        Whether workers that have their share are to run `setup` too, and to become like the caller again (working
        folder, import path, …). False where nothing but the function has changed since the last call.
    memory_limit
        How large each worker may become, its share of the data included, bytes.
    warnings
        What loading warned of is put here.
    """

    function: TaskFunction
    datasets: Callable[[int, int], Sequence[Any]]
    setup: Callable[[], Any] | None = None
    timeout: float | None = None
    retries: int = 1
    renew: bool = True
    memory_limit: int | None = None
    warnings: list[WarningText] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.payload = packed("function", self.function)

    @functools.cached_property
    def sealed_setup(self) -> pl.Sealed | None:
        """The setup, pickled once for all workers."""
        return None if self.setup is None else pl.Sealed(packed("setup", self.setup))

    @functools.cached_property
    def keep(self) -> pl.Payload | None:
        """For workers that have their share."""
        return packed("setup", shelf.Keep(self.sealed_setup)) if self.renew else None


class _Turn:
    """Whose share is being sent: one at a time."""

    def __init__(self) -> None:
        self._holder: _Shard | None = None

    def take(self, shard: _Shard) -> bool:
        """Whether it is this shard's turn now."""
        if self._holder is None:
            self._holder = shard
        return self._holder is shard

    def leave(self, shard: _Shard) -> None:
        """Let the next one have it."""
        if self._holder is shard:
            self._holder = None


class _Shard:
    """One worker and its share."""

    def __init__(
        self,
        blocks: list[tuple[int, int]],
        load: Callable[[Any], Any] | None,
        load_timeout: float | None,
        turn: _Turn,
    ) -> None:
        self.pool = LonePool(self._fill)
        self.turn = turn
        self._blocks = blocks
        self._load = load
        self._load_timeout = load_timeout
        self._apart = False
        self._call: Call | None = None
        self._sizer = ChunkSizer(1)
        self._there: set[int] = set()
        self._failed: dict[int, Outcome] = {}

    def work(self, call: Call, own: Own) -> Stream:
        """Run this shard's tasks; yields None where it would wait."""
        pool, self._call, pool.retries = self.pool, call, call.retries
        pool.memory_limit = call.memory_limit
        if call.renew:
            self._sizer = ChunkSizer(1)
        keep = call.keep if pool.alive else None
        jobs: list[Any] = []
        try:
            while True:
                yield from self._greet(keep)
                keep = None
                if self._load is not None:
                    yield from self._load_missing([*own.positions(), *positions(jobs)])
                    yield from own.refuse(self._failed)
                pool.sealed = True  # a worker that is started from here on would lack what the old one had loaded
                try:
                    yield from pool.stream(call.payload, own, call.timeout, jobs=jobs, sizer=self._sizer)
                    break
                except ReplacedError as replaced:
                    jobs = replaced.jobs
                finally:
                    pool.sealed = False
        finally:
            self._call = None

    def _greet(self, keep: pl.Payload | None) -> Stream:
        """See to it that there is a worker, and that it has its share."""
        while not self.pool.alive or keep is not None:
            try:
                if not self.pool.alive:
                    yield from self._wait_for_turn()
                for outcome in self.pool.stream(shelf.greet, [(None, None)], begin=keep):
                    if outcome is None:
                        if not self.pool.sending:
                            self.turn.leave(self)
                        yield None
                    elif outcome.error is not None:
                        raise SetupError(f"a worker failed before it was ready: {outcome.error.message}")
                    elif outcome.value is not None:  # the share did not arrive as a whole: send it piece by piece
                        self._apart = True
                        self.pool.drop()
                        break
                else:
                    return
            finally:
                self.turn.leave(self)

    def _wait_for_turn(self) -> Stream:
        try:
            while not self.turn.take(self):
                self.pool.waiting = True
                yield None
        finally:
            self.pool.waiting = False

    def _fill(self) -> pl.Payload:
        """The setup of a new worker."""
        call = self._call
        assert call is not None
        self._there.clear()
        blocks = [(start, call.datasets(start, stop)) for start, stop in self._blocks]
        share: Any = None
        if not self._apart:
            try:
                share = shelf.Packed(blocks)
            except Exception:  # noqa: BLE001 - pickling raises what it likes
                self._apart = True
        if self._apart:
            share = [(start + i, [shelf.Apart(item)]) for start, items in blocks for i, item in enumerate(items)]
        return packed("load", shelf.Fill(share, self._load, call.sealed_setup))

    def _load_missing(self, wanted: list[int]) -> Stream:
        """Load what is wanted and not there.

        A dataset that kills its worker costs one more round, in which what that worker had loaded is loaded again;
        further rounds mean that it is not the dataset.
        """
        for _ in range(_ROUNDS):
            missing = [p for p in wanted if p not in self._there and p not in self._failed]
            if not missing:
                return
            for outcome in self.pool.stream(shelf.load, [(p, p) for p in missing], self._load_timeout):
                if outcome is None:
                    yield None
                elif outcome.kind is OutcomeKind.DONE:
                    self._there.add(outcome.key)
                    self._note(outcome)
                else:
                    self._failed[outcome.key] = outcome
        lost = Outcome.lost(None, 0.0, _ROUNDS, "each time while it loaded its share: out of memory?")
        self._failed.update((p, lost) for p in wanted if p not in self._there and p not in self._failed)

    def _note(self, outcome: Outcome) -> None:
        if self._call is not None:
            self._call.warnings.extend(outcome.warnings)


class Shards:
    """All workers of one collection of data.

    Parameters
    ----------
    n
        The number of datasets.
    workers
        The number of workers; no more than datasets are used.
    load
        Called in the worker with a dataset, once; what it returns is what the tasks get.
    load_timeout
        The limit for each call of `load`, s.
    interleave
        Deal the datasets out one by one; else in runs of up to 64, which travel more compactly. Either way a share is
        spread over the whole of the data, so that dear datasets that lie side by side do not all fall to one worker.
    """

    def __init__(
        self,
        n: int,
        workers: int,
        load: Callable[[Any], Any] | None = None,
        load_timeout: float | None = None,
        *,
        interleave: bool = False,
    ) -> None:
        k = self._count = min(n, workers)
        self._n = n
        self._run = 1 if interleave or not k else max(1, min(_RUN, n // (8 * k)))
        starts = range(0, n, self._run)
        turn = _Turn()
        self._shards = [
            _Shard([(start, min(start + self._run, n)) for start in starts[i::k]], load, load_timeout, turn)
            for i in range(k)
        ]
        self._lock = threading.Lock()
        self.closed = False
        _all.add(self)

    def _owner(self, at: int) -> int:
        if not 0 <= at < self._n:
            raise InvalidInputError(f"a task is on the dataset at position {at}, and there are {self._n} datasets")
        return at // self._run % self._count

    def router(self, tasks: Tasks) -> Router:
        """`tasks`, sorted by who has their dataset."""
        return Router(tasks, self._owner, self._count)

    def run(self, call: Call, router: Router, *, wait: bool = True) -> Generator[Outcome, None, None]:
        """Run the tasks on all workers at once; an `Outcome` each, in any order.

        Raises `BusyError` where the workers have been shut down, or where another call is running and `wait` is False.
        """
        if not self._lock.acquire(blocking=wait):
            raise BusyError("another call is running on these workers")
        try:
            if self.closed:
                raise BusyError("these workers have been shut down")
            yield from self._run_all(call, router)
        finally:
            self._lock.release()

    def _run_all(self, call: Call, router: Router) -> Iterator[Outcome]:
        owns = [(shard, own) for i, shard in enumerate(self._shards) if (own := Own(router, i)).any()]
        cold = sum(not shard.pool.alive for shard, _ in owns)
        if cold > 1:  # a large share is sent to a worker that reads: let them all get there at the same time
            warm_up(cold)
        yield from drive({shard.pool: shard.work(call, own) for shard, own in owns})

    def close(self, *, wait: bool = True) -> bool:
        """End the workers; False where a call is running and `wait` is False, so that they go on."""
        if not self._lock.acquire(blocking=wait):
            return False
        try:
            self.closed = True
            for shard in self._shards:
                shard.pool.close(keep=False)
            self._shards = []
        finally:
            self._lock.release()
        return True

    def disown(self) -> None:
        """In a forked child: begin anew, without the parent's workers."""
        self._lock, turn = threading.Lock(), _Turn()
        for shard in self._shards:
            shard.turn = turn
            shard.pool.disown()


_all: weakref.WeakSet[Shards] = weakref.WeakSet()


def _disown_all() -> None:
    for shards in list(_all):
        shards.disown()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_disown_all)


class SerialShards:
    """In the place of `Shards` inside a worker: everything in this process, one after the other."""

    def __init__(self, load: Callable[[Any], Any]) -> None:
        self._load = load
        self._state: shelf.State | None = None

    def run(self, call: Call, tasks: Iterable[tuple[Any, Any]], n: int) -> Iterator[Outcome]:
        """As `Shards.run`, on `n` datasets."""
        if self._state is None:
            kept = shelf.Shelf([(0, list(call.datasets(0, n)))], self._load)
            self._state = shelf.State(kept, None if call.setup is None else call.setup())
        for pair in tasks:
            done: list[Outcome] = []
            with recording_warnings():
                run_block(call.function, self._state, PairBlock([pair]), done.append)
            yield from done
