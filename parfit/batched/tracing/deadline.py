"""A limit to how long the caller's own function may be traced: a loop of a million steps, unrolled, takes minutes."""

from __future__ import annotations

import ctypes
import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from parfit.batched.tracing.untraceable import Untraceable

__all__ = ["TracedTooLong", "deadline"]


#: Raised inside a destructor, the exception is lost, and has to come again.
_AGAIN_S = 0.3
#: Turns of a loop, at each of which the interpreter looks for exceptions from other threads.
_CHECKS = 100


class TracedTooLong(Untraceable):
    """Raised into the thread that traces."""

    def __init__(self) -> None:
        super().__init__("tracing the objective takes too long (a loop of Python over many steps is unrolled)")


@contextmanager
def deadline(seconds: float | None) -> Iterator[None]:
    """Raise `TracedTooLong` in this thread where the block takes longer, between two of its Python instructions."""
    if seconds is None:
        yield
        return
    thread = ctypes.c_ulong(threading.get_ident())
    lock, over = threading.Lock(), threading.Event()

    def watch() -> None:
        wait = seconds
        while not over.wait(wait):
            with lock:
                if not over.is_set():
                    ctypes.pythonapi.PyThreadState_SetAsyncExc(thread, ctypes.py_object(TracedTooLong))
            wait = _AGAIN_S

    collects = gc.isenabled()
    gc.disable()  # JAX has a callback in it, where the exception would be lost, with a message
    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        while not over.is_set():
            with suppress(TracedTooLong), lock:
                over.set()
        # One that was not raised yet comes here. To take it back (`PyThreadState_SetAsyncExc` with NULL) would leave
        # the interpreter looking for it, slower, and for ever in one instruction where a profiler runs.
        with suppress(TracedTooLong):
            for _ in range(_CHECKS):
                pass
        if collects:
            gc.enable()
