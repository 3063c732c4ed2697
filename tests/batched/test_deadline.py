"""The limit to tracing: it is raised where a block takes too long, and leaves nothing behind."""

from __future__ import annotations

import gc
import subprocess
import sys
import time

import pytest

pytest.importorskip("jax")

from parfit.batched.tracing.deadline import TracedTooLong, deadline

PROFILED = """
import cProfile
from parfit.batched.tracing.deadline import deadline

profile = cProfile.Profile()
profile.enable()
with deadline(60.0):
    pass

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
    with pytest.raises(TracedTooLong, match="takes too long"), deadline(0.05):
        spin(60.0)


def test_nothing_comes_after_the_block() -> None:
    for _ in range(20):
        try:
            with deadline(0.01):
                spin(0.01)
        except TracedTooLong:
            pass
        spin(0.001)
    assert gc.isenabled()


def test_under_a_profiler() -> None:
    """An exception that was taken back would be looked for in one instruction, for ever."""
    ran = subprocess.run([sys.executable, "-c", PROFILED], capture_output=True, text=True, timeout=30, check=False)
    assert ran.stdout == "went on\n", ran.stderr
