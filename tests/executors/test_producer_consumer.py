"""The executor that keeps data: what is loaded when, and that nobody is ever served old data."""

from __future__ import annotations

import gc
import os
import signal
import threading
import time
import uuid
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import psutil
import pytest

from parfit.core.errors import InvalidInputError, ParfitWarning, SetupError
from parfit.core.protocols import Keepable
from parfit.core.solution import OutcomeKind
from parfit.executors import kept, resolve
from parfit.executors.chunking import PairBlock
from parfit.executors.fingerprint import fingerprint
from parfit.executors.processes import shutdown_workers
from parfit.executors.producer_consumer import ProducerConsumerExecutor


class Payload(NamedTuple):
    dataset: Any
    position: int
    start: float = 0.0


class Plain:
    """Tasks on some positions, with their data or without."""

    def __init__(self, data, positions, with_data):
        self._left = list(positions)
        self._data = data
        self._with_data = with_data

    def take(self, n):
        now, self._left = self._left[:n], self._left[n:]
        rows = [(f"row {p}", Payload(self._data.item(p) if self._with_data else None, p)) for p in now]
        return PairBlock(rows) if rows else None


class Data(Plain):
    """Tasks on the items of a list, an array or a DataFrame, as `parfit.fit` offers them."""

    def __init__(self, token, positions=None, n=None):
        self.token = token
        self._n = len(token) if n is None else n
        self._positions = list(range(self._n)) if positions is None else positions
        super().__init__(self, self._positions, True)

    def item(self, p):
        return self.token.iloc[p] if isinstance(self.token, pd.DataFrame) else self.token[p]

    def __len__(self):
        return self._n

    def datasets(self, start, stop):
        return [self.item(p) for p in range(start, stop)]

    def without_data(self):
        return Plain(self, self._positions, False)


def run(tasks, function, recipe=None, *, setup=None, timeout=None, retries=1):
    recipe = recipe or ProducerConsumerExecutor(2)
    with recipe.open(setup, retries=retries) as pool:
        return {outcome.key: outcome for outcome in pool.imap_unordered(function, tasks, timeout)}


def values(outcomes):
    assert {o.kind for o in outcomes.values()} <= {OutcomeKind.DONE}, [o.error for o in outcomes.values()]
    return [outcomes[f"row {p}"].value for p in sorted(int(key[4:]) for key in outcomes)]


def pids(tasks, recipe=None):
    """The worker of each dataset."""
    return values(run(tasks, lambda _, payload: os.getpid(), recipe))


def children():
    return [child for child in psutil.Process().children() if child.status() != psutil.STATUS_ZOMBIE]


@pytest.fixture(autouse=True)
def _nothing_is_left():
    shutdown_workers()
    yield
    shutdown_workers()
    assert children() == []


@pytest.fixture
def loads(tmp_path):
    """A folder in which each loading leaves a file, and what reads it: item -> how often."""
    folder = tmp_path / "loads"
    folder.mkdir()

    def counts():
        names = [name.split("-")[0] for name in os.listdir(folder)]
        return {name: names.count(name) for name in sorted(names, key=int)}

    def load(item):
        (folder / f"{item}-{uuid.uuid4()}").touch()
        return item * 10

    return load, counts


def once(n):
    return {str(i): 1 for i in range(n)}


def test_the_test_s_own_tasks_keep_the_protocol():
    assert isinstance(Data([1, 2]), Keepable)
    assert not isinstance([("a", 1)], Keepable)


def test_it_is_found_by_its_name():
    recipe = resolve("producer-consumer", 2)
    assert recipe == ProducerConsumerExecutor(2)
    assert recipe.capabilities.keeps_data


def test_each_item_is_loaded_once_over_many_calls(loads):
    load, counts = loads
    array = np.arange(25)
    recipe = ProducerConsumerExecutor(2, load)
    for shift in range(4):
        found = run(Data(array), lambda state, p: p.dataset + state, recipe, setup=lambda shift=shift: shift)
        assert values(found) == [10 * i + shift for i in range(25)]
    assert counts() == once(25)


def test_both_workers_have_a_share_and_stay_the_same():
    array = np.arange(300)
    before = pids(Data(array))
    assert len(set(before)) == 2
    assert min(before.count(pid) for pid in set(before)) >= 100
    assert pids(Data(array)) == before


def test_dear_neighbours_fall_to_different_workers():
    """A static share cannot be evened out later: neighbours must not end up together."""
    owners = pids(Data(np.arange(1000)))
    for start in range(0, 1000, 200):
        assert len(set(owners[start : start + 200])) == 2


