"""The engines give one table: every form of data and of parameters, fitted all at once and row by row."""

from __future__ import annotations

from collections import namedtuple
from typing import Any

import numpy as np
import pandas as pd
import pytest

import parfit
from tests.batched.decays import T, cost, decays, residuals

pytest.importorskip("jax", reason="the batched engine needs jax")

pytestmark = pytest.mark.usefixtures("quickly_compiled")
DATA = decays(6)
START = {"a": 1.0, "b": 1.0}
#: Tight enough that both engines end at the same point; the rows' Jacobians are by forward differences.
TIGHT = {"ftol": 1e-13, "xtol": 1e-13, "gtol": 1e-13}


def model(a: Any, b: Any, t: Any = T) -> Any:
    return a * np.exp(-b * t)


def both(data: Any, objective: Any, x0: Any, **given: Any) -> tuple[parfit.Fits, parfit.Fits]:
    """The fits of both engines, compared in all that they say of each row."""
    given = {"options": TIGHT, **given}
    batch = parfit.fit(data, objective, x0, engine="batch", **given)
    rows = parfit.fit(data, objective, x0, engine="rows", executor="serial", **given)
    assert_agree(batch, rows)
    return batch, rows


def assert_agree(batch: parfit.Fits, rows: parfit.Fits, x: float = 1e-6, stderr: float = 1e-5) -> None:
    """`x` and `stderr` are relative tolerances of the parameters and of their errors."""
    assert (batch.engine, rows.engine) == ("batch", "rows")
    pd.testing.assert_index_equal(batch.labels, rows.labels)
    assert batch.status.tolist() == rows.status.tolist()
    for fits in (batch, rows):
        assert fits.summary["message"].str.len().all()
    pd.testing.assert_frame_equal(batch.params, rows.params, rtol=x, atol=1e-7)
    pd.testing.assert_frame_equal(batch.stderr, rows.stderr, rtol=stderr, atol=1e-9)
    pd.testing.assert_frame_equal(batch.at_bound, rows.at_bound)
    for position in range(len(batch)):
        mine, theirs = batch.row(position), rows.row(position)
        np.testing.assert_allclose(mine.cov, theirs.cov, rtol=2 * stderr, atol=1e-9)
        assert type(mine.x) is type(theirs.x)
        assert mine.success == theirs.success
    mine, theirs = batch.summary, rows.summary
    np.testing.assert_allclose(mine["cost"], theirs["cost"], rtol=1e-9, atol=1e-14)
    np.testing.assert_allclose(mine["condition"], theirs["condition"], rtol=1e-4)
    for column in ("n_residuals", "rank", "at_bound", "success", "attempts"):
        assert mine[column].tolist() == theirs[column].tolist(), column


# ---- parameters in every structure


Pair = namedtuple("Pair", "a b")
STRUCTURES: dict[str, tuple[Any, Any]] = {
    "list": ([1.0, 1.0], lambda p: (p[0], p[1])),
    "array": (np.ones((2, 1)), lambda p: (p[0, 0], p[1, 0])),
    "dict": (START, lambda p: (p["a"], p["b"])),
    "series": (pd.Series(START), lambda p: (p["a"], p.b)),
    "namedtuple": (Pair(1.0, np.ones(1)), lambda p: (p.a, p.b[0])),
    "nested": ({"a": [1.0], "inner": {"b": (np.array([1.0]),)}}, lambda p: (p["a"][0], p["inner"]["b"][0][0])),
    "table": (
        pd.DataFrame({"value": [1.0, 1.0], "lower_bound": [0.0, -np.inf], "upper_bound": [np.inf, 9.0]}, index=[*"ab"]),
        lambda p: (p.loc["a", "value"], p["value"]["b"]),
    ),
    "frame of starts": (
        pd.DataFrame({"a": np.linspace(1, 2, 6), "b": 1.0}, index=DATA.index),
        lambda p: (p["a"], p["b"]),
    ),
    "callable": (lambda row: {"a": row.iloc[0], "b": 1.0}, lambda p: (p["a"], p["b"])),
}


@pytest.mark.parametrize("structure", STRUCTURES)
def test_parameters_of_every_structure(structure: str) -> None:
    x0, parts = STRUCTURES[structure]
    batch, _ = both(DATA, lambda p, row: model(*parts(p)) - row.to_numpy(), x0)
    assert batch.success.all()
    wanted = parfit.fit(DATA, residuals, [1.0, 1.0], engine="batch", options=TIGHT)
    np.testing.assert_allclose(batch.params, wanted.params, rtol=1e-7)


def test_fixed_parameters_stay_and_have_no_error() -> None:
    three = lambda p, row: model(p["a"], p["b"]) + p["c"] - row.to_numpy()  # noqa: E731
    batch, _ = both(DATA, three, {**START, "c": 0.01}, fixed=["c"])
    assert (batch.params["c"] == 0.01).all()
    assert (batch.stderr["c"] == 0).all()
    start = pd.DataFrame({**START, "c": np.arange(6) / 1000}, index=DATA.index)
    by_row, _ = both(DATA, three, start, fixed=["c"])
    assert by_row.params["c"].tolist() == start["c"].tolist()


