"""`fit`: what goes in, what goes wrong, and that neither executor, worker count nor chunk size changes a bit."""

from __future__ import annotations

import importlib.util
import random
import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest

import parfit

T = np.linspace(0.0, 4.0, 15)


def decays(rows: int = 6, noise: float = 0.02) -> pd.DataFrame:
    rng = np.random.default_rng(4)
    values = rng.uniform(1, 3, (rows, 1)) * np.exp(-rng.uniform(0.3, 1, (rows, 1)) * T)
    return pd.DataFrame(values + noise * rng.standard_normal(values.shape), index=[f"row {i}" for i in range(rows)])


def residuals(p: Any, row: Any) -> Any:
    return p[0] * np.exp(-p[1] * T) - row.to_numpy()


def cost(p: Any, row: Any) -> float:
    r = residuals(p, row)
    return float(r @ r)


def fit(data: Any = None, objective: Any = residuals, x0: Any = (1.0, 1.0), **given: Any) -> parfit.Fits:
    given.setdefault("executor", "serial")
    return parfit.fit(decays() if data is None else data, objective, x0, **given)


def table(fits: parfit.Fits) -> pd.DataFrame:
    """Everything that must not depend on where it ran: all but the time."""
    return fits.to_frame().drop(columns="seconds")


# ---- the simplest of uses


def test_a_frame_an_objective_and_a_start() -> None:
    data = decays(noise=0.0)
    fits = parfit.fit(data, residuals, [1.0, 1.0])
    assert fits.success.all()
    rng = np.random.default_rng(4)
    wanted = np.hstack([rng.uniform(1, 3, (6, 1)), rng.uniform(0.3, 1, (6, 1))])
    np.testing.assert_allclose(fits.params, wanted, rtol=1e-6)
    scalar = parfit.fit(data, cost, [1.0, 1.0], workers=2)
    assert scalar.success.all()
    np.testing.assert_allclose(scalar.params, wanted, rtol=1e-3)
    assert "L-BFGS-B" not in fits.engine_reason
    assert fits.engine == scalar.engine == ("batch" if importlib.util.find_spec("jax") else "rows")


def test_args_travel() -> None:
    def objective(p: Any, row: Any, times: Any, scale: float) -> Any:
        return scale * (p[0] * np.exp(-p[1] * times) - row.to_numpy())

    for executor in ("serial", "processes"):
        fits = fit(objective=objective, args=(T, 1.0), executor=executor, workers=None if executor == "serial" else 2)
        pd.testing.assert_frame_equal(table(fits), table(fit()))
    single = fit(objective=lambda p, row, times: p[0] * np.exp(-p[1] * times) - row.to_numpy(), args=T)
    pd.testing.assert_frame_equal(table(single), table(fit()))


def test_a_callable_start_and_callable_bounds() -> None:
    def start(row: Any) -> dict[str, Any]:
        return {"a": row.iloc[0], "b": 1.0}

    def bounds(row: Any) -> dict[str, Any]:
        return {"a": (0, 2 * row.iloc[0])}

    def objective(p: Any, row: Any) -> Any:
        return residuals([p["a"], p["b"]], row)

    data = decays()
    given = {"data": data, "objective": objective, "history": True}
    serial = fit(x0=start, bounds=bounds, **given)
    assert serial.success.all()
    first = serial.history.groupby("label", sort=False)[["a", "b"]].first()
    assert first["a"].tolist() == data[0].tolist()
    there = fit(x0=start, bounds=bounds, executor="processes", workers=2, **given)
    pd.testing.assert_frame_equal(table(there), table(serial))
    frame = pd.DataFrame({"a": data[0], "b": 1.0})
    same = fit(x0=frame, bounds=({"a": 0.0}, pd.DataFrame({"a": 2 * data[0]})), **given)
    pd.testing.assert_frame_equal(table(same), table(serial))


@pytest.mark.parametrize(
    "returned",
    [
        lambda r: r.tolist(),
        lambda r: tuple(r),
        lambda r: pd.Series(r),
        lambda r: r.astype(object),
        lambda r: np.ma.masked_array(r),
        lambda r: r[::-1][::-1],
    ],
)
def test_residuals_in_any_form(returned: Any) -> None:
    fits = fit(objective=lambda p, row: returned(residuals(p, row)))
    pd.testing.assert_frame_equal(table(fits), table(fit()))


