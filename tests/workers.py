"""For tests of what runs in workers: who is there, and what kills, holds up and interrupts."""

from __future__ import annotations

import contextlib
import gc
import importlib.util
import os
import signal
import threading
import time

import psutil

from parfit.executors import EXECUTORS
from parfit.executors.keeping import kept
from parfit.executors.workers.idle import idle_workers, shutdown_workers

#: What is on its way out is gone within this, s.
GONE_S = 5.0


def executors_here():
    """The names of the executors whose libraries are installed."""
    needs = {"dask": "distributed", "ray": "ray"}
    return [name for name in sorted(EXECUTORS) if importlib.util.find_spec(needs.get(name, "parfit"))]


def _is_worker(process):
    with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
        return "parfit.executors.workers.worker" in " ".join(process.cmdline())
    return False


def children():
    """The workers of this process (not what multiprocessing leaves to track its resources)."""
    return [child for child in psutil.Process().children() if _is_worker(child)]


def _are_at_most(count):
    """That no more workers than this are left, or soon are: `count` is asked again, as what is idle ends by itself."""
    deadline = time.monotonic() + GONE_S
    while len(left := children()) > count() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert len(left) <= count(), f"workers are left: {left}"


def nothing_is_left():
    """For a fixture: around a test after which nothing is to be left but idle workers."""
    yield
    gc.collect()
    kept._registry.shutdown()
    _are_at_most(idle_workers.count)


def nobody_is_there():
    """For a fixture: there are no workers at the beginning of the test."""
    shutdown_workers()
    _are_at_most(lambda: 0)


def kill_self(*_):
    os.kill(os.getpid(), signal.SIGKILL)


def wait_for(*paths):
    while not all(path.exists() for path in paths):
        time.sleep(0.005)


def interrupt_when(*paths):
    """Send this process a Ctrl-C as soon as the files are there."""

    def watch():
        wait_for(*paths)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=watch)
    thread.start()
    return thread
