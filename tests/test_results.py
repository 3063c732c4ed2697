"""`Fits`: its tables, its rows, and that it does not change."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import OptimizeResult

import parfit
from parfit.core.errors import InvalidTypeError
from parfit.core.solution import Solution, Status

T = np.linspace(0.0, 4.0, 15)
COLUMNS = ["status", "success", "message", "cost", "n_residuals", "nfev", "njev", "nit", "optimality", "at_bound",
           "rank", "condition", "seconds", "attempts"]  # fmt: skip


def decays(rows: int = 4) -> pd.DataFrame:
    rng = np.random.default_rng(1)
    values = rng.uniform(1, 3, (rows, 1)) * np.exp(-rng.uniform(0.3, 1, (rows, 1)) * T)
    index = pd.Index([f"county {i}" for i in range(rows)], name="county")
    return pd.DataFrame(values + 0.02 * rng.standard_normal(values.shape), index=index)


def residuals(p: Any, row: Any) -> Any:
    if row.name == "county 2":
        raise KeyError("no such column")
    return p["a"] * np.exp(-p["b"] * T) - row.to_numpy()


def fit(data: Any = None, objective: Any = residuals, x0: Any = None, **given: Any) -> parfit.Fits:
    data = decays() if data is None else data
    return parfit.fit(data, objective, {"a": 1.0, "b": 1.0} if x0 is None else x0, executor="serial", **given)


def mixed() -> parfit.Fits:
    """Converged, max_steps or converged, error, nonfinite."""
    data = decays()
    data.iloc[3, 2] = np.nan
    return fit(data)


# ---- tables


def test_summary_has_these_columns() -> None:
    fits = mixed()
    summary = fits.summary
    assert list(summary.columns) == COLUMNS
    assert summary.index.equals(decays().index)
    assert summary["status"].tolist() == ["converged", "converged", "error", "nonfinite"]
    assert summary["success"].tolist() == [True, True, False, False]
    assert summary["success"].dtype == bool
    assert summary["at_bound"].dtype == bool
    assert summary["message"].iloc[2] == "KeyError: 'no such column'"
    assert summary["n_residuals"].tolist() == [15, 15, -1, 15]
    assert summary["rank"].tolist() == [2, 2, -1, -1]
    assert summary["attempts"].tolist() == [1] * 4
    assert (summary["seconds"] > 0).all()
    assert summary["cost"].isna().tolist() == [False, False, True, True]
    assert [str(s) for s in Status] == fits.status.cat.categories.tolist()
    row = fits["county 0"]
    assert 0.5 * (residuals(row.x, decays().iloc[0]) ** 2).sum() == row.cost == summary["cost"].iloc[0]


def test_params_status_and_success() -> None:
    fits = mixed()
    assert len(fits) == 4
    assert fits.params.columns.tolist() == ["a", "b"]
    assert fits.params.isna().all(axis=1).tolist() == [False, False, True, False]
    assert fits.success.name == "success"
    assert fits.success.tolist() == [True, True, False, False]
    assert fits.status["county 2"] == "error"
    assert fits.labels.name == "county"
    assert fits.engine == "rows"
    assert fits.engine_reason


def test_errors() -> None:
    errors = mixed().errors
    assert list(errors.columns) == ["label", "type", "message", "traceback", "rerun"]
    assert errors.index.tolist() == [2]
    first = errors.iloc[0]
    assert first["label"] == "county 2"
    assert first["type"] == "KeyError"
    assert "no such column" in first["message"]
    assert 'raise KeyError("no such column")' in first["traceback"]
    assert "parfit/executors" not in first["traceback"].splitlines()[1]
    fits = mixed()
    with pytest.raises(KeyError, match="no such column"):
        eval(first["rerun"], {"fits": fits})


def test_nothing_went_wrong() -> None:
    fits = fit(decays(2))
    assert fits.errors.empty
    assert fits.warnings.empty
    assert list(fits.warnings.columns) == ["label", "category", "message", "count"]
    assert fits.history.empty
    assert list(fits.history.columns) == ["label", "evaluation", "cost", "a", "b"]


def test_warnings_by_dataset() -> None:
    def warns(p: Any, row: Any) -> Any:
        import warnings

        if row.name == "county 1":
            warnings.warn("thin data", UserWarning, stacklevel=2)
        return p["a"] * np.exp(-p["b"] * T) - row.to_numpy()

    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("default")
        with pytest.warns(
            parfit.ParfitWarning, match=r"1 of 4 datasets gave warnings .*UserWarning: thin data"
        ) as caught:
            fits = fit(objective=warns)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert fits.warnings["label"].tolist() == ["county 1"]
    assert fits.warnings["category"].tolist() == ["UserWarning"]
    assert fits.warnings["count"].tolist() == [fits.summary["nfev"]["county 1"]]


def test_history() -> None:
    fits = fit(decays(3), history=True)
    trace = fits.history
    assert trace["label"].unique().tolist() == ["county 0", "county 1"]
    for label, steps in trace.groupby("label"):
        assert len(steps) == fits[label].nfev
        assert steps["evaluation"].tolist() == list(range(len(steps)))
        assert steps[["a", "b"]].iloc[0].tolist() == [1.0, 1.0]
        assert steps["cost"].min() >= fits[label].cost
    odd = fit(
        decays(1), lambda p, row: p["label"] * np.exp(-p["cost"] * T) - row, {"label": 1.0, "cost": 1.0}, history=True
    )
    assert odd.history.columns.tolist() == ["label", "evaluation", "cost", "label", "cost"]


# ---- one dataset


def test_a_row_in_the_users_structure() -> None:
    x0 = {"a": 1.0, "b": [1.0, {"c": 0.5}]}
    fits = fit(decays(2), lambda p, row: p["a"] * np.exp(-p["b"][0] * T) + p["b"][1]["c"] - row.to_numpy(), x0)
    row = fits["county 1"]
    assert isinstance(row, OptimizeResult)
    assert list(row.x) == ["a", "b"]
    assert row.x["b"][1]["c"] == fits.params.loc["county 1", "b[1].c"]
    assert row.success is True
    assert row.status is Status.CONVERGED
    assert row.label == "county 1"
    assert row.fun == row.cost
    assert row.cov.shape == (3, 3)
    np.testing.assert_array_equal(row.stderr, fits.stderr.loc["county 1"])
    for name in ("n_residuals", "nfev", "njev", "nit", "rank", "attempts", "optimality", "condition", "seconds"):
        assert row[name] == fits.summary.loc["county 1", name]
    assert fits.row(1).x == row.x
    assert fits.row(-1).x == row.x
    for position in (2, -3):
        with pytest.raises(IndexError, match=f"position {position} in 2 fits"):
            fits.row(position)
    plain = fit(decays(1), lambda p, row: p[0] * np.exp(-p[1] * T) - row.to_numpy(), [1.0, 1.0])
    assert isinstance(plain["county 0"].x, np.ndarray)
    plain["county 0"].x[0] = 99.0
    assert plain.params.iloc[0, 0] != 99.0
    failed = mixed()["county 2"]
    assert failed.error.type == "KeyError"
    assert np.isnan(failed.x["a"])


@pytest.mark.parametrize("what", ["row", "cov"])
def test_a_label_that_is_not_there(what: str) -> None:
    fits = fit(decays(3))
    look = fits.__getitem__ if what == "row" else fits.cov
    with pytest.raises(KeyError, match="no dataset has the label 'county1'; did you mean county 1"):
        look("county1")
    for odd in (3.5, None, ["county 0"], slice(0, 2), ("county 0", 1), {}):
        with pytest.raises(KeyError, match="no dataset has the label"):
            look(odd)  # type: ignore[arg-type]


def test_duplicate_labels() -> None:
    fits = fit(
        decays(4).set_axis(["a", "b", "a", "c"]), objective=lambda p, row: p["a"] * np.exp(-p["b"] * T) - row.to_numpy()
    )
    assert fits.row(2).label == "a"
    with pytest.raises(parfit.InvalidInputError, match=r"2 datasets have the label 'a', at the positions \[0, 2\]"):
        fits["a"]
    assert fits["b"].label == "b"


def test_labels_of_several_levels() -> None:
    index = pd.MultiIndex.from_tuples([("AL", 3), ("GA", 1), ("AL", 1), ("TX", 9)], names=["state", "county"])
    fits = fit(decays().set_axis(index), objective=lambda p, row: p["a"] * np.exp(-p["b"] * T) - row.to_numpy())
    assert fits["AL", 1].label == ("AL", 1)
    assert fits["TX"].label == ("TX", 9)
    with pytest.raises(parfit.InvalidInputError, match="2 datasets have the label 'AL'"):
        fits["AL"]
    with pytest.raises(KeyError, match=r"\('AL', 2\)"):
        fits["AL", 2]
    assert fits.to_frame().index.equals(index)


def test_labels_in_messages_are_as_the_user_wrote_them() -> None:
    fits = fit(
        decays(3).set_axis([100, 200, 300]), objective=lambda p, row: 1 / 0 if row.name == 200 else p["a"] + p["b"]
    )
    with pytest.raises(KeyError, match="the label 201; did you mean 200"):
        fits[np.int64(201)]
    with pytest.raises(parfit.FitError, match="dataset 200: ZeroDivisionError") as caught:
        fits.refit([200], on_error="raise")
    assert caught.value.label == 200


# ---- it does not change


def test_nothing_can_be_set_or_written() -> None:
    fits = fit(decays(2))
    with pytest.raises(AttributeError, match="a Fits does not change"):
        fits.params = 1  # type: ignore[misc]
    with pytest.raises(AttributeError, match="a Fits does not change"):
        del fits._columns
    before = fits.to_frame()
    for name in ("params", "stderr", "summary", "at_bound", "errors", "warnings", "history", "success", "status"):
        table = getattr(fits, name)
        if len(table):
            table.iloc[0] = table.iloc[1]
    summary = fits.summary
    summary["more"] = 1
    for index in (fits.labels, *(getattr(fits, name).index for name in ("params", "summary", "success", "status"))):
        index.name = "renamed"
    pd.testing.assert_frame_equal(fits.to_frame(), before)
    assert copy.copy(fits) is fits
    assert copy.deepcopy(fits) is fits


def test_pickled_without_the_data_and_the_objective() -> None:
    secret = object()
    fits = fit(objective=lambda p, row: residuals(p, row) if secret else 0, history=True)
    again = pickle.loads(pickle.dumps(fits))
    pd.testing.assert_frame_equal(again.to_frame(), fits.to_frame())
    pd.testing.assert_frame_equal(again.errors, fits.errors)
    pd.testing.assert_frame_equal(again.history, fits.history)
    pd.testing.assert_frame_equal(again.cov("county 1"), fits.cov("county 1"))
    assert again["county 0"].x == fits["county 0"].x
    assert repr(again) == repr(fits)
    for call in (again.refit, again.debug):
        with pytest.raises(parfit.InvalidInputError, match="without their data and objective"):
            call("county 0")
    with pytest.raises(ValueError, match="read-only"):
        again._columns.params[0] = 1


# ---- elsewhere


def test_one_table() -> None:
    frame = mixed().to_frame()
    assert list(frame.columns) == ["a", "b", "a_stderr", "b_stderr", *COLUMNS]
    assert frame["status"].tolist() == ["converged", "converged", "error", "nonfinite"]
    clash = fit(
        decays(2), lambda p, row: p["cost"] * np.exp(-p["rank"] * T) - row, {"cost": 1.0, "rank": 1.0}
    ).to_frame()
    assert clash.columns.is_unique
    assert clash.columns[:2].tolist() == ["cost", "rank"]
    assert {"fit_cost", "fit_rank"} < set(clash.columns)


@pytest.mark.parametrize("index", [None, pd.MultiIndex.from_product([["s", "t"], [1, 2]], names=["state", "n"])])
def test_parquet_and_back(tmp_path: Any, index: Any) -> None:
    pytest.importorskip("pyarrow")
    data = decays() if index is None else decays().set_axis(index)
    fits = fit(data)
    fits.to_parquet(tmp_path / "fits.parquet")
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "fits.parquet"), fits.to_frame())


@pytest.mark.parametrize(
    ("index", "kinds"),
    [
        (pd.Index([1, "two"], dtype=object), "int and str"),
        (pd.MultiIndex.from_tuples([("s", 1), ("t", "two")]), "int and str"),
    ],
)
def test_labels_that_parquet_cannot_hold_are_named(tmp_path: Any, index: Any, kinds: str) -> None:
    pytest.importorskip("pyarrow")
    fits = fit(decays(2).set_axis(index))
    with pytest.raises(InvalidTypeError, match=f"the labels are {kinds}, .*rename"):
        fits.to_parquet(tmp_path / "fits.parquet")
    fits.to_frame().rename(index=str).to_parquet(tmp_path / "fits.parquet")  # as the message says
    assert pd.read_parquet(tmp_path / "fits.parquet").index[1] in ("two", ("t", "two"))


def test_a_position_in_the_place_of_a_label() -> None:
    fits = fit(decays(2))
    with pytest.raises(KeyError, match=r"fits\.row\(0\)` takes a position"):
        fits[0]
    with pytest.raises(KeyError, match=r"no dataset has the label 7.$"):
        fits[7]


def test_shown_in_a_terminal_and_in_a_notebook() -> None:
    fits = mixed()
    text = repr(fits)
    assert text.startswith("4 fits of 2 parameters (a, b) in ")
    for part in ("converged", "error", "nonfinite", "1 with an exception: see .errors", "worst rows", "county 2"):
        assert part in text
    html = fit(decays(1).set_axis(["<b>bold</b>"]))._repr_html_()
    assert "<b>bold</b>" not in html
    assert "1 fit of 2 parameters" in html
    bound = fit(decays(2), bounds={"a": (0, 1.5)}, x0={"a": 1.0, "b": 1.0})
    assert "converged with a parameter at its bound" in repr(bound)
    loose = fit(decays(2), lambda p, row: p["a"] * p["b"] - row.to_numpy())
    assert "2 have a parameter that the data do not determine" in repr(loose)


def test_empty() -> None:
    fits = fit(decays().iloc[:0])
    assert len(fits) == 0
    assert list(fits.summary.columns) == COLUMNS
    for table in (fits.params, fits.stderr, fits.at_bound, fits.conf_int(), fits.to_frame(), fits.errors, fits.history):
        assert len(table) == 0
    assert fits.success.dtype == bool
    assert repr(fits).startswith("0 fits of 2 parameters")
    assert fits._repr_html_()
    assert len(fits.refit()) == 0
    assert len(fits.refit("all")) == 0
    assert len(pickle.loads(pickle.dumps(fits))) == 0


# ---- debug


def test_debug_raises_the_exception_itself_and_returns_a_solution() -> None:
    fits = mixed()
    with pytest.raises(KeyError, match="no such column") as caught:
        fits.debug("county 2")
    assert caught.traceback[-1].name == "residuals"
    solution = fits.debug("county 1")
    assert isinstance(solution, Solution)
    assert solution.x.tolist() == fits.params.loc["county 1"].tolist()
    assert fits.debug(position=1).cost == solution.cost
    assert fits.debug(position=-3).cost == solution.cost
    assert fits.debug(position=3).status == "nonfinite"
    with pytest.raises(IndexError, match="position 4 in 4 fits"):
        fits.debug(position=4)
    with pytest.raises(KeyError, match="did you mean county 1"):
        fits.debug("conty 1")


def test_debug_uses_the_datasets_own_start_bounds_and_random_numbers() -> None:
    data = decays(3)
    start = pd.DataFrame({"a": [1.0, 1.5, 2.0], "b": [1.0, 0.9, 0.8]}, index=data.index)

    def noisy(p: Any, row: Any) -> Any:
        return p["a"] * np.exp(-p["b"] * T) - row.to_numpy() + np.random.standard_normal() * 1e-9  # noqa: NPY002

    fits = fit(data, noisy, start, bounds=({"a": 0.0}, None), method="Nelder-Mead", seed=5)
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    for i in range(3):
        assert fits.debug(position=i).x.tolist() == fits.params.iloc[i].tolist()
    assert np.array_equal(np.random.get_state()[1], state)  # noqa: NPY002


def test_iterates_over_labels():
    rows = pd.DataFrame({"x": [1.0, 2.0]}, index=["a", "b"])
    fits = parfit.fit(rows, lambda p, row: (p[0] - row["x"]) ** 2, [0.0], executor="serial")
    assert list(fits) == ["a", "b"]
    assert "a" in fits
    assert "c" not in fits
