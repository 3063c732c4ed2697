"""A status for every way in which a fit ends, told apart honestly: what a solver claims is checked."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest

import parfit
from parfit.core.solution import Status

T = np.linspace(0.0, 4.0, 15)
GOOD = 3 * np.exp(-0.5 * T)
RESIDUALS = ["lm", "trf", "dogbox"]
LOCAL = ["Nelder-Mead", "Powell", "CG", "BFGS", "Newton-CG", "L-BFGS-B", "TNC", "COBYLA", "COBYQA", "SLSQP",
         "trust-constr", "dogleg", "trust-ncg", "trust-exact", "trust-krylov"]  # fmt: skip
ONE = pd.DataFrame([[0.0]])


def decay(p: Any, row: Any) -> np.ndarray:
    return p[0] * np.exp(-p[1] * T) - row.to_numpy()


def fit(data: Any = ONE, objective: Any = decay, x0: Any = (1.0, 1.0), **given: Any) -> parfit.Fits:
    """Without SciPy's warnings about NaN, which pytest would turn into exceptions."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return parfit.fit(data, objective, list(x0) if isinstance(x0, tuple) else x0, executor="serial", **given)


def rows(*values: Any) -> pd.DataFrame:
    return pd.DataFrame(np.array(values), index=[f"row {i}" for i in range(len(values))])


def test_every_status_has_a_sentence() -> None:
    words = "converged max_steps stalled unmoved nonfinite invalid error timeout worker_lost not_run"
    assert " ".join(s.value for s in Status) == words
    assert len({s.sentence for s in Status}) == len(Status)


# ---- success that is none


@pytest.mark.parametrize("method", RESIDUALS + LOCAL)
def test_an_all_zero_row_that_never_moved(method: str) -> None:
    """A model that scales its own data: nothing depends on the parameters where the data are zero."""

    def scaled(p: Any, row: Any) -> np.ndarray:
        return (p[0] * np.exp(0.1 * (p[1] - 1) * T) - 2.0) * row.to_numpy()

    fits = fit(rows(GOOD, 0 * GOOD), scaled, (1.8, 1.1), method=method)
    assert fits.status.tolist() == ["converged", "unmoved"]
    assert "success" in fits["row 1"].message
    if method != "COBYLA":  # which walks about on a plain
        assert fits.params.loc["row 1"].tolist() == [1.8, 1.1]


@pytest.mark.parametrize("method", [None, "differential_evolution", "dual_annealing", "shgo", "basinhopping", "brute"])
def test_a_constant_scalar(method: str | None) -> None:
    bounds = None if method in (None, "basinhopping") else [(-3, 3), (-3, 3)]
    options = {"niter": 1} if method == "basinhopping" else {}
    fits = fit(ONE, lambda p, row: 5.0, (1.0, 1.0), method=method, bounds=bounds, options=options)
    assert fits.status.tolist() == ["stalled" if method == "shgo" else "unmoved"]


@pytest.mark.parametrize("scale", [1e-7, 1e-12])
@pytest.mark.parametrize("method", RESIDUALS)
def test_small_units_end_least_squares_early(method: str, scale: float) -> None:
    """`gtol` is absolute: with residuals of 1e-12 every start looks stationary to SciPy."""
    data = rows(scale * GOOD)
    fits = fit(data, lambda p, row: decay([scale * p[0], p[1]], row), (1.0, 1.0), method=method)
    close = np.allclose(fits.params, [[3, 0.5]], rtol=1e-3)
    assert fits.success.tolist() == [close]
    if scale == 1e-12 and method != "lm":  # MINPACK's own gtol is a cosine
        assert fits.status.tolist() == ["unmoved"]
    default = fit(data, lambda p, row: decay([scale * p[0], p[1]], row), bounds=(0, 9))
    assert default.success.all()  # parfit's own choice has no absolute tolerance
    np.testing.assert_allclose(default.params, [[3, 0.5]], rtol=1e-6)
    tolerance = {"gtol": 1e-15 if method == "lm" else None}
    tight = fit(data, lambda p, row: decay([scale * p[0], p[1]], row), method=method, options=tolerance)
    assert tight.success.all()
    np.testing.assert_allclose(tight.params, [[3, 0.5]], rtol=1e-6)


