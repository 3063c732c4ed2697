"""Datasets and per-dataset starts and bounds as tasks, cut into blocks as they are wanted."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from parfit.core.blocks import DataBlock, HandedOut
from parfit.core.data import Datasets
from parfit.core.parameters import Parameters
from parfit.core.protocols import Block, Tasks, Visitor
from parfit.core.windows import cut

__all__ = ["FitBlock", "FitTasks", "RowTask", "TasksInTurn"]

FloatArray = NDArray[np.float64]
#: start, lower, upper of some rows, shape (k, n) each, where rows have their own.
Extras = tuple[FloatArray | None, FloatArray | None, FloatArray | None]


class RowTask(NamedTuple):
    """One dataset on its way to a worker.

    Attributes
    ----------
    position
        Its place in the input, which its random numbers come from.
    dataset
        As the objective sees it.
    start, lower, upper
        Its own, where it has its own; shape (n,).
    """

    position: int
    dataset: Any
    start: FloatArray | None = None
    lower: FloatArray | None = None
    upper: FloatArray | None = None


@dataclass(frozen=True)
class FitBlock:
    """Some datasets with their positions, starts and bounds; `data` is None where the worker has it already."""

    positions: NDArray[np.intp]
    data: DataBlock | None
    extras: Extras

    def __len__(self) -> int:
        return len(self.positions)

    def part(self, start: int, stop: int) -> FitBlock:
        chosen = slice(start, stop)
        data = None if self.data is None else self.data.part(start, stop)
        low, mid, high = (None if e is None else e[chosen] for e in self.extras)
        return FitBlock(self.positions[chosen], data, (low, mid, high))

    def keys(self) -> list[Any]:
        found: list[Any] = self.positions.tolist()
        return found

    def visit(self, call: Visitor) -> None:
        keys = self.keys()
        own = any(e is not None for e in self.extras)

        def one(i: int, dataset: Any) -> None:
            if own:
                start, lower, upper = (None if e is None else e[i] for e in self.extras)
                call(keys[i], RowTask(keys[i], dataset, start, lower, upper))
            else:
                call(keys[i], RowTask(keys[i], dataset))

        if self.data is None:
            for i in range(len(keys)):
                one(i, None)
        else:
            self.data.visit(one)


class FitTasks:
    """The datasets at some positions, one task each, with the position as its key.

    Keeps to `parfit.core.protocols.Tasks`, and to `Keepable` for executors that leave the data in their
    workers.
    """

    def __init__(
        self,
        datasets: Datasets,
        parameters: Parameters,
        positions: NDArray[np.intp],
        chunk_size: int | None = None,
        *,
        with_data: bool = True,
    ) -> None:
        self._datasets = datasets
        self._parameters = parameters
        self._positions = positions
        self._chunk_size = chunk_size
        self._with_data = with_data
        self._taken = 0

    def __len__(self) -> int:
        """The number of datasets, which a call may run some of (`Keepable`)."""
        return len(self._datasets)

    def take(self, n: int) -> Block | None:
        """The next `n` tasks, or `chunk_size` where the user has set one."""
        chosen = self._positions[self._taken : self._taken + (self._chunk_size or n)]
        if not len(chosen):
            return None
        chosen = next(cut(chosen, self._datasets.window))  # no further than what is in memory together
        self._taken += len(chosen)
        p = self._parameters
        start, lower, upper = (v[chosen] if v.ndim == 2 else None for v in (p.start, p.lower, p.upper))
        data = self._datasets.block(chosen) if self._with_data else None
        return FitBlock(chosen, data, (start, lower, upper))

    # ---- for executors that keep the data

    @property
    def token(self) -> Any:
        """The user's own data, whose identity says whether a worker has it already."""
        return self._datasets.owner

    def datasets(self, start: int, stop: int) -> HandedOut:
        """The datasets at the positions `start` to `stop` of the whole data."""
        return HandedOut(self._datasets.block(np.arange(start, stop)), stop - start)

    def without_data(self) -> FitTasks:
        """The same tasks with None for each dataset."""
        return FitTasks(self._datasets, self._parameters, self._positions, self._chunk_size, with_data=False)


class TasksInTurn:
    """Tasks of several, one after another; they are made, and let go of, in their turn (`parfit.core.protocols.Tasks`).

    Parameters
    ----------
    each
        The tasks.
    count
        How many there are in all.
    """

    def __init__(self, each: Iterable[Tasks], count: int) -> None:
        self._each, self._count = iter(each), count
        self._now: Tasks | None = None

    def __len__(self) -> int:
        return self._count

    def take(self, n: int) -> Block | None:
        """The next `n` tasks or fewer, all of one."""
        while True:
            block = None if self._now is None else self._now.take(n)
            if block is not None:
                return block
            self._now = next(self._each, None)
            if self._now is None:
                return None
