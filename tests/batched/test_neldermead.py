"""The batched Nelder-Mead method takes SciPy's path, row by row."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize

pytest.importorskip("jax", reason="the batched engine needs jax: pip install 'parfit[jax]'")

import parfit

DATA = np.random.default_rng(0).normal(size=(20, 3))
START = [-1.2, 1.0, 0.5]
BOX = [(-2, 0.5), (-1, 2), (None, 0.7)]


def valley(p: Any, d: Any) -> Any:
    return 100 * (p[1] - p[0] ** 2) ** 2 + (1 - p[0]) ** 2 + (p[2] - d[0]) ** 2 + 0.1 * (d**2).sum()


@pytest.mark.parametrize("options", [{}, {"adaptive": True}, {"maxiter": 50}, {"maxfev": 60}], ids=str)
@pytest.mark.parametrize("bounds", [None, BOX], ids=["free", "box"])
def test_each_row_takes_scipys_path(options, bounds):
    fits = parfit.fit(DATA, valley, START, method="Nelder-Mead", bounds=bounds, options=options, engine="batch")
    wanted = [minimize(valley, START, (d,), method="Nelder-Mead", bounds=bounds, options=options) for d in DATA]
    summary = fits.summary
    assert summary["nfev"].tolist() == [one.nfev for one in wanted]
    assert summary["nit"].tolist() == [one.nit for one in wanted]
    np.testing.assert_allclose(summary["cost"], [one.fun for one in wanted], rtol=1e-7)
    assert summary["success"].tolist() == [one.success for one in wanted]


def test_what_is_fixed_in_some_rows_stays_and_the_others_move():
    frame = pd.DataFrame(DATA)
    upper = pd.DataFrame({"a": np.where(np.arange(20) % 2, 5.0, -1.2), "b": 5.0, "c": 5.0})
    lower = pd.DataFrame({"a": np.where(np.arange(20) % 2, -5.0, -1.2), "b": -5.0, "c": -5.0})

    def objective(p: Any, row: Any) -> Any:
        return valley([p["a"], p["b"], p["c"]], row.to_numpy())

    start = dict(zip("abc", START, strict=True))
    call = {"method": "Nelder-Mead", "bounds": (lower, upper)}
    batch = parfit.fit(frame, objective, start, engine="batch", **call)
    rows = parfit.fit(frame, objective, start, engine="rows", executor="serial", **call)
    assert (batch.params["a"][::2] == -1.2).all()
    assert batch.summary["nfev"].tolist() == rows.summary["nfev"].tolist()
    np.testing.assert_allclose(batch.summary["cost"], rows.summary["cost"], rtol=1e-7)
