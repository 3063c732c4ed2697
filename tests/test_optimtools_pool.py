"""`Pool` and `async_apply`: calls in the background, here and in other libraries' pools."""

from __future__ import annotations

import concurrent.futures
import gc
import multiprocessing
import multiprocessing.pool
import os
import pickle
import threading
import time
import uuid
import warnings

import pytest

import parfit.optimtools as ot
from parfit.core.errors import (
    InvalidInputError,
    InvalidTypeError,
    RemoteError,
    TaskTimeoutError,
    WorkerLostError,
)
from tests.workers import children, interrupt_when, kill_self, nobody_is_there, nothing_is_left, wait_for

_nothing_is_left = pytest.fixture(autouse=True)(nothing_is_left)
cold = pytest.fixture(nobody_is_there)


def meet(folder, n):
    """In a worker: wait until `n` calls are here at the same time."""
    (folder / uuid.uuid4().hex).touch()
    while len(list(folder.iterdir())) < n:
        time.sleep(0.005)
    return os.getpid()


class CustomError(Exception):
    def __init__(self, county, value):
        super().__init__(f"{county}: {value}")


def test_pool_map_imap_apply():
    with ot.Pool(2) as pool:
        assert pool.map(lambda x: x * x, range(20)) == [x * x for x in range(20)]
        assert pool.starmap(lambda a, b: a - b, [(5, 2), [1, 1]], 1) == [3, 0]
        assert list(pool.imap(lambda x: x * x, range(20), 3)) == [x * x for x in range(20)]
        assert sorted(pool.imap_unordered(lambda x: -x, range(4))) == [-3, -2, -1, 0]
        assert pool.apply(lambda a, b=0: a - b, (5,), {"b": 2}) == 3
        assert pool.submit(divmod, 7, 2).result() == (3, 1)


def test_starmap_names_the_item_that_fails():
    with ot.Pool(2) as pool, pytest.raises(ZeroDivisionError) as caught:
        pool.starmap(divmod, ((1, 1 - i) for i in range(3)))
    assert any("item 1" in note for note in caught.value.__notes__)


def test_imap_is_lazy():
    def endless():
        n = 0
        while True:
            yield n
            n += 1

    with ot.Pool(2) as pool:
        assert [x for x, _ in zip(pool.imap(lambda x: x + 1, endless()), range(5), strict=False)] == [1, 2, 3, 4, 5]


def test_calls_in_the_background_run_at_the_same_time(tmp_path):
    with ot.Pool(2) as pool:
        results = [ot.async_apply(pool, meet, (tmp_path, 2)) for _ in range(2)]
        assert len({result.get() for result in results}) == 2


def test_no_more_calls_at_a_time_than_workers():
    with ot.Pool(2) as pool:
        assert len({pool.apply_async(os.getpid).get() for _ in range(10)}) <= 2
        results = [pool.apply_async(lambda x: (x, os.getpid()), (x,)) for x in range(30)]
        found = [result.get() for result in results]
    assert [x for x, _ in found] == list(range(30))
    assert len({pid for _, pid in found}) <= 2


def test_the_state_of_a_call_in_the_background(tmp_path):
    go = tmp_path / "go"
    with ot.Pool(1) as pool:
        result = pool.apply_async(wait_for, (go,))
        assert not result.ready()
        assert not result.done()
        with pytest.raises(InvalidInputError, match="not ended"):
            result.successful()
        result.wait(0.01)
        with pytest.raises(TaskTimeoutError, match="goes on"):
            result.get(timeout=0.01)
        go.touch()
        assert result.get() is None
        assert result.ready()
        assert result.successful()
        assert result.exception() is None


def test_a_call_that_waits_can_be_taken_back(tmp_path):
    go, begun = tmp_path / "go", tmp_path / "begun"
    with ot.Pool(1) as pool:
        first = pool.apply_async(lambda: (begun.touch(), wait_for(go)))
        wait_for(begun)
        second = pool.apply_async(abs, (1,))
        assert first.running()
        assert not first.cancel()
        assert second.cancel()
        assert second.cancelled()
        assert not second.successful()
        with pytest.raises(concurrent.futures.CancelledError):
            second.get()
        go.touch()


