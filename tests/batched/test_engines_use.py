"""What is done with fits of the batched engine: refits, one row again under a debugger, progress, errors, precision."""

from __future__ import annotations

import pickle
import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest

import parfit
from tests.batched.decays import T, decays, fit, residuals, table

pytest.importorskip("jax", reason="the batched engine needs jax")
import jax
import jax.numpy as jnp

DATA = decays(12)


def spoiled() -> pd.DataFrame:
    data = DATA.copy()
    data.iloc[3, 5] = np.nan
    return data


# ---- again


def test_a_refit_of_some_rows_keeps_the_others() -> None:
    fits = fit(spoiled(), options={"max_nfev": 3})
    assert fits.status["row 3"] == "nonfinite"
    assert (fits.status.drop("row 3") == "max_steps").all()
    again = fits.refit(["row 0", "row 7"], options=None)
    assert again.engine == "batch"
    assert again.status[["row 0", "row 7"]].tolist() == ["converged"] * 2
    kept = fits.labels.drop(["row 0", "row 7"])
    pd.testing.assert_frame_equal(table(again).loc[kept], table(fits).loc[kept], check_exact=True)
    whole = fit(DATA)
    pd.testing.assert_frame_equal(
        table(again).loc[["row 0", "row 7"]], table(whole).loc[["row 0", "row 7"]], check_exact=True
    )


def test_a_refit_from_the_solution_stays_there() -> None:
    fits = fit(DATA)
    again = fits.refit("all", x0="solution")
    assert again.success.all()
    assert again.summary["nfev"].sum() < fits.summary["nfev"].sum()
    np.testing.assert_allclose(again.params, fits.params, rtol=1e-6)


def test_a_refit_changes_the_engine_when_asked() -> None:
    fits = fit(DATA.iloc[:3])
    rows = fits.refit("all", engine="rows", executor="serial")
    assert rows.engine == "rows"
    assert rows.refit(["row 1"], engine="batch", executor=None).engine == "batch"


def test_a_refit_of_rows_that_are_all_invalid_leaves_them_so() -> None:
    start = pd.DataFrame({"x0": 1.0, "x1": 1.0}, index=DATA.index)
    start.iloc[2] = np.nan
    fits = fit(DATA, lambda p, row: residuals([p["x0"], p["x1"]], row), start)
    assert fits.status["row 2"] == "invalid"
    again = fits.refit()
    assert again.status["row 2"] == "invalid"
    assert again.summary.loc["row 2", "message"] == fits.summary.loc["row 2", "message"]
    assert again.success.sum() == len(DATA) - 1


def test_a_refit_of_nothing_changes_nothing() -> None:
    fits = fit(DATA)
    pd.testing.assert_frame_equal(table(fits.refit([])), table(fits), check_exact=True)


def test_debug_calls_the_objective_itself_and_lets_its_exception_pass() -> None:
    fits = fit(spoiled())
    found = fits.debug("row 1")
    assert found.status == "converged"
    np.testing.assert_allclose(found.x, fits.params.loc["row 1"], rtol=1e-5)
    assert fits.debug("row 3").status == "nonfinite"


def test_pickled_fits_keep_their_table() -> None:
    fits = fit(DATA)
    there = pickle.loads(pickle.dumps(fits))
    pd.testing.assert_frame_equal(table(there), table(fits), check_exact=True)
    assert (there.engine, there.engine_reason) == (fits.engine, fits.engine_reason)
    assert "engine batch, lm on" in repr(fits)


# ---- as it runs


def test_progress_counts_all_rows_and_no_more() -> None:
    seen: list[tuple[int, int | None]] = []
    start = pd.DataFrame({"x0": 1.0, "x1": 1.0}, index=DATA.index)
    start.iloc[2] = np.nan
    fit(spoiled(), lambda p, row: residuals([p["x0"], p["x1"]], row), start, progress=lambda *now: seen.append(now))
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert seen[-1] == (12, 12)
    assert {total for _, total in seen} == {12}


def test_on_error_raise_names_the_first_bad_row() -> None:
    with pytest.raises(parfit.FitError, match="dataset 'row 3': nonfinite: the residuals hold NaN") as caught:
        fit(spoiled(), on_error="raise")
    assert caught.value.label == "row 3"
    assert fit(DATA, on_error="raise").success.all()


def test_nothing_is_warned_of_and_nothing_printed(capfd: pytest.CaptureFixture[str]) -> None:
    data = spoiled()
    data.iloc[5] = 1e300
    data.iloc[6] = np.inf
    data.iloc[7] = 0.0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fits = fit(data)
    assert len(fits) == 12
    assert len(fits.errors) == 0
    assert len(fits.warnings) == 0
    assert capfd.readouterr() == ("", "")


