"""What is given as Parquet: all of its files, rows and columns are fitted, or it is refused and said why."""

from __future__ import annotations

import io
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pandas.testing import assert_frame_equal

import parfit
from parfit import InvalidInputError, InvalidTypeError
from parfit.parquet import ParquetRows
from parfit.parquet import rows as reading

pa = pytest.importorskip("pyarrow")
import pyarrow.dataset as ds  # noqa: E402
import pyarrow.parquet as pq  # noqa: E402


@pytest.fixture(autouse=True)
def small_windows(monkeypatch):
    monkeypatch.setattr(reading, "WINDOW_ROWS", 3)


def frame(n=8):
    return pd.DataFrame({"y": np.arange(float(n)), "z": 10.0, "g": np.arange(n) % 2})


def square(p, row):
    return (p["a"] - row["y"]) ** 2


def fit(data):
    return parfit.fit(data, square, {"a": 0.0}, engine="rows", executor="serial")


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "data.parquet"
    frame().to_parquet(path, row_group_size=2)
    return path


def some_row_groups(path):
    whole = ds.dataset(path)
    (fragment,) = whole.get_fragments()
    chosen = fragment.subset(row_group_ids=[1, 2])
    return ds.FileSystemDataset([chosen], whole.schema, whole.format, fragment.filesystem)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (lambda path: pq.ParquetDataset(path, filters=[("y", ">", 2)]), "is a filtered dataset"),
        (lambda path: ds.dataset(path).filter(ds.field("y") > 2), "is a filtered dataset"),
        (some_row_groups, "of some row groups"),
        (lambda path: ds.dataset([ds.dataset(path), ds.dataset(path)]), "UnionDataset, which is no dataset of files"),
        (lambda path: ds.dataset(pq.read_table(path)), "InMemoryDataset, which is no dataset of files"),
        (lambda path: open(path, "rb"), "is an open Parquet file: give its path"),
        (lambda path: io.BytesIO(path.read_bytes()), "is an open Parquet file: give its path"),
        (lambda path: [path, path], r"is a list of paths .* pyarrow.dataset.dataset\(\[…\]\)"),
        (lambda path: (str(path),), "is a list of paths"),
    ],
)
def test_what_is_less_or_more_than_its_files_is_refused(file, given, said):
    data = given(file)
    with pytest.raises(InvalidTypeError, match=said):
        fit(data)
    if hasattr(data, "close"):
        assert data.tell() == 0
        data.close()


@pytest.mark.parametrize("given", [pq.ParquetDataset, lambda path: ds.dataset(path, partitioning="hive")])
def test_a_column_in_the_names_of_folders_is_not_lost(tmp_path, given):
    frame().to_parquet(tmp_path / "by", partition_cols=["g"])
    with pytest.raises(InvalidTypeError, match=r"is a partitioned dataset, .* without the column .*g=0"):
        fit(given(tmp_path / "by"))
    assert len(fit(tmp_path / "by" / "g=1")) == 4
    deep = tmp_path / "deep" / "g=1" / "more"
    deep.mkdir(parents=True)
    frame().to_parquet(deep / "a.parquet")
    with pytest.raises(InvalidInputError, match=r"partitioned, with a column in the names of its folders \(g=1\)"):
        fit(tmp_path / "deep")


def test_the_columns_of_a_dataset_are_those_of_its_schema(file):
    wanted = ds.dataset(file).schema
    chosen = pa.schema([wanted.field("y")])
    with pytest.raises(InvalidInputError, match=r"the schema of the dataset has no 'z', 'g'"):
        fit(ds.dataset(file, schema=chosen))
    turned = pa.schema([wanted.field(name) for name in ("g", "y", "z")])
    found = ParquetRows(ds.dataset(file, schema=turned))
    assert_frame_equal(found.block(np.arange(8)).frame, frame()[["g", "y", "z"]], check_exact=True)


def test_a_dataset_without_a_file(tmp_path):
    with pytest.raises(InvalidInputError, match="without a file"):
        fit(ds.dataset(tmp_path, format="parquet"))


def test_a_file_of_a_dataset_that_cannot_be_read(file):
    frame(3).to_parquet(file.with_name("more.parquet"))
    data = ds.dataset(file.parent)
    file.with_name("more.parquet").write_text("a,b")
    with pytest.raises(InvalidInputError, match=r"more.parquet cannot be read as a Parquet file"):
        fit(data)


def test_paths_may_be_datasets_themselves(file):
    def objective(p, path):
        return (p["a"] - pd.read_parquet(path)["y"]).to_numpy()

    fits = parfit.fit(pd.Series([file, file]), objective, {"a": 0.0}, engine="rows", executor="serial")
    np.testing.assert_allclose(fits.params["a"], 3.5, rtol=1e-6)


def test_files_are_known_by_what_is_in_them_also_in_a_folder(tmp_path):
    names = ("a.parquet.gz", "b.parquet", "part-0000", "part-0001", "sub/x", "sub.pq", "sub.PARQUET")
    (tmp_path / "sub").mkdir()
    for name in names:
        frame(2).to_parquet(tmp_path / name)
    (tmp_path / "_old").write_bytes((tmp_path / "part-0000").read_bytes())
    (tmp_path / ".hidden").write_bytes((tmp_path / "part-0000").read_bytes())
    wanted = pd.read_parquet(tmp_path)
    (tmp_path / "readme.txt").write_text("PAR")
    found = ParquetRows(tmp_path)
    assert len(found) == len(wanted) == 2 * len(names)


