"""`curve_fit`: SciPy's own is the referee, row by row."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.optimize

import parfit
from parfit.core.errors import FitError, InvalidInputError, InvalidTypeError, ParfitWarning, UnknownNameError

OptimizeWarning = scipy.optimize.OptimizeWarning
SERIAL: dict[str, Any] = {"engine": "rows", "executor": "serial"}
B, M = 5, 12
T = np.linspace(0, 3, M)


def decay(x: Any, height: Any, rate: Any) -> Any:
    return height * np.exp(-rate * x)


def plane(x: Any, a: Any, b: Any) -> Any:
    return a * x[0] + b * np.sin(x[1])


def slopes(x: Any, height: Any, rate: Any) -> Any:
    return np.stack([np.exp(-rate * x), -height * x * np.exp(-rate * x)], axis=1)


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


TRUE = np.stack([rng().uniform(1, 3, B), rng().uniform(0.5, 2, B)], axis=1)
Y = np.array([decay(T, *p) for p in TRUE]) + rng().normal(0, 0.02, (B, M))
OWN_X = T + rng().uniform(0, 0.1, (B, 1))
PREDICTORS = rng().uniform(0, 2, (B, 2, M))
SPREAD = rng().uniform(0.01, 0.05, (B, M))
_MIXED = rng().normal(size=(B, M, M))
MATRICES = 1e-3 * (_MIXED @ _MIXED.transpose(0, 2, 1) + np.eye(M))
HOLES = np.where(rng().random((B, M)) < 0.15, np.nan, Y)
LOWER, UPPER = np.zeros((B, 2)), np.array([TRUE[:, 0] + 1, TRUE[:, 1] * [0.8, 2, 0.8, 2, 2]]).T


def planes(x: Any) -> Any:
    return np.array([plane(x[i] if x.ndim == 3 else x, *TRUE[i]) for i in range(B)]) + rng().normal(0, 0.02, (B, M))


@dataclass
class Case:
    """Arguments of `parfit.curve_fit`, and what of them SciPy's gets for row `i`."""

    f: Any = decay
    x: Any = field(default_factory=lambda: T)
    y: Any = field(default_factory=lambda: Y)
    shared: dict[str, Any] = field(default_factory=dict)
    own: dict[str, Any] = field(default_factory=dict)
    x_own: bool = False

    def batch(self, **more: Any) -> tuple[Any, ...]:
        return parfit.curve_fit(self.f, self.x, self.y, **self.shared, **self.own, **more)

    def row(self, i: int) -> tuple[Any, Any, Any, dict[str, Any]]:
        own = {
            name: tuple(side[i] for side in value) if isinstance(value, tuple) else value[i]
            for name, value in self.own.items()
        }
        return self.f, self.x[i] if self.x_own else self.x, self.y[i], {**self.shared, **own}


CASES = {
    "shared x": Case(),
    "absolute": Case(shared={"sigma": SPREAD[0], "absolute_sigma": True}),
    "x per row": Case(x=OWN_X, x_own=True, own={"sigma": SPREAD}),
    "predictors": Case(f=plane, x=PREDICTORS[0], y=planes(PREDICTORS[0])),
    "predictors per row": Case(f=plane, x=PREDICTORS, y=planes(PREDICTORS), x_own=True),
    "sigma per row, absolute": Case(own={"sigma": SPREAD}, shared={"absolute_sigma": True}),
    "sigma a number": Case(shared={"sigma": 0.03, "absolute_sigma": True}),
    "a covariance": Case(shared={"sigma": MATRICES[0], "absolute_sigma": True}),
    "covariances": Case(own={"sigma": MATRICES}),
    "p0": Case(shared={"p0": [2.0, 1.5]}),
    "p0 per row": Case(own={"p0": TRUE * 1.2}),
    "bounds": Case(shared={"bounds": (0, [np.inf, 1.1]), "absolute_sigma": True}),
    "bounds per row": Case(own={"bounds": (LOWER, UPPER), "p0": 0.9 * np.minimum(TRUE, UPPER)}),
    "trf": Case(shared={"method": "trf", "xtol": 1e-12, "x_scale": "jac"}),
    "dogbox": Case(shared={"method": "dogbox"}),
    "jac": Case(shared={"jac": slopes}, own={"sigma": SPREAD}),
    "jac, a covariance": Case(shared={"jac": slopes, "sigma": MATRICES[1]}),
    "complex step": Case(shared={"jac": "cs", "method": "trf"}),
    "omit": Case(y=HOLES, shared={"nan_policy": "omit"}),
    "omit, absolute": Case(y=HOLES, shared={"nan_policy": "omit", "absolute_sigma": True}, own={"sigma": SPREAD}),
    "omit, a covariance": Case(y=HOLES, shared={"nan_policy": "omit", "sigma": MATRICES[0]}),
    "omit in x": Case(x=np.where(np.isnan(HOLES), np.nan, OWN_X), x_own=True, shared={"nan_policy": "omit"}),
    "omit, predictors": Case(plane, PREDICTORS[0], planes(PREDICTORS[0]) + 0 * HOLES, {"nan_policy": "omit"}),
    "as many points as parameters": Case(x=T[:2], y=Y[:, :2], shared={"sigma": 0.1, "absolute_sigma": True}),
    "an exact fit": Case(y=np.array([decay(T, *p) for p in TRUE]), shared={"sigma": 0.1, "absolute_sigma": True}),
}  # fmt: skip
COMPILED = (
    "sigma per row, absolute",
    "covariances",
    "bounds per row",
    "omit, absolute",
    "as many points as parameters",
)


