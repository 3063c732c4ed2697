"""A store that is a folder of Parquet files: the same call again, and another call."""

from __future__ import annotations

import os

import pandas as pd
import pytest
from pandas.testing import assert_frame_equal

import parfit
from parfit import (
    FitInterrupted,
    StoreMismatchError,
)
from tests.stores.in_parts import Interrupting, assert_same_table, fit, names, table, whole
from tests.stores.test_resume import Counting, decays, residuals

pytest.importorskip("pyarrow")
pytestmark = pytest.mark.usefixtures("small_parts")


# ---- the same call again


def test_the_same_call_again_fits_nothing(engine, folder):
    fit(decays(33), folder, engine=engine)
    first, count = table(folder), Counting()
    written = [path.stat().st_mtime_ns for path in sorted(folder.glob("part*"))]
    again = fit(decays(33), folder, engine=engine, progress=count)
    assert not count.fitted
    assert again.engine == engine
    assert [path.stat().st_mtime_ns for path in sorted(folder.glob("part*"))] == written
    assert_frame_equal(table(folder), first)


def test_an_interrupted_call_goes_on_where_it_was(folder):
    with pytest.raises(FitInterrupted, match="interrupted with 24 of 33 datasets done; see") as caught:
        fit(decays(33), folder, progress=Interrupting(24))
    assert len(table(folder)) == 20
    wanted = whole(decays(33))
    for found in (caught.value.fits, parfit.open_store(folder)):
        assert found.counts.to_dict() == {"converged": 24, "not_run": 9}  # of the part under way, too
        frames = list(found.frames())
        assert list(map(len, frames)) == [10, 10, 4]
        assert_same_table(pd.concat(frames), wanted.iloc[:24])
        assert len(found.files) == 2
    count = Counting()
    assert fit(decays(33), folder, progress=count).counts.to_dict() == {"converged": 33}
    assert count.fitted == 33 - 24
    assert count.done[-1] == 33
    assert_same_table(table(folder), whole(decays(33)))
    assert names(folder) == ["_parfit.json", *(f"part-0000{i}.parquet" for i in range(4))]


def test_errors_of_a_part_under_way_are_known(folder):
    def objective(p, row):
        if row.name == "r21":
            raise ValueError("no data")
        return residuals(p, row)

    with pytest.raises(FitInterrupted) as caught:
        fit(decays(33), folder, objective, progress=Interrupting(24))
    for found in (caught.value.fits, parfit.open_store(folder)):
        assert found.counts.to_dict() == {"converged": 23, "error": 1, "not_run": 9}
        assert found.errors["position"].tolist() == [21]
        assert list(found.frames())[2]["status"].tolist() == ["converged", "error", "converged", "converged"]


def test_rows_under_way_of_other_data_give_way(folder):
    with pytest.raises(FitInterrupted):
        fit(decays(33), folder, progress=Interrupting(24))
    data = decays(33)
    data.iloc[20:30] *= 1.01
    fit(data, folder)
    assert_same_table(table(folder), whole(data))


def test_a_batch_that_was_interrupted_goes_on_with_the_next_part(folder):
    pytest.importorskip("jax")
    with pytest.raises(FitInterrupted):
        fit(decays(33), folder, engine="batch", progress=Interrupting(20))
    before = len(parfit.open_store(folder).files)
    assert before in (1, 2)
    count = Counting()
    fit(decays(33), folder, engine="batch", progress=count)
    assert count.done[-1] == 33
    assert len(count.done) <= 4 - before + 1
    assert_same_table(table(folder), whole(decays(33), engine="batch"))


def test_only_parts_with_other_data_are_fitted_again(engine, folder):
    fit(decays(33), folder, engine=engine)
    data = decays(33)
    data.loc["r14"] *= 1.01
    before = {path.name: path.stat().st_mtime_ns for path in folder.glob("part*")}
    fit(data, folder, engine=engine)
    after = {path.name: path.stat().st_mtime_ns for path in folder.glob("part*")}
    assert [name for name in sorted(before) if before[name] != after[name]] == ["part-00001.parquet"]
    assert_same_table(table(folder), whole(data, engine=engine))


