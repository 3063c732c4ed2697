"""What each of many datasets is, in 16 bytes: rows of columns, in operations on whole columns."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["of_columns"]

#: A multiplier of splitmix64 (G.L. Steele, D. Lea, C.H. Flood, Fast splittable pseudorandom number generators, 2014).
_MIX = np.uint64(0xBF58476D1CE4E5B9)
_LANES = 2
#: Rows that go through one pass, of an array by rows or by columns: their numbers stay in the cache.
_SLICE, _LONG_SLICE = 2048, 16384


def of_columns(arrays: list[NDArray[Any]], rows: int) -> NDArray[np.uint64]:
    """The fingerprint of each row of some arrays of numbers, shape (rows, …) each; shape (rows, 2).

    Sums of each entry, mixed, times an odd number of its own: a change in one entry always shows.
    """
    found = np.zeros((_LANES, rows), dtype=np.uint64)
    begin = 0
    for array in arrays if rows else ():
        words = _words(array)
        count = words.shape[1]
        keys = np.frombuffer(
            b"".join(hashlib.blake2b(f"{begin + i}".encode(), digest_size=8 * _LANES).digest() for i in range(count)),
            dtype=np.uint64,
        ).reshape(count, _LANES) | np.uint64(1)
        begin += count
        (_add_by_rows if words.flags.c_contiguous and count > 1 else _add_by_columns)(found, words, keys)
    return np.ascontiguousarray(found.T)


def _add_by_rows(found: NDArray[np.uint64], words: NDArray[np.uint64], keys: NDArray[np.uint64]) -> None:
    for at in range(0, len(words), _SLICE):
        mixed = _mixed(words[at : at + _SLICE])
        for lane in range(_LANES):
            found[lane, at : at + _SLICE] += mixed @ keys[:, lane]


def _add_by_columns(found: NDArray[np.uint64], words: NDArray[np.uint64], keys: NDArray[np.uint64]) -> None:
    for at in range(0, len(words), _LONG_SLICE):
        for column, key in zip(words[at : at + _LONG_SLICE].T, keys, strict=True):
            mixed = _mixed(column)
            for lane in range(_LANES):
                found[lane, at : at + _LONG_SLICE] += mixed * key[lane]


def _mixed(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    mixed = (words ^ (words >> np.uint64(32))) * _MIX
    mixed ^= mixed >> np.uint64(29)
    return mixed


def _words(array: NDArray[Any]) -> NDArray[np.uint64]:
    """The bits of each row as whole numbers, shape (B, k)."""
    flat = array.reshape(len(array), -1)
    if flat.dtype.itemsize == 8:
        return flat.view(np.uint64)
    if flat.dtype.kind in "iub":
        return flat.astype(np.int64).view(np.uint64)
    return flat.astype(np.float64).view(np.uint64)