def compare(case: Case, popt: Any, pcov: Any) -> None:
    for i in range(B):
        f, x, y, options = case.row(i)
        expected, covariance = scipy.optimize.curve_fit(f, x, y, **options)
        np.testing.assert_allclose(popt[i], expected, rtol=2e-5)
        np.testing.assert_allclose(pcov[i], covariance, rtol=1e-3, atol=1e-3 * np.abs(covariance).min())
        assert (
            sum_of_squares(f, x, y, popt[i], options) <= sum_of_squares(f, x, y, expected, options) * (1 + 1e-7) + 1e-20
        )


def sum_of_squares(f: Any, x: Any, y: Any, params: Any, options: dict[str, Any]) -> float:
    r = f(x, *params) - y
    there = ~np.isnan(r)
    sigma = np.asarray(options.get("sigma", 1.0))
    if sigma.ndim < 2:
        return float(np.nansum((r / sigma) ** 2))
    return float(r[there] @ np.linalg.solve(sigma[np.ix_(there, there)], r[there]))


@pytest.mark.parametrize("name", CASES)
def test_rows_are_those_of_scipy(name: str) -> None:
    case = CASES[name]
    popt, pcov = case.batch(**SERIAL)
    assert popt.shape == (B, 2)
    assert pcov.shape == (B, 2, 2)
    compare(case, popt, pcov)


@pytest.mark.parametrize("name", COMPILED)
def test_compiled_rows_are_those_of_scipy(name: str) -> None:
    pytest.importorskip("jax")
    popt, pcov, fits = CASES[name].batch(engine="batch", full_output=True)
    assert fits.engine == "batch"
    compare(CASES[name], popt, pcov)


def test_a_function_of_jax() -> None:
    jnp = pytest.importorskip("jax.numpy")

    def f(x: Any, a: Any, b: Any) -> Any:
        return a * x[0] + b * jnp.sin(x[1])

    popt, pcov, fits = parfit.curve_fit(f, PREDICTORS, CASES["predictors per row"].y, full_output=True)
    assert fits.engine == "batch"
    compare(CASES["predictors per row"], popt, pcov)


def test_a_program_serves_another_x() -> None:
    pytest.importorskip("jax")
    from parfit import batched

    parfit.curve_fit(decay, T, Y, engine="batch")
    before = batched.counts()
    parfit.curve_fit(decay, 2 * T, Y, engine="batch")
    assert (batched.counts().compiled, batched.counts().loaded) == (before.compiled, before.loaded)


def test_what_cannot_be_compiled_runs_as_python() -> None:
    said: list[Any] = []

    def f(x: Any, a: Any) -> Any:
        said.append(a)
        return a * x

    popt, _, fits = parfit.curve_fit(f, T, Y, workers=1, full_output=True)
    assert fits.engine == "rows"
    np.testing.assert_allclose(popt[:, 0], Y @ T / (T @ T), rtol=1e-6)


def test_workers_take_what_was_defined_here() -> None:
    popt, _ = parfit.curve_fit(lambda x, a, b: decay(x, a, b), T, Y, engine="rows", workers=2)
    np.testing.assert_allclose(popt, CASES["shared x"].batch(**SERIAL)[0], rtol=1e-7)


# ---- one dataset


