"""Any nesting of parameters to a named vector and back."""

from __future__ import annotations

import pickle
from collections import namedtuple
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from parfit.core.errors import InvalidInputError, InvalidTypeError, UnknownNameError
from parfit.core.structure import Structure
from tests.core.foreign import Foreign

Pair = namedtuple("Pair", ["low", "high"])

numbers = st.floats(-1e6, 1e6) | st.integers(-1000, 1000)
keys = st.text("abcdefgh_", min_size=1, max_size=4)
shapes = st.sampled_from([(1,), (3,), (2, 2), (1, 3, 2)])
arrays = shapes.flatmap(
    lambda shape: st.lists(st.floats(-10, 10), min_size=int(np.prod(shape)), max_size=int(np.prod(shape))).map(
        lambda values: np.array(values).reshape(shape)
    )
)
series = st.dictionaries(keys, st.floats(-10, 10), min_size=1, max_size=3).map(lambda d: pd.Series(d, dtype=float))
leaves = numbers | arrays | series
trees = st.recursive(
    leaves,
    lambda inner: (
        st.dictionaries(keys, inner, min_size=1, max_size=3)
        | st.lists(inner, min_size=1, max_size=3)
        | st.lists(inner, min_size=1, max_size=3).map(tuple)
        | st.tuples(inner, inner).map(lambda pair: Pair(*pair))
    ),
    max_leaves=8,
)


def same(a: Any, b: Any) -> bool:
    """Whether two structures are of the same kinds and hold the same numbers."""
    if isinstance(a, dict):
        return type(b) is dict and list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, pd.Series):
        return isinstance(b, pd.Series) and a.index.equals(b.index) and bool((a == b).all())
    return np.shape(a) == np.shape(b) and bool(np.all(np.asarray(a) == np.asarray(b)))


def structure_of(tree: Any) -> Structure:
    try:
        return Structure(tree)
    except InvalidInputError:  # names that collide, or nothing in it
        reject()


def is_plain_vector(tree: Any) -> bool:
    return isinstance(tree, (list, tuple)) and all(isinstance(v, (int, float)) for v in tree)


@settings(max_examples=150, deadline=None)
@given(trees)
def test_there_and_back(tree: Any) -> None:
    structure = structure_of(tree)
    v = structure.flatten(tree)
    assert v.dtype == np.float64
    assert len(v) == len(structure) == len(structure.names) == len(set(structure.names))
    made = structure.unflatten(v)
    assert same(np.array(tree, dtype=float) if is_plain_vector(tree) else tree, made)
    assert np.array_equal(structure.flatten(made), v)
    assert same(structure.unflattener(v), made)
    again = pickle.loads(pickle.dumps(structure))
    assert again.names == structure.names
    assert same(again.unflatten(v), made)


@settings(max_examples=60, deadline=None)
@given(trees, st.integers(0, 2**32 - 1))
def test_every_vector_has_its_structure(tree: Any, seed: int) -> None:
    structure = structure_of(tree)
    v = np.random.default_rng(seed).standard_normal(len(structure))
    assert np.array_equal(structure.flatten(structure.unflatten(v)), v)
    assert structure.partial(structure.unflatten(v)) == dict(enumerate(v))


@pytest.mark.parametrize(
    ("tree", "names"),
    [
        (3.0, ["x0"]),
        ([1, 2], ["x0", "x1"]),
        ((1.0, 2.0), ["x0", "x1"]),
        (np.zeros(3), ["x0", "x1", "x2"]),
        (np.zeros((2, 2)), ["x[0, 0]", "x[0, 1]", "x[1, 0]", "x[1, 1]"]),
        ({"a": 1.0}, ["a"]),
        ({"a": 1.0, "b": [1.0, 2.0], "c": np.zeros((1, 2))}, ["a", "b[0]", "b[1]", "c[0, 0]", "c[0, 1]"]),
        ({"a": {"b": {"c": 1.0}, "d": (2.0,)}}, ["a.b.c", "a.d[0]"]),
        ({"a": [{"b": 1.0}, 2.0]}, ["a[0].b", "a[1]"]),
        ([1.0, [2.0, 3.0]], ["x0", "x1[0]", "x1[1]"]),
        ([{"a": 1.0}, {"a": 2.0}], ["x0.a", "x1.a"]),
        (pd.Series({"k": 1.0, 7: 2.0}), ["k", "7"]),
        ({"s": pd.Series([1.0, 2.0], index=["u", "v"])}, ["s.u", "s.v"]),
        (pd.Series([1.0, 2.0], index=[("a", 1), ("a", 2)]), ["a, 1", "a, 2"]),
        (pd.DataFrame({"value": [1.0, 2.0]}, index=["u", "v"]), ["u", "v"]),
        ({3: 1.0, ("a", "b"): 2.0}, ["3", "('a', 'b')"]),
        ({"a": 1.0, "none": [], "nothing": {}}, ["a"]),
    ],
)
def test_names(tree: Any, names: list[str]) -> None:
    assert list(Structure(tree).names) == names


def test_arrays_of_other_libraries() -> None:
    structure = Structure({"a": Foreign([1.0, 2.0]), "b": Foreign(3.0)})
    assert structure.names == ("a[0]", "a[1]", "b")
    assert structure.flatten({"a": Foreign([1, 2]), "b": Foreign(3)}).tolist() == [1, 2, 3]
    assert Structure(Foreign([1.0, 2.0])).is_vector