@pytest.mark.parametrize("method", ["CG", "BFGS", "L-BFGS-B", "TNC", "SLSQP", "trust-constr", "trust-exact"])
def test_small_units_end_descent_at_once(method: str) -> None:
    fits = fit(ONE, lambda p, row: 1e-14 * ((p[0] - 3) ** 2 + (p[1] - 2) ** 2), method=method)
    assert fits.status.tolist() == ["unmoved"]


@pytest.mark.parametrize("method", RESIDUALS)
def test_difference_quotients_that_are_too_wide(method: str) -> None:
    """SciPy's steps are 1.5e-8 however small a parameter is: at 1e-9 the derivative is wrong, and no step succeeds."""
    data = rows(GOOD)

    def tiny(p: Any, row: Any) -> np.ndarray:
        return decay([p[0], 1e9 * p[1]], row)

    fits = fit(data, tiny, (1.0, 1e-9), method=method, options={"x_scale": "jac"})
    assert fits.status.tolist() != ["converged"] or np.allclose(fits.params * [1, 1e9], [[3, 0.5]], rtol=1e-3)
    if fits.status.tolist() == ["stalled"]:
        assert "diff_step" in fits["row 0"].message
    helped = fit(data, tiny, (1.0, 1e-9), method=method, options={"x_scale": "jac", "diff_step": 1e-7})
    assert helped.success.all() or method == "dogbox"


@pytest.mark.parametrize("method", RESIDUALS)
def test_a_wrong_jacobian(method: str) -> None:
    def upside_down(p: Any, row: Any) -> np.ndarray:
        return -np.stack([np.exp(-p[1] * T), -p[0] * T * np.exp(-p[1] * T)], axis=1)

    fits = fit(rows(GOOD), method=method, jac=upside_down)
    assert fits.status.tolist() in (["unmoved"], ["stalled"])


# ---- and success that is


@pytest.mark.parametrize("noise", [0.0, 0.05], ids=["exact", "noisy"])
@pytest.mark.parametrize("method", RESIDUALS + LOCAL)
def test_a_start_at_the_minimum(method: str, noise: float) -> None:
    data = rows(GOOD + noise * np.cos(7 * T))
    best = fit(data, method="lm", options={"xtol": 1e-15, "ftol": 1e-15, "gtol": 1e-15}).params.iloc[0]
    start = (3.0, 0.5) if noise == 0 else tuple(best)
    fits = fit(data, x0=start, method=method)
    assert fits.status.tolist() == ["converged"], fits.summary["message"].tolist()
    np.testing.assert_allclose(fits.params.iloc[0], start, atol=2e-4)


@pytest.mark.parametrize("method", ["L-BFGS-B", "Nelder-Mead", "BFGS", "SLSQP", "COBYQA"])
def test_a_scalar_start_at_the_minimum_that_leaves_a_parameter_free(method: str) -> None:
    fits = fit(ONE, lambda p, row: (p[0] - 1) ** 2, method=method)
    assert fits.success.all()


@pytest.mark.parametrize("x0", [(1.0, 1.0), (2.0, 0.0), (0.0, 5.0)])
@pytest.mark.parametrize("method", RESIDUALS)
def test_residuals_that_vanish_at_a_parameter_of_zero(method: str, x0: Any) -> None:
    """Nothing but rounding errors is left, and they may point anywhere."""
    fits = fit(rows(2 * np.ones_like(T)), x0=x0, method=method)
    assert fits.success.all(), fits.summary["message"].tolist()
    np.testing.assert_allclose(fits.params, [[2, 0]], atol=1e-6)


@pytest.mark.parametrize("method", RESIDUALS)
def test_a_flat_direction_that_leads_nowhere_is_no_reason(method: str) -> None:
    """A second term that has died away before the second point: its rate may be any, and large."""

    def two(p: Any, row: Any) -> np.ndarray:
        return p[0] * np.exp(-p[1] * T) + p[2] * np.exp(-abs(p[3]) * T) - row.to_numpy()

    data = rows(GOOD + 0.3 * (T == 0) + 0.02 * np.cos(7 * T))
    fits = fit(data, two, (2.5, 0.6, 0.2, 30.0), method=method)
    assert fits.status.tolist() == ["converged"], fits.summary["message"].tolist()


