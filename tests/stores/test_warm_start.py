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


@pytest.mark.parametrize("engine", ["rows", "batch"])
def test_data_that_have_all_changed_go_on_from_their_labels(tmp_path, engine):
    if engine == "batch":
        pytest.importorskip("jax")
    more = {"engine": engine, "executor": "serial" if engine == "rows" else None}
    data = pd.DataFrame({"y": np.linspace(1, 2, 10)}, index=[f"r{i}" for i in range(10)])
    other = data.iloc[::-1] * 1.01

    def objective(p: Any, row: pd.Series) -> Any:
        return np.stack([p["m"] ** 2 - row["y"], 0.5 * (p["m"] ** 2 - row["y"])])

    path = tmp_path / "fits.db"
    old = parfit.fit(data, objective, {"m": 9.0}, store=path, **more)
    with pytest.raises(parfit.StoreMismatchError, match=r"none of its 10 rows is in these as it was\. 10 have labels"):
        parfit.fit(other, objective, {"m": 9.0}, store=path, **more)
    found = parfit.fit(other, objective, {"m": 9.0}, store=path, warm_start=True, **more)
    assert found.success.all()
    assert (found.summary["nfev"] < old.summary["nfev"].min()).all()
    wanted = parfit.fit(other, objective, old.params.loc[other.index], **more)
    np.testing.assert_array_equal(found.params, wanted.params)
    for again in (data, other):  # what was fitted before the data changed is there, too
        fits = parfit.fit(again, objective, {"m": 9.0}, store=path, **more)
        np.testing.assert_array_equal(fits.params, (old if again is data else found).params)
    pd.testing.assert_frame_equal(parfit.open_store(path).params, found.params)


def test_one_label_that_is_known_is_enough_and_none_is_not(tmp_path):
    path = tmp_path / "fits.db"
    data = pd.DataFrame({"y": [1.0, 2.0, 3.0]}, index=["a", "b", "c"])
    fit(data, path, {"m": 0.0, "offset": 0.0}, fixed=["offset"])
    strange = (data * 2).set_axis(["x", "y", "z"])
    for warm_start in (False, True):
        with pytest.raises(parfit.StoreMismatchError, match="none of its 3 rows is in these; overwrite"):
            fit(strange, path, {"m": 0.0, "offset": 0.0}, fixed=["offset"], warm_start=warm_start)
    partly = (data * 2).set_axis(["x", "y", "b"])
    with pytest.raises(parfit.StoreMismatchError, match=r"One has a label of these, .*: warm_start=True fits these"):
        fit(partly, path, {"m": 0.0, "offset": 0.0}, fixed=["offset"])
    found = fit(partly, path, {"m": 0.0, "offset": 0.0}, fixed=["offset"], warm_start=True)
    np.testing.assert_allclose(found.params["m"], [2, 4, 6], rtol=1e-6)
