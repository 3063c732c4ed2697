"""A store that is a folder of Parquet files: the same call again, another call, and what is wrong with the files."""

from __future__ import annotations

import os
import sqlite3
import time
import warnings
from concurrent.futures import ThreadPoolExecutor

import pandas as pd
import pytest
from pandas.testing import assert_frame_equal

import parfit
from parfit import (
    FitInterrupted,
    InvalidInputError,
    InvalidTypeError,
    StoreError,
    StoreMismatchError,
)
from parfit.fitting.filling import Filling
from parfit.parquet import ParquetRows
from parfit.parquet import rows as reading
from parfit.stores import sqlite
from parfit.stores.parts import Parts
from tests.stores.in_parts import assert_same_table, fit, names, table, whole
from tests.stores.test_resume import Counting, decays, residuals

pa = pytest.importorskip("pyarrow")
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


class Interrupting:
    """A Ctrl-C after so many datasets."""

    def __init__(self, after):
        self.after = after

    def __call__(self, done, total):
        if done >= self.after:
            raise KeyboardInterrupt


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
        ({"x0": {"height": 1.0, "k": 1.0}}, r"parameters \['height', 'rate'\], and these are \['height', 'k'\]"),
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


# ---- the files


def test_few_parts_are_in_memory_at_a_time(engine, folder, monkeypatch):
    most = []
    original = Filling._begin

    def begin(filling, *args):
        made = original(filling, *args)
        most.append(len(filling._begun))
        return made

    monkeypatch.setattr(Filling, "_begin", begin)
    more = {"executor": "processes", "workers": 2} if engine == "rows" else {}
    fit(decays(200), folder, engine=engine, **more)
    assert len(most) == 20
    assert max(most) <= 3


def test_what_is_something_else_is_left_as_it_is(tmp_path):
    file, other = tmp_path / "file.parquet", tmp_path / "other.parquet"
    fit(decays(3), None).to_parquet(file)
    other.mkdir()
    fit(decays(3), None).to_parquet(other / "part-00000.parquet")
    for overwrite in (False, True):
        for path, text in ((file, "is a file, and no folder of parfit's"), (other, "is a folder of something else")):
            with pytest.raises(StoreError, match=text):
                fit(decays(13), path, overwrite=overwrite)
    assert len(table(other)) == len(table(file)) == 3
    with pytest.raises(StoreError, match="there is no store"):
        parfit.open_store(other)


def test_a_second_writer_is_refused(folder):
    def objective(p, row):
        if row.name == "r12":
            with pytest.raises(StoreError, match="is being written by another call in this process"):
                fit(decays(33), folder)
        return residuals(p, row)

    assert fit(decays(33), folder, objective).counts.to_dict() == {"converged": 33}


def full(*_, **__):
    raise OSError(28, "No space left on device")


def unwritable(*_, **__):
    raise pa.ArrowInvalid("no such type")


@pytest.mark.parametrize("how", ["synchronised", "renamed", "written"])
def test_of_a_part_that_cannot_be_written_nothing_is_lost(engine, folder, monkeypatch, how):
    original = Parts.write

    def write(parts, number, frame, footer):
        with monkeypatch.context() as patched:
            if number == 2 and how == "synchronised":
                patched.setattr(os, "fsync", full)
            elif number == 2 and how == "renamed":
                patched.setattr(os, "replace", full)
            elif number == 2:
                patched.setattr(parts._parquet, "write_table", unwritable)
            original(parts, number, frame, footer)

    said = "no such type" if how == "written" else "No space left on device"
    with monkeypatch.context() as patched:
        patched.setattr(Parts, "write", write)
        with pytest.raises(StoreError, match=f"cannot be written: {said}$") as caught:
            fit(decays(33), folder, engine=engine)
    wanted = whole(decays(33), engine=engine)
    found = caught.value.fits
    assert found.counts.to_dict() == {"converged": 30, "not_run": 3}
    assert_same_table(pd.concat(found.frames()), wanted.iloc[:30])
    assert len(found.files) == 2
    assert len(table(folder)) == 20
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert parfit.open_store(folder).counts["not_run"] == (3 if engine == "rows" else 13)
        fit(decays(33), folder, engine=engine)
    assert_same_table(table(folder), wanted)


