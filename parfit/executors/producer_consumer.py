"""The executor `producer_consumer`: `processes` whose workers keep the data from one call to the next.

fit(df, …)        ── datasets, objective ──▶  worker k: its share of df, loaded     parfit.executors.keeping.kept
fits.refit(…)     ── objective ───────────▶  worker k: finds it there               parfit.executors.keeping.shards
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Generator, Hashable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from parfit.core.errors import InvalidInputError, InvalidTypeError, ParfitWarning
from parfit.core.protocols import Capabilities, Executor, Keepable, Pool, TaskFunction, Tasks
from parfit.core.solution import Outcome
from parfit.executors.cpus import worker_count
from parfit.executors.keeping import shelf
from parfit.executors.keeping.kept import run_kept
from parfit.executors.keeping.shards import Call
from parfit.executors.limits import memory_limit, time_limit
from parfit.executors.serial import SerialExecutor
from parfit.executors.workers.idle import shutdown_workers
from parfit.executors.workers.pool import ProcessPool

__all__ = ["ProducerConsumerExecutor"]


@dataclass(frozen=True)
class ProducerConsumerExecutor(Executor):
    """Worker processes that load their share of the data once and keep it for later calls.

    A call on the same data (a refit, another start, another objective) sends the objective only. The data is the same
    where it is the same object with the same content: its content is hashed at each call, so that a change in place
    is noticed and the data sent again. What is kept ends when the data is garbage collected, after an idle minute, and
    with `parfit.shutdown_workers`.

    Which worker has which dataset is settled once, by position: the datasets are dealt out in short runs (64 at the
    most), so that dear ones that lie side by side fall to different workers. No worker helps out another, though: where
    few datasets take most of the time, `processes` ends sooner.

    Tasks that do not say which datasets they are on (`parfit.core.protocols.Keepable`) run as with `processes`.

    Parameters
    ----------
    workers
        How many; by default as many as this process may use cores.
    load
        Called in the worker with each dataset, once; what it returns is what the objective gets, each time the same
        object, which it must not change. For data that is a list of paths, say.
    load_timeout
        The limit for each call of `load`, s; it is not part of the time limit of a fit.
    memory_limit
        How large each worker may become, its share of the data included, in bytes or as text such as ``"2 GiB"``.
    """

    workers: int | None = None
    load: Callable[[Any], Any] | None = None
    load_timeout: float | None = None
    memory_limit: int | str | None = None
    name: ClassVar[str] = "producer_consumer"
    capabilities: ClassVar[Capabilities] = Capabilities(
        survives_worker_death=True, enforces_timeout=True, own_process=True, keeps_data=True, limits_memory=True
    )

    def __post_init__(self) -> None:
        if self.load is not None and not callable(self.load):
            raise InvalidTypeError(f"load must be callable or None, not {type(self.load).__name__}")
        object.__setattr__(self, "load_timeout", time_limit("load_timeout", self.load_timeout))
        object.__setattr__(self, "memory_limit", memory_limit(self.memory_limit))

    def in_worker(self) -> Executor:
        """What does the same inside a worker, where none may be started: serially, and `load` is called there."""
        return SerialExecutor() if self.load is None else LoadingHereExecutor(self.load)

    @contextlib.contextmanager
    def open(self, setup: Callable[[], Any] | None = None, *, retries: int = 1) -> Iterator[Pool]:
        pool = _KeepingPool(self, setup, retries)
        try:
            yield pool
        except KeyboardInterrupt:
            pool.close(keep=False)
            shutdown_workers()
            raise
        finally:
            pool.close(keep=True)


def _no_datasets() -> InvalidInputError:
    return InvalidInputError(
        "producer_consumer was given `load`, but these tasks do not say what their datasets are: "
        "leave out `load`, and load the data in the function"
    )


class _KeepingPool(Pool):
    def __init__(self, recipe: ProducerConsumerExecutor, setup: Callable[[], Any] | None, retries: int) -> None:
        self._recipe = recipe
        self._workers = worker_count(recipe.workers)
        self._setup = setup
        self._retries = retries
        self._memory_limit = memory_limit(recipe.memory_limit)
        self._plain: ProcessPool | None = None
        self._kept: list[Generator[Outcome, None, None]] = []

    def imap_unordered(
        self,
        function: TaskFunction,
        tasks: Tasks | Iterable[tuple[Hashable, Any]],
        timeout: float | None = None,
    ) -> Iterator[Outcome]:
        if isinstance(tasks, Keepable):
            outcomes = self._run_kept(function, tasks, timeout)
            self._kept.append(outcomes)
            return outcomes
        if self._recipe.load is not None:
            raise _no_datasets()
        if self._plain is None:
            self._plain = ProcessPool(self._workers, self._setup, self._retries, self._memory_limit)
        return self._plain.imap_unordered(function, tasks, timeout)

    def _run_kept(
        self, function: TaskFunction, tasks: Keepable, timeout: float | None
    ) -> Generator[Outcome, None, None]:
        call = Call(
            shelf.OnKept(function),
            tasks.datasets,
            self._setup,
            timeout,
            self._retries,
            memory_limit=self._memory_limit,
        )
        yield from run_kept(tasks, call, self._workers, self._recipe.load, self._recipe.load_timeout)
        for text in dict.fromkeys(call.warnings):
            message = f"loading a dataset gave {text.category}: {text.message}"
            warnings.warn(message, ParfitWarning, stacklevel=2)

    def close(self, *, keep: bool) -> None:
        """End the calls that were not read to their end; keep the idle workers or not."""
        for outcomes in self._kept:
            outcomes.close()
        self._kept.clear()
        if self._plain is not None:
            self._plain.close(keep=keep)
            self._plain = None


@dataclass(frozen=True)
class LoadingHereExecutor(Executor):
    """In this process, one task after the other; each dataset is loaded when a call first needs it.

    Parameters
    ----------
    load
        As for `ProducerConsumerExecutor`.
    """

    load: Callable[[Any], Any]
    name: ClassVar[str] = "serial"
    capabilities: ClassVar[Capabilities] = SerialExecutor.capabilities

    @contextlib.contextmanager
    def open(self, setup: Callable[[], Any] | None = None, *, retries: int = 1) -> Iterator[Pool]:
        with SerialExecutor().open(lambda: _Opened(setup), retries=retries) as pool:
            yield _LoadingPool(self.load, pool)


class _Opened:
    """The state of the serial pool: what the setup has returned."""

    def __init__(self, setup: Callable[[], Any] | None) -> None:
        self.own = None if setup is None else setup()


class _LoadingPool(Pool):
    def __init__(self, load: Callable[[Any], Any], pool: Pool) -> None:
        self._load = load
        self._pool = pool

    def imap_unordered(
        self,
        function: TaskFunction,
        tasks: Tasks | Iterable[tuple[Hashable, Any]],
        timeout: float | None = None,
    ) -> Iterator[Outcome]:
        if not isinstance(tasks, Keepable):
            raise _no_datasets()
        kept = shelf.Shelf([(0, tasks.datasets(0, len(tasks)))], self._load)
        on_kept = shelf.OnKept(function)
        return self._pool.imap_unordered(
            lambda opened, payload: on_kept(shelf.State(kept, opened.own), payload), tasks.without_data(), timeout
        )