def test_what_the_objective_gets() -> None:
    vector = Structure([1, 2])
    assert vector.is_vector
    assert isinstance(vector.unflatten(np.zeros(2)), np.ndarray)
    frame = pd.DataFrame({"value": [1.0, 2.0], "note": ["x", "y"]}, index=["u", "v"])
    made = Structure(frame).unflatten(np.array([5.0, 6.0]))
    assert made["value"].tolist() == [5.0, 6.0]
    assert made["note"].tolist() == ["x", "y"]
    assert frame["value"].tolist() == [1.0, 2.0]
    scalar = Structure(3.0).unflatten(np.array([4.0]))
    assert np.ndim(scalar) == 0
    mapping = Structure({"a": 1.0, "b": 2.0}).unflatten(np.array([3.0, 4.0]))
    assert mapping == {"a": 3.0, "b": 4.0}
    pair = Structure({"p": Pair(1.0, [2.0])}).unflatten(np.array([3.0, 4.0]))["p"]
    assert pair == Pair(3.0, [4.0])
    assert type(pair) is Pair


@pytest.mark.parametrize(
    ("tree", "error", "text"),
    [
        ({}, InvalidInputError, "empty"),
        ([], InvalidInputError, "empty"),
        (np.zeros((0, 2)), InvalidInputError, "empty"),
        ({"a": []}, InvalidInputError, "empty"),
        ("abc", InvalidTypeError, "must be a number, not str 'abc'"),
        (None, InvalidTypeError, "must be a number, not NoneType"),
        ({"a": "1"}, InvalidTypeError, "a must be a number"),
        ({"a": [1.0, None]}, InvalidTypeError, r"a\[1\] must be a number"),
        ([True, 1.0], InvalidTypeError, "x0 must be a number, not bool"),
        (np.array([True, False]), InvalidTypeError, "dtype bool"),
        (np.array(["a"]), InvalidTypeError, "dtype"),
        (np.array([1j]), InvalidTypeError, "dtype complex128"),
        ([1j, 2.0], InvalidTypeError, "must be a number, not complex"),
        ({1.0, 2.0}, InvalidTypeError, "must be a number, not set"),
        (object(), InvalidTypeError, "must be a number"),
        ({"a": {"b": 1.0}, "a.b": 2.0}, InvalidInputError, "two entries named 'a.b'"),
        (pd.Series([1.0, 2.0], index=["a", "a"]), InvalidInputError, "two entries named 'a'"),
        ({"f": pd.DataFrame({"start": [1.0]})}, InvalidInputError, "a column 'value'"),
    ],
)
def test_refused(tree: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        Structure(tree)


@pytest.mark.parametrize(
    ("example", "other", "text"),
    [
        ([1.0, 2.0], [1.0], r"shape \(2,\), not \(1,\)"),
        ([1.0, 2.0], {"a": 1.0}, "not a mapping"),
        ({"a": 1.0, "b": 2.0}, {"a": 1.0}, "'b' is missing"),
        ({"a": 1.0, "b": 2.0}, [1.0, 2.0], "must be a mapping, not list"),
        ({"alpha": 1.0}, {"alpa": 1.0}, "Did you mean 'alpha'"),
        ({"a": {"beta": 1.0}}, {"a": {"bta": 1.0}}, "unknown parameter 'a.bta'. Did you mean 'beta'"),
        ({"a": [1.0, [2.0]]}, {"a": [1.0]}, "a must have 2 entries, not 1"),
        ({"a": (1.0, {"b": 2.0})}, {"a": "xy"}, "a must be a sequence"),
        (pd.Series({"a": 1.0, "b": 2.0}), 5.0, "must be a Series"),
        (pd.Series({"a": 1.0, "b": 2.0}), {"a": 1.0}, "'b' is missing"),
        (pd.Series({"a": 1.0, "b": 2.0}), [1.0], "2 entries, not 1"),
        ({"a": 1.0}, {"a": np.array([1.0])}, "a must be a number"),
    ],
)
def test_another_form_is_refused(example: Any, other: Any, text: str) -> None:
    with pytest.raises((InvalidInputError, InvalidTypeError), match=text):
        Structure(example).flatten(other)


def test_a_part_goes_by_keys_names_and_one_number_for_an_array() -> None:
    structure = Structure({"a": 1.0, "b": [1.0, 2.0], "c": np.zeros((2, 2))})
    assert structure.partial({"a": 7}) == {0: 7}
    assert structure.partial({"b": 7}) == {1: 7, 2: 7}
    assert structure.partial({"b": [7, 8]}) == {1: 7, 2: 8}
    assert structure.partial({"b[1]": 7, "c[1, 0]": 8}) == {2: 7, 5: 8}
    assert structure.partial({"c": 7}) == dict.fromkeys(range(3, 7), 7)
    assert structure.partial(pd.Series({"a": 7})) == {0: 7}
    assert structure.partial({}) == {}
    vector = Structure([1.0, 2.0])
    assert vector.partial({"x1": 7}) == {1: 7}
    labels = Structure(pd.Series({"a": 1.0, 7: 2.0}))
    assert labels.partial({7: 3}) == {1: 3}
    assert labels.partial({"7": 3}) == {1: 3}


@pytest.mark.parametrize(
    ("tree", "part", "close"),
    [
        ({"alpha": 1.0, "beta": [1.0, 2.0]}, {"bta": 1.0}, "beta"),
        ({"alpha": 1.0, "beta": [1.0, 2.0]}, {"beta[2]": 1.0}, r"beta\[1\]"),
        (pd.Series({"rate": 1.0}), {"raet": 1.0}, "rate"),
    ],
)
def test_a_part_with_a_typo_gets_the_nearest_match(tree: Any, part: Any, close: str) -> None:
    with pytest.raises(UnknownNameError, match=f"Did you mean '{close}'"):
        Structure(tree).partial(part)
