"""Bounds that can be read in more ways than one: which it is, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import Bounds

import parfit
from parfit.core.errors import InvalidInputError, InvalidTypeError, ParfitError, UnknownNameError
from parfit.core.pairs import one_side, read_pairs
from parfit.core.structure import Structure

INF = np.inf
FREE = (-INF, INF)
TWO = {"t": (0.5, 0.5)}
FOUR = {"m": ((1.0, 2.0), (3.0, 4.0))}


def pairs(x0: Any, bounds: Any) -> list[tuple[float, float]]:
    lower, upper = read_pairs(Structure(x0), bounds)
    return list(zip(lower.tolist(), upper.tolist(), strict=True))


@pytest.mark.parametrize(
    ("x0", "bounds", "wanted"),
    [
        (TWO, {"t": (None, (0, 1))}, [FREE, (0, 1)]),
        (TWO, {"t": ((0, 1), (2, 3))}, [(0, 1), (2, 3)]),
        (TWO, {"t": [(0, 1), (2, 3)]}, [(0, 1), (2, 3)]),
        (TWO, {"t": [[0, 1], [2, 3]]}, [(0, 1), (2, 3)]),
        (TWO, {"t": (None, None)}, [FREE, FREE]),
        ({"t": (0.5, {"u": 0.5})}, {"t": (None, {"u": (0, 1)})}, [FREE, (0, 1)]),
        ({"t": (0.5, {"u": 0.5})}, {"t": ([0, 1], {"u": (0, 1)})}, [(0, 1), (0, 1)]),
        (FOUR, {"m": ((0, 9), ((0, 5), None))}, [(0, 9), (0, 9), (0, 5), FREE]),
        (FOUR, {"m": ([0, 9], [1, 8])}, [(0, 9), (0, 9), (1, 8), (1, 8)]),
        ([1.0, [2.0, 3.0]], (None, [(0, 9), (1, 5)]), [FREE, (0, 9), (1, 5)]),
        ({"m": np.ones((3, 2))}, {"m": np.tile([0, 2], (3, 2, 1))}, [(0, 2)] * 6),
        ([1.0, 2.0], [(0, 1), (2, 3)], [(0, 1), (2, 3)]),
        ([1.0, 2.0], [[0, 1], [2, 3]], [(0, 1), (2, 3)]),
        ([1.0, 2.0], list(np.array([[0, 1], [2, 3]])), [(0, 1), (2, 3)]),
        (pd.Series({"a": 1.0, "b": 2.0}), [(0, 1), (2, 3)], [(0, 1), (2, 3)]),
    ],
)
def test_in_the_structure_first(x0: Any, bounds: Any, wanted: list[tuple[float, float]]) -> None:
    assert pairs(x0, bounds) == wanted


@pytest.mark.parametrize(
    ("x0", "bounds", "wanted"),
    [
        (TWO, {"t": (0, 1)}, [(0, 1), (0, 1)]),
        (TWO, {"t": (None, 9)}, [(-INF, 9), (-INF, 9)]),
        (TWO, {"t": ([0, 1], [2, 3])}, [(0, 2), (1, 3)]),
        (TWO, {"t": Bounds([0, 1], [2, 3])}, [(0, 2), (1, 3)]),
        (FOUR, {"m": ([[0, 1], [2, 3]], [[4, 5], [6, 7]])}, [(0, 4), (1, 5), (2, 6), (3, 7)]),
        ([1.0, 2.0], tuple(np.array([[0, 1], [2, 3]])), [(0, 2), (1, 3)]),
        ([1.0, 2.0, 3.0], np.array([[0, 0, 0], [5, 6, 7]]), [(0, 5), (0, 6), (0, 7)]),
        ([1.0], np.array([0, 3]), [(0, 3)]),
        (1.0, ([0], [3]), [(0, 3)]),
        ({"a": 1.0, "b": [2.0, 3.0]}, ({"a": 0, "b[1]": 1}, {"b": 9}), [(0, INF), (-INF, 9), (1, 9)]),
    ],
)
def test_lower_and_upper(x0: Any, bounds: Any, wanted: list[tuple[float, float]]) -> None:
    assert pairs(x0, bounds) == wanted


@pytest.mark.parametrize(
    ("x0", "bounds"),
    [
        ([1.0, 2.0], np.array([[0, 3], [1, 4]])),
        ({"a": 1.0, "b": 2.0}, np.array([[0, 3], [1, 4]])),
        (TWO, {"t": np.array([[0, 3], [1, 4]])}),
        ({"m": np.ones((2, 2))}, {"m": np.tile([0, 2], (2, 2, 1))}),
        ([1.0, 2.0], (None, [3, 4])),
        ([1.0, 2.0], ([0, 1], (3, 4))),
    ],
)
def test_what_can_be_read_in_two_ways_is_refused(x0: Any, bounds: Any) -> None:
    with pytest.raises(InvalidInputError, match=r"two ways: give a list of pairs.*, or scipy\.optimize\.Bounds\("):
        read_pairs(Structure(x0), bounds)
    assert pairs([1.0, 2.0], np.array([[0, 3], [3, 4]])) == [(0, 3), (3, 4)]  # the same either way


def test_the_name_of_a_scalar_goes_before_the_key_of_what_holds_it() -> None:
    for bounds in ({"t[0]": (0, 1), "t": (0, 9)}, {"t": (0, 9), "t[0]": (0, 1)}):
        assert pairs(TWO, bounds) == [(0, 1), (0, 9)]


@pytest.mark.parametrize(
    ("x0", "bounds", "error", "text"),
    [
        (TWO, {"t": (None, {"u": (0, 1)})}, UnknownNameError, "unknown parameter 't.u'"),
        (TWO, {"t": ((0, 1),) * 3}, InvalidInputError, "bounds: t must have 2 entries, not 3"),
        (TWO, {"t": "x"}, InvalidTypeError, "t: str 'x' is not a pair"),
        (TWO, {"t": ((0, "x"), (0, 1))}, InvalidTypeError, r"t\[0\] has the bound 'x', which is no number"),
        (TWO, {"t": Bounds([0] * 3, [1] * 3)}, InvalidInputError, r"t: the lower side has 3 entries for 2 parameters"),
        ({"a": 1.0, "b": 2.0}, Bounds([0] * 3, [9] * 3), InvalidInputError, r"3 entries for 2 parameters \('a', 'b'\)"),
        ({"a": 1.0, "b": 2.0}, ([0, 0], [9]), InvalidInputError, r"the upper side has 1 entry for 2 parameters"),
        ({"a": 1.0, "b": 2.0}, [(0, 9)], InvalidInputError, r"1 pairs for 2 parameters \('a', 'b'\)"),
        ({"a": 1.0, "b": [2.0, 3.0]}, [(0, 9)] * 2, InvalidInputError, "2 pairs for 3 parameters"),
        ({"a": 1.0}, {"a": (True, 3)}, InvalidTypeError, "a has the bound True"),
        ({"a": 1.0}, {"a": (0, pd.Series([1, 2]))}, InvalidTypeError, r"a: tuple is not a pair \(lower, upper\)"),
        ([1.0, 2.0], (0, [3, 4, 5]), InvalidInputError, "the upper side has 3 entries for 2 parameters"),
    ],
)
def test_refused(x0: Any, bounds: Any, error: type[ParfitError], text: str) -> None:
    with pytest.raises(error, match=text) as caught:
        read_pairs(Structure(x0), bounds)
    assert type(caught.value) is error


def test_one_side() -> None:
    structure = Structure({"a": 1.0, "b": [2.0, 3.0]})
    assert one_side(structure, None, 0).tolist() == [-INF] * 3
    assert one_side(structure, {"b": 5}, 1).tolist() == [INF, 5, 5]
    with pytest.raises(InvalidInputError, match="the upper side has 2 entries for 3 parameters"):
        one_side(structure, [1, 2], 1)


@pytest.mark.parametrize("bound", [pd.Series([1.0, 2.0]), np.array([1.0, 2.0])], ids=["series", "array"])
def test_a_bound_that_varies_by_row_comes_as_a_frame(bound: Any) -> None:
    text = r"bounds: k: .* is not a pair \(lower, upper\) of two numbers; .* \(lower, upper\), one of them a DataFrame"
    with pytest.raises(InvalidTypeError, match=text):
        read_pairs(Structure({"k": 1.0, "m": 1.0}), {"k": (0, bound)})
    with pytest.raises(InvalidTypeError, match=r"is not a pair \(lower, upper\)$"):
        read_pairs(Structure({"k": 1.0, "m": 1.0}), {"k": (0, 1, 2)})
    fits = parfit.fit(
        pd.Series([5.0, 5.0]),
        lambda p, d: [p["k"] - d, p["m"]],
        {"k": 0.5, "m": 1.0},
        bounds=({"k": 0}, pd.DataFrame({"k": bound})),
        executor="serial",
    )
    assert fits.params["k"].round(6).tolist() == [1.0, 2.0]