def test_the_seconds_of_all_rows_are_those_of_the_run() -> None:
    fits = fit(DATA)
    assert (fits.summary["seconds"] >= 0).all()
    assert (fits.summary["attempts"] == 1).all()
    assert (fits.summary["nfev"] >= fits.summary["nit"] + 1).all()


# ---- precision


@pytest.mark.parametrize("x64", [False, True])
def test_the_callers_settings_of_jax_stay_and_the_results_are_float64(x64: bool) -> None:
    with jax.enable_x64(x64):
        fits = fit(DATA)
        assert jax.config.jax_enable_x64 is x64
        assert jax.numpy.ones(1).dtype == (np.float64 if x64 else np.float32)
    assert set(fits.params.dtypes) == {np.dtype(np.float64)}
    pd.testing.assert_frame_equal(table(fits), table(fit(DATA)), check_exact=True)
    wanted = parfit.fit(DATA, residuals, [1.0, 1.0], engine="rows", executor="serial")
    np.testing.assert_allclose(fits.summary["cost"], wanted.summary["cost"], rtol=1e-10)


def test_single_precision_where_it_is_asked_for() -> None:
    fits = fit(DATA, options={"dtype": "float32", "ftol": 1e-5, "xtol": 1e-5})
    double = fit(DATA)
    assert fits.success.all()
    assert set(fits.params.dtypes) == {np.dtype(np.float64)}
    assert (fits.params.to_numpy() == fits.params.to_numpy().astype(np.float32)).all()
    np.testing.assert_allclose(fits.params, double.params, rtol=1e-3)
    np.testing.assert_allclose(fits.stderr, double.stderr, rtol=1e-2)
    np.testing.assert_allclose(fits.summary["cost"], double.summary["cost"], rtol=1e-4)


TIMES = [np.linspace(0.0, 4.0, DATA.shape[1])]


@pytest.mark.parametrize(
    ("objective", "args"),
    [
        (lambda p, row: p["h"] * np.exp(-p["r"] * TIMES[0]) - row.to_numpy(), ()),
        (lambda p, row: p["h"] * jnp.exp(-p["r"] * TIMES[0]) - row.to_numpy(), ()),
        (lambda p, row, t=TIMES[0]: p["h"] * np.exp(-p["r"] * t) - row.to_numpy(), ()),
        (lambda p, row, t: p["h"] * np.exp(-p["r"] * t) - row.to_numpy(), (TIMES[0],)),
    ],
    ids=["a list", "JAX's functions", "a default", "args"],
)
def test_one_precision_after_the_other(objective: Any, args: tuple[Any, ...]) -> None:
    for dtype in ("float32", "float64", "float32"):
        options = {"dtype": dtype, "ftol": 1e-5, "xtol": 1e-5}
        fits = parfit.fit(DATA, objective, {"h": 1.0, "r": 1.0}, args=args, engine="batch", options=options)
        assert fits.success.all()
        single = (fits.params.to_numpy() == fits.params.to_numpy().astype(np.float32)).all()
        assert single == (dtype == "float32")


def test_an_objective_that_reads_a_global_reads_it_anew_in_each_call() -> None:
    scale = {"of": 1.0}

    def objective(p: Any, row: Any) -> Any:
        return scale["of"] * p[0] * np.exp(-p[1] * T) - row.to_numpy()

    first = fit(DATA, objective)
    scale["of"] = 2.0
    second = fit(DATA, objective)
    np.testing.assert_allclose(2 * second.params["x0"], first.params["x0"], rtol=1e-6)


def test_the_rows_engine_computes_in_double_precision_too() -> None:
    """JAX's own default is single precision, with answers that depend on the engine."""

    def in_jax(p: Any, row: Any) -> Any:
        return p[0] * jnp.exp(-p[1] * T) - row.to_numpy()

    fits = {engine: fit(DATA, in_jax, engine=engine) for engine in ("batch", "rows")}
    np.testing.assert_allclose(fits["rows"].params, fits["batch"].params, rtol=1e-6)
    assert fits["rows"].success.all()
    assert jnp.ones(1).dtype == jnp.float32


@pytest.mark.parametrize("engine", ["batch", "rows"])
@pytest.mark.parametrize("tolerance", ["ftol", "xtol", "gtol"])
def test_a_negative_tolerance_is_refused(engine: str, tolerance: str) -> None:
    with pytest.raises(
        parfit.ParfitError, match=f"option '{tolerance}' of method 'lm' must be a number at least 0, or None"
    ):
        fit(DATA, engine=engine, options={tolerance: -1.0})
