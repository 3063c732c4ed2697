"""From labels, masks and positions, as users of pandas write them, to positions of datasets."""

from __future__ import annotations

import warnings
from collections.abc import Hashable
from typing import Any, NoReturn

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from parfit.core.errors import InvalidInputError, InvalidTypeError, nearest, shown

__all__ = ["position_of", "select", "unstorable"]

Positions = NDArray[np.intp]

#: Labels beyond this are not compared with a mistyped one.
_COMPARED = 10_000


def position_of(label: Hashable, labels: pd.Index[Any]) -> int:
    """The position of the one dataset with a label.

    Raises
    ------
    KeyError
        Where there is none; names the nearest label.
    InvalidInputError
        Where there are several.
    """
    positions = _positions_of(label, labels)
    if len(positions) != 1:
        raise InvalidInputError(
            f"{len(positions)} datasets have the label {shown(label)}, at the positions "
            f"{positions[:5].tolist()}; `fits.row(position)` gives each"
        )
    return int(positions[0])


def _positions_of(label: Hashable, labels: pd.Index[Any]) -> Positions:
    found: Any = None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", pd.errors.PerformanceWarning)  # an unsorted MultiIndex
        try:
            found = labels.get_loc(label)
        except (KeyError, TypeError, pd.errors.InvalidIndexError):
            pass
    if found is None:
        _refuse_label(label, labels)
    return np.atleast_1d(np.arange(len(labels))[found])


def _refuse_label(label: Any, labels: pd.Index[Any]) -> NoReturn:
    close = nearest(label, labels[:_COMPARED])
    hint = f"; did you mean {close}?" if close is not None else ""
    if close is None and isinstance(label, (int, np.integer)) and -len(labels) <= label < len(labels):
        hint = f"; `fits.row({label})` takes a position"
    if isinstance(label, (slice, list, np.ndarray, pd.Series, pd.Index)):
        hint = "; it takes one label (`fits.params` and `fits.summary` are frames, for more)"
    raise KeyError(f"no dataset has the label {shown(label)}{hint}")


def select(which: Any, labels: pd.Index[Any], by: str) -> Positions:
    """The positions, in order and each once, that a mask, labels or positions choose.

    Parameters
    ----------
    which
        A boolean mask or Series, one label, or a list, array, Index or Series of labels; positions likewise.
    labels
        The labels of all datasets.
    by
        ``"label"`` or ``"position"``: what a list holds.
    """
    if isinstance(which, pd.Series):
        which = _aligned(which, labels) if pd.api.types.is_bool_dtype(which.dtype) else which.to_numpy()
    if isinstance(which, tuple) and (by == "position" or (labels.nlevels == 1 and which not in labels)):
        which = list(which)
    if isinstance(which, (slice, dict)):
        raise InvalidTypeError(f"`which` must be a mask, labels or positions, not a {type(which).__name__}")
    many = isinstance(which, (list, np.ndarray, pd.Index, set, frozenset))
    chosen: list[Any] = list(which) if many else [which]
    if chosen and all(isinstance(value, (bool, np.bool_)) for value in chosen) and many:
        if len(chosen) != len(labels):
            raise InvalidInputError(f"a mask needs {len(labels)} entries, not {len(chosen)}")
        return np.flatnonzero(chosen)
    if by == "position":
        return _checked(chosen, len(labels))
    parts = [_positions_of(label, labels) for label in chosen]
    return np.unique(np.concatenate(parts)) if parts else np.array([], dtype=np.intp)


def _aligned(mask: pd.Series[bool], labels: pd.Index[Any]) -> NDArray[np.bool_]:
    """A boolean Series in the order of the datasets, as `DataFrame.loc` takes it."""
    if len(mask) != len(labels):
        raise InvalidInputError(f"a mask needs {len(labels)} entries, not {len(mask)}")
    if not mask.index.equals(labels):
        if not (mask.index.is_unique and labels.is_unique and len(labels.difference(mask.index)) == 0):
            raise InvalidInputError(
                "a mask as a Series has the labels of the datasets as its index; `.to_numpy()` has none"
            )
        mask = mask.reindex(labels)
    return mask.to_numpy(dtype=bool, na_value=False)


def _checked(positions: list[Any], n: int) -> Positions:
    if not all(isinstance(p, (int, np.integer)) and not isinstance(p, bool) for p in positions):
        raise InvalidTypeError(f"positions must be whole numbers, not {positions!r}")
    found = np.array(positions, dtype=np.intp)
    if ((found < -n) | (found >= n)).any():
        raise InvalidInputError(
            f"positions must be below {n}, and {found.max()} is not" if n else "there are no datasets"
        )
    return np.unique(found % n) if n else found


def unstorable(labels: pd.Index[Any]) -> str | None:
    """The types of the labels, in words, where a column of one type cannot hold them; None where they are not mixed."""
    for level in range(labels.nlevels):
        kinds = sorted({type(label).__name__ for label in labels.get_level_values(level).astype(object)})
        if len(kinds) > 1:
            return f"{', '.join(kinds[:-1])} and {kinds[-1]}"
    return None
