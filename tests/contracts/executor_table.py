"""The table of executors that keep the contract. A new executor adds a line here and inherits every test."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import psutil
import pytest

from parfit.core.protocols import Capabilities, Executor
from parfit.executors import resolve
from parfit.executors.joblib import JoblibExecutor
from parfit.executors.workers.idle import shutdown_workers

WORKERS = 2
#: Ray says that a process is gone a little before it is, s.
_RAY_S = 5.0


@dataclass(frozen=True)
class Entry:
    """One line: what it is called, and how to make the recipe, within a ``with``."""

    name: str
    make: Callable[[], Any]
    #: What runs beside many tests, as a user's own cluster would: starting it for each takes seconds.
    service: Callable[[], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext

    @contextlib.contextmanager
    def recipe(self) -> Iterator[Executor]:
        with contextlib.ExitStack() as stack:
            made = self.make()
            yield made if isinstance(made, Executor) else resolve(stack.enter_context(made), None)


def named(name: str) -> Entry:
    return Entry(name, lambda: resolve(name, None if name == "serial" else WORKERS))


@contextlib.contextmanager
def ray_cluster() -> Iterator[None]:
    ray = pytest.importorskip("ray")
    ray.init(num_cpus=WORKERS, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    try:
        yield
    finally:
        ray.shutdown()


@contextlib.contextmanager
def dask_cluster() -> Iterator[None]:
    """Of worker processes of Dask's own; `dask_client` is connected to it."""
    distributed = pytest.importorskip("distributed")
    own_port = {"dashboard": False, "dashboard_address": "127.0.0.1:0"}
    with (
        distributed.LocalCluster(n_workers=WORKERS, threads_per_worker=1, scheduler_kwargs=own_port) as cluster,
        distributed.Client(cluster, set_as_default=False) as client,
    ):
        _serving.update({"client": client, "pids": {child.pid for child in psutil.Process().children(recursive=True)}})
        try:
            yield
        finally:
            _serving.clear()


#: What the cluster of `dask_cluster` is, while it runs.
_serving: dict[str, Any] = {}


def dask_client() -> Executor:
    return resolve(_serving.get("client", "tcp://127.0.0.1:1"), None)


TABLE = [
    named("serial"),
    named("threads"),
    named("processes"),
    named("multiprocessing"),
    named("loky"),
    named("joblib"),
    named("producer_consumer"),
    named("dask"),
    Entry("ray", lambda: resolve("ray", WORKERS), ray_cluster),
    Entry("joblib-threading", lambda: JoblibExecutor(WORKERS, "threading")),
    Entry("futures-threads", lambda: ThreadPoolExecutor(WORKERS)),
    Entry("dask-processes", dask_client, dask_cluster),
    Entry("futures-processes", lambda: ProcessPoolExecutor(WORKERS, multiprocessing.get_context("spawn"))),
]

#: Those that are asked for by name: what a script or a notebook does.
NAMED = [entry for entry in TABLE if "-" not in entry.name]


def capabilities(entry: Entry) -> Capabilities:
    """What the recipe of an entry promises; nothing is started."""
    with entry.recipe() as recipe:
        return recipe.capabilities


def require(what: Capabilities, **promises: bool) -> None:
    """Skip the test where the executor does not promise what it is about."""
    for name, value in promises.items():
        if getattr(what, name) is not value:
            pytest.skip(f"capabilities: {name} is {getattr(what, name)}")


def _ray_runs() -> bool:
    """Whether a test has started Ray, whose own processes are there until it ends."""
    return "ray" in sys.modules and bool(sys.modules["ray"].is_initialized())


def survivors() -> list[str]:
    """Children of this process that are none of the helpers which libraries keep until the interpreter ends."""
    found = []
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            command = " ".join(child.cmdline())
            if child.pid in _serving.get("pids", ()) or (_ray_runs() and not command):  # that has no memory any more
                continue
            if "resource_tracker" not in command and not (_ray_runs() and "ray" in command):
                found.append(f"{child.pid} {child.status()} {command}")
    return found


def assert_no_survivors() -> None:
    shutdown_workers()
    if _serving:
        _serving["client"].run(shutdown_workers)
    deadline = time.monotonic() + _RAY_S
    while _ray_runs() and survivors() and time.monotonic() < deadline:
        time.sleep(0.02)
    left = survivors()
    assert left == [], left
