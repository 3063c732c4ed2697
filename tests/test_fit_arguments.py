"""Arguments that no dataset can be fitted with: one error, before anything runs; and progress, counted."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pandas as pd
import pytest

import parfit

DATA = pd.DataFrame(np.arange(12.0).reshape(4, 3), index=list("abcd"))


def objective(p: Any, row: Any) -> Any:
    return p - row.to_numpy()


def never(p: Any, row: Any) -> Any:
    raise AssertionError("something has been started")


REFUSED: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"objective": "residuals"}, parfit.InvalidTypeError, "objective must be callable, not str"),
    ({"data": "data.csv"}, parfit.InvalidTypeError, "read it first"),
    ({"x0": "start"}, parfit.InvalidTypeError, "must be a number, not str"),
    ({"x0": None}, parfit.InvalidTypeError, "must be a number, not NoneType"),
    ({"x0": []}, parfit.InvalidInputError, "empty"),
    ({"x0": lambda row: 1 / 0}, parfit.InvalidInputError, r"x0\(dataset\) raises for every dataset: ZeroDivisionError"),
    ({"bounds": {"x9": (0, 1)}}, parfit.UnknownNameError, "unknown parameter 'x9'"),
    ({"bounds": [(0, 1)]}, parfit.InvalidInputError, "1 pairs for 3 parameters"),
    ({"bounds": 3}, parfit.InvalidTypeError, "bounds of type int"),
    ({"bounds": (np.nan, 1)}, parfit.InvalidInputError, "the lower bound of x0 is NaN"),
    ({"bounds": [(0.5, 0.5)] * 3}, parfit.InvalidInputError, "all parameters are fixed, by `fixed` or by equal bounds"),
    ({"bounds": [(0, 0.1), None, None]}, parfit.InvalidInputError, r"x0, 0.5, is outside its bounds \[0, 0.1\]"),
    ({"bounds": (1, 2), "fixed": ["x1"]}, parfit.InvalidInputError, r"x0, 0.5, is outside"),
    ({"bounds": {"x1": (1, 2)}, "fixed": ["x1"]}, parfit.InvalidInputError, "the fixed parameter x1, 0.5, is outside"),
    ({"bounds": {"x1": (3, 2)}, "x0": lambda row: [0.5] * 3}, parfit.InvalidInputError, "wrong way round"),
    ({"x0": [0.5, 0.5], "bounds": np.array([[0, 1], [0, 1]])}, parfit.InvalidInputError, "read in two ways"),
    ({"data": {1: DATA.to_numpy(), 2: DATA.to_numpy()}}, parfit.InvalidInputError, "read in two ways"),
    ({"x0": pd.DataFrame({"valu": [1.0]}, index=["a"])}, parfit.UnknownNameError, "Did you mean 'value'"),
    ({"fixed": ["x9"]}, parfit.UnknownNameError, "'x9'"),
    ({"fixed": [0]}, parfit.InvalidTypeError, "fixed must be names"),
    ({"method": "Nelder-Meed"}, parfit.UnknownNameError, "Did you mean 'Nelder-Mead'"),
    ({"method": "levenberg"}, parfit.UnknownNameError, "unknown method 'levenberg'"),
    ({"method": 3}, parfit.InvalidTypeError, "method must be a name, a Solver or None, not int"),
    ({"method": "lm", "options": {"max_nfew": 3}}, parfit.UnknownNameError, "Did you mean 'max_nfev'"),
    ({"options": "maxiter"}, parfit.InvalidTypeError, "options must be a dict"),
    ({"jac": "3point"}, parfit.UnknownNameError, "Did you mean '3-point'"),
    ({"constraints": [3]}, parfit.InvalidTypeError, "a constraint of type int"),
    ({"method": "lm", "constraints": {"type": "eq", "fun": sum}}, parfit.InvalidInputError, "takes no constraints"),
    ({"method": "BFGS", "bounds": (0, 1)}, parfit.InvalidInputError, "'BFGS' takes no bounds"),
    ({"method": "brute"}, parfit.InvalidInputError, "needs finite bounds"),
    ({"engine": "row"}, parfit.UnknownNameError, "Did you mean 'rows'"),
    ({"on_error": "ignore"}, parfit.UnknownNameError, "unknown value of `on_error`"),
    ({"executor": "proceses"}, parfit.UnknownNameError, "Did you mean 'processes'"),
    ({"executor": 3}, parfit.InvalidTypeError, "executor must be a name"),
    ({"executor": "processes", "workers": 0}, ValueError, "workers"),
    ({"executor": "processes", "workers": 1.5}, (TypeError, ValueError), "workers"),  # type: ignore[dict-item]
    ({"executor": "processes", "workers": "two"}, (TypeError, ValueError), "workers"),  # type: ignore[dict-item]
    ({"chunk_size": 0}, parfit.InvalidInputError, "chunk_size must be a whole number, at least 1"),
    ({"chunk_size": 1.5}, parfit.InvalidInputError, "chunk_size must be a whole number"),
    ({"chunk_size": np.nan}, parfit.InvalidInputError, "chunk_size must be a whole number"),
    ({"chunk_size": "3"}, parfit.InvalidTypeError, "chunk_size must be a number"),
    ({"chunk_size": True}, parfit.InvalidTypeError, "chunk_size must be a number"),
    ({"timeout": 0}, parfit.InvalidInputError, "timeout must be above 0"),
    ({"timeout": -1}, parfit.InvalidInputError, "timeout must be above 0"),
    ({"timeout": np.nan}, parfit.InvalidInputError, "timeout must be above 0"),
    ({"timeout": "1 min"}, parfit.InvalidTypeError, "timeout must be a number"),
    ({"retries": -1}, parfit.InvalidInputError, "retries must be a whole number, at least 0"),
    ({"retries": None}, parfit.InvalidTypeError, "retries must be a number"),
    ({"seed": -1}, parfit.InvalidInputError, "seed must be a whole number from 0 on"),
    ({"seed": 1.5}, parfit.InvalidInputError, "seed must be"),
    ({"seed": True}, parfit.InvalidInputError, "seed must be"),
    ({"progress": "yes"}, parfit.InvalidTypeError, "progress must be True, False, None or a callable"),
    ({"progress": 3}, parfit.InvalidTypeError, "progress must be"),
]


@pytest.mark.parametrize(("given", "error", "text"), REFUSED)
def test_refused_before_anything_runs(given: dict[str, Any], error: type[Exception], text: str) -> None:
    given = {"data": DATA, "objective": never, "x0": [0.5, 0.5, 0.5], "executor": "serial", **given}
    with pytest.raises(error, match=text) as caught:
        parfit.fit(given.pop("data"), given.pop("objective"), given.pop("x0"), **given)
    assert isinstance(caught.value, (ValueError, TypeError))
    assert isinstance(caught.value, parfit.ParfitError)


@pytest.mark.parametrize("executor", ["serial", "threads", ThreadPoolExecutor])
def test_a_time_limit_that_cannot_be_kept_is_refused(executor: Any) -> None:
    if isinstance(executor, type):
        with ThreadPoolExecutor(1) as pool, pytest.raises(parfit.InvalidInputError, match="cannot stop a task"):
            parfit.fit(DATA, never, [0.0] * 3, executor=pool, timeout=1.0)
        return
    with pytest.raises(parfit.InvalidInputError, match=r"cannot stop a task .*; these can: processes"):
        parfit.fit(DATA, never, [0.0] * 3, executor=executor, timeout=1.0)


def test_a_time_limit_in_processes() -> None:
    def slow(p: Any, row: Any) -> Any:
        while row.name == "b":
            pass
        return objective(p, row)

    fits = parfit.fit(DATA, slow, [0.0] * 3, timeout=0.5, workers=2)
    assert fits.status.tolist() == ["converged", "timeout", "converged", "converged"]
    assert "timeout=0.5 s" in fits["b"].message
    assert fits.errors["label"].tolist() == ["b"]
    assert np.array_equal(fits.params.drop("b"), DATA.drop("b"))


@pytest.mark.parametrize("executor", ["serial", "processes"])
def test_progress_counts_finished_rows(executor: str) -> None:
    seen: list[tuple[int, int | None]] = []

    def fails(p: Any, row: Any) -> Any:
        return 1 / 0 if row.name == "b" else objective(p, row)

    fits = parfit.fit(
        DATA, fails, [0.0] * 3, executor=executor, progress=lambda done, total: seen.append((done, total))
    )
    assert seen == [(i, 4) for i in range(1, 5)]
    seen.clear()
    fits.refit("failed")
    assert seen == [(1, 1)]


@pytest.mark.parametrize("progress", [None, False, True])
def test_progress_is_quiet_where_nobody_watches(progress: Any, capfd: pytest.CaptureFixture[str]) -> None:
    parfit.fit(DATA, objective, [0.0] * 3, executor="serial", progress=progress)
    out, err = capfd.readouterr()
    assert out == ""
    assert ("4" in err) == (progress is True)


def test_a_progress_that_raises_does_not_end_the_run() -> None:
    def progress(done: int, total: int | None) -> None:
        raise RuntimeError("no more")

    with pytest.warns(parfit.ParfitWarning, match="progress raised RuntimeError: no more") as caught:
        fits = parfit.fit(DATA, objective, [0.0] * 3, executor="serial", progress=progress)
    assert len(caught) == 1
    assert fits.success.all()


def test_the_engine_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="parfit"):
        fits = parfit.fit(DATA, objective, [0.0] * 3, executor="serial", engine="rows")
    messages = [record.message for record in caplog.records if "engine" in record.message]
    assert len(messages) == 1
    assert fits.engine in messages[0]
    assert fits.engine_reason in messages[0]


def test_numbers_in_numpys_clothes() -> None:
    fits = parfit.fit(
        DATA, objective, [0.0] * 3, executor="serial", chunk_size=np.int64(2), retries=np.int64(0), seed=np.int64(3)
    )
    assert fits.success.all()
    assert parfit.fit(DATA, objective, [0.0] * 3, executor="serial", chunk_size=2.0).success.all()


def test_the_arguments_are_not_changed() -> None:
    options = {"max_nfev": 50}
    x0 = {"a": [1.0, 2.0], "b": np.array([3.0])}
    bounds = {"a": [(0.0, 20.0), (0.0, 20.0)]}
    before = str((options, x0, bounds)), DATA.copy()
    parfit.fit(
        DATA,
        lambda p, row: np.append(p["a"], p["b"]) - row.to_numpy(),
        x0,
        bounds=bounds,
        options=options,
        executor="serial",
    )
    assert str((options, x0, bounds)) == before[0]
    pd.testing.assert_frame_equal(DATA, before[1])


def test_bounds_that_some_rows_cannot_use() -> None:
    index = DATA.index
    low = pd.DataFrame({"x0": [-1.0, np.nan, 0.5, 0.0], "x1": [-99.0, -99.0, 0.5, 1.0]}, index=index)
    high = pd.DataFrame({"x0": [99.0, 99.0, 0.5, 99.0], "x1": [99.0, 99.0, 0.5, 2.0]}, index=index)
    fits = parfit.fit(DATA, objective, [0.5] * 3, bounds=(low, high), fixed=["x2"], executor="serial")
    assert fits.status.tolist() == ["converged", "invalid", "converged", "invalid"]
    assert "the lower bound of x0 is NaN" in fits["b"].message
    assert fits.params.loc["c"].tolist() == [0.5] * 3  # nothing is free in this row, and its cost is known
    assert fits["c"].cost == 0.5 * ((DATA.loc["c"] - 0.5) ** 2).sum()
    assert "the start of x1, 0.5, is outside its bounds [1, 2]" in fits["d"].message


def test_nothing_free_in_any_row() -> None:
    at = pd.DataFrame(0.5, index=DATA.index, columns=["x0", "x1"])
    with pytest.raises(parfit.InvalidInputError, match="all parameters are fixed, by `fixed` or by equal bounds"):
        parfit.fit(DATA, never, [0.5] * 3, bounds=(at, at), fixed=["x2"], executor="serial")
    some = at.where(at.index.to_series() != "b", np.nan)[["x0"]]
    fits = parfit.fit(DATA, objective, [0.5] * 3, bounds=(some, some), fixed=["x1", "x2"], executor="serial")
    assert fits.status.tolist() == ["converged", "invalid", "converged", "converged"]


def test_a_bound_from_a_callable_that_is_nan() -> None:
    fits = parfit.fit(
        DATA, objective, [0.5] * 3, bounds=lambda row: (np.nan if row.name == "b" else -99, 99), executor="serial"
    )
    assert fits.status.tolist() == ["converged", "invalid", "converged", "converged"]
    assert "the lower bound of x0 is NaN" in fits["b"].message


def test_a_table_of_parameters_taken_for_a_dict() -> None:
    table = pd.DataFrame({"value": [1.0, 2.0]}, index=["a", "b"])
    with pytest.warns(parfit.ParfitWarning, match=r"the parameters are a table, as x0 is: params.loc\['a', 'value'\]"):
        fits = parfit.fit(DATA, lambda p, row: p["a"] - row.to_numpy(), table, executor="serial")
    assert fits.errors["message"].str.contains(r"params['value']['a']", regex=False).all()
    with pytest.warns(parfit.ParfitWarning, match="KeyError"):
        fits = parfit.fit(DATA, lambda p, row: row["no such"], table, executor="serial")
    assert fits.errors["message"].tolist() == ["'no such'"] * 4
    assert parfit.fit(DATA, lambda p, row: p.loc["a", "value"] - row.to_numpy(), table, executor="serial").success.all()


@pytest.mark.parametrize("start", [5.0, -5.0, 3.0])
def test_what_equal_bounds_fix_starts_there(start: float) -> None:
    for bounds in ({"a": (3, 3)}, lambda _: {"a": (3, 3)}, (pd.DataFrame({"a": [3.0, 3.0]}), {"a": 3})):
        fits = parfit.fit(
            [1.0, 2.0],
            lambda p, d: [p["a"] - 9, p["b"] - d],
            {"a": start, "b": 0.0},
            bounds=bounds,
            executor="serial",
        )
        assert fits.params["a"].tolist() == [3.0, 3.0]
        assert fits.params["b"].round(6).tolist() == [1.0, 2.0]
