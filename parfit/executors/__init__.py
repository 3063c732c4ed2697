"""Run tasks somewhere; know nothing of fitting. Names and recipes of all executors.

Where to look:

- the recipes and their pools, one file an executor: `serial`, `processes` (the default, workers of our own), `futures`
  (threads, multiprocessing, loky, and any given `concurrent.futures.Executor`), `joblib`, `producer_consumer`, and the
  clusters, `dask` and `ray`;
- what every executor does around a task: `running` (errors, warnings, BLAS), `chunking` (how many travel together),
  `payload` (pickles without copies), `baggage` (what cannot be pickled, and why), `place` (the caller's folder, path,
  filters), `limits`, `cpus`, `interrupts` (a Ctrl-C, and the next);
- `workers/`: worker processes of our own, and what connects them to the parent;
- `foreign/`: what the pools of other libraries are made of;
- `keeping/`: data that stays in the workers that loaded it, for `producer_consumer` and the primitive
  `ProducerConsumer`;
- calls outside a run: `background`, `pending`, `answers` (the primitives), `lone` (a pool of one worker).
"""

from __future__ import annotations

import dataclasses
import importlib
import logging
import re
import sys
import warnings
from typing import Any

from parfit.core.errors import InvalidInputError, InvalidTypeError, ParfitWarning, refuse_unknown
from parfit.core.protocols import Executor
from parfit.executors import limits
from parfit.executors.running import in_worker
from parfit.executors.workers.watch import check_memory_can_be_watched

__all__ = ["EXECUTORS", "resolve"]

#: name -> module and class; a module is imported when its executor is asked for.
EXECUTORS = {
    "processes": ("parfit.executors.processes", "ProcessesExecutor"),
    "serial": ("parfit.executors.serial", "SerialExecutor"),
    "threads": ("parfit.executors.futures", "ThreadsExecutor"),
    "multiprocessing": ("parfit.executors.futures", "MultiprocessingExecutor"),
    "loky": ("parfit.executors.futures", "LokyExecutor"),
    "joblib": ("parfit.executors.joblib", "JoblibExecutor"),
    "producer_consumer": ("parfit.executors.producer_consumer", "ProducerConsumerExecutor"),
    "dask": ("parfit.executors.dask", "DaskExecutor"),
    "ray": ("parfit.executors.ray", "RayExecutor"),
}

#: How the addresses of clusters begin, and whose they are.
_ADDRESSES = {"tcp://": "dask", "tls://": "dask", "ucx://": "dask", "ucxx://": "dask", "ws://": "dask", "ray://": "ray"}

_log = logging.getLogger("parfit")


def _named(name: str) -> type[Executor]:
    module, attribute = EXECUTORS[name]
    found: type[Executor] = getattr(importlib.import_module(module), attribute)
    return found


def resolve(
    executor: Any, workers: int | None, timeout: float | None = None, memory_limit: int | str | None = None
) -> Executor:
    """The recipe for what the user asked for.

    Parameters
    ----------
    executor
        None for the default, a name, an `Executor`, anything with the `concurrent.futures` interface, or a cluster: a
        Dask client or cluster, or the address of a Dask scheduler or of Ray.
    workers
        The number of workers; None for the executor's own default.
    timeout
        The limit that it will have to keep.
    memory_limit
        And the one of each worker's memory: the recipe has it then.

    Raises
    ------
    UnknownNameError
        For a name that does not exist.
    InvalidTypeError
        For what is no executor, a class of executors for instance.
    InvalidInputError
        For a limit that the executor cannot enforce, or `workers` beside a recipe that has its own.
    """
    recipe = _recipe(executor, workers)
    limit = limits.memory_limit(memory_limit)
    if recipe.capabilities.own_process and in_worker():
        lacking = {"time": timeout, "memory": limit}
        without = " and ".join(f"the {kind} limit" for kind, given in lacking.items() if given is not None)
        message = f"executor {recipe.name!r} was asked for inside a worker process: running serially there" + (
            f", without {without}" if without else ""
        )
        warnings.warn(message, ParfitWarning, stacklevel=3)
        instead = getattr(recipe, "in_worker", _named("serial"))
        found: Executor = instead()
        return found
    if timeout is not None and not recipe.capabilities.enforces_timeout:
        able = [name for name in EXECUTORS if _named(name).capabilities.enforces_timeout]
        raise InvalidInputError(
            f"executor {recipe.name!r} cannot stop a task that runs for longer than timeout={timeout:g} s; "
            f"these can: {', '.join(able)}"
        )
    if limit is None:
        return recipe
    if not recipe.capabilities.limits_memory:
        able = [name for name in EXECUTORS if _named(name).capabilities.limits_memory]
        raise InvalidInputError(
            f"executor {recipe.name!r} cannot stop a worker that is over memory_limit={limits.in_bytes(limit)}; "
            f"these can: {', '.join(able)}"
        )
    check_memory_can_be_watched()
    limited: Executor = dataclasses.replace(recipe, memory_limit=limit)  # type: ignore[type-var]
    return limited


def _recipe(executor: Any, workers: int | None) -> Executor:
    if isinstance(executor, Executor):
        if workers is None:
            return executor
        if any(field.name == "workers" for field in dataclasses.fields(executor)):  # type: ignore[arg-type]
            changed: Executor = dataclasses.replace(executor, workers=workers)  # type: ignore[type-var]
            return changed
        raise InvalidInputError(f"executor {executor.name!r} has its own number of workers; leave out `workers`")
    if executor is None:
        executor = "processes"
    if isinstance(executor, str):
        name = executor.lower().replace("-", "_")
        if (whose := _whose_address(name)) is not None:
            at: Executor = _named(whose)(workers, executor)  # type: ignore[call-arg]
            return at
        if name not in EXECUTORS:
            refuse_unknown("executor", executor, EXECUTORS)
        if name == "processes" and sys.platform == "win32":
            _log.info("executor 'processes' needs a POSIX system: using 'loky'")
            name = "loky"
        kind = _named(name)
        if name == "serial":
            return kind()
        recipe: Executor = kind(workers=workers)  # type: ignore[call-arg]
        return recipe
    if _is_of_dask(executor):
        from parfit.executors.dask import DaskExecutor

        return DaskExecutor(workers, executor)
    if callable(getattr(executor, "submit", None)) and not isinstance(executor, type):
        from parfit.executors.futures import FuturesExecutor

        return FuturesExecutor(executor, workers)
    if isinstance(executor, type) and (issubclass(executor, Executor) or callable(getattr(executor, "submit", None))):
        raise InvalidTypeError(f"executor is the class {executor.__name__}: give an instance, {executor.__name__}(…)")
    raise InvalidTypeError(
        f"executor must be a name ({', '.join(EXECUTORS)}), an Executor, a cluster, or have the concurrent.futures "
        f"interface, not {type(executor).__name__}"
    )


def _whose_address(text: str) -> str | None:
    """The executor that an address is for; a bare ``host:port`` is one of Dask's."""
    bare = re.fullmatch(r"[\w.-]+:\d+", text) is not None
    return next((name for scheme, name in _ADDRESSES.items() if text.startswith(scheme)), "dask" if bare else None)


def _is_of_dask(executor: Any) -> bool:
    """Whether it is a client, or a cluster, those of dask-jobqueue and others included."""
    ours = isinstance(getattr(executor, "scheduler_address", None), str)
    return not isinstance(executor, type) and (ours or type(executor).__module__.startswith("distributed."))
