"""`apply_by_multiprocessing` gives what `DataFrame.apply` gives: values, types, index, columns, names."""

from __future__ import annotations

import datetime
import decimal
import functools

import numpy as np
import pandas as pd
import pytest

from parfit import InvalidInputError, InvalidTypeError, apply_by_multiprocessing
from tests.apply_referee import assert_same, check, copied, set_size

NUMBERS = pd.DataFrame(
    {"a": [1, 2, 3, 4, 5, 6, 7], "b": [0.5, 1.5, -2.5, 0.0, np.nan, 4.0, 9.0]}, index=list("stuvwxy")
)


def nth(row, *values):
    """One of `values` for each row, in turn."""
    return values[ord(row.name) % len(values)]


SCALARS = {
    "int": lambda row: 3,
    "large_int": lambda row: 2**63,
    "larger_int": lambda row: -(2**70),
    "bool": lambda row: bool(row["a"] > 3),
    "numpy_bool": lambda row: row["a"] > 3,
    "float": lambda row: float(row["b"]),
    "numpy_float": lambda row: row["b"],
    "float32": lambda row: np.float32(row["b"]),
    "int8": lambda row: np.int8(row["a"]),
    "complex": lambda row: complex(row["a"], 1),
    "text": lambda row: f"row {row.name}",
    "none": lambda row: None,
    "nan": lambda row: np.nan,
    "na": lambda row: pd.NA,
    "nat": lambda row: pd.NaT,
    "timestamp": lambda row: pd.Timestamp("2020-01-01") + pd.Timedelta(days=int(row["a"])),
    "timestamp_zone": lambda row: pd.Timestamp("2020-01-01", tz="Europe/Paris"),
    "datetime": lambda row: datetime.datetime(2020, 1, int(row["a"])),
    "date": lambda row: datetime.date(2020, 1, int(row["a"])),
    "timedelta": lambda row: pd.Timedelta(hours=int(row["a"])),
    "period": lambda row: pd.Period("2020-01"),
    "interval": lambda row: pd.Interval(0, 1),
    "decimal": lambda row: decimal.Decimal(int(row["a"])),
    "bytes": lambda row: b"bytes",
    "function": lambda row: len,
}

MIXTURES = {
    "int_and_float": lambda row: nth(row, 1, 2.5),
    "int_and_none": lambda row: nth(row, 1, None),
    "float_and_none": lambda row: nth(row, 1.5, None),
    "float_and_numpy": lambda row: nth(row, 1.5, np.float64(2.5)),
    "float_and_text": lambda row: nth(row, 1.5, "one"),
    "bool_and_int": lambda row: nth(row, True, 1),
    "timestamp_and_nat": lambda row: nth(row, pd.Timestamp("2020"), pd.NaT, None),
    "many": lambda row: nth(row, 1, "one", None, [1], {"k": 1}, np.float64(3), 2**70),
    "series_and_scalar": lambda row: nth(row, row, 1),
    "scalar_and_series": lambda row: nth(row, 1, row),
}

CONTAINERS = {
    "list": lambda row: [1, "two", None],
    "list_as_long_as_the_row": lambda row: [row["a"], row["b"]],
    "ragged_lists": lambda row: list(range(int(row["a"]))),
    "empty_list": lambda row: [],
    "tuple": lambda row: (row["a"], row["b"]),
    "dict": lambda row: {"p": row["a"], "q": "text"},
    "set": lambda row: {1, 2},
    "array": lambda row: np.array([row["a"], 1.0]),
    "matrix": lambda row: np.eye(2) * row["a"],
    "index": lambda row: row.index,
    "frame": lambda row: pd.DataFrame({"p": [row["a"]]}),
}

