"""The primitives: order, errors, lost workers, time limits, and that nothing is left behind."""

from __future__ import annotations

import concurrent.futures
import contextlib
import gc
import multiprocessing
import multiprocessing.pool
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import threading
import time
import traceback
import uuid
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest
import scipy.optimize

import parfit.optimtools as ot
from parfit.core.errors import (
    InvalidInputError,
    InvalidTypeError,
    ParfitWarning,
    RemoteError,
    SetupError,
    TaskTimeoutError,
    WorkerLostError,
)
from parfit.executors.processes import shutdown_workers

ROOT = Path(__file__).resolve().parents[1]


def is_worker(process):
    with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
        return "parfit.executors.worker" in " ".join(process.cmdline())
    return False


def children():
    """The workers of this process (not what multiprocessing leaves to track its resources)."""
    return [child for child in psutil.Process().children() if is_worker(child)]


@pytest.fixture(autouse=True)
def _nothing_is_left():
    shutdown_workers()
    yield
    gc.collect()
    shutdown_workers()
    assert children() == []


def kill_self(*_):
    os.kill(os.getpid(), signal.SIGKILL)


def wait_for(*paths):
    while not all(path.exists() for path in paths):
        time.sleep(0.005)


def interrupt_when(*paths):
    """Send this process a Ctrl-C as soon as the files are there."""

    def watch():
        wait_for(*paths)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=watch)
    thread.start()
    return thread


def meet(folder, n):
    """In a worker: wait until `n` calls are here at the same time."""
    (folder / uuid.uuid4().hex).touch()
    while len(list(folder.iterdir())) < n:
        time.sleep(0.005)
    return os.getpid()


class CustomError(Exception):
    def __init__(self, county, value):
        super().__init__(f"{county}: {value}")


# ---- async_map


def test_map_keeps_the_order_and_takes_a_lambda():
    offset = 10
    assert ot.async_map(lambda x: x + offset, range(200), 2) == [x + 10 for x in range(200)]


@pytest.mark.parametrize("args", [[], (), iter([]), pd.Series([], dtype=float)])
def test_map_of_nothing(args):
    assert ot.async_map(abs, args) == []


def test_map_of_a_generator():
    assert ot.async_map(lambda s: s.upper(), (c for c in "abc"), ncpu=2) == ["A", "B", "C"]


def test_more_workers_than_arguments():
    assert ot.async_map(abs, [-1], ncpu=8) == [1]


def test_map_passes_one_argument_as_it_is():
    assert ot.async_map(lambda pair: pair, [(1, 2), [3]], 2) == [(1, 2), [3]]


def test_map_raises_what_the_function_raised():
    def half(x):
        if x in (3, 7):
            raise ZeroDivisionError(f"no half of {x}")
        return x / 2

    with pytest.raises(ZeroDivisionError, match="no half of 3") as info:
        ot.async_map(half, range(50), 2)
    assert isinstance(info.value.__cause__, RemoteError)
    assert 'raise ZeroDivisionError(f"no half of {x}")' in str(info.value.__cause__)
    assert "item 3" in "".join(traceback.format_exception(info.value))


def test_workers_live_on_after_an_exception():
    ot.async_map(abs, range(8), 2)
    before = {child.pid for child in children()}

    def fail(x):
        raise ValueError(x)

    with pytest.raises(ValueError, match="0"):
        ot.async_map(fail, range(20), 2)
    assert {child.pid for child in children()} == before


def test_an_exception_that_cannot_be_rebuilt_says_what_it_was():
    def fail(_):
        raise CustomError("Autauga", 3)

    with pytest.raises(RemoteError, match="Autauga: 3"):
        ot.async_map(fail, [1], 1)


def test_an_exit_in_a_worker_does_not_end_the_caller():
    with pytest.raises(RemoteError, match="SystemExit"):
        ot.async_map(lambda _: sys.exit(3), [1], 1)


def test_map_over_an_argument_that_kills():
    with pytest.raises(WorkerLostError, match="item 1.*SIGKILL"):
        ot.async_map(lambda x: kill_self() if x == 1 else x, range(5), 2)


def test_a_function_that_cannot_be_sent():
    lock = threading.Lock()
    with pytest.raises(SetupError, match="lock"):
        ot.async_map(lambda x: lock, [1])


