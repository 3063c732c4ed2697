"""Whatever the user has, as labelled datasets: labels come back unchanged, and the user's data are never written to."""

from __future__ import annotations

import copy
import pickle
import threading
from collections import namedtuple
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import parfit
from parfit.core.data import Datasets, read_data
from parfit.core.errors import InvalidInputError, InvalidTypeError

FRAME = pd.DataFrame(np.arange(12.0).reshape(4, 3), index=list("abcd"), columns=["x", "y", "z"])


def all_of(data: Any) -> list[Any]:
    datasets = read_data(data)
    return [datasets.one(i) for i in range(len(datasets))]


def through_blocks(datasets: Datasets, positions: list[int], cut: int) -> list[Any]:
    """The datasets at `positions` as they reach a worker: cut, pickled, visited."""
    block = datasets.block(np.array(positions, dtype=np.intp))
    found: list[Any] = []
    for part in (block.part(0, cut), block.part(cut, len(positions))):
        pickle.loads(pickle.dumps(part)).visit(lambda _, dataset: found.append(dataset))
    return found


# ---- frames


def test_rows_are_what_apply_hands_out() -> None:
    mixed = FRAME.assign(name=["p", "q", "r", "s"], n=[1, 2, 3, 4])
    nullable = pd.DataFrame({"u": pd.array([1, None], dtype="Int64"), "v": pd.array([3, 4], dtype="Int64")})
    for frame in (FRAME, FRAME.astype(int), mixed, nullable, FRAME[["x"]], FRAME.astype(np.float32), FRAME > 3):
        rows: list[pd.Series] = []
        frame.apply(lambda row, rows=rows: rows.append(row.copy()), axis=1)
        for got, wanted in zip(all_of(frame), rows, strict=True):
            pd.testing.assert_series_equal(got, wanted)


def test_columns_of_two_levels() -> None:
    columns = pd.MultiIndex.from_product([["2000", "2010"], ["0-9", "10-19"]])
    frame = pd.DataFrame(np.arange(8.0).reshape(2, 4), index=["Autauga", "Baldwin"], columns=columns)
    row = all_of(frame)[1]
    assert row["2000"].tolist() == [4, 5]
    assert row["2010", "10-19"] == 7
    fits = parfit.fit(
        frame, lambda p, row: p["ratio"] * row["2000"] - row["2010"].to_numpy(), {"ratio": 1.0}, executor="serial"
    )
    assert fits.params.loc["Baldwin", "ratio"] == pytest.approx((4 * 6 + 5 * 7) / (16 + 25))


@pytest.mark.parametrize(
    "index",
    [
        pd.Index(["a", "a", "b", "a"]),
        pd.MultiIndex.from_tuples([("s", 1), ("t", 2), ("s", 1), ("u", 3)], names=["state", "county"]),
        pd.date_range("2020-01-01", periods=4, name="day"),
        pd.Index([3.5, np.nan, -1.0, np.inf]),
        pd.Index([None, "a", 2, ("t", 1)], dtype=object),
        pd.CategoricalIndex(["u", "v", "u", "w"], name="kind"),
        pd.RangeIndex(10, 2, -2),
        pd.IntervalIndex.from_breaks([0, 1, 2, 3, 4]),
    ],
    ids=lambda index: type(index).__name__ + str(index.nunique()),
)
def test_labels_come_back_unchanged(index: pd.Index) -> None:
    frame = FRAME.set_axis(index)
    fits = parfit.fit(frame, lambda p, row: p - row.to_numpy(), [0.0, 0.0, 0.0], executor="serial")
    for table in (fits.params, fits.summary, fits.success, fits.stderr):
        pd.testing.assert_index_equal(table.index, index, exact=True)
    assert np.array_equal(fits.params, frame.to_numpy())
    assert len(fits) == len(frame)


def test_labels_are_the_fits_own() -> None:
    frame = FRAME.copy()
    fits = parfit.fit(frame, lambda p, row: p - row.to_numpy(), [0.0, 0.0, 0.0], executor="serial")
    frame.index.name = "changed afterwards"
    assert fits.params.index.name is None


@pytest.mark.parametrize("positions", [[0, 1, 2, 3], [1, 2], [3, 0], [0, 2, 1, 3], [0, 0, 2], [2], []])
def test_any_positions_in_any_order(positions: list[int]) -> None:
    array = FRAME.to_numpy()
    for data in (FRAME, FRAME.assign(name="n"), array, list(array), {"u": array, "v": array[:, 0]}):
        datasets = read_data(data)
        for cut in {0, len(positions) // 2, len(positions)}:
            got = through_blocks(datasets, positions, cut)
            first = [float(d["u"][0] if isinstance(d, dict) else np.asarray(d)[0]) for d in got]
            assert first == [3.0 * i for i in positions]


# ---- groups


def ragged() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {"g": np.repeat(["q", "p", "r"], [3, 5, 2]), "h": [1] * 4 + [2] * 6, "t": np.arange(10.0), "v": rng.random(10)}
    )


