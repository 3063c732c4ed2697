"""A pipe whose writing end only the parent holds: when the parent dies, in whatever way, so does the worker.

The kernel kills the worker, also in the middle of a C call (Linux); elsewhere a thread watches the pipe.
"""

from __future__ import annotations

import os
import select
import signal
import threading

__all__ = ["die_with_parent"]


def die_with_parent(fd: int) -> None:
    """Have the kernel kill this process when the last writer of the pipe `fd` is gone."""
    try:
        import fcntl

        fcntl.fcntl(fd, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(fd, fcntl.F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_ASYNC)
    except (ImportError, AttributeError, OSError):
        threading.Thread(target=_watch, args=(fd,), daemon=True, name="parfit-lifeline").start()
    else:
        if _at_end(fd):
            os._exit(1)


def _at_end(fd: int) -> bool:
    """Whether the parent was gone before the kernel was asked to watch."""
    return bool(select.select([fd], [], [], 0)[0])


def _watch(fd: int) -> None:
    select.select([fd], [], [])
    os._exit(1)
