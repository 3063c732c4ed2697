"""Straight lines to fit, and what rows do that go wrong. Workers import this, so it imports little."""

from __future__ import annotations

import os
import re
import signal
import time
from typing import Any

import numpy as np
import pandas as pd
from pandas.testing import assert_frame_equal

import parfit

T = np.linspace(0.0, 4.0, 9)
START = {"height": 1.0, "slope": 0.0}
#: What says how long a row took, and where; everything else is the same on every machine.
NOT_COMPARED = ["seconds", "attempts"]


def lines(rows: int = 60) -> pd.DataFrame:
    """`rows` noisy straight lines, labelled r0, r1, …"""
    rng = np.random.default_rng(5)
    height, slope = rng.normal(3, 1, (rows, 1)), rng.normal(0, 2, (rows, 1))
    values = height + slope * T + 0.1 * rng.standard_normal((rows, len(T)))
    return pd.DataFrame(values, index=[f"r{i}" for i in range(rows)], columns=[f"t{i}" for i in range(len(T))])


def residuals(p: Any, row: Any) -> Any:
    return p["height"] + p["slope"] * T - row.to_numpy()


def squares(p: Any, row: Any) -> float:
    r = residuals(p, row)
    return float(r @ r)


def table(fits: parfit.Fits) -> pd.DataFrame:
    """Everything that a fit says, but for times and attempts."""
    return fits.to_frame().drop(columns=NOT_COMPARED)


def assert_equal_but_for(fits: parfit.Fits, wanted: parfit.Fits, labels: list[Any]) -> None:
    """The same rows in the same order, and bit for bit the same but for those with `labels`."""
    assert fits.labels.equals(wanted.labels)
    assert_frame_equal(table(fits).drop(index=labels), table(wanted).drop(index=labels), check_exact=True)


# ---- what ends a worker

DEATHS = {
    "SIGKILL": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "SIGSEGV": lambda: os.kill(os.getpid(), signal.SIGSEGV),
    "code 3": lambda: os._exit(3),
}


# ---- what never ends


def run_for_ever() -> None:
    while True:
        pass


def sleep_with_every_signal_blocked() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    while True:
        time.sleep(100)


def match_for_ever() -> None:
    """In C, without ever letting go of the GIL."""
    re.match(r"(a+)+$", "a" * 60 + "b")


ENDLESS = [run_for_ever, sleep_with_every_signal_blocked, match_for_ever]
