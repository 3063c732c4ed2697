"""How many tasks to send next: cheap ones travel together, dear ones alone.

A chunk is meant to take about `TARGET_S` in its worker, by the cost of the tasks that came back last. It is
never more than a share of what is left, so that the workers end together, but for what takes less than `FLOOR_S`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Hashable, Iterable, Iterator, Sized
from dataclasses import dataclass
from typing import Any, Self

from parfit.core.protocols import Block, Tasks, Visitor

__all__ = ["Blocks", "ChunkSizer", "PairBlock", "as_tasks"]

#: Long against what a round trip costs (0.2 ms; 1 ms where all cores are busy), and no longer: what is under way is
#: lost with a Ctrl-C (benchmarks/rows_vs_peers.py, the first table; 0.02 s gives 2 to 5 % away).
TARGET_S = 0.05
#: What the workers may differ by at the end of a run; some five round trips.
FLOOR_S = 0.002
#: A chunk grows by this factor at the most, so that one cheap task does not send a thousand dear ones.
GROWTH = 8.0


class ChunkSizer:
    """Watches what tasks cost and says how many are to travel together.

    Parameters
    ----------
    workers
        The number of workers.
    total
        The number of tasks, where it is known.
    """

    def __init__(self, workers: int, total: int | None = None, target_s: float = TARGET_S) -> None:
        self._workers = workers
        self._left = total
        self._target_s = target_s
        self._cost_s = math.nan
        self._last = 1

    def next_size(self) -> int:
        """The number of tasks for the next chunk."""
        if math.isnan(self._cost_s):
            return 1
        wanted = self._target_s / max(self._cost_s, 1e-9)
        size = int(max(1.0, min(wanted, GROWTH * self._last)))
        if self._left is not None:
            share = max(math.ceil(self._left / (2 * self._workers)), int(FLOOR_S / max(self._cost_s, 1e-9)))
            size = max(1, min(size, share, self._left))
        return size

    def sent(self, n: int) -> None:
        """`n` tasks are on their way."""
        self._last = max(self._last, n)
        if self._left is not None:
            self._left = max(0, self._left - n)

    def took(self, n: int, seconds: float) -> None:
        """`n` tasks took `seconds` in all. A rise counts at once, a fall by halves."""
        if n == 0:
            return
        cost = seconds / n
        if math.isnan(self._cost_s) or cost > self._cost_s:
            self._cost_s = cost
            self._last = max(1, min(self._last, int(self._target_s / max(cost, 1e-9)) or 1))
        else:
            self._cost_s = 0.5 * (self._cost_s + cost)


class Blocks:
    """Tasks in blocks, cut when they are wanted.

    Parameters
    ----------
    tasks
        Pairs or `Tasks`; pulled lazily.
    workers
        The number of workers.
    sizer
        What is known of the tasks' cost.
    """

    def __init__(
        self,
        tasks: Tasks | Iterable[tuple[Hashable, Any]],
        workers: int,
        sizer: ChunkSizer | None = None,
    ) -> None:
        source, total = as_tasks(tasks)
        self._source: Tasks | None = source
        self._sizer = ChunkSizer(workers, total) if sizer is None else sizer

    def next(self) -> Block | None:
        """The next; None where there are no more."""
        if self._source is None:
            return None
        block = self._source.take(self._sizer.next_size())
        if block is None:
            self._source = None
            return None
        self._sizer.sent(len(block))
        return block

    def took(self, n: int, seconds: float) -> None:
        """`n` tasks took `seconds` in all."""
        self._sizer.took(n, seconds)

    def end(self) -> None:
        """Pull no more tasks."""
        self._source = None

    @property
    def ended(self) -> bool:
        """Whether there are no more for sure."""
        return self._source is None


@dataclass(frozen=True)
class PairBlock:
    """Tasks as pairs of key and payload."""

    pairs: list[tuple[Any, Any]]

    def __len__(self) -> int:
        return len(self.pairs)

    def part(self, start: int, stop: int) -> Self:
        return type(self)(self.pairs[start:stop])

    def keys(self) -> list[Any]:
        return [key for key, _ in self.pairs]

    def visit(self, call: Visitor) -> None:
        for key, payload in self.pairs:
            call(key, payload)


class _PairTasks:
    """An iterable of pairs as `Tasks`."""

    def __init__(self, pairs: Iterable[tuple[Hashable, Any]]) -> None:
        self._pairs: Iterator[tuple[Hashable, Any]] = iter(pairs)

    def take(self, n: int) -> Block | None:
        pairs = list(itertools.islice(self._pairs, n))
        return PairBlock(pairs) if pairs else None


def as_tasks(tasks: Tasks | Iterable[tuple[Hashable, Any]]) -> tuple[Tasks, int | None]:
    """`tasks` in the form of `Tasks`, and their number where it is known without running through them."""
    total = len(tasks) if isinstance(tasks, Sized) else None
    return (tasks if isinstance(tasks, Tasks) else _PairTasks(tasks)), total
