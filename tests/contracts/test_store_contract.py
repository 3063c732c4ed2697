"""What every store does: keeps what it is given, by position, and says what is done."""

from __future__ import annotations

import time

import numpy as np
import pytest

from parfit.core.columns import Columns
from parfit.core.solution import Outcome, OutcomeKind, Solution, Solutions, Status, TaskError, WarningText
from parfit.stores import MemoryStore
from parfit.stores.reading import Argument, Identity, read_store
from parfit.stores.sqlite import SqliteStore, Wanted

ROWS, NAMES = 8, ("a", "b")


def in_memory(_):
    return MemoryStore(ROWS, len(NAMES))


def in_a_file(folder):
    identity = Identity({"objective": Argument("00", "f", {})}, {"names": list(NAMES)})
    fingerprints = np.arange(2 * ROWS, dtype=np.uint64).reshape(ROWS, 2)
    wanted = Wanted(fingerprints, np.arange(ROWS, dtype=np.uint64), np.zeros((ROWS, len(NAMES))))
    return SqliteStore(folder / "fits.db", identity, wanted)


@pytest.fixture(params=[in_memory, in_a_file], ids=["memory", "sqlite"])
def make(request, tmp_path):
    return lambda: request.param(tmp_path)


def solved(position, value=1.0, **more):
    cov = np.array([[1.0, 0.5], [0.5, 2.0]]) * value
    found = Solution(np.array([value, -value]), Status.CONVERGED, "fine", cost=value, nfev=3, rank=2, cov=cov)
    return Outcome(position, OutcomeKind.DONE, found, seconds=0.25, **more)


def many(positions, value):
    k = len(positions)
    numbers, counts = np.full(k, value), np.full(k, 4)
    return Solutions(
        np.array(positions), np.full((k, 2), value), np.zeros(k, np.int8), np.zeros(k, np.intp), ["together"], numbers,
        numbers, numbers, numbers, counts, counts, counts, counts, counts, np.zeros((k, 2), np.int8), np.ones((k, 3)),
    )  # fmt: skip


def assert_same(found: Columns, expected: Columns) -> None:
    for name in ("params", "at_bound", "status", "floats", "ints", "cov"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), err_msg=name)
    assert found.messages() == expected.messages()
    assert found.warnings == expected.warnings
    assert {k: (e.type, e.message, e.traceback) for k, e in found.errors.items()} == {
        k: (e.type, e.message, e.traceback) for k, e in expected.errors.items()
    }
    assert found.history.keys() == expected.history.keys()
    for key, steps in expected.history.items():
        np.testing.assert_array_equal(found.history[key], steps)


def filled(store):
    """What is put, in memory."""
    expected = Columns(ROWS, len(NAMES))
    with_steps = Solution(np.zeros(2), Status.MAX_STEPS, "too long", history=np.arange(6.0).reshape(2, 3))
    error = TaskError.from_exception(ValueError("no data for 'Zürich' \udc80"))
    put = [
        solved(3),
        solved(0, 2.0, warnings=(WarningText("RuntimeWarning", "odd", 2),)),
        Outcome(5, OutcomeKind.DONE, with_steps),
        Outcome(6, OutcomeKind.ERROR, None, error),
        Outcome.lost(7, 1.0, 2, "killed by signal 9"),
        solved(3, 5.0),
    ]
    for outcome in put:
        store.put(outcome.key, outcome)
        expected.put(outcome.key, outcome)
    store.put_many(many([1, 5], 7.0))
    expected.put_many(many([1, 5], 7.0))
    return expected


def test_what_is_put_is_there(make):
    with make() as store:
        assert list(store.done()) == []
        expected = filled(store)
        assert sorted(store.done()) == [0, 1, 3, 5, 6, 7]
        assert_same(store.columns(), expected)
    assert_same(store.columns(), expected)


def test_of_what_is_put_twice_the_later_counts(make):
    with make() as store:
        store.put(2, Outcome.timed_out(2, 1.0, 1, 1.0))
        store.put(2, solved(2, 4.0))
        columns = store.columns()
    assert columns.status_of(2) is Status.CONVERGED
    assert not columns.errors


def test_a_file_has_it_all_when_it_is_opened_again(tmp_path):
    with in_a_file(tmp_path) as store:
        expected = filled(store)
    with in_a_file(tmp_path) as again:
        assert sorted(again.done()) == [0, 1, 3, 5, 6, 7]
        assert_same(again.columns(), expected)
        again.put(2, solved(2))
        expected.put(2, solved(2))
    with in_a_file(tmp_path) as third:
        assert_same(third.columns(), expected)


def test_a_row_that_comes_alone_is_written_at_once(tmp_path, monkeypatch):
    """The thread rests after a transaction, not before one."""
    monkeypatch.setattr("parfit.stores.sqlite._REST", 1e9)
    monkeypatch.setattr("parfit.stores.sqlite._LONGEST_REST_S", 3600.0)
    with in_a_file(tmp_path) as store:
        store.put(3, solved(3))
        until = time.monotonic() + 30
        while not (found := read_store(tmp_path / "fits.db").rows) and time.monotonic() < until:
            time.sleep(0.01)
        assert [rows.positions.tolist() for rows in found] == [[3]]
        store.put(4, solved(4))  # in the file when it is closed, whatever the thread does
    assert [rows.positions.tolist() for rows in read_store(tmp_path / "fits.db").rows] == [[3], [4]]


def test_many_short_blocks_are_made_one(tmp_path, monkeypatch):
    monkeypatch.setattr("parfit.stores.sqlite._BLOCKS", 2)
    expected = Columns(ROWS, len(NAMES))
    with in_a_file(tmp_path) as store:
        for position in range(ROWS):
            store.put(position, solved(position, float(position)))
            expected.put(position, solved(position, float(position)))
            store._flush()
    for _ in range(2):
        with in_a_file(tmp_path) as again:
            assert_same(again.columns(), expected)
            assert again._file.execute("select count(*) from blocks").fetchone() == (1,)
