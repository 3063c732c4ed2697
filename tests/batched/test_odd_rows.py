"""Rows that differ from the others: what compiled functions would do otherwise there is seen, and said."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

import parfit

pytest.importorskip("jax", reason="the batched engine needs jax")

pytestmark = [pytest.mark.usefixtures("quickly_compiled"), pytest.mark.filterwarnings("ignore::parfit.ParfitWarning")]

T = np.linspace(0.0, 4.0, 20)


def both(data: Any, objective: Callable[..., Any], x0: Any, **given: Any) -> tuple[parfit.Fits, parfit.Fits]:
    rows = parfit.fit(data, objective, x0, engine="rows", executor="serial", **given)
    return parfit.fit(data, objective, x0, **given), rows


def gappy(rows: int = 30) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    data = pd.DataFrame(3 * np.exp(-rng.uniform(0.2, 2, (rows, 1)) * T) + 0.05 * rng.standard_normal((rows, len(T))))
    data.iloc[7, 3] = np.nan
    return data


@pytest.mark.parametrize(
    "cost",
    [
        lambda p, row: ((p[0] * np.exp(-p[1] * T) - row) ** 2).sum(),
        lambda p, row: ((p[0] * np.exp(-p[1] * T) - row) ** 2).mean(),
        lambda p, row: np.nansum((p[0] * np.exp(-p[1] * T) - row.to_numpy()) ** 2),
    ],
    ids=["sum", "mean", "nansum"],
)
def test_what_is_missing_is_passed_over_in_gradients_too(cost: Callable[..., Any]) -> None:
    batch, rows = both(gappy(), cost, [1.0, 1.0])
    assert batch.engine == "batch"
    assert batch.success.all()
    np.testing.assert_allclose(batch.params, rows.params, rtol=1e-3)
    assert np.isfinite(batch.stderr.loc[7]).all()
    exact = parfit.fit(gappy(), cost, [1.0, 1.0], engine="rows", executor="serial", jac="jax")
    np.testing.assert_allclose(exact.params.loc[7], rows.params.loc[7], rtol=1e-3)


def test_missing_entries_of_groups() -> None:
    wide = gappy()
    data = pd.DataFrame({"group": np.repeat(np.arange(len(wide)), len(T)), "x": np.tile(T, len(wide))})
    data["y"] = wide.to_numpy().ravel()
    groups = data.groupby("group")
    batch, rows = both(groups, lambda p, g: ((p[0] * np.exp(-p[1] * g["x"]) - g["y"]) ** 2).sum(), [1.0, 1.0])
    assert batch.engine == "batch"
    np.testing.assert_allclose(batch.params, rows.params, rtol=1e-3)


def test_residuals_that_are_fewer_than_the_entries_of_a_group() -> None:
    """Their number would be that of the longest, and standard errors too small."""
    rng = np.random.default_rng(0)
    parts = [pd.DataFrame({"g": i, "x": np.linspace(0, 4, 4 + i)}) for i in range(8)]
    data = pd.concat(parts, ignore_index=True)
    data["y"] = 2 * np.exp(-0.7 * data["x"]) + 0.05 * rng.standard_normal(len(data))
    fits = both(
        data.groupby("g"), lambda p, g: np.diff((p[0] * np.exp(-p[1] * g["x"]) - g["y"]).to_numpy()), [1.0, 1.0]
    )
    for fit in fits:
        assert fit.summary["n_residuals"].tolist() == list(range(3, 11))
    assert "residuals for dataset 0, and 10 compiled" in fits[0].engine_reason


def test_an_index_out_of_range() -> None:
    data = pd.DataFrame({"k": np.arange(30) % 4, "y": 1 + np.arange(30) % 7})
    data.loc[8, "k"] = 9
    batch, _ = both(data, lambda p, row: p[row["k"]] - row["y"] + 0 * p, [1.0] * 4)
    assert batch.status[8] == "error"
    assert "IndexError for dataset 8" in batch.engine_reason


def test_division_of_whole_numbers_by_zero() -> None:
    data = pd.DataFrame({"a": 5 + np.arange(30) % 3, "b": 1 + np.arange(30) % 3})
    data.loc[8, "b"] = 0
    with np.errstate(all="ignore"):
        batch, rows = both(data, lambda p, row: p[0] * np.ones(2) - row["a"] // row["b"], [1.0])
    np.testing.assert_allclose(batch.params, rows.params, atol=1e-6)


def test_a_fill_value_is_not_lost() -> None:
    data = pd.DataFrame(np.random.default_rng(0).uniform(1, 2, (30, 3)), columns=list("abc"))
    data.iloc[17, 0] = np.nan
    prior = pd.Series([10.0, 20.0, 30.0], index=list("abc"))
    batch, rows = both(data, lambda p, row: p[0] - row.add(prior, fill_value=0).to_numpy(), [1.0])
    np.testing.assert_allclose(batch.params, rows.params, rtol=1e-6)
    assert "fill_value" in batch.engine_reason


@pytest.mark.parametrize("running", [lambda row: np.cumsum(row.to_numpy()), lambda row: row.cumsum().to_numpy()])
def test_running_sums_of_small_whole_numbers_do_not_overflow(running: Callable[..., Any]) -> None:
    data = pd.DataFrame(np.random.default_rng(0).integers(0, 20, (30, 20)).astype(np.uint8))
    data.iloc[17] = 50
    batch, rows = both(data, lambda p, row: p[0] * np.arange(1, 21) - running(row), [1.0])
    assert batch.engine == "batch"
    np.testing.assert_allclose(batch.params, rows.params, rtol=1e-6)


@pytest.mark.parametrize(
    "cost",
    [
        lambda p, row: np.max(np.abs(p[0] + p[1] * np.exp(-0.7 * T) - row.to_numpy())),
        lambda p, row: np.sum(np.abs(p[0] + p[1] * np.exp(-0.7 * T) - row.to_numpy())),
    ],
    ids=["max", "sum"],
)
def test_a_stop_on_a_slope_without_curvature_is_no_convergence(cost: Callable[..., Any]) -> None:
    rng = np.random.default_rng(3)
    data = pd.DataFrame(1 + 2 * np.exp(-0.7 * T) + 0.1 * rng.standard_normal((40, len(T))))
    fits = parfit.fit(data, cost, [1.0, 1.5])
    best = parfit.fit(data, cost, [1.0, 1.5], method="nelder-mead")
    assert fits.engine == "batch"
    excess = fits.summary["cost"] / np.minimum(best.summary["cost"], fits.summary["cost"]) - 1
    assert (excess[fits.success] < 0.01).all()
    assert (fits.status == "stalled").any()


@pytest.mark.parametrize(
    ("objective", "words"),
    [
        (lambda p, row: p[0] - (row[0] if row[0] > 2 else 0.0) + np.zeros(2), "it branches on a value"),
        (lambda p, row: p[0] - T[row["k"]] + np.zeros(2), "the index into an array of NumPy's"),
        (lambda p, row: p[0] - [1.0, 2.0][row["k"]] + np.zeros(2), "the index into a list"),
    ],
    ids=["branch", "table", "list"],
)
def test_reasons_are_in_words(objective: Callable[..., Any], words: str) -> None:
    data = pd.DataFrame({0: 1 + np.arange(6), "k": np.arange(6) % 2})
    fits = parfit.fit(data, objective, [1.0], workers=1)
    assert fits.engine == "rows"
    assert words in fits.engine_reason