SERIES = {
    "row": lambda row: row,
    "part_of_row": lambda row: row[["b"]],
    "no_part_of_row": lambda row: row.iloc[:0],
    "row_turned": lambda row: row.iloc[::-1],
    "floats": lambda row: pd.Series([1.5, 2.5], index=["p", "q"]),
    "ints": lambda row: pd.Series([1, 2], index=["p", "q"]),
    "bools": lambda row: pd.Series([True, False], index=["p", "q"]),
    "texts": lambda row: pd.Series(["one", "two"], index=["p", "q"]),
    "types": lambda row: pd.Series([1, "two", None], index=["p", "q", "r"]),
    "nullable": lambda row: pd.Series([1, None], index=["p", "q"], dtype="Int64"),
    "dates": lambda row: pd.Series(pd.date_range("2020", periods=2), index=["p", "q"]),
    "no_index": lambda row: pd.Series([1.5, 2.5]),
    "named": lambda row: pd.Series([1.5, 2.5], index=pd.Index(["p", "q"], name="letters"), name="given"),
    "two_levels": lambda row: pd.Series([1.5, 2.5], index=pd.MultiIndex.from_tuples([("p", 1), ("q", 2)], names="uv")),
    "over_time": lambda row: pd.Series([1, 2], index=pd.date_range("2020", periods=2, freq="D")),
    "categories": lambda row: pd.Series([1.0, 2.0], index=pd.CategoricalIndex(["p", "q"])),
    "twice_one_label": lambda row: pd.Series([1.0, 2.0], index=["p", "p"]),
    "other_index": lambda row: pd.Series([1.0, 2.0], index=nth(row, ["p", "q"], ["q", "r"])),
    "other_order": lambda row: pd.Series([1.0, 2.0], index=nth(row, ["p", "q"], ["q", "p"])),
    "other_length": lambda row: pd.Series([1.0] * (ord(row.name) % 3)),
    "other_type": lambda row: pd.Series(nth(row, [1, 2], [1.5, 2.5], ["x", "y"]), index=["p", "q"]),
    "range_or_not": lambda row: pd.Series([1, 2], index=nth(row, [0, 1], None)),
}

ALL = {**SCALARS, **MIXTURES, **CONTAINERS, **SERIES}


@pytest.fixture(autouse=True)
def slices_of_three(monkeypatch):
    set_size(monkeypatch, 3)


@pytest.mark.parametrize("name", ALL)
def test_whatever_a_row_returns(name):
    check(NUMBERS, ALL[name])


@pytest.mark.parametrize("result_type", ["expand", "reduce", "broadcast"])
@pytest.mark.parametrize("name", ["int", "text", "list_as_long_as_the_row", "tuple", "dict", "row", "named", "many"])
def test_result_types(name, result_type):
    check(NUMBERS, ALL[name], result_type=result_type)


def test_the_rows_of_a_broadcast_result_are_those_of_pandas():
    check(NUMBERS.astype("float32"), lambda row: [ord(row.name), row.dtype.itemsize], result_type="broadcast")


@pytest.mark.parametrize("axis", [0, 1, "index", "columns", "rows"])
def test_either_axis(axis):
    check(NUMBERS, lambda line: line.sum(), axis=axis)
    check(NUMBERS, lambda line: line.iloc[:2], axis=axis)
    check(NUMBERS, lambda line: str(line.name) + str(list(line.index)), axis=axis)


@pytest.mark.parametrize("axis", [0, 1])
def test_raw(axis):
    for frame in (NUMBERS, NUMBERS.astype("Int64", errors="ignore"), NUMBERS.assign(c="text"), FRAMES["nullable"]):
        check(frame, lambda values: str(values.dtype), axis=axis, raw=True)
        check(frame, lambda values: values, axis=axis, raw=True)
        check(frame, lambda values: values[:1], axis=axis, raw=True)


