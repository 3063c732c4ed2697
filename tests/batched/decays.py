"""Decays to fit all at once, and the comparison of two tables of fits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

import parfit

T = np.linspace(0.0, 4.0, 15)
#: What says how long a row took; everything else is the same in every run.
NOT_COMPARED = ["seconds", "attempts"]


def decays(rows: int = 12, noise: float = 0.02, seed: int = 4) -> pd.DataFrame:
    """`rows` noisy decays, labelled "row 0", "row 1", …"""
    rng = np.random.default_rng(seed)
    values = rng.uniform(1, 3, (rows, 1)) * np.exp(-rng.uniform(0.3, 1, (rows, 1)) * T)
    return pd.DataFrame(values + noise * rng.standard_normal(values.shape), index=[f"row {i}" for i in range(rows)])


def residuals(p: Any, row: Any) -> Any:
    return p[0] * np.exp(-p[1] * T) - row.to_numpy()


def cost(p: Any, row: Any) -> Any:
    r = residuals(p, row)
    return r @ r


def fit(data: Any = None, objective: Any = residuals, x0: Any = (1.0, 1.0), **given: Any) -> parfit.Fits:
    """A fit by the batched engine, unless another is asked for."""
    return parfit.fit(decays() if data is None else data, objective, x0, **{"engine": "batch", **given})


def table(fits: parfit.Fits) -> pd.DataFrame:
    """Everything that must not depend on where it ran: all but the time."""
    return fits.to_frame().drop(columns=NOT_COMPARED)
