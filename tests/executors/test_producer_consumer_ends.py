"""The executor that keeps data: when workers are lost, and when what they keep ends."""

from __future__ import annotations

import gc
import os
import signal
import time

import numpy as np
import pandas as pd
import psutil
import pytest

from parfit.core.errors import SetupError
from parfit.core.solution import OutcomeKind
from parfit.executors.keeping import kept
from parfit.executors.producer_consumer import ProducerConsumerExecutor
from parfit.executors.workers.idle import shutdown_workers
from tests.executors.keepable import Data, counted_loads, pids, run, values
from tests.workers import children, interrupt_when, nobody_is_there, nothing_is_left

pytestmark = pytest.mark.slow

_nothing_is_left = pytest.fixture(autouse=True)(nothing_is_left)
cold = pytest.fixture(nobody_is_there)
loads = pytest.fixture(counted_loads)


def test_a_killed_worker_loads_only_its_own_share_again(loads, tmp_path):
    load, counts = loads
    array = np.arange(16)
    recipe = ProducerConsumerExecutor(2, load)
    owners = pids(Data(array), recipe)

    def kill_once(_, payload):
        flag = tmp_path / "killed"
        if payload.position == 5 and not flag.exists():
            flag.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return payload.dataset

    found = run(Data(array), kill_once, recipe)
    assert values(found) == [10 * i for i in range(16)]
    assert found["row 5"].attempts == 2
    for _ in range(2):
        assert values(run(Data(array), lambda _, p: p.dataset, recipe)) == [10 * i for i in range(16)]
        assert counts() == {str(p): 1 + (owners[p] == owners[5]) for p in range(16)}


@pytest.mark.parametrize("load", [None, lambda item: item])
def test_a_task_that_always_kills_is_lost_alone(load):
    def kill(_, payload):
        if payload.position == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return payload.dataset

    found = run(Data(np.arange(30)), kill, ProducerConsumerExecutor(2, load), retries=2)
    bad = found.pop("row 3")
    assert bad.kind is OutcomeKind.WORKER_LOST
    assert bad.attempts == 3
    assert "SIGKILL" in bad.error.message
    assert values(found) == [i for i in range(30) if i != 3]


def test_a_worker_that_was_killed_between_two_calls_is_replaced(loads):
    load, counts = loads
    array = np.arange(6)
    recipe = ProducerConsumerExecutor(2, load)
    owners = pids(Data(array), recipe)
    psutil.Process(owners[0]).kill()
    assert values(run(Data(array), lambda _, p: p.dataset, recipe)) == [10 * i for i in range(6)]
    assert counts() == {str(p): 1 + (owners[p] == owners[0]) for p in range(6)}


def test_a_task_over_its_limit_is_stopped_and_the_share_loaded_again(loads):
    load, counts = loads

    def slow(_, payload):
        while payload.position == 2:
            time.sleep(0.01)
        return payload.dataset

    array = np.arange(8)
    recipe = ProducerConsumerExecutor(2, load)
    found = run(Data(array), slow, recipe, timeout=0.3)
    assert found.pop("row 2").kind is OutcomeKind.TIMEOUT
    assert values(found) == [10 * i for i in range(8) if i != 2]
    assert values(run(Data(array), lambda _, p: p.dataset, recipe)) == [10 * i for i in range(8)]
    assert max(counts().values()) == 2


def test_the_time_limit_does_not_count_the_loading():
    def load(item):
        time.sleep(0.4)
        return item

    array = np.arange(2)
    recipe = ProducerConsumerExecutor(2, load)
    assert values(run(Data(array), lambda _, p: p.dataset, recipe, timeout=0.3)) == [0, 1]


def test_a_failing_setup_is_raised_and_the_next_call_works():
    array = np.arange(4)

    def broken():
        raise RuntimeError("no model")

    run(Data(array), lambda _, p: p.dataset)
    for _ in range(2):
        with pytest.raises(SetupError, match="no model"):
            run(Data(array), lambda _, p: p.dataset, setup=broken)
    assert values(run(Data(array), lambda _, p: p.dataset)) == [0, 1, 2, 3]