@pytest.mark.parametrize("options", [{}, {"sigma": MATRICES[0]}, {"bounds": (0, 1)}, {"p0": (1, 1), "sigma": 0.1}])
def test_one_dataset_has_the_shapes_of_scipy(options: dict[str, Any]) -> None:
    popt, pcov = parfit.curve_fit(decay, list(T), pd.Series(Y[1]), **options)
    expected, covariance = scipy.optimize.curve_fit(decay, T, Y[1], **options)
    np.testing.assert_allclose(popt, expected, rtol=2e-5)
    np.testing.assert_allclose(pcov, covariance, rtol=1e-3)


def test_one_dataset_that_fails_raises() -> None:
    with pytest.raises(RuntimeError, match="Optimal parameters not found: The maximum number") as caught:
        parfit.curve_fit(decay, T, Y[0], maxfev=3)
    assert isinstance(caught.value, FitError)
    with pytest.raises(FitError, match="ZeroDivisionError") as caught:
        parfit.curve_fit(lambda x, a: a * (1 / 0), T, Y[0])
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_x_that_is_no_array() -> None:
    table = pd.DataFrame({"t": T})
    for x in ({"t": T}, table):
        popt, _ = parfit.curve_fit(lambda d, a, b: decay(np.asarray(d["t"]), a, b), x, Y, **SERIAL)
        np.testing.assert_allclose(popt, CASES["shared x"].batch(**SERIAL)[0], rtol=1e-7)
    grid = np.meshgrid(np.arange(4.0), np.arange(3.0))
    popt, _ = parfit.curve_fit(lambda xy, a, b: plane(xy, a, b).ravel(), grid, Y, **SERIAL)
    expected, _ = scipy.optimize.curve_fit(lambda xy, a, b: plane(xy, a, b).ravel(), grid, Y[2])
    np.testing.assert_allclose(popt[2], expected, rtol=1e-5)


# ---- frames and names


def test_frames_are_aligned() -> None:
    frame = pd.DataFrame(Y, index=list("abcde"))
    back = frame.index[::-1]
    own = {
        "p0": pd.DataFrame(TRUE[:, ::-1] * 1.1, index=frame.index, columns=["rate", "height"]).loc[back],
        "sigma": pd.DataFrame(SPREAD, index=frame.index).loc[back],
        "bounds": (pd.DataFrame(LOWER, frame.index).loc[back], np.inf),
    }
    x = pd.DataFrame(OWN_X, index=frame.index).loc[back]
    popt, pcov, fits = parfit.curve_fit(decay, x, frame, **own, **SERIAL, full_output=True)
    compare(CASES["x per row"], popt, pcov)
    assert list(fits.params.columns) == ["height", "rate"]
    assert list(fits.labels) == list("abcde")
    np.testing.assert_array_equal(fits.params, popt)
    with pytest.raises(InvalidInputError, match="p0 has no row for the dataset 'a'"):
        parfit.curve_fit(decay, T, frame, p0=pd.DataFrame(TRUE), **SERIAL)
    with pytest.raises(InvalidInputError, match=r"p0 has the columns \['rate', 'size'\]"):
        parfit.curve_fit(decay, T, Y, p0=pd.DataFrame(TRUE, columns=["rate", "size"]), **SERIAL)


def test_names_of_parameters() -> None:
    def of(f: Callable[..., Any], p0: Any) -> list[Any]:
        return list(parfit.curve_fit(f, T, Y, p0, full_output=True, **SERIAL)[2].params)

    assert of(lambda x, *params: decay(x, *params), [1, 1]) == ["x0", "x1"]
    assert of(lambda x, a, *rest: decay(x, a, *rest), TRUE) == ["x0", "x1"]
    assert of(lambda x, value, fixed: decay(x, value, fixed), TRUE) == ["x0", "x1"]
    assert of(lambda x, a, b, c=0.0: decay(x, a, b) + c, TRUE) == ["a", "b"]
    assert of(functools.partial(decay, rate=1.0), [1.0]) == ["height"]


# ---- what is ambiguous


def test_a_row_per_dataset_or_predictors() -> None:
    x = PREDICTORS[0]
    y = planes(x)[:2]
    with pytest.warns(ParfitWarning, match=r"f gave shape \(\).*np.broadcast_to\(xdata, \(B, \*xdata.shape\)\)"):
        popt, pcov = parfit.curve_fit(plane, x, y, **SERIAL)
    assert np.isnan(popt).all()
    assert np.isinf(pcov).all()
    popt, _ = parfit.curve_fit(plane, np.broadcast_to(x, (2, *x.shape)), y, **SERIAL)
    np.testing.assert_allclose(popt, parfit.curve_fit(plane, x, planes(x), **SERIAL)[0][:2], rtol=1e-7)


