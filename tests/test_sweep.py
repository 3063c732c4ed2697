"""`sweep`: one function over many parameter sets; every set has its row, whatever it did."""

from __future__ import annotations

import functools
import os
import signal
import time
import warnings

import numpy as np
import pandas as pd
import pytest
from pandas.testing import assert_frame_equal

from parfit import InvalidInputError, InvalidTypeError, ParfitWarning, UnknownNameError, sweep
from tests.workers import executors_here


def without_times(found):
    assert found["seconds"].dtype == float
    assert (found["seconds"] >= 0).all()
    return found.drop(columns="seconds")


def table(**columns):
    n = len(next(iter(columns.values())))
    return pd.DataFrame({**columns, "status": ["done"] * n, "message": [""] * n})


def product(a, b):
    return a * b


# ---- parameter sets


@pytest.mark.parametrize(
    "sets",
    [
        {"a": [1, 2], "b": [10.5, 20.5]},
        {"a": (1, 2), "b": np.array([10.5, 20.5])},
        {"a": range(1, 3), "b": pd.Series([10.5, 20.5], index=["x", "y"])},
        {"a": (n for n in (1, 2)), "b": {10.5: "keys", 20.5: "of a dict"}.keys()},
        [{"a": 1, "b": 10.5}, {"a": 1, "b": 20.5}, {"b": 10.5, "a": 2}, {"a": 2, "b": 20.5}],
        pd.DataFrame({"a": [1, 1, 2, 2], "b": [10.5, 20.5, 10.5, 20.5]}),
        ({"a": a, "b": b} for a in (1, 2) for b in (10.5, 20.5)),
    ],
    ids=["lists", "tuple_and_array", "range_and_series", "generator_and_keys", "mappings", "frame", "generator"],
)
def test_sets_in_every_form(sets):
    found = without_times(sweep(product, sets, workers=2))
    expected = table(a=[1, 1, 2, 2], b=[10.5, 20.5, 10.5, 20.5], value=[10.5, 20.5, 21.0, 41.0])
    assert_frame_equal(found, expected)


def test_one_value_of_a_grid_needs_no_list():
    found = sweep(lambda a, b, c: f"{a}{b}{c}", {"a": "one", "b": [1, 2], "c": None}, executor="serial")
    assert found["value"].tolist() == ["one1None", "one2None"]


def test_the_index_of_a_frame_is_kept():
    for index in (["x", "x", "y"], pd.MultiIndex.from_tuples([(1, 2), (1, 3), (2, 2)]), pd.RangeIndex(3, 9, 2)):
        sets = pd.DataFrame({"a": [1, 2, 3]}, index=index)
        found = sweep(lambda a: a, sets, executor="serial")
        pd.testing.assert_index_equal(found.index, sets.index)
        assert found["value"].tolist() == [1, 2, 3]


def test_the_function_is_called_with_the_values_as_they_are():
    values = [1, None, "text", 2.5, [1, 2], {"k": 1}, True]
    kinds = [type(value).__name__ for value in values]
    sets = [{"a": value} for value in values]
    assert sweep(lambda a: type(a).__name__, sets, executor="serial")["value"].tolist() == kinds
    assert sweep(lambda a: type(a).__name__, {"a": values}, executor="serial")["value"].tolist() == kinds
    frame = pd.DataFrame({"a": [1, 2], "b": [0.5, 1.5]})
    assert sweep(lambda a, b: type(a).__name__, frame, executor="serial")["value"].tolist() == ["int", "int"]


def test_no_sets_and_sets_of_nothing():
    for nothing in ([], {"a": []}, pd.DataFrame({"a": []})):
        found = sweep(lambda a: a, nothing, workers=2)
        assert len(found) == 0
        assert list(found.columns)[-4:] == ["value", "status", "message", "seconds"]
    assert sweep(lambda: 3, {}, executor="serial")["value"].tolist() == [3]
    assert sweep(lambda: 3, pd.DataFrame(index=["x", "y"]), executor="serial")["value"].to_dict() == {"x": 3, "y": 3}


# ---- values


def test_a_mapping_or_series_becomes_columns():
    for kind in (dict, pd.Series):
        found = sweep(lambda a, kind=kind: kind({"double": a * 2, "text": f"t{a}"}), {"a": [1, 2]}, executor="serial")
        assert_frame_equal(without_times(found), table(a=[1, 2], double=[2, 4], text=["t1", "t2"]))