def test_a_module_that_changed_on_disk_is_loaded_anew(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    module = tmp_path / "changing_module.py"
    array = np.arange(4)

    def read(_, payload):
        import changing_module

        return changing_module.VALUE

    module.write_text("VALUE = 1\n")
    assert values(run(Data(array), read)) == [1] * 4
    module.write_text("VALUE = 22\n")
    assert values(run(Data(array), read)) == [22] * 4


# ---- how it ends


def test_kept_workers_end_after_a_while_and_the_next_call_loads_again(loads, monkeypatch):
    load, counts = loads
    monkeypatch.setattr(kept, "KEEP_S", 0.05)
    array = np.arange(6)
    recipe = ProducerConsumerExecutor(2, load)
    run(Data(array), lambda _, p: p.dataset, recipe)
    while kept._registry._entries:
        time.sleep(0.01)
    assert values(run(Data(array), lambda _, p: p.dataset, recipe)) == [10 * i for i in range(6)]
    assert counts() == {str(i): 2 for i in range(6)}


def test_kept_workers_end_with_shutdown_workers(loads, cold):
    load, counts = loads
    array = np.arange(6)
    recipe = ProducerConsumerExecutor(2, load)
    run(Data(array), lambda _, p: p.dataset, recipe)
    assert children()
    shutdown_workers()
    assert not children()
    assert values(run(Data(array), lambda _, p: p.dataset, recipe)) == [10 * i for i in range(6)]
    assert counts() == {str(i): 2 for i in range(6)}


def test_what_is_kept_goes_with_the_data():
    frame = pd.DataFrame({"a": range(8)})
    workers = {psutil.Process(pid) for pid in pids(Data(frame))}
    del frame
    gc.collect()
    assert not any(worker.is_running() for worker in workers)
    assert kept._registry._entries == []


def test_only_so_much_is_kept(monkeypatch):
    monkeypatch.setattr(kept, "MAX_KEPT", 2)
    arrays = [np.arange(2) + i for i in range(4)]
    first = pids(Data(arrays[0]))
    for array in arrays[1:]:
        pids(Data(array))
    assert len(kept._registry._entries) == 2
    assert not any(psutil.pid_exists(pid) for pid in first)


def test_a_call_that_is_not_read_to_its_end_keeps_nobody_from_the_next():
    array = np.arange(50)
    recipe = ProducerConsumerExecutor(2)
    with recipe.open() as pool:
        next(pool.imap_unordered(lambda _, p: time.sleep(0.01), Data(array)))
    assert values(run(Data(array), lambda _, p: p.dataset, recipe)) == list(range(50))


def test_two_calls_on_the_same_data_at_the_same_time():
    array = np.arange(20)
    recipe = ProducerConsumerExecutor(2)
    with recipe.open(lambda: 1) as one, recipe.open(lambda: 2) as two:
        first = one.imap_unordered(lambda s, p: s * p.dataset, Data(array))
        found = [next(first)]
        other = {o.key: o for o in two.imap_unordered(lambda s, p: s * p.dataset, Data(array))}
        found += first
    assert values(other) == [2 * i for i in range(20)]
    assert values({o.key: o for o in found}) == list(range(20))


def test_interrupted_calls_leave_no_workers_and_the_next_one_works(tmp_path, cold):
    array = np.arange(4)

    def wait(_, payload):
        (tmp_path / f"{payload.position}").touch()
        time.sleep(60)

    thread = interrupt_when(tmp_path / "0", tmp_path / "1")
    with pytest.raises(KeyboardInterrupt):
        run(Data(array), wait)
    thread.join()
    assert children() == []
    assert values(run(Data(array), lambda _, p: p.dataset)) == [0, 1, 2, 3]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_leaves_the_parent_s_workers_alone(loads):
    load, counts = loads
    array = np.arange(6)
    recipe = ProducerConsumerExecutor(2, load)
    before = pids(Data(array), recipe)
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            same = values(run(Data(array), lambda _, p: p.dataset, recipe)) == [10 * i for i in range(6)]
            other = not set(pids(Data(array), recipe)) & set(before)
            shutdown_workers()
            code = 0 if same and other else 2
        finally:
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert pids(Data(array), recipe) == before
    assert counts() == {str(i): 2 for i in range(6)}
