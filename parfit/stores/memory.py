"""In memory, for as long as the result lives."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from parfit.core.columns import Columns
from parfit.core.protocols import Store
from parfit.core.solution import Outcome, Solutions, Status

__all__ = ["MemoryStore"]


class MemoryStore(Store):
    """Columns in memory.

    Parameters
    ----------
    rows, n
        The number of datasets and of parameters.
    columns
        What is there already, in place of empty columns.
    """

    def __init__(self, rows: int, n: int, columns: Columns | None = None) -> None:
        self._columns = Columns(rows, n) if columns is None else columns

    def put(self, position: int, outcome: Outcome) -> None:
        self._columns.put(position, outcome)

    def put_many(self, solutions: Solutions) -> None:
        self._columns.put_many(solutions)

    def done(self) -> Iterable[int]:
        done: list[int] = np.flatnonzero(~self._columns.has(Status.NOT_RUN)).tolist()
        return done

    def columns(self) -> Columns:
        return self._columns