def test_files_come_in_the_order_that_pandas_has_them(tmp_path):
    for k, name in enumerate(["x/a", "b", "x/z/c", "x", "x-y/a", "X"]):
        path = tmp_path / f"{name}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        frame(3).assign(k=k).to_parquet(path)
    assert_frame_equal(ParquetRows(tmp_path).block(np.arange(18)).frame, pd.read_parquet(tmp_path))


def two(folder, a, b):
    """Two files in a folder."""
    folder.mkdir()
    for name, table in (("a", a), ("b", b)):
        pq.write_table(table, folder / f"{name}.parquet")
    return folder


def one(array, **more):
    return pa.table({"y": [1.0, 2.0], "x": array, **more})


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (one([1, 2], w=["u", "v"]), one([3, 4], w=["u", "v"]).select(["w", "x", "y"])),
        (one(pa.array(["u", "v"])), one(pa.array(["u", None], pa.large_string()))),
        (one(pa.array(["u", "v"], pa.large_string())), one(pa.array(["u", "w"]))),
        (one(pa.array([b"u", b"v"])), one(pa.array([b"u", None], pa.large_binary()))),
        (
            one([1, 2]),
            pa.table(one([1, 2]).columns, pa.schema([("y", pa.float64()), pa.field("x", pa.int64(), False)])),
        ),
    ],
    ids=["order", "longer text", "shorter text", "bytes", "gaps allowed"],
)
@pytest.mark.parametrize("given", [Path, ds.dataset])
def test_files_that_differ_in_what_is_nothing_to_pandas(tmp_path, a, b, given):
    folder = two(tmp_path / "data", a, b)
    wanted = pd.read_parquet(folder)
    found = ParquetRows(given(folder))
    assert_frame_equal(found.block(np.arange(4)).frame, wanted, check_exact=True)


@pytest.mark.parametrize(
    ("a", "b", "said"),
    [
        (one([1, 2]), pa.table({"y": [1.0]}), r"b.parquet has no 'x'$"),
        (pa.table({"y": [1.0]}), one([1, 2]), r"a.parquet has no 'x'$"),
        (one([1, 2]), one(pa.array([1, 2], pa.int32())), r"'x' is int32 in .*b.parquet, and int64 in .*a.parquet"),
        (one(["u", "v"]), one(pa.nulls(2)), r"'x' is null in .*b.parquet, and string in .*a.parquet"),
        (
            pa.Table.from_pandas(frame(2)),
            pa.Table.from_pandas(frame(2).set_axis(["p", "q"])),
            r"a.parquet has no '__index_level_0__' \(where pandas keeps the labels\)",
        ),
    ],
)
def test_what_differs_is_named(tmp_path, a, b, said):
    folder = two(tmp_path / "data", a, b)
    with pytest.raises(InvalidInputError, match=r"^data: columns differ: .*" + said):
        fit(folder)


@pytest.mark.parametrize(
    "address", ["s3://bucket/one.parquet", "file:///data/one.parquet", "https://x.org/one.parquet"]
)
def test_an_address_is_no_path(address):
    scheme = address.partition(":")[0]
    with pytest.raises(InvalidInputError, match=re.escape(f"{address} is an address ({scheme}), and no path")):
        fit(address)
    with pytest.raises(InvalidInputError, match=rf"is an address \({scheme}\)"):
        fit(Path(address))


def test_the_folder_of_the_user(file, monkeypatch):
    monkeypatch.setenv("HOME", str(file.parent))
    monkeypatch.setenv("USERPROFILE", str(file.parent))
    assert len(fit("~/data.parquet")) == 8
    assert len(fit("~")) == 8


def test_fits_inside_the_folder_of_the_data_are_no_data(tmp_path):
    folder = tmp_path / "d"
    for name, rows in (("a.parquet", slice(0, 5)), ("inner/b.parquet", slice(5, 8))):
        (folder / name).parent.mkdir(exist_ok=True)
        frame().iloc[rows].to_parquet(folder / name)
    for store in (folder / "fits.parquet", folder / "inner" / "fits.pq"):
        for _ in range(2):
            fits = parfit.fit(folder, square, {"a": 0.0}, engine="rows", executor="serial", store=store)
            assert len(fits) == 8
    (again,) = parfit.open_store(folder / "fits.parquet").frames()
    np.testing.assert_allclose(again["a"], range(8), atol=1e-4)


def test_fits_may_be_data_themselves(tmp_path):
    folder = tmp_path / "d"
    store = folder / "fits.parquet"
    folder.mkdir()
    parfit.fit(frame(), lambda p, row: (p["y"] - row["y"]) ** 2, {"y": 0.0}, executor="serial", store=store)
    assert len(fit(store)) == 8
    with pytest.raises(InvalidInputError, match=r"d has no Parquet files beside fits of parfit's \(.*fits.parquet\)"):
        fit(folder)