def test_a_frame_s_rows_arrive_as_they_are():
    frame = pd.DataFrame({"a": np.arange(40.0), "b": np.arange(40.0) ** 2}, index=[f"r{i}" for i in range(40)])
    for _ in range(2):
        found = run(Data(frame), lambda _, p: p.dataset)
        for p, row in enumerate(values(found)):
            pd.testing.assert_series_equal(row, frame.iloc[p])


def test_a_refit_of_some_rows_loads_no_others(loads):
    load, counts = loads
    array = np.arange(20)
    recipe = ProducerConsumerExecutor(2, load)
    assert values(run(Data(array, [3, 17, 4]), lambda _, p: p.dataset, recipe)) == [30, 40, 170]
    assert counts() == {"3": 1, "4": 1, "17": 1}
    assert len(values(run(Data(array), lambda _, p: p.dataset, recipe))) == 20
    assert counts() == once(20)


def test_more_workers_than_datasets_and_no_datasets():
    assert values(run(Data(np.arange(2)), lambda _, p: p.dataset + 1, ProducerConsumerExecutor(5))) == [1, 2]
    assert run(Data(np.arange(0)), lambda _, p: p.dataset) == {}
    assert run(Data(np.arange(5), []), lambda _, p: p.dataset) == {}


def test_ordinary_tasks_run_as_with_processes():
    with ProducerConsumerExecutor(2).open(lambda: 5) as pool:
        found = {o.key: o.value for o in pool.imap_unordered(lambda s, x: s + x, [("a", 1), ("b", 2)])}
    assert found == {"a": 6, "b": 7}


def test_load_without_datasets_to_load_is_refused():
    with (
        ProducerConsumerExecutor(2, load=float).open() as pool,
        pytest.raises(InvalidInputError, match="do not say what their datasets are"),
    ):
        list(pool.imap_unordered(lambda s, x: x, [("a", 1)]))


def test_a_position_outside_the_data_is_refused():
    with pytest.raises(InvalidInputError, match="position 7, and there are 3"):
        run(Data(np.arange(10), [1, 7], n=3), lambda _, p: p.dataset)


# ---- changes


def test_a_change_in_place_is_noticed(loads):
    load, counts = loads
    array = np.arange(6)
    recipe = ProducerConsumerExecutor(2, load)
    run(Data(array), lambda _, p: p.dataset, recipe)
    array[2] = 100
    assert values(run(Data(array), lambda _, p: p.dataset, recipe)) == [0, 10, 1000, 30, 40, 50]
    assert counts() == {**dict.fromkeys("01345", 2), "2": 1, "100": 1}


def test_a_change_of_one_cell_of_a_frame_is_noticed():
    frame = pd.DataFrame({"a": np.arange(50.0), "b": [f"text {i}" for i in range(50)]})
    run(Data(frame), lambda _, p: p.dataset["a"])
    frame.loc[49, "b"] = "other"
    assert values(run(Data(frame), lambda _, p: p.dataset["b"]))[49] == "other"


def test_reading_a_frame_is_no_change():
    frame = pd.DataFrame({"a": np.arange(50.0), "b": ["x", "y"] * 25})
    before = fingerprint(frame)
    for read in (
        lambda f: f.groupby("b").mean(),
        lambda f: f.loc[3],
        pd.DataFrame.to_numpy,
        lambda f: list(f.itertuples()),
    ):
        read(frame)
    assert fingerprint(frame) == before
    groups = frame.groupby("b")
    before = fingerprint(groups)
    assert len(list(groups)) == 2
    assert fingerprint(groups) == before
    frame.loc[0, "a"] = -1
    assert fingerprint(groups) != before


def test_what_a_task_does_to_its_dataset_is_not_kept():
    def spoil(_, payload):
        payload.dataset["a"] *= 2
        return payload.dataset["a"]

    data = [{"a": float(i)} for i in range(6)]
    for _ in range(3):
        assert values(run(Data(data), spoil)) == [2.0 * i for i in range(6)]


def test_a_list_is_kept_by_its_content(loads):
    load, counts = loads
    recipe = ProducerConsumerExecutor(2, load)
    data = [3, 4, 5]
    for _ in range(3):
        assert values(run(Data(data), lambda _, p: p.dataset, recipe)) == [30, 40, 50]
    assert counts() == {"3": 1, "4": 1, "5": 1}
    data[0] = 6
    assert values(run(Data(data), lambda _, p: p.dataset, recipe)) == [60, 40, 50]


def test_another_load_or_number_of_workers_loads_again(loads):
    load, _ = loads
    array = np.arange(4)
    assert values(run(Data(array), lambda _, p: p.dataset, ProducerConsumerExecutor(2, load))) == [0, 10, 20, 30]
    assert values(run(Data(array), lambda _, p: p.dataset, ProducerConsumerExecutor(2))) == [0, 1, 2, 3]
    assert len(set(pids(Data(array), ProducerConsumerExecutor(1)))) == 1
    assert len(children()) <= 1 + 2  # the two of before have ended, or are idle and keep nothing


