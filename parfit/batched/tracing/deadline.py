"""A limit to how long the caller's own function may be traced: a loop of a million steps, unrolled, takes minutes."""

from __future__ import annotations

import ctypes
import gc
import threading
from collections.abc import Callable
from typing import TypeVar

from parfit.batched.tracing.untraceable import Untraceable

__all__ = ["TracedTooLong", "within"]

T = TypeVar("T")

#: Raised inside a destructor, the exception is lost, and has to come again.
_AGAIN_S = 0.3
#: Turns of a loop, at each of which the interpreter looks for exceptions from other threads.
_CHECKS = 100


class TracedTooLong(Untraceable):
    """Raised into the thread that traces."""

    def __init__(self) -> None:
        super().__init__("tracing the objective takes too long (a loop of Python over many steps is unrolled)")


def within(seconds: float | None, call: Callable[[], T]) -> T:
    """What a call returns; raises `TracedTooLong` in it where it takes longer, between two of its instructions.

    No context manager: the exception may come between the end of a block and what is to end the waiting for it, and
    then comes again and again.
    """
    if seconds is None:
        return call()
    thread = ctypes.c_ulong(threading.get_ident())
    begun, lock, over = threading.Lock(), threading.Lock(), threading.Event()
    begun.acquire()

    def watch() -> None:
        begun.acquire()  # before that, it could come while this thread is started, and leave `threading` in pieces
        wait = seconds
        while not over.wait(wait):
            with lock:
                if not over.is_set():
                    ctypes.pythonapi.PyThreadState_SetAsyncExc(thread, ctypes.py_object(TracedTooLong))
            wait = _AGAIN_S

    collects = gc.isenabled()
    threading.Thread(target=watch, daemon=True).start()
    try:
        gc.disable()  # JAX has a callback in it, where the exception would be lost, with a message
        begun.release()
        return call()
    finally:
        # One that was not raised yet comes here. To take it back (`PyThreadState_SetAsyncExc` with NULL) would leave
        # the interpreter looking for it, slower, and for ever in one instruction where a profiler runs.
        while True:
            try:
                with lock:
                    over.set()
                for _ in range(_CHECKS):
                    pass
                break
            except TracedTooLong:
                pass
        if collects:
            gc.enable()
