"""Data in Parquet files: each dataset is what `pandas.read_parquet` would give, and few are in memory at a time."""

from __future__ import annotations

import gc
import os
import sys
import threading
import weakref
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pandas.testing import assert_frame_equal, assert_index_equal, assert_series_equal

import parfit
from parfit import InvalidInputError, InvalidTypeError, MissingPackageError
from parfit.core.data import read_data
from parfit.parquet import ParquetRows
from parfit.parquet import rows as reading

pa = pytest.importorskip("pyarrow")
import pyarrow.dataset as ds  # noqa: E402
import pyarrow.parquet as pq  # noqa: E402

T = np.linspace(0, 4, 12)
START = {"height": 1.0, "rate": 1.0}
WINDOW = 7


@pytest.fixture(autouse=True)
def small_windows(monkeypatch):
    monkeypatch.setattr(reading, "WINDOW_ROWS", WINDOW)


def decays(n: int = 40) -> pd.DataFrame:
    rng = np.random.default_rng(3)
    clean = rng.uniform(1, 3, (n, 1)) * np.exp(-rng.uniform(0.3, 1, (n, 1)) * T)
    made = pd.DataFrame(clean + 0.01 * rng.normal(size=clean.shape), columns=[f"y{i}" for i in range(len(T))])
    return made.set_index(pd.Index([f"r{i}" for i in range(n)], name="site"))


def residuals(p, row):
    return p["height"] * np.exp(-p["rate"] * T) - row.to_numpy()


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "data.parquet"
    decays().to_parquet(path, row_group_size=9)
    return path


def assert_same_fits(a, b):
    assert_index_equal(a.labels, b.labels)
    assert_frame_equal(a.params, b.params, check_exact=True)
    assert_frame_equal(a.stderr, b.stderr, check_exact=True)
    drop = ["seconds"]
    assert_frame_equal(a.summary.drop(columns=drop), b.summary.drop(columns=drop), check_exact=True)


# ---- what a row is