@pytest.mark.parametrize("changed", [slice(3, 4), slice(1, None), slice(None, None, 2)], ids=["one", "all but", "half"])
def test_where_there_is_one_part_changed_rows_are_fitted_again_too(engine, folder, monkeypatch, changed):
    monkeypatch.setattr("parfit.fitting.parted.PART_ROWS", 1000)
    fit(decays(33), folder, engine=engine)
    data = decays(33)
    data.iloc[changed] *= 1.01
    fit(data, folder, engine=engine)
    assert_same_table(table(folder), whole(data, engine=engine))
    with pytest.raises(StoreMismatchError, match="holds fits of other data: none of its 1 part is of these"):
        fit(data * 2, folder, engine=engine)
    assert_same_table(table(folder), whole(data, engine=engine))


def test_a_few_rows_are_enough_to_know_a_part_by(folder, monkeypatch):
    monkeypatch.setattr("parfit.fitting.parted.PART_ROWS", 1000)
    monkeypatch.setattr("parfit.fitting.filling._SAMPLED", 8)
    fit(decays(200), folder)
    data = decays(200)
    data.iloc[::2] *= 1.01
    fit(data, folder)
    assert_same_table(table(folder), whole(data))


def test_data_that_have_moved_on_by_some_rows_are_the_same_data(folder):
    fit(decays(33), folder)
    data = decays(40).iloc[3:36]
    fit(data, folder)
    assert_same_table(table(folder), whole(data))


def test_rows_under_way_do_not_give_way_to_data_that_are_refused(folder):
    with pytest.raises(FitInterrupted):
        fit(decays(33), folder, progress=Interrupting(24))
    with pytest.raises(StoreMismatchError, match="other data: none of its 2 parts is of these"):
        fit(decays(33) * 2, folder)
    count = Counting()
    fit(decays(33), folder, progress=count)
    assert count.fitted == 33 - 24


def test_data_may_grow(engine, folder):
    fit(decays(14), folder, engine=engine)
    count = Counting()
    fit(decays(33), folder, engine=engine, progress=count)
    assert count.done[-1] == 33
    if engine == "rows":
        assert count.fitted == 33 - 14
    assert_same_table(table(folder), whole(decays(33), engine=engine))


def test_failed_datasets_are_fitted_again_only_where_that_is_asked(folder, tmp_path):
    mended = tmp_path / "mended"

    def objective(p, row):
        if row.name in ("r2", "r14") and not os.path.exists(mended):
            raise ValueError(f"no data for {row.name}")
        return residuals(p, row)

    found = fit(decays(33), folder, objective)
    assert found.counts.to_dict() == {"converged": 31, "error": 2}
    assert found.errors["position"].tolist() == [2, 14]
    assert found.errors["label"].tolist() == ["'r2'", "'r14'"]
    assert "ValueError: no data for r14" in found.errors["traceback"].iloc[1]
    mended.touch()
    assert fit(decays(33), folder, objective).counts.to_dict() == {"converged": 31, "error": 2}
    count = Counting()
    found = fit(decays(33), folder, objective, retry_failed=True, progress=count)
    assert (found.counts.to_dict(), count.fitted, len(found.errors)) == ({"converged": 33}, 2, 0)
    assert_same_table(table(folder), whole(decays(33), objective))


