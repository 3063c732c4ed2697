"""Straight lines to fit: rows whose answers are known, and what is done to them."""

from __future__ import annotations

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
