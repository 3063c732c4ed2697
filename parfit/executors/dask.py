"""Workers of a Dask cluster, through `distributed.Client`.

        caller's thread              Dask's scheduler            a worker of the cluster
    ┌──────────────────────┐  submit   ┌─────────────┐  one task    ┌──────────────────────┐
    │ clusters.ClusterPool │ ────────▶ │ who is free │ ───────────▶ │ lodging.run_lodged   │
    │                      │ ◀──────── │             │ ◀─────────── │  ── worker of ours   │
    └──────────────────────┘  future   └─────────────┘              └──────────────────────┘

Dask decides which worker runs a block, runs it again elsewhere where a worker is lost, and may add and retire workers
meanwhile. Place, setup and function are scattered: each worker fetches them once, from whichever has them.
"""

from __future__ import annotations

import contextlib
import importlib
import itertools
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError
from dataclasses import dataclass
from typing import Any, ClassVar

from parfit.core.errors import InvalidInputError, InvalidTypeError, SetupError, missing_package
from parfit.core.protocols import Capabilities, Executor, Pool
from parfit.executors.cpus import worker_count
from parfit.executors.foreign.clusters import CLUSTER, ClusterCrew, Verdict, cluster_pool
from parfit.executors.foreign.exits import end_at_exit
from parfit.executors.foreign.lodging import evict, greet, run_lodged
from parfit.executors.limits import memory_limit

__all__ = ["DaskExecutor"]

#: How many workers there are is asked this often, s.
_COUNT_S = 0.5
#: As many calls more than the workers at hand can take wait with the scheduler, for an adaptive cluster to see.
_WAITING = 8
#: So often it is tried to share something with workers that may be on their way out.
_SHARED = 20
#: All workers are told within this that a call is over, or it is left to them to notice, s.
_EVICTED_S = 3.0
#: A cluster without workers is waited for in silence this long, s.
_PATIENCE_S = 5.0

_log = logging.getLogger("parfit")


@dataclass(frozen=True)
class DaskExecutor(Executor):
    """The workers of a Dask cluster.

    Parameters
    ----------
    workers
        How many rows at a time, at most; by default as many as the cluster has threads. Of a cluster that is started
        here, how many workers.
    cluster
        A `distributed.Client`, a cluster (`LocalCluster`, one of dask-jobqueue), or the address of a scheduler. By
        default the client that is current, and where there is none, a cluster in this process, for as long as the
        executor is open.
    memory_limit
        How large each worker process beside the cluster's may become, in bytes or as text such as ``"2 GiB"``.
    """

    workers: int | None = None
    cluster: Any = None
    memory_limit: int | str | None = None
    name: ClassVar[str] = "dask"
    capabilities: ClassVar[Capabilities] = CLUSTER

    def __post_init__(self) -> None:
        object.__setattr__(self, "memory_limit", memory_limit(self.memory_limit))

    @contextlib.contextmanager
    def open(self, setup: Callable[[], Any] | None = None, *, retries: int = 1) -> Iterator[Pool]:
        with _beside_its_task(), _client_of(self.cluster, self.workers) as client:
            crew = DaskCrew(client, self.workers)
            with cluster_pool(self.name, crew, setup, retries, self.memory_limit) as pool:
                yield pool


@contextlib.contextmanager
def _beside_its_task() -> Iterator[None]:
    """Inside a task of Dask's, leave its place to those that are waited for."""
    state = getattr(sys.modules.get("distributed.worker"), "thread_state", None)
    if not hasattr(state, "key"):
        yield
        return
    distributed: Any = importlib.import_module("distributed")
    distributed.secede()
    try:
        yield
    finally:
        distributed.rejoin()


@contextlib.contextmanager
def _client_of(cluster: Any, workers: int | None) -> Iterator[Any]:
    """A client: the one that is given or current, or one of our own."""
    try:
        distributed: Any = importlib.import_module("distributed")
    except ImportError:
        raise missing_package("distributed", "executor 'dask'", "dask") from None
    if cluster is None:
        import dask

        try:
            cluster = distributed.default_client()
        except ValueError:  # there is none
            cluster = dask.config.get("scheduler-address", None)
    if isinstance(cluster, distributed.Client):
        if cluster.asynchronous:
            raise InvalidInputError("the Dask client is asynchronous; parfit needs one made with asynchronous=False")
        if cluster.status != "running":
            raise InvalidInputError(f"the Dask client is {cluster.status}, and takes no tasks")
        yield cluster
        return
    if cluster is None:
        cluster = _in_this_process(distributed, worker_count(workers))
        with _closing(cluster), _closing(distributed.Client(cluster, set_as_default=False)) as client:
            yield client
        return
    if not isinstance(cluster, str) and not hasattr(cluster, "scheduler_address"):
        raise InvalidTypeError(
            f"cluster is a {type(cluster).__name__}: give a distributed.Client, a cluster such as LocalCluster, or the "
            "address of a scheduler"
        )
    try:
        client = distributed.Client(cluster, set_as_default=False)
    except (OSError, RuntimeError, ValueError) as exc:  # a cluster that has been closed, too
        raise SetupError(f"no Dask scheduler answers at {cluster}: {exc}") from exc
    with _closing(client):
        yield client