def test_entries_that_only_some_sets_return():
    found = sweep(lambda a: {"even": a} if a % 2 == 0 else {"odd": -a}, {"a": range(4)}, executor="serial")
    assert_frame_equal(
        without_times(found),
        table(a=range(4), even=[0, np.nan, 2, np.nan], odd=[np.nan, -1, np.nan, -3]),
    )


@pytest.mark.parametrize(
    ("function", "dtype"),
    [
        (lambda a: a, "int64"),
        (lambda a: a / 2, "float64"),
        (lambda a: np.float64(a), "float64"),
        (lambda a: np.array(a / 2), "float64"),
        (lambda a: a > 1, "bool"),
        (lambda a: pd.Timestamp(2000 + a, 1, 1), "datetime64"),
        (lambda a: np.arange(a), "object"),
        (lambda a: [a] * a, "object"),
        (lambda a: None, "object"),
        (lambda a: pd.DataFrame({"x": [a]}), "object"),
        (lambda a: {"x": a} if a > 1 else a, "object"),
    ],
    ids=[
        *("int", "float", "numpy", "array_of_none_dimension", "bool", "date"),
        *("arrays", "lists", "none", "frames", "mapping_or_number"),
    ],
)
def test_values_of_every_kind(function, dtype):
    found = sweep(function, {"a": [1, 2, 3]}, executor="serial")
    assert str(found["value"].dtype).startswith(dtype)
    for a, value in zip((1, 2, 3), found["value"], strict=True):
        expected = function(a)
        assert type(value) is type(expected) or dtype != "object"
        assert np.array_equal(value, expected) if dtype != "object" else str(value) == str(expected)


def test_an_entry_whose_name_is_taken_keeps_its_value():
    found = sweep(lambda a: {"a": a * 2, "status": "mine", "other": 1}, {"a": [1, 2]}, executor="serial")
    assert list(found.columns) == ["a", "a_result", "status_result", "other", "status", "message", "seconds"]
    assert found["a_result"].tolist() == [2, 4]
    found = sweep(lambda value: value * 2, {"value": [1, 2]}, executor="serial")
    assert found["value"].tolist() == [1, 2]
    assert found["value_result"].tolist() == [2, 4]


# ---- what goes wrong


def test_every_set_has_its_row_whatever_it_does():
    def function(a):
        if a == 1:
            raise ValueError("not this one")
        if a == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        while a == 3:
            time.sleep(0.05)
        return a * 10

    found = sweep(function, {"a": range(6)}, workers=2, timeout=1.0)
    assert found["status"].tolist() == ["done", "error", "worker_lost", "timeout", "done", "done"]
    assert found["value"].fillna(-1).tolist() == [0, -1, -1, -1, 40, 50]
    messages = found["message"]
    assert messages[0] == ""
    assert messages[1] == "ValueError: not this one"
    assert messages[2].startswith("WorkerLostError: the worker process that ran this task died (killed by SIGKILL)")
    assert "timeout=1 s" in messages[3]


