"""Whatever a row does, it is a row of the table, with its reason, and the others are fitted as if it were not there."""

from __future__ import annotations

import os
import threading
from typing import Any

import numpy as np
import pandas as pd
import pytest

import parfit
from parfit import InvalidInputError
from tests.situations.lines import START, T, assert_equal_but_for, lines, residuals, squares, table

METHODS = [(None, residuals), ("trf", residuals), ("L-BFGS-B", squares), ("Nelder-Mead", residuals)]


REASONS = {
    "r5": "no such year",
    "r11": "the start of height, 60, is outside its bounds [-50, 50]",
    "r12": "the start of slope is nan",
    "r13": "the bounds of slope are the wrong way round",
    "r14": "the lower bound of height is NaN",
}


def is_missing(frame: pd.DataFrame) -> dict[str, str]:
    """Spoil some rows of data; what their status will be."""
    frame.loc["r3", "t4"] = np.nan
    frame.loc["r8"] = np.nan
    frame.loc["r21", "t0"] = -np.inf
    return {"r3": "nonfinite", "r8": "nonfinite", "r21": "nonfinite"}


@pytest.mark.parametrize(("method", "objective"), METHODS, ids=["default", "trf", "L-BFGS-B", "Nelder-Mead"])
@pytest.mark.parametrize("executor", ["processes", "serial"])
def test_one_bad_row_does_not_end_the_run(method, objective, executor):
    """xarray#6317, scipy#18925, statsforecast#32: N rows in, N rows out, whatever any row does.

    SciPy raises ValueError for missing data, a start outside its bounds and equal bounds, and TypeError for fewer
    residuals than parameters.
    """

    def spoiled(p, row):
        if row.name == "r5":
            raise KeyError("no such year")
        if row.name == "r6":
            return objective(p, row) if np.ndim(objective(p, row)) == 0 else residuals(p, row)[:1]
        if row.name == "r7":
            return "text"
        if row.name == "r9":
            return None
        return objective(p, row)

    frame = lines()
    expected = {label: "converged" for label in frame.index} | is_missing(frame)
    expected |= {"r5": "error", "r7": "error", "r9": "error"}
    expected["r6"] = "converged" if objective is squares else "invalid"
    lower = pd.DataFrame({"height": -50.0, "slope": -50.0}, index=frame.index)
    upper = -lower
    start = pd.DataFrame(START, index=frame.index)
    start.loc["r11", "height"] = 60.0
    start.loc["r12", "slope"] = np.nan
    lower.loc["r13", "slope"] = 70.0
    lower.loc["r14", "height"] = np.nan
    lower.loc["r15"] = upper.loc["r15"] = (1.0, 0.0)  # all bounds equal: nothing is free, and that is a fit
    expected |= dict.fromkeys(["r11", "r12", "r13", "r14"], "invalid")
    lower.loc["r16", "slope"] = upper.loc["r16", "slope"] = 0.0

    options = {"bounds": (lower, upper), "method": method, "executor": executor}
    if method == "Nelder-Mead":
        options["options"] = {"maxfev": 2000}
    fits = parfit.fit(frame, spoiled, start, **options)
    assert len(fits) == len(frame)
    assert fits.labels.equals(frame.index)
    assert fits.status.astype(str).to_dict() == expected
    assert (fits.summary["message"] != "").all()
    for label, reason in REASONS.items():
        assert reason in fits.summary.loc[label, "message"]
    assert fits.params.loc["r15"].tolist() == [1.0, 0.0]
    assert fits.params.loc["r16", "slope"] == 0.0
    bad = [label for label, status in expected.items() if status != "converged"]
    good = parfit.fit(
        frame.drop(index=bad),
        objective,
        start.drop(index=bad),
        **options
        | {
            "bounds": (lower.drop(index=bad), upper.drop(index=bad)),
            "executor": "serial",
        },
    )
    pd.testing.assert_frame_equal(table(fits).drop(index=bad), table(good), check_exact=True)


def test_a_group_too_small_to_be_fitted_costs_only_itself():
    """scipy#18925, statsforecast#32: stopped at group 812 of 2,000."""
    rng = np.random.default_rng(0)
    sizes = [5, 1, 4, 0, 3, 2]
    long = pd.DataFrame({"group": np.repeat(np.arange(len(sizes)), sizes)})
    long["t"] = long.groupby("group").cumcount().astype(float)
    long["y"] = 2 * long["t"] + 1 + 0.01 * rng.standard_normal(len(long))
    groups = long.groupby(pd.Categorical(long["group"], categories=range(len(sizes))), observed=False)
    fits = parfit.fit(groups, lambda p, part: (p[0] + p[1] * part["t"] - part["y"]).to_numpy(), [0.0, 0.0])
    present = [n for n in sizes if n]
    assert len(fits) in (len(sizes), len(present))
    by_size = dict(zip([n for n in sizes if n or len(fits) == len(sizes)], fits.status.astype(str), strict=True))
    assert by_size.pop(0, "invalid") == "invalid"
    assert by_size == {5: "converged", 1: "invalid", 4: "converged", 3: "converged", 2: "converged"}


