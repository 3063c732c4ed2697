"""The executor that keeps data: what is loaded when, and that nobody is ever served old data."""

from __future__ import annotations

import os
import signal
import threading
import time
import tracemalloc

import numpy as np
import pandas as pd
import pytest

from parfit.core.errors import InvalidInputError, ParfitWarning
from parfit.core.protocols import Keepable
from parfit.core.solution import OutcomeKind
from parfit.executors import resolve
from parfit.executors.keeping import kept
from parfit.executors.keeping.fingerprint import fingerprint
from parfit.executors.keeping.resident import ProducerConsumer
from parfit.executors.producer_consumer import ProducerConsumerExecutor
from tests.executors.keepable import Data, counted_loads, once, pids, run, values
from tests.workers import children, nobody_is_there, nothing_is_left

_nothing_is_left = pytest.fixture(autouse=True)(nothing_is_left)
cold = pytest.fixture(nobody_is_there)
loads = pytest.fixture(counted_loads)


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


def test_another_load_or_number_of_workers_loads_again(loads, cold):
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
    monkeypatch.setattr("parfit.executors.keeping.shards._ROUNDS", 2)

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
    assert any("died (each time while it loaded its share: out of memory?)" in o.error.message for o in lost)


class Unsendable:
    def __reduce__(self):
        raise TypeError("stays at home")


class Unreadable:
    def __reduce__(self):
        return int, ("not a number",)


@pytest.mark.parametrize(
    ("bad", "type_"), [(Unsendable(), "parfit.core.errors.InvalidTypeError"), (Unreadable(), "ValueError")]
)
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


# ---- memory


@pytest.fixture
def grown():
    """What the memory of this process has grown by, at the most, bytes."""
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    yield lambda: tracemalloc.get_traced_memory()[1] - before
    tracemalloc.stop()


class Copies(Data):
    """Each dataset is a copy, as `parfit.fit` hands them out."""

    def item(self, p):
        return super().item(p).copy()


@pytest.mark.parametrize("step", [1, 2])
def test_no_second_copy_of_the_data_is_made(grown, cold, step):
    whole = np.ones((64 * step, 65536))[::step]
    before = grown()
    found = run(Copies(whole), lambda _, p: float(p.dataset.sum()), ProducerConsumerExecutor(4))
    assert values(found) == [65536.0] * 64
    assert grown() - before < 0.4 * whole.nbytes


def test_no_second_copy_of_the_items_is_made(grown, cold):
    whole = np.ones((64, 65536))
    before = grown()
    with ProducerConsumer(np.sum, [whole[i::8] for i in range(8)], lambda p, total: p * total, 4) as scores:
        assert scores.run(2.0) == [2.0 * 8 * 65536] * 8
        assert grown() - before < 0.4 * whole.nbytes


def test_a_worker_that_dies_while_it_gets_its_share_holds_nobody_up(cold, tmp_path):
    """The turn to be sent a share goes on to the next one."""
    marker = tmp_path / "once"

    def setup():
        if not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)

    found = run(Data(np.ones((8, 65536))), lambda _, p: p.dataset[0], ProducerConsumerExecutor(4), setup=setup)
    assert values(found) == [1.0] * 8


@pytest.mark.parametrize(
    "array",
    [
        np.arange(300000.0).reshape(3, -1)[:, ::2],
        np.arange(60).astype("M8[s]")[::3],
        np.zeros(50, dtype=[("a", "f8"), ("b", "i4")])["b"],
    ],
    ids=["numbers", "times", "a field"],
)
def test_the_last_number_of_an_array_in_pieces_counts(array):
    before = fingerprint({"key": array})
    assert before is not None
    assert fingerprint({"key": array}) == before
    array.flat[-1] = array.flat[-1] + 1
    assert fingerprint({"key": array}) != before
