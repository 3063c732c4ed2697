"""`memory_limit`: a row that takes too much is stopped, with a reason, and no other row is any different."""

from __future__ import annotations

import os
import sys
import time

import numpy as np
import pytest

import parfit
from parfit.core.errors import InvalidInputError, InvalidTypeError, SetupError
from parfit.executors import resolve
from parfit.executors.limits import in_bytes, memory_limit
from parfit.executors.processes import ProcessesExecutor
from parfit.executors.workers.idle import idle_workers
from tests.situations.lines import START, assert_equal_but_for, lines, residuals
from tests.workers import children

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells how large a worker is"),
]
LIMIT = "600 MB"
LIMITING = ["processes", "producer_consumer"]


@pytest.fixture(scope="module")
def wanted():
    return parfit.fit(lines(), residuals, START, executor="serial")


def grow():
    """As a list that is never emptied does; bit by bit, so that it is the watch that stops it."""
    kept = []
    while True:
        kept.append(np.ones(1_000_000))
        time.sleep(0.01)


@pytest.mark.parametrize("executor", LIMITING)
def test_a_row_that_grows_is_stopped_and_no_other(executor, wanted, tmp_path):
    def objective(p, row):
        if row.name in ("r0", "r37"):
            grow()
        return residuals(p, row)

    options = {"engine": "rows", "executor": executor, "workers": 2, "memory_limit": LIMIT}
    fits = parfit.fit(lines(), objective, START, store=tmp_path / "fits.db", **options)
    assert fits.status[["r0", "r37"]].astype(str).tolist() == ["worker_lost"] * 2
    assert (fits.summary.loc[["r0", "r37"], "attempts"] <= 2).all()
    for message in fits.errors["message"]:
        assert message.startswith("over memory_limit=600 MB: its worker had reached ")
    assert_equal_but_for(fits, wanted, ["r0", "r37"])
    again = parfit.fit(lines(), objective, START, store=tmp_path / "fits.db", **options)
    assert again.to_frame().equals(fits.to_frame())
    parfit.shutdown_workers()
    assert children() == []


def test_what_is_asked_for_in_one_go_is_refused(wanted):
    """No look at the workers would come in time: the machine is full before."""

    def objective(p, row):
        if row.name == "r37":
            return np.ones(10**11)[: len(row)]
        return residuals(p, row)

    fits = parfit.fit(lines(), objective, START, engine="rows", workers=2, memory_limit=LIMIT)
    assert fits.status["r37"] == "error"
    assert "MemoryError" in fits.errors["type"].item()
    assert "(over memory_limit=600 MB)" in fits.errors["message"].item()
    assert "in objective" in fits.errors["traceback"].item()
    assert_equal_but_for(fits, wanted, ["r37"])


def test_what_earlier_rows_have_left_is_not_the_fault_of_the_next(wanted, tmp_path):
    """Each row leaks: a worker that has become too large is replaced, and its row is fitted in the new one."""

    def objective(p, row):
        if dict(p) == START:
            (tmp_path / str(os.getpid())).touch()
            sys.modules.setdefault("leaked", []).append(np.ones(4_000_000))
        return residuals(p, row)

    parfit.shutdown_workers()
    fits = parfit.fit(lines(), objective, START, engine="rows", workers=2, memory_limit=LIMIT, retries=0)
    assert_equal_but_for(fits, wanted, [])
    assert fits.summary["attempts"].max() <= 2  # 1 where a worker was between two blocks when it was found too large
    assert len(list(tmp_path.iterdir())) > 2


def test_a_worker_is_under_the_limit_of_each_call_and_under_none_without():
    def objective(p, row):
        if row.name == "r3":
            np.zeros(150_000_000)
        return residuals(p, row)

    def fit(**more):
        return parfit.fit(lines(10), objective, START, engine="rows", workers=1, **more).status.astype(str)["r3"]

    parfit.shutdown_workers()
    assert fit() == "converged"
    assert idle_workers.count() == 1
    assert fit(memory_limit=LIMIT) == "error"
    assert fit(memory_limit="4 GiB") == "converged"
    assert fit(memory_limit=LIMIT) == "error"
    assert fit() == "converged"


def test_an_idle_worker_that_is_too_large_already_is_replaced(wanted):
    def objective(p, row):
        sys.modules.setdefault("leaked", []) or sys.modules["leaked"].append(np.ones(100_000_000))
        return residuals(p, row)

    parfit.shutdown_workers()
    parfit.fit(lines(3), objective, START, engine="rows", workers=1)
    large = {child.pid for child in children()}
    fits = parfit.fit(lines(), residuals, START, engine="rows", workers=1, memory_limit=LIMIT, retries=0)
    assert_equal_but_for(fits, wanted, [])
    assert large.isdisjoint(child.pid for child in children())


