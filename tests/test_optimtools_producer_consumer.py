"""`ProducerConsumer`: data that is loaded once, scores in order, and what happens when something is lost."""

from __future__ import annotations

import concurrent.futures
import gc
import os
import pickle
import threading
import time
import traceback
import uuid
import warnings

import cloudpickle
import numpy as np
import pandas as pd
import pytest
import scipy.optimize

import parfit.optimtools as ot
from parfit.core.errors import (
    InvalidInputError,
    InvalidTypeError,
    TaskTimeoutError,
    WorkerLostError,
)
from tests.workers import children, interrupt_when, kill_self, nobody_is_there, nothing_is_left

_nothing_is_left = pytest.fixture(autouse=True)(nothing_is_left)
cold = pytest.fixture(nobody_is_there)


def meet(folder, n):
    """In a worker: wait until `n` calls are here at the same time."""
    (folder / uuid.uuid4().hex).touch()
    while len(list(folder.iterdir())) < n:
        time.sleep(0.005)
    return os.getpid()


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
def test_more_cores_than_items_and_no_items(n, cores, cold):
    with ot.ProducerConsumer(lambda i: 10 * i, (i for i in range(n)), lambda p, x: p + x, n_cores=cores) as pc:
        assert pc.run(1) == [1 + 10 * i for i in range(n)]
        assert len(children()) <= min(n, cores)


def test_an_exception_of_the_process_function_names_the_item(cold):
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
    assert counts()[0] == 1
    assert max(counts()) == 1  # the others need not have been loaded by then


def test_an_init_function_that_kills_names_the_item():
    with ot.ProducerConsumer(lambda i: kill_self() if i == 2 else i, range(4), lambda p, x: x, 2) as pc:
        for _ in range(2):
            with pytest.raises(WorkerLostError, match=r"item 2 \(2\).*SIGKILL"):
                pc.run(0)


def test_a_killed_worker_loads_its_share_again(loads, tmp_path, cold):
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


def test_a_shut_down_object_says_so(cold):
    pc = ot.ProducerConsumer(abs, [1, 2], max, 2)
    assert pc.run(0) == [1, 2]
    pc.shut_down()
    assert children() == []
    pc.shut_down()
    with pytest.raises(InvalidInputError, match="shut down"):
        pc.run(0)
    assert "shut down" in repr(pc)


def test_a_dropped_object_leaves_nothing(cold):
    pc = ot.ProducerConsumer(abs, [1, 2], max, 2)
    pc.run(0)
    assert len(children()) == 2
    del pc
    gc.collect()
    assert children() == []


def test_interrupted_runs_leave_the_object_usable(tmp_path, cold):
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
        with pytest.raises(InvalidTypeError, match=r"params \(_thread.lock\) cannot be sent"):
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