@pytest.mark.parametrize(("ncpu", "kind"), [(0, InvalidInputError), (1.5, InvalidTypeError)])
def test_a_number_of_workers_that_is_none(ncpu, kind):
    with pytest.raises(kind, match="workers"):
        ot.async_map(abs, [1], ncpu)
    with pytest.raises(kind, match="workers"):
        ot.Pool(ncpu)
    with pytest.raises(kind, match="workers"):
        ot.ProducerConsumer(abs, [1], max, ncpu)


def test_warnings_in_workers_are_given_here_once_each():
    def warn(x):
        warnings.warn("far out", RuntimeWarning, stacklevel=1)
        return x

    with pytest.warns(RuntimeWarning, match="far out") as seen:
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            assert ot.async_map(warn, range(5), 2) == list(range(5))
    assert len(seen) == 1


def test_the_defaults_are_documented():
    assert ot.cpu_count() >= 1
    for public in (ot.async_map, ot.Pool, ot.ProducerConsumer):
        assert "cpu_count()" in public.__doc__


def test_nested_use_is_serial_with_one_warning():
    def outer(x):
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            inner = ot.async_map(lambda y: (y, os.getpid()), range(3))
        return os.getpid(), inner, [w.category.__name__ for w in seen]

    for pid, inner, seen in ot.async_map(outer, range(2), 2):
        assert inner == [(y, pid) for y in range(3)]
        assert seen == ["ParfitWarning"]


# ---- Pool


def test_pool_map_imap_apply():
    with ot.Pool(2) as pool:
        assert pool.map(lambda x: x * x, range(20)) == [x * x for x in range(20)]
        assert list(pool.imap(lambda x: x * x, range(20), 3)) == [x * x for x in range(20)]
        assert sorted(pool.imap_unordered(lambda x: -x, range(4))) == [-3, -2, -1, 0]
        assert pool.apply(lambda a, b=0: a - b, (5,), {"b": 2}) == 3
        assert pool.submit(divmod, 7, 2).result() == (3, 1)


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
    for call in (pool.map, pool.imap, pool.imap_unordered, pool.apply_async):
        with pytest.raises(InvalidInputError, match="closed"):
            call(abs, [1])
    pool.join()
    assert [result.get() for result in results] == list(range(5))


def test_leaving_the_with_waits_for_the_calls(tmp_path):
    with ot.Pool(1) as pool:
        pool.apply_async((tmp_path / "done").touch)
    assert (tmp_path / "done").exists()


def test_terminate_ends_what_is_running(tmp_path):
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


def test_an_exception_in_the_with_ends_what_is_running(tmp_path):
    with pytest.raises(ZeroDivisionError), ot.Pool(2) as pool:
        pool.apply_async(lambda: ((tmp_path / "begun").touch(), time.sleep(60)))
        wait_for(tmp_path / "begun")
        raise ZeroDivisionError
    assert children() == []


def test_a_pool_that_is_dropped_leaves_nothing(tmp_path):
    pool = ot.Pool(2)
    pool.apply_async(lambda: ((tmp_path / "begun").touch(), time.sleep(60)))
    wait_for(tmp_path / "begun")
    del pool
    gc.collect()
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


def test_interrupted_while_a_map_runs(tmp_path):
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


# ---- ProducerConsumer


@pytest.fixture
def loads(tmp_path):
    folder = tmp_path / "loads"
    folder.mkdir()

    def load(item):
        (folder / f"{item}-{uuid.uuid4()}").touch()
        return item, os.getpid()

    def counts():
        names = [int(name.split("-")[0]) for name in os.listdir(folder)]
        return [names.count(i) for i in range(max(names, default=-1) + 1)]

    return load, counts


def test_scores_come_in_order_and_data_is_loaded_once(loads):
    load, counts = loads
    with ot.ProducerConsumer(load, range(11), lambda p, loaded: (p * loaded[0], loaded[1], os.getpid()), 2) as pc:
        for p in (1.0, 2.0, -3.0):
            found = pc.run(p)
            assert [score for score, _, _ in found] == [p * i for i in range(11)]
            assert all(loaded == scored for _, loaded, scored in found)
        assert len({pid for _, pid, _ in found}) == 2
        assert len(pc) == 11
    assert counts() == [1] * 11