def test_an_exception_in_the_background():
    def fail(x):
        raise KeyError(x)

    with ot.Pool(1) as pool:
        result = pool.apply_async(fail, ("county",))
        result.wait()
        assert not result.successful()
        assert isinstance(result.exception(), KeyError)
        with pytest.raises(KeyError, match="county") as info:
            result.get()
        assert "raise KeyError(x)" in str(info.value.__cause__)
        assert pool.apply(abs, (-1,)) == 1


def test_callbacks():
    seen = []
    with ot.Pool(1) as pool:
        pool.apply_async(abs, (-1,), callback=seen.append)
        pool.apply_async(int, ("x",), callback=seen.append, error_callback=lambda exc: seen.append(type(exc)))
        pool.apply_async(abs, (-2,)).add_done_callback(lambda result: seen.append(result.get()))
    assert seen == [1, ValueError, 2]


def test_a_call_whose_worker_is_killed_is_lost_alone():
    with ot.Pool(2) as pool:
        results = [pool.apply_async(kill_self if i == 2 else abs, (i,)) for i in range(6)]
        with pytest.raises(WorkerLostError, match="SIGKILL"):
            results.pop(2).get()
        assert [result.get() for result in results] == [0, 1, 3, 4, 5]
        with pytest.raises(WorkerLostError):
            pool.map(lambda x: kill_self() if x == 1 else x, range(3))
        assert pool.map(abs, [-1]) == [1]


def test_a_call_travels_as_it_was():
    values = [1, 2, 3]
    with ot.Pool(1) as pool:
        first = pool.apply_async(time.sleep, (0.05,))
        later = pool.apply_async(sum, (values,))
        values.clear()
        first.get()
        assert later.get() == 6


def test_what_cannot_be_sent_or_brought_back_is_an_error_of_its_own():
    with ot.Pool(1) as pool:
        with pytest.raises(InvalidTypeError, match="cannot be sent"):
            pool.apply_async(abs, (threading.Lock(),)).get()
        with pytest.raises(TypeError, match="lock"):
            pool.apply(lambda: threading.Lock())
        with pytest.raises(InvalidTypeError, match="cannot be sent"):
            pool.apply(lambda: pool)
        assert pool.apply(abs, (-1,)) == 1


def test_a_closed_pool_finishes_and_takes_no_more(tmp_path):
    pool = ot.Pool(1)
    with pytest.raises(InvalidInputError, match="close"):
        pool.join()
    results = [pool.apply_async(abs, (i,)) for i in range(5)]
    pool.close()
    for call in (pool.map, pool.starmap, pool.imap, pool.imap_unordered, pool.apply_async):
        with pytest.raises(InvalidInputError, match="closed"):
            call(abs, [1])
    pool.join()
    assert [result.get() for result in results] == list(range(5))


def test_leaving_the_with_waits_for_the_calls(tmp_path):
    with ot.Pool(1) as pool:
        pool.apply_async((tmp_path / "done").touch)
    assert (tmp_path / "done").exists()


def test_terminate_ends_what_is_running(tmp_path, cold):
    begun = tmp_path / "begun"
    pool = ot.Pool(1)
    running = pool.apply_async(lambda: (begun.touch(), time.sleep(60)))
    waiting = pool.apply_async(abs, (1,))
    wait_for(begun)
    pool.terminate()
    pool.join()
    with pytest.raises(WorkerLostError, match="terminated"):
        running.get()
    assert waiting.cancelled()
    assert children() == []


def test_an_exception_in_the_with_ends_what_is_running(tmp_path, cold):
    def leave():
        with ot.Pool(2) as pool:
            pool.apply_async(lambda: ((tmp_path / "begun").touch(), time.sleep(60)))
            wait_for(tmp_path / "begun")
            raise LookupError("on the way")

    with pytest.raises(LookupError, match="on the way"):
        leave()
    assert children() == []