def test_where_neither_the_part_nor_its_rows_can_be_written(folder, monkeypatch):
    original, plain = Parts.write, sqlite.SqliteStore._insert

    def write(parts, number, frame, footer):
        if number == 1:
            monkeypatch.setattr(os, "fsync", full)
        original(parts, number, frame, footer)

    def insert(store, body):
        if store._path.name == "_rows-00001.db":
            raise sqlite3.OperationalError("database or disk is full")
        plain(store, body)

    monkeypatch.setattr(Parts, "write", write)
    monkeypatch.setattr(sqlite.SqliteStore, "_insert", insert)

    def slow(p, row):
        time.sleep(0.01)  # so that it is known before the part is full
        return residuals(p, row)

    with pytest.warns(parfit.ParfitWarning, match="fitting goes on"), pytest.raises(StoreError) as caught:
        fit(decays(33), folder, slow)
    monkeypatch.undo()
    assert caught.value.fits.counts.to_dict() == {"converged": 20, "not_run": 13}
    assert len(table(folder)) == 10


def test_labels_that_cannot_be_written_are_refused_before_anything_is_fitted(folder):
    data = decays(13).set_axis(pd.Index([*range(6), *"abcdefg"], dtype=object))
    with pytest.raises(InvalidTypeError, match="labels are int and str, which one column of a Parquet file cannot"):
        fit(data, folder, lambda p, row: pytest.fail("fitted"))


def test_labels_of_a_file_are_not_read_as_a_whole(folder, tmp_path, engine, monkeypatch):
    data = decays(33).rename(columns=str)
    data.to_parquet(tmp_path / "data.parquet")
    monkeypatch.setattr(ParquetRows, "labels", property(lambda _: pytest.fail("read")))
    fit(tmp_path / "data.parquet", folder, engine=engine, on_error="raise")
    assert table(folder).index.tolist() == data.index.tolist()


def test_parts_of_many_windows(folder, tmp_path, engine, monkeypatch):
    monkeypatch.setattr(reading, "WINDOW_ROWS", 3)
    data = decays(33).rename(columns=str)
    data.to_parquet(tmp_path / "data.parquet")
    fit(tmp_path / "data.parquet", folder, engine=engine)
    assert_same_table(table(folder), whole(data, engine=engine))
    count = Counting()
    fit(data, folder, engine=engine, progress=count)
    assert not count.fitted


@pytest.mark.parametrize("name", ["warm_start", "history"])
def test_what_needs_rows_one_by_one_is_for_sqlite(folder, name):
    with pytest.raises(InvalidInputError, match=f"{name}=True is for a store in a SQLite file"):
        fit(decays(13), folder, **{name: True})


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(StoreError, match="cannot be written"):
        fit(decays(13), tmp_path / "nowhere" / "fits.parquet")


def test_rows_under_way_beyond_the_data_are_refused(folder):
    with pytest.raises(FitInterrupted):
        fit(decays(33), folder, progress=Interrupting(24))
    with pytest.raises(StoreMismatchError, match=r"holds fits of 33 datasets, and data has 20"):
        fit(decays(20), folder)
    fit(decays(33), folder)


def test_what_failed_before_is_raised_again_where_errors_are_to_be(folder):
    def moody(p, row):
        if row.name == "r13":
            raise ValueError("no data")
        return residuals(p, row)

    fit(decays(33), folder, moody)
    for _ in range(2):
        with pytest.raises(parfit.FitError, match="dataset 'r13': ValueError: no data"):
            fit(decays(33), folder, moody, on_error="raise")


def test_parts_that_an_executor_has_left_undone_are_let_go_of(folder):
    """A pool of the user's own that takes no more tasks from some row on."""
    begun = []

    class Ending(ThreadPoolExecutor):
        def submit(self, *args, **kwargs):
            begun.append(len(list(folder.glob("_rows-*.db"))))
            if len(begun) == 15:
                self.shutdown(wait=False)
            return super().submit(*args, **kwargs)

    with Ending(1) as pool:
        fits = fit(decays(100), folder, executor=pool, chunk_size=1)
    assert fits.counts["not_run"] > 50
    assert len(list(folder.glob("_rows-*.db"))) <= 1
    assert fit(decays(100), folder).counts.to_dict() == {"converged": 100}


def test_a_file_that_cannot_be_opened_for_a_moment_keeps_its_rows(folder, monkeypatch):
    with pytest.raises(FitInterrupted):
        fit(decays(33), folder, progress=Interrupting(24))
    plain = sqlite.connected

    def full(path, *, anew):
        monkeypatch.setattr(sqlite, "connected", plain)
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(sqlite, "connected", full)
    with pytest.raises(StoreError, match="database or disk is full"):
        fit(decays(33), folder)
    count = Counting()
    fit(decays(33), folder, progress=count)
    assert count.fitted == 33 - 24
