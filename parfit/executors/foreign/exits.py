"""Pools that are still open when the interpreter ends.

The libraries that run process pools wait then, in hooks of `threading`, for every call that is on its way; one that
never ends would keep the interpreter for ever. Hooks run in the reverse order of their registration: ours is to be
registered after the library's, which registers its own with its first pool.
"""

from __future__ import annotations

import contextlib
import threading
import weakref
from typing import Protocol

__all__ = ["end_at_exit", "ended"]


class Ends(Protocol):
    """Something that can be ended."""

    def end_now(self) -> None:
        """End all workers."""


_open: weakref.WeakSet[Ends] = weakref.WeakSet()
_registered: set[str] = set()


def end_at_exit(what: Ends, library: str) -> None:
    """Have `what` ended before `library`, whose pool it has just started, waits for it."""
    _open.add(what)
    register = getattr(threading, "_register_atexit", None)  # of the standard library; loky registers there as well
    if register is not None and library not in _registered:
        with contextlib.suppress(RuntimeError):  # the interpreter is ending already
            register(_end_all)
            _registered.add(library)


def ended(what: Ends) -> None:
    """There is nothing left to end."""
    _open.discard(what)


def _end_all() -> None:
    for what in list(_open):
        what.end_now()