def test_all_workers_work_at_once(tmp_path):
    with ot.ProducerConsumer(abs, range(2), lambda folder, _: meet(folder, 2), 2) as pc:
        assert len(set(pc.run(tmp_path))) == 2


@pytest.mark.parametrize(("n", "cores"), [(0, 2), (1, 4), (3, 8), (5, 1)])
def test_more_cores_than_items_and_no_items(n, cores):
    with ot.ProducerConsumer(lambda i: 10 * i, (i for i in range(n)), lambda p, x: p + x, n_cores=cores) as pc:
        assert pc.run(1) == [1 + 10 * i for i in range(n)]
        assert len(children()) <= min(n, cores)


def test_an_exception_of_the_process_function_names_the_item():
    def score(p, x):
        if p + x == 5:
            raise ArithmeticError("five")
        return p + x

    with ot.ProducerConsumer(abs, range(4), score, 2) as pc:
        pc.run(10)
        before = {child.pid for child in children()}
        with pytest.raises(ArithmeticError, match="five") as info:
            pc.run(3)
        assert 'raise ArithmeticError("five")' in str(info.value.__cause__)
        assert "item 2 (2)" in "".join(traceback.format_exception(info.value))
        assert pc.run(10) == [10, 11, 12, 13]
        assert {child.pid for child in children()} == before


def test_an_exception_of_the_init_function_comes_at_each_run(loads):
    load, counts = loads

    def init(item):
        load(item)
        return 1 / item

    with ot.ProducerConsumer(init, range(3), lambda p, x: x, 2) as pc:
        for _ in range(2):
            with pytest.raises(ZeroDivisionError) as info:
                pc.run(0)
            assert "return 1 / item" in str(info.value.__cause__)
    assert counts() == [1, 1, 1]


def test_an_init_function_that_kills_names_the_item():
    with ot.ProducerConsumer(lambda i: kill_self() if i == 2 else i, range(4), lambda p, x: x, 2) as pc:
        for _ in range(2):
            with pytest.raises(WorkerLostError, match=r"item 2 \(2\).*SIGKILL"):
                pc.run(0)


def test_a_killed_worker_loads_its_share_again(loads, tmp_path):
    load, counts = loads

    def score(p, loaded):
        if loaded[0] == p and not (tmp_path / "killed").exists():
            (tmp_path / "killed").touch()
            kill_self()
        return loaded[0]

    with ot.ProducerConsumer(load, range(8), score, 2) as pc:
        assert pc.run(-1) == list(range(8))
        assert pc.run(4) == list(range(8))
        assert pc.run(4) == list(range(8))
        assert counts() == [2, 1] * 4
        for child in children():
            child.kill()
        assert pc.run(4) == list(range(8))
        assert counts() == [3, 2] * 4


def test_an_item_that_always_kills():
    with ot.ProducerConsumer(abs, range(4), lambda p, x: kill_self() if x == p else x, 2, retries=0) as pc:
        with pytest.raises(WorkerLostError, match=r"item 1 \(1\).*1 time"):
            pc.run(1)
        assert pc.run(9) == [0, 1, 2, 3]


def test_a_time_limit_names_the_item_and_the_object_lives_on(loads):
    load, counts = loads

    def score(p, loaded):
        while loaded[0] == p:
            time.sleep(0.005)
        return loaded[0]

    with ot.ProducerConsumer(load, range(4), score, 2, timeout=0.3) as pc:
        with pytest.raises(TaskTimeoutError, match=r"item 3 \(3\).*timeout=0.3"):
            pc.run(3)
        with pytest.raises(TimeoutError, match=r"timeout=0.1"):
            pc.run(0, timeout=0.1)
        assert pc.run(-1) == [0, 1, 2, 3]
        assert pc.run(-1, timeout=60) == [0, 1, 2, 3]
    assert max(counts()) <= 3


def test_loading_has_a_limit_of_its_own():
    def slow(item):
        time.sleep(0.3 if item else 60)
        return item

    with ot.ProducerConsumer(slow, [1, 2], max, 2, timeout=0.2) as pc:
        assert pc.run(0) == [1, 2]
    with (
        ot.ProducerConsumer(slow, [1, 0], max, 2, load_timeout=1.0) as pc,
        pytest.raises(TaskTimeoutError, match=r"item 1 \(0\)"),
    ):
        pc.run(0)


