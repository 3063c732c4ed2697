"""Blocks through the compiled program on several threads at once: XLA lets go of the interpreter while it computes.

    fresh rows ─▶ block ─┐
                         ├─▶ a stream (thread): Loop.run ─▶ finished rows ─▶ conclude ─▶ queue ─▶ the caller
    left-over rows ──────┘            └─▶ few that still run: left over, to be merged with others' ─┘

Rows that take long are moved together, so that a few of them in every block do not hold up all.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parfit.batched.blocks import Block, Finished, merged
from parfit.batched.loop import Loop

__all__ = ["run_streams"]

Positions = NDArray[np.intp]
#: How long an interrupt waits for the streams to stop, s.
_STOPPING_S = 2.0
#: The most rows of a block that wait for others, in chunks.
_WAITING = 4


class _Work:
    """What is left to do, shared by the streams."""

    def __init__(self, chunks: Sequence[Positions], read: Callable[[Positions], Block], loop: Loop) -> None:
        self._fresh = deque(chunks)
        self._read = read
        self._loop = loop
        self._left: list[Block] = []
        self._lock = threading.Lock()
        self.stopped = False

    def next(self) -> Block | None:
        """The next block; None where nothing is left to do."""
        with self._lock:
            if self.stopped:
                return None
            if self._left and (not self._fresh or sum(map(len, self._left)) >= 2 * _WAITING * self._loop.width):
                return merged(self._taken())
            if not self._fresh:
                return None
            positions = self._fresh.popleft()
        return self._read(positions)

    def _taken(self) -> list[Block]:
        """As many of the rows that wait as one block may hold."""
        blocks = [self._left.pop()]
        while self._left and sum(map(len, blocks)) + len(self._left[-1]) <= self._loop.most:
            blocks.append(self._left.pop())
        return blocks

    def leave(self, rows: int) -> bool:
        """Whether so few rows of a block are to wait for others."""
        return rows <= _WAITING * self._loop.width and bool(self._fresh)

    def put_back(self, block: Block) -> None:
        """Rows that wait."""
        with self._lock:
            self._left.append(block)


def run_streams(
    loop: Loop,
    chunks: Sequence[Positions],
    read: Callable[[Positions], Block],
    conclude: Callable[[Finished], Any],
    streams: int,
) -> Iterator[Any]:
    """Take all rows to their end, and yield what `conclude` makes of those that have ended, as they do.

    Parameters
    ----------
    chunks
        The positions of the rows, a block each.
    read
        Makes a block of positions.
    streams
        How many threads.
    """
    work = _Work(chunks, read, loop)
    results: queue.SimpleQueue[Any] = queue.SimpleQueue()
    n = max(1, min(streams, len(chunks)))
    threads = [threading.Thread(target=_stream, args=(work, loop, conclude, results), daemon=True) for _ in range(n)]
    for thread in threads:
        thread.start()
    try:
        running = n
        while running:
            found = results.get()
            if found is None:
                running -= 1
            elif isinstance(found, BaseException):
                raise found
            else:
                yield found
    finally:
        work.stopped = True
        for thread in threads:
            thread.join(_STOPPING_S)


def _stream(work: _Work, loop: Loop, conclude: Callable[[Finished], Any], results: queue.SimpleQueue[Any]) -> None:
    try:
        while (block := work.next()) is not None:
            for part in loop.run(block, lambda: work.stopped, work.leave):
                if isinstance(part, Block):
                    work.put_back(part)
                else:
                    results.put(conclude(part))
        results.put(None)
    except BaseException as exc:  # noqa: BLE001 - raised again in the caller's thread
        results.put(exc)
