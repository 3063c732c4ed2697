"""`DataFrame.apply` as the referee: what it returns or raises, `apply_by_multiprocessing` returns or raises."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pandas as pd
from pandas.testing import assert_index_equal, assert_series_equal

import parfit.slices
from parfit import apply_by_multiprocessing

WORKERS = 2


class FixedSize:
    """Slices of one size, in the place of those that suit the measured cost."""

    size = 3

    def __init__(self, *_: Any) -> None: ...

    def next_size(self) -> int:
        return self.size

    def sent(self, n: int) -> None: ...

    def took(self, n: int, seconds: float) -> None: ...


def set_size(monkeypatch, size: int) -> None:
    """Have frames cut into slices of `size` rows."""
    monkeypatch.setattr(FixedSize, "size", size)
    monkeypatch.setattr(parfit.slices, "ChunkSizer", FixedSize)


def copied(df: pd.DataFrame) -> pd.DataFrame:
    """A frame of its own with the same layout in memory, which `copy` does not keep."""
    return pickle.loads(pickle.dumps(df, protocol=5))


def assert_same(found: Any, expected: Any) -> None:
    """Equal to the last bit, of the same type, down to the cells."""
    assert type(found) is type(expected), f"{type(found)} for {type(expected)}:\n{found}\n{expected}"
    if isinstance(expected, pd.DataFrame):
        assert_same(found.columns, expected.columns)
        assert_same(found.index, expected.index)
        assert found.flags == expected.flags
        for i in range(expected.shape[1]):
            assert_same(found.iloc[:, i], expected.iloc[:, i])
    elif isinstance(expected, pd.Series):
        assert_same(found.index, expected.index)
        assert found.dtype == expected.dtype
        if expected.dtype == object:
            assert_same(found.tolist(), expected.tolist())
            assert_same(found.name, expected.name)
        else:
            assert_series_equal(found, expected, check_exact=True, check_freq=True, check_flags=True)
    elif isinstance(expected, pd.Index):
        assert_index_equal(found, expected, exact=True, check_exact=True)
        assert_same(list(found.names), list(expected.names))
    elif isinstance(expected, np.ndarray):
        assert found.dtype == expected.dtype
        if expected.dtype == object:
            assert_same(found.tolist(), expected.tolist())
        else:
            np.testing.assert_array_equal(found, expected, strict=True)
    elif isinstance(expected, (list, tuple)):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_same(one, other)
    elif isinstance(expected, dict):
        assert_same(list(found.items()), list(expected.items()))
    else:
        same = found is expected or found == expected or (pd.isna(found) and pd.isna(expected))
        assert same, f"{found!r} for {expected!r}"


def judged(call: Any) -> Any:
    """What a call returns or raises."""
    try:
        return call()
    except Exception as exc:
        return exc


def check(df: pd.DataFrame, func: Any, *, executor: Any = None, axis: Any = 1, **kwargs: Any) -> Any:
    """Compare with the referee; what both returned, or raised."""
    expected = judged(lambda: copied(df).apply(func, axis=axis, **kwargs))
    mine = copied(df)
    workers = None if executor == "serial" else WORKERS
    found = judged(lambda: apply_by_multiprocessing(mine, func, workers, axis=axis, executor=executor, **kwargs))
    if isinstance(expected, Exception):
        assert type(found) is type(expected), f"{found!r} for {expected!r}"
        assert str(found) == str(expected)
    elif isinstance(found, Exception):
        raise found
    else:
        assert_same(found, expected)
    assert_same(mine, df)  # nothing that the function does reaches the caller's frame
    return found
