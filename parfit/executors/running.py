"""What happens around a task in a worker, the same in every executor: errors, warnings, time, place.

`run_block` runs the tasks of a block and hands back an `Outcome` each, with the exception as text and the
warnings that the task gave. Warnings are recorded once per distinct text and task, under the filters of the
caller; "default", "once" and "module" act as "always", since otherwise only the first dataset that warns
would say so.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

from parfit.core.protocols import Block, TaskFunction
from parfit.core.solution import Outcome, OutcomeKind, TaskError, WarningText

__all__ = [
    "in_worker",
    "mark_as_worker",
    "recording_warnings",
    "recording_warnings_together",
    "run_block",
    "single_threaded_blas",
    "worker_environment",
]

_MAX_WARNINGS = 20
_THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
)
_WORKER_MARK = "PARFIT_WORKER"


class _Current(threading.local):
    """The task that this thread is on: its warnings, and how deep tasks are nested."""

    warnings: dict[tuple[str, str], int] | None = None
    depth: int = 0


_current = _Current()


def worker_environment() -> dict[str, str]:
    """The environment variables of every worker process: one thread for BLAS and OpenMP, and no GPU."""
    caps = dict.fromkeys(_THREAD_VARIABLES, "1")
    return {
        **caps,
        "CUDA_VISIBLE_DEVICES": "",
        "HIP_VISIBLE_DEVICES": "",
        "JAX_PLATFORMS": "cpu",
        _WORKER_MARK: "1",
    }


def mark_as_worker() -> None:
    """Say that this process is a worker, for `in_worker`."""
    os.environ[_WORKER_MARK] = "1"


def in_worker() -> bool:
    """Whether this is inside a task of parfit's, or of another pool of daemonic processes."""
    if _WORKER_MARK in os.environ or _current.depth:
        return True
    module = sys.modules.get("multiprocessing.process")
    if module is None:
        return False
    process = module.current_process()
    return bool(process.daemon) or process.name.startswith("LokyProcess")


class _Together:
    """A change to the whole process, for several threads at a time: the first makes it, the last takes it back.

    Made by each for itself, the one that leaves last would put back what another had changed.
    """

    def __init__(self, make: Callable[[], contextlib.AbstractContextManager[Any]]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._inside = 0
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._stack.enter_context(self._make())
            self._inside += 1

    def __exit__(self, *exc: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self._stack.close()


def _one_blas_thread() -> contextlib.AbstractContextManager[Any]:
    import threadpoolctl

    limits: contextlib.AbstractContextManager[Any] = threadpoolctl.threadpool_limits(limits=1)
    return limits


def single_threaded_blas() -> contextlib.AbstractContextManager[None]:
    """Cap BLAS and OpenMP at one thread, so that a result has the same bits in every executor."""
    return _blas_together


def _record(message: Warning | str, category: type[Warning]) -> None:
    seen = _current.warnings
    if seen is None:
        return
    key = (category.__name__, str(message))
    if key in seen or len(seen) < _MAX_WARNINGS:
        seen[key] = seen.get(key, 0) + 1


@contextlib.contextmanager
def recording_warnings() -> Iterator[None]:
    """Record the warnings of tasks instead of showing them; entered once around many tasks."""
    with warnings.catch_warnings():
        warnings.filters[:] = [  # type: ignore[index]
            ("always", *rest) if action in ("default", "once", "module") else (action, *rest)
            for action, *rest in warnings.filters
        ]
        warnings.simplefilter("always", append=True)
        outer = warnings.showwarning

        def show(message: Any, category: Any, *args: Any, **kwargs: Any) -> None:
            if _current.warnings is None:
                outer(message, category, *args, **kwargs)
            else:
                _record(message, category)

        warnings.showwarning = show
        yield


def recording_warnings_together() -> contextlib.AbstractContextManager[None]:
    """As `recording_warnings`, around tasks of several threads."""
    return _recording_together


_blas_together = _Together(_one_blas_thread)
_recording_together = _Together(recording_warnings)


def _texts(seen: dict[tuple[str, str], int]) -> tuple[WarningText, ...]:
    return tuple(WarningText(category, text, count) for (category, text), count in seen.items())


def run_block(
    function: TaskFunction,
    state: Any,
    block: Block,
    emit: Callable[[Outcome], None],
    begin: Callable[[int], None] | None = None,
    *,
    interrupts: bool = False,
) -> None:
    """Run each task of `block` and `emit` its outcome; `begin` is told the index of each.

    Whatever a task raises is an outcome, a `KeyboardInterrupt` only where `interrupts` is True: in a worker process; in
    the caller's own it is a Ctrl-C. `recording_warnings` is to be active around it.
    """
    clock = time.perf_counter
    index = -1

    def call(key: Any, data: Any) -> None:
        nonlocal index
        index += 1
        if begin is not None:
            begin(index)
        seen: dict[tuple[str, str], int] = {}
        outer, _current.warnings = _current.warnings, seen
        start = clock()
        try:
            value = function(state, data)
        except BaseException as exc:
            if isinstance(exc, KeyboardInterrupt) and not interrupts:
                raise
            took = clock() - start
            error = TaskError.from_exception(exc, skip_frames=1)
            outcome = Outcome(key, OutcomeKind.ERROR, None, error, took, 1, _texts(seen))
        else:
            took = clock() - start
            outcome = Outcome(key, OutcomeKind.DONE, value, None, took, 1, _texts(seen) if seen else ())
        finally:
            _current.warnings = outer
        emit(outcome)

    _current.depth += 1
    try:
        block.visit(call)
    finally:
        _current.depth -= 1