def test_as_many_datasets_as_points() -> None:
    y = Y[:, :B]
    case = Case(x=T[:B], y=y, own={"sigma": SPREAD[:, :B]})
    compare(case, *case.batch(**SERIAL))
    case = Case(x=T[:B], y=y, shared={"sigma": MATRICES[0][:B, :B]})
    compare(case, *case.batch(**SERIAL))


# ---- what fails


def test_a_bad_row_among_good_ones() -> None:
    bad = Y.copy()
    bad[1, 3] = np.nan
    bad[3] = np.inf
    with pytest.warns(ParfitWarning, match=r"^2 of 5 datasets could not be fitted \(2 nonfinite\): their popt is NaN"):
        popt, pcov, fits = parfit.curve_fit(decay, T, bad, check_finite=False, full_output=True, **SERIAL)
    good = [0, 2, 4]
    np.testing.assert_array_equal(popt[good], CASES["shared x"].batch(**SERIAL)[0][good])
    assert np.isfinite(pcov[good]).all()
    assert np.isnan(popt[[1, 3]]).all()
    assert np.isinf(pcov[[1, 3]]).all()
    assert fits.success.tolist() == [True, False, True, False, True]


def test_nothing_left_of_a_row() -> None:
    y = HOLES.copy()
    y[2] = np.nan
    with pytest.warns(ParfitWarning, match="1 of 5 datasets .*1 invalid"):
        popt, _, fits = parfit.curve_fit(decay, T, y, nan_policy="omit", full_output=True, **SERIAL)
    assert np.isnan(popt[:, 0]).tolist() == [False, False, True, False, False]
    assert fits.summary["n_residuals"].drop(2).tolist() == (~np.isnan(np.delete(y, 2, axis=0))).sum(axis=1).tolist()


def test_what_the_data_do_not_determine() -> None:
    def f(x: Any, a: Any, b: Any, rate: Any) -> Any:
        return (a + b) * np.exp(-rate * x)

    with pytest.warns(OptimizeWarning, match="could not be estimated for 5 of 5 datasets$"):
        _, pcov = parfit.curve_fit(f, T, Y, absolute_sigma=True, **SERIAL)
    assert np.isinf(pcov[:, :2, :2]).all()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", OptimizeWarning)
        expected = CASES["sigma a number"].batch(**SERIAL)[1] / 0.03**2
        np.testing.assert_allclose(pcov[:, 2, 2], expected[:, 1, 1], rtol=1e-3)
        _, pcov = parfit.curve_fit(decay, T[:2], Y[:, :2], **SERIAL)
    assert np.isinf(pcov).all()
    with pytest.warns(OptimizeWarning, match="^Covariance of the parameters could not be estimated$"):
        parfit.curve_fit(decay, T[:2], Y[0, :2])


@pytest.mark.parametrize("absolute", [True, False])
@pytest.mark.parametrize("points", [M, 1])
def test_a_parameter_held_by_its_bounds(absolute: bool, points: int) -> None:
    bounds = ([0, 0.7], [9, 0.7])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", OptimizeWarning)
        popt, pcov = parfit.curve_fit(
            decay, T[:points], Y[:, :points], bounds=bounds, absolute_sigma=absolute, **SERIAL
        )
        expected, covariance = scipy.optimize.curve_fit(
            lambda x, a: decay(x, a, 0.7), T[:points], Y[3, :points], absolute_sigma=absolute
        )
    np.testing.assert_allclose(popt[3], [expected[0], 0.7], rtol=1e-6)
    np.testing.assert_allclose(pcov[3], [[covariance[0, 0], 0], [0, 0]], rtol=1e-6)


def test_no_datasets() -> None:
    popt, pcov = parfit.curve_fit(decay, T, np.empty((0, M)), **SERIAL)
    assert popt.shape == (0, 2)
    assert pcov.shape == (0, 2, 2)


