"""Starting a worker: all of it or nothing, whatever comes in between; and sending to one that does not read yet."""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from parfit.executors import resolve
from parfit.executors.workers import launch
from parfit.executors.workers.idle import shutdown_workers
from tests.workers import children, interrupt_when

pytestmark = pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="Linux")

PATIENCE_S = 20.0


@pytest.fixture(autouse=True)
def nobody_before_and_after():
    shutdown_workers()
    assert children() == []
    yield
    shutdown_workers()
    assert children() == []


def descriptors():
    return psutil.Process().num_fds()


def fails(*_, **__):
    raise OSError("no more processes")


def then_ctrl_c(function, *args, **kwargs):
    made = function(*args, **kwargs)
    os.kill(os.getpid(), signal.SIGINT)
    return made


@pytest.mark.parametrize(
    ("module", "name"),
    [(launch.socket, "socketpair"), (launch, "create_file"), (os, "pipe"), (subprocess, "Popen"), (os, "pidfd_open")],
    ids=lambda value: value if isinstance(value, str) else "",
)
@pytest.mark.parametrize("how", ["failure", "ctrl_c"])
def test_a_start_that_is_cut_short_leaves_nothing(module, name, how, monkeypatch):
    launch.WorkerProcess().close()  # whatever is opened once for good
    before = descriptors()
    real = getattr(module, name)
    monkeypatch.setattr(module, name, fails if how == "failure" else functools.partial(then_ctrl_c, real))
    with pytest.raises(OSError if how == "failure" else KeyboardInterrupt):
        launch.WorkerProcess()
    monkeypatch.undo()
    assert children() == []
    assert descriptors() == before
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_worker_that_nobody_holds_is_ended():
    launch.WorkerProcess().close()
    before = descriptors()
    launch.WorkerProcess()
    assert children() == []
    assert descriptors() == before


class OneIsSlow:
    """A setup that ends at once in one worker, and in the other when it is told to."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self) -> str:
        try:
            (self.folder / "slow").touch(exist_ok=False)
        except FileExistsError:
            return "quick"
        deadline = time.monotonic() + PATIENCE_S
        while not (self.folder / "go").exists():
            if time.monotonic() > deadline:
                raise TimeoutError("the other worker has not got its function")
            time.sleep(0.01)
        return "slow"


def heavy_task():
    weight = b"x" * 20_000_000

    def task(state, x):
        time.sleep(0.01)
        return state, x * len(weight)

    return task


@pytest.mark.parametrize("name", ["processes", "producer_consumer"])
def test_a_heavy_function_waits_for_a_long_setup_and_holds_up_nobody(name, tmp_path):
    with resolve(name, 2).open(OneIsSlow(tmp_path)) as pool:
        found = []
        for outcome in pool.imap_unordered(heavy_task(), ((x, x) for x in range(60))):
            found.append(outcome)
            if len(found) == 5:
                (tmp_path / "go").touch()
        assert sorted(o.result()[1] for o in found) == [x * 20_000_000 for x in range(60)]
        assert {o.result()[0] for o in found[:5]} == {"quick"}
        assert "slow" in {o.result()[0] for o in found}
        again = list(pool.imap_unordered(heavy_task(), [(1, 1)]))
        assert again[0].result()[1] == 20_000_000


def sleep_long(folder: Path) -> None:
    (folder / f"setup-{os.getpid()}").touch()
    (folder / "setup").touch()
    time.sleep(100)


def test_ctrl_c_while_a_heavy_function_waits_for_a_long_setup(tmp_path):
    thread = interrupt_when(tmp_path / "setup")
    with (
        pytest.raises(KeyboardInterrupt),
        resolve("processes", 2).open(functools.partial(sleep_long, tmp_path)) as pool,
    ):
        list(pool.imap_unordered(heavy_task(), [(1, 1), (2, 2)]))
    thread.join()
    assert children() == []
