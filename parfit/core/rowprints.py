"""What each of many datasets is, in 16 bytes: in operations on whole columns, not dataset by dataset.

    of_columns(arrays)  rows of numbers        ┐
    of_cells(cells)     things of any kind     ├──▶ (B, 2) of uint64
    of_datasets(items)  frames, Series, others ┘

The fingerprint of a dataset is its own: it does not depend on those that it was computed with.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from parfit.core.fingerprint import digest

__all__ = ["is_numeric", "of_cells", "of_columns", "of_datasets", "of_frame"]

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
    if flat.dtype.itemsize > 8:  # what a double leaves out of a longer number comes behind it
        short = flat.astype(np.float64)
        with np.errstate(invalid="ignore"):
            rest = np.where(np.isfinite(short), flat - short, 0).astype(np.float64)
        return np.hstack([short, rest]).view(np.uint64)
    return flat.astype(np.float64).view(np.uint64)


# ---- datasets of any kind

#: Frames that are put together at a time, so that they are not all in memory twice.
_TOGETHER = 4096


def of_cells(cells: Iterable[Any]) -> NDArray[np.uint64]:
    """The fingerprint of each of some things."""
    return _as_numbers([_of_text(cell) if type(cell) is str else digest(cell, strict=True) for cell in cells])


def _of_text(text: str) -> bytes:
    """What is hashed begins with no number, as that of all else does."""
    return hashlib.blake2b(b"text:" + text.encode("utf-8", "surrogatepass"), digest_size=8 * _LANES).digest()


def of_frame(frame: pd.DataFrame) -> NDArray[np.uint64]:
    """The fingerprint of each row of a frame, without its label; types and names of all columns are part of it."""
    made = digest([frame.columns, [str(dtype) for dtype in frame.dtypes], frame.attrs or None], strict=True)
    return of_columns(_columns_of(frame), len(frame)) ^ _as_numbers([made])


def of_datasets(items: Sequence[Any], *, alike: bool = False) -> NDArray[np.uint64]:
    """The fingerprint of each of some datasets: frames and Series of numbers and text together, others one by one.

    Where they are known to be `alike`, parts of one frame, what they have in common is not asked of each.
    """
    found = np.empty((len(items), _LANES), dtype=np.uint64)
    forms: dict[Any, list[int]] = {}
    if alike and len(items):
        forms[_form_of(items[0])] = list(range(len(items)))
    else:
        for i, item in enumerate(items):
            forms.setdefault(_form_of(item), []).append(i)
    for form, positions in forms.items():
        together = form is not None and _is_plain(items[positions[0]])
        for at in range(0, len(positions), _TOGETHER):
            some = positions[at : at + _TOGETHER]
            chosen = [items[i] for i in some]
            found[some] = _of_tables(chosen) if together else of_cells(chosen)
    return found


def _form_of(item: Any) -> tuple[Any, ...] | None:
    """What makes frames, or Series, alike; None for anything else."""
    kind = type(item)
    form: tuple[Any, ...]
    if kind is pd.Series:
        form = kind, type(item.name), item.name, item.dtype
    elif kind is pd.DataFrame:
        names = item.columns.tolist()
        form = kind, *map(type, names), *names, *item.dtypes.array, item.columns.dtype, *item.columns.names
    else:
        return None
    form = *form, bool(item.attrs), type(item.index) is pd.MultiIndex, item.index.dtype, item.index.name
    try:
        hash(form)
    except TypeError:  # an odd name
        return None
    return form


def _is_plain(item: Any) -> bool:
    """Whether a frame, or a Series, has nothing but numbers and texts, and so have those that are like it."""
    dtypes = [item.dtype] if isinstance(item, pd.Series) else list(item.dtypes)
    known = all(is_numeric(dtype) or str(dtype) in ("object", "str") for dtype in dtypes)
    return bool(dtypes) and known and not item.attrs and is_numeric(item.index.dtype)


def _of_tables(items: list[Any]) -> NDArray[np.uint64]:
    """The fingerprint of each of some frames, or Series, of one form: of their rows, in order."""
    first, lengths = items[0], np.array([len(item) for item in items])
    index = np.concatenate([item.index.to_numpy() for item in items])
    stops = np.cumsum(lengths)
    place = np.arange(len(index)) - np.repeat(stops - lengths, lengths)
    if isinstance(first, pd.DataFrame):
        form = digest([first.columns, first.dtypes.astype(str).tolist(), first.index[:0]])
        columns = _columns_of(pd.concat(items, ignore_index=True))
    else:
        form = digest([first.name, str(first.dtype), first.index[:0]])
        numeric = is_numeric(first.dtype)
        columns = [np.concatenate([item.to_numpy() for item in items])] if numeric else [of_cells(_chained(items))]
    rows = of_columns([place, index, *columns], len(index))
    # Mixed before they are added up: the place of a row in its frame counts together with what stands there.
    sums = np.zeros((len(index) + 1, _LANES), dtype=np.uint64)
    np.cumsum(of_columns([rows], len(rows)), axis=0, out=sums[1:])
    return of_columns([sums[stops] - sums[stops - lengths], lengths], len(items)) ^ _as_numbers([form])


def _chained(items: list[Any]) -> Iterable[Any]:
    for item in items:
        yield from item.array


def _columns_of(frame: pd.DataFrame) -> list[NDArray[Any]]:
    """The columns of a frame as numbers, or as the fingerprint of each cell."""
    dtypes = list(frame.dtypes)
    if len(set(dtypes)) == 1 and is_numeric(dtypes[0]) and dtypes[0].kind in "iufb":
        return [frame.to_numpy()]
    columns = (frame.iloc[:, i] for i in range(frame.shape[1]))
    return [column.to_numpy() if is_numeric(column.dtype) else of_cells(column) for column in columns]


def is_numeric(dtype: Any) -> bool:
    """Whether the values of a type are numbers or times of NumPy's, as long as they are."""
    return isinstance(dtype, np.dtype) and dtype.kind in "iufbmM"


def _as_numbers(digests: Sequence[bytes]) -> NDArray[np.uint64]:
    return np.frombuffer(b"".join(digests), dtype="<u8").reshape(-1, _LANES).astype(np.uint64)
