"""A store that is a folder of Parquet files: the table of one call, and what is said of the whole of it."""

from __future__ import annotations

import pickle
import re
import time
import warnings

import numpy as np
import pandas as pd
import pytest
from pandas.testing import assert_frame_equal

import parfit
from parfit import (
    FitError,
    InvalidInputError,
)
from tests.stores.in_parts import assert_same_table, fit, names, table, whole
from tests.stores.test_resume import Counting, T, decays, residuals

pytest.importorskip("pyarrow")
pytestmark = pytest.mark.usefixtures("small_parts")


# ---- the table


@pytest.mark.parametrize("from_file", [True, False])
def test_the_table_is_that_of_a_call_in_memory(engine, folder, tmp_path, from_file):
    data = decays(33)
    data.columns = [f"y{i}" for i in data]
    data.to_parquet(tmp_path / "data.parquet", row_group_size=8)
    found = fit(tmp_path / "data.parquet" if from_file else data, folder, engine=engine)
    assert_same_table(table(folder), whole(data, engine=engine))
    assert names(folder) == ["_parfit.json", *(f"part-0000{i}.parquet" for i in range(4))]
    assert (len(found), found.engine, found.path) == (33, engine, folder)
    assert found.counts.to_dict() == {"converged": 33}
    assert_frame_equal(pd.concat(found.frames()), table(folder))
    again = parfit.open_store(folder)
    assert (len(again), again.engine, again.files) == (33, engine, found.files)
    assert again.counts.equals(found.counts)
    assert "33 fits of 2 parameters" in repr(found)
    assert "pandas.read_parquet(" in repr(again)


@pytest.mark.parametrize(
    "labels",
    [
        pd.RangeIndex(25),
        pd.RangeIndex(3, 53, 2),
        pd.RangeIndex(25, name="row"),
        pd.Index([f"s{i}" for i in range(25)], name="site"),
        pd.Index([1, 1, 2, 3, 4] * 5),
        pd.date_range("2000", periods=25, tz="UTC"),
        pd.MultiIndex.from_product([["a", "b", "c", "d", "e"], range(5)], names=["g", None]),
    ],
    ids=lambda labels: type(labels).__name__ + str(labels.names),
)
def test_labels_are_those_that_to_parquet_writes(folder, tmp_path, labels):
    data = decays(25).set_axis(labels)
    fit(data, folder)
    fit(data, None).to_parquet(tmp_path / "one.parquet")
    assert_same_table(table(folder), pd.read_parquet(tmp_path / "one.parquet").rename_axis(table(folder).index.names))
    assert list(table(folder).index.names) == list(labels.names)


def test_groups_and_arrays_come_in_parts_too(engine, folder, tmp_path):
    rng = np.random.default_rng(0)
    lengths = rng.integers(3, 40, 25)
    frame = pd.concat(
        [pd.DataFrame({"g": i, "t": rng.uniform(0, 4, m), "y": rng.uniform(1, 2, m)}) for i, m in enumerate(lengths)]
    )

    def objective(p, group):
        return p["height"] * np.exp(-p["rate"] * group["t"].to_numpy()) - group["y"].to_numpy()

    fit(frame.groupby("g"), folder, objective, engine=engine)
    assert_same_table(table(folder), whole(frame.groupby("g"), objective, engine=engine))
    array, other = decays(25).to_numpy(), tmp_path / "array.parquet"
    function = lambda p, y: p["height"] * np.exp(-p["rate"] * T) - y  # noqa: E731
    fit(array, other, function, engine=engine)
    assert_same_table(table(other), whole(array, function, engine=engine))


def test_random_numbers_come_from_the_place_in_the_whole(folder):
    def noisy(p, row):
        return float((residuals(p, row) ** 2).sum()) + 1e-6 * np.random.normal()  # noqa: NPY002

    call = {"method": "spsa", "options": {"maxiter": 30}, "executor": "processes", "workers": 2}
    fit(decays(25), folder, noisy, **call)
    assert_same_table(table(folder), whole(decays(25), noisy, **call))


def test_names_of_parameters_that_are_columns_of_the_summary(folder):
    def objective(p, row):
        return p["status"] * np.exp(-p["success"] * T) - row.to_numpy()

    start = {"status": 1.0, "success": 1.0}
    data = decays(25)
    data.iloc[12, 3] = np.nan
    found = fit(data, folder, objective, start)
    assert found.counts.to_dict() == {"converged": 24, "nonfinite": 1}
    assert_same_table(table(folder), whole(data, objective, start))
    fit(data, folder, objective, start, retry_failed=True)
    assert_same_table(table(folder), whole(data, objective, start))