def test_columns_are_there_where_some_sets_fail():
    def function(a):
        if a == 0:
            raise ValueError("not this one")
        return {"x": a, "y": "text"}

    found = sweep(function, {"a": range(3)}, executor="serial")
    assert found["x"].fillna(-1).tolist() == [-1, 1, 2]
    assert found["y"].isna().tolist() == [True, False, False]
    assert sweep(lambda a: 1 // 0, {"a": [1]}, executor="serial").loc[0, "message"].startswith("ZeroDivisionError: ")


@pytest.mark.parametrize("executor", ["processes", "serial"])
def test_on_error_raise_says_with_what_it_was_called(executor):
    with pytest.raises(ZeroDivisionError) as caught:
        sweep(lambda a, b: a // b, {"a": [3], "b": [1, 0, 2]}, executor=executor, on_error="raise")
    assert caught.value.__notes__ == ["with a=3, b=0"]


def test_warnings_are_told_in_one():
    def function(a):
        warnings.warn("odd", RuntimeWarning, stacklevel=1)
        return a

    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        sweep(function, {"a": range(5)}, workers=2)
    assert [str(w.message) for w in told] == ["function gave warnings: RuntimeWarning: odd (5)"]
    assert told[0].category is ParfitWarning
    assert told[0].filename == __file__


def test_one_warning_where_every_set_fails_alike():
    def function(a):
        raise LookupError(f"no {a}")

    with pytest.warns(ParfitWarning) as told:
        found = sweep(function, {"a": range(3)}, executor="serial")
    assert [str(w.message) for w in told] == [
        "every parameter set raised LookupError, the first of them: no 0; see the column 'message'"
    ]
    assert told[0].filename == __file__
    assert found["status"].tolist() == ["error"] * 3
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sweep(lambda a: 1 // a, {"a": [0, 1]}, executor="serial")  # not all
        sweep(lambda a: [][a] if a else {}[a], {"a": [0, 1]}, executor="serial")  # not alike
        sweep(lambda a: 1 // a, {"a": [0]}, executor="serial")  # no more than one


def test_functions_whose_names_are_not_known_are_called_all_the_same():
    class Adds:
        def __call__(self, a, **more):
            return a + sum(more.values())

    assert sweep(Adds(), {"a": [1], "other": [2]}, executor="serial")["value"].tolist() == [3]
    assert sweep(dict, {"a": [1]}, executor="serial").columns[:2].tolist() == ["a", "a_result"]
    assert sweep(functools.partial(product, b=3), {"a": [2]}, executor="serial")["value"].tolist() == [6]
    assert sweep(lambda a, b=1: a + b, [{"a": 1}], executor="serial")["value"].tolist() == [2]
    assert len(sweep(product, [], executor="serial")) == 0


def test_progress_counts_sets():
    seen = []
    sweep(lambda a: a, {"a": range(7)}, executor="serial", progress=lambda *at: seen.append(at))
    assert seen == [(n, 7) for n in range(1, 8)]


@pytest.mark.slow
@pytest.mark.parametrize("executor", executors_here())
def test_every_executor_by_name(executor):
    by = 10
    found = sweep(lambda a: a * by, {"a": range(20)}, executor=executor, workers=None if executor == "serial" else 2)
    assert found["value"].tolist() == list(range(0, 200, 10))


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ((3, {"a": [1]}), InvalidTypeError, "function must be callable, not int"),
        ((product, 3), InvalidTypeError, "a mapping of sequences"),
        (
            (product, [1, 2]),
            InvalidTypeError,
            r"{'a': \[1, 2\], .*a sequence of mappings, \[{'a': 1.*its item 1 is int",
        ),
        ((product, "a"), InvalidTypeError, "a sequence of mappings, .*; not str"),
        ((product, [{"a": 1}, None]), InvalidTypeError, "its item None is NoneType"),
        ((product, {"a": [1], "c": [1]}), UnknownNameError, r"unknown parameter of product\(\) in parameter_sets: 'c'"),
        ((lambda height, width: 1, {"heigth": [1]}), UnknownNameError, "Did you mean 'height'"),
        ((lambda *values: 1, {"a": [1]}), UnknownNameError, "takes no parameter by name"),
        ((lambda a, /: 1, {"b": [1]}), UnknownNameError, "takes no parameter by name"),
        ((lambda a, /, b=2: 1, {"b": [1]}), InvalidInputError, "'a' can only be given by its position"),
        ((product, {"a": [1]}), InvalidInputError, r"product\(\) needs 'b', which parameter_sets does not have"),
        ((product, [{"a": 1}, {"b": 1}]), InvalidInputError, "needs the same names"),
        ((product, {"status": [1]}), InvalidInputError, "cannot be named 'status'"),
        ((product, pd.DataFrame([[1, 2]], columns=["a", "a"])), InvalidInputError, "two columns of the name 'a'"),
    ],
)
def test_what_it_cannot_be_called_with(arguments, error, says):
    with pytest.raises(error, match=says):
        sweep(*arguments, executor="serial")


def test_a_grid_that_would_fill_the_memory_is_refused():
    with pytest.raises(InvalidInputError, match=r"has 10,000,000,000 combinations \(100 x 100 x 100 x 100 x 100\)"):
        sweep(lambda **_: 1, {name: range(100) for name in "abcde"})


@pytest.mark.parametrize(
    ("option", "error", "says"),
    [
        ({"timeout": "3"}, InvalidTypeError, "timeout must be a number of seconds or None, not '3'"),
        ({"timeout": 0}, InvalidInputError, "timeout must be more than 0 s"),
        ({"retries": -1}, InvalidInputError, "retries must be 0 or more"),
        ({"retries": "a"}, InvalidTypeError, "retries must be a whole number, not 'a'"),
    ],
    ids=str,
)
def test_limits_that_are_none(option, error, says):
    with pytest.raises(error, match=says):
        sweep(lambda a: a, {"a": [1]}, **option)


def test_options_that_do_not_exist():
    with pytest.raises(UnknownNameError, match="Did you mean 'record'"):
        sweep(product, {"a": [1]}, on_error="recrod")
    with pytest.raises(InvalidInputError, match="cannot stop a task"):
        sweep(product, {"a": [1], "b": [2]}, executor="serial", timeout=1)
