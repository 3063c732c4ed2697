"""Workers that die and rows that never end: each costs its own row, and nobody is left behind."""

from __future__ import annotations

import os
import signal

import psutil
import pytest

import parfit
from parfit.executors import payload
from parfit.executors.workers.launch import WorkerProcess
from tests.contracts.executor_table import survivors
from tests.situations.lines import DEATHS, ENDLESS, START, assert_equal_but_for, lines, residuals, run_for_ever
from tests.workers import children

pytestmark = pytest.mark.slow


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


def test_the_row_that_killed_its_worker_is_tried_again_alone(wanted, monkeypatch):
    """So that a second death costs no other row a try."""
    blocks: list[list[int]] = []
    send = WorkerProcess.send

    def noting(self, word, argument=None, body=None):
        if word == "run":
            blocks.append(payload.loads(body).keys())
        send(self, word, argument, body)

    monkeypatch.setattr(WorkerProcess, "send", noting)

    def objective(p, row):
        if row.name == "r37":
            os.kill(os.getpid(), signal.SIGKILL)
        return residuals(p, row)

    fits = parfit.fit(lines(), objective, START, workers=2, chunk_size=10)
    with_it = [block for block in blocks if 37 in block]
    assert len(with_it) == 2
    assert len(with_it[0]) == 10
    assert with_it[1] == [37]
    assert (fits.summary["attempts"].drop("r37") == 1).all()
    assert_equal_but_for(fits, wanted, ["r37"])


@pytest.mark.parametrize("executor", ["multiprocessing", "loky", "joblib", "producer_consumer"])
def test_elsewhere_too_a_dead_worker_costs_only_its_row(executor, wanted):
    """A pool of another library is broken as a whole by one death."""
    before = {child.pid for child in psutil.Process().children(recursive=True)}

    def objective(p, row):
        if row.name == "r37":
            os.kill(os.getpid(), signal.SIGKILL)
        return residuals(p, row)

    fits = parfit.fit(lines(), objective, START, executor=executor, workers=2)
    assert fits.status["r37"] == "worker_lost"
    assert_equal_but_for(fits, wanted, ["r37"])
    parfit.shutdown_workers()
    assert [found for found in survivors() if int(found.split()[0]) not in before] == []


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
