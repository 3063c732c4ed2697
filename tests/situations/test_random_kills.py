"""``kill -9`` of the workers at random, under a store: the table is that of a run that nobody has disturbed.

`PARFIT_FAULTS_S` is how long they are killed, s; the suite does it for a short while, and
continuous integration for 20 s.
"""

from __future__ import annotations

import contextlib
import os
import random
import threading
import time

import numpy as np
import pandas as pd
import psutil
import pytest
from pandas.testing import assert_frame_equal

import parfit
from tests.workers import children

pytestmark = pytest.mark.slow

KILLING_S = float(os.environ.get("PARFIT_FAULTS_S", "2"))
EVERY_S = 0.2
WORKERS = 3
T = np.linspace(0, 4, 15)


def decays(rows):
    rng = np.random.default_rng(0)
    return pd.DataFrame(rng.uniform(1, 3, (rows, 1)) * np.exp(-rng.uniform(0.3, 1, (rows, 1)) * T))


def residuals(p, row):
    if p[0] == 1.0 and p[1] == 0.99:  # the start
        time.sleep(0.01)
    return quick(p, row)


def quick(p, row):
    return p[0] * np.exp(-p[1] * T) - row.to_numpy()


@contextlib.contextmanager
def killing(first):
    """Kill a worker now and then, whatever it is on, its own beginning included; how many have been killed."""
    draw, done, killed = random.Random(1), threading.Event(), []

    def kill():
        first.wait()
        end = time.monotonic() + KILLING_S
        while time.monotonic() < end and not done.wait(EVERY_S):
            with contextlib.suppress(psutil.NoSuchProcess, IndexError):
                victim = draw.choice(children())
                victim.kill()
                killed.append(victim.pid)

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        yield killed
    finally:
        done.set()
        first.set()
        thread.join()


def run(store, frame, **more):
    return parfit.fit(frame, residuals, [1.0, 0.99], engine="rows", workers=WORKERS, store=store, **more)


@pytest.mark.parametrize("retries", [1000, 1])
def test_workers_that_are_killed_at_random_lose_nothing(tmp_path, retries):
    frame = decays(int(100 * (1 + KILLING_S)))
    parfit.shutdown_workers()
    before = psutil.Process().num_fds()
    first = threading.Event()
    with killing(first) as killed:
        fits = run(tmp_path / "fits.db", frame, retries=retries, progress=lambda done, total: first.set())
    parfit.shutdown_workers()
    assert children() == []
    assert psutil.Process().num_fds() <= before
    assert len(killed) >= KILLING_S
    assert len(fits) == len(frame)
    lost = fits.labels[fits.status == "worker_lost"]
    assert fits.success.drop(lost).all()
    assert len(lost) == 0 or retries == 1
    assert (fits.summary.loc[lost, "attempts"] == 2).all()
    assert all("killed by SIGKILL" in message for message in fits.errors["message"])

    whole, drop = parfit.fit(frame, quick, [1.0, 0.99], executor="serial"), ["seconds", "attempts"]

    def assert_whole(found, but_for):
        a, b = (one.to_frame().drop(columns=drop).drop(index=but_for) for one in (found, whole))
        assert_frame_equal(a, b, check_exact=True)

    assert_whole(fits, lost)
    assert_whole(parfit.open_store(tmp_path / "fits.db"), lost)
    assert_whole(run(tmp_path / "fits.db", frame, retry_failed=True), [])
    print(f"\nretries={retries}: {len(frame)} rows, {len(killed)} workers killed, {len(lost)} rows lost")