@pytest.mark.parametrize("method", ["lm", "trf", "dogbox", "L-BFGS-B"])
def test_an_objective_that_hands_out_the_same_array_each_time(method: str) -> None:
    buffer = np.empty(T.size)

    def objective(p: Any, row: Any) -> Any:
        return np.subtract(p[0] * np.exp(-p[1] * T), row.to_numpy(), out=buffer)

    pd.testing.assert_frame_equal(table(fit(objective=objective, method=method)), table(fit(method=method)))


@pytest.mark.parametrize("returned", [np.float64, np.asarray, lambda c: np.array(c, dtype=object), np.longdouble])
def test_scalars_in_any_form(returned: Any) -> None:
    fits = fit(objective=lambda p, row: returned(cost(p, row)))
    pd.testing.assert_frame_equal(table(fits), table(fit(objective=cost)))
    whole = fit(objective=lambda p, row: round(1e9 * cost(p, row)), method="Nelder-Mead")
    assert whole.success.all()


# ---- what goes wrong in some rows, and in all


def test_an_objective_that_raises_for_some_rows() -> None:
    class CountyError(Exception):
        def __init__(self, name: str, code: int) -> None:  # cannot be unpickled
            super().__init__(f"{name}: {code}")

    def objective(p: Any, row: Any) -> Any:
        if row.name in ("row 1", "row 4"):
            raise CountyError(row.name, 7)
        return residuals(p, row)

    serial = fit(objective=objective)
    assert serial.status.tolist() == ["converged", "error", "converged", "converged", "error", "converged"]
    assert serial.errors["message"].tolist() == ["row 1: 7", "row 4: 7"]
    assert serial.errors["type"].str.endswith("CountyError").all()
    good = serial.success
    pd.testing.assert_frame_equal(serial.params[good], fit().params[good])
    there = fit(objective=objective, executor="processes", workers=2)
    pd.testing.assert_frame_equal(table(there), table(serial))
    assert there.errors["traceback"].str.contains("raise CountyError").all()


@pytest.mark.parametrize("executor", ["serial", "processes"])
def test_an_objective_that_raises_everywhere(executor: str) -> None:
    def objective(p: Any, row: Any) -> Any:
        raise KeyError(f"2000 of {row.name}")

    with pytest.warns(
        parfit.ParfitWarning, match="every dataset raised KeyError, the first of them: '2000 of row 0'"
    ) as caught:
        fits = fit(objective=objective, executor=executor)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert fits.status.tolist() == ["error"] * 6
    assert len(fits.errors) == 6


def test_one_row_that_raises_needs_no_warning() -> None:
    assert fit(decays(1), lambda p, row: 1 / 0).status.tolist() == ["error"]


@pytest.mark.parametrize("executor", ["serial", "processes"])
def test_raise_at_the_first(executor: str) -> None:
    def objective(p: Any, row: Any) -> Any:
        if row.name == "row 2":
            raise ValueError("bad county")
        return residuals(p, row)

    with pytest.raises(parfit.FitError, match="dataset 'row 2': ValueError: bad county") as caught:
        fit(objective=objective, on_error="raise", executor=executor)
    assert caught.value.label == "row 2"
    assert isinstance(caught.value.__cause__, ValueError)
    assert "in objective" in str(caught.value.__cause__.__cause__)
    data = decays()
    data.iloc[3, 0] = np.nan
    with pytest.raises(parfit.FitError, match="dataset 'row 3': nonfinite: the residuals hold NaN"):
        fit(data, on_error="raise", executor=executor)
    assert fit(on_error="raise", executor=executor).success.all()


