"""Payloads: nothing large is copied, and what arrives is writable."""

from __future__ import annotations

import functools
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from parfit.executors import payload as pl

MB = 1 << 20


def through(obj: Any) -> Any:
    """As over a wire: every segment is received into memory of its own."""
    n_stream, segments = pl.dumps(obj)
    return pl.loads((n_stream, [bytearray(segment) for segment in segments]))


def test_large_bytes_are_not_copied() -> None:
    data = os.urandom(MB)
    _, segments = pl.dumps({"small": 1, "data": [data], "more": "text" * 10})
    assert any(segment is data for segment in segments)


def test_arrays_are_not_copied() -> None:
    array = np.arange(MB // 8, dtype=float)
    n_stream, segments = pl.dumps({"array": array})
    assert any(np.shares_memory(np.frombuffer(part, float), array) for part in segments[n_stream:])
    assert sum(map(len, segments[:n_stream])) < 1000


def test_the_blocks_of_a_frame_are_not_copied() -> None:
    frame = pd.DataFrame(np.ones((MB // 80, 10)))
    n_stream, segments = pl.dumps(frame)
    assert any(np.shares_memory(np.frombuffer(part, float), frame.to_numpy()) for part in segments[n_stream:])


def test_what_arrives_lies_in_the_memory_that_was_received_and_is_writable() -> None:
    n_stream, segments = pl.dumps(np.arange(1000.0))
    received = [bytearray(segment) for segment in segments]
    array = pl.loads((n_stream, received))
    array[0] = 7.0
    assert np.frombuffer(received[n_stream], float)[0] == 7.0


@pytest.mark.parametrize(
    "obj",
    [
        None,
        b"",
        bytearray(b"abc"),
        os.urandom(3 * MB),
        [os.urandom(200_000) for _ in range(12)],
        np.empty(0),
        np.arange(24.0).reshape(2, 3, 4).transpose(2, 0, 1)[::2],
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.array([{"a": 1}, None], dtype=object),
        {"text": "ä" * 100_000, "nested": [(1, 2.5), {"x": np.arange(3)}]},
    ],
    ids=lambda obj: type(obj).__name__,
)
def test_round_trip(obj: Any, tmp_path: Path) -> None:
    pl.save_file(str(tmp_path / "file"), pl.dumps(obj))
    for again in (
        through(obj),
        pl.loads(pl.load_file(str(tmp_path / "file"))),
        pl.loads(pl.load_file(str(tmp_path / "file"), mapped=True)),
    ):
        if isinstance(obj, np.ndarray):
            np.testing.assert_array_equal(again, obj)
            assert again.dtype == obj.dtype
        else:
            assert pickle.dumps(again) == pickle.dumps(obj)


def test_a_frame_comes_back_as_it_was() -> None:
    frame = pd.DataFrame({"a": [1.0, 2.0], "b": ["x", None], "c": pd.to_datetime(["2000-01-01", "2001-01-01"])})
    frame.index = pd.MultiIndex.from_tuples([("x", 1), ("x", 1)])
    pd.testing.assert_frame_equal(through(frame), frame)


def test_lambdas_travel_by_value() -> None:
    offset = 3
    assert through(lambda x: x + offset)(4) == 7


def test_by_reference_is_refused_for_what_has_no_name() -> None:
    with pytest.raises((pickle.PicklingError, AttributeError)):
        pl.dumps(lambda x: x, by_value=False)


def test_mapped_arrays_are_aligned_and_private_to_the_reader(tmp_path: Path) -> None:
    path = str(tmp_path / "file")
    pl.save_file(path, pl.dumps({"odd": b"x" * 70_001, "array": np.zeros(1000), "other": np.ones(3, "f4")}))
    one, two = (pl.loads(pl.load_file(path, mapped=True)) for _ in range(2))
    assert one["array"].flags.aligned
    assert one["array"].ctypes.data % 64 == 0
    one["array"][:] = 5.0
    assert two["array"].max() == 0.0
    assert pl.loads(pl.load_file(path))["array"].max() == 0.0


def test_a_mapped_file_may_be_removed(tmp_path: Path) -> None:
    path = tmp_path / "file"
    pl.save_file(str(path), pl.dumps(np.arange(1000)))
    array = pl.loads(pl.load_file(str(path), mapped=True))
    path.unlink()
    assert array.sum() == 499_500


def test_functions_under_a_cache_travel_as_others_do() -> None:
    """By value from ``__main__``, which no worker has; by name from a module."""
    script = """
import functools, pickle, sys
from parfit.executors import payload as pl

@functools.lru_cache(maxsize=7, typed=True)
def base(x):
    return x + 1

class Loader:
    @functools.cache
    def load(self):
        return 5

base(1)
sent = pl.dumps(lambda x: (base(x), Loader().load()))
held = pl.dumps(base)
del base, Loader
arrived = pl.loads(sent)
assert arrived(2) == (3, 5)
cached = pl.loads(held)
assert cached(2) == 3
assert cached.cache_parameters() == {"maxsize": 7, "typed": True}
assert cached.cache_info().currsize == 1, "a cache is empty on arrival"
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert pl.loads(pl.dumps(_of_a_module)) is _of_a_module


@functools.cache
def _of_a_module() -> int:
    return 1
