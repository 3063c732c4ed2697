"""No datasets, one, and fewer than workers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

import parfit
from parfit.core.data import read_data

FRAME = pd.DataFrame(np.arange(12.0).reshape(4, 3), index=list("abcd"), columns=["x", "y", "z"])


def groups(by: Any) -> Any:
    return pd.DataFrame({"g": [], "h": [], "v": []}).groupby(by)


@pytest.mark.parametrize(
    "data",
    [
        FRAME.iloc[:0],
        pd.DataFrame(),
        groups("g"),
        {},
        [],
        iter(()),
        np.empty((0, 3)),
        {"x": np.empty((0, 3)), "y": np.empty(0)},
        pd.Series([], dtype=float),
    ],
    ids=lambda data: type(data).__name__,
)
@pytest.mark.parametrize("executor", ["serial", "processes"])
def test_no_datasets(data: Any, executor: str) -> None:
    fits = parfit.fit(data, lambda p, d: p, {"a": 1.0, "b": 2.0}, executor=executor, workers=None)
    assert len(fits) == 0
    assert list(fits.params.columns) == ["a", "b"]
    assert fits.params.dtypes.tolist() == [np.float64, np.float64]
    assert list(fits.errors.columns) == ["label", "type", "message", "traceback", "rerun"]


@pytest.mark.parametrize(
    "data",
    [FRAME.iloc[:0], pd.DataFrame(columns=["x", "y"]), groups("g"), {}, [], np.empty((0, 3))],
    ids=lambda data: type(data).__name__,
)
@pytest.mark.parametrize("method", [None, "brute"])
def test_no_datasets_and_a_start_for_each(data: Any, method: str | None) -> None:
    """There is no dataset to ask for the parameters."""
    given = {"bounds": {"a": (0, 1)}, "fixed": ["b"], "method": method, "executor": "serial"}
    fits = parfit.fit(data, lambda p, d: p, lambda d: {"a": 1.0, "b": 2.0}, **given)
    some = parfit.fit(data, lambda p, d: p, {"a": 1.0, "b": 1.0}, bounds={"a": (0, 1)}, executor="serial")
    assert len(fits) == 0
    assert fits.params.shape == (0, 0)
    for table in ("summary", "errors", "warnings", "status"):
        pd.testing.assert_index_equal(getattr(fits, table).index, getattr(some, table).index)
        assert getattr(fits, table).shape == getattr(some, table).shape
    assert len(fits.to_frame()) == len(fits.history) == 0
    assert "0 fits" in repr(fits)
    assert len(fits.refit("all")) == 0
    assert list(fits.refit("all", x0={"a": 1.0, "b": 2.0}).params.columns) == ["a", "b"]


def test_no_groups_by_two_keys() -> None:
    assert read_data(groups(["g", "h"])).labels.names == ["g", "h"]
    empty_starts = pd.DataFrame(columns=["a", "b"])
    assert list(parfit.fit(FRAME.iloc[:0], len, empty_starts, executor="serial").params.columns) == ["a", "b"]


def test_one_row_and_fewer_rows_than_workers() -> None:
    for n in (1, 2):
        fits = parfit.fit(FRAME.iloc[:n], lambda p, row: p - row.to_numpy(), [0.0] * 3, workers=3, executor="processes")
        assert np.array_equal(fits.params, FRAME.iloc[:n])
