"""A private folder that the caller and the workers on its machine have in common, while an executor is open.

    place, setup, function-<k>   caller ─▶ workers   payloads, written once, mapped by each worker
    block-<n>                    caller ─▶ worker    a payload too large to go by hand
    reply-<n>                    worker ─▶ caller    the same, back
    <pid>.board                  worker ─▶ caller    which task it is on, since when; outlives the worker
    <pid>.late                   worker ─▶ caller    not empty: its watchdog ended it, for a task over its limit
    lifeline                     a FIFO whose writing end only the caller holds: it closes when the caller dies

What passes through the queues of a foreign pool is thereby a few hundred bytes a call. That is not for speed:
a pipe write of that size is all or nothing, whereas a worker killed in the middle of a long one leaves its pool
waiting for the rest, or its feeder thread for a reader, for ever (cpython#94777).
"""

from __future__ import annotations

import contextlib
import functools
import os
import platform
import shutil
import tempfile
import weakref
from typing import NamedTuple

from parfit.executors import payload as pl
from parfit.executors.workers.board import Board, Position, open_board

__all__ = [
    "BETWEEN",
    "IDLE",
    "SETUP",
    "Packed",
    "Spool",
    "Whereabouts",
    "board_code",
    "open_lifeline",
    "pack",
    "unpack",
]

#: Payloads up to this size go by hand, bytes.
IN_HAND = 512
#: On a board: the worker loads the setup or the function.
SETUP = -2
#: The worker waits.
IDLE = -1
#: As the index of a task: the worker has the block, but is on none of its tasks.
BETWEEN = -1

#: A payload in hand, or the name of the file that it is in.
Packed = pl.Payload | str


class Whereabouts(NamedTuple):
    """Where a worker was: the number of its block (or `SETUP`, or `IDLE`), the task in it, and since when, s."""

    block: int
    task: int
    seconds: float


def board_code(block: int, task: int) -> int:
    """The number that says on a board which task of which block is running."""
    return (block << 32) + task + 1


def pack(payload: pl.Payload, folder: str | None, name: str) -> Packed:
    """A payload on its way: in hand, or where it is large and there is a folder, in a file."""
    n_stream, segments = payload
    if folder is not None and sum(map(len, segments)) > IN_HAND:
        with contextlib.suppress(OSError):  # the disk is full: in hand, then
            pl.save_file(os.path.join(folder, name), payload)
            return name
    # As bytearrays, so that arrays made of them can be written to, as everywhere else.
    return n_stream, [bytes(part) if i < n_stream else bytearray(part) for i, part in enumerate(segments)]


def unpack(packed: Packed, folder: str) -> pl.Payload:
    """A payload that has arrived. A file is removed: it was for one reader. Raises `OSError` where it is missing."""
    if not isinstance(packed, str):
        return packed
    path = os.path.join(folder, packed)
    payload = pl.load_file(path)
    with contextlib.suppress(OSError):
        os.unlink(path)
    return payload


def open_lifeline(folder: str) -> int | None:
    """The reading end of the lifeline, for `die_with_parent`; None where the system has none."""
    try:
        return os.open(os.path.join(folder, "lifeline"), os.O_RDONLY | os.O_NONBLOCK)
    except (OSError, AttributeError):
        return None


def _whereabouts(at: Position | None) -> Whereabouts:
    if at is None:
        return Whereabouts(IDLE, BETWEEN, 0.0)
    if at.task == SETUP:
        return Whereabouts(SETUP, BETWEEN, at.seconds)
    return Whereabouts(at.task >> 32, (at.task & 0xFFFFFFFF) - 1, at.seconds)


class Spool:
    """The folder, as the caller holds it. It is removed by `remove`, or when this process ends."""

    def __init__(self) -> None:
        _sweep()
        self.folder = tempfile.mkdtemp(prefix=_prefix())
        line = -1
        if hasattr(os, "mkfifo"):
            path = os.path.join(self.folder, "line")
            os.mkfifo(path, 0o600)
            reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # else opening the other end would wait for one
            line = os.open(path, os.O_WRONLY)
            os.close(reader)
            # Under its name only now that it is held: else `_sweep` of another process would find it abandoned.
            os.rename(path, os.path.join(self.folder, "lifeline"))
        self._finalizer = weakref.finalize(self, _remove, self.folder, line, os.getpid())

    def save(self, name: str, payload: pl.Payload) -> None:
        """Write a payload for all workers."""
        pl.save_file(os.path.join(self.folder, name), payload)

    def discard(self, name: str) -> None:
        """Remove a payload; workers that have mapped it keep it."""
        with contextlib.suppress(OSError):
            os.unlink(os.path.join(self.folder, name))

    def whereabouts(self) -> dict[int, Whereabouts]:
        """Where each worker is that has got as far as its setup, by process id."""
        found = {}
        for name in os.listdir(self.folder):
            stem, _, kind = name.partition(".")
            if kind != "board":
                continue
            with contextlib.suppress(OSError, ValueError), contextlib.closing(self._board(name)) as board:
                found[int(stem)] = _whereabouts(board.read())
        return found

    def _board(self, name: str) -> Board:
        return open_board(os.path.join(self.folder, name))

    def late(self) -> set[int]:
        """The process ids of workers that their own watchdog has ended."""
        found = set()
        for name in os.listdir(self.folder):
            stem, _, kind = name.partition(".")
            if kind == "late" and os.path.getsize(os.path.join(self.folder, name)):
                found.add(int(stem))
        return found

    def wipe(self) -> None:
        """Forget the workers that there were; all of them have ended."""
        for name in os.listdir(self.folder):
            if name.endswith((".board", ".late")) or name.startswith(("block-", "reply-")):
                self.discard(name)

    def remove(self) -> None:
        """Remove the folder."""
        self._finalizer()


def _prefix() -> str:
    """What the folders of this machine begin with, also where another machine has its own beside them."""
    return f"parfit-{''.join(filter(str.isalnum, platform.node()))}-"


@functools.cache
def _sweep() -> None:
    """Remove, once, the folders of callers that were killed: nobody holds their lifelines."""
    beside = tempfile.gettempdir()
    for name in os.listdir(beside):
        folder = os.path.join(beside, name)
        if name.startswith(_prefix()) and (fd := open_lifeline(folder)) is not None:
            try:
                if os.read(fd, 1) == b"":
                    shutil.rmtree(folder, ignore_errors=True)
            except OSError:  # somebody holds it, and has nothing to say
                pass
            finally:
                os.close(fd)


def _remove(folder: str, line: int, owner: int) -> None:
    if line >= 0:
        os.close(line)
    if os.getpid() == owner:  # not in a forked child
        shutil.rmtree(folder, ignore_errors=True)
