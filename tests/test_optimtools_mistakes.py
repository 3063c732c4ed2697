"""The primitives called wrongly: each message says which argument, and what was meant. And a Ctrl-C while they wait."""

from __future__ import annotations

import os
import signal
import threading
import time
from concurrent.futures import ProcessPoolExecutor

import pytest

from parfit import InvalidInputError, InvalidTypeError, ParfitError
from parfit import optimtools as ot
from tests.workers import children, nobody_is_there, nothing_is_left, wait_for

_nothing_is_left = pytest.fixture(autouse=True)(nothing_is_left)
cold = pytest.fixture(nobody_is_there)

TYPE, VALUE = InvalidTypeError, InvalidInputError
POOL = "pool must be a parfit.Pool, a multiprocessing Pool or a concurrent.futures executor, not "
MISTAKES = [
    (lambda: ot.async_map([1, 2], abs), TYPE, "fun must be callable, not list; the function comes first: async_map"),
    (lambda: ot.async_map(3, [3]), TYPE, "fun must be callable, not int"),
    (lambda: ot.async_map(abs, 3), TYPE, "args must be a collection of arguments, one for each call, not int"),
    (lambda: ot.async_map(abs, [1], 0), VALUE, "ncpu must be at least 1 (or None for one per core), not 0"),
    (lambda: ot.async_map(abs, [1], "2"), TYPE, "ncpu must be a whole number or None, not '2'"),
    (lambda: ot.async_apply(abs, ot.Pool(1), (1,)), TYPE, "the pool comes first: async_apply(pool, fun, args)"),
    (lambda: ot.async_apply(abs, (1,)), TYPE, POOL + "builtin_function_or_method"),
    (lambda: ot.async_apply(None, abs, (1,)), TYPE, POOL + "NoneType"),
    (lambda: ot.async_apply(ot.Pool, abs, (1,)), TYPE, POOL + "the class Pool"),
    (lambda: ot.async_apply(ProcessPoolExecutor, abs), TYPE, POOL + "the class ProcessPoolExecutor"),
    (lambda: ot.async_apply(ot.Pool(1), 3), TYPE, "fun must be callable, not int"),
    (lambda: ot.async_apply(ot.Pool(1), abs, 1), TYPE, "args must be a tuple of arguments, not int: (value,)"),
    (lambda: ot.async_apply(ot.Pool(1), len, "abc"), TYPE, "args must be a tuple of arguments, not str"),
    (lambda: ot.async_apply(ot.Pool(1), abs, (), 3), TYPE, "kwargs must be a mapping from name to value, not int"),
    (lambda: ot.Pool(0), VALUE, "ncpu must be at least 1 (or None for one per core), not 0"),
    (lambda: ot.Pool("4"), TYPE, "ncpu must be a whole number or None, not '4'"),
    (lambda: ot.Pool(1).map([1], abs), TYPE, "the function comes first: map(fun, iterable)"),
    (lambda: ot.Pool(1).imap([1], abs), TYPE, "the function comes first: imap(fun, iterable)"),
    (lambda: ot.Pool(1).imap_unordered(abs, 3), TYPE, "iterable must be a collection of arguments"),
    (lambda: ot.ProducerConsumer(int, ["1"], max, 0), VALUE, "n_cores must be at least 1"),
    (lambda: ot.ProducerConsumer(int, ["1"], max, "2"), TYPE, "n_cores must be a whole number or None, not '2'"),
    (lambda: ot.ProducerConsumer(int, max, ["1"]), TYPE, "the order is ProducerConsumer(init_function, init_data, "),
]  # fmt: skip


@pytest.mark.parametrize(("call", "error", "says"), MISTAKES)
def test_mistakes(call, error, says, cold):
    with pytest.raises(error) as caught:
        call()
    assert says in str(caught.value)
    assert isinstance(caught.value, ParfitError)
    assert children() == []


def test_more_workers_than_items():
    with ot.ProducerConsumer(int, ["1", "2"], max, 8) as scores:
        assert scores.run(0) == [1, 2]
        assert len(children()) <= 2
    with ot.ProducerConsumer(int, [], max, 8) as scores:
        assert scores.run(0) == []
    assert ot.async_map(abs, [-1], 8) == [1]


# ---- the end of a `with`


def test_the_with_waits_for_what_is_under_way(tmp_path):
    with ot.Pool(1) as pool:
        later = [pool.apply_async((tmp_path / name).touch) for name in "ab"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]
    assert all(result.successful() for result in later)


@pytest.mark.parametrize("where", ["get", "end"])
def test_ctrl_c_within_the_with_ends_the_calls(where, tmp_path, cold):
    def endless():
        (tmp_path / "begun").touch()
        while True:
            time.sleep(0.01)

    begun = []

    def interrupt():
        wait_for(tmp_path / "begun")
        time.sleep(0.2)  # so that it waits
        begun.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt), ot.Pool(1) as pool:  # noqa: PT012
        result = pool.apply_async(endless)
        if where == "get":
            result.get()
    assert time.monotonic() - begun[0] < 2.0
    thread.join()
    assert result.ready()
    assert not result.successful()
    assert children() == []