@pytest.mark.parametrize("executor", LIMITING)
def test_a_limit_below_what_every_worker_needs_is_one_error(executor):
    with pytest.raises(SetupError, match=r"memory_limit=10 MB is less than a worker needs to begin: one had reached"):
        parfit.fit(lines(), residuals, START, engine="rows", executor=executor, workers=2, memory_limit="10 MB")


def test_sweep_has_it_too_and_a_recipe_will_do_for_the_rest():
    def function(n):
        return np.ones(n).sum() if n < 10**9 else grow()

    swept = parfit.sweep(function, {"n": [1, 10**9, 3]}, workers=2, memory_limit=LIMIT)
    assert swept["status"].tolist() == ["done", "worker_lost", "done"]
    assert "over memory_limit=600 MB" in swept["message"][1]
    executor = ProcessesExecutor(1, memory_limit=LIMIT)
    with pytest.raises(MemoryError):
        parfit.apply_by_multiprocessing(lines(3), lambda row: np.ones(10**11).sum(), executor=executor)


# ---- who can, and what is refused


@pytest.mark.parametrize("executor", ["serial", "threads", "multiprocessing", "loky", "joblib"])
def test_executors_that_cannot_refuse_it_by_name(executor):
    with pytest.raises(InvalidInputError, match=rf"'{executor}' cannot stop.*500 MB; these can: {', '.join(LIMITING)}"):
        parfit.fit(lines(), residuals, START, executor=executor, memory_limit="500 MB")


def test_it_decides_for_rows_and_is_refused_by_the_batch():
    pytest.importorskip("jax")
    fits = parfit.fit(lines(), residuals, START, memory_limit="4 GiB")
    assert fits.engine == "rows"
    assert "memory_limit='4 GiB' needs workers" in fits.engine_reason
    with pytest.raises(
        InvalidInputError, match="engine='batch' cannot run this: memory_limit=5000000000 needs workers"
    ):
        parfit.fit(lines(), residuals, START, engine="batch", memory_limit=5_000_000_000)


def test_a_system_that_does_not_tell_sizes_refuses_it(monkeypatch):
    monkeypatch.setattr("parfit.executors.workers.watch._STATM", "/nowhere/{}")
    with pytest.raises(InvalidInputError, match="only Linux tells"):
        parfit.fit(lines(), residuals, START, engine="rows", memory_limit=LIMIT)


def test_a_recipe_keeps_its_limit_unless_the_call_has_one():
    recipe = ProcessesExecutor(2, memory_limit="1 GB")
    assert resolve(recipe, None).memory_limit == 10**9
    assert resolve(recipe, None, None, "2 GB").memory_limit == 2 * 10**9


@pytest.mark.parametrize(
    ("given", "size", "words"),
    [
        (None, None, None),
        (512, 512, "512 B"),
        (np.int64(5_000_000), 5_000_000, "5 MB"),
        ("500 MB", 500 * 10**6, "500 MB"),
        ("2GiB", 2 * 1024**3, "2 GiB"),
        (" 1.5 gb ", 1_500_000_000, "1.5 GB"),
        ("64 mib", 64 * 1024**2, "64 MiB"),
        ("700 kB", 700_000, "700 kB"),
        ("1000", 1000, "1 kB"),
    ],
)
def test_sizes(given, size, words):
    assert memory_limit(given) == size
    if size is not None:
        assert in_bytes(size) == words


@pytest.mark.parametrize("given", ["much", "5 furlongs", "", "-3 MB", 2.5e9, True, b"1 MB"])
def test_what_is_no_size(given):
    with pytest.raises(InvalidTypeError, match=r"memory_limit must be a number of bytes, or text such as '500 MB'"):
        memory_limit(given)


@pytest.mark.parametrize("given", [0, -5, "0 MB"])
def test_a_size_of_nothing(given):
    with pytest.raises(InvalidInputError, match="memory_limit must be more than 0 bytes"):
        memory_limit(given)


def test_where_memory_runs_out_the_kernel_is_to_end_a_worker_and_not_the_caller():
    """The caller holds the data, and may be the largest process that there is."""

    def score(_):
        with open("/proc/self/oom_score_adj") as file:
            return int(file.read())

    swept = parfit.sweep(score, {"_": [1]}, workers=1)
    assert swept["value"].item() >= max(500, score(None))