@pytest.mark.parametrize("tolerances", [{"ftol": 1e-2}, {"xtol": 1e-2}, {"gtol": 1.0}], ids=str)
def test_tolerances_that_the_user_loosened_are_kept_to(tolerances: dict[str, float]) -> None:
    fits = fit(rows(GOOD + 0.1 * np.cos(7 * T)), options=tolerances, method="trf")
    assert fits.success.all(), fits.summary["message"].tolist()


# ---- NaN


@pytest.mark.parametrize("method", RESIDUALS + LOCAL)
def test_a_wall_of_nan(method: str) -> None:
    """The minimum is at 2, and from 1 on there is nothing but NaN."""

    def walled(p: Any, row: Any) -> Any:
        inside = np.array([p[0] - 2, p[1] - 1, 0.1])
        r = inside if p[0] < 1 else np.full(3, np.nan)
        return r if method in RESIDUALS else float(r @ r)

    fits = fit(ONE, walled, (0.0, 0.0), method=method)
    if method == "trust-constr":  # it runs on till its evaluations are spent
        assert fits.status.tolist() == ["max_steps"]
    else:
        assert fits.status.tolist() == ["nonfinite"], fits.summary["message"].tolist()


@pytest.mark.parametrize("method", ["lm", "trf", "L-BFGS-B", "Nelder-Mead", "BFGS", "SLSQP"])
def test_nan_that_was_met_and_escaped(method: str) -> None:
    def gap(p: Any, row: Any) -> Any:
        r = np.array([p[0] - 2, 0.1]) if not 5 < p[0] < 5.2 else np.full(2, np.inf)
        return r if method in RESIDUALS else float(r @ r)

    fits = fit(ONE, gap, (8.0,), method=method)
    assert fits.status.tolist() == ["converged"]
    assert fits.params.iloc[0, 0] == pytest.approx(2, abs=1e-3)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("method", RESIDUALS + LOCAL)
def test_nan_at_the_start(method: str, bad: float) -> None:
    data = rows(GOOD, np.where(T == 0, bad, GOOD), GOOD)
    objective = decay if method in RESIDUALS else lambda p, row: float((decay(p, row) ** 2).sum())
    fits = fit(data, objective, (2.5, 0.6), method=method)
    assert fits.status.tolist() == ["converged", "nonfinite", "converged"]
    assert fits["row 1"].message.endswith(("hold NaN or infinity at the start", "is NaN or infinite at the start"))
    assert fits["row 1"].nfev == 1
    assert fits.params.loc["row 1"].tolist() == [2.5, 0.6]


@pytest.mark.parametrize("method", [None, *RESIDUALS])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_plain_nan_in_place_of_residuals(method: str | None, place: int) -> None:
    """``return np.nan`` for a dataset without data says nothing about what the objective is."""
    data = rows(GOOD, GOOD, GOOD)
    data.iloc[place] = np.nan
    fits = fit(data, lambda p, row: np.nan if row.isna().any() else decay(p, row), method=method)
    wanted = ["converged"] * 3
    wanted[place] = "nonfinite"
    assert fits.status.tolist() == wanted


# ---- bounds


@pytest.mark.parametrize("method", ["lm", "trf", "dogbox", "L-BFGS-B", "TNC", "Nelder-Mead", "SLSQP", "trust-constr"])
def test_at_a_bound(method: str) -> None:
    fits = fit(rows(GOOD), x0={"a": 1.0, "b": 1.0}, objective=lambda p, row: decay([p["a"], p["b"]], row),
               bounds={"a": (0, 2), "b": (0, 9)}, method=method)  # fmt: skip
    assert fits.status.tolist() == ["converged"]
    assert fits.summary["at_bound"].tolist() == [True]
    assert fits.at_bound.iloc[0].tolist() == [1, 0]
    assert fits["row 0"].at_bound.tolist() == [1, 0]
    free = fit(rows(GOOD), bounds=[(0, 9), (0, 9)], method=method)
    assert free.summary["at_bound"].tolist() == [False]


