"""Datasets of unequal length: padded and masked they are fitted as each is alone, by few compiled programs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

import parfit
from tests.batched.decays import table

pytest.importorskip("jax", reason="the batched engine needs jax")
from parfit import batched
from parfit.batched import plan as plans

pytestmark = pytest.mark.usefixtures("quickly_compiled")
LENGTHS = [3, 4, 5, 7, 8, 9, 11, 12, 13, 15, 16, 17, 19, 23, 29, 31, 32, 33, 47, 60]
TIGHT = {"ftol": 1e-14, "xtol": 1e-14, "gtol": 1e-14}


def groups(lengths: list[int] = LENGTHS, seed: int = 2) -> pd.DataFrame:
    """A table of decays, one for each length."""
    rng = np.random.default_rng(seed)
    parts = []
    for k, n in enumerate(lengths):
        t = np.sort(rng.uniform(0, 4, n))
        y = rng.uniform(1, 3) * np.exp(-rng.uniform(0.3, 1) * t) + 0.02 * rng.standard_normal(n)
        parts.append(pd.DataFrame({"county": f"c{k:02}", "t": t, "y": y, "sigma": rng.uniform(0.5, 2, n)}))
    return pd.concat(parts, ignore_index=True)


LONG = groups()


def residuals(p: Any, part: Any) -> Any:
    return (p["a"] * np.exp(-p["b"] * part["t"]) - part["y"]) / part["sigma"]


def squares(p: Any, part: Any) -> Any:
    return (residuals(p, part) ** 2).sum()


def mean_of_squares(p: Any, part: Any) -> Any:
    return np.mean(residuals(p, part) ** 2) / part["sigma"].mean()


def fit(data: pd.DataFrame = LONG, objective: Any = residuals, **given: Any) -> parfit.Fits:
    given = {"options": TIGHT, "engine": "batch", **given}
    return parfit.fit(data.groupby("county"), objective, {"a": 1.0, "b": 1.0}, **given)


def assert_as_alone(objective: Any, rtol: float, **given: Any) -> parfit.Fits:
    """Each group as in a fit of its own, in which nothing is padded; three of them, since each is a program."""
    whole = fit(objective=objective, **given)
    assert whole.success.all()
    for label in ("c00", "c10", "c19"):
        alone = fit(LONG[LONG["county"] == label], objective, **given)
        mine, its = whole[label], alone[label]
        np.testing.assert_allclose(mine.cost, its.cost, rtol=1e-10)
        np.testing.assert_allclose(list(mine.x.values()), list(its.x.values()), rtol=rtol)
        np.testing.assert_allclose(mine.cov, its.cov, rtol=max(rtol, 1e-8))
        assert (mine.n_residuals, mine.rank) == (its.n_residuals, its.rank)
    return whole


@pytest.mark.slow
def test_padded_residuals_are_those_of_the_group_alone() -> None:
    whole = assert_as_alone(residuals, 1e-10)
    assert whole.summary["n_residuals"].tolist() == LENGTHS
    rows = fit(engine="rows", executor="serial")
    np.testing.assert_allclose(whole.summary["cost"], rows.summary["cost"], rtol=1e-10)
    np.testing.assert_allclose(whole.params, rows.params, rtol=1e-6)
    np.testing.assert_allclose(whole.stderr, rows.stderr, rtol=1e-5)


SCALAR = {"ftol": 1e-15, "gtol": 1e-10}


@pytest.mark.parametrize("objective", [squares, mean_of_squares])
def test_sums_and_means_do_not_see_the_padding(objective: Any) -> None:
    whole = fit(objective=objective, options=SCALAR)
    wanted = fit()
    assert (whole.summary["n_residuals"] == -1).all()
    np.testing.assert_allclose(whole.params, wanted.params, rtol=1e-5)
    for label, part in LONG.groupby("county"):
        found = whole[label]
        np.testing.assert_allclose(found.cost, objective(found.x, part), rtol=1e-10)


def test_few_programs_are_compiled_for_many_lengths_and_none_for_a_refit() -> None:
    objective = lambda p, part: 2 * residuals(p, part)  # noqa: E731
    before = programs()
    fits = fit(objective=objective)
    assert programs() - before <= 2  # the steps, and the Jacobian where the normal equations are not exact enough
    before = programs()
    for _ in range(5):
        fits = fits.refit("all")
    fit(groups(LENGTHS[::-1], seed=3), objective)
    assert programs() == before


def programs() -> int:
    found = batched.counts()
    return found.compiled + found.loaded


def test_lengths_that_differ_much_have_programs_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where padding all to the longest would cost more than a compilation."""
    monkeypatch.setattr(plans, "_PADDING", 100)
    before = programs()
    found = fit()
    assert programs() - before <= 4  # for 8, 16, 32 and 60
    pd.testing.assert_frame_equal(table(found), table(fit()), rtol=1e-9)


def test_a_group_too_small_costs_only_itself() -> None:
    data = groups([5, 1, 4, 3, 2])
    fits = fit(data)
    assert fits.status.tolist() == ["converged", "invalid", "converged", "converged", "converged"]
    assert "1 residual cannot determine 2 free parameters" in fits.summary.loc["c01", "message"]
    rows = fit(data, engine="rows", executor="serial")
    assert fits.status.tolist() == rows.status.tolist()
    assert fits.summary["message"].iloc[1] == rows.summary["message"].iloc[1]


def test_missing_values_are_left_to_the_objective() -> None:
    data = LONG.copy()
    data.loc[data.index[::7], "y"] = np.nan
    bad = data.groupby("county")["y"].apply(lambda y: y.isna().any())
    fits = fit(data)
    assert (fits.status[bad] == "nonfinite").all()
    assert fits.success[~bad].all()

    def forgiving(p: Any, part: Any) -> Any:
        return np.where(part["y"].isna(), 0.0, residuals(p, part))

    fits = fit(data, forgiving)
    assert fits.success.all()
    dropped = fit(data.dropna())
    np.testing.assert_allclose(fits.summary["cost"], dropped.summary["cost"], rtol=1e-9, atol=1e-15)


def test_arrays_and_mappings_of_unequal_length() -> None:
    wanted = fit()
    arrays = {label: part[["t", "y", "sigma"]].to_numpy() for label, part in LONG.groupby("county")}
    columns = {label: {c: part[c].to_numpy() for c in ("t", "y", "sigma")} for label, part in LONG.groupby("county")}
    of_array = lambda p, d: (p["a"] * np.exp(-p["b"] * d[:, 0]) - d[:, 1]) / d[:, 2]  # noqa: E731
    for data, objective in ((arrays, of_array), (columns, residuals)):
        found = parfit.fit(data, objective, {"a": 1.0, "b": 1.0}, engine="batch", options=TIGHT)
        assert found.success.all()
        np.testing.assert_allclose(found.params, wanted.params, rtol=1e-8)
        assert found.summary["n_residuals"].tolist() == LENGTHS
