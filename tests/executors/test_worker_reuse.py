"""Idle workers of `processes` are kept for the next call, unless something has changed that they cannot follow."""

from __future__ import annotations

import os
import signal
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from parfit.core.protocols import Pool
from parfit.core.solution import OutcomeKind
from parfit.executors.processes import ProcessesExecutor
from parfit.executors.workers.idle import shutdown_workers

WORKERS = 2


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    shutdown_workers()
    yield
    shutdown_workers()


def answers(pool: Pool, function: Any = None, n: int = 12) -> list[Any]:
    """What a function of no arguments returns, in each of `n` tasks; and the process it was in."""

    def task(state: Any, x: Any) -> tuple[int, Any]:
        time.sleep(0.01)  # so that each worker gets some
        return os.getpid(), None if function is None else function()

    return [outcome.result() for outcome in pool.imap_unordered(task, [(i, i) for i in range(n)])]


def pids(pool: Pool) -> set[int]:
    return {pid for pid, _ in answers(pool)}


def in_a_call(function: Any = None) -> tuple[set[int], set[Any]]:
    with ProcessesExecutor(WORKERS).open() as pool:
        found = answers(pool, function)
    return {pid for pid, _ in found}, {value for _, value in found}


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module that the tasks import; written long ago."""
    path = tmp_path / "parfit_changing_module.py"
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    write(path, 1, age_s=3600)
    return path


def write(path: Path, value: int, *, age_s: float = 0.0) -> None:
    path.write_text(f"VALUE = {value}\n" + "#" * value)
    then = time.time() - age_s
    os.utime(path, (then, then))


def imported() -> int:
    import parfit_changing_module

    return int(parfit_changing_module.VALUE)


def test_the_same_workers_serve_the_next_call() -> None:
    first, _ = in_a_call()
    second, _ = in_a_call()
    assert len(first) == WORKERS
    assert second == first


def test_two_calls_at_a_time_share_no_worker() -> None:
    with ProcessesExecutor(WORKERS).open() as one, ProcessesExecutor(WORKERS).open() as other:
        assert not pids(one) & pids(other)


def test_state_is_dropped_between_calls() -> None:
    def kept(state: Any, x: Any) -> int:
        import gc

        gc.collect()
        return sum(type(found).__name__ == "HeavyForTest" for found in gc.get_objects())

    def setup() -> Any:
        return type("HeavyForTest", (), {})()

    executor = ProcessesExecutor(1)
    with executor.open(setup) as pool:
        assert [outcome.result() for outcome in pool.imap_unordered(kept, [(1, 1)])] == [1]
    with executor.open() as pool:
        assert [outcome.result() for outcome in pool.imap_unordered(kept, [(1, 1)])] == [0]


def test_a_module_that_changed_on_disk_is_imported_anew(module: Path) -> None:
    first, values = in_a_call(imported)
    assert values == {1}
    write(module, 2)
    second, values = in_a_call(imported)
    assert values == {2}
    assert not first & second


def test_a_module_that_was_replaced_by_an_older_one_is_imported_anew(module: Path) -> None:
    assert in_a_call(imported)[1] == {1}
    write(module, 2, age_s=7200)
    assert in_a_call(imported)[1] == {2}


def test_a_module_that_changed_in_the_middle_of_a_call_is_imported_anew(module: Path) -> None:
    with ProcessesExecutor(WORKERS).open() as pool:
        assert {value for _, value in answers(pool, imported)} == {1}
        write(module, 2)
        assert {value for _, value in answers(pool, imported)} == {1}
    assert in_a_call(imported)[1] == {2}


def test_workers_that_are_newer_than_the_module_are_kept(module: Path) -> None:
    in_a_call(imported)
    write(module, 2)
    second, _ = in_a_call(imported)
    third, values = in_a_call(imported)
    assert (third, values) == (second, {2})


def test_a_module_from_the_future_does_not_replace_workers_for_ever(module: Path) -> None:
    write(module, 3, age_s=-3600)
    for _ in range(2):
        assert in_a_call(imported)[1] == {3}


def test_an_idle_worker_that_was_killed_is_replaced_without_a_word() -> None:
    first, _ = in_a_call()
    victim = min(first)
    os.kill(victim, signal.SIGKILL)
    second, _ = in_a_call()
    assert len(second) == WORKERS
    assert victim not in second


def test_a_worker_that_was_killed_between_two_calls_of_an_open_pool_is_replaced() -> None:
    with ProcessesExecutor(WORKERS).open() as pool:
        first = pids(pool)
        for pid in first:
            os.kill(pid, signal.SIGKILL)
            psutil.wait_procs([psutil.Process(pid)] if psutil.pid_exists(pid) else [], timeout=0)
        second = pids(pool)
    assert len(second) == WORKERS
    assert not first & second


def test_what_changes_around_the_caller_reaches_a_worker_that_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def around() -> tuple[str, str | None, bool, str | None]:
        return os.getcwd(), os.environ.get("PARFIT_TEST"), "/parfit/test" in sys.path, os.environ.get("OMP_NUM_THREADS")

    first, values = in_a_call(around)
    assert values == {(os.getcwd(), None, False, "1")}
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PARFIT_TEST", "set")
    monkeypatch.syspath_prepend("/parfit/test")
    second, values = in_a_call(around)
    assert values == {(str(tmp_path), "set", True, "1")}
    monkeypatch.delenv("PARFIT_TEST")
    third, values = in_a_call(around)
    assert values == {(str(tmp_path), None, True, "1")}
    assert first == second == third


def test_a_folder_that_is_gone_is_no_reason_to_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    monkeypatch.chdir(folder)
    folder.rmdir()
    assert len(in_a_call()[0]) == WORKERS


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_fork_leaves_the_workers_to_the_parent() -> None:
    first, _ = in_a_call()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking beside threads
        child = os.fork()
    if child == 0:
        code = 1
        try:
            mine, _ = in_a_call()
            code = 0 if len(mine) == WORKERS and not mine & first else 2
            shutdown_workers()
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    second, _ = in_a_call()
    assert second == first


def test_shutdown_ends_the_idle_workers() -> None:
    first, _ = in_a_call()
    shutdown_workers()
    assert not any(psutil.pid_exists(pid) for pid in first)


def test_a_ctrl_c_ends_the_idle_workers_too() -> None:
    first, _ = in_a_call()

    def interrupted() -> None:
        with ProcessesExecutor(1).open() as pool:
            outcome = next(iter(pool.imap_unordered(lambda state, x: x, [(1, 1)])))
            assert outcome.kind is OutcomeKind.DONE
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not any(psutil.pid_exists(pid) for pid in first)


def test_a_task_that_forks_and_returns_in_both_answers_once() -> None:
    """Its child holds the worker's connection, and would answer this task and the next ones a second time."""

    def fork_once() -> str:
        if os.fork() == 0:
            time.sleep(0.2)
        return "both"

    with ProcessesExecutor(1).open() as pool:
        assert [value for _, value in answers(pool, fork_once, n=3)] == ["both"] * 3
        time.sleep(0.5)
        assert [value for _, value in answers(pool, lambda: "next", n=5)] == ["next"] * 5
    assert in_a_call(lambda: "later")[1] == {"later"}