@pytest.mark.parametrize("engine", ["auto", "rows"])
def test_every_row_has_its_own_status(engine):
    """optimistix#66: one bad element threw for a whole vmapped batch."""
    frame = lines(200)
    expected = is_missing(frame)
    fits = parfit.fit(frame, residuals, START, engine=engine)
    found = fits.status.astype(str)
    assert found[found != "converged"].to_dict() == expected
    whole = parfit.fit(lines(200), residuals, START, engine=engine)
    assert_equal_but_for(fits, whole, list(expected))


# ---- success that is none


def test_success_is_what_a_reader_would_call_success():
    """layup#532, Gpufit#31, Gpufit#136.

    `least_squares` says success where it stopped at a wall of NaN, on an all-zero row that never moved, and on a
    bound.
    """

    def decay(p, row):
        height, rate = p
        if row.name == "wall":
            return np.where(rate > 0.11, np.nan, height * np.exp(-rate * T) - row.to_numpy())
        return height * np.exp(-rate * T) - row.to_numpy()

    plain = 3 * np.exp(-0.5 * T)
    flat = pd.DataFrame([plain, plain, 0 * T, 3 * np.exp(-9 * T)], index=["plain", "wall", "zero", "steep"])
    fits = parfit.fit(flat, decay, [1.0, 0.1], bounds=([-np.inf, 0.0], [np.inf, 2.0]), method="trf")
    assert fits.status["plain"] == "converged"
    assert not fits.at_bound.loc["plain"].any()
    assert fits.status["wall"] == "nonfinite"
    assert "NaN" in fits.summary.loc["wall", "message"]
    assert fits.status["steep"] == "converged"
    assert fits.at_bound.loc["steep"].tolist() == [0, 1]
    assert fits.success.tolist() == [True, False, fits.status["zero"] == "converged", True]


def test_a_row_that_never_moved_is_not_called_a_success():
    """Gpufit#136: no parameter has any influence at the start, so that every solver stops there, content."""
    frame = lines(4)

    def objective(p, row):
        if row.name == "r1":
            return max(p["height"] - 10, 0) * T - row.to_numpy()
        return residuals(p, row)

    fits = parfit.fit(frame, objective, START)
    assert fits.status["r1"] == "unmoved"
    assert not fits.success["r1"]
    assert fits.success.drop("r1").all()


# ---- which row, and why


def test_every_failing_row_tells_its_label_exception_traceback_and_how_to_rerun_it():
    """statsforecast#298, pandarallel#178, astropy#17350."""

    def objective(p, row):
        if row.name == "r7":
            counts = {}
            return counts["county"]
        if row.name == "r11":
            return 1 // int(p["slope"] * 0)
        return residuals(p, row)

    fits = parfit.fit(lines(20), objective, START, workers=2)
    errors = fits.errors
    assert errors["label"].tolist() == ["r7", "r11"]
    assert errors["type"].tolist() == ["KeyError", "ZeroDivisionError"]
    assert errors["message"].tolist()[0] == "'county'"
    for text, line in zip(errors["traceback"], ['return counts["county"]', "return 1 // int("], strict=True):
        assert line in text
        assert __file__ in text
    for rerun, kind in zip(errors["rerun"], [KeyError, ZeroDivisionError], strict=True):
        with pytest.raises(kind) as caught:
            eval(rerun, {"fits": fits})
        innermost = caught.tb
        while innermost.tb_next is not None:
            innermost = innermost.tb_next
        assert innermost.tb_frame.f_locals["row"].name in ("r7", "r11")  # where a debugger would stand
    assert fits["r7"].error.type == "KeyError"
    assert isinstance(fits.debug("r3"), parfit.Solution)


LABELS = {
    "duplicates": pd.Index(["a", "b", "a", "a", "b", "a"]),
    "two_levels": pd.MultiIndex.from_product([["AL", "GA"], [1, 3, 5]], names=["state", "county"]),
    "dates": pd.date_range("2020", periods=6, freq="D"),
    "missing": pd.Index([None, np.nan, "x", (1, 2), 7, "7"], tupleize_cols=False),
}


