"""The adapter for whatever has a `submit`: workers out of reach, executors that stop, futures that are none."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from parfit.core.errors import InvalidInputError, InvalidTypeError, SetupError, UnknownNameError, WorkerLostError
from parfit.core.solution import Outcome, OutcomeKind
from parfit.executors import resolve
from parfit.executors.futures import FuturesExecutor, ThreadsExecutor
from parfit.executors.joblib import JoblibExecutor


class Elsewhere:
    """Runs calls in a thread, which is told a folder that is not there: as on another machine."""

    def __init__(self) -> None:
        self.inner = ThreadPoolExecutor(2)
        self.by_hand = 0
        self.broken: Exception | None = None
        self.left = 10**9

    def submit(self, call: Callable[..., Any], ticket: Any, number: int, block: Any, hand: Any) -> Future[Any]:
        self.left -= 1
        if self.broken is not None and self.left < 0:
            raise self.broken
        assert not isinstance(block, str) or hand is None
        self.by_hand += hand is not None
        there = dataclasses.replace(ticket, folder="/nonexistent/parfit", host="elsewhere")
        return self.inner.submit(call, there, number, block, hand)


@pytest.fixture
def elsewhere() -> Iterator[Elsewhere]:
    made = Elsewhere()
    with made.inner:
        yield made


def run(executor: Any, function: Any, n: int = 30, setup: Any = None) -> list[Outcome]:
    with executor.open(setup) as pool:
        outcomes = list(pool.imap_unordered(function, [(i, i) for i in range(n)]))
    assert sorted(outcome.key for outcome in outcomes) == list(range(n))
    return outcomes


def test_workers_that_cannot_read_the_folder_are_sent_everything_by_hand(elsewhere: Elsewhere) -> None:
    class Setup:
        def __call__(self) -> Any:
            return np.arange(100_000)

    def function(state: Any, x: int) -> tuple[Any, float]:
        state[0] += 1  # arrays that came by hand are writable as well
        return threading.get_ident(), float(state[1:].sum()) + x

    outcomes = run(FuturesExecutor(elsewhere, 2), function, setup=Setup())
    assert sorted(outcome.result()[1] for outcome in outcomes) == [4999950000.0 + i for i in range(30)]
    assert 1 <= elsewhere.by_hand <= 10  # for each worker, and for what was already on its way


def test_large_blocks_and_values_go_by_hand_where_there_is_no_folder(elsewhere: Elsewhere) -> None:
    def function(state: Any, x: Any) -> Any:
        x[0] = 5.0
        return x * 2

    tasks = [(i, np.full(100_000, float(i))) for i in range(5)]
    with FuturesExecutor(elsewhere).open() as pool:
        outcomes = {outcome.key: outcome for outcome in pool.imap_unordered(function, tasks)}
    for i in range(5):
        value = outcomes[i].result()
        assert (value[0], value[1]) == (10.0, 2.0 * i)
        value[0] = 1.0


def test_an_executor_that_takes_nothing_is_a_setup_error() -> None:
    threads = ThreadPoolExecutor(1)
    threads.shutdown()
    with pytest.raises(SetupError, match="takes no tasks"):
        run(FuturesExecutor(threads), lambda state, x: x)


def test_an_executor_that_stops_in_between_loses_what_is_left(elsewhere: Elsewhere) -> None:
    elsewhere.broken, elsewhere.left = RuntimeError("closing time"), 14
    outcomes = run(FuturesExecutor(elsewhere, 2), lambda state, x: time.sleep(0.01))
    kinds = {outcome.kind for outcome in outcomes}
    assert kinds == {OutcomeKind.DONE, OutcomeKind.WORKER_LOST}
    lost = next(outcome for outcome in outcomes if outcome.kind is OutcomeKind.WORKER_LOST)
    with pytest.raises(WorkerLostError, match=r"^this task was not finished \(RuntimeError: closing time\)"):
        lost.result()


def test_an_error_of_the_executors_own_is_the_tasks_outcome() -> None:
    class Fails(ThreadPoolExecutor):
        def submit(self, *args: Any, **kwargs: Any) -> Future[Any]:
            future: Future[Any] = Future()
            future.set_exception(OSError("no network"))
            return future

    outcomes = run(FuturesExecutor(Fails()), lambda state, x: x, n=5)
    assert all(outcome.kind is OutcomeKind.ERROR for outcome in outcomes)
    assert all(outcome.error is not None and "no network" in outcome.error.message for outcome in outcomes)


def test_what_has_no_futures_is_refused() -> None:
    class NoFutures:
        def submit(self, *args: Any) -> int:
            return 3

    with pytest.raises(InvalidTypeError, match="returned int"):
        run(FuturesExecutor(NoFutures()), lambda state, x: x)
    with pytest.raises(InvalidTypeError, match="submit"):
        FuturesExecutor(3)


def test_the_users_executor_is_left_running() -> None:
    with ThreadPoolExecutor(2) as threads:
        run(FuturesExecutor(threads), lambda state, x: x)
        assert threads.submit(lambda: 5).result() == 5
        with FuturesExecutor(threads).open() as pool:
            outcomes = pool.imap_unordered(lambda state, x: x, ((i, i) for i in range(10**6)))
            next(outcomes)
        assert threads.submit(lambda: 6).result() == 6


def test_promises_follow_what_was_given() -> None:
    with ThreadPoolExecutor(3) as threads:
        assert not FuturesExecutor(threads).capabilities.own_process
        assert FuturesExecutor(Elsewhere()).capabilities.own_process
        assert resolve(threads, 2) == FuturesExecutor(threads, 2)
        with pytest.raises(InvalidInputError, match="timeout"):
            resolve(threads, None, timeout=1.0)


def test_each_thread_has_a_state_of_its_own() -> None:
    gate = threading.Barrier(2, timeout=30)

    def function(state: Any, x: int) -> tuple[int, int]:
        gate.wait()
        return threading.get_ident(), id(state)

    outcomes = run(ThreadsExecutor(2), function, n=2, setup=lambda: object())
    pairs = {outcome.result() for outcome in outcomes}
    assert len(pairs) == len({thread for thread, _ in pairs}) == len({state for _, state in pairs}) == 2


def test_filters_and_warnings_of_the_caller_are_as_before() -> None:
    import warnings

    before, shown = list(warnings.filters), warnings.showwarning
    run(ThreadsExecutor(2), lambda state, x: warnings.warn("w", stacklevel=1))
    assert (list(warnings.filters), warnings.showwarning) == (before, shown)


@pytest.mark.parametrize("backend", ["multiprocessing", "no such backend"])
def test_joblib_backends_that_cannot_be_used_are_refused(backend: str) -> None:
    with pytest.raises(InvalidInputError, match="joblib"), JoblibExecutor(2, backend).open():
        pass


def test_joblib_with_one_worker_still_runs_elsewhere() -> None:
    outcomes = run(JoblibExecutor(1), lambda state, x: os.getpid(), n=5)
    assert os.getpid() not in {outcome.result() for outcome in outcomes}


def test_workers_of_joblib_that_were_there_before_are_left() -> None:
    import joblib
    from joblib.externals.loky import get_reusable_executor

    try:
        joblib.Parallel(2)(joblib.delayed(os.getpid)() for _ in range(8))
        before = {process.pid for process in multiprocessing.active_children()}
        assert {outcome.result() for outcome in run(JoblibExecutor(2), lambda state, x: os.getpid())} <= before
        after = joblib.Parallel(2)(joblib.delayed(os.environ.get)("PARFIT_WORKER") for _ in range(8))
        assert set(after) == {None}  # and are as they were
        assert {process.pid for process in multiprocessing.active_children()} == before
    finally:
        get_reusable_executor(reuse=True).shutdown(wait=True, kill_workers=True)


@pytest.mark.parametrize(
    ("executor", "message"), [("proceses", "Did you mean 'processes'"), ("multi-procesing", "Did you mean")]
)
def test_a_misspelt_name_is_told(executor: str, message: str) -> None:
    with pytest.raises(UnknownNameError, match=message):
        resolve(executor, None)
