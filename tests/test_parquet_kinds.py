"""Data in Parquet files with columns of all kinds: engine, reason and fits are those of the same data as a frame."""

from __future__ import annotations

from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
from pandas.testing import assert_frame_equal

import parfit
from parfit import ParfitError
from parfit.parquet import rows as reading

pytest.importorskip("jax")
pytest.importorskip("pyarrow")
import pyarrow.dataset as ds
import pyarrow.parquet as pq

pytestmark = pytest.mark.slow

N, WINDOW = 23, 7
T = np.linspace(0, 4, 12)
Y = [f"y{i}" for i in range(len(T))]
START = {"height": 1.0, "rate": 1.0}
GAP = [None if i in (3, 18) else i for i in range(N)]
SECRET = "hidden"

KINDS = {
    "text": [SECRET] * N,
    "text like numbers": ["12"] * N,
    "text like numbers at first": ["12"] * WINDOW + [SECRET] * (N - WINDOW),
    "text with gaps": [SECRET, None] * (N // 2) + [None],
    "text at the end": [None] * (N - 1) + [SECRET],
    "nothing but gaps of text": pd.array([None] * N, dtype="str"),
    "nothing at all": [None] * N,
    "categories": pd.Categorical([SECRET, "b"] * (N // 2) + [None]),
    "categories at the end": pd.Categorical([None] * (N - 1) + [SECRET]),
    "numbers as categories": pd.Categorical([1, 2] * (N // 2) + [1]),
    "dates": pd.date_range("2001", periods=N),
    "durations": pd.timedelta_range("1D", periods=N),
    "truth": [i % 2 == 0 for i in range(N)],
    "truth with gaps": [None if i == 18 else True for i in range(N)],
    "whole numbers": range(N),
    "whole numbers with gaps": pd.array(GAP, dtype="Int64"),
    "real numbers with gaps": GAP,
    "decimals": [Decimal("1.5")] * N,
    "bytes": [SECRET.encode()] * N,
    "objects": [[SECRET]] * N,
    "numbers as objects": pd.Series([1, 2.5] * (N // 2) + [3], dtype=object),
}


def written(kind, path):
    rng = np.random.default_rng(3)
    clean = rng.uniform(1, 3, (N, 1)) * np.exp(-rng.uniform(0.3, 1, (N, 1)) * T)
    frame = pd.DataFrame(clean + 0.01 * rng.normal(size=clean.shape), columns=Y)
    frame.insert(5, "extra", KINDS[kind])
    frame.index = pd.Index([f"r{i}" for i in range(N)], name="site")
    frame.to_parquet(path, row_group_size=9)
    return pd.read_parquet(path)


@pytest.fixture(autouse=True)
def small_windows(monkeypatch):
    monkeypatch.setattr(reading, "WINDOW_ROWS", WINDOW)


def without(p, row):
    return p["height"] * np.exp(-p["rate"] * T) - row[Y].to_numpy(dtype=float)


def by_names(p, row):
    return p["height"] * np.exp(-p["rate"] * T) - np.array([row[name] for name in Y])


def compared(p, row):
    return without(p, row) + 0.1 * (row["extra"] == SECRET)


def all_of_it(p, row):
    return p["height"] * np.exp(-p["rate"] * np.linspace(0, 4, len(T) + 1)) - row.to_numpy()


def outcome(data, objective, **call):
    """What comes of a fit: engine, reason and fits, or what is raised."""
    try:
        fits = parfit.fit(data, objective, START, workers=1, **call)
    except ParfitError as exc:
        return type(exc), str(exc), None
    frames = list(fits.frames()) if hasattr(fits, "frames") else [fits.to_frame()]
    return fits.engine, fits.engine_reason, pd.concat(frames).drop(columns="seconds")


def assert_same(found, wanted):
    assert found[:2] == wanted[:2]
    if wanted[2] is not None:
        assert_frame_equal(found[2], wanted[2], check_exact=True)


@pytest.mark.parametrize("objective", [without, by_names])
@pytest.mark.parametrize("kind", KINDS)
def test_a_column_that_is_not_used_does_not_matter(kind, objective, tmp_path):
    frame = written(kind, tmp_path / "data.parquet")
    for engine in ("auto", "batch"):
        wanted = outcome(frame, objective, engine=engine)
        assert wanted[0] == "batch"
        assert_same(outcome(tmp_path / "data.parquet", objective, engine=engine), wanted)


@pytest.mark.filterwarnings("ignore:every dataset raised")
@pytest.mark.parametrize("objective", [compared, all_of_it])
@pytest.mark.parametrize("kind", KINDS)
def test_a_column_that_is_used_means_what_it_means_in_a_frame(kind, objective, tmp_path):
    frame = written(kind, tmp_path / "data.parquet")
    for engine in ("auto", "batch"):
        found = outcome(tmp_path / "data.parquet", objective, engine=engine)
        assert_same(found, outcome(frame, objective, engine=engine))
    if kind in ("text", "categories"):
        assert outcome(frame, objective)[0] == "rows"


@pytest.mark.parametrize("store", [None, "fits.db", "fits.parquet"])
@pytest.mark.parametrize("objective", [without, compared])
@pytest.mark.parametrize("kind", ["text like numbers at first", "text at the end", "categories at the end"])
def test_wherever_the_files_are_and_the_fits_go(kind, objective, store, tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    frame = written(kind, tmp_path / "data.parquet")
    for number in range(3):
        frame.iloc[8 * number : 8 * number + 8].to_parquet(folder / f"{number}.parquet")
    wanted = outcome(frame, objective)
    for number, data in enumerate((tmp_path / "data.parquet", folder, ds.dataset(folder), pq.ParquetDataset(folder))):
        more = {} if store is None else {"store": tmp_path / f"{number}-{store}"}
        assert_same(outcome(data, objective, **more), wanted)
        if store is not None:
            assert_frame_equal(outcome(data, objective, **more)[2], wanted[2], check_exact=True)


def test_derivatives_are_by_the_columns_that_are_numbers(tmp_path):
    frame = written("categories at the end", tmp_path / "data.parquet")
    found, wanted = (parfit.fit(data, without, START).sensitivity() for data in (tmp_path / "data.parquet", frame))
    assert list(wanted.columns.get_level_values(1).unique()) == Y
    assert_frame_equal(found, wanted, rtol=1e-12)


def test_groups_one_of_which_has_no_text_at_all():
    frame = pd.DataFrame({"g": np.repeat(["a", "b", "c"], len(T)), "t": np.tile(T, 3), "said": SECRET})
    frame["y"] = 2 * np.exp(-0.5 * frame["t"])
    frame.loc[frame["g"] == "b", "said"] = None
    for text in (frame, frame.astype({"said": "category"})):
        fits = parfit.fit(
            text.groupby("g"), lambda p, d: p["height"] * np.exp(-p["rate"] * d["t"]) - d["y"], START, workers=1
        )
        assert fits.engine == "batch"
