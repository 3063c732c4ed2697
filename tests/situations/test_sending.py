"""Data or model pickled for every row, shared memory that runs out, and a message for each cheap row.

A model travels once to each worker and a row once at all, whatever the executor; /dev/shm and the folder for temporary
files may be small or full; and how many rows travel together follows what they cost.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

import parfit
from parfit.core.tasks import FitTasks
from parfit.executors.workers.launch import WorkerProcess
from tests.programs import run_program
from tests.situations.lines import START, lines, residuals

pytestmark = pytest.mark.slow

ELSEWHERE = ["processes", "multiprocessing", "loky", "joblib", "producer_consumer"]
HERE = ["serial", "threads"]


# ---- once for each worker


class HeavyModel:
    """An objective that is dear to send, and notes each time that it is."""

    pickled = 0

    def __init__(self, folder: Path) -> None:
        self.folder = str(folder)
        self.data = np.ones(20_000_000 // 8)

    def __getstate__(self) -> dict[str, Any]:
        type(self).pickled += 1
        return self.__dict__

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        (Path(self.folder) / f"{os.getpid()}-{os.urandom(4).hex()}").touch()

    def __call__(self, p: Any, row: Any) -> Any:
        return residuals(p, row) * self.data[-1]


@pytest.mark.parametrize(
    ("executor", "how"), [*((executor, "args") for executor in ELSEWHERE), ("processes", "objective")]
)
def test_a_heavy_model_is_pickled_once_and_arrives_once_in_each_worker(executor, how, tmp_path):
    """emcee#199, sciris#621, pandarallel#68: data and model were pickled for every task."""
    model = HeavyModel(tmp_path)
    HeavyModel.pickled = 0
    objective, args = (model, ()) if how == "objective" else ((lambda p, row, m: m(p, row)), (model,))
    fits = parfit.fit(lines(80), objective, START, args=args, executor=executor, workers=2, chunk_size=4)
    assert fits.success.all()
    assert HeavyModel.pickled == 1
    arrivals = [path.name.split("-")[0] for path in tmp_path.iterdir()]
    assert 1 <= len(arrivals) <= 2
    assert len(set(arrivals)) == len(arrivals)
    parfit.shutdown_workers()


@pytest.mark.parametrize("executor", HERE)
def test_within_this_process_nothing_is_pickled(executor, tmp_path):
    model = HeavyModel(tmp_path)
    HeavyModel.pickled = 0
    assert parfit.fit(lines(20), model, START, executor=executor).success.all()
    assert HeavyModel.pickled == 0
    assert list(tmp_path.iterdir()) == []


class Reading:
    """A dataset that counts how often it is sent."""

    sent: ClassVar[list[int]] = []

    def __init__(self, value: int) -> None:
        self.value = value

    def __getstate__(self) -> dict[str, Any]:
        type(self).sent.append(self.value)
        return self.__dict__


@pytest.mark.parametrize("executor", ELSEWHERE)
def test_each_dataset_is_sent_once(executor):
    Reading.sent.clear()
    fits = parfit.fit(
        [Reading(i) for i in range(40)], lambda p, reading: [p[0] - reading.value], [0.0], executor=executor, workers=2
    )
    np.testing.assert_allclose(fits.params["x0"], range(40), atol=1e-6)
    # The executor that keeps data looks at what it is, to notice a change, before it sends it.
    times = 2 if executor == "producer_consumer" else 1
    assert sorted(Reading.sent) == sorted(list(range(40)) * times)


UNSENDABLE = """
    import gc, threading, numpy as np, parfit
    lock, data = threading.Lock(), [np.ones(1000) for _ in range(4)]
    def load(array): return lock, array
    def score(p, array): return lock, array
    def fitted():
        parfit.fit(data, score, [0.0], executor="producer_consumer", workers=2)
    for call in (
        fitted,
        lambda: parfit.ProducerConsumer(load, data, lambda p, array: 1.0, n_cores=2).run(1),
        lambda: parfit.ProducerConsumer(lambda array: array, data, score, n_cores=2).run(1),
    ):
        try:
            call()
        except parfit.SetupError as exc:
            print("lock" in str(exc))
        gc.collect()
"""


def test_what_cannot_be_sent_beside_data_leaves_the_caller_whole(tmp_path):
    """The garbage that its exception leaves held the memory of arrays, and its collection ended the interpreter."""
    assert run_program(tmp_path, UNSENDABLE) == "True\n" * 3


# ---- memory that is small or full


