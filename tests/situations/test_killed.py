"""A store on disk: ``kill -9`` of the process that fits, again and again, loses nothing that was finished.

Thirty times in a row; the batched engine too where `PARFIT_FAULTS_S` is set, as continuous integration sets it.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections import Counter

import pytest
from pandas.testing import assert_frame_equal

import parfit
from parfit import StoreError
from tests.programs import environment, written

pytestmark = pytest.mark.slow

#: How often it is killed, and how many datasets travel together.
KILLS, CHUNK, WORKERS = 30, 4, 2

SCRIPT = """
    import os, sys, time
    import numpy as np, pandas as pd
    import parfit

    store, log, engine, rows = *sys.argv[1:4], int(sys.argv[4])
    t = np.linspace(0, 4, 15)
    rng = np.random.default_rng(0)
    data = pd.DataFrame(rng.uniform(1, 3, (rows, 1)) * np.exp(-rng.uniform(0.3, 1, (rows, 1)) * t))

    def slow(p, row):
        if p[0] == 1.0 and p[1] == 0.99:  # the start
            with open(os.environ["SEEN"], "a") as file:
                file.write(f"{os.environ['RUN']} {row.name}\\n")
            time.sleep(0.006)
        return p[0] * np.exp(-p[1] * t) - row.to_numpy()

    def quick(p, row):
        return p[0] * np.exp(-p[1] * t) - row.to_numpy()

    more = {"executor": "processes", "workers": 2, "chunk_size": 4} if engine == "rows" else {}
    said = []

    def progress(done, total):
        if not said:
            said.append(done)
            print("going", flush=True)

    print("begin", flush=True)
    objective = slow if engine == "rows" else quick
    more["progress"] = progress if engine == "rows" else False
    fits = parfit.fit(data, objective, [1.0, 0.99], store=store, engine=engine, **more)
    print("end", int(fits.success.sum()), flush=True)
"""


def run(folder, store, engine, rows, number, kill_after=None, come=lambda: True):
    """One process, killed some time after its first dataset, or its begin, and what is to come; how long, if it ended.

    In seconds, from there on.
    """
    command = [sys.executable, str(folder / "script.py"), str(store), "log", engine, str(rows)]
    env = environment(SEEN=str(folder / "seen"), RUN=str(number))
    with subprocess.Popen(command, cwd=folder, env=env, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begin\n"
        line = process.stdout.readline() if engine == "rows" else ""
        begin = time.perf_counter()
        if kill_after is not None and not line.startswith("end"):
            while not come() and process.poll() is None:
                time.sleep(0.001)
            time.sleep(kill_after)
            process.kill()
        ended = "end" in line or process.stdout.readline().startswith("end")
        took = time.perf_counter() - begin
        process.wait(60)
    return took if ended else None


def whole_s(folder, ending, engine, rows):
    """How long an uninterrupted run takes, s, into ``whole.<ending>``; one before it compiles."""
    for name in ("first", "whole"):
        takes_s = run(folder, folder / f"{name}.{ending}", engine, rows, "whole")
        assert takes_s is not None
    (folder / "seen").unlink(missing_ok=True)
    return takes_s


@pytest.mark.parametrize(("engine", "rows"), [("rows", 400), ("batch", 60_000)])
def test_a_killed_run_goes_on_where_it_was(tmp_path, engine, rows):
    if engine == "batch":
        pytest.importorskip("jax")
    written(tmp_path, SCRIPT)
    takes_s = whole_s(tmp_path, "db", engine, rows)
    store, draw = tmp_path / "fits.db", random.Random(1)
    kills = KILLS if engine == "rows" or "PARFIT_FAULTS_S" in os.environ else KILLS // 5
    done, killed = -1, 0
    for number in range(kills):
        after_s = draw.uniform(0, 0.08 if engine == "rows" else takes_s)
        if run(tmp_path, store, engine, rows, number, after_s) is None:
            killed += 1
        elif engine == "batch":  # it was faster than the kill, and all that come after it would be
            store.unlink()
            done = -1
            continue
        try:
            before, done = done, int(parfit.open_store(store).success.sum())
        except StoreError:
            continue  # before there was one
        assert done >= before  # nothing that was there is lost
    assert killed >= kills // 3
    assert run(tmp_path, store, engine, rows, "last") is not None
    found, whole = parfit.open_store(store), parfit.open_store(tmp_path / "whole.db")
    assert found.success.all()
    assert_frame_equal(found.params, whole.params, check_exact=True)
    assert_frame_equal(found.stderr, whole.stderr, check_exact=True)
    drop = ["seconds", "attempts"]
    assert_frame_equal(found.summary.drop(columns=drop), whole.summary.drop(columns=drop), check_exact=True)
    if engine == "rows":
        lines = (tmp_path / "seen").read_text().split("\n")[:-1]
        runs_of = Counter(line.split()[1] for line in set(lines))
        twice = sum(count - 1 for count in runs_of.values())
        assert twice <= killed * WORKERS * CHUNK  # what its workers had under way
        assert len(runs_of) == rows