NAN = np.where(np.arange(M) == 3, np.nan, T)
REFUSED: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
    (r"ydata has shape \(5, 3, 4\).*ydata.reshape\(len\(ydata\), -1\)", (decay, T, Y.reshape(B, 3, 4)), {}),
    (r"`ydata` must not be empty", (decay, [], []), {}),
    (r"ydata has rows of lengths 1, 2: .*nan_policy='omit'", (decay, T, [[1.0], [1.0, 2.0]]), {}),
    (r"xdata has shape \(7,\), and ydata \(5, 12\).*\(5, k, 12\)", (decay, T[:7], Y), {}),
    (r"xdata has shape \(2, 5, 12\).*np.stack\(xdata, axis=1\)", (decay, (OWN_X, OWN_X), Y), {}),
    (r"ydata of dataset 2 is nan at position 3.*check_finite=False", (decay, T, [T, T, NAN]), {}),
    (r"ydata of dataset 0 is nan at position 3", (decay, T, [NAN, T]), {"nan_policy": "raise"}),
    (r"ydata is inf at position 0$", (decay, T, np.full(M, np.inf)), {}),
    (r"xdata is nan at position 3: nan_policy='omit' leaves such points out$", (decay, NAN, Y), {}),
    (r"last axis of xdata, of shape \(12, 2\)", (decay, np.ones((M, 2)), [T, NAN]), {"nan_policy": "omit"}),
    (r"p0 has shape \(3, 2\); for 2 parameters and 5 datasets .*\(2,\).*\(5, 2\)", (decay, T, Y, TRUE[:3]), {}),
    (r"p0 has shape \(1, 1, 2\)", (decay, T, Y, [[[1, 1]]]), {}),
    (r"Unable to determine number of fit parameters", (lambda x, *params: x, T, Y), {}),
    (r"sigma has shape \(5,\), and ydata \(5, 12\).*\(5, 1\).*\(5, 12, 12\)", (decay, T, Y), {"sigma": np.ones(B)}),
    (r"sigma has shape \(5,\), and ydata \(12,\)", (decay, T, Y[0]), {"sigma": np.ones(B)}),
    (r"sigma is 0 at position 0", (decay, T, Y), {"sigma": T}),
    (r"`sigma` of shape \(12, 12\) must be positive definite", (decay, T, Y), {"sigma": -np.eye(M)}),
    (r"the upper side of bounds has shape \(3,\)", (decay, T, Y), {"bounds": (0, [1, 2, 3])}),
    (r"bounds must be \(lower, upper\).*tuple with 1 entries", (decay, T, Y), {"bounds": (0,)}),
    (r"the bounds of height are the wrong way round", (decay, T, Y), {"bounds": (1, 0)}),
    (r"the start of height, 5, is outside its bounds", (decay, T, Y, [5, 5]), {"bounds": (0, 1)}),
    (r"'args' is not a supported keyword argument", (decay, T, Y), {"args": (1,)}),
    (r"1 residual cannot determine 2 free parameters", (decay, T[:1], Y[:, :1]), {}),
]  # fmt: skip


@pytest.mark.parametrize(("match", "args", "options"), REFUSED)
def test_refused_with_what_and_where(match: str, args: Any, options: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError, match=match):
        parfit.curve_fit(*args, **options, **SERIAL)


@pytest.mark.parametrize("options", [{"method": "lbfgs"}, {"nan_policy": "propagate"}, {"max_nfe": 3}, {"jac": "2"}])
def test_unknown_names(options: dict[str, Any]) -> None:
    with pytest.raises(UnknownNameError):
        parfit.curve_fit(decay, T, Y, **options, **SERIAL)


@pytest.mark.parametrize(
    ("match", "args"),
    [
        ("f must be callable, not int", (3, T, Y)),
        (r"f takes 2 parameters after x \('height', 'rate'\), and p0 of shape \(3,\) has 3", (decay, T, Y, [1, 1, 1])),
        ("ydata must be an array of real numbers, and has dtype complex128", (decay, T, Y + 1j)),
    ],
)
def test_of_another_kind(match: str, args: Any) -> None:
    with pytest.raises(InvalidTypeError, match=match):
        parfit.curve_fit(*args, **SERIAL)


def test_refit_goes_on() -> None:
    with pytest.warns(ParfitWarning, match="5 max_steps"):
        fits = parfit.curve_fit(decay, T, Y, maxfev=3, full_output=True, **SERIAL)[2]
    again = fits.refit(x0="solution", options={})
    np.testing.assert_allclose(again.params, CASES["shared x"].batch(**SERIAL)[0], rtol=1e-6)
    np.testing.assert_array_equal(again.covariances()[3], again.cov(3))