@pytest.mark.parametrize(
    "by",
    [
        {"by": "g"},
        {"by": ["g"]},
        {"by": ["g", "h"]},
        {"by": "g", "sort": False},
        {"by": "g", "as_index": False},
        {"by": ["g", "h"], "as_index": False},
        {"by": "h"},
    ],
    ids=str,
)
def test_groups_of_unequal_length(by: dict[str, Any]) -> None:
    frame = ragged()
    groups = frame.groupby(**by)
    datasets = read_data(groups)
    wanted = groups["v"].mean() if by.get("as_index", True) else frame.groupby(**{**by, "as_index": True})["v"].mean()
    fits = parfit.fit(groups, lambda p, group: p[0] - group["v"].to_numpy(), [0.0], executor="serial")
    pd.testing.assert_index_equal(fits.params.index, wanted.index)
    np.testing.assert_allclose(fits.params["x0"], wanted)
    assert fits.summary["n_residuals"].tolist() == [len(group) for _, group in groups]
    pd.testing.assert_frame_equal(datasets.one(1), [group for _, group in groups][1])


def test_groups_of_a_series_and_of_time() -> None:
    frame = ragged().set_index("t")
    fits = parfit.fit(frame.groupby("g")["v"], lambda p, s: p[0] - s.to_numpy(), [0.0], executor="serial")
    np.testing.assert_allclose(fits.params["x0"], frame.groupby("g")["v"].mean())
    frame.index = pd.date_range("2020-01-01", periods=10)
    days = frame.groupby(pd.Grouper(freq="4D"))
    fits = parfit.fit(days, lambda p, d: p[0] - d["v"].to_numpy(), [0.0], executor="serial")
    assert fits.params.index.tolist() == days["v"].mean().index.tolist()


def test_an_empty_group_is_a_row_too() -> None:
    frame = ragged().assign(g=lambda d: pd.Categorical(d["g"], categories=["p", "none", "q", "r"]))
    fits = parfit.fit(
        frame.groupby("g", observed=False), lambda p, d: p[0] - d["v"].to_numpy(), [0.0], executor="serial"
    )
    assert fits.labels.tolist() == ["p", "none", "q", "r"]
    assert fits.status.tolist() == ["converged", "invalid", "converged", "converged"]
    assert "no residuals" in fits["none"].message


def name_and_size(p: Any, group: Any) -> Any:
    assert isinstance(group.name, str | int | tuple)
    value = {"a": 1.0, "b": 2.0, 1: 3.0, 2: 4.0, ("a", 1): 5.0, ("b", 1): 6.0, ("b", 2): 7.0}[group.name]
    return [p[0] - value, p[0] - value]


@pytest.mark.slow
@pytest.mark.parametrize("executor", ["serial", "threads", "processes", "producer_consumer", "joblib"])
@pytest.mark.parametrize("column", [None, "v"], ids=["frames", "series"])
def test_a_group_has_its_key_as_its_name(executor: str, column: str | None) -> None:
    frame = pd.DataFrame({"g": ["b", "a", "b"], "h": [1, 1, 2], "v": np.arange(3.0)})
    for by, expected in (("g", [1, 2]), (["h"], [3, 4]), (["g", "h"], [5, 6, 7])):
        groups: Any = frame.groupby(by) if column is None else frame.groupby(by)[column]
        fits = parfit.fit(groups, name_and_size, [0.0], executor=executor, workers=2)
        assert fits.params["x0"].round(6).tolist() == expected
        assert fits.refit("all").params["x0"].round(6).tolist() == expected
        assert fits.debug(position=0).x is not None


def test_a_group_loaded_in_a_worker_has_its_name() -> None:
    recipe = parfit.executors.producer_consumer.ProducerConsumerExecutor(2, lambda group: group.name)
    groups = pd.DataFrame({"g": [3.0, 1.0, 2.0]}).groupby("g")
    fits = parfit.fit(groups, lambda p, name: [p[0] - name] * 2, [0.0], executor=recipe)
    assert fits.params["x0"].round(6).tolist() == [1, 2, 3]