def test_what_was_fitted_again_before_an_interruption_counts(folder, tmp_path):
    mended, failed = tmp_path / "mended", {f"r{i}" for i in range(12, 19)}

    def objective(p, row):
        if row.name in failed and not mended.exists():
            raise ValueError(f"no data for {row.name}")
        if row.name == "r13":
            raise KeyError("still none")
        return residuals(p, row)

    assert fit(decays(33), folder, objective).counts.to_dict() == {"converged": 26, "error": 7}
    mended.touch()
    before = folder / "part-00001.parquet"
    written = before.stat().st_mtime_ns
    with pytest.raises(FitInterrupted, match="interrupted with 33 of 33") as caught:
        fit(decays(33), folder, objective, retry_failed=True, progress=Interrupting(33 - 7 + 4))
    assert before.stat().st_mtime_ns == written
    counts = {"converged": 29, "error": 4}
    for found in (caught.value.fits, parfit.open_store(folder)):
        assert found.counts.to_dict() == counts
        assert found.errors["position"].tolist() == [13, 16, 17, 18]
        assert found.errors["type"].tolist() == ["KeyError"] + 3 * ["ValueError"]
        assert list(map(len, found.frames())) == [10, 10, 10, 3]
        assert pd.concat(found.frames())["success"].sum() == 29
    count = Counting()
    found = fit(decays(33), folder, objective, progress=count)
    assert (found.counts.to_dict(), count.fitted) == (counts, 0)
    assert found.errors["position"].tolist() == [13, 16, 17, 18]
    found = fit(decays(33), folder, objective, retry_failed=True, progress=count)
    assert (found.counts.to_dict(), count.fitted) == ({"converged": 32, "error": 1}, 4)
    assert_same_table(table(folder), whole(decays(33), objective))


def test_what_failed_and_was_mended_before_an_interruption_is_not_raised(folder, tmp_path):
    def objective(p, row):
        if row.name in ("r12", "r13") and not (tmp_path / row.name).exists():
            raise ValueError(f"no data for {row.name}")
        return residuals(p, row)

    fit(decays(33), folder, objective)
    (tmp_path / "r12").touch()
    with pytest.raises(FitInterrupted):
        fit(decays(33), folder, objective, retry_failed=True, progress=Interrupting(32))
    with pytest.raises(parfit.FitError, match="no data for r13"):
        fit(decays(33), folder, objective, on_error="raise")


def test_rows_under_way_of_data_that_are_not_those_of_the_part_are_not_shown_among_them(folder):
    def objective(p, row):
        if row.name == "r13":
            raise ValueError("no data")
        return residuals(p, row)

    fit(decays(33), folder, objective)
    data = decays(33)
    data.loc["r11"] *= 1.01
    with pytest.raises(FitInterrupted):
        fit(data, folder, objective, progress=Interrupting(27))
    found = parfit.open_store(folder)
    assert found.counts.to_dict() == {"converged": 32, "error": 1}
    assert_same_table(pd.concat(found.frames()), whole(decays(33), objective))
    fit(data, folder, objective)
    assert_same_table(table(folder), whole(data, objective))


def test_all_that_failed_may_be_fitted_again(folder):
    fit(decays(13), folder, options={"max_nfev": 1})
    count = Counting()
    fit(decays(13), folder, options={"max_nfev": 1}, retry_failed=True, progress=count)
    assert count.fitted == 13


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"objective": lambda p, row: 2 * residuals(p, row)}, "objective was residuals and is .*<lambda>"),
        ({"x0": {"height": 1.0, "k": 1.0}}, "other parameters: in these 'rate' is missing, 'k' is new;"),
        ({"seed": 7, "method": "trf"}, "method was None and is 'trf'; seed was 0 and is 7"),
    ],
)
def test_another_call_is_refused_by_what_differs(folder, change, text):
    fit(decays(13), folder)
    first = table(folder)
    with pytest.raises(StoreMismatchError, match=text):
        fit(decays(13), folder, **change)
    assert_frame_equal(table(folder), first)


def test_other_data_fewer_data_and_the_other_engine_are_refused(folder):
    pytest.importorskip("jax")
    fit(decays(33), folder)
    first = table(folder)
    for text, call in (
        ("other data: none of its 4 parts", {"data": decays(33) * 2}),
        ("fits of 33 datasets, and data has 12", {"data": decays(12)}),
        ("engine 'rows', and this call would go on with 'batch'", {"data": decays(40), "engine": "batch"}),
    ):
        data = call.pop("data")
        with pytest.raises(StoreMismatchError, match=text):
            fit(data, folder, **call)
        assert_frame_equal(table(folder), first)
    assert fit(decays(12) * 2, folder, overwrite=True, method="trf").counts.to_dict() == {"converged": 12}
    assert_same_table(table(folder), whole(decays(12) * 2, method="trf"))