@pytest.mark.parametrize(
    ("objective", "text"),
    [
        (lambda p, row: None, "the objective gave NoneType.*is a `return` missing"),
        (lambda p, row: "3.0", "the objective gave str"),
        (lambda p, row: 1j * p[0], "the objective gave complex"),
        (lambda p, row: residuals(p, row) + 0j, "the objective gave dtype complex128"),
        (lambda p, row: np.ones((3, 2)), r"an array of shape \(3, 2\).*`.ravel\(\)`"),
        (lambda p, row: pd.DataFrame(np.ones((3, 2))), r"an array of shape \(3, 2\)"),
        (lambda p, row: {"a": 1.0}, "the objective gave dict"),
        (lambda p, row: 10**400, "the objective gave int"),
        (lambda p, row: [1.0, [2.0, 3.0]], "the objective gave list"),
        (lambda p, row: (1.0, np.ones(2)), r"the objective gave tuple.*jac=True"),
        (lambda p, row: ["a", "b"], "dtype"),
        (lambda p, row: np.array([1.0, None]), "dtype object"),
        (lambda p, row: np.array(["2020-01-01"], dtype="M8[D]"), "dtype datetime64"),
        (lambda p, row: objective_of_a_class, "the objective gave function"),
    ],
)
@pytest.mark.parametrize("method", [None, "Nelder-Mead"])
def test_a_value_that_is_none(objective: Any, text: str, method: str | None) -> None:
    fits = fit(decays(1), objective, method=method)
    assert fits.status.tolist() == ["error"]
    assert fits.errors["message"].str.contains(text).all(), fits.errors["message"].tolist()
    assert fits.errors["message"].str.contains("a real number or a 1-D array of residuals is wanted").all()


def objective_of_a_class() -> None:
    """Something that is no number."""


@pytest.mark.parametrize("method", [None, "trf", "L-BFGS-B", "Nelder-Mead"])
def test_a_length_that_changes_with_the_parameters(method: str | None) -> None:
    def objective(p: Any, row: Any) -> Any:
        return residuals(p, row)[: 15 if p[1] == 1.0 else 14]

    fits = fit(decays(1), objective, method=method)
    assert fits.status.tolist() == ["error"]
    assert "shape (15,) at the start, shape (14,) now" in fits.errors["message"].iloc[0]


@pytest.mark.parametrize("method", [None, "trf", "L-BFGS-B", "Nelder-Mead"])
def test_a_kind_that_changes_with_the_parameters(method: str | None) -> None:
    fits = fit(decays(1), lambda p, row: residuals(p, row) if p[1] == 1.0 else 3.0, method=method)
    assert fits.status.tolist() == ["error"]
    assert "and a scalar now" in fits.errors["message"].iloc[0]
    if method != "trf":
        fits = fit(decays(1), lambda p, row: cost(p, row) if p[1] == 1.0 else residuals(p, row), method=method)
        assert fits.status.tolist() == ["error"]
        assert "a scalar at the start, and shape (15,) now" in fits.errors["message"].iloc[0]


@pytest.mark.parametrize("executor", ["serial", "processes"])
def test_a_kind_that_changes_with_the_row(executor: str) -> None:
    def objective(p: Any, row: Any) -> Any:
        return cost(p, row) if row.name == "row 3" else residuals(p, row)

    for method in (None, "lm"):
        fits = fit(objective=objective, method=method, executor=executor)
        assert fits.status.tolist() == ["converged"] * 3 + ["error"] + ["converged"] * 2
        assert "scalar" in fits.errors["message"].iloc[0]


@pytest.mark.parametrize("executor", ["serial", "processes"])
@pytest.mark.parametrize("method", ["lm", "trf", "dogbox"])
def test_a_method_for_residuals_and_a_scalar(method: str, executor: str) -> None:
    calls: list[int] = []

    def objective(p: Any, row: Any) -> Any:
        calls.append(1)
        return cost(p, row) if row.name != "row 0" else np.nan

    with pytest.raises(
        parfit.MethodMismatchError, match=f"'{method}' fits residuals, and the objective gives a scalar"
    ):
        fit(decays(50), objective, method=method, executor=executor)
    assert len(calls) < 10  # at once, and not after all of them
    with pytest.raises(parfit.MethodMismatchError, match="maximize=True needs a scalar"):
        fit(maximize=True, executor=executor)


# ---- warnings


