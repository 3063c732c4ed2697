"""Descriptors of a worker that a task may close or write to by number, as programs do that become daemons."""

from __future__ import annotations

import contextlib
import os

__all__ = ["CUT_OFF", "StandardStreams", "out_of_reach"]

#: The exit code of a worker that cannot answer any more.
CUT_OFF = 107
#: From here on lies what a worker needs: beyond the 256 that are closed by habit, within the 1024 of `select`.
_FROM = 900


def out_of_reach(fd: int) -> int:
    """The same file under a high number, where there is one; programs that tasks start do not inherit it."""
    try:
        import fcntl

        moved: int = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _FROM)
    except (ImportError, OSError):  # the system has fewer
        os.set_inheritable(fd, False)
        return fd
    os.close(fd)
    return moved


class StandardStreams:
    """Standard input, output and error, to be opened again where a task has closed them: the next one may print."""

    def __init__(self) -> None:
        self._copies = {}
        for fd in (0, 1, 2):
            with contextlib.suppress(OSError):  # the caller has none
                self._copies[fd] = out_of_reach(os.dup(fd))

    def mend(self) -> None:
        """Open again what is closed."""
        for fd, copy in self._copies.items():
            try:
                os.fstat(fd)
            except OSError:
                with contextlib.suppress(OSError):  # the copy has been closed, too
                    os.dup2(copy, fd)
