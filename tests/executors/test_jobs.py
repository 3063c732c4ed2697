"""The queue of jobs: nothing is lost, whatever is run again, and suspects are set apart."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from parfit.executors.foreign.jobs import Job, JobQueue


def queue(n: int) -> JobQueue:
    return JobQueue([(i, i) for i in range(n)], 2)


def keys(job: Job | None) -> list[Any]:
    assert job is not None
    return job.block.keys()


def test_it_ends() -> None:
    jobs = queue(2)
    assert jobs.pending
    assert [keys(jobs.next()), keys(jobs.next()), jobs.next()] == [[0], [1], None]
    assert not jobs.pending


def test_what_is_run_again_comes_before_what_is_new() -> None:
    jobs = queue(3)
    first = jobs.next()
    assert first is not None
    jobs.put_back(first)
    assert jobs.next() is first
    jobs.retry(first, 0)
    again = jobs.next()
    assert (keys(again), again and again.attempts) == ([0], 2)


def test_suspects_come_first_and_apart() -> None:
    jobs = queue(3)
    first, second = jobs.next(), jobs.next()
    assert first is not None
    assert second is not None
    jobs.put_back(first)
    jobs.retry(second, 0, apart=True)
    assert jobs.next_is_apart
    suspect = jobs.next()
    assert suspect is not None
    assert (suspect.apart, suspect.attempts, keys(suspect)) == (True, 2, [1])
    jobs.put_back(suspect)
    assert jobs.next_is_apart
    assert jobs.next() is suspect
    assert not jobs.next_is_apart


@given(st.integers(0, 60), st.data())
def test_every_task_is_done_once(n: int, data: st.DataObject) -> None:
    jobs = queue(n)
    done: list[int] = []
    patience = 100
    while (job := jobs.next()) is not None:
        size = len(job.block)
        fate = data.draw(st.sampled_from(["done", "back", "singly", "split"])) if patience else "done"
        patience -= patience > 0
        if fate == "back":
            jobs.put_back(job)
        elif fate == "singly" and size > 1:
            jobs.singly(job)
        elif fate == "split":
            index = data.draw(st.integers(0, size - 1))
            jobs.again(job, 0, index)
            jobs.again(job, index + 1, size)
            jobs.retry(job, index, apart=data.draw(st.booleans()))
        else:
            done += job.block.keys()
            jobs.took(size, size * 1e-5)
    assert sorted(done) == list(range(n))
