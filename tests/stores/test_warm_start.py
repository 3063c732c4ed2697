"""What a warm start may change, and what not: only where rows begin that have changed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

import parfit

FIRST, THEN = pd.DataFrame({"y": [1.0, 2.0]}), pd.DataFrame({"y": [1.0, 0.5]})


def residuals(p: Any, row: pd.Series) -> Any:
    return np.stack([p["m"] + p["offset"] - row["y"], 0.1 * (p["m"] + p["offset"] - row["y"])])


def fit(data: pd.DataFrame, store: Any, x0: Any, **more: Any) -> parfit.Fits:
    more = {"engine": "rows", "executor": "serial", **more}
    return parfit.fit(data, residuals, x0, store=store, **more)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["rows", "batch"])
@pytest.mark.parametrize("how", ["a frame", "a callable"])
def test_what_is_fixed_stays_where_the_call_says(tmp_path, engine, how):
    if engine == "batch":
        pytest.importorskip("jax")

    def start(data):
        offsets = pd.DataFrame({"m": 0.0, "offset": data["y"] / 10})
        return offsets if how == "a frame" else lambda row: {"m": 0.0, "offset": float(row["y"]) / 10}

    more = {"fixed": ["offset"], "engine": engine, "executor": "serial" if engine == "rows" else None}
    fit(FIRST, tmp_path / "fits.db", start(FIRST), **more)
    if how == "a callable":  # the same one: another would be another call
        again = start(THEN)
        fit(FIRST, tmp_path / "more.db", again, **more)
        found = fit(THEN, tmp_path / "more.db", again, warm_start=True, **more)
    else:
        found = fit(THEN, tmp_path / "fits.db", start(THEN), warm_start=True, **more)
    np.testing.assert_allclose(found.params["offset"], THEN["y"] / 10, rtol=0, atol=0)
    np.testing.assert_allclose(found.params["m"], 0.9 * THEN["y"], rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["rows", "batch"])
def test_bounds_that_exclude_the_old_solution_move_the_start_inside(tmp_path, engine):
    if engine == "batch":
        pytest.importorskip("jax")

    def bounds(row):
        return {"m": (0.0, float(row["y"])), "offset": (0.0, 1.0)}

    more = {"engine": engine, "executor": "serial" if engine == "rows" else None, "fixed": ["offset"]}
    start = {"m": 0.1, "offset": 0.0}
    fit(FIRST, tmp_path / "fits.db", start, bounds=bounds, **more)
    found = fit(THEN, tmp_path / "fits.db", start, bounds=bounds, warm_start=True, **more)
    assert found.success.all()
    np.testing.assert_allclose(found.params["m"], THEN["y"], rtol=1e-6)
