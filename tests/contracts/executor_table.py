"""The table of executors that keep the contract. A new executor adds a line here and inherits every test."""

from __future__ import annotations

import contextlib
import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import psutil
import pytest

from parfit.core.protocols import Capabilities, Executor
from parfit.executors import resolve
from parfit.executors.futures import FuturesExecutor
from parfit.executors.joblib import JoblibExecutor
from parfit.executors.workers.idle import shutdown_workers

WORKERS = 2


@dataclass(frozen=True)
class Entry:
    """One line: what it is called, and how to make the recipe, within a ``with``."""

    name: str
    make: Callable[[], Any]

    @contextlib.contextmanager
    def recipe(self) -> Iterator[Executor]:
        with contextlib.ExitStack() as stack:
            made = self.make()
            yield made if isinstance(made, Executor) else FuturesExecutor(stack.enter_context(made))


def named(name: str) -> Entry:
    return Entry(name, lambda: resolve(name, None if name == "serial" else WORKERS))


TABLE = [
    named("serial"),
    named("threads"),
    named("processes"),
    named("multiprocessing"),
    named("loky"),
    named("joblib"),
    named("producer_consumer"),
    Entry("joblib-threading", lambda: JoblibExecutor(WORKERS, "threading")),
    Entry("futures-threads", lambda: ThreadPoolExecutor(WORKERS)),
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


def survivors() -> list[str]:
    """Children of this process that are none of the helpers which libraries keep until the interpreter ends."""
    found = []
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            command = " ".join(child.cmdline())
            if "resource_tracker" not in command:
                found.append(f"{child.pid} {child.status()} {command}")
    return found


def assert_no_survivors() -> None:
    shutdown_workers()
    assert survivors() == []
