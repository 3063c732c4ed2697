"""Under a store, with both engines: whatever is in a row's data, it is one row with a status."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import parfit
from tests.situations.lines import START, T, assert_equal_but_for, lines

VALUES = {
    "missing": np.full(len(T), np.nan),
    "one missing": np.where(T == T[3], np.nan, T),
    "infinite": np.where(T == T[3], np.inf, T),
    "minus infinite": np.full(len(T), -np.inf),
    "squares overflow": np.full(len(T), 1e200),
    "largest": np.full(len(T), np.finfo(float).max),
    "alternating": 1e160 * (-1.0) ** np.arange(len(T)),
    "smallest": np.full(len(T), 5e-324),
    "zero": np.zeros(len(T)),
    "minus zero": np.full(len(T), -0.0),
}
NEVER = ["missing", "one missing", "infinite", "minus infinite"]


def decay(p, row):
    return p["height"] * np.exp(-p["slope"] * T) - row.to_numpy()


@pytest.mark.parametrize("engine", ["rows", "batch"])
def test_odd_data_cost_only_their_own_row(engine, tmp_path):
    if engine == "batch":
        pytest.importorskip("jax")
    frame = lines(200).abs()
    bad = dict(zip(frame.index[7::13], VALUES, strict=False))
    assert len(bad) == len(VALUES)
    options = {"engine": engine} | ({"workers": 2, "timeout": 30} if engine == "rows" else {})
    wanted = parfit.fit(frame, decay, START, **options)
    for label, name in bad.items():
        frame.loc[label] = VALUES[name]
    fits = parfit.fit(frame, decay, START, store=tmp_path / "fits.db", **options)
    assert len(fits) == 200
    assert_equal_but_for(fits, wanted, list(bad))
    status = {name: str(fits.status[label]) for label, name in bad.items()}
    assert {status[name] for name in NEVER} == {"nonfinite"}
    assert set(status.values()) <= {"nonfinite", "converged", "stalled", "max_steps", "unmoved", "error"}
    assert (fits.summary.loc[list(bad), "message"] != "").all()
    assert np.isfinite(fits.params[fits.success]).all(axis=None)
    counts: list[int] = []
    again = parfit.fit(
        frame, decay, START, store=tmp_path / "fits.db", progress=lambda done, _: counts.append(done), **options
    )
    assert counts == []
    pd.testing.assert_frame_equal(again.to_frame(), fits.to_frame(), check_exact=True)