def with_small_folder(folder: Path, small: str, size: str, text: str, *arguments: str, fill: bool, **env: str) -> str:
    """Run a script where one folder is a file system of its own, of some size, and (if `fill`) has no room left."""
    unshare = shutil.which("unshare")
    mount = f"mount -t tmpfs -o size={size} tmpfs {small}"
    tried = unshare and subprocess.run([unshare, "-m", "sh", "-c", mount], capture_output=True, check=False)
    if not tried or tried.returncode:
        pytest.skip(f"this system lets nobody mount a small {small}")
    if fill:
        mount += f" && {{ dd if=/dev/zero of={small}/full bs=64k 2>/dev/null || true; }}"
    prefix = (str(unshare), "-m", "sh", "-c", f'{mount} && exec "$@"', "sh")
    return run_program(folder, text, *arguments, prefix=prefix, **env)


SHARED = """
    import os, shutil, sys, numpy as np, pandas as pd, parfit
    executor, small = sys.argv[1:]
    shared = np.ones(20_000_000 // 8)
    print(shutil.disk_usage(small).total <= 2**24)
    T = np.arange(5.0)
    df = pd.DataFrame(np.outer(np.arange(60.0), T))
    def objective(p, row):
        return (p[0] * T - row.to_numpy()) * shared[-1]
    fits = parfit.fit(df, objective, [1.0], executor=executor, workers=3)
    print(bool(fits.success.all()), bool(np.allclose(fits.params["x0"], np.arange(60))))
    big = pd.DataFrame({"a": np.arange(3), "b": [np.ones(2_500_000)] * 3})
    print(parfit.apply_by_multiprocessing(big, lambda row: row["b"].sum(), 3, executor=executor).tolist())
"""
PRINTED = ["True", "True True", "[2500000.0, 2500000.0, 2500000.0]"]


@pytest.mark.parametrize(
    ("executor", "fill"),
    [("processes", False), ("processes", True), ("joblib", False)],
    ids=["small", "full", "joblib"],
)
def test_shared_memory_that_is_small_or_full_does_not_matter(executor, fill, tmp_path):
    """joblib#513, pandarallel#68: a container has 64 MB of /dev/shm for 500 MB of data; here, 16 for 20."""
    printed = with_small_folder(tmp_path, "/dev/shm", "16m", SHARED, executor, "/dev/shm", fill=fill)
    assert printed.splitlines() == PRINTED


@pytest.mark.parametrize("executor", ["processes", "loky"])
def test_a_folder_for_temporary_files_that_is_full_does_not_matter(executor, tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    printed = with_small_folder(
        tmp_path, str(small), "1m", SHARED, executor, str(small), fill=True, TMPDIR=str(small), JOBLIB_TEMP_FOLDER=""
    )
    assert printed.splitlines() == PRINTED


# ---- how many travel together


@pytest.fixture
def blocks(monkeypatch):
    """The sizes of the blocks that rows were cut into, in their order."""
    sizes: list[int] = []
    take = FitTasks.take

    def counting(self: Any, n: int) -> Any:
        block = take(self, n)
        if block is not None:
            sizes.append(len(block))
        return block

    monkeypatch.setattr(FitTasks, "take", counting)
    return sizes


@pytest.mark.parametrize("executor", [*HERE, "processes", "multiprocessing", "loky", "joblib"])
def test_dear_rows_travel_alone_and_cheap_ones_together(executor, blocks):
    """swifter#30, jdaviz#187: parallel was slower than serial, since each row was a message."""
    dear = [f"r{i}" for i in range(8)]

    def objective(p: Any, row: Any) -> Any:
        if row.name in dear and p["height"] == START["height"]:
            threading.Event().wait(0.05)
        return residuals(p, row)

    workers = None if executor == "serial" else 2
    fits = parfit.fit(lines(600), objective, START, executor=executor, workers=workers)
    assert fits.success.all()
    assert sum(blocks) == 600
    assert blocks[:8] == [1] * 8
    assert max(blocks) > 4
    assert len(blocks) < 300


def test_a_block_is_one_message_each_way(blocks, monkeypatch):
    sent, heard = [], []
    send, read = WorkerProcess.send, WorkerProcess.read

    def counting(self: Any, word: str, *rest: Any) -> None:
        if word == "run":
            sent.append(self)
        send(self, word, *rest)

    def listening(self: Any) -> Any:
        word = read(self)
        heard.append(word)
        return word

    monkeypatch.setattr(WorkerProcess, "send", counting)
    monkeypatch.setattr(WorkerProcess, "read", listening)
    fits = parfit.fit(lines(3000), residuals, START, workers=2)
    assert len(fits) == 3000
    assert len(sent) == len(blocks) < 1000
    sent.clear()
    parfit.apply_by_multiprocessing(lines(20_000), lambda row: row.iloc[0], 2)
    assert 0 < len(sent) < 1000


def test_a_size_that_was_asked_for_is_kept_to(blocks):
    parfit.fit(lines(25), residuals, START, workers=2, chunk_size=10)
    assert blocks == [10, 10, 5]