@pytest.mark.parametrize("executor", ["serial", "processes"])
def test_warnings_are_kept_by_row_and_told_once(executor: str) -> None:
    def objective(p: Any, row: Any) -> Any:
        if row.name != "row 0":
            warnings.warn(f"thin data in {row.name}", RuntimeWarning, stacklevel=2)
        np.log(-1.0 if row.name == "row 1" else 1.0)
        return residuals(p, row)

    with warnings.catch_warnings():
        warnings.simplefilter("default")
        with pytest.warns(parfit.ParfitWarning, match="5 of 6 datasets gave warnings .see fits.warnings") as caught:
            fits = fit(objective=objective, executor=executor)
    assert len(caught) == 1
    found = fits.warnings
    assert found["label"].tolist() == ["row 1", "row 1", "row 2", "row 3", "row 4", "row 5"]
    assert found["message"].iloc[1] == "invalid value encountered in log"
    assert (found["count"] == fits.summary["nfev"].loc[found["label"]].to_numpy()).all()
    assert fits.success.all()


@pytest.mark.parametrize("executor", ["serial", "processes"])
def test_warnings_that_are_errors_to_the_caller_are_so_in_the_rows(executor: str) -> None:
    def objective(p: Any, row: Any) -> Any:
        if row.name == "row 2":
            warnings.warn("thin data", UserWarning, stacklevel=2)
        return residuals(p, row)

    fits = fit(objective=objective, executor=executor)
    assert fits.errors["type"].tolist() == ["UserWarning"]


# ---- interruption


def test_a_ctrl_c_keeps_what_was_finished() -> None:
    def objective(p: Any, row: Any) -> Any:
        if row.name == "row 4":
            raise KeyboardInterrupt
        return residuals(p, row)

    with pytest.raises(parfit.FitInterrupted, match="interrupted with 4 of 6 datasets done") as caught:
        fit(objective=objective, chunk_size=1)
    fits = caught.value.fits
    assert fits.status.tolist() == ["converged"] * 4 + ["not_run"] * 2
    assert fits.summary["attempts"].tolist() == [1] * 4 + [0] * 2
    assert fits["row 5"].message == "the fit was not run"
    rest = fits.refit("not_run", objective=residuals)
    pd.testing.assert_frame_equal(table(rest), table(fit()))


def test_the_callers_random_numbers_are_its_own() -> None:
    def objective(p: Any, row: Any) -> Any:
        np.random.random()  # noqa: NPY002
        random.random()
        return residuals(p, row)

    def start(row: Any) -> list[float]:
        return [1.0 + np.random.random(), 1.0 + random.random()]  # noqa: NPY002

    before = np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
    fits = fit(objective=objective, x0=start, executor="serial")
    assert np.array_equal(np.random.get_state()[1], before[0])  # noqa: NPY002
    assert random.getstate() == before[1]
    again = fit(objective=objective, x0=start, executor="processes", workers=2, chunk_size=2)
    pd.testing.assert_frame_equal(table(again), table(fits))


# ---- what is logged


@pytest.mark.parametrize("engine", ["auto", "rows"])
def test_what_is_logged_quotes_no_data(caplog: pytest.LogCaptureFixture, tmp_path: Any, engine: str) -> None:
    data = decays()
    data.index = [f"secret {i}" for i in range(len(data))]
    data.iloc[2, 3] = 777.125

    def objective(p: Any, row: Any) -> Any:
        if 777.125 in row.to_numpy():
            raise ValueError(f"{row.name}: {max(row)}")
        return residuals(p, row)

    def unlike_when_compiled(p: Any, row: Any) -> Any:  # the compiled value is another: the reason says which
        return residuals(p, row) * (1.0 if isinstance(p, np.ndarray) else 2.0)

    with caplog.at_level("DEBUG", "parfit"):
        fit(data, objective, engine=engine, store=tmp_path / "fits.db")
        fits = fit(data, unlike_when_compiled, engine=engine, executor=None)
    assert len(fits) == len(data)
    assert f"{len(data)} datasets" in caplog.text
    for word in ("secret", "777", str(round(float(data.iloc[0, 0]), 4))):
        assert word not in caplog.text
