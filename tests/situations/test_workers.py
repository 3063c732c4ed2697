"""Workers that die, hang, count cores, or are workers already."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import textwrap
import warnings

import numpy as np
import pandas as pd
import psutil
import pytest

import parfit
from parfit import ParfitWarning, apply_by_multiprocessing
from tests.programs import run_program
from tests.situations.lines import DEATHS, ENDLESS, START, assert_equal_but_for, lines, residuals, run_for_ever
from tests.workers import children


@pytest.fixture
def wanted():
    return parfit.fit(lines(), residuals, START, executor="serial")


# ---- workers that die


@pytest.mark.parametrize("how", DEATHS)
def test_a_dead_worker_costs_only_the_row_that_it_was_on(wanted, how):
    """cpython#96062, pyPESTO#1111, joblib#812: it hangs or wrecks the run."""
    die = DEATHS[how]

    def objective(p, row):
        if row.name == "r37":
            die()
        return residuals(p, row)

    fits = parfit.fit(lines(), objective, START, workers=3)
    assert fits.status["r37"] == "worker_lost"
    assert fits.summary.loc["r37", "attempts"] == 2  # retried once, alone
    assert how in fits.errors["message"].item()
    assert_equal_but_for(fits, wanted, ["r37"])
    parfit.shutdown_workers()
    assert children() == []


def test_many_rows_that_kill_their_workers_are_all_found(wanted):
    """pyPESTO#1111."""
    bad = [f"r{i}" for i in (0, 1, 30, 59)]

    def objective(p, row):
        if row.name in bad:
            os.kill(os.getpid(), signal.SIGKILL)
        return residuals(p, row)

    fits = parfit.fit(lines(), objective, START, workers=2, retries=0)
    assert fits.errors["label"].tolist() == bad
    assert (fits.summary.loc[bad, "attempts"] == 1).all()
    assert_equal_but_for(fits, wanted, bad)


# ---- rows that never end


@pytest.mark.parametrize("stay", ENDLESS, ids=lambda function: function.__name__)
def test_a_row_that_never_ends_is_stopped_and_its_mates_are_fitted(wanted, stay):
    """joblib#1221: 1 row of 140,000, or a C call that ignores signals."""
    limit = 0.5

    def objective(p, row):
        if row.name in ("r7", "r8"):
            stay()
        return residuals(p, row)

    fits = parfit.fit(lines(), objective, START, workers=2, timeout=limit, chunk_size=10)
    assert fits.status[["r7", "r8"]].astype(str).tolist() == ["timeout", "timeout"]
    assert (fits.summary.loc[["r7", "r8"], "seconds"] >= limit).all()
    assert "timeout=0.5 s" in fits.errors["message"].iloc[0]
    assert_equal_but_for(fits, wanted, ["r7", "r8"])


def test_all_that_can_go_wrong_at_once(wanted):
    """joblib#1221, pyPESTO#1111, joblib#1063: the count of finished rows is right all the same."""

    def objective(p, row):
        if row.name == "r5":
            os.kill(os.getpid(), signal.SIGKILL)
        if row.name == "r6":
            run_for_ever()
        if row.name == "r8":
            raise ValueError("no data")
        if row.name == "r9":
            raise SystemExit("leaving")
        return residuals(p, row)

    seen = []
    fits = parfit.fit(
        lines(), objective, START, workers=2, timeout=0.5, progress=lambda done, total: seen.append((done, total))
    )
    assert seen == [(n, 60) for n in range(1, 61)]
    bad = ["r5", "r6", "r8", "r9"]
    assert fits.status[bad].astype(str).tolist() == ["worker_lost", "timeout", "error", "error"]
    assert_equal_but_for(fits, wanted, bad)


# ---- how many, and with how many threads


def threads_of_blas(_):
    import threadpoolctl

    np.ones((100, 100)) @ np.ones((100, 100))
    return max(library["num_threads"] for library in threadpoolctl.threadpool_info())


@pytest.mark.parametrize("executor", ["processes", "multiprocessing", "loky", "joblib", "serial", "threads"])
def test_each_worker_has_one_thread_of_blas(executor, monkeypatch):
    """joblib#834, loky#111: two workers on a 64-core host started 64 threads each."""
    monkeypatch.setenv("OMP_NUM_THREADS", "64")
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "64")
    frame = pd.DataFrame({"a": range(6)})
    assert set(apply_by_multiprocessing(frame, threads_of_blas, executor=executor)) == {1}