def test_no_data(folder):
    found = fit(decays(3).iloc[:0], folder)
    assert len(found) == 0
    assert list(table(folder)) == list(fit(decays(3), None).to_frame())
    assert not len(table(folder))


def test_the_other_ending_of_such_files(folder):
    found = fit(decays(13), folder.with_suffix(".pq"))
    assert isinstance(found, parfit.PartedFits)
    assert_same_table(table(folder.with_suffix(".pq")), whole(decays(13)))


def test_what_only_fits_in_memory_have_is_said(folder):
    found, fits = fit(decays(13), folder), fit(decays(13), None)
    others = {name for name in dir(fits) if not name.startswith("_")} - set(dir(found))
    assert {"params", "summary", "status", "refit", "to_frame", "cov"} <= others
    said = re.escape("as its table is in files: .frames() gives it a part at a time, and pandas.read_parquet(")
    for name in others:
        with pytest.raises(AttributeError, match=rf"a PartedFits has no \.{name}, {said}"):
            getattr(found, name)
    with pytest.raises(AttributeError, match="a PartedFits has no 'parms'"):
        _ = found.parms
    for wrong in (lambda: found["r0"], lambda: found[0], lambda: list(found)):
        with pytest.raises(TypeError, match=said):
            wrong()
    again = pickle.loads(pickle.dumps(found))
    assert again.counts.equals(found.counts)


# ---- what is said of the whole


def test_what_every_dataset_raises_is_said_once(folder):
    def objective(p, row):
        raise KeyError("no such column")

    with pytest.warns(parfit.ParfitWarning, match="every dataset raised KeyError, the first of them") as told:
        fit(decays(33), folder, objective)
    assert len(told) == 1


def test_what_the_objective_warns_of_is_said_once(folder):
    def objective(p, row):
        if row.name in ("r2", "r31"):
            warnings.warn("odd", RuntimeWarning, stacklevel=1)
        return residuals(p, row)

    with pytest.warns(parfit.ParfitWarning, match=r"2 of 33 datasets gave warnings: RuntimeWarning: odd \(2\)") as told:
        fit(decays(33), folder, objective)
    assert len(told) == 1


def test_a_part_that_cannot_be_fitted_is_no_error_where_others_can(engine, folder):
    data = decays(33)
    data.iloc[10:20] = np.nan
    found = fit(data, folder, engine=engine)
    assert found.counts.to_dict() == {"converged": 23, "nonfinite": 10}
    data[:] = np.nan
    for _ in range(2):
        with pytest.raises(InvalidInputError, match=r"no dataset can be fitted: .*NaN.*'r0', and all others") as caught:
            fit(data, folder.with_name("bad.parquet"), engine=engine)
        assert caught.value.fits.counts.to_dict() == {"nonfinite": 33}


@pytest.mark.parametrize("slow", [False, True])
def test_a_dataset_of_another_kind_than_the_first_is_an_error_in_any_part(folder, slow):
    def objective(p, row):
        if slow and row.name == "r0":
            time.sleep(0.5)  # so that its part is finished after others
        r = residuals(p, row)
        return float(r @ r) if row.name in ("r15", "r31") else r

    call = {"executor": "threads", "workers": 2} if slow else {}
    found = fit(decays(33), folder, objective, method="trf" if slow else None, **call)
    assert found.counts.to_dict() == {"converged": 31, "error": 2}
    assert found.errors["position"].tolist() == [15, 31]
    assert_same_table(table(folder), whole(decays(33), objective, method="trf" if slow else None))


def test_a_method_that_cannot_is_told_at_once(folder):
    with pytest.raises(parfit.ParfitError, match="fits residuals, and the objective gives a scalar"):
        fit(decays(33), folder, lambda p, row: float((residuals(p, row) ** 2).sum()), method="trf")


def test_progress_counts_all_datasets(engine, folder):
    seen = []
    fit(decays(33), folder, engine=engine, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (33, 33)
    assert {total for _, total in seen} == {33}


def test_the_first_failure_is_raised_where_that_is_asked(folder):
    def objective(p, row):
        if row.name == "r14":
            raise ValueError("no data")
        return residuals(p, row)

    with pytest.raises(FitError, match="dataset 'r14': ValueError: no data"):
        fit(decays(33), folder, objective, on_error="raise")
    assert len(table(folder)) == 10
    count = Counting()
    assert fit(decays(33), folder, objective, progress=count).counts.to_dict() == {"converged": 32, "error": 1}
    assert count.fitted <= 33 - 14