WIDE = pd.DataFrame(np.arange(24.0).reshape(4, 6), index=list("pqrs"))
FRAMES = {
    "numbers": NUMBERS,
    "floats": WIDE,
    "float32": WIDE.astype("float32"),
    "texts": pd.DataFrame({"a": ["one", "two", None], "b": ["x", "y", "z"]}),
    "mixed": pd.DataFrame({"a": [1, 2], "b": ["x", None], "c": [True, False], "d": pd.to_datetime(["2020", None])}),
    "nullable": pd.DataFrame({"a": [1, None, 3, 4], "b": [1, 2, 3, 4]}, dtype="Int64"),
    "string": pd.DataFrame({"a": ["x", None, "z"]}, dtype="string"),
    "category": pd.DataFrame({"a": ["x", "y", "x"], "b": ["u", "u", "v"]}, dtype="category"),
    "dates": pd.DataFrame({"a": pd.date_range("2020", periods=3), "b": pd.date_range("2021", periods=3)}),
    "zones": pd.DataFrame({"a": pd.date_range("2020", periods=3, tz="Europe/Paris")}),
    "periods": pd.DataFrame({"a": pd.period_range("2020", periods=3, freq="M")}),
    "objects": pd.DataFrame({"a": [[1], {"k": 1}, None], "b": [(1, 2), "x", 1.5]}),
    "two_levels": WIDE.set_axis(pd.MultiIndex.from_product([[1, 2], ["x", "y"]], names=["number", None])).set_axis(
        pd.MultiIndex.from_product([["u", "v"], [1, 2, 3]]), axis=1
    ),
    "duplicates": WIDE.set_axis(list("aaba")).set_axis(list("uuvvww"), axis=1),
    "odd_labels": WIDE.set_axis(pd.Index([(1, 2), None, "x", 2.5], tupleize_cols=False)),
    "index_of_dates": WIDE.set_axis(pd.date_range("2020", periods=4, freq="D", name="day")),
    "index_of_categories": WIDE.set_axis(pd.CategoricalIndex(list("abca"))),
    "one_row": WIDE.iloc[1:2],
    "one_column": WIDE.iloc[:, 1:2],
    "one_cell": WIDE.iloc[1:2, 1:2],
    "no_rows": WIDE.iloc[:0],
    "no_columns": WIDE.iloc[:, :0],
    "nothing": pd.DataFrame(),
}


@pytest.mark.parametrize("axis", [1, 0])
@pytest.mark.parametrize("name", FRAMES)
def test_frames_of_every_kind(name, axis):
    frame = FRAMES[name]
    check(frame, lambda line: line, axis=axis)
    check(frame, lambda line: line.astype(str), axis=axis)
    check(frame, lambda line: (repr(line.name), str(line.dtype), repr(list(line.index))), axis=axis)
    check(frame, lambda line: line.notna().sum(), axis=axis)
    check(frame, lambda line: 1.5, axis=axis)


@pytest.mark.parametrize("workers", [1, 2, 30])
def test_any_number_of_workers(workers):
    found = apply_by_multiprocessing(NUMBERS, lambda row: row["a"] * 2, workers)
    pd.testing.assert_series_equal(found, NUMBERS.apply(lambda row: row["a"] * 2, axis=1))


def test_arguments_for_the_function():
    def weighted(row, x, y=0.0, *, times=1, name="b"):
        return (row["a"] * x + y) * times + row[name]

    check(NUMBERS, weighted, args=(2,))
    check(NUMBERS, weighted, args=(2, 3), times=4, name="a")
    check(NUMBERS, weighted, x=2, y=3)
    check(NUMBERS, weighted)  # an argument is missing: the same TypeError
    check(NUMBERS, lambda values, x: values.sum() * x, raw=True, args=(3,))
    check(NUMBERS, functools.partial(weighted, x=1), times=2)


class Scale:
    """Something callable that is no function."""

    def __init__(self, by):
        self.by = by

    def __call__(self, row):
        return row["a"] * self.by


def test_callables_of_every_kind():
    check(NUMBERS, Scale(3))
    check(NUMBERS, Scale(3).__call__)
    check(NUMBERS, len)
    check(NUMBERS, sum)
    check(NUMBERS, max)
    check(NUMBERS, list)
    check(NUMBERS, np.sum)
    check(NUMBERS, pd.Series.mean)


@pytest.mark.parametrize("axis", [0, 1])
def test_what_pandas_does_on_whole_columns(axis):
    for func in ("sum", "mean", np.sqrt, np.abs, ["sum", "max"], {"a": "sum"} if axis == 0 else {"s": "sum"}):
        check(NUMBERS[["a"]], func, axis=axis)


