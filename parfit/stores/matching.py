"""Which rows of a file are those of the datasets of a call: by what was fitted, wherever it stands now."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from parfit.core.columns import Columns
from parfit.core.solution import Status
from parfit.stores.packing import Rows

__all__ = ["Matches", "matched", "merged"]

Integers = NDArray[np.intp]


class Matches(NamedTuple):
    """For each of B datasets, a row of the file, as an index; -1 for none.

    Attributes
    ----------
    rows : ndarray of int, shape (B,)
        What became of this very dataset.
    old : ndarray of int, shape (B,)
        For those without: what became of the one that stood in its place.
    known
        Whether any of the datasets was ever fitted, be it with other random numbers.
    """

    rows: Integers
    old: Integers
    known: bool


def merged(blocks: Sequence[Rows], n: int) -> Rows:
    """The rows of some blocks, each position once, in order: the later counts, and what was emptied is not there."""
    if not blocks:
        return Rows.blank(np.empty(0, np.intp), n)
    every = np.concatenate([block.positions for block in blocks])
    positions, backwards = np.unique(every[::-1], return_index=True)
    last = len(every) - 1 - backwards
    columns = Columns(len(positions), n)
    for block in blocks:
        columns.place(np.searchsorted(positions, block.positions), block.columns)
    labels = np.concatenate([block.labels for block in blocks])[last]
    fingerprints = np.concatenate([block.fingerprints for block in blocks])[last]
    seeded = np.concatenate([block.seeded for block in blocks])[last]
    starts = np.concatenate([block.starts for block in blocks])[last]
    rows = Rows(positions, labels, fingerprints, seeded, starts, columns)
    emptied = columns.has(Status.NOT_RUN)
    return rows.taken(np.flatnonzero(~emptied)) if emptied.any() else rows


def matched(held: Rows, fingerprints: NDArray[np.uint64], labels: NDArray[np.uint64]) -> Matches:
    """Find the rows of some datasets.

    Of equal ones, each has its own row: that at its position, else the next. A row whose random numbers came from a
    position is the dataset's there, and no other's.
    """
    count = len(fingerprints)
    rows, old = np.full(count, -1), np.full(count, -1)
    inside = np.flatnonzero(held.positions < count)
    at = held.positions[inside]
    # Rows that were moved out of the way keep the position that their random numbers came from.
    drew = np.flatnonzero((held.seeded >= 0) & (held.seeded < count))
    for chosen, place in ((drew, held.seeded[drew]), (inside, at)):
        fits = (held.fingerprints[chosen] == fingerprints[place]).all(axis=1)
        fits &= (held.seeded[chosen] < 0) | (held.seeded[chosen] == place)
        rows[place[fits]] = chosen[fits]
    taken = np.zeros(len(held.positions), dtype=bool)
    taken[rows[rows >= 0]] = True
    wants = np.flatnonzero(rows < 0)
    known = bool(taken.any())
    if len(wants) and not taken.all():
        left = np.flatnonzero(~taken)
        known |= bool(np.isin(_words(held.fingerprints[left]), _words(fingerprints[wants])).any())
        free = left[held.seeded[left] < 0]
        mine, theirs = _paired(_words(fingerprints[wants]), _words(held.fingerprints[free]))
        rows[wants[mine]] = free[theirs]
        taken[free[theirs]] = True
        old = _former(held, np.flatnonzero(~taken), labels, np.flatnonzero(rows < 0))
    return Matches(rows, old, known)


def _former(held: Rows, left: Integers, labels: NDArray[np.uint64], wants: Integers) -> Integers:
    """The rows of the file that no dataset has, for those datasets that have none: by label, else by position."""
    old = np.full(len(labels), -1)
    here = left[held.positions[left] < len(labels)]
    of_position = np.full(len(labels), -1)
    of_position[held.positions[here]] = here
    same = wants[(of_position[wants] >= 0) & (held.labels[of_position[wants]] == labels[wants])]
    old[same] = of_position[same]
    wants, left = np.setdiff1d(wants, same), np.setdiff1d(left, old[same])
    mine, theirs = _paired(labels[wants], held.labels[left])
    old[wants[mine]] = left[theirs]
    wants, left = wants[old[wants] < 0], np.setdiff1d(left, left[theirs])
    still = wants[np.isin(of_position[wants], left)]
    old[still] = of_position[still]
    return old


def _words(fingerprints: NDArray[np.uint64]) -> NDArray[Any]:
    """Fingerprints, shape (k, 2), as one thing each that can be sorted."""
    return np.ascontiguousarray(fingerprints).view([("a", np.uint64), ("b", np.uint64)]).reshape(-1)


def _paired(a: NDArray[Any], b: NDArray[Any]) -> tuple[Integers, Integers]:
    """Indices of equal entries of two arrays, each used once: the first with the first, the second with the second."""
    _, code = np.unique(np.concatenate([a, b]), return_inverse=True)
    (mine, first), (theirs, second) = _numbered(code[: len(a)]), _numbered(code[len(a) :])
    keys_of_a, keys_of_b = mine * (len(code) + 1) + first, theirs * (len(code) + 1) + second
    _, i, j = np.intersect1d(keys_of_a, keys_of_b, assume_unique=True, return_indices=True)
    return i, j


def _numbered(codes: Integers) -> tuple[Integers, Integers]:
    """Codes, and how many equal ones come before each."""
    order = np.argsort(codes, kind="stable")
    ordered = codes[order]
    begins = np.r_[True, ordered[1:] != ordered[:-1]] if len(codes) else np.empty(0, dtype=bool)
    starts = np.flatnonzero(begins)
    number = np.empty(len(codes), dtype=np.intp)
    number[order] = np.arange(len(codes)) - np.repeat(starts, np.diff(np.r_[starts, len(codes)]))
    return codes, number
