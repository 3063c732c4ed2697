"""A laptop that sleeps, a container that is paused: stopped for longer than a time limit, and no row is late.

SIGSTOP is the nearest to it that a test can do. A real sleep is easier still, since no clock in use counts it.
"""

from __future__ import annotations

import json
import os
import signal
import time

import psutil
import pytest

from tests.programs import started, wait_for

pytestmark = pytest.mark.slow

LIMIT_S = 4.0
SCRIPT = """
    import json, os, pathlib, sys, time
    import numpy as np, pandas as pd
    import parfit

    def objective(p, row):
        if not hasattr(sys, "begun"):  # the first of each worker
            sys.begun = True
            pathlib.Path("begun", str(os.getpid())).touch()
            begin = time.process_time()
            while time.process_time() - begin < 0.3:
                pass
        return p - row.to_numpy()

    pathlib.Path("begun").mkdir()
    data = pd.DataFrame(np.arange(16.0).reshape(8, 2) + 1)
    fits = parfit.fit(data, objective, [0.0, 0.0], executor=sys.argv[1], workers=2, chunk_size=1, engine="rows",
                      timeout=float(sys.argv[2]), store="fits.db")
    print(json.dumps([fits.status.astype(str).tolist(), fits.summary["seconds"].max()]))
"""


@pytest.mark.parametrize("executor", ["processes", "producer_consumer"])
def test_time_in_which_nothing_ran_is_charged_to_no_row(executor, tmp_path):
    with started(tmp_path, SCRIPT, executor, str(LIMIT_S)) as process:
        wait_for(lambda: len([*tmp_path.glob("begun/*")]) >= 2, "rows that have begun")
        family = [process.pid, *(child.pid for child in psutil.Process(process.pid).children(recursive=True))]
        for pid in family:
            os.kill(pid, signal.SIGSTOP)
        time.sleep(LIMIT_S + 1)
        for pid in reversed(family):
            os.kill(pid, signal.SIGCONT)
        printed, complaints = process.communicate(timeout=100)
        assert process.returncode == 0, complaints
        status, longest = json.loads(printed)
        assert status == ["converged"] * 8
        assert longest > LIMIT_S  # they were stopped in the middle of a row
