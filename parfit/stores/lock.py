"""One writer: a lock on a file, which the operating system takes back from a process that dies."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from parfit.core.errors import StoreError

__all__ = ["Lock"]

#: What this process holds: locks of processes do not keep threads of one from each other.
_held: set[Path] = set()


class Lock:
    """The right to write a file, as long as it is held.

    Parameters
    ----------
    path
        The file; the lock is on one beside it, with ``.lock`` appended, which stays.
    """

    def __init__(self, path: Path) -> None:
        self._path = path.with_name(path.name + ".lock").absolute()
        self._what = path
        self._file: IO[str] | None = None

    def __enter__(self) -> Self:
        """Take it; raises `StoreError` where another has it."""
        if self._path in _held:
            raise StoreError(f"{self._what} is being written by another call in this process")
        try:
            file = open(self._path, "a+", encoding="utf-8")
        except OSError as exc:
            raise StoreError(f"{self._what} cannot be written: {exc.strerror} ({self._path})") from exc
        try:
            _lock(file)
        except OSError:
            file.seek(0)
            who = file.read().strip() or "another process"
            file.close()
            raise StoreError(
                f"{self._what} is being written by {who}; parfit.open_store reads what it has so far"
            ) from None
        _held.add(self._path)
        self._file = file
        file.seek(0)
        file.truncate()
        file.write(f"process {os.getpid()} on {socket.gethostname()}, since {time.strftime('%Y-%m-%d %H:%M:%S')}\n")
        file.flush()
        return self

    def renew(self) -> None:
        """Take it again where it has been lost: to a backup in this process that has read, and closed, the file.

        Raises `StoreError` where another process has taken it since.
        """
        assert self._file is not None
        try:
            _lock_again(self._file)
        except OSError:
            raise StoreError(f"{self._what} is being written by another process now") from None

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        assert self._file is not None
        self._file.close()
        self._file = None
        _held.discard(self._path)


if os.name == "nt":  # pragma: no cover
    import msvcrt

    def _lock(file: IO[str]) -> None:
        file.seek(1 << 20)  # far behind what others read
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]

    def _lock_again(file: IO[str]) -> None:
        """Windows takes a lock away with the handle that it was taken by, and with no other."""

else:
    import fcntl

    def _lock(file: IO[str]) -> None:
        # Not `flock`: that would pass on to processes that are forked meanwhile, and outlive this one.
        # Closing any other handle of the file lets go of it, too: hence `_lock_again`.
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)

    _lock_again = _lock
