"""Too many threads, too many workers, workers of workers, forks of a busy process, and a GPU for each of them.

Workers are as many as the cores that are ours, with one thread each; none is forked, and none sees a GPU. Inside
another worker everything is serial, with one warning.
"""

from __future__ import annotations

import importlib.util
import multiprocessing
import os
import sys
import textwrap
import warnings

import numpy as np
import pandas as pd
import psutil
import pytest

import parfit
from parfit import ParfitWarning, apply_by_multiprocessing
from parfit.executors.cpus import worker_count
from tests.programs import run_program
from tests.situations.lines import lines
from tests.workers import children

# ---- how many, and with how many threads


def threads_of_blas(_):
    import threadpoolctl

    np.ones((100, 100)) @ np.ones((100, 100))
    return max(library["num_threads"] for library in threadpoolctl.threadpool_info())


@pytest.mark.parametrize(
    "executor", ["processes", "multiprocessing", "loky", "joblib", "producer_consumer", "serial", "threads"]
)
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
    from joblib.externals.loky import get_reusable_executor

    try:
        with joblib.parallel_config("loky", n_jobs=2):
            assert joblib.Parallel()(joblib.delayed(nested)() for _ in range(2)) == [NESTED, NESTED]
    finally:
        get_reusable_executor().shutdown(wait=True, kill_workers=True)


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


# ---- what is ours of a machine


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """A machine of 64 cores, with control groups that can be written."""
    import loky.backend.context as context

    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(64)), raising=False)
    monkeypatch.delenv("LOKY_MAX_CPU_COUNT", raising=False)
    exists = os.path.exists

    def at(path):
        found = str(path)
        return str(tmp_path / found.removeprefix("/sys/").replace("/", "_")) if found.startswith("/sys/") else path

    monkeypatch.setattr(context.os.path, "exists", lambda path: exists(at(path)))
    monkeypatch.setattr(context, "open", lambda path, *args: open(at(path), *args), raising=False)

    def write(name, text):
        (tmp_path / f"fs_cgroup_{name.replace('/', '_')}").write_text(text)

    return write


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({}, 64),
        ({"cpu.max": "max 100000"}, 64),
        ({"cpu.max": "300000 100000"}, 3),
        ({"cpu.max": "50000 100000"}, 1),
        ({"cpu/cpu.cfs_quota_us": "400000", "cpu/cpu.cfs_period_us": "100000"}, 4),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 64),
    ],
)
def test_the_number_of_workers_follows_the_limits_of_a_container(files, cores, machine):
    for name, text in files.items():
        machine(name, text)
    assert parfit.cpu_count() == cores
    assert worker_count(None) == cores
    assert worker_count(7) == 7


def test_the_number_of_workers_follows_affinity_on_a_large_machine(machine, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3, 17, 40}, raising=False)
    assert parfit.cpu_count() == worker_count(None) == 3


NO_FORKS = """
    import os, sys, threading
    import numpy as np, pandas as pd, parfit
    {start}
    forks = []
    os.register_at_fork(before=lambda: forks.append(1))
    held = threading.Lock()
    held.acquire()  # as another thread of ours would: a fork would have a copy that nobody lets go of
    df = pd.DataFrame({{"a": np.arange(6.0)}})
    def objective(p, row):
        return p - row.to_numpy()
    if __name__ == "__main__":
        for executor in ("processes", "producer_consumer", "multiprocessing", "loky", "joblib"):
            fits = parfit.fit(df, objective, [0.0], executor=executor, workers=2)
            assert fits.success.all(), executor
        print(len(forks))
"""
JAX = "import jax; assert float(jax.jit(lambda x: x + 1)(1.0)) == 2.0"


def test_nobody_is_forked_not_even_after_jax_has_started(tmp_path):
    """jax#18989: what its threads hold at that moment is held for ever in the child."""
    start = JAX if importlib.util.find_spec("jax") is not None else ""
    text = textwrap.dedent(NO_FORKS).format(start=start)
    assert run_program(tmp_path, text, JAX_PLATFORMS="cpu") == "0\n"
