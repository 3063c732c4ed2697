"""Under a store, with the rows engine: whatever a row does to its process, it is one row with a reason."""

from __future__ import annotations

import gc
import os
import re
import signal
import sys
from pathlib import Path

import psutil
import pytest
from pandas.testing import assert_frame_equal

import parfit
from tests.programs import started, wait_for
from tests.situations.evil import EVIL
from tests.situations.lines import START, assert_equal_but_for, lines, residuals, table
from tests.situations.test_interrupts import alive
from tests.workers import children

pytestmark = pytest.mark.slow

BAD = "r17"


@pytest.fixture(scope="module")
def wanted():
    return parfit.fit(lines(40), residuals, START, executor="serial")


@pytest.fixture(scope="module", autouse=True)
def here():
    """What this process has open, and whom it has started: both as before, at the end of all tests."""
    parfit.shutdown_workers()
    gc.collect()
    process = psutil.Process()
    before = process.num_fds()
    yield
    parfit.shutdown_workers()
    gc.collect()
    assert children() == []
    left = ["sleep", f"{os.getpid()}00"]
    assert [found for found in psutil.process_iter(["cmdline"]) if found.info["cmdline"] == left] == []
    assert process.num_fds() <= before


@pytest.mark.parametrize("name", EVIL)
def test_it_costs_its_own_row_and_a_second_call_goes_on(name, wanted, tmp_path):
    evil, log = EVIL[name], str(tmp_path / "seen")

    def objective(p, row):
        if dict(p) == START:
            with open(log, "a") as file:
                file.write(f"{row.name}\n")
        if row.name == BAD and dict(p) == START:
            EVIL[name].do()
        return residuals(p, row)

    def fit(**more):
        Path(log).unlink(missing_ok=True)
        fits = parfit.fit(
            lines(40),
            objective,
            START,
            engine="rows",
            store=tmp_path / "fits.db",
            workers=2,
            timeout=1,
            retries=0,
            **more,
        )
        return fits, set(Path(log).read_text().split()) if Path(log).exists() else set()

    def check(fits):
        summary = fits.summary.loc[BAD]
        assert len(fits) == 40
        assert str(summary["status"]) == evil.status, summary["message"]
        assert re.search(evil.reason, summary["message"])
        if evil.reason:
            assert_equal_but_for(fits, wanted, [BAD])
        else:
            assert_frame_equal(table(fits), table(wanted), check_exact=True)

    first, seen = fit()
    check(first)
    assert seen == set(wanted.labels)
    again, seen = fit()
    assert seen == set()
    assert_frame_equal(again.to_frame(), first.to_frame(), check_exact=True)
    check(parfit.open_store(tmp_path / "fits.db"))
    retried, seen = fit(retry_failed=True)
    check(retried)
    assert seen == ({BAD} if evil.reason else set())


def test_many_evils_at_once(tmp_path):
    """Each row with the status that it has alone; twice as many good ones between them."""
    names = list(EVIL)
    frame = lines(3 * len(names))
    wanted = parfit.fit(frame, residuals, START, executor="serial")
    evil = {frame.index[3 * i]: name for i, name in enumerate(names)}

    def objective(p, row):
        if row.name in evil and dict(p) == START:
            EVIL[evil[row.name]].do()
        return residuals(p, row)

    more = {"engine": "rows", "workers": 2, "timeout": 1, "retries": 0}
    fits = parfit.fit(frame, objective, START, store=tmp_path / "fits.db", **more)
    found = fits.status.astype(str)
    assert {name: found[label] for label, name in evil.items()} == {name: EVIL[name].status for name in names}
    assert_equal_but_for(fits, wanted, [label for label, name in evil.items() if EVIL[name].reason])


LEFT_RUNNING = """
    import os, pathlib, time
    import numpy as np
    import parfit

    def objective(p, y):
        pid = os.posix_spawnp("sleep", ["sleep", "1000"], os.environ)
        pathlib.Path(f"pid-{pid}").touch()
        time.sleep(1000)

    parfit.fit(np.arange(20.0).reshape(10, 2), objective, [0.0], engine="rows", workers=2)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a group with the process that is gone")
def test_what_rows_have_started_ends_with_a_caller_that_is_killed(tmp_path):
    with started(tmp_path, LEFT_RUNNING) as process:
        wait_for(lambda: len([*tmp_path.glob("pid-*")]) == 2, "programs of two rows")
        programs = [int(path.name.removeprefix("pid-")) for path in tmp_path.glob("pid-*")]
        process.kill()
        try:
            wait_for(lambda: not any(alive(pid) for pid in programs), "the programs' end", 10)
        finally:
            for pid in filter(alive, programs):
                os.kill(pid, signal.SIGKILL)