def test_bounds_of_all_and_of_each_row() -> None:
    objective = lambda p, row: residuals([p["a"], p["b"]], row)  # noqa: E731
    free = parfit.fit(DATA, objective, START, engine="batch")
    upper = pd.DataFrame({"a": np.inf, "b": free.params["b"] * [2, 0.9, 2, 0.8, 2, 0.99]})
    start = pd.DataFrame({"a": 1.0, "b": 0.1}, index=DATA.index)
    batch, _ = both(DATA, objective, start, bounds=(-10.0, upper))
    assert batch.at_bound["b"].tolist() == [0, 1, 0, 1, 0, 1]
    upper.loc["row 2", "b"] = -10.0  # equal bounds: fixed there, and there alone
    upper.loc["row 4"] = -20.0
    batch, rows = both(DATA, objective, start, bounds=(-10.0, upper))
    assert batch.status["row 4"] == "invalid"
    assert batch.summary.loc["row 4", "message"] == rows.summary.loc["row 4", "message"]
    assert batch.params.loc["row 2", "b"] == -10.0
    for bounds in ({"b": (0, 0.3)}, lambda row: {"a": (0, row.iloc[0])}):
        both(DATA, objective, {"a": 0.5, "b": 0.1}, bounds=bounds)


# ---- data in every form


TABLE = DATA.set_axis([f"t{i}" for i in range(len(T))], axis=1)
LONG = pd.DataFrame(
    {"county": np.repeat([*"abcdef"], len(T)), "t": np.tile(T, 6), "y": DATA.to_numpy().ravel(), "note": "x"}
)


def two_levels() -> pd.DataFrame:
    years = pd.MultiIndex.from_product([["2000", "2010"], range(len(T))])
    return pd.DataFrame(np.hstack([np.ones((6, 1)) * T, DATA.to_numpy()]), index=DATA.index, columns=years)


FORMS: dict[str, tuple[Any, Any]] = {
    "text in a column": (
        TABLE.assign(state="AL", county=[*"abcdef"]),
        lambda row: (T, row.drop(["state", "county"]).to_numpy(dtype=float)),
    ),
    "two levels": (two_levels(), lambda row: (row["2000"].to_numpy(), row["2010"].to_numpy())),
    "whole numbers": ((100 * TABLE).round().astype(int), lambda row: (T, row.to_numpy() / 100)),
    "columns by name": (
        TABLE.assign(first=1),
        lambda row: (T * row["first"], np.array([row[f"t{i}"] for i in range(len(T))])),
    ),
    "nullable": (TABLE.astype("Float64"), lambda row: (T, row.to_numpy(dtype=float))),
    "groups": (LONG.groupby("county"), lambda part: (part["t"].to_numpy(), part["y"].to_numpy())),
    "groups of columns": (LONG.groupby("county")[["t", "y"]], lambda part: (part["t"], part["y"])),
    "mapping": ({k: row.to_numpy() for k, row in DATA.iterrows()}, lambda y: (T, y)),
    "mapping of mappings": (
        {k: {"t": T, "y": row.to_numpy()} for k, row in DATA.iterrows()},
        lambda d: (d["t"], d["y"]),
    ),
    "sequence": ([row.to_numpy() for _, row in DATA.iterrows()], lambda y: (T, y)),
    "sequence of series": ([row for _, row in DATA.iterrows()], lambda y: (T, y.to_numpy())),
    "sequence of frames": ([part for _, part in LONG.groupby("county")], lambda part: (part["t"], part["y"])),
    "array": (DATA.to_numpy(), lambda y: (T, y)),
    "single precision": (DATA.to_numpy(np.float32), lambda y: (T, y)),
    "3-d array": (np.stack([0 * DATA + T, DATA], axis=1), lambda d: (d[0], d[1])),
    "tree of arrays": ({"y": DATA.to_numpy(), "n": np.arange(6)}, lambda d: (T, d["y"] + 0 * d["n"])),
    "pair of arrays": ((DATA.to_numpy(), np.ones((6, len(T)))), lambda d: (T, d[0] * d[1])),
}


@pytest.mark.parametrize("form", FORMS)
def test_data_of_every_form(form: str) -> None:
    data, parts = FORMS[form]

    def objective(p: Any, dataset: Any) -> Any:
        t, y = parts(dataset)
        return p["a"] * np.exp(-p["b"] * t) - y

    batch, _ = both(data, objective, START)
    assert batch.success.all()


@pytest.mark.parametrize(
    "labels",
    [
        pd.Index(["a", "b", "a", "a", "b", "a"]),
        pd.MultiIndex.from_product([["AL", "GA"], [1, 3, 5]], names=["state", "county"]),
        pd.date_range("2020", periods=6, freq="D"),
        pd.Index([None, np.nan, "x", (1, 2), 7, "7"], tupleize_cols=False),
    ],
    ids=["duplicates", "two levels", "dates", "missing"],
)
def test_labels_come_back_unchanged(labels: pd.Index) -> None:
    both(DATA.set_axis(labels), residuals, [1.0, 1.0])


