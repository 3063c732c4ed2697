"""The limit to tracing: it is raised where a block takes too long, and leaves nothing behind."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import time
from contextlib import suppress

import pytest

pytest.importorskip("jax")

from parfit.batched.tracing.deadline import TracedTooLong, within

PROFILED = """
import cProfile
from parfit.batched.tracing.deadline import within

profile = cProfile.Profile()
profile.enable()
within(60.0, lambda: None)

def call():
    pass

call()
profile.disable()
print("went on")
"""


def spin(seconds: float) -> None:
    begin = time.monotonic()
    while time.monotonic() - begin < seconds:
        pass


def test_a_block_that_takes_too_long_is_stopped() -> None:
    with pytest.raises(TracedTooLong, match="takes too long"):
        within(0.05, lambda: spin(60.0))


def watchers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if "(watch)" in thread.name]


@pytest.mark.parametrize("seconds", [0.0, 1e-6, 1e-4, 0.01])
def test_nothing_comes_after_the_block(seconds: float) -> None:
    """Also where it is over at the very moment at which the exception is to come."""
    for _ in range(100):
        with suppress(TracedTooLong):
            within(seconds, lambda: spin(seconds))
        spin(0.001)
    assert gc.isenabled()
    end = time.monotonic() + 10.0
    while watchers() and time.monotonic() < end:
        time.sleep(0.01)
    assert not watchers()


def test_under_a_profiler() -> None:
    """An exception that was taken back would be looked for in one instruction, for ever."""
    ran = subprocess.run([sys.executable, "-c", PROFILED], capture_output=True, text=True, timeout=30, check=False)
    assert ran.stdout == "went on\n", ran.stderr