@pytest.mark.parametrize("executor", ["processes", "producer_consumer"])
def test_a_group_that_cannot_be_sent_takes_no_name_from_the_others(executor: str) -> None:
    groups = pd.DataFrame({"g": ["a", "b", "b"], "o": [0, threading.Lock(), 0]}).groupby("g")
    fits = parfit.fit(groups, name_and_size, [0.0], executor=executor, workers=1)
    assert fits.status.tolist() == ["converged", "error"]


def test_the_user_s_own_groups_get_no_name() -> None:
    groups = {"a": FRAME.iloc[:2], "b": FRAME.iloc[2:]}
    read_data(FRAME.groupby("x")).one(0)
    assert not any(hasattr(group, "name") for group in (*all_of(groups), *groups.values(), FRAME))


@pytest.mark.parametrize("column", [None, "v"], ids=["frames", "series"])
def test_bins_of_time(column: str | None) -> None:
    at = pd.DatetimeIndex(["2020-01-01", "2020-01-02", "2020-01-07"], name="day")
    frame: Any = pd.DataFrame({"v": [1.0, 2.0, 4.0]}, index=at)
    data = (frame if column is None else frame[column]).resample("2D")
    datasets = read_data(data)
    assert datasets.labels.tolist() == pd.date_range("2020-01-01", periods=4, freq="2D").tolist()
    assert datasets.labels.name == "day"
    assert [len(group) for group in all_of(data)] == [2, 0, 0, 1]
    assert datasets.one(3).name == pd.Timestamp("2020-01-07")
    for _ in range(2):
        fits = parfit.fit(data, lambda p, d: p - np.ravel(d), [0.0], executor="producer_consumer", workers=2)
        assert fits.status.tolist() == ["converged", "invalid", "invalid", "converged"]


def test_bins_of_groups_are_refused() -> None:
    frame = pd.DataFrame({"g": [1, 1, 2]}, index=pd.date_range("2020", periods=3))
    with pytest.raises(InvalidTypeError, match=r"pd\.Grouper"):
        read_data(frame.groupby("g").resample("2D"))


# ---- mappings, sequences, arrays


def test_mapping() -> None:
    data = {("a", 1): np.arange(3.0), ("b", 2): np.arange(5.0)}
    datasets = read_data(data)
    assert isinstance(datasets.labels, pd.MultiIndex)
    assert [len(d) for d in all_of(data)] == [3, 5]
    assert read_data({"u": 1.0, "v": 2.0}).labels.tolist() == ["u", "v"]
    assert read_data({2: "x", "two": "y"}).labels.tolist() == [2, "two"]
    frames = {"a": FRAME.iloc[:2], "b": FRAME.iloc[2:]}
    assert [len(d) for d in all_of(frames)] == [2, 2]
    assert list(read_data({"a": np.zeros((4, 2)), "b": np.zeros((9, 2))}).labels) == ["a", "b"]


@pytest.mark.parametrize(
    "data",
    [[1.0, 2.0, 3.0], (1.0, 2.0, 3.0), range(1, 4), (float(i) for i in (1, 2, 3)), {1.0: 0, 2.0: 0, 3.0: 0}.keys()],
    ids=lambda data: type(data).__name__,
)
def test_sequences_and_iterables(data: Any) -> None:
    datasets = read_data(data)
    assert datasets.labels.equals(pd.RangeIndex(3))
    assert [datasets.one(i) for i in range(3)] == [1, 2, 3]


def test_series_of_anything() -> None:
    data = pd.Series([[1, 2], [3]], index=["u", "v"])
    assert read_data(data).labels.tolist() == ["u", "v"]
    assert all_of(data) == [[1, 2], [3]]


@pytest.mark.parametrize("shape", [(4,), (4, 3), (4, 3, 2)])
def test_arrays(shape: tuple[int, ...]) -> None:
    data = np.arange(float(np.prod(shape))).reshape(shape)
    got = all_of(data)
    assert len(got) == 4
    assert np.array_equal(np.stack(got), data)
    backwards = all_of(np.asfortranarray(data)[::-1])
    assert np.array_equal(np.stack(backwards), data[::-1])


def test_trees_of_arrays() -> None:
    Pair = namedtuple("Pair", ["x", "y"])
    x, y = np.arange(12.0).reshape(4, 3), np.arange(4.0)
    for data in ({"x": x, "y": y}, {"outer": {"x": x}, "y": y}, (x, y), Pair(x, y), {"both": [x, y]}):
        datasets = read_data(data)
        assert datasets.labels.equals(pd.RangeIndex(4))
        assert type(datasets.one(2)) is type(data)
    assert all_of({"x": x, "y": y})[2]["x"].tolist() == [6, 7, 8]
    assert all_of(Pair(x, y))[2].y == 2.0
    assert len(all_of({"x": x[:1], "y": y[:1]})) == 1


