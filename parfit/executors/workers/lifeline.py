"""A pipe whose writing end only the parent holds: when the parent dies, in whatever way, so does the worker.

The kernel kills the worker, also in the middle of a C call (Linux); elsewhere a thread watches the pipe.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import threading
from collections.abc import Iterator

__all__ = ["die_with_parent", "tied_to_parent"]


def die_with_parent(fd: int) -> None:
    """Have the kernel kill this process when the last writer of the pipe `fd` is gone."""
    try:
        _watched_by_kernel(fd, on=True)
    except (ImportError, AttributeError, OSError):
        threading.Thread(target=_watch, args=(fd,), daemon=True, name="parfit-lifeline").start()
    else:
        if _at_end(fd):
            os._exit(1)


@contextlib.contextmanager
def tied_to_parent(fd: int | None) -> Iterator[None]:
    """Die with the parent only for as long as this lasts (Linux; elsewhere, do not)."""
    try:
        if fd is not None:
            _watched_by_kernel(fd, on=True)
    except (ImportError, AttributeError, OSError):
        fd = None
    try:
        yield
    finally:
        if fd is not None:
            _watched_by_kernel(fd, on=False)


def _watched_by_kernel(fd: int, *, on: bool) -> None:
    import fcntl

    # A worker of our own leads a group, in which is what its tasks have started: that ends with it.
    fcntl.fcntl(fd, fcntl.F_SETOWN, -os.getpid() if os.getpgrp() == os.getpid() else os.getpid())
    fcntl.fcntl(fd, fcntl.F_SETSIG, signal.SIGKILL)
    flags = fcntl.fcntl(fd, fcntl.F_GETFL)
    fcntl.fcntl(fd, fcntl.F_SETFL, flags | os.O_ASYNC if on else flags & ~os.O_ASYNC)


def _at_end(fd: int) -> bool:
    """Whether the parent was gone before the kernel was asked to watch."""
    return bool(select.select([fd], [], [], 0)[0])


def _watch(fd: int) -> None:
    select.select([fd], [], [])
    os._exit(1)
