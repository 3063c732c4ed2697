"""`Fits.refit`: some datasets again, with changed arguments, and the others kept."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

import parfit

T = np.linspace(0.0, 4.0, 15)
LABELS = ["good", "nan", "raises", "short", "slow"]


def data() -> pd.DataFrame:
    frame = pd.DataFrame([3 * np.exp(-0.5 * T)] * 5, index=LABELS)
    frame.loc["nan", 3] = np.nan
    return frame


def residuals(p: Any, row: Any) -> Any:
    if row.name == "raises":
        raise ValueError("no")
    r = p["a"] * np.exp(-p["b"] * T) - row.to_numpy()
    return r[:1] if row.name == "short" else r


def forgiving(p: Any, row: Any) -> Any:
    return p["a"] * np.exp(-p["b"] * T) - row.fillna(1.0).to_numpy()


def fit(**given: Any) -> parfit.Fits:
    start = pd.DataFrame({"a": [1.0] * 4 + [0.01], "b": [1.0] * 4 + [5.0]}, index=LABELS)
    given = {"method": "trf", "options": {"max_nfev": 6}, "executor": "serial", **given}
    objective, x0 = given.pop("objective", residuals), given.pop("x0", start)
    return parfit.fit(data(), objective, x0, **given)


STATUS = ["converged", "nonfinite", "error", "invalid", "max_steps"]


@pytest.fixture(scope="module")
def fits() -> parfit.Fits:
    found = fit()
    assert found.status.tolist() == STATUS
    return found


def changed(before: parfit.Fits, after: parfit.Fits) -> list[str]:
    """The labels of the rows that were fitted again."""
    return [label for label in LABELS if before.summary.loc[label, "seconds"] != after.summary.loc[label, "seconds"]]


@pytest.mark.parametrize(
    ("which", "wanted"),
    [
        ("failed", LABELS[1:]),
        ("all", LABELS),
        ("error", ["raises"]),
        (parfit.Status.NONFINITE, ["nan"]),
        (["error", "invalid"], ["raises", "short"]),
        (("error", "max_steps"), ["raises", "slow"]),
        ("good", ["good"]),
        (["slow", "good"], ["good", "slow"]),
        (["good", "good"], ["good"]),
        (("slow", "good"), ["good", "slow"]),
        ({"slow"}, ["slow"]),
        (pd.Index(["nan"]), ["nan"]),
        (pd.Series(["nan", "good"]), ["good", "nan"]),
        (np.array(["nan"]), ["nan"]),
        ([True, False, False, True, False], ["good", "short"]),
        (np.array([False] * 4 + [True]), ["slow"]),
        (pd.Series([True, False, False, False, False], index=LABELS), ["good"]),
        (pd.Series([True, False, False, False, False], index=LABELS[::-1]), ["slow"]),
        ([], []),
        ([False] * 5, []),
    ],
)
def test_which(fits: parfit.Fits, which: Any, wanted: list[str]) -> None:
    again = fits.refit(which)
    assert changed(fits, again) == wanted
    kept = [label for label in LABELS if label not in wanted]
    pd.testing.assert_frame_equal(again.params.loc[kept], fits.params.loc[kept])
    assert again.status.tolist() == STATUS


@pytest.mark.parametrize(
    ("which", "wanted"), [([1, 3], ["nan", "short"]), ([-1], ["slow"]), (0, ["good"]), ((2, 1, 1), ["nan", "raises"]),
                          (np.array([4, 0]), ["good", "slow"]), ([], []), ([True] + [False] * 4, ["good"])]
)  # fmt: skip
def test_by_position(fits: parfit.Fits, which: Any, wanted: list[str]) -> None:
    assert changed(fits, fits.refit(which, by="position")) == wanted


@pytest.mark.parametrize(
    ("which", "by", "error", "text"),
    [
        ("eror", "label", parfit.UnknownNameError, "unknown choice of rows 'eror'. Did you mean 'error'"),
        (["goods"], "label", KeyError, "no dataset has the label 'goods'; did you mean good"),
        ([7], "position", parfit.InvalidInputError, "positions must be below 5, and 7 is not"),
        ([1.5], "position", parfit.InvalidTypeError, "whole numbers"),
        ("good", "position", parfit.InvalidTypeError, "whole numbers"),
        ([True, False], "label", parfit.InvalidInputError, "a mask needs 5 entries, not 2"),
        (pd.Series([True] * 5), "label", parfit.InvalidInputError, "labels of the datasets as its index"),
        (slice(0, 2), "label", parfit.InvalidTypeError, "not a slice"),
        ("good", "lable", parfit.UnknownNameError, "Did you mean 'label'"),
        (None, "label", KeyError, "no dataset has the label None"),
    ],
)
def test_which_is_refused(fits: parfit.Fits, which: Any, by: str, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        fits.refit(which, by=by)


def test_rows_in_any_order_get_their_own_data() -> None:
    """Positions that are not in order must not be taken for a run of them."""
    frame = pd.DataFrame(np.arange(8.0).reshape(4, 2), index=list("abcd"))
    first = parfit.fit(frame, lambda p, row: np.append(p - row.to_numpy(), 0.1), [0.0, 0.0], executor="serial")
    again = first.refit(["a", "c", "b", "d"])
    pd.testing.assert_frame_equal(again.params, first.params)
    again = first.refit([3, 0, 2], by="position")
    pd.testing.assert_frame_equal(again.params, first.params)


def test_by_duplicate_and_partial_labels() -> None:
    def objective(p: Any, row: Any) -> Any:
        return p - row.to_numpy()

    frame = pd.DataFrame(np.arange(8.0).reshape(4, 2), index=["u", "v", "u", "w"])
    fits = parfit.fit(frame, objective, [0.0, 0.0], executor="serial")
    again = fits.refit("u")
    seconds = fits.summary["seconds"].to_numpy() != again.summary["seconds"].to_numpy()
    assert seconds.tolist() == [True, False, True, False]
    levels = frame.set_axis(pd.MultiIndex.from_tuples([("s", 2), ("t", 1), ("s", 1), ("t", 3)]))
    fits = parfit.fit(levels, objective, [0.0, 0.0], executor="serial")
    for which, wanted in (("t", [1, 3]), (("s", 1), [2]), ([("s", 2), ("t", 3)], [0, 3])):
        again = fits.refit(which)
        seconds = fits.summary["seconds"].to_numpy() != again.summary["seconds"].to_numpy()
        assert np.flatnonzero(seconds).tolist() == wanted


# ---- changes


def test_another_objective_method_or_option(fits: parfit.Fits) -> None:
    again = fits.refit(objective=forgiving, method="dogbox", options=None)
    assert again.success.all()
    assert again.params.loc["good"].tolist() == fits.params.loc["good"].tolist()
    assert again.errors.empty
    more = fits.refit("slow", options={"max_nfev": 1000}, x0={"a": 1.0, "b": 1.0})
    assert more.status["slow"] == "converged"
    assert more.errors["label"].tolist() == ["raises"]


def test_changes_last(fits: parfit.Fits) -> None:
    """A refit of a refit starts from the changed call."""
    once = fits.refit("raises", objective=forgiving)
    twice = once.refit("nan", options=None)
    assert twice.status.tolist() == ["converged", "converged", "converged", "invalid", "max_steps"]


def test_from_the_solution() -> None:
    fits = fit(objective=forgiving)
    again = fits.refit("all", x0="solution", history=True)
    first = again.history.groupby("label", sort=False)[["a", "b"]].first()
    pd.testing.assert_frame_equal(first, fits.params, check_names=False)


def test_from_the_solution_where_there_is_none(fits: parfit.Fits) -> None:
    again = fits.refit("failed", x0="solution", objective=forgiving, history=True)
    first = again.history.groupby("label", sort=False)[["a", "b"]].first()
    assert first.loc["raises"].tolist() == [1.0, 1.0]
    assert first.loc["slow"].tolist() == fits.params.loc["slow"].tolist()
    assert "good" not in first.index


def test_from_the_solution_with_starts_from_a_callable() -> None:
    def start(row: Any) -> dict[str, float]:
        return {"a": 1.0 + LABELS.index(row.name), "b": 1.0}

    fits = fit(x0=start)
    again = fits.refit("all", x0="solution", objective=forgiving, history=True)
    first = again.history.groupby("label", sort=False)[["a", "b"]].first()
    assert first.loc["raises"].tolist() == [3.0, 1.0]
    assert first.loc["good"].tolist() == fits.params.loc["good"].tolist()


@pytest.mark.parametrize("bounds", [{"a": (0, 2)}, lambda row: {"a": (0, 2)}], ids=["common", "by row"])
def test_from_the_solution_moved_inside_new_bounds(bounds: Any) -> None:
    fits = fit(objective=forgiving, fixed=["b"], x0={"a": 1.0, "b": 0.5})
    assert (fits.params["a"] > 2.5).all()
    again = fits.refit("all", x0="solution", bounds=bounds)
    assert again.success.all()
    assert again.params["a"].tolist() == pytest.approx([2.0] * 5)
    assert again.summary["at_bound"].all()


def test_fixed_at_the_solution(fits: parfit.Fits) -> None:
    again = fits.refit("good", x0="solution", fixed=["b"], bounds={"b": (0, 0.9)})  # where x0 is not
    assert again["good"].x["b"] == fits["good"].x["b"]
    assert again.stderr.loc["good", "b"] == 0
    again = fits.refit("good", x0="solution", fixed=["b"], bounds={"b": (0, 0.1)})
    assert again.status["good"] == "invalid"
    assert "the value of the fixed parameter b" in again["good"].message
    low = float(fits["good"].x["b"]) + 1e-12  # as a solver's rounding has it
    assert fits.refit("good", x0="solution", fixed=["b"], bounds={"b": (low, 9)}).status["good"] == "converged"


def nested(p: Any, row: Any) -> Any:
    assert type(p) is dict
    return p["a"] + p["b"][0] * T + p["b"][1] * T**2 - row.to_numpy()


def test_starts_under_the_names_reach_the_objective_in_its_structure() -> None:
    frame = pd.DataFrame([3 + 2 * T, 1 - T], index=["u", "v"])
    fits = parfit.fit(frame, nested, {"a": 1.0, "b": [1.0, 2.0]}, executor="serial")
    moved = fits.params.add([1.0, 2.0, 3.0])
    for x0 in (moved, moved.iloc[::-1], moved[["b[1]", "a", "b[0]"]]):
        again = fits.refit("all", x0=x0, history=True)
        assert again.success.all()
        assert (
            again.history.groupby("label")[["a", "b[0]", "b[1]"]].first().to_numpy().tolist() == moved.values.tolist()
        )
        assert again.refit("all").success.all()
    one = fits.refit("all", x0=moved.loc["v", ["b[0]", "b[1]", "a"]], history=True)
    assert one.history.groupby("label")["a"].first().tolist() == [moved.loc["v", "a"]] * 2
    vector = parfit.fit(frame, lambda p, row: p[0] + p[1] * T - row.to_numpy(), [1.0, 1.0], executor="serial")
    assert vector.refit("all", x0=vector.params).success.all()
    series = parfit.fit(frame, lambda p, row: p["a"] + p["b"] * T - row.to_numpy(), moved[["a"]].assign(b=1.0))
    assert series.refit("all", x0=series.params).success.all()


@pytest.mark.parametrize(
    ("changes", "error", "text"),
    [
        ({"metod": "trf"}, parfit.UnknownNameError, "unknown argument of fit 'metod'. Did you mean 'method'"),
        ({"data": None}, parfit.UnknownNameError, "unknown argument of fit 'data'"),
        ({"store": None}, parfit.UnknownNameError, "unknown argument of fit 'store'"),
        ({"x0": "solutions"}, parfit.UnknownNameError, "Did you mean 'solution'"),
        ({"x0": [1.0, 2.0]}, parfit.InvalidInputError, "refit keeps the parameters' names"),
        ({"method": "no such"}, parfit.UnknownNameError, "unknown method"),
        ({"x0": {"a": 1.0}}, parfit.InvalidInputError, "refit keeps the parameters' names"),
    ],
)
def test_changes_that_are_refused(
    fits: parfit.Fits, changes: dict[str, Any], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        fits.refit("all", **changes)


def test_the_old_fits_stay_as_they_are(fits: parfit.Fits) -> None:
    before = fits.to_frame()
    fits.refit("all", objective=forgiving)
    pd.testing.assert_frame_equal(fits.to_frame(), before)


def test_a_refit_in_processes_is_the_same(fits: parfit.Fits) -> None:
    here = fits.refit("all", objective=forgiving)
    there = fits.refit("all", objective=forgiving, executor="processes", workers=2)
    pd.testing.assert_frame_equal(here.params, there.params, check_exact=True)
    kept = fits.refit(["slow", "good"], executor="producer_consumer", workers=2)
    assert kept.params.loc["good"].tolist() == fits.params.loc["good"].tolist()
    assert kept.status.tolist() == STATUS
