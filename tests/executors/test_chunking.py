"""Chunks: their size follows what tasks cost."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parfit.executors.chunking import FLOOR_S, GROWTH, TARGET_S, ChunkSizer, PairBlock, as_tasks


def sizes(sizer: ChunkSizer, costs_s: list[float]) -> list[int]:
    """The sizes of the chunks, where a task of the k-th chunk costs ``costs_s[k]``."""
    found = []
    for cost in costs_s:
        n = sizer.next_size()
        sizer.sent(n)
        sizer.took(n, n * cost)
        found.append(n)
    return found


def test_the_first_chunk_is_one_task() -> None:
    assert ChunkSizer(4).next_size() == 1
    assert ChunkSizer(4, 10_000).next_size() == 1


def test_cheap_tasks_travel_together_up_to_the_target() -> None:
    found = sizes(ChunkSizer(2), [1e-4] * 10)
    assert found[0] == 1
    assert all(after <= GROWTH * before for before, after in itertools.pairwise(found))
    assert found[-1] == pytest.approx(TARGET_S / 1e-4, rel=0.01)


def test_dear_tasks_travel_alone() -> None:
    assert sizes(ChunkSizer(2), [1.0] * 5) == [1] * 5


def test_a_rise_counts_at_once_and_a_fall_by_halves() -> None:
    sizer = ChunkSizer(2)
    sizes(sizer, [1e-4] * 10)
    assert sizes(sizer, [1.0, 1.0])[1] == 1
    falling = sizes(sizer, [1e-4] * 30)
    assert falling[:3] == [1, 1, 1]
    assert falling == sorted(falling)
    assert falling[-1] > 50


def run_to_the_end(workers: int, total: int, cost_s: float) -> list[tuple[int, int]]:
    """How many tasks were left before each chunk, and the size of the chunk."""
    sizer = ChunkSizer(workers, total)
    found = []
    left = total
    while left > 0:
        n = sizer.next_size()
        sizer.sent(n)
        sizer.took(n, n * cost_s)
        found.append((left, n))
        left -= n
    assert left == 0
    return found


def test_no_chunk_takes_more_than_a_share_of_what_is_left() -> None:
    assert all(n <= max(1, -(-left // 8)) for left, n in run_to_the_end(4, 100, FLOOR_S))


def test_what_is_done_at_once_is_not_cut_further() -> None:
    found = run_to_the_end(2, 100_000, 1e-6)
    assert all(n * 1e-6 >= 0.99 * FLOOR_S for left, n in found[4:-1])
    assert len(found) < 30
    assert len(run_to_the_end(4, 100, 1e-6)) < 6


def test_nothing_that_took_no_tasks_counts() -> None:
    sizer = ChunkSizer(1)
    sizer.took(0, 5.0)
    assert sizer.next_size() == 1


@given(st.integers(1, 64), st.none() | st.integers(0, 1000), st.lists(st.floats(0, 10), max_size=30))
def test_a_chunk_is_never_empty(workers: int, total: int | None, costs: list[float]) -> None:
    assert all(n >= 1 for n in sizes(ChunkSizer(workers, total), costs))


def test_a_block_of_pairs() -> None:
    block = PairBlock([("a", 1), ("b", 2), ("c", 3)])
    seen: list[Any] = []
    block.part(1, 3).visit(lambda key, payload: seen.append((key, payload)))
    assert (len(block), block.keys(), seen) == (3, ["a", "b", "c"], [("b", 2), ("c", 3)])


def test_pairs_are_pulled_as_they_are_taken() -> None:
    pulled = []

    def pairs() -> Any:
        for i in range(5):
            pulled.append(i)
            yield i, i

    tasks, total = as_tasks(pairs())
    assert total is None
    block = tasks.take(2)
    assert block is not None
    assert (block.keys(), pulled) == ([0, 1], [0, 1])
    assert [len(found) for found in iter(lambda: tasks.take(2), None)] == [2, 1]
    assert tasks.take(1) is None


def test_the_number_of_tasks_is_known_where_there_is_a_length() -> None:
    assert as_tasks([(1, 1), (2, 2)])[1] == 2
    assert as_tasks({"a": 1}.items())[1] == 1