WRITERS = {
    "a_value": lambda row: (row.__setitem__("a", 9), row)[1],
    "first_then_read": lambda row: (row.__setitem__("a", row["a"] + 1), row["a"] + row["b"])[1],
    "a_new_entry": lambda row: (row.__setitem__("new", 9), row)[1],
    "a_slice": lambda row: (row.__setitem__(slice(0, 1), 9), row.sum())[1],
    "a_new_name": lambda row: (setattr(row, "name", "given"), row)[1],
    "in_place": lambda row: (row.update(row[::-1]), row)[1],
}


@pytest.mark.parametrize("executor", ["processes", "serial", "threads"])
@pytest.mark.parametrize("name", WRITERS)
def test_functions_that_write_into_their_row(name, executor, monkeypatch):
    """As if each row were a copy. pandas itself lets some of them write, by how the columns lie in memory."""
    func = WRITERS[name]
    separate = NUMBERS.astype(float)
    together = separate.copy()
    for frame in (NUMBERS, separate, together, NUMBERS.astype(object)):
        expected = copied(frame).apply(lambda row: func(row.copy()), axis=1)
        for size in (1, 3):
            set_size(monkeypatch, size)
            mine = copied(frame)
            found = apply_by_multiprocessing(mine, func, executor=executor)
            assert_same(found, expected)
            assert_same(mine, frame)
    check(NUMBERS, func, executor=executor)  # here pandas agrees


def fill(values):
    values[:] = 7
    return values.sum()


@pytest.mark.parametrize("executor", ["processes", "serial", "threads"])
def test_raw_functions_that_write_into_their_row(executor):
    for frame in (NUMBERS, NUMBERS.astype(float), NUMBERS.assign(c="text")):
        check(frame, fill, executor=executor, raw=True)


def test_attributes_of_the_frame_are_seen():
    frame = NUMBERS.copy()
    frame.attrs["source"] = "census"
    check(frame, lambda row: row.attrs.get("source"))


class Tables(pd.DataFrame):
    """A frame with a type of its own."""

    @property
    def _constructor(self):
        return Tables


def test_a_frame_of_the_users_own_type():
    found = check(Tables(NUMBERS), lambda row: row)
    assert type(found) is Tables


def test_what_it_cannot_be_called_with():
    with pytest.raises(InvalidTypeError, match="DataFrame is wanted, not Series"):
        apply_by_multiprocessing(NUMBERS["a"], len)
    with pytest.raises(InvalidInputError, match="axis"):
        apply_by_multiprocessing(NUMBERS, len, axis=2)
    with pytest.raises(InvalidInputError, match="workers must be at least 1"):
        apply_by_multiprocessing(NUMBERS, len, 0)
    with pytest.raises(InvalidInputError, match="'processes'"):
        apply_by_multiprocessing(NUMBERS, len, executor="procesess")


READ_ONLY = np.arange(12.0).reshape(6, 2)
READ_ONLY.flags.writeable = False


@pytest.mark.parametrize("executor", ["serial", "processes"])
@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize(
    "frame",
    [
        pd.DataFrame({"a": [1.0, 2, 3], "b": [4.0, 5, 6]}),
        pd.DataFrame({"a": [1, 2, 3], "b": list("xyz")}),
        pd.DataFrame(READ_ONLY, columns=list("ab"), copy=False),
    ],
    ids=["numbers", "mixed", "read_only"],
)
def test_attrs(frame, axis, executor):
    frame = frame.copy(deep=False)
    frame.attrs["unit"] = "m"
    for func in (lambda v: v.attrs.get("unit", "none"), lambda v: 1.0, lambda v: v * 2, lambda v: [1, 2]):
        expected = frame.apply(func, axis=axis)
        found = apply_by_multiprocessing(frame, func, 2, axis=axis, executor=executor)
        assert_same(found, expected)
        assert found.attrs == expected.attrs
    frame.attrs.clear()


@pytest.mark.parametrize("axis", [0, 1])
def test_repeated_labels_are_broadcast(axis):
    frame = pd.DataFrame([[1.0, 2.0], [3.0, 4.0]], index=["r", "r"], columns=["a", "a"])
    for func in (lambda v: v.sum(), lambda v: [1, 2]):
        expected = frame.apply(func, axis=axis, result_type="broadcast")
        assert_same(apply_by_multiprocessing(frame, func, 2, axis=axis, result_type="broadcast"), expected)
