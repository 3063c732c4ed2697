"""Arrays with a common leading axis, or datasets under labels: the rule."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

import parfit
from parfit.core.data import read_data
from parfit.core.errors import InvalidInputError
from tests.core.foreign import Foreign


@pytest.mark.parametrize("entries", [1, 2, 3, 30])
@pytest.mark.parametrize("length", [1, 2, 7])
def test_what_a_mapping_is_does_not_depend_on_its_size(entries: int, length: int) -> None:
    keys = [f"k{i}" for i in range(entries)]
    two_axes = read_data({key: np.zeros((length, 2)) for key in keys})
    assert two_axes.labels.equals(pd.RangeIndex(length))
    assert "pandas.Series(data) is a dataset for each key" in two_axes.hint
    one_axis = read_data({key: np.zeros(length) for key in keys})
    assert one_axis.labels.tolist() == keys
    assert one_axis.hint == ""
    series = read_data(pd.Series({key: np.zeros((length, 2)) for key in keys}))
    assert series.labels.tolist() == keys
    assert len(read_data(tuple(np.zeros((length, 2)) for _ in keys))) == length
    assert len(read_data([np.zeros((length, 2)) for _ in keys])) == entries


@pytest.mark.parametrize("keys", [[1990, 1991], [("a", 1), ("b", 2)], ["a", 3]])
def test_arrays_with_a_common_axis_under_labels_are_refused(keys: list[Any]) -> None:
    with pytest.raises(InvalidInputError, match=r"two ways: pandas\.Series\(data\) is .*; a tuple of the arrays"):
        read_data({key: np.zeros((5, 2)) for key in keys})
    assert len(read_data(dict(zip(keys, [np.zeros((5, 2)), np.zeros((4, 2))], strict=True)))) == 2


def test_an_objective_for_datasets_under_labels_is_told() -> None:
    data = {"a": np.ones((3, 2)), "b": np.ones((3, 2))}
    with pytest.warns(
        parfit.ParfitWarning, match=r"every dataset raised .*pandas\.Series\(data\) is a dataset for each"
    ):
        parfit.fit(data, lambda p, d: d[:, 0] - p, [0.0], executor="serial")


def test_arrays_of_other_libraries() -> None:
    x = np.arange(6.0).reshape(3, 2)
    for data in (Foreign(x), {"x": Foreign(x), "y": x[:, 0]}, (Foreign(x), Foreign(x[:, 0]))):
        datasets = read_data(data)
        assert len(datasets) == 3
        assert datasets.owner is data
    assert read_data({"x": Foreign(x)}).one(1)["x"].tolist() == [2, 3]