def test_the_number_of_workers_follows_affinity(tmp_path):
    """loky#111: on a shared machine, not every core is one's own."""
    text = """
        import os, time
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        import pandas as pd, parfit
        def where(row):
            time.sleep(0.02)
            return os.getpid()
        df = pd.DataFrame({"a": range(8)})
        print(parfit.cpu_count(), parfit.apply_by_multiprocessing(df, where).nunique())
        print(parfit.apply_by_multiprocessing(df, where, 3).nunique() > 1)
    """
    assert run_program(tmp_path, text) == "1 1\nTrue\n"


# ---- inside other workers


def nested(_=None):
    """A fit where there are workers already: who ran it, and what was told."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        fits = parfit.fit(lines(4), lambda p, row: [p[0] - os.getpid(), p[1] - len(children())], [0.0, 0.0], workers=2)
    pids, families = fits.params.to_numpy().T
    return [
        bool((pids.round() == os.getpid()).all()),
        bool((families.round() == 0).all()),
        [w.category.__name__ for w in told],
        len(told) and "running serially" in str(told[0].message),
    ]


NESTED = [True, True, ["ParfitWarning"], True]


def test_inside_joblib_it_is_serial_with_one_warning():
    """joblib#834: workers of workers."""
    import joblib

    with joblib.parallel_config("loky", n_jobs=2):
        assert joblib.Parallel()(joblib.delayed(nested)() for _ in range(2)) == [NESTED, NESTED]


def test_inside_a_daemonic_process_it_is_serial_with_one_warning():
    """joblib#834: a daemonic process may have no children."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.map(nested, [1]) == [NESTED]


def test_inside_parfit_it_is_serial_with_one_warning():
    with pytest.warns(ParfitWarning, match="running serially") as told:
        found = apply_by_multiprocessing(pd.DataFrame({"a": range(2)}), lambda row: nested_quietly(), 2)
    assert len(told) == 1
    assert found.tolist() == [True, True]


def nested_quietly():
    fits = parfit.fit(lines(3), lambda p, row: [p[0] - os.getpid(), p[1]], [0.0, 0.0])
    return bool((fits.params["x0"].round() == os.getpid()).all())


# ---- what workers are

SEEN_BY_PARENT = "only_the_parent_has_this_module"


def surroundings(_):
    return {
        "forked": SEEN_BY_PARENT in sys.modules,
        "gpu": [os.environ.get(name) for name in ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "JAX_PLATFORMS")],
        "pid": os.getpid(),
    }


@pytest.mark.parametrize("executor", ["processes", "producer_consumer", "multiprocessing", "loky", "joblib"])
def test_workers_are_not_forked_and_see_no_gpu(executor, monkeypatch):
    """jax#18989, jax#1075: fork after jax deadlocks; every worker grabs the GPU."""
    monkeypatch.setitem(sys.modules, SEEN_BY_PARENT, sys)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    found = apply_by_multiprocessing(pd.DataFrame({"a": range(4)}), surroundings, 2, executor=executor).tolist()
    for one in found:
        assert one["pid"] != os.getpid()
        assert one["forked"] is False
        assert one["gpu"] == ["", "", "cpu"]
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "0,1"


def test_a_worker_is_an_interpreter_of_its_own():
    """jax#18989: locks that another thread of the caller holds are nobody's business there."""
    found = apply_by_multiprocessing(pd.DataFrame({"a": range(4)}), lambda row: psutil.Process().cmdline(), 2)
    for command in found:
        assert command[0] == sys.executable
        assert "parfit.executors.workers.worker" in " ".join(command)


def test_the_callers_script_is_not_run_again_in_workers(tmp_path):
    """jax#18989, joblib#659: no fork, and no second import of the script either."""
    text = textwrap.dedent("""
        import os, pathlib
        with open("runs", "a") as file:
            file.write("x")
        import pandas as pd, parfit
        print(parfit.apply_by_multiprocessing(pd.DataFrame({"a": range(4)}), lambda row: row["a"] + 1, 2).tolist())
        print(pathlib.Path("runs").read_text())
    """)
    assert run_program(tmp_path, text) == "[1, 2, 3, 4]\nx\n"
