"""Workers of a Ray cluster: an actor each.

        caller's thread              actors of Ray, one CPU each
    ┌──────────────────────┐  call   ┌──────────────────────┐
    │ clusters.ClusterPool │ ──────▶ │ lodging.run_lodged   │
    │                      │ ◀────── │  ── worker of ours   │
    └──────────────────────┘  ref    └──────────────────────┘

Place, setup and function are put into Ray's object store, which brings them to each machine once. An actor that is lost
is replaced, and the blocks that it had are run again.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import socket
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from parfit.core.errors import InvalidInputError, SetupError, missing_package
from parfit.core.protocols import Capabilities, Executor, Pool
from parfit.executors.cpus import worker_count
from parfit.executors.foreign.clusters import CLUSTER, ClusterCrew, Verdict, cluster_pool
from parfit.executors.foreign.lodging import Lodging, greet, run_lodged
from parfit.executors.limits import memory_limit
from parfit.executors.payload import Sealed

__all__ = ["RayExecutor"]

#: A cluster without a free CPU is waited for in silence this long, s.
_PATIENCE_S = 5.0

#: A head node answers within this, s.
_ANSWER_S = 10.0
#: Actors may die this often in a row before they are there.
_DEATHS = 5
#: Actors that were killed are waited for at most this long, s.
_KILLED_S = 2.0

_log = logging.getLogger("parfit")


@dataclass(frozen=True)
class RayExecutor(Executor):
    """The workers of a Ray cluster.

    Parameters
    ----------
    workers
        How many actors; by default one for each CPU of the cluster.
    address
        Of a cluster, as for `ray.init`: ``"auto"``, ``"ray://host:10001"``. By default the one that this process is
        connected to, or that ``RAY_ADDRESS`` names, and where there is none, one on this machine, for as long as the
        executor is open.
    memory_limit
        How large each worker process beside the cluster's may become, in bytes or as text such as ``"2 GiB"``.
    """

    workers: int | None = None
    address: str | None = None
    memory_limit: int | str | None = None
    name: ClassVar[str] = "ray"
    capabilities: ClassVar[Capabilities] = CLUSTER

    def __post_init__(self) -> None:
        object.__setattr__(self, "memory_limit", memory_limit(self.memory_limit))

    @contextlib.contextmanager
    def open(self, setup: Callable[[], Any] | None = None, *, retries: int = 1) -> Iterator[Pool]:
        with _connected(self.address, self.workers) as ray:
            n = self.workers or int(ray.cluster_resources().get("CPU", 0)) or worker_count(None)
            with (
                contextlib.closing(RayCrew(ray, n)) as crew,
                cluster_pool(self.name, crew, setup, retries, self.memory_limit) as pool,
            ):
                yield pool


@contextlib.contextmanager
def _connected(address: str | None, workers: int | None) -> Iterator[Any]:
    """Ray, connected to a cluster; disconnected again where that was done here."""
    try:
        import ray
    except ImportError:
        raise missing_package("ray", "executor 'ray'", "ray") from None
    if ray.is_initialized():
        if address is not None and address != "auto":
            raise InvalidInputError(f"Ray is connected already, so {address!r} cannot be: ray.shutdown() first")
        yield ray
        return
    try:
        with warnings.catch_warnings():  # its processes are begun with exec, which fork leaves nothing behind for
            warnings.filterwarnings("ignore", r"os\.fork\(\) was called", RuntimeWarning)
            _start(ray, address, workers)
    except (ConnectionError, OSError, RuntimeError, ValueError) as exc:
        where = address or os.environ.get("RAY_ADDRESS")
        raise SetupError(f"no Ray cluster can be had{f' at {where}' if where else ''}: {exc}") from exc
    try:
        yield ray
    finally:
        ray.shutdown()


def _start(ray: Any, address: str | None, workers: int | None) -> None:
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if where := address or os.environ.get("RAY_ADDRESS"):
        host, _, port = where.removeprefix("ray://").rpartition(":")
        if port.isdigit():  # Ray itself tries for minutes
            socket.create_connection((host, int(port)), _ANSWER_S).close()
        ray.init(address=address, **quiet)
    else:
        ray.init(num_cpus=worker_count(workers), include_dashboard=False, **quiet)


class Host:
    """What runs in an actor."""

    def greet(self) -> tuple[str, int]:
        return greet()

    def run(
        self, lodging: Lodging, number: int, block: Sealed, shared: tuple[Sealed, Sealed], function: Sealed
    ) -> tuple[str, Any]:
        return run_lodged(lodging, number, block, shared, function)


class RayCrew(ClusterCrew):
    """Actors, which are made when they are first wanted, and again after they were lost or dismissed."""

    def __init__(self, ray: Any, n: int) -> None:
        super().__init__()
        self._ray = ray
        self._n = n
        self._made = ray.remote(num_cpus=1)(Host)
        #: All of them; which have been asked whether they are there; and how many calls those have that are.
        self._actors: list[Any] = []
        self._asked: dict[Any, Any] = {}
        self._load: dict[Any, int] = {}
        #: Those that have lost a call, as Ray's thread notes them.
        self._lost: deque[Any] = deque()
        self._deaths = 0

    def _ready(self) -> list[Any]:
        """The actors that have a CPU by now."""
        while self._lost:
            lost = self._lost.popleft()
            if self._load.pop(lost, None) is not None:
                self._actors.remove(lost)
        while len(self._actors) < self._n:
            actor = self._made.remote()
            self._actors.append(actor)
            self._asked[actor.greet.remote()] = actor
        if self._asked:
            done, _ = self._ray.wait(list(self._asked), num_returns=len(self._asked), timeout=0)
            for ref in done:
                actor = self._asked.pop(ref)
                try:
                    self._ray.get(ref)
                except self._ray.exceptions.RayActorError:  # it died before it was there
                    self._actors.remove(actor)
                    self._deaths += 1
                    if self._deaths > _DEATHS:
                        raise SetupError(f"{self._deaths} actors of Ray's died before they were there") from None
                except Exception as exc:
                    raise SetupError(f"workers of Ray cannot run parfit; is it installed there? {exc}") from exc
                else:
                    self._load[actor] = self._deaths = 0
        return list(self._load)

    @property
    def workers(self) -> int:
        return max(1, len(self._ready()))

    @property
    def room(self) -> int:
        return 2 * self.workers

    def share(self, thing: Any) -> Any:
        return self._ray.put(thing)

    def submit(self, call: Callable[..., Any], /, *args: Any) -> Any:
        assert call is run_lodged
        began, told = time.monotonic(), False
        while not (ready := self._ready()):
            time.sleep(0.002)
            if not told and time.monotonic() > began + _PATIENCE_S:
                told = True
                _log.warning("the Ray cluster has no free CPU yet: waiting for the first")
        actor = min(ready, key=self._load.__getitem__)
        self._load[actor] += 1
        future = actor.run.remote(*args).future()
        future.add_done_callback(functools.partial(self._back, actor))
        return future

    def _back(self, actor: Any, future: Any) -> None:
        """Called in a thread of Ray's."""
        if actor in self._load:
            self._load[actor] -= 1
        if not future.cancelled() and future.exception() is not None:
            self._lost.append(actor)

    def verdict(self, exc: BaseException) -> Verdict:
        e = self._ray.exceptions
        if isinstance(exc, (e.RayActorError, e.WorkerCrashedError, e.NodeDiedError, e.OutOfMemoryError)):
            return Verdict.LOST
        if isinstance(exc, e.ObjectLostError):
            return Verdict.STRANDED
        return Verdict.UNKNOWN if self._ray.is_initialized() else Verdict.OVER

    def evict(self, *, keep: bool) -> None:  # noqa: ARG002 - what is beside an actor ends with it
        actors, self._actors, self._load, self._asked = self._actors, [], {}, {}
        if not self._ray.is_initialized():
            return
        for actor in actors:
            with contextlib.suppress(ValueError, ConnectionError):
                self._ray.kill(actor)
        for actor in actors:  # until they are gone, and what is beside them
            with contextlib.suppress(self._ray.exceptions.RayError):
                self._ray.get(actor.greet.remote(), timeout=_KILLED_S)