def test_a_small_parameter_is_not_at_its_bound_of_zero() -> None:
    fits = fit(rows(1e-5 * GOOD), x0=(1e-5, 1.0), bounds=(0, np.inf), options={"gtol": None, "x_scale": "jac"})
    assert fits.success.all()
    assert not fits.at_bound.any(axis=None)


# ---- the limits of iterations


@pytest.mark.parametrize("method", RESIDUALS)
def test_max_nfev(method: str) -> None:
    fits = fit(rows(GOOD), method=method, options={"max_nfev": 2})
    assert fits.status.tolist() == ["max_steps"]
    assert not fits.success.any()


@pytest.mark.parametrize("method", [m for m in LOCAL if m != "TNC"] + ["differential_evolution", "direct", "spsa"])
def test_maxiter(method: str) -> None:
    bounds = [(-3, 5), (-3, 5)] if method in ("differential_evolution", "direct") else None
    rosenbrock = lambda p, row: (1 - p[0]) ** 2 + 100 * (p[1] - p[0] ** 2) ** 2  # noqa: E731
    fits = fit(ONE, rosenbrock, (-1.0, 1.0), method=method, options={"maxiter": 2}, bounds=bounds)
    assert fits.status.tolist() == ["max_steps"], fits.summary["message"].tolist()


@pytest.mark.parametrize(("method", "option"), [("L-BFGS-B", "maxfun"), ("TNC", "maxfun"), ("Powell", "maxfev")])
def test_limits_of_evaluations(method: str, option: str) -> None:
    fits = fit(ONE, lambda p, row: (1 - p[0]) ** 2 + 100 * (p[1] - p[0] ** 2) ** 2, (-1.0, 1.0), method=method,
               options={option: 6})  # fmt: skip
    assert fits.status.tolist() == ["max_steps"]


def test_stalled() -> None:
    """A kink that no gradient finds its way along."""
    fits = fit(ONE, lambda p, row: abs(p[0] - 1) + 1000 * abs(p[1] - p[0]), (0.0, 5.0), method="BFGS")
    assert fits.status.tolist() == ["stalled"]
    assert not fits.success.any()


# ---- what cannot be fitted at all, in some rows and in all


def test_too_few_residuals() -> None:
    data = {"none": [], "one": [1.0], "two": [1.0, 2.0], "three": [1.0, 2.0, 2.5]}
    fits = fit(data, lambda p, y: p[0] + p[1] * np.arange(len(y)) - y)
    assert fits.status.tolist() == ["invalid", "invalid", "converged", "converged"]
    assert "no residuals" in fits["none"].message
    assert "1 residual cannot determine 2 free parameters" in fits["one"].message
    assert fits.summary["n_residuals"].tolist() == [0, 1, 2, 3]
    assert fits.params.loc["one"].tolist() == [1.0, 1.0]
    fixed = fit(data, lambda p, y: p[0] + p[1] * np.arange(len(y)) - y, fixed=["x1"])
    assert fixed.status.tolist() == ["invalid", "converged", "converged", "converged"]


@pytest.mark.parametrize("method", ["L-BFGS-B", "Nelder-Mead", "differential_evolution", "spsa"])
def test_too_few_residuals_with_any_method(method: str) -> None:
    given: dict[str, Any] = {"method": method, "bounds": [(-5, 5), (-5, 5)]}
    fits = fit({"one": [1.0], "three": [1.0, 2.0, 2.5]}, lambda p, y: p[0] + p[1] * np.arange(len(y)) - y, **given)
    assert fits.status["one"] == "invalid"


