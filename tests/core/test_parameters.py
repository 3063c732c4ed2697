"""Start values, bounds and fixed parameters, in every form that users write."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import Bounds

from parfit.core.errors import InvalidInputError, InvalidTypeError, UnknownNameError
from parfit.core.parameters import Parameters, read_parameters

INF = np.inf
LABELS = pd.Index(["r", "s", "t"])
NESTED = {"a": 1.0, "b": [2.0, 3.0], "c": np.full((1, 2), 4.0)}
NAMES = ["a", "b[0]", "b[1]", "c[0, 0]", "c[0, 1]"]


def read(x0: Any, bounds: Any = None, fixed: Any = None, labels: Any = LABELS) -> Parameters:
    return read_parameters(x0, bounds, fixed, labels, lambda function: function(0.0))


def pairs(p: Parameters) -> list[tuple[float, float]]:
    assert p.lower.shape == p.upper.shape == (len(p.names),)
    return list(zip(p.lower.tolist(), p.upper.tolist(), strict=True))


# ---- x0


@pytest.mark.parametrize(
    ("x0", "names", "start"),
    [
        ([1, 2.5], ["x0", "x1"], [1, 2.5]),
        (np.array([1, 2]), ["x0", "x1"], [1, 2]),
        (3, ["x0"], [3]),
        ({"a": 1, "b": 2}, ["a", "b"], [1, 2]),
        (pd.Series({"a": 1, "b": 2}), ["a", "b"], [1, 2]),
        (pd.DataFrame({"value": [1, 2]}, index=["a", "b"]), ["a", "b"], [1, 2]),
        (NESTED, NAMES, [1, 2, 3, 4, 4]),
        (np.float32(0.5), ["x0"], [0.5]),
    ],
)
def test_start_in_every_form(x0: Any, names: list[str], start: list[float]) -> None:
    p = read(x0)
    assert list(p.names) == names
    assert p.start.tolist() == start
    assert pairs(p) == [(-INF, INF)] * len(names)
    assert not p.fixed.any()
    assert not p.bounded


def test_table_of_parameters() -> None:
    table = pd.DataFrame(
        {
            "value": [1.0, 2.0, 3.0],
            "lower_bound": [0.0, np.nan, 3.0],
            "upper_bound": [np.nan, 9.0, 4.0],
            "fixed": [False, True, False],
            "comment": ["", "known from elsewhere", ""],
        },
        index=["a", "b", "c"],
    )
    p = read(table)
    assert pairs(p) == [(0, INF), (-INF, 9), (3, 4)]
    assert p.fixed.tolist() == [False, True, False]
    over = read(table, {"a": (0.5, 2)}, ["c"])
    assert pairs(over) == [(0.5, 2), (-INF, INF), (-INF, INF)]
    assert over.fixed.tolist() == [False, False, True]


@pytest.mark.parametrize(
    ("table", "text"),
    [
        (pd.DataFrame({"valu": [1.0]}, index=["a"]), "unknown column of x0 'valu'. Did you mean 'value'"),
        (pd.DataFrame({"Value": [1.0]}, index=["a"]), "Did you mean 'value'"),
        (pd.DataFrame({"valu": [1.0] * 3, "lower_bound": 0.0}, index=LABELS), "Did you mean 'value'"),
        (pd.DataFrame({"start": [1.0], "lower_bound": 0.0}, index=["a"]), "a table of parameters has a column 'value'"),
    ],
)
def test_a_table_without_values(table: pd.DataFrame, text: str) -> None:
    with pytest.raises(InvalidInputError, match=text):
        read(table)
    assert read(pd.DataFrame({"values": [1.0, 2.0, 3.0]}, index=LABELS)).names == ("values",)


def test_empty_cells_of_a_table() -> None:
    table = pd.DataFrame({"value": [1.0, 2.0], "upper_bound": [None, 3.0], "fixed": [True, None]}, index=["a", "b"])
    p = read(table)
    assert pairs(p) == [(-INF, INF), (-INF, 3)]
    assert p.fixed.tolist() == [True, False]


@pytest.mark.parametrize("column", ["lower_bnd", "upper", "fixd", "lower bound"])
def test_mistyped_column_of_the_table(column: str) -> None:
    with pytest.raises(UnknownNameError, match=r"unknown column of x0.*Did you mean"):
        read(pd.DataFrame({"value": [1.0], column: [0.0]}, index=["a"]))


def test_start_by_dataset_in_a_frame() -> None:
    frame = pd.DataFrame({"a": [1, 2, 3], "b": [4.0, 5.0, 6.0]}, index=["r", "s", "t"])
    p = read(frame)
    assert list(p.names) == ["a", "b"]
    assert p.start.tolist() == [[1, 4], [2, 5], [3, 6]]
    assert read(frame.loc[["t", "r", "s"]]).start.tolist() == p.start.tolist()
    assert np.isnan(p.common().start).all()
    with pytest.raises(InvalidInputError, match=r"x0 has no row for the dataset 't'.*a column 'value'"):
        read(frame.iloc[:2])
    with pytest.raises(InvalidInputError, match="no row for the dataset 'r' and 2 more"):
        read(frame.reset_index(drop=True))
    with pytest.raises(InvalidTypeError, match="the column 'b' must be numeric, and holds str 'x'"):
        read(frame.assign(b="x"))
    with pytest.raises(InvalidTypeError, match="the column 'a' must be numeric, and holds bool"):
        read(frame.assign(a=True))
    with pytest.raises(InvalidInputError, match="x0: the frame has two columns 'a'"):
        read(frame.set_axis(["a", "a"], axis=1))
    nullable = frame.assign(a=pd.array([1, None, 3], dtype="Int64"))
    assert np.isnan(read(nullable).start[1, 0])
    assert read(frame.astype(object)).start.tolist() == p.start.tolist()
    assert read(frame.iloc[:0].astype(object), labels=LABELS[:0]).start.shape == (0, 2)


def test_duplicate_labels_are_aligned_by_place() -> None:
    labels = pd.Index(["r", "r", "s"])
    frame = pd.DataFrame({"a": [1, 2, 3]}, index=labels)
    assert read(frame, labels=labels).start.ravel().tolist() == [1, 2, 3]
    with pytest.raises(InvalidInputError, match="labels are unique"):
        read(frame.iloc[::-1], labels=labels)


def test_start_from_a_callable() -> None:
    p = read(lambda d: {"a": d + 1, "b": 2}, {"a": (0, 5)})
    assert list(p.names) == ["a", "b"]
    assert p.start_of is not None
    with pytest.raises(InvalidTypeError, match=r"x0\(dataset\): a must be a number"):
        read(lambda d: {"a": "x"})


# ---- bounds


@pytest.mark.parametrize(
    ("x0", "bounds", "wanted"),
    [
        ([1, 2], [(0, 3), (None, 4)], [(0, 3), (-INF, 4)]),
        ([1, 2], [(0, 3), None], [(0, 3), (-INF, INF)]),
        ([1, 2], [[0, 3], [1, 4]], [(0, 3), (1, 4)]),
        ([1, 2], ([0, 1], [3, 4]), [(0, 3), (1, 4)]),
        ([1, 2], (np.array([0, 1]), np.array([3, 4])), [(0, 3), (1, 4)]),
        ([1, 2], ((0, 3), (1, 4)), [(0, 3), (1, 4)]),
        ([1, 2], (0, INF), [(0, INF), (0, INF)]),
        ([1, 2], (0, [3, 4]), [(0, 3), (0, 4)]),
        ([1, 2, 3], ([0, 1, 2], None), [(0, INF), (1, INF), (2, INF)]),
        ([1, 2, 3], ([0, 1, 2], 9), [(0, 9), (1, 9), (2, 9)]),
        ([1, 2, 3], np.array([[0, 3], [1, 4], [2, 5]]), [(0, 3), (1, 4), (2, 5)]),
        ([1, 2], Bounds([0, 1], [3, 4]), [(0, 3), (1, 4)]),
        ([1, 2], Bounds(0, 4), [(0, 4), (0, 4)]),
        ([1, 2], Bounds(), [(-INF, INF), (-INF, INF)]),
        ([1, 2], {"x1": (0, 3)}, [(-INF, INF), (0, 3)]),
        ([1], [(0, 3)], [(0, 3)]),
        ([1], (0, 3), [(0, 3)]),
        (1.0, (0, 3), [(0, 3)]),
        ({"a": 1, "b": 2}, {"b": (0, 3)}, [(-INF, INF), (0, 3)]),
        ({"a": 1, "b": 2}, {"b": (0, None), "a": None}, [(-INF, INF), (0, INF)]),
        ({"a": 1, "b": 2}, [(0, 3), (1, 4)], [(0, 3), (1, 4)]),
        ({"a": 1, "b": 2}, ({"a": 0}, {"b": 4}), [(0, INF), (-INF, 4)]),
        ({"a": 1, "b": 2}, ([0, 1], [3, 4]), [(0, 3), (1, 4)]),
        ({"a": 1, "b": 2}, Bounds([0, 1], [3, 4]), [(0, 3), (1, 4)]),
        ({"a": 1, "b": 2}, Bounds(0, np.inf), [(0, INF), (0, INF)]),
        ({"a": 1, "b": 2}, pd.Series({"a": (0, 3)}), [(0, 3), (-INF, INF)]),
        (pd.Series({"a": 1, "b": 2}), {"b": (0, 3)}, [(-INF, INF), (0, 3)]),
        (NESTED, {"b": (0, 9)}, [(-INF, INF), (0, 9), (0, 9), (-INF, INF), (-INF, INF)]),
        (NESTED, {"b": [(0, 3), (1, 4)]}, [(-INF, INF), (0, 3), (1, 4), (-INF, INF), (-INF, INF)]),
        (NESTED, {"b": ([0, 1], [3, 4])}, [(-INF, INF), (0, 3), (1, 4), (-INF, INF), (-INF, INF)]),
        (NESTED, {"b": list(np.array([[0, 3], [1, 4]]))}, [(-INF, INF), (0, 3), (1, 4), (-INF, INF), (-INF, INF)]),
        (NESTED, {"b[1]": (0, 3), "c": (0, 9)}, [(-INF, INF), (-INF, INF), (0, 3), (0, 9), (0, 9)]),
        (NESTED, ({"a": 0, "b": [1, 2]}, None), [(0, INF), (1, INF), (2, INF), (-INF, INF), (-INF, INF)]),
        (NESTED, Bounds(0, 9), [(0, 9)] * 5),
        (NESTED, [(0, 5 + i) for i in range(5)], [(0, 5 + i) for i in range(5)]),
        ([1.0, [2.0, 3.0]], [(0, 3), [(1, 4), (2, 5)]], [(0, 3), (1, 4), (2, 5)]),
        ([1.0, [2.0, 3.0]], ([0, [1, 2]], [3, [4, 5]]), [(0, 3), (1, 4), (2, 5)]),
        ([1.0, [2.0, 3.0]], [(0, 3), (1, 4), (2, 5)], [(0, 3), (1, 4), (2, 5)]),
        ([{"u": 1.0}, 2.0], [{"u": (0, 3)}, (1, 4)], [(0, 3), (1, 4)]),
        ({"a": {"u": 1.0, "v": 2.0}}, {"a": {"v": (0, 3)}}, [(-INF, INF), (0, 3)]),
        ({"a": {"u": 1.0, "v": 2.0}}, {"a.v": (0, 3)}, [(-INF, INF), (0, 3)]),
    ],
)
def test_bounds_in_every_form(x0: Any, bounds: Any, wanted: list[tuple[float, float]]) -> None:
    assert pairs(read(x0, bounds)) == wanted


def test_bounds_as_a_table() -> None:
    table = pd.DataFrame({"lower_bound": [0.0, np.nan], "upper_bound": [9.0, 8.0]}, index=["b[1]", "a"])
    assert pairs(read(NESTED, table))[:3] == [(-INF, 8), (-INF, INF), (0, 9)]
    assert pairs(read({"a": 1.0}, pd.DataFrame({"upper_bound": [3.0]}, index=["a"]))) == [(-INF, 3)]
    with pytest.raises(UnknownNameError, match="Did you mean 'a'"):
        read({"a": 1.0}, pd.DataFrame({"upper_bound": [3.0]}, index=["A"]))
    with pytest.raises(UnknownNameError, match="Did you mean 'lower_bound'"):
        read({"a": 1.0}, pd.DataFrame({"upper_bound": [3.0], "lower_bond": [0.0]}, index=["a"]))


def test_bounds_by_dataset_in_frames() -> None:
    low = pd.DataFrame({"b": [0.0, np.nan, 1.0]}, index=["t", "s", "r"])
    low = low.fillna(-INF)
    p = read({"a": 1.0, "b": 2.0}, (low, None))
    assert p.lower.tolist() == [[-INF, 1], [-INF, -INF], [-INF, 0]]
    assert p.upper.tolist() == [INF, INF]
    assert p.bounded
    two = pd.concat({("b", "lower_bound"): low["b"], ("a", "upper_bound"): low["b"] + 5}, axis=1)
    for frame in (two, two.swaplevel(axis=1)):
        p = read({"a": 1.0, "b": 2.0}, frame)
        assert p.lower.tolist() == [[-INF, 1], [-INF, -INF], [-INF, 0]]
        assert p.upper.tolist() == [[6, INF], [-INF, INF], [5, INF]]
    with pytest.raises(UnknownNameError, match=r"unknown parameter in the bounds 'B'\. Did you mean 'b'"):
        read({"a": 1.0, "b": 2.0}, (low.rename(columns={"b": "B"}), None))
    with pytest.raises(InvalidInputError, match="bounds has no row for the dataset 't'"):
        read({"a": 1.0, "b": 2.0}, (low.drop("t"), None))
    with pytest.raises(InvalidInputError, match="bounds as a frame"):
        read({"a": 1.0, "b": 2.0}, low)


@pytest.mark.parametrize(
    ("x0", "bounds", "error", "text"),
    [
        ([1, 2], [(0, 3)], InvalidInputError, "1 pairs for 2 parameters"),
        ([1, 2, 3], [(0, 3), (1,), (0, 1)], InvalidTypeError, r"x1: tuple \(1,\) is not a pair \(lower, upper\)"),
        ([1, 2], [("a", 3), (0, 1)], InvalidTypeError, "x0 has the bound 'a', which is no number"),
        ([1, 2], "0, 3", InvalidTypeError, "of type str"),
        ([1, 2], 5, InvalidTypeError, "of type int"),
        ({"alpha": 1.0}, {"alpa": (0, 1)}, UnknownNameError, "Did you mean 'alpha'"),
        ({"alpha": 1.0}, ({"alpa": 0}, None), UnknownNameError, "Did you mean 'alpha'"),
        ({"alpha": 1.0}, {"alpha": 5}, InvalidTypeError, "5 is not a pair"),
        ({"alpha": 1.0}, {"alpha": ("3", 4)}, InvalidTypeError, "'3', which is no number"),
        (NESTED, {"b": [(0, 3)]}, InvalidInputError, "b must have 2 entries, not 1"),
        (NESTED, {"b[2]": (0, 3)}, UnknownNameError, r"Did you mean 'b\[1\]'"),
        ([1, 2], {"x7": (0, 3)}, UnknownNameError, "unknown parameter 'x7'"),
    ],
)
def test_bounds_that_are_refused(x0: Any, bounds: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        read(x0, bounds)


# ---- fixed


@pytest.mark.parametrize(
    ("fixed", "wanted"),
    [
        (None, []),
        ([], []),
        ("a", ["a"]),
        (["b"], ["b[0]", "b[1]"]),
        (["b[1]"], ["b[1]"]),
        (("a", "c[0, 1]"), ["a", "c[0, 1]"]),
        ({"a", "b[0]"}, ["a", "b[0]"]),
        (pd.Index(["a"]), ["a"]),
        (np.array(["a"]), ["a"]),
        ({"a": 0, "b": 0}.keys(), ["a", "b[0]", "b[1]"]),
        ([True, False, False, False, True], ["a", "c[0, 1]"]),
        ({"b": True, "b[0]": False}, ["b[1]"]),
        ({"a": True}, ["a"]),
        ({"a": False}, []),
        ({"b": True}, ["b[0]", "b[1]"]),
        ({"b": [True, False]}, ["b[0]"]),
        ({"b[0]": True}, ["b[0]"]),
        (pd.Series({"a": True}), ["a"]),
        ({"a": np.True_}, ["a"]),
    ],
)
def test_fixed_in_every_form(fixed: Any, wanted: list[str]) -> None:
    p = read(NESTED, fixed=fixed)
    assert [n for n, f in zip(p.names, p.fixed, strict=True) if f] == wanted


def test_fixed_for_a_vector() -> None:
    assert read([1, 2], fixed=[True, False]).fixed.tolist() == [True, False]
    assert read([1, 2], fixed=np.array([False, True])).fixed.tolist() == [False, True]
    assert read([1, 2], fixed=["x1"]).fixed.tolist() == [False, True]
    assert read([1.0] * 12, fixed=["x1"]).fixed.tolist() == [i == 1 for i in range(12)]
    assert read({"a": {"u": 1.0, "v": 2.0}, "b": 3.0}, fixed="a").fixed.tolist() == [True, True, False]


@pytest.mark.parametrize(
    ("fixed", "error", "text"),
    [
        (["bb"], UnknownNameError, "unknown parameter in `fixed` 'bb'. Did you mean"),
        ({"aa": True}, UnknownNameError, "unknown parameter 'aa'"),
        ({"a": 3.0}, InvalidTypeError, "a must be True or False, not 3.0; a fixed parameter stays at its start"),
        ({"a": 1}, InvalidTypeError, "must be True or False"),
        (["a", "b", "c"], InvalidInputError, "all parameters are fixed"),
        (
            [0],
            InvalidTypeError,
            r"fixed must be names, \['a'\], or True and False .* 5 parameters \('a', .* not list \[0\]",
        ),
        (0, InvalidTypeError, "fixed must be names"),
        ([True], InvalidTypeError, "fixed must be names"),
        (["a", True], InvalidTypeError, "fixed must be names"),
        (range(2), InvalidTypeError, "fixed must be names"),
        ([["a"]], InvalidTypeError, "fixed: the value must be a mapping"),
        ({"b": [True]}, InvalidInputError, "fixed: b must have 2 entries, not 1"),
    ],
)
def test_fixed_that_is_refused(fixed: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        read(NESTED, fixed=fixed)


# ---- what no dataset, and what some datasets cannot use


@pytest.mark.parametrize(
    ("x0", "bounds", "text"),
    [
        ([np.nan, 1.0], None, "the start of x0 is nan"),
        ([1.0, INF], None, "the start of x1 is inf"),
        ([1.0, 5.0], [(0, 3), (0, 3)], r"the start of x1, 5, is outside its bounds \[0, 3\]"),
        ({"a": 1.0}, {"a": (3, 0)}, "the bounds of a are the wrong way round: lower 3, upper 0"),
        ({"a": 1.0}, {"a": (INF, INF)}, "the bounds of a leave no room"),
    ],
)
def test_unusable_for_all(x0: Any, bounds: Any, text: str) -> None:
    with pytest.raises(InvalidInputError, match=text):
        read(x0, bounds)


def test_unusable_for_some_is_not_refused_here() -> None:
    starts = pd.DataFrame({"a": [5.0, 1.0, np.nan]}, index=LABELS)
    assert read(starts, {"a": (0, 3)}).start.shape == (3, 1)
    with pytest.raises(InvalidInputError, match="and no other dataset has a start that can be used"):
        read(starts, {"a": (10, 20)})


def test_fixed_values_and_equal_bounds_agree_with_the_start() -> None:
    assert read({"a": 2.0, "b": 1.0}, {"a": (0, 3)}, ["a"]).fixed.tolist() == [True, False]
    assert pairs(read({"a": 3.0, "b": 1.0}, {"a": (3, 3)})) == [(3, 3), (-INF, INF)]
    with pytest.raises(
        InvalidInputError, match=r"the value of the fixed parameter a, 5, is outside its bounds \[0, 3\]"
    ):
        read({"a": 5.0, "b": 1.0}, {"a": (0, 3)}, ["a"])
    with pytest.raises(
        InvalidInputError, match=r"the value of the fixed parameter a, 5, is outside its bounds \[3, 3\]"
    ):
        read({"a": 5.0, "b": 1.0}, {"a": (3, 3)}, ["a"])
    with pytest.raises(InvalidInputError, match="the bounds of a are the wrong way round"):
        read({"a": 1.0, "b": 1.0}, {"a": (3, 0)}, ["a"])


def test_all_fixed_by_whatever_means_is_nothing_to_fit() -> None:
    for bounds, fixed in (({"a": (3, 3), "b": (1, 1)}, None), ({"a": (3, 3)}, ["b"]), (None, ["a", "b"])):
        with pytest.raises(InvalidInputError, match=r"all parameters are fixed.*nothing to fit"):
            read({"a": 3.0, "b": 1.0}, bounds, fixed)


def test_nan_is_no_bound_only_in_a_table_of_parameters() -> None:
    with pytest.raises(InvalidInputError, match="the lower bound of a is NaN; None or infinity is no bound"):
        read({"a": 1.0}, {"a": (np.nan, 3)})
    with pytest.raises(InvalidInputError, match="the lower bound of x1 is NaN"):
        read([1, 2], ([0, np.nan], [3, 4]))
    by_row = pd.DataFrame({"a": [0.0, np.nan, 0.0]}, index=LABELS)
    assert np.isnan(read({"a": 1.0}, (by_row, None)).lower[1, 0])
    with pytest.raises(InvalidInputError, match=r"the upper bound of a is NaN.*no other dataset"):
        read({"a": 1.0}, (None, by_row * np.nan))


# ---- round trips

trees = st.recursive(
    st.floats(-5, 5),
    lambda inner: (
        st.dictionaries(st.text("abcd", min_size=1, max_size=3), inner, min_size=1, max_size=3)
        | st.lists(inner, min_size=1, max_size=3)
    ),
    max_leaves=6,
).filter(lambda tree: not isinstance(tree, float))


@settings(max_examples=100, deadline=None)
@given(trees, st.integers(0, 2**32 - 1))
def test_bounds_in_the_parameters_structure(tree: Any, seed: int) -> None:
    p = read(tree)
    n = len(p.names)
    low = p.start - np.random.default_rng(seed).uniform(0.5, 2, n)
    high = p.start + 1.0
    sides = (p.structure.unflatten(low), p.structure.unflatten(high))
    wanted = list(zip(low, high, strict=True))
    assert pairs(read(tree, sides)) == wanted
    assert pairs(read(tree, Bounds(low, high))) == wanted
    assert pairs(read(tree, [tuple(pair) for pair in wanted])) == wanted
    assert pairs(read(tree, dict(zip(p.names, wanted, strict=True)))) == wanted
    table = pd.DataFrame({"lower_bound": low, "upper_bound": high}, index=list(p.names))
    assert pairs(read(tree, table)) == wanted
    some = list(p.names)[: max(0, n - 1)]
    assert read(tree, fixed=some).fixed.tolist() == [name in some for name in p.names]