def test_parameters_are_each_call_s_own():
    def spoil(p, x):
        p["a"] += 1
        return p["a"]

    with ot.ProducerConsumer(abs, range(6), spoil, 2) as pc:
        params = {"a": 1}
        assert pc.run(params) == [2] * 6
        assert params == {"a": 1}


def test_a_shut_down_object_says_so():
    pc = ot.ProducerConsumer(abs, [1, 2], max, 2)
    assert pc.run(0) == [1, 2]
    pc.shut_down()
    assert children() == []
    pc.shut_down()
    with pytest.raises(InvalidInputError, match="shut down"):
        pc.run(0)
    assert "shut down" in repr(pc)


def test_a_dropped_object_leaves_nothing():
    pc = ot.ProducerConsumer(abs, [1, 2], max, 2)
    pc.run(0)
    assert len(children()) == 2
    del pc
    gc.collect()
    assert children() == []


def test_interrupted_runs_leave_the_object_usable(tmp_path):
    def score(p, x):
        if p:
            (tmp_path / f"{x}").touch()
            time.sleep(60)
        return x

    with ot.ProducerConsumer(abs, range(4), score, 2) as pc:
        pc.run(0)
        thread = interrupt_when(tmp_path / "0", tmp_path / "1")
        with pytest.raises(KeyboardInterrupt):
            pc.run(1)
        thread.join()
        assert children() == []
        assert pc.run(0) == [0, 1, 2, 3]


def test_runs_from_several_threads_take_turns():
    with ot.ProducerConsumer(abs, range(5), lambda p, x: p + x, 2) as pc:
        with concurrent.futures.ThreadPoolExecutor(4) as threads:
            found = list(threads.map(pc.run, range(20)))
    assert found == [[p + i for i in range(5)] for p in range(20)]


def test_an_object_in_a_worker_is_serial(loads):
    load, counts = loads
    pc = ot.ProducerConsumer(load, range(3), lambda p, loaded: (p + loaded[0], loaded[1]), 2)

    def nested(pc):
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            pc = pickle.loads(pc)
            scores = [pc.run(p) for p in (1, 2)]
        assert {pid for score in scores for _, pid in score} == {os.getpid()}
        return [[value for value, _ in score] for score in scores], [w.category.__name__ for w in seen]

    import cloudpickle

    with ot.Pool(1) as pool:
        assert pool.apply(nested, (cloudpickle.dumps(pc),)) == ([[1, 2, 3], [2, 3, 4]], ["ParfitWarning"])
    assert counts() == [1, 1, 1]


@pytest.mark.parametrize(
    ("arguments", "kind", "match"),
    [
        ((abs, 3, max), InvalidTypeError, "collection"),
        ((abs, "path", max), InvalidTypeError, "collection"),
        ((abs, pd.DataFrame({"a": [1]}), max), InvalidTypeError, "iterrows"),
        ((None, [1], max), InvalidTypeError, "init_function"),
        ((abs, [1], 5), InvalidTypeError, "process_function"),
    ],
)
def test_what_cannot_be_used_is_refused(arguments, kind, match):
    with pytest.raises(kind, match=match):
        ot.ProducerConsumer(*arguments)


@pytest.mark.parametrize("option", [{"timeout": 0}, {"timeout": "x"}, {"retries": -1}, {"retries": 0.5}])
def test_options_that_cannot_be_used_are_refused(option):
    with pytest.raises((InvalidInputError, InvalidTypeError), match=next(iter(option))):
        ot.ProducerConsumer(abs, [1], max, **option)


def test_parameters_that_cannot_be_sent():
    with ot.ProducerConsumer(abs, [1], max, 1) as pc:
        with pytest.raises(InvalidTypeError, match="parameters cannot be sent"):
            pc.run(threading.Lock())
        assert pc.run(0) == [1]