def test_starts_and_bounds_of_some_rows() -> None:
    data = rows(*[GOOD] * 5)
    starts = pd.DataFrame({"a": [1, 20, np.nan, 1, 2], "b": 1.0}, index=data.index)
    low = pd.DataFrame({"a": [0, 0, 0, 9, 2]}, index=data.index)
    high = pd.DataFrame({"a": [10, 10, 10, 8, 2]}, index=data.index)
    fits = fit(data, lambda p, row: decay([p["a"], p["b"]], row), starts, bounds=(low, high))
    assert fits.status.tolist() == ["converged", "invalid", "invalid", "invalid", "converged"]
    assert "the start of a, 20, is outside its bounds [0, 10]" in fits["row 1"].message
    assert "the start of a is nan" in fits["row 2"].message
    assert "the wrong way round: lower 9, upper 8" in fits["row 3"].message
    assert fits["row 4"].x["a"] == 2.0
    assert fits.stderr.loc["row 4", "a"] == 0
    assert np.isnan(fits.params.loc["row 1"]).all()
    assert fits.summary["nfev"].tolist()[1:4] == [0, 0, 0]


def test_starts_and_bounds_from_callables() -> None:
    data = rows(*[GOOD] * 4)
    starts = {"row 0": [1.0, 1.0], "row 1": [1.0], "row 2": "none", "row 3": [1.0, 1.0]}
    bounds = {"row 0": (0, 9), "row 1": (0, 9), "row 2": (0, 9), "row 3": [(0, "x"), (0, 1)]}
    fits = fit(data, x0=lambda row: starts[row.name], bounds=lambda row: bounds[row.name])
    assert fits.status.tolist() == ["converged", "invalid", "invalid", "invalid"]
    assert "the start of this dataset cannot be used" in fits["row 1"].message
    assert "the bounds of this dataset cannot be used" in fits["row 3"].message

    def fails(row: Any) -> Any:
        return starts["row 0"] if row.name != "row 3" else 1 / 0

    fits = fit(data, x0=fails)
    assert fits.status.tolist() == ["converged"] * 3 + ["error"]
    assert fits.errors["type"].tolist() == ["ZeroDivisionError"]


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"objective": lambda p, row: np.array([])}, "no residuals"),
        ({"objective": lambda p, row: np.array([1.0])}, "1 residual cannot determine 2 .* a number, not as an array"),
        ({"objective": lambda p, row: np.nan}, "NaN or infinite at the start .* and all others likewise"),
        ({"x0": (np.nan, 1.0)}, "the start of x0 is nan"),
        ({"bounds": [(2, 3), (0, 9)]}, "outside its bounds"),
        ({"bounds": [(3, 2), (0, 9)]}, "the wrong way round"),
        ({"bounds": lambda row: [(3, 2), (0, 9)]}, "the wrong way round"),
        ({"x0": lambda row: [np.nan, 1.0]}, "the start of x0 is nan"),
        ({"fixed": ["x0", "x1"]}, "all parameters are fixed"),
    ],
)
def test_what_no_row_can_use_is_one_error(given: dict[str, Any], text: str) -> None:
    with pytest.raises(parfit.InvalidInputError, match=text):
        fit(rows(GOOD, GOOD, GOOD), **given)


def test_the_error_for_all_rows_has_the_reason_for_each() -> None:
    data = {"empty": [], "short": [1.0], "nan": [np.nan] * 3}
    with pytest.raises(parfit.InvalidInputError, match="dataset 'empty', and no other can be fitted either") as caught:
        fit(data, lambda p, y: p[0] + p[1] * np.arange(len(y)) - y)
    assert caught.value.fits.status.tolist() == ["invalid", "invalid", "nonfinite"]


@pytest.mark.parametrize("method", [None, "lm", "trf", "dogbox", "L-BFGS-B"])
@pytest.mark.parametrize("start", [0.0, 10.0])
def test_a_start_on_its_bound_is_left(method, start):
    """SciPy's `trf` stays there, and calls it a success."""
    rows = pd.DataFrame({"x": [1.0, 2.0, 3.0]})
    fits = parfit.fit(
        rows,
        lambda p, row: np.array([p["r"] - row["x"], 0.0]),
        {"r": start},
        bounds={"r": (0, 10)},
        method=method,
        executor="serial",
    )
    np.testing.assert_allclose(fits.params["r"], rows["x"], rtol=1e-5)
    assert fits.success.all()
    assert not fits.summary["at_bound"].any()
