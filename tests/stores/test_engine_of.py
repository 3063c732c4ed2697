"""A call that goes on chooses the engine that it chose first; and `on_error` speaks of what failed before."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

import parfit

TABLE = np.linspace(1.0, 3.0, 3)
DATA = pd.DataFrame({"y": np.linspace(0.5, 3, 30), "which": 1}, index=[f"r{i}" for i in range(30)])
DATA.iloc[0, 1] = 9  # beyond the table: only the rows engine has an error for that


def looked_up(p: Any, row: pd.Series) -> Any:
    scale = np.take(TABLE, row["which"].astype(int))
    return np.stack([p["m"] * scale - row["y"], p["m"] - row["y"] / scale])


def test_a_call_that_was_interrupted_goes_on_with_its_engine(tmp_path):
    pytest.importorskip("jax")

    def stop(done, total):
        if done == 10:
            raise KeyboardInterrupt

    more = {"store": tmp_path / "fits.db", "chunk_size": None}
    with pytest.raises(parfit.FitInterrupted) as caught:
        parfit.fit(DATA, looked_up, {"m": 1.0}, progress=stop, **more)
    assert caught.value.fits.engine == "rows"
    fits = parfit.fit(DATA, looked_up, {"m": 1.0}, **more)
    assert fits.engine == "rows"
    assert fits.status.value_counts().to_dict() | {"error": 1, "converged": 29} == fits.status.value_counts().to_dict()
    longer = pd.concat([DATA, DATA.iloc[1:4].rename(index="{}b".format)])
    assert parfit.fit(longer, looked_up, {"m": 1.0}, **more).engine == "rows"


def test_rows_that_are_left_go_to_the_engine_of_the_others(tmp_path):
    pytest.importorskip("jax")

    def decay(p, row):
        return np.stack([p["m"] - row["y"], 0.1 * p["m"]])

    more = {"store": tmp_path / "fits.db"}
    parfit.fit(DATA.iloc[:5], decay, {"m": 1.0}, engine="rows", executor="serial", **more)
    fits = parfit.fit(DATA, decay, {"m": 1.0}, **more)
    assert fits.engine == "rows"
    assert "the fits that are there are of engine 'rows'" in fits.engine_reason


@pytest.mark.parametrize("engine", ["rows", "batch"])
def test_fits_that_are_all_there_say_so(tmp_path, engine):
    pytest.importorskip("jax")

    def decay(p, row):
        return np.stack([p["m"] - row["y"], 0.1 * p["m"]])

    path, other = tmp_path / "fits.db", {"rows": "batch", "batch": "rows"}[engine]
    parfit.fit(DATA, decay, {"m": 1.0}, engine=engine, store=path)
    for asked in ("auto", engine):
        fits = parfit.fit(DATA, decay, {"m": 1.0}, engine=asked, store=path)
        assert (fits.engine, fits.engine_reason) == (engine, "all fits were in the store")
        assert f"engine {engine}, store {path}" in repr(fits)
    for data in (DATA, pd.concat([DATA, DATA.iloc[:1].rename(index="{}b".format)])):
        with pytest.raises(parfit.StoreMismatchError, match=f"engine '{engine}', and this call would go on with"):
            parfit.fit(data, decay, {"m": 1.0}, engine=other, store=path)
    assert parfit.fit(DATA, decay, {"m": 1.0}, engine=other, store=path, overwrite=True).engine == other


@pytest.mark.parametrize("engine", ["rows", "batch"])
def test_a_folder_of_fits_that_are_all_there_answers_for_its_engine(tmp_path, engine):
    pytest.importorskip("jax")
    pytest.importorskip("pyarrow")

    def decay(p, row):
        return np.stack([p["m"] - row["y"], 0.1 * p["m"]])

    path, other = tmp_path / "fits.parquet", {"rows": "batch", "batch": "rows"}[engine]
    parfit.fit(DATA, decay, {"m": 1.0}, engine=engine, store=path)
    for asked in ("auto", engine):
        assert parfit.fit(DATA, decay, {"m": 1.0}, engine=asked, store=path).engine == engine
    with pytest.raises(parfit.StoreMismatchError, match=f"engine '{engine}', and this call would go on with"):
        parfit.fit(DATA, decay, {"m": 1.0}, engine=other, store=path)
    assert parfit.open_store(path).engine == engine


def test_what_failed_before_is_raised_again_where_errors_are_to_be(tmp_path):
    def moody(p, row):
        if row.name == "r3":
            raise ValueError("no data")
        return p - row.to_numpy()[:1]

    more = {"store": tmp_path / "fits.db", "engine": "rows", "executor": "serial", "on_error": "raise"}
    for _ in range(2):
        with pytest.raises(parfit.FitError, match="dataset 'r3': ValueError: no data"):
            parfit.fit(DATA, moody, [1.0], **more)
