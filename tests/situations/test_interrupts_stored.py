"""Ctrl-C, once or by an impatient user, under a store: what was finished is in the file, and the next call goes on."""

from __future__ import annotations

import json
import os
import signal
import time

import pytest

import parfit
from tests.programs import started, wait_for
from tests.situations.test_interrupts import helpers

pytestmark = pytest.mark.slow

SCRIPT = """
    import json, pathlib, sys, time
    import numpy as np, pandas as pd
    import parfit
    from parfit.executors.workers.pool import ProcessPool
    from parfit.stores.sqlite import SqliteStore

    engine = sys.argv[1]
    rows = 60 if engine == "rows" else 40_000

    def slowly(cleaning):
        def method(self, *args, **kwargs):
            pathlib.Path("cleaning").touch()  # long enough for another Ctrl-C
            time.sleep(0.3)
            return cleaning(self, *args, **kwargs)
        return method

    def objective(p, row):
        if row.name == rows - 1 and not pathlib.Path("again").exists():
            time.sleep(100)
        return p - row.to_numpy()

    def quick(p, row):
        return p - row.to_numpy()

    def progress(done, total):
        if done >= total // 4 and not pathlib.Path("again").exists():
            pathlib.Path("waiting").touch()
            time.sleep(1)

    def fit(**more):
        return parfit.fit(data, objective if engine == "rows" else quick, [0.0, 0.0], engine=engine, workers=2,
                          store="fits.db", **more)

    data = pd.DataFrame(np.random.default_rng(0).normal(size=(rows, 2)))
    close, leave = ProcessPool.close, SqliteStore.__exit__
    ProcessPool.close, SqliteStore.__exit__ = slowly(close), slowly(leave)
    told = {"interrupted": 0}
    try:
        fit(progress=progress)
    except parfit.FitInterrupted as exc:
        ProcessPool.close, SqliteStore.__exit__ = close, leave
        told["interrupted"] += 1
        told["kept"] = exc.fits.labels[exc.fits.success].tolist()
        told["others"] = exc.fits.status[~exc.fits.success].astype(str).unique().tolist()
    stored = parfit.open_store("fits.db")
    told["stored"] = stored.labels[stored.success].tolist()
    pathlib.Path("interrupted").touch()
    while not pathlib.Path("go").exists():
        time.sleep(0.02)
    pathlib.Path("again").touch()
    counts = []
    fits = fit(progress=lambda done, total: counts.append(done))
    told["went on from"] = counts[0]
    told["all"] = bool(fits.success.all())
    whole = parfit.fit(data, quick, [0.0, 0.0], engine=engine, workers=2)
    told["same"] = bool(fits.params.equals(whole.params))
    print(json.dumps(told))
"""


@pytest.mark.parametrize("times", [1, 8])
@pytest.mark.parametrize("whom", ["group", "parent"])
@pytest.mark.parametrize("engine", ["rows", "batch"])
def test_nothing_that_was_finished_is_lost(engine, whom, times, tmp_path):
    if engine == "batch":
        pytest.importorskip("jax")
    with started(tmp_path, SCRIPT, engine, PARFIT_CACHE_DIR=str(tmp_path.parent / "cache")) as process:

        def press():
            (os.killpg if whom == "group" else os.kill)(process.pid, signal.SIGINT)

        wait_for(lambda: (tmp_path / "waiting").exists() or process.poll() is not None, "a quarter of the rows")
        press()
        wait_for(lambda: (tmp_path / "cleaning").exists() or process.poll() is not None, "the end of the run")
        for _ in range(times - 1):
            press()
            time.sleep(0.03)
        wait_for(lambda: (tmp_path / "interrupted").exists() or process.poll() is not None, "the interruption")
        wait_for(lambda: process.poll() is not None or not helpers(process.pid), "the end of all children", 5)
        (tmp_path / "go").touch()
        printed, complaints = process.communicate(timeout=100)
        assert process.returncode == 0, complaints
    told = json.loads(printed)
    assert told["interrupted"] == 1
    assert len(told["kept"]) >= (15 if engine == "rows" else 1000)
    assert told["stored"] == told["kept"]
    assert told["others"] == ["not_run"]
    assert told["went on from"] > len(told["kept"])
    assert told["all"]
    assert told["same"]
    assert parfit.open_store(tmp_path / "fits.db").success.all()