N = 30
GAP = [None if i == 25 else i for i in range(N)]
KINDS = {
    "floats": pd.DataFrame(np.arange(2.0 * N).reshape(N, 2), columns=["a", "b"]),
    "numbered columns": pd.DataFrame(np.arange(2.0 * N).reshape(N, 2)),
    "float32": pd.DataFrame(np.arange(2 * N, dtype=np.float32).reshape(N, 2), columns=["a", "b"]),
    "whole": pd.DataFrame({"a": np.arange(N), "b": np.arange(N)[::-1]}),
    "unsigned": pd.DataFrame({"a": np.arange(N, dtype=np.uint8), "b": np.arange(N, dtype=np.int16)}),
    "text": pd.DataFrame({"a": [f"t{i}" for i in range(N)], "b": np.arange(N)}),
    "times": pd.DataFrame({"a": pd.date_range("2000", periods=N, tz="UTC"), "b": np.arange(N)}),
    "nullable": pd.DataFrame({"a": pd.array(GAP, dtype="Int64"), "b": pd.array(GAP, dtype="Float64")}),
    "truth": pd.DataFrame({"a": [i % 2 == 0 for i in range(N)], "b": [i % 3 == 0 for i in range(N)]}),
    "categories": pd.DataFrame({"a": pd.Categorical(list("uvw") * (N // 3)), "b": np.arange(N)}),
    "lists": pd.DataFrame({"a": [np.arange(float(i % 3)) for i in range(N)], "b": np.arange(N)}),
    "two levels": pd.DataFrame(
        np.arange(2.0 * N).reshape(N, 2),
        columns=pd.MultiIndex.from_tuples([("2000", "x"), ("2010", "x")], names=["year", None]),
    ),
    "dated labels": pd.DataFrame({"a": np.arange(N)}, index=pd.date_range("2000", periods=N, name="day")),
    "two-level labels": pd.DataFrame(
        {"a": np.arange(N)}, index=pd.MultiIndex.from_product([["u", "v"], range(N // 2)], names=["g", None])
    ),
    "repeated labels": pd.DataFrame({"a": np.arange(N)}, index=[0, 1] * (N // 2)),
    "range labels": pd.DataFrame({"a": np.arange(N)}, index=pd.RangeIndex(10, 10 + 2 * N, 2, name="step")),
    "numbered labels and others": pd.DataFrame({"a": np.arange(N), "g": list("uv") * (N // 2)}).set_index(
        "g", append=True
    ),
    "others and numbered labels": pd.DataFrame(
        {"a": np.arange(N)},
        index=pd.MultiIndex.from_arrays([list("uv") * (N // 2), pd.RangeIndex(5, 5 + 2 * N, 2)], names=["g", "k"]),
    ),
    "two-level labels with a gap": pd.DataFrame(
        {"a": np.arange(N)},
        index=pd.MultiIndex.from_arrays([pd.array(GAP, dtype="Int64"), list("uv") * (N // 2)], names=["k", "g"]),
    ),
    "labels with a gap": pd.DataFrame({"a": np.arange(N)}, index=pd.Index(GAP, dtype="Int64", name="k")),
}
#: Tables that pandas did not write: the types of whole columns hang on gaps far away.
TABLES = {
    "gaps": pa.table({"a": GAP, "b": [None if i == 3 else True for i in range(N)], "c": [float(i) for i in range(N)]}),
    "small with gaps": pa.table({"a": pa.array(GAP, pa.int8()), "b": pa.array(range(N), pa.int8())}),
    "lists with gaps": pa.table({"a": [[i, i] for i in range(N - 1)] + [[1, None]], "b": [[True]] * N}),
    "truth in lists with gaps": pa.table({"a": [[True], [None, False]] * (N // 2), "b": range(N)}),
    "lists in lists": pa.table({"a": [[[i]] for i in range(N - 1)] + [[[None], []]], "b": [[[1]]] * N}),
    "missing lists": pa.table({"a": [[1], [], None] * (N // 3)}),
    "structs without gaps": pa.table({"a": [{"u": i, "v": [i], "w": None} for i in range(N)]}),
    "no gaps": pa.table({"a": list(range(N)), "b": [True] * N}),
}


def written(name, path):
    if name in KINDS:
        KINDS[name].to_parquet(path, row_group_size=11)
    else:
        pq.write_table(TABLES[name], path, row_group_size=11, write_statistics=name != "small with gaps")
    return path


@pytest.mark.parametrize("name", [*KINDS, *TABLES])
def test_each_row_is_that_of_pandas(name, tmp_path):
    path = written(name, tmp_path / "data.parquet")
    found, wanted = ParquetRows(path), read_data(pd.read_parquet(path))
    assert len(found) == len(wanted) == N
    assert_index_equal(found.labels, wanted.labels, exact=True)
    for i in [*range(N), 0, 29, 13, 12]:
        a, b = found.one(i), wanted.one(i)
        assert repr(a.name) == repr(b.name)
        assert_series_equal(a.rename(None), b.rename(None))
    np.testing.assert_array_equal(found.fingerprints(), wanted.fingerprints())


STRUCTS = {
    "a gap": [{"u": i, "v": i, "w": "x"} for i in range(N - 1)] + [{"u": None, "v": 1, "w": None}],
    "one missing": [{"u": i, "v": [i]} for i in range(N - 1)] + [None],
    "a gap in a list": [{"u": [i], "v": True} for i in range(N - 1)] + [{"u": [1, None], "v": None}],
    "in a list": [[{"u": i}, {"u": 1}] for i in range(N - 1)] + [[{"u": None}]],
}


@pytest.mark.parametrize("name", STRUCTS)
@pytest.mark.parametrize("window", [WINDOW, 3, 100])
def test_numbers_in_structs_are_of_one_type_in_all_rows(name, window, tmp_path, monkeypatch):
    """As pandas has them where the file is one row group."""
    monkeypatch.setattr(reading, "WINDOW_ROWS", window)
    table = pa.table({"a": STRUCTS[name], "b": range(N)})
    pq.write_table(table, tmp_path / "whole.parquet")
    pq.write_table(table, tmp_path / "data.parquet", row_group_size=11)
    wanted = pd.read_parquet(tmp_path / "whole.parquet")
    found = ParquetRows(tmp_path / "data.parquet").block(np.arange(N)).frame
    assert repr(found["a"].tolist()) == repr(wanted["a"].tolist())
    assert_frame_equal(found[["b"]], wanted[["b"]])


def test_the_types_of_a_frame_are_those_of_all_rows(tmp_path):
    path = written("gaps", tmp_path / "data.parquet")
    whole, rows = pd.read_parquet(path), ParquetRows(path)
    for positions in ([0, 1, 2], [8, 2, 29], np.arange(N), [5], []):
        frame = rows.block(np.array(positions, dtype=np.intp)).frame
        assert_frame_equal(frame, whole.iloc[list(positions)], check_exact=True)


def test_a_folder_is_all_its_files_in_order(tmp_path):
    folder = tmp_path / "data"
    (folder / "b").mkdir(parents=True)
    frame = decays(40).reset_index(drop=True)
    for name, rows in (("a.parquet", slice(0, 15)), ("b/x.parquet", slice(15, 16)), ("b/y.parquet", slice(16, 40))):
        frame.iloc[rows].reset_index(drop=True).to_parquet(folder / name, row_group_size=6)
    (folder / "_SUCCESS").touch()
    frame.iloc[:2].to_parquet(folder / "_old.parquet")
    wanted = pd.read_parquet(folder)
    assert len(wanted) == 40
    for source in (folder, str(folder), ds.dataset(folder), pq.ParquetDataset(folder)):
        found = ParquetRows(source)
        assert_frame_equal(found.block(np.arange(40)).frame, wanted, check_exact=True)
        assert_index_equal(found.labels, wanted.index, exact=True)


def test_a_file_without_rows(tmp_path):
    path = tmp_path / "none.parquet"
    decays(3).iloc[:0].to_parquet(path)
    fits = parfit.fit(path, residuals, START, executor="serial")
    assert len(fits) == 0
    assert list(fits.params) == list(START)


# ---- fits


@pytest.fixture(params=["rows", "batch"])
def engine(request):
    if request.param == "batch":
        pytest.importorskip("jax")
    return {"engine": request.param, **({"executor": "serial"} if request.param == "rows" else {})}


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"bounds": {"rate": (0.5, 1.1)}, "fixed": ["height"]},
        {"x0": lambda row: {"height": row.iloc[0], "rate": 1.0}},
        {"x0": pd.DataFrame({"height": np.linspace(1, 2, 40), "rate": 1.0}, index=decays().index)},
        {"bounds": (None, pd.DataFrame({"height": np.linspace(1, 4, 40)}, index=decays().index))},
    ],
    ids=["plain", "bounds", "start of each", "table of starts", "table of bounds"],
)
def test_the_fits_are_those_of_a_frame(file, engine, more):
    call = {"x0": START, **engine, **more}
    x0 = call.pop("x0")
    found = parfit.fit(file, residuals, x0, **call)
    assert found.engine == engine["engine"]
    assert_same_fits(found, parfit.fit(pd.read_parquet(file), residuals, x0, **call))


def test_random_numbers_come_from_the_place_in_the_whole(file):
    def noisy(p, row):
        return float((residuals(p, row) ** 2).sum()) + 1e-6 * np.random.normal()  # noqa: NPY002

    call = {"method": "spsa", "options": {"maxiter": 40}, "engine": "rows", "workers": 2}
    assert_same_fits(parfit.fit(file, noisy, START, **call), parfit.fit(pd.read_parquet(file), noisy, START, **call))


def test_auto_chooses_as_for_a_frame(tmp_path):
    """One row in the middle, of all the windows, is the one whose compiled value would be another."""
    pytest.importorskip("jax")
    frame = decays(60)
    frame.iloc[37, 3] = np.nan

    def objective(p, row):
        y = row.to_numpy()
        if type(y) is np.ndarray:  # not while it is traced
            y = np.where(np.isnan(y), 1.0, y)
        return p["height"] * np.exp(-p["rate"] * T) - y

    frame.to_parquet(tmp_path / "data.parquet")
    for data in (frame, tmp_path / "data.parquet"):
        fits = parfit.fit(data, objective, START, workers=1)
        assert fits.engine == "rows"
        assert "another value for dataset 'r37'" in fits.engine_reason
    plain = parfit.fit(tmp_path / "data.parquet", residuals, START)
    assert plain.engine == "batch"
    assert (~plain.success).to_numpy().nonzero()[0].tolist() == [37]


def test_refit_debug_and_sensitivity_read_what_they_need(file):
    pytest.importorskip("jax")
    found = parfit.fit(file, residuals, START, options={"max_nfev": 3})
    frame = parfit.fit(pd.read_parquet(file), residuals, START, options={"max_nfev": 3})
    assert not found.success.all()
    again, wanted = (fits.refit(options={}, x0="solution") for fits in (found, frame))
    assert again.success.all()
    assert_same_fits(again, wanted)
    np.testing.assert_allclose(again.debug("r33").x, again.params.loc["r33"], rtol=1e-6)
    assert_frame_equal(again.sensitivity(), wanted.sensitivity(), rtol=1e-12)


def test_a_store_is_of_the_data_however_they_are_read(file, tmp_path, engine):
    store, done = tmp_path / "fits.db", []
    first = parfit.fit(pd.read_parquet(file), residuals, START, store=store, **engine)
    again = parfit.fit(file, residuals, START, store=store, progress=lambda n, _: done.append(n), **engine)
    assert len(done) <= 1
    assert_same_fits(again, first)
    frame = pd.read_parquet(file)
    frame.loc["r30"] *= 1.01
    frame.to_parquet(file)
    changed = parfit.fit(file, residuals, START, store=store, **engine)
    assert (changed.params != first.params).any(axis=1).to_numpy().nonzero()[0].tolist() == [30]


def test_workers_that_keep_data_keep_none_of_a_file(file):
    call = {"engine": "rows", "executor": "producer_consumer", "workers": 2}
    first = parfit.fit(file, residuals, START, **call)
    (decays() * 2).to_parquet(file)
    again = parfit.fit(file, residuals, START, **call)
    np.testing.assert_allclose(again.params["height"], 2 * first.params["height"], rtol=1e-3)
    assert_same_fits(again, parfit.fit(decays() * 2, residuals, START, engine="rows", workers=2))


# ---- memory


class Held:
    """How many windows of rows are in memory, at most."""

    def __init__(self, monkeypatch):
        self.made, self.most, self.alive = 0, 0, []
        self._lock = threading.Lock()
        original = ParquetRows._as_frame

        def as_frame(rows, start, stop):
            frame = original(rows, start, stop)
            assert len(frame) <= WINDOW
            values = frame.to_numpy()
            with self._lock:
                self.made += 1
                self.alive = [one for one in self.alive if one() is not None]
                self.alive.append(weakref.ref(values if values.base is None else values.base))
                self.most = max(self.most, len(self.alive))
            return frame

        monkeypatch.setattr(ParquetRows, "_as_frame", as_frame)


@pytest.mark.parametrize("store", [None, "fits.db", "fits.parquet"])
def test_few_windows_are_in_memory_at_a_time(store, tmp_path, engine, monkeypatch):
    rows = 700
    decays(rows).to_parquet(tmp_path / "data.parquet", row_group_size=300)
    held = Held(monkeypatch)
    more = {} if store is None else {"store": tmp_path / store}
    fits = parfit.fit(tmp_path / "data.parquet", residuals, START, **engine, **more)
    assert len(fits) == rows
    assert held.made >= rows / WINDOW
    assert held.most <= 8
    gc.collect()
    assert not [one for one in held.alive if one() is not None]  # while there is a Fits
    assert len(fits) == rows


@pytest.mark.parametrize(
    "cells",
    [
        [[1.0] * 500] * 600,
        [[1] * (10 + i) for i in range(600)],
        ["the same words " * 50] * 600,
        [b"the same bytes" * 50] * 600,
        [{"u": 1.0, "v": [2.0, 3.0], "w": "text"}] * 600,
        [[{"u": 1.0}] * 20] * 600,
        [None] * 300 + [[1.0] * 40] * 300,
    ],
    ids=["lists", "longer and longer", "text", "bytes", "structs", "lists of structs", "lists and gaps"],
)
def test_a_window_takes_no_more_than_it_may(cells, tmp_path, monkeypatch):
    """What repeats takes next to nothing in the file."""
    limit = 1 << 16
    monkeypatch.setattr(reading, "WINDOW_ROWS", 10_000)
    monkeypatch.setattr(reading, "WINDOW_BYTES", limit)
    path = tmp_path / "data.parquet"
    pd.DataFrame({"a": cells, "b": 1.0}).to_parquet(path, row_group_size=150)
    rows = ParquetRows(path)
    assert rows.window < len(rows)
    frames = [frame for _, frame in rows.frames(0, len(rows))]
    sizes = [sum(map(taken, frame["a"])) for frame in frames]
    assert max(sizes) < 1.2 * limit
    assert max(sizes) > limit / 8
    wanted = read_data(pd.read_parquet(path))
    np.testing.assert_array_equal(rows.fingerprints(), wanted.fingerprints())


def taken(cell):
    if isinstance(cell, dict):
        return sys.getsizeof(cell) + sum(map(taken, cell.values()))
    if isinstance(cell, np.ndarray):
        return 112 + cell.nbytes + (sum(map(taken, cell)) if cell.dtype == object else 0)
    return len(cell) if isinstance(cell, (str, bytes)) else sys.getsizeof(cell)


def test_numbers_come_in_windows_as_long_as_they_may_be(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "WINDOW_ROWS", 10_000)
    monkeypatch.setattr(reading, "WINDOW_BYTES", 100 * 12 * 8)
    decays(1000).reset_index(drop=True).to_parquet(tmp_path / "data.parquet", row_group_size=70)
    assert ParquetRows(tmp_path / "data.parquet").window == 100


def test_a_file_that_is_damaged_further_on(tmp_path):
    path = tmp_path / "data.parquet"
    decays().to_parquet(path, row_group_size=9, compression="none")
    content = bytearray(path.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 200] = b"\xff" * 200
    path.write_bytes(content)
    with pytest.raises(InvalidInputError, match=r"data.parquet cannot be read as a Parquet file"):
        ParquetRows(path).block(np.arange(40))


def test_reading_that_was_interrupted_begins_anew(file, monkeypatch):
    rows = ParquetRows(file)
    batches = rows.batches

    def interrupted(*args):
        for k, batch in enumerate(batches(*args)):
            if k == 1:
                raise KeyboardInterrupt
            yield batch

    monkeypatch.setattr(rows, "batches", interrupted)
    rows.one(0)
    with pytest.raises(KeyboardInterrupt):
        rows.one(20)
    monkeypatch.undo()
    monkeypatch.setattr(reading, "WINDOW_ROWS", WINDOW)
    assert_frame_equal(rows.block(np.arange(40)).frame, decays(), check_exact=True)


def test_a_file_that_changes_after_it_was_fitted(file):
    fits = parfit.fit(file, residuals, START, executor="serial", engine="rows")
    decays(12).to_parquet(file)
    with pytest.raises(InvalidInputError, match="has changed since this fit was begun"):
        fits.refit("all")


def cut_short(path):
    os.truncate(path, path.stat().st_size // 3)


def written_anew_in_place(path):
    """Of the same layout, so that what is read on is sound, and of other data."""
    size = path.stat().st_size
    (decays() + 1).to_parquet(path, row_group_size=9, compression="none")
    assert path.stat().st_size == size


@pytest.mark.parametrize("change", [cut_short, written_anew_in_place, Path.unlink])
@pytest.mark.parametrize("store", [None, "fits.parquet"])
def test_a_file_that_changes_while_it_is_fitted(tmp_path, change, store):
    path, fitted = tmp_path / "data.parquet", []
    decays().to_parquet(path, row_group_size=9, compression="none")
    os.utime(path, (1e9, 1e9))

    def objective(p, row):
        if not fitted:
            change(path)
        fitted.append(row.name)
        return residuals(p, row)

    more = {} if store is None else {"store": tmp_path / store}
    with pytest.raises(InvalidInputError, match=r"data.parquet has changed since this fit was begun"):
        parfit.fit(path, objective, START, executor="serial", engine="rows", **more)
    assert set(fitted) <= set(decays().index[:WINDOW])


@pytest.mark.parametrize("changed", [False, True])
def test_a_file_that_ends_too_soon(file, monkeypatch, changed):
    rows = ParquetRows(file)
    monkeypatch.setattr(rows, "batches", lambda *_: iter(()))
    if changed:
        os.utime(file, (1e9, 1e9))
    text = "has changed since this fit was begun" if changed else "it has fewer rows than it says"
    with pytest.raises(InvalidInputError, match=rf"data.parquet .*{text}"):
        rows.one(5)


def test_labels_of_a_file_that_changes_are_not_those_of_both(file):
    rows = ParquetRows(file)
    decays(40).set_axis([f"n{i}" for i in range(40)]).to_parquet(file)
    os.utime(file, (1e9, 1e9))
    with pytest.raises(InvalidInputError, match="has changed since this fit was begun"):
        _ = rows.labels


# ---- what is refused


def test_what_cannot_be_read(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.parquet").write_text("a,b\n1,2\n" * 10)
    (tmp_path / "data.csv").write_text("a,b\n1,2\n")
    by_key = tmp_path / "by_key"
    decays(4).assign(year=[1, 1, 2, 2]).to_parquet(by_key, partition_cols=["year"])
    decays(4).to_parquet(tmp_path / "fine.parquet")
    filtered = ds.dataset(tmp_path / "fine.parquet").filter(ds.field("y0") > 1.5)
    for data, kind, text in (
        (tmp_path / "nowhere.parquet", InvalidInputError, "there is no file or folder .*nowhere.parquet"),
        (tmp_path / "empty", InvalidInputError, "the folder .*empty has no Parquet files"),
        (tmp_path / "text.parquet", InvalidInputError, "text.parquet cannot be read as a Parquet file"),
        (tmp_path / "data.csv", InvalidTypeError, "read it first, for example with pandas.read_csv"),
        ("nowhere.csv", InvalidTypeError, "read it first"),
        (by_key, InvalidInputError, r"partitioned, with a column in the names of its folders \(year=1\)"),
        (filtered, InvalidTypeError, "filtered dataset"),
        (pq.ParquetFile(tmp_path / "fine.parquet"), InvalidTypeError, r"pyarrow.*ParquetFile is not understood"),
        (ds.dataset(tmp_path / "data.csv", format="csv"), InvalidTypeError, "of other files than Parquet: a path of"),
    ):
        with pytest.raises(kind, match=text):
            parfit.fit(data, residuals, START)


def test_a_file_is_known_by_what_is_in_it(tmp_path):
    path = tmp_path / "data"
    decays(9).to_parquet(path)
    assert parfit.fit(os.fspath(path), residuals, START, executor="serial").success.all()


def test_without_pyarrow_the_error_says_what_to_install(file, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingPackageError, match=r"pip install 'parfit\[parquet\]'"):
        parfit.fit(file, residuals, START)
    with pytest.raises(MissingPackageError, match=r"pip install 'parfit\[parquet\]'"):
        parfit.fit(decays(3), residuals, START, store=Path(file).with_name("fits.parquet"))
