"""Covariances, standard errors, ranks and intervals, with NIST, closed forms and `curve_fit` as referees."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize, stats

import parfit
from parfit.inference import from_jacobian
from tests.problems import NIST, Curve, line

T = np.linspace(0.0, 4.0, 15)


def decays(rows: int = 4, noise: float = 0.05) -> pd.DataFrame:
    rng = np.random.default_rng(3)
    height, rate = rng.uniform(1, 3, (rows, 1)), rng.uniform(0.3, 1, (rows, 1))
    return pd.DataFrame(height * np.exp(-rate * T) + noise * rng.standard_normal((rows, T.size)))


def curve(t, height, rate):
    return height * np.exp(-rate * t)


def residuals(p, row):
    return curve(T, *p) - row.to_numpy()


@pytest.mark.parametrize("problem", NIST, ids=repr)
def test_nist_figures_agree_with_one_another(problem: Curve) -> None:
    r = problem.residuals(np.array(problem.params), problem.y)
    assert float(r @ r) == pytest.approx(problem.rss, rel=1e-9)


@pytest.mark.parametrize("method", ["lm", "trf"])
@pytest.mark.parametrize("problem", NIST, ids=repr)
def test_nist_parameters_and_standard_deviations(problem: Curve, method: str) -> None:
    tight = {"xtol": 1e-13, "ftol": 1e-13, "gtol": 1e-13, "max_nfev": 5000, "x_scale": "jac"}
    data = pd.DataFrame([problem.y] * len(problem.starts))
    x0 = pd.DataFrame(problem.starts)
    fits = parfit.fit(data, problem.residuals, x0, method=method, options=tight, executor="serial")
    assert fits.success.all(), fits.summary["message"].tolist()
    np.testing.assert_allclose(2 * fits.summary["cost"], problem.rss, rtol=1e-8)
    np.testing.assert_allclose(fits.params, [problem.params] * len(data), rtol=1e-6)
    np.testing.assert_allclose(fits.stderr, [problem.stderr] * len(data), rtol=1e-4)
    assert (fits.summary["rank"] == len(problem.params)).all()


def test_line_in_closed_form() -> None:
    rng = np.random.default_rng(0)
    x = np.linspace(-1, 2, 12)
    data = pd.DataFrame(1.5 + 0.7 * x + rng.standard_normal((5, 12)))
    fits = parfit.fit(
        data, lambda p, row: p["a"] + p["b"] * x - row.to_numpy(), {"a": 0.0, "b": 0.0}, executor="serial"
    )
    for label, row in data.iterrows():
        p, cov, rss = line(x, row.to_numpy())
        np.testing.assert_allclose(fits.params.loc[label], p, rtol=1e-7)
        np.testing.assert_allclose(fits.cov(label), cov, rtol=1e-6)
        assert 2 * fits[label].cost == pytest.approx(rss)
    assert list(fits.cov(0).columns) == list(fits.cov(0).index) == ["a", "b"]


@pytest.mark.parametrize("bounds", [(-np.inf, np.inf), ([0.0, 0.0], [9.0, 9.0])], ids=["free", "bounded"])
def test_as_curve_fit_with_trf(bounds) -> None:
    data = decays()
    fits = parfit.fit(data, residuals, [1.0, 1.0], bounds=bounds, method="trf", executor="serial")
    for label, row in data.iterrows():
        popt, pcov = optimize.curve_fit(curve, T, row.to_numpy(), [1.0, 1.0], bounds=bounds, method="trf")
        assert np.array_equal(fits.params.loc[label], popt)
        np.testing.assert_allclose(fits.cov(label), pcov, rtol=1e-12)
        np.testing.assert_allclose(fits.stderr.loc[label], np.sqrt(np.diag(pcov)), rtol=1e-12)


def test_as_curve_fit_with_lm() -> None:
    data = decays()
    fits = parfit.fit(data, residuals, [1.0, 1.0], executor="serial")
    for label, row in data.iterrows():
        popt, pcov = optimize.curve_fit(curve, T, row.to_numpy(), [1.0, 1.0])
        np.testing.assert_allclose(fits.params.loc[label], popt, rtol=1e-7)
        np.testing.assert_allclose(fits.cov(label), pcov, rtol=1e-5)


@pytest.mark.parametrize("method", ["Nelder-Mead", "BFGS", "L-BFGS-B", "SLSQP", "differential_evolution"])
def test_residuals_have_standard_errors_with_every_kind_of_method(method: str) -> None:
    data = decays(2)
    best = parfit.fit(data, residuals, [1.0, 1.0], executor="serial")
    bounds = [(0, 5), (0, 5)] if method == "differential_evolution" else None
    fits = parfit.fit(data, residuals, [1.0, 1.0], method=method, bounds=bounds, executor="serial")
    assert fits.success.all()
    np.testing.assert_allclose(fits.stderr, best.stderr, rtol=0.02)
    assert (fits.summary["rank"] == 2).all()


def test_scalars_have_none() -> None:
    fits = parfit.fit(
        decays(2), lambda p, row: float(residuals(p, row) @ residuals(p, row)), [1.0, 1.0], executor="serial"
    )
    assert fits.success.all()
    assert np.isnan(fits.stderr.to_numpy()).all()
    assert np.isnan(fits.cov(0).to_numpy()).all()
    assert np.isnan(fits.conf_int().to_numpy()).all()
    assert (fits.summary["rank"] == -1).all()
    assert fits.summary["condition"].isna().all()


def test_failed_fits_have_none() -> None:
    data = decays(3)
    data.iloc[1, 4] = np.nan
    fits = parfit.fit(data, residuals, [1.0, 1.0], executor="serial")
    assert fits.status.tolist() == ["converged", "nonfinite", "converged"]
    assert np.isfinite(fits.stderr.to_numpy()).all(axis=1).tolist() == [True, False, True]
    assert np.isnan(fits.stderr.loc[1]).all()
    stopped = parfit.fit(data.iloc[[0]], residuals, [1.0, 1.0], options={"max_nfev": 4}, executor="serial")
    assert stopped.status.tolist() == ["max_steps"]
    assert np.isnan(stopped.stderr.to_numpy()).all()


# ---- what the data do not determine


def test_undetermined_product_is_infinite_and_the_rest_is_not() -> None:
    """a * b * exp(-c t): only the product of a and b is determined, and c is."""

    def product(p, row):
        return p["a"] * p["b"] * np.exp(-p["c"] * T) - row.to_numpy()

    data = decays(3)
    fits = parfit.fit(data, product, {"a": 1.0, "b": 2.0, "c": 1.0}, executor="serial")
    full = parfit.fit(data, residuals, [1.0, 1.0], executor="serial")
    assert fits.success.all()
    assert (fits.summary["rank"] == 2).all()
    assert np.isinf(fits.stderr[["a", "b"]].to_numpy()).all()
    freedom = math.sqrt((T.size - 3) / (T.size - 2))
    np.testing.assert_allclose(fits.stderr["c"] * freedom, full.stderr["x1"], rtol=1e-4)
    interval = fits.conf_int()
    assert np.isinf(interval["a", "upper"]).all()
    assert np.isfinite(interval["c"].to_numpy()).all()


def test_parameter_without_influence_is_infinite() -> None:
    fits = parfit.fit(decays(2), lambda p, row: residuals(p[:2], row), [1.0, 1.0, 5.0], executor="serial")
    assert fits.success.all()
    assert (fits.summary["rank"] == 2).all()
    assert np.isinf(fits.summary["condition"]).all()
    assert np.isinf(fits.stderr["x2"]).all()
    assert np.isfinite(fits.stderr[["x0", "x1"]].to_numpy()).all()
    assert (fits.params["x2"] == 5.0).all()


def test_as_many_residuals_as_parameters_leave_no_variance() -> None:
    data = pd.DataFrame([[2.0, 1.0], [3.0, 2.0]])
    fits = parfit.fit(data, lambda p, row: p - row.to_numpy(), [0.0, 0.0], executor="serial")
    assert fits.success.all()
    assert (fits.summary["rank"] == 2).all()
    assert np.isinf(fits.stderr.to_numpy()).all()


def test_units_of_a_parameter_do_not_change_the_rank() -> None:
    scale = np.array([1e-9, 1e9])
    data = decays(2)
    given = {"executor": "serial", "options": {"x_scale": "jac", "diff_step": 1e-7}}
    plain = parfit.fit(data, residuals, [1.0, 1.0], **given)
    scaled = parfit.fit(data, lambda p, row: residuals(p * scale, row), 1.0 / scale, **given)
    assert (scaled.summary["rank"] == 2).all()
    np.testing.assert_allclose(scaled.stderr * scale, plain.stderr.to_numpy(), rtol=1e-4)
    np.testing.assert_allclose(scaled.summary["condition"], plain.summary["condition"], rtol=1e-4)


@pytest.mark.parametrize("how", ["fixed", "equal bounds"])
def test_fixed_parameter_has_zero(how: str) -> None:
    data = decays(3)
    given = {"fixed": ["b"]} if how == "fixed" else {"bounds": {"b": (0.5, 0.5)}}
    fits = parfit.fit(
        data, lambda p, row: residuals([p["a"], p["b"]], row), {"a": 1.0, "b": 0.5}, executor="serial", **given
    )
    assert (fits.params["b"] == 0.5).all()
    assert (fits.stderr["b"] == 0).all()
    assert (fits.summary["rank"] == 1).all()
    basis = np.exp(-0.5 * T)
    for label, row in data.iterrows():
        a = basis @ row / (basis @ basis)
        rss = ((a * basis - row) ** 2).sum()
        assert fits.stderr.loc[label, "a"] == pytest.approx(math.sqrt(rss / (T.size - 1) / (basis @ basis)), rel=1e-5)
        interval = fits.conf_int().loc[label]
        assert interval["b"].tolist() == [0.5, 0.5]
        quantile = stats.t.ppf(0.975, T.size - 1)
        np.testing.assert_allclose(interval["a", "upper"] - a, quantile * fits.stderr.loc[label, "a"], rtol=1e-4)


# ---- intervals


@pytest.mark.parametrize("level", [0.5, 0.95, 0.99])
def test_intervals_are_students(level: float) -> None:
    fits = parfit.fit(decays(), residuals, [1.0, 1.0], executor="serial")
    interval = fits.conf_int(level)
    assert list(interval.columns) == [(n, s) for n in ("x0", "x1") for s in ("lower", "upper")]
    width = stats.t.ppf(0.5 + level / 2, T.size - 2) * fits.stderr
    for name in ("x0", "x1"):
        np.testing.assert_allclose(interval[name, "upper"], fits.params[name] + width[name])
        np.testing.assert_allclose(interval[name, "lower"], fits.params[name] - width[name])


@pytest.mark.parametrize("level", [0, 1, 95, -0.1, math.nan])
def test_level_must_be_a_share(level: float) -> None:
    fits = parfit.fit(decays(1), residuals, [1.0, 1.0], executor="serial")
    with pytest.raises(parfit.InvalidInputError, match="between 0 and 1"):
        fits.conf_int(level)


# ---- from_jacobian itself


@given(st.integers(1, 4), st.integers(0, 6), st.integers(0, 2**32 - 1))
def test_covariance_is_the_inverse_of_the_normal_matrix(n: int, extra: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    m = n + 1 + extra
    J = (
        np.linalg.qr(rng.standard_normal((m, n)))[0]
        @ np.diag(rng.uniform(0.1, 10, n))
        @ np.linalg.qr(rng.standard_normal((n, n)))[0]
    )
    cost = rng.uniform(0.1, 2)
    found = from_jacobian(J, cost)
    np.testing.assert_allclose(found.cov, np.linalg.inv(J.T @ J) * 2 * cost / (m - n), rtol=1e-9, atol=1e-12)
    assert found.rank == n
    absolute = from_jacobian(J, cost, absolute_sigma=True)
    np.testing.assert_allclose(absolute.cov, np.linalg.inv(J.T @ J), rtol=1e-9, atol=1e-12)


def test_odd_jacobians() -> None:
    nothing = from_jacobian(np.empty((3, 0)), 1.0)
    assert nothing.cov.shape == (0, 0)
    zero = from_jacobian(np.zeros((4, 2)), 1.0)
    assert zero.rank == 0
    assert np.isinf(zero.cov).all()
    for bad in (np.nan, np.inf):
        unknown = from_jacobian(np.array([[1.0, bad], [2.0, 1.0], [0.0, 1.0]]), 1.0)
        assert unknown.rank == -1
        assert np.isnan(unknown.cov).all()
