"""Which datasets are to be fitted, some at a time: those whose data are in memory together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["Windows", "cut"]

Positions = NDArray[np.intp]


class Windows:
    """Positions in ascending order, in parts, none of which is longer than a window of the data.

    Parameters
    ----------
    parts
        The positions, as arrays or ranges.
    size
        How many datasets, from a multiple of it on, are in memory together; None where all are.
    """

    def __init__(self, parts: Sequence[Positions | range], size: int | None = None) -> None:
        self._parts = [part for part in parts if len(part)]
        self.size = size
        self._length = sum(map(len, self._parts))

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[Positions]:
        for part in self._parts:
            yield from cut(part, self.size)

    def all(self) -> Positions:
        """All of them."""
        parts = [np.asarray(part, dtype=np.intp) for part in self._parts]
        return parts[0] if len(parts) == 1 else np.concatenate(parts) if parts else np.empty(0, dtype=np.intp)

    def __getitem__(self, place: int) -> int:
        for part in self._parts:
            if place < len(part):
                return int(part[place])
            place -= len(part)
        raise IndexError(place)


def cut(positions: Positions | range, size: int | None) -> Iterator[Positions]:
    """Positions in ascending order, those of each window by themselves."""
    if size is None:
        yield np.asarray(positions, dtype=np.intp)
        return
    at = 0
    while at < len(positions):
        limit = (int(positions[at]) // size + 1) * size
        if isinstance(positions, range):
            end = min(len(positions), at + limit - positions[at])
        else:
            end = int(np.searchsorted(positions, limit))
        yield np.asarray(positions[at:end], dtype=np.intp)
        at = end
