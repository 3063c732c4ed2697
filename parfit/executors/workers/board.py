"""A few bytes that a worker writes and the parent reads: which task it is on, and since when.

The worker writes them for every task, which costs a tenth of a microsecond; the parent looks only when a
time limit is near or the worker has died. The page is a file's memory, so it outlives the worker.
"""

from __future__ import annotations

import mmap
import os
import tempfile
import time
from typing import NamedTuple

__all__ = ["Board", "Position", "create_file", "open_board"]

_SIZE = 64
_IDLE = -1
_EMPTY = b"\xff" * 8 + bytes(_SIZE - 8)


class Position(NamedTuple):
    """Where a worker is: the task's number in its block, and the time since it began, s."""

    task: int
    seconds: float


class Board:
    """The page of one worker, over a file of at least 64 bytes.

    `index` is written last and cleared first, so that a reader who sees the same index before and after
    has the time that belongs to it.
    """

    def __init__(self, fd: int) -> None:
        self._map = mmap.mmap(fd, _SIZE)
        self._view = memoryview(self._map)
        self._index = self._view[:8].cast("q")
        self._start = self._view[8:16].cast("d")

    def begin(self, index: int) -> None:
        """Say that task `index` begins now."""
        self._index[0] = _IDLE
        self._start[0] = time.monotonic()
        self._index[0] = index

    def idle(self) -> None:
        """Say that no task is running."""
        self._index[0] = _IDLE

    def read(self) -> Position | None:
        """The running task; None where none is."""
        for _ in range(3):
            index = self._index[0]
            start = self._start[0]
            if index == self._index[0]:
                return None if index == _IDLE else Position(index, time.monotonic() - start)
        return None

    def close(self) -> None:
        """Unmap the page."""
        self._index.release()
        self._start.release()
        self._view.release()
        self._map.close()


def create_file() -> int:
    """Open an anonymous file of the right size for a `Board`, and return its descriptor."""
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("parfit-board")
    else:
        fd, path = tempfile.mkstemp(prefix="parfit-board-")
        os.unlink(path)
    os.write(fd, _EMPTY)
    return fd


def open_board(path: str, *, create: bool = False) -> Board:
    """Open the board that lies in the file `path`."""
    fd = os.open(path, os.O_RDWR | (os.O_CREAT if create else 0), 0o600)
    try:
        if create:
            os.write(fd, _EMPTY)
        return Board(fd)
    finally:
        os.close(fd)