def _in_this_process(distributed: Any, threads: int) -> Any:
    """A cluster whose threads drive worker processes: more processes in between would only cost."""
    import dask

    here = "127.0.0.1:0"
    answers: dict[str, list[str]] = {f"distributed.{kind}.http.routes": [] for kind in ("scheduler", "worker")}
    with dask.config.set(answers):  # nothing, to whoever asks on a port
        return distributed.LocalCluster(
            n_workers=1,
            threads_per_worker=threads,
            processes=False,
            memory_limit=0,
            worker_dashboard_address=here,
            scheduler_kwargs={"dashboard": False, "dashboard_address": here},
        )


@contextlib.contextmanager
def _closing(thing: Any) -> Iterator[Any]:
    """As `contextlib.closing`, but where the interpreter ends, when Dask's threads have stopped and answer nobody."""
    try:
        yield thing
    finally:
        if not sys.is_finalizing():
            thing.close()


def run_while_wanted(lodging: Any, number: int, block: Any, shared: Any, function: Any) -> tuple[str, Any]:
    """As `run_lodged`, on a worker of Dask's, until the task is cancelled, or its caller has died."""
    import distributed

    worker = distributed.get_worker()
    key = worker.get_current_task()

    def wanted() -> bool:
        task = worker.state.tasks.get(key)
        return task is not None and task.state != "cancelled"

    return run_lodged(lodging, number, block, shared, function, wanted)


class DaskCrew(ClusterCrew):
    """Whatever workers the scheduler has."""

    def __init__(self, client: Any, limit: int | None) -> None:
        super().__init__()
        self._client = client
        self._limit = limit
        self._count = 0
        self._counted = -_COUNT_S
        self._calls = 0
        self._meet()

    def _meet(self) -> None:
        """Wait for a worker, and see that it can run what is ours."""
        asked = self._client.submit(greet, pure=False)
        began, told = time.monotonic(), False
        while not asked.done():
            time.sleep(0.002 if not told else _COUNT_S)
            if not told and time.monotonic() > began + _PATIENCE_S:
                told = True
                what = "workers of the Dask cluster are busy" if self._counts() else "the Dask cluster has no workers"
                _log.warning("%s: waiting for the first to answer", what)
        try:
            asked.result()
        except CancelledError as exc:
            raise SetupError(f"the Dask cluster is lost: {exc}") from exc
        except Exception as exc:
            raise SetupError(f"workers of the Dask cluster cannot run parfit; is it installed there? {exc}") from exc

    def _counts(self) -> int:
        """How many threads there are, as far as the scheduler tells."""
        with contextlib.suppress(Exception):  # it is lost: the calls themselves will say so
            return sum(self._client.nthreads().values())
        return 0

    @property
    def workers(self) -> int:
        now = time.monotonic()
        if now >= self._counted + _COUNT_S:
            self._counted = now
            self._count = self._counts() or self._count
        return max(1, self._count if self._limit is None else min(self._count, self._limit))

    @property
    def room(self) -> int:
        return 2 * self.workers + _WAITING if self._limit is None else self._limit

    def share(self, thing: Any) -> Any:
        for tries in itertools.count(1):
            try:
                (shared,) = self._client.scatter([thing], hash=False)
            except OSError as exc:  # there is no worker to hold it, for now; or it died while it was given it
                if self._client.status != "running" or tries == _SHARED:
                    raise SetupError(f"workers of the Dask cluster cannot be given what they need: {exc}") from exc
                self._meet()
            else:
                return shared
        raise AssertionError("unreachable")

    def submit(self, call: Callable[..., Any], /, *args: Any) -> Any:
        assert call is run_lodged
        self._calls += 1
        if self._calls == 1:
            end_at_exit(self, "dask")
        return self._client.submit(run_while_wanted, *args, key=f"parfit-{self.token}-{self._calls}", pure=False)

    def cancel(self, futures: Iterable[Any]) -> None:
        if self._answers:
            self._client.cancel(list(futures), force=True)

    def verdict(self, exc: BaseException) -> Verdict:
        from distributed import KilledWorker

        if isinstance(exc, KilledWorker):
            return Verdict.LOST
        if isinstance(exc, CancelledError):
            return Verdict.STRANDED if self._client.status == "running" else Verdict.OVER
        return Verdict.OVER if self._client.status != "running" else Verdict.UNKNOWN

    def end_now(self) -> None:
        """The interpreter ends: what runs in this process is not to keep it."""
        evict(self.token, keep=False)

    @property
    def _answers(self) -> bool:
        return self._client.status == "running" and not sys.is_finalizing()

    def evict(self, *, keep: bool) -> None:
        evict(self.token, keep=keep)  # of this process, at once: a cluster in it may be closed before it is told
        if not self._answers:
            return
        # In a thread that is not waited for long: one worker that is stuck is not to hold up the caller.
        told = threading.Thread(target=self._tell, args=(self.token, keep), daemon=True, name="parfit-evict")
        told.start()
        told.join(_EVICTED_S)

    def _tell(self, token: str, keep: bool) -> None:
        with contextlib.suppress(Exception):  # the scheduler is lost, and all with it
            self._client.run(evict, token, keep, on_error="ignore")
