"""What every executor promises when a setup fails, a worker dies, or a task never ends."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from parfit.core.errors import SetupError, TaskTimeoutError, WorkerLostError
from parfit.core.protocols import Capabilities
from parfit.core.solution import Outcome, OutcomeKind
from tests.contracts import executor_tasks as tasks
from tests.contracts.executor_table import TABLE, Entry, assert_no_survivors, capabilities, require

pytestmark = pytest.mark.slow

TIMEOUT_S = 1.0
MATES = range(30)


@pytest.fixture(scope="module", params=TABLE, ids=lambda entry: entry.name)
def entry(request: pytest.FixtureRequest) -> Iterator[Entry]:
    with request.param.service():
        yield request.param


@pytest.fixture(scope="module")
def promises(entry: Entry) -> Capabilities:
    return capabilities(entry)


@pytest.fixture(autouse=True)
def no_survivors() -> Iterator[None]:
    yield
    assert_no_survivors()


def run(entry: Entry, setup: Any, function: Any, items: dict[Any, Any], **options: Any) -> dict[Any, Outcome]:
    """The outcomes by key; each key has one."""
    timeout, changes = options.pop("timeout", None), options.pop("changes", {})
    with (
        entry.recipe() as made,
        (dataclasses.replace(made, **changes) if changes else made).open(setup, **options) as pool,
    ):
        outcomes = list(pool.imap_unordered(function, items.items(), timeout))
    assert len(outcomes) == len(items)
    assert {outcome.key for outcome in outcomes} == set(items)
    return {outcome.key: outcome for outcome in outcomes}


def bag(special: dict[Any, tuple[Any, ...]]) -> dict[Any, tuple[Any, ...]]:
    """The special tasks in the middle of others."""
    items: dict[Any, tuple[Any, ...]] = {x: ("work", x) for x in MATES}
    middle = list(items.items())
    return dict([*middle[:8], *special.items(), *middle[8:]])


def assert_mates_are_fine(outcomes: dict[Any, Outcome]) -> None:
    for x in MATES:
        assert (outcomes[x].kind, outcomes[x].value) == (OutcomeKind.DONE, x * x)


# ---- setup


def test_a_setup_that_raises_is_one_setup_error(entry: Entry) -> None:
    with pytest.raises(SetupError, match=r"LookupError.*no such data"):
        run(entry, tasks.fail_in_setup, tasks.square, {i: i for i in range(5)})


def test_a_setup_that_cannot_be_sent_is_a_setup_error(entry: Entry, promises: Capabilities) -> None:
    require(promises, own_process=True)
    lock = threading.Lock()
    with pytest.raises(SetupError, match="cannot be pickled"):
        run(entry, lambda: lock, tasks.square, {1: 1})


def test_a_setup_that_cannot_be_read_is_a_setup_error(entry: Entry, promises: Capabilities) -> None:
    require(promises, own_process=True)
    with pytest.raises(SetupError, match="will not be unpickled"):
        run(entry, tasks.Refuses(), tasks.square, {1: 1})


def test_a_function_that_cannot_be_sent_or_read_is_a_setup_error(entry: Entry, promises: Capabilities) -> None:
    require(promises, own_process=True)
    lock, refuses = threading.Lock(), tasks.Refuses()
    with pytest.raises(SetupError, match="cannot be pickled"):
        run(entry, None, lambda state, x: lock, {1: 1})
    with pytest.raises(SetupError, match="will not be unpickled"):
        run(entry, None, lambda state, x: refuses, {1: 1})


def test_a_setup_that_kills_its_process_is_one_setup_error(entry: Entry, promises: Capabilities) -> None:
    require(promises, survives_worker_death=True)
    with pytest.raises(SetupError, match="died"):
        run(entry, tasks.die_in_setup, tasks.square, {i: i for i in range(5)})


# ---- death


def test_a_dead_worker_costs_only_the_task_that_it_was_on(entry: Entry, promises: Capabilities, tmp_path: Path) -> None:
    require(promises, survives_worker_death=True)
    special = {
        "kill": ("die", tmp_path, "kill", 99),
        "exit": ("die", tmp_path, "exit", 99),
        "once": ("die", tmp_path, "once", 1),
    }
    outcomes = run(entry, None, tasks.perform, bag(special), retries=1)
    assert_mates_are_fine(outcomes)
    for key in ("kill", "exit"):
        outcome = outcomes[key]
        assert outcome.kind is OutcomeKind.WORKER_LOST
        assert outcome.attempts == 2
        assert tasks.started(tmp_path, key) >= 2
        with pytest.raises(WorkerLostError, match=r"^the worker process that ran this task died \(.*\), 2 time"):
            outcome.result()
    assert outcomes["once"].result() == "survived"
    # Where it dies together with another, a pool that breaks as a whole blames only the one that it noticed.
    assert outcomes["once"].attempts in (1, 2)


def test_retries_are_the_callers_choice(entry: Entry, promises: Capabilities, tmp_path: Path) -> None:
    require(promises, survives_worker_death=True)
    outcomes = run(entry, None, tasks.perform, {"a": ("die", tmp_path, "a", 99)}, retries=0)
    assert (outcomes["a"].kind, outcomes["a"].attempts) == (OutcomeKind.WORKER_LOST, 1)
    assert tasks.started(tmp_path, "a") == 1
    outcomes = run(entry, None, tasks.perform, {"b": ("die", tmp_path, "b", 3)}, retries=3)
    assert (outcomes["b"].kind, outcomes["b"].attempts) == (OutcomeKind.DONE, 4)


def test_an_executor_that_cannot_be_restarted_still_gives_every_task_an_outcome(
    entry: Entry, promises: Capabilities, tmp_path: Path
) -> None:
    require(promises, own_process=True, survives_worker_death=False)
    outcomes = run(entry, None, tasks.perform, bag({"kill": ("die", tmp_path, "kill", 99)}))
    lost = [outcome for outcome in outcomes.values() if outcome.kind is OutcomeKind.WORKER_LOST]
    assert outcomes["kill"] in lost
    assert all(outcome.kind is OutcomeKind.DONE for outcome in outcomes.values() if outcome not in lost)
    with pytest.raises(WorkerLostError, match=r"^the worker process that ran this task died .*cannot be started again"):
        outcomes["kill"].result()


# ---- time limits


def test_a_task_over_its_limit_is_stopped_and_its_mates_are_not(entry: Entry, promises: Capabilities) -> None:
    require(promises, enforces_timeout=True)
    special = {"python": ("spin",), "regex": ("spin_in_c",), "deaf": ("sleep_with_the_gil_held",)}
    outcomes = run(entry, None, tasks.perform, bag(special), timeout=TIMEOUT_S)
    assert_mates_are_fine(outcomes)
    for key in special:
        outcome = outcomes[key]
        assert outcome.kind is OutcomeKind.TIMEOUT
        assert outcome.seconds >= TIMEOUT_S
        with pytest.raises(TaskTimeoutError, match="timeout=1 s"):
            outcome.result()


def test_death_and_delay_together(entry: Entry, promises: Capabilities, tmp_path: Path) -> None:
    require(promises, enforces_timeout=True, survives_worker_death=True)
    special = {"python": ("spin",), "kill": ("die", tmp_path, "kill", 99), "once": ("die", tmp_path, "once", 1)}
    outcomes = run(entry, tasks.Setup(tmp_path), tasks.perform, bag(special), timeout=TIMEOUT_S)
    assert_mates_are_fine(outcomes)
    kinds = [outcomes[key].kind for key in special]
    assert kinds == [OutcomeKind.TIMEOUT, OutcomeKind.WORKER_LOST, OutcomeKind.DONE]


# ---- memory limits


def test_a_worker_that_becomes_too_large_is_stopped_and_its_mates_are_not(entry: Entry, promises: Capabilities) -> None:
    require(promises, limits_memory=True)
    outcomes = run(entry, None, tasks.perform, bag({"grow": ("grow",)}), changes={"memory_limit": "500 MB"})
    assert_mates_are_fine(outcomes)
    assert outcomes["grow"].kind is OutcomeKind.WORKER_LOST
    with pytest.raises(WorkerLostError, match=r"^over memory_limit=500 MB: its worker had reached \d"):
        outcomes["grow"].result()