@pytest.mark.parametrize("labels", LABELS)
@pytest.mark.parametrize("executor", ["processes", "serial"])
def test_the_row_that_is_run_again_is_the_one_that_failed(labels, executor):
    """Labels that are not unique, or not easily written down; and it runs here, where a debugger is."""
    frame = lines(6).set_axis(LABELS[labels])
    bad = frame.to_numpy()[[1, 4], 0]

    def objective(p, row):
        if row.iloc[0] in bad:
            raise ArithmeticError(f"{row.iloc[0]} {os.getpid()}")
        return residuals(p, row)

    fits = parfit.fit(frame, objective, START, executor=executor, workers=None if executor == "serial" else 2)
    assert fits.errors.index.tolist() == [1, 4]
    assert list(map(repr, fits.errors["label"])) == [repr(frame.index[i]) for i in (1, 4)]
    for value, (_, error) in zip(bad, fits.errors.iterrows(), strict=True):
        first, there = error["message"].split()
        assert float(first) == value
        assert (int(there) == os.getpid()) is (executor == "serial")
        assert "\n" not in error["rerun"]
        with pytest.raises(ArithmeticError, match=f"^{value} {os.getpid()}$"):
            eval(error["rerun"], {"fits": fits})


def test_raise_names_the_label():
    """statsforecast#298: the first exception, of which row?"""
    with pytest.raises(parfit.FitError, match=r"'r7'.*KeyError") as caught:
        parfit.fit(
            lines(20),
            lambda p, row: {}[row.name] if row.name == "r7" else residuals(p, row),
            START,
            workers=2,
            on_error="raise",
        )
    assert caught.value.label == "r7"


# ---- starts and bounds by row


def test_starts_and_bounds_by_row_and_one_bad_one_fails_that_row_alone():
    """xarray#7768, astropy#14610."""
    frame = lines(12)
    start = pd.DataFrame({"height": np.arange(12.0), "slope": 0.5}, index=frame.index)
    lower = pd.DataFrame({"height": -np.inf, "slope": -100.0}, index=frame.index)
    upper = pd.DataFrame({"height": np.inf, "slope": 100.0}, index=frame.index)
    upper.loc["r2", "slope"] = -1.0  # below the start
    lower.loc["r4", "slope"], upper.loc["r4", "slope"] = 5.0, -5.0
    upper.loc["r6", "height"] = -1.0
    start.loc["r8", "slope"] = np.inf
    seen = {}

    def objective(p, row):
        seen.setdefault(row.name, dict(p))
        return residuals(p, row)

    fits = parfit.fit(frame, objective, start, bounds=(lower, upper), executor="serial")
    bad = ["r2", "r4", "r6", "r8"]
    assert fits.status[bad].astype(str).tolist() == ["invalid"] * 4
    message = fits.summary["message"]
    assert "slope" in message["r2"]
    assert "wrong way round" in message["r4"]
    assert "height" in message["r6"]
    assert "slope" in message["r8"]
    assert fits.success.drop(bad).all()
    assert {label: p["height"] for label, p in seen.items()} == start["height"].drop(bad).to_dict()
    free = parfit.fit(frame.drop(index=bad), residuals, START)
    np.testing.assert_allclose(fits.params.drop(index=bad), free.params, rtol=1e-6)


def test_bounds_that_are_wrong_in_every_row_are_refused():
    """astropy#14610: what is wrong with every row is wrong with the call."""
    with pytest.raises(InvalidInputError, match="wrong way round"):
        parfit.fit(lines(5), residuals, START, bounds={"slope": (3.0, -3.0)})


# ---- exceptions that do not travel


class UnpicklableError(Exception):
    def __init__(self, one: str, two: str) -> None:
        super().__init__(f"{one} and {two}")
        self.lock = threading.Lock()


class RaisingError(Exception):
    def __reduce__(self) -> Any:
        return (int, ("no number",))


class SilentError(Exception):
    def __str__(self) -> str:
        raise ValueError("no text either")


@pytest.mark.parametrize("executor", ["processes", "multiprocessing", "loky"])
def test_an_exception_that_cannot_be_unpickled_is_text(executor):
    """cpython#79492, cpython#103061: it hangs `Pool` and aborts loky."""

    def objective(p, row):
        if row.name == "r2":
            raise UnpicklableError("one", "two")
        if row.name == "r4":
            raise RaisingError("unpickles to something that raises")
        if row.name == "r6":
            raise SilentError
        return residuals(p, row)

    fits = parfit.fit(lines(10), objective, START, executor=executor, workers=2)
    assert fits.errors["label"].tolist() == ["r2", "r4", "r6"]
    assert [name.rsplit(".")[-1] for name in fits.errors["type"]] == ["UnpicklableError", "RaisingError", "SilentError"]
    assert fits.errors["message"].tolist()[0] == "one and two"
    assert fits.success.sum() == 7
    with pytest.raises(UnpicklableError):
        fits.debug("r2")
