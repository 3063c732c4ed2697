"""Objectives that are written with NumPy and pandas, rebound and given the stand-ins of a row or of a group."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm

jax = pytest.importorskip("jax", reason="the batched engine needs jax, which a plain install has not")

import jax.numpy as jnp  # noqa: E402

from parfit.batched.tracing.jaxify import jaxify  # noqa: E402
from parfit.batched.tracing.standins import Column, Group, Row  # noqa: E402

FRAME = pd.DataFrame({"t": [0.0, 1.0, 2.0, 4.0], "y": [3.0, 2.0, 1.0, 0.5]})


@pytest.mark.parametrize(
    "objective",
    [
        lambda p, row: np.exp(row * p) - row["t"],
        lambda p, row: np.sum((p * row) ** 2) + float(row["y"]) + math.exp(p * row["t"]),
        lambda p, row: jnp.sum(jnp.exp(row.to_numpy())) * p + np.dot(row, [1.0, 2.0]) + row.to_numpy() @ row,
        lambda p, row: np.array([p * row["t"], row["y"]]) + np.asarray(row) + np.maximum(row.to_numpy(), 1.0),
        lambda p, row: np.stack([row, row]).sum() + np.log1p(row)["y"] + p + np.std(row) + jax.nn.softplus(row["y"]),
    ],
)
def test_rows(objective):
    row = FRAME.iloc[1]
    want = objective(0.5, row)
    with jax.enable_x64(True):
        function = jaxify(objective)

        def traced(p, values):
            got = function(p, Row(row.index, values))
            return got.numbers() if isinstance(got, Row) else got

        np.testing.assert_allclose(jax.jit(traced)(0.5, row.to_numpy()), want)


@pytest.mark.parametrize("n", [2, 4])
@pytest.mark.parametrize(
    "objective",
    [
        lambda p, g: np.sum((g["y"] - p * np.exp(-g["t"])) ** 2),
        lambda p, g: np.mean((g["y"].to_numpy() - p * np.exp(-g["t"].to_numpy())) ** 2),
        lambda p, g: ((g.y.values - p * g.t.values) ** 2).sum() + np.max(np.abs(g["t"])) + np.std(g["t"]),
        lambda p, g: jnp.sum(jnp.exp(g["t"].to_numpy() * p)) + jnp.mean(jnp.where(g["t"].values > 1, p, 2.0)),
        lambda p, g: -np.sum(norm.logpdf(g["y"], p * g["t"], 1.0)) + np.log(p) * np.nansum(g["y"]),
        lambda p, g: np.trapezoid(g["y"] * p, g["t"]) + np.linalg.norm(g["y"] * p) + np.median(g["y"].values),
        lambda p, g: np.sum(np.where(g["t"] > 1, p, np.asarray(g["y"]))) + np.interp(0.5, np.arange(4), np.ones(4)),
    ],
)
def test_padded_groups(objective, n):
    frame = FRAME.iloc[:n]
    want = objective(0.5, frame)
    with jax.enable_x64(True):
        function = jaxify(objective)
        mask = np.arange(4) < n
        t, y = (np.where(mask, FRAME[name], 50.0) for name in "ty")

        def traced(p, t, y, mask):
            return function(p, Group({"t": Column(t, mask), "y": Column(y, mask)}, frame.columns, mask))

        np.testing.assert_allclose(jax.jit(traced)(0.5, t, y, mask), want)