def test_a_pool_that_is_dropped_leaves_nothing(tmp_path, cold):
    pool = ot.Pool(2)
    pool.apply_async(lambda: ((tmp_path / "begun").touch(), time.sleep(60)))
    wait_for(tmp_path / "begun")
    del pool
    gc.collect()
    assert children() == []


def test_results_that_are_there_hold_no_pool(cold):
    pool = ot.Pool(1)
    results = [pool.apply_async(abs, (-1,), callback=lambda _: None), pool.apply_async(abs, (-2,))]
    assert [result.get() for result in results] == [1, 2]
    while results[1]._owner is not None:  # the last callback comes after the result
        time.sleep(0.005)
    del pool
    assert children() == []


def test_who_holds_a_result_holds_its_pool():
    result = ot.Pool(1).apply_async(lambda: (time.sleep(0.05), 5)[1])
    gc.collect()
    assert result.get() == 5


def test_a_pool_does_not_travel():
    with ot.Pool(1) as pool, pytest.raises(InvalidTypeError, match="closure"):
        pickle.dumps(pool)


def test_a_pool_in_a_worker_is_serial():
    def nested():
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            with ot.Pool(2) as pool:
                pids = [
                    pool.apply(os.getpid),
                    pool.apply_async(os.getpid).get(),
                    *pool.map(lambda _: os.getpid(), "ab"),
                ]
        return set(pids) == {os.getpid()}, [w.category.__name__ for w in seen]

    with ot.Pool(1) as pool:
        assert pool.apply(nested) == (True, ["ParfitWarning"])


def test_interrupted_while_a_map_runs(tmp_path, cold):
    def wait(i):
        (tmp_path / f"{i}").touch()
        time.sleep(60)

    with ot.Pool(2) as pool:
        thread = interrupt_when(tmp_path / "0", tmp_path / "1")
        with pytest.raises(KeyboardInterrupt):
            pool.map(wait, range(4))
        thread.join()
        assert children() == []
        assert pool.map(abs, [-1, 2]) == [1, 2]


def test_interrupted_while_waiting_for_a_result(tmp_path):
    with ot.Pool(1) as pool:
        result = pool.apply_async(lambda: ((tmp_path / "begun").touch(), wait_for(tmp_path / "go")))
        thread = interrupt_when(tmp_path / "begun")
        with pytest.raises(KeyboardInterrupt):
            result.get()
        thread.join()
        (tmp_path / "go").touch()
        assert result.get() == (None, None)


# ---- async_apply elsewhere


@pytest.mark.parametrize("kind", ["processes", "threads", "multiprocessing", "multiprocessing threads"])
def test_async_apply_in_other_pools(kind):
    spawn = multiprocessing.get_context("spawn")
    pools = {
        "processes": lambda: concurrent.futures.ProcessPoolExecutor(1, mp_context=spawn),
        "threads": lambda: concurrent.futures.ThreadPoolExecutor(1),
        "multiprocessing": lambda: spawn.Pool(1),
        "multiprocessing threads": lambda: multiprocessing.pool.ThreadPool(1),
    }

    def fail():
        raise CustomError("Baldwin", 1)

    factor = 3
    with pools[kind]() as pool:
        result = ot.async_apply(pool, lambda x, y=0: factor * x + y, (2,), {"y": 1})
        assert result.get(timeout=60) == 7
        assert result.ready()
        assert result.successful()
        failed = ot.async_apply(pool, fail)
        failed.wait()
        assert not failed.successful()
        with pytest.raises((CustomError, RemoteError), match="Baldwin"):
            failed.get()
        with pytest.raises(ValueError, match="invalid literal") as info:
            ot.async_apply(pool, int, ("x",)).result()
        assert "Traceback" in str(info.value.__cause__)
        if "threads" not in kind:
            with pytest.raises(InvalidTypeError, match="cannot be sent"):
                ot.async_apply(pool, abs, (threading.Lock(),)).get()
            with pytest.raises(TypeError, match="lock"):
                ot.async_apply(pool, lambda: threading.Lock()).get(60)
    if hasattr(pool, "join"):
        pool.join()


def test_async_apply_in_what_is_no_pool():
    with pytest.raises(InvalidTypeError, match="not int"):
        ot.async_apply(3, abs)