def test_further_arguments_and_a_table_of_constants() -> None:
    constants = pd.DataFrame({"scale": [1.0, 2.0]}, index=["x", "y"])
    both(
        DATA,
        lambda p, row, t, c: c.loc["x", "scale"] * (model(*p, t) - row.to_numpy()),
        [1.0, 1.0],
        args=(T, constants),
    )


# ---- rows that go wrong


def test_bad_rows_among_good_ones() -> None:
    data = DATA.copy()
    data.iloc[1, 4] = np.nan
    data.iloc[2] = np.inf
    data.iloc[3] = 0.0
    start = pd.DataFrame({"x0": 1.0, "x1": 1.0}, index=data.index)
    start.iloc[4, 0] = np.nan
    objective = lambda p, row: residuals([p["x0"], p["x1"]], row)  # noqa: E731
    batch = parfit.fit(data, objective, start, engine="batch")
    rows = parfit.fit(data, objective, start, engine="rows", executor="serial")
    assert batch.status.tolist() == rows.status.tolist()
    assert batch.status.tolist() == ["converged", "nonfinite", "nonfinite", "converged", "invalid", "converged"]
    bad = ~batch.success.to_numpy()
    assert batch.summary["message"][bad].tolist() == rows.summary["message"][bad].tolist()
    assert batch.params[bad].isna().to_numpy().tolist() == rows.params[bad].isna().to_numpy().tolist()
    assert batch.stderr[bad].isna().all(axis=None)
    whole = parfit.fit(DATA, residuals, [1.0, 1.0], engine="batch")
    assert batch.params.iloc[[0, 5]].to_numpy().tolist() == whole.params.iloc[[0, 5]].to_numpy().tolist()


def test_parameters_that_the_data_do_not_determine() -> None:
    twice = lambda p, row: model(p[0] + p[2], p[1]) - row.to_numpy()  # noqa: E731
    batch, _ = (parfit.fit(DATA, twice, [1.0, 1.0, 0.5], engine=e) for e in ("batch", "rows"))
    assert batch.success.all()
    assert (batch.summary["rank"] == 2).all()
    assert np.isinf(batch.stderr[["x0", "x2"]]).all(axis=None)
    wanted = parfit.fit(DATA, residuals, [1.0, 1.0], engine="batch", options=TIGHT)
    cov = [batch.cov(label).loc["x1", "x1"] * 12 / 13 for label in DATA.index]
    np.testing.assert_allclose(cov, wanted.stderr["x1"] ** 2, rtol=1e-4)


def test_as_many_residuals_as_parameters_leave_no_error_to_estimate() -> None:
    batch, _ = both(DATA, lambda p, row: residuals(p, row)[::8], [1.0, 1.0])
    assert np.isinf(batch.stderr).all(axis=None)


# ---- scalars


@pytest.mark.parametrize("method", [None, "L-BFGS-B", "Nelder-Mead"])
def test_scalars(method: str | None) -> None:
    from parfit import batched

    if method not in (None, *batched.METHODS):
        pytest.skip(f"{method} is not there")
    given = {"xatol": 1e-9, "fatol": 1e-14} if method == "Nelder-Mead" else {"ftol": 1e-12, "gtol": 1e-6}
    batch, rows = (
        parfit.fit(DATA, cost, [1.0, 1.0], method=method, options=given, engine=engine, workers=1)
        for engine in ("batch", "rows")
    )
    assert batch.success.all()
    assert rows.success.all()
    np.testing.assert_allclose(batch.summary["cost"], rows.summary["cost"], rtol=1e-8)
    np.testing.assert_allclose(batch.params, rows.params, rtol=1e-4)
    assert (batch.summary["n_residuals"] == rows.summary["n_residuals"]).all()
    assert (batch.at_bound == 0).all(axis=None)


def test_maximising_is_minimising_the_negative() -> None:
    least = parfit.fit(DATA, cost, [1.0, 1.0], engine="batch")
    most = parfit.fit(DATA, lambda p, row: -cost(p, row), [1.0, 1.0], maximize=True, engine="batch")
    np.testing.assert_allclose(most.params, least.params, rtol=1e-9)
    np.testing.assert_allclose(most.summary["cost"], least.summary["cost"], rtol=1e-12)
    assert most["row 0"].fun == pytest.approx(-least["row 0"].fun, rel=1e-12)


def test_a_scalar_method_takes_residuals_as_half_their_squares() -> None:
    by_scalar = parfit.fit(DATA, residuals, [1.0, 1.0], method="L-BFGS-B", engine="batch", options={"ftol": 1e-15})
    wanted = parfit.fit(DATA, residuals, [1.0, 1.0], engine="batch", options=TIGHT)
    assert by_scalar.success.all()
    np.testing.assert_allclose(by_scalar.summary["cost"], wanted.summary["cost"], rtol=1e-8)
    np.testing.assert_allclose(by_scalar.stderr, wanted.stderr, rtol=1e-3)
    assert (by_scalar.summary["n_residuals"] == len(T)).all()