def test_a_masked_array_keeps_its_mask() -> None:
    data = np.ma.masked_array(np.arange(6.0).reshape(2, 3), mask=[[0, 1, 0], [0, 0, 0]])
    first = all_of(data)[0]
    assert first.sum() == 2.0
    assert first.mask.tolist() == [False, True, False]


@pytest.mark.parametrize(
    ("data", "error", "text"),
    [
        ("data.csv", InvalidTypeError, "read it first"),
        (b"data", InvalidTypeError, "read it first"),
        (np.array(3.0), InvalidInputError, "a single number"),
        (5, InvalidTypeError, "type int is not understood"),
        (None, InvalidTypeError, "type NoneType is not understood"),
    ],
    ids=str,
)
def test_refused(data: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        read_data(data)


# ---- the user's data stay as they are


def vandal(dataset: Any) -> None:
    """Write into everything that can be written to."""
    if isinstance(dataset, pd.DataFrame):
        for i in range(dataset.shape[1]):
            vandal(dataset.iloc[:, i].array[0])
        dataset.iloc[:, 0] = dataset.iloc[::-1, 0].array
        dataset["new"] = 1
    elif isinstance(dataset, pd.Series):
        for cell in dataset.array:
            vandal(cell)
        dataset.iloc[0] = dataset.iloc[-1]
    elif isinstance(dataset, np.ndarray) and dataset.ndim:
        for cell in dataset.flat if dataset.dtype == object else ():
            vandal(cell)
        dataset[...] = dataset.flat[-1]
    elif isinstance(dataset, dict):
        for value in dataset.values():
            vandal(value)
        dataset["new"] = 1
    elif isinstance(dataset, (list, tuple)):
        for value in dataset:
            vandal(value)
        if isinstance(dataset, list):
            dataset.append(1)


def holding_arrays() -> pd.DataFrame:
    frame = pd.DataFrame({"n": [1.0, 2.0], "label": ["u", "v"]})
    frame["t"] = [np.arange(3.0), np.arange(2.0)]
    frame["more"] = [[1, [2, 3]], {"k": np.arange(3.0)}]
    return frame


@pytest.mark.parametrize(
    "data",
    [
        FRAME,
        FRAME.assign(name="n"),
        holding_arrays(),
        holding_arrays()[["t", "more"]],
        ragged(),
        FRAME.to_numpy(),
        np.array([np.arange(3.0), [1, 2]], dtype=object),
        {"x": FRAME.to_numpy(), "y": np.arange(4.0)},
        (FRAME.to_numpy(), np.arange(4.0)),
        {"a": FRAME, "b": {"deep": [np.arange(3.0)]}},
        [FRAME["x"], [1, 2, [3]], (np.arange(3.0), [1])],
        [holding_arrays()],
        pd.Series([np.arange(3.0), [1, 2]]),
    ],
    ids=lambda data: type(data).__name__,
)
@pytest.mark.parametrize("grouped", [False, True])
def test_an_objective_that_writes_into_its_dataset(data: Any, grouped: bool) -> None:
    given_ = data.groupby(data.index) if grouped and isinstance(data, pd.DataFrame) else data
    before = copy.deepcopy(data)
    memory = pickle.dumps(all_of(given_))
    for dataset in all_of(given_):
        vandal(dataset)
    assert pickle.dumps(all_of(given_)) == memory
    assert str(before) == str(data)


def test_each_row_has_memory_of_its_own() -> None:
    rows = all_of(FRAME)
    rows[0].iloc[0] = 99.0
    assert rows[1].tolist() == [3, 4, 5]
    block: list[pd.Series] = []
    read_data(FRAME).block(np.arange(4)).visit(lambda _, row: block.append(row))
    block[0].iloc[:] = 99.0
    assert block[1].tolist() == [3, 4, 5]
    assert block[0].to_numpy().flags.c_contiguous


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 7), st.integers(1, 5), st.data())
def test_blocks_of_any_size_hold_the_same(rows: int, columns: int, data: Any) -> None:
    frame = pd.DataFrame(np.random.default_rng(rows * columns).random((rows, columns)))
    positions = data.draw(st.lists(st.integers(0, rows - 1), max_size=8))
    cut = data.draw(st.integers(0, len(positions)))
    got = through_blocks(read_data(frame), positions, cut)
    assert [row.tolist() for row in got] == [frame.iloc[i].tolist() for i in positions]
    assert [row.name for row in got] == positions
