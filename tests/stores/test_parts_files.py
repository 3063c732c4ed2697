"""A store that is a folder of Parquet files: what is written, and what cannot be."""

from __future__ import annotations

import os
import sqlite3
import time
import warnings
from concurrent.futures import ThreadPoolExecutor

import pandas as pd
import pytest

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
from tests.stores.in_parts import Interrupting, assert_same_table, fit, table, whole
from tests.stores.test_resume import Counting, decays, residuals

pa = pytest.importorskip("pyarrow")
pytestmark = pytest.mark.usefixtures("small_parts")


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
