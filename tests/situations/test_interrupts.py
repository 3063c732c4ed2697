"""A Ctrl-C in the middle of a run: the finished rows are kept, nobody is left behind, and the next call works."""

from __future__ import annotations

import json
import os
import signal

import psutil
import pytest

from tests.programs import started, wait_for

pytestmark = pytest.mark.slow

SCRIPT = """
    import json, os, pathlib, sys, time, warnings
    import numpy as np, pandas as pd
    import parfit

    executor = sys.argv[1]

    def objective(p, row):
        folder = pathlib.Path("seen")
        (folder / f"pid-{os.getpid()}").touch()
        if row.name >= 6 and not folder.joinpath("again").exists():
            (folder / "waiting").touch()
            time.sleep(100)
        return p - row.to_numpy()

    if __name__ == "__main__":
        pathlib.Path("seen").mkdir()
        df = pd.DataFrame(np.arange(40.0).reshape(20, 2))
        told = {}
        try:
            parfit.fit(df, objective, [0.0, 0.0], executor=executor, workers=2)
        except parfit.FitInterrupted as exc:
            told["message"] = str(exc)
            fits = exc.fits
            status = fits.status.astype(str)
            told["n"] = len(fits)
            told["kept"] = status[status == "converged"].index.tolist()
            told["others"] = sorted(set(status[status != "converged"]))
            told["right"] = bool(np.allclose(fits.params[fits.success], df[fits.success], atol=1e-6))
            told["kind"] = [kind.__name__ for kind in type(exc).__mro__[:2]]
        print(json.dumps(told), flush=True)
        pathlib.Path("interrupted").touch()
        while not pathlib.Path("go").exists():
            time.sleep(0.02)
        pathlib.Path("seen", "again").touch()
        fits = parfit.fit(df, objective, [0.0, 0.0], executor=executor, workers=2)
        print(bool(fits.success.all()), flush=True)
"""
CASES = [("processes", "group"), ("processes", "parent"), ("producer_consumer", "parent"), ("loky", "group")]


@pytest.mark.parametrize(("executor", "whom"), [*CASES, ("joblib", "parent"), ("multiprocessing", "group")])
def test_ctrl_c_keeps_what_is_finished_leaves_nobody_and_the_next_call_works(executor, whom, tmp_path):
    """joblib#181, dask#1439, loky#477: to the process group as a terminal does, or to the parent as Jupyter does."""
    with started(tmp_path, SCRIPT, executor) as process:
        seen = tmp_path / "seen"
        wait_for(lambda: (seen / "waiting").exists() or process.poll() is not None, "a row that takes long")
        wait_for(lambda: len([*seen.glob("pid-*")]) >= 1, "workers")
        if whom == "group":
            os.killpg(process.pid, signal.SIGINT)
        else:
            os.kill(process.pid, signal.SIGINT)
        wait_for(lambda: (tmp_path / "interrupted").exists() or process.poll() is not None, "the interruption")
        workers = [int(path.name.removeprefix("pid-")) for path in seen.glob("pid-*")]
        wait_for(lambda: not any(alive(pid) for pid in workers), "the workers' end", 5)
        wait_for(lambda: not helpers(process.pid), "the end of all children", 5)
        (tmp_path / "go").touch()
        printed, complaints = process.communicate(timeout=100)
        assert process.returncode == 0, complaints
        first, *rest = printed.splitlines()
        told = json.loads(first)
        assert rest == ["True"]
        assert told["kind"] == ["FitInterrupted", "KeyboardInterrupt"]
        assert told["n"] == 20
        assert told["kept"]
        assert max(told["kept"]) < 6
        assert told["others"] == ["not_run"]
        assert told["right"]
        assert told["message"] == f"interrupted with {len(told['kept'])} of 20 datasets done; see .fits"


def alive(pid):
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def helpers(pid):
    """Children of a process, but for the one that the standard library keeps to track its resources."""
    found = []
    for child in psutil.Process(pid).children(recursive=True):
        try:
            if "resource_tracker" not in " ".join(child.cmdline()) and child.status() != psutil.STATUS_ZOMBIE:
                found.append(child)
        except psutil.NoSuchProcess:
            continue
    return found