def test_data_that_cannot_be_fingerprinted_is_sent_each_time():
    class Opaque:
        def __init__(self):
            self.lock = threading.Lock()

        def __len__(self):
            return 3

        def __getitem__(self, p):
            return p

    token = Opaque()
    for _ in range(2):
        assert values(run(Data(token), lambda _, p: p.dataset)) == [0, 1, 2]
    assert kept._registry._entries == []


# ---- what cannot be loaded


def test_an_item_that_cannot_be_loaded_is_an_outcome_each_time():
    def load(item):
        if item == 2:
            raise LookupError("no such county")
        return item

    array = np.arange(5)
    for _ in range(2):
        found = run(Data(array), lambda _, p: p.dataset, ProducerConsumerExecutor(2, load))
        bad = found.pop("row 2")
        assert bad.kind is OutcomeKind.ERROR
        assert bad.error.type == "LookupError"
        assert "no such county" in bad.error.traceback
        assert values(found) == [0, 1, 3, 4]


def test_an_item_whose_loading_kills_the_worker_costs_only_itself(loads):
    count, counts = loads

    def load(item):
        loaded = count(item)
        if item in (2, 5):
            os.kill(os.getpid(), signal.SIGKILL)
        return loaded

    array = np.arange(12)
    for _ in range(2):
        found = run(Data(array), lambda _, p: p.dataset, ProducerConsumerExecutor(2, load))
        for bad in (found.pop("row 2"), found.pop("row 5")):
            assert bad.kind is OutcomeKind.WORKER_LOST
            assert bad.attempts == 2
        assert values(found) == [10 * i for i in range(12) if i not in (2, 5)]
    assert counts()["2"] == 2
    assert max(counts().values()) <= 4


def test_a_loading_that_never_ends_is_stopped():
    def load(item):
        while item == 1:
            time.sleep(0.01)
        return item

    array = np.arange(4)
    recipe = ProducerConsumerExecutor(2, load, load_timeout=0.3)
    found = run(Data(array), lambda _, p: p.dataset, recipe)
    assert found.pop("row 1").kind is OutcomeKind.TIMEOUT
    assert values(found) == [0, 2, 3]


def test_a_share_that_never_fits_is_given_up(monkeypatch):
    """As where memory runs out: each worker dies after some items, whichever they are."""
    monkeypatch.setattr("parfit.executors.shards._ROUNDS", 2)

    def load(item):
        import builtins

        builtins.loaded_here = getattr(builtins, "loaded_here", 0) + 1
        if builtins.loaded_here > 5:
            os.kill(os.getpid(), signal.SIGKILL)
        return item

    found = run(Data(np.arange(12)), lambda _, p: p.dataset, ProducerConsumerExecutor(1, load))
    assert len(found) == 12
    lost = [o for o in found.values() if o.kind is OutcomeKind.WORKER_LOST]
    assert lost
    assert any("out of memory" in o.error.message for o in lost)


class Unsendable:
    def __reduce__(self):
        raise TypeError("stays at home")


class Unreadable:
    def __reduce__(self):
        return int, ("not a number",)


@pytest.mark.parametrize(("bad", "type_"), [(Unsendable(), "TypeError"), (Unreadable(), "ValueError")])
@pytest.mark.parametrize("load", [None, lambda item: item])
def test_an_item_that_does_not_travel_costs_only_itself(bad, type_, load):
    class Holder(list):
        def __reduce__(self):  # the data as a whole has a fingerprint
            return int, (0,)

    token = Holder([0, 1, bad, 3, 4, 5])
    for _ in range(2):
        found = run(Data(token), lambda _, p: p.dataset, ProducerConsumerExecutor(2, load))
        error = found.pop("row 2").error
        assert error.type == type_
        assert values(found) == [0, 1, 3, 4, 5]


def test_warnings_of_loading_are_given_here():
    def load(item):
        import warnings

        warnings.simplefilter("always")
        warnings.warn("odd units", UserWarning, stacklevel=1)
        return item

    with pytest.warns(ParfitWarning, match="UserWarning: odd units"):
        run(Data(np.arange(3)), lambda _, p: p.dataset, ProducerConsumerExecutor(2, load))


# ---- losing workers


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


def test_kept_workers_end_with_shutdown_workers(loads):
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


def test_interrupted_calls_leave_no_workers_and_the_next_one_works(tmp_path):
    array = np.arange(4)

    def wait(_, payload):
        (tmp_path / f"{payload.position}").touch()
        time.sleep(60)

    def interrupt():
        while len(list(tmp_path.iterdir())) < 2:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
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
