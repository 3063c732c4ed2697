"""A second Ctrl-C, while it is still being cleaned up after the first."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

__all__ = ["one_ctrl_c"]

#: Those that follow within this are the same one: ending workers and writing a store out takes less, s.
_SAME_S = 5.0


@contextlib.contextmanager
def one_ctrl_c() -> Iterator[None]:
    """Let a Ctrl-C through, and none of those that an impatient user adds: they would end what saves the results.

    A later one counts again, as the first may have ended in something that takes any exception for its own.
    """
    handler = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(handler):
        yield
        return
    raised: float | None = None

    def once(number: int, frame: Any) -> None:
        nonlocal raised
        if raised is not None and time.monotonic() - raised < _SAME_S:
            return
        try:
            handler(number, frame)
        except BaseException:
            raised = time.monotonic()
            raise

    signal.signal(signal.SIGINT, once)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