def test_warnings_of_both_functions_are_given_here():
    def init(x):
        warnings.warn("odd file", UserWarning, stacklevel=1)
        return x

    def score(p, x):
        warnings.warn("odd score", RuntimeWarning, stacklevel=1)
        return x

    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        with ot.ProducerConsumer(init, range(4), score, 2) as pc:
            pc.run(0)
    assert sorted((w.category.__name__, str(w.message)) for w in seen) == [
        ("RuntimeWarning", "odd score"),
        ("UserWarning", "odd file"),
    ]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_has_workers_of_its_own():
    with ot.ProducerConsumer(abs, range(4), lambda p, x: (p + x, os.getpid()), 2) as pc, ot.Pool(1) as pool:
        mine = {pid for _, pid in pc.run(0)}
        pool.apply(os.getpid)
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                scores = pc.run(1)
                right = [score for score, _ in scores] == [1, 2, 3, 4] and pool.apply(abs, (-5,)) == 5
                code = 0 if right and not {pid for _, pid in scores} & mine else 2
                pc.shut_down()
                pool.terminate()
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert {pid for _, pid in pc.run(0)} == mine
        assert pool.apply(abs, (-5,)) == 5


# ---- one parameter set, fitted to all data


TIMES = np.linspace(0, 4, 30)
TRUE = np.array([2.0, 0.7])


def curve(p):
    return p[0] * np.exp(-p[1] * TIMES)


@pytest.fixture
def scores(tmp_path):
    paths = []
    for i in range(6):
        paths.append(tmp_path / f"{i}.npy")
        np.save(paths[-1], curve(TRUE))
    with ot.ProducerConsumer(np.load, paths, lambda p, y: 0.5 * float(np.sum((curve(p) - y) ** 2)), 2) as pc:
        yield pc


def test_scipy_on_top(scores):
    found = scipy.optimize.minimize(lambda p: sum(scores.run(p)), [1.0, 1.0], method="L-BFGS-B")
    np.testing.assert_allclose(found.x, TRUE, rtol=1e-3)


def test_spsa_on_top(scores):
    found = ot.SPSA(
        lambda p: sum(scores.run(p)), [1.0, 1.0], a_par=0.02, c_par=0.01, maxiter=300, seed=1, print_iters=0
    )
    assert found.fun < 0.05 * sum(scores.run([1.0, 1.0]))


# ---- in programs


def program(text, tmp_path, *, signal_at=None, stdin=False):
    """Run a script without a main guard; what it prints."""
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(text))
    command = [sys.executable, "-W", "error", "-"] if stdin else [sys.executable, "-W", "error", str(script)]
    done = subprocess.run(
        command,
        input=script.read_text() if stdin else None,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


@pytest.mark.parametrize("stdin", [False, True])
def test_an_unguarded_script(tmp_path, stdin):
    out = program(
        """
        from parfit.optimtools import Pool, ProducerConsumer, async_apply, async_map

        class Scale:
            def __init__(self, by):
                self.by = by

        def score(p, x):
            return p.by * x

        print(async_map(lambda x: x + 1, range(3)))
        pool = Pool(2)
        print(async_apply(pool, score, (Scale(2), 4)).get())
        pc = ProducerConsumer(lambda x: x, range(3), score, 2)
        print(pc.run(Scale(3)))
        print(*(child.pid for child in __import__("psutil").Process().children()))
        unread = async_apply(pool, __import__("time").sleep, (60,))
        """,
        tmp_path,
        stdin=stdin,
    )
    first, second, third, pids = out.splitlines()
    assert (first, second, third) == ("[1, 2, 3]", "8", "[0, 3, 6]")
    assert pids
    assert not any(psutil.pid_exists(int(pid)) for pid in pids.split())


def test_the_import_is_cheap(tmp_path):
    out = program(
        """
        import sys
        import parfit.optimtools
        print([name for name in ("scipy", "pandas", "jax", "multiprocessing", "loky", "joblib") if name in sys.modules])
        """,
        tmp_path,
    )
    assert out.strip() == "[]"


def test_an_unknown_name():
    with pytest.raises(AttributeError, match="no_such_name"):
        ot.no_such_name  # noqa: B018
    assert set(ot.__all__) <= {*dir(ot), "SPSA"}


def test_a_parfit_warning_is_a_user_warning():
    assert issubclass(ParfitWarning, UserWarning)
