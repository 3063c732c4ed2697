"""Shards that outlive their call: the registry of who keeps which data.

    token (the user's data) ──weakly──▶ entry: fingerprint, load, workers ──▶ Shards

An entry ends, and its workers with it, when its data is garbage collected or has changed, after an idle minute,
when `MAX_KEPT` younger ones are there, with `shutdown_workers`, and with the interpreter.
"""

from __future__ import annotations

import atexit
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from parfit.core.protocols import Keepable
from parfit.core.solution import Outcome
from parfit.executors import payload as pl
from parfit.executors.keeping.fingerprint import fingerprint
from parfit.executors.keeping.shards import BusyError, Call, Shards
from parfit.executors.workers.idle import at_shutdown

__all__ = ["Kept", "run_kept"]

#: Workers that keep data end when no call has come for so long, s.
KEEP_S = 60.0
#: So many collections of data are kept at most, each with workers of its own.
MAX_KEPT = 4


@dataclass(eq=False)
class Kept:
    """One collection of data, and the workers that keep it.

    Attributes
    ----------
    shards
        The workers.
    terms
        What must be the same for a call to use them: the data's fingerprint, the number of datasets, and so on.
    token
        A weak reference to the data; None where it has none, and the fingerprint alone tells.
    used
        When the last call ended, on the monotonic clock, s.
    """

    shards: Shards
    terms: tuple[Any, ...]
    token: weakref.ref[Any] | None
    used: float = field(default_factory=time.monotonic)


class _Registry:
    """The entries, the one that was used last at the end. Shared by the threads; not by forked children."""

    def __init__(self) -> None:
        self._lock = threading.RLock()  # a garbage collection inside may call `_sweep`
        self._entries: list[Kept] = []
        self._timer: threading.Timer | None = None

    def find(self, token: object, terms: tuple[Any, ...], make: Callable[[], Shards]) -> Kept:
        """The entry for this data, made where there is none; what is kept of an older state of it ends."""
        with self._lock:
            self._sweep()
            reference = _reference(token, self._sweep)
            for entry in list(self._entries):
                same_terms = entry.terms == terms
                same_data = same_terms if entry.token is None else entry.token() is token
                if same_data and same_terms and not entry.shards.closed:
                    return entry
                if same_data:
                    self._end(entry)
            entry = Kept(make(), terms, reference)
            self._entries.append(entry)
            while len(self._entries) > MAX_KEPT:
                self._end(self._entries[0])
            return entry

    def used(self, entry: Kept) -> None:
        """A call on the entry has ended."""
        with self._lock:
            entry.used = time.monotonic()
            if entry in self._entries:
                self._entries.remove(entry)
                self._entries.append(entry)
            elif entry.shards.close(wait=False):  # it was to end while the call was running
                return
            self._wake(KEEP_S)

    def _end(self, entry: Kept) -> None:
        """Let go of an entry; where a call is running, that call ends the workers."""
        if entry in self._entries:
            self._entries.remove(entry)
        entry.shards.close(wait=False)

    def _wake(self, after: float) -> None:
        if self._timer is None:
            self._timer = threading.Timer(after + 0.1, self._look)
            self._timer.daemon = True
            self._timer.start()

    def _look(self) -> None:
        """Called by the timer: end what has been idle for long enough, and come again for the rest."""
        with self._lock:
            self._timer = None
            self._sweep()
            now = time.monotonic()
            for entry in [entry for entry in self._entries if now - entry.used >= KEEP_S]:
                self._end(entry)
            if self._entries:
                self._wake(max(0.0, min(entry.used for entry in self._entries) + KEEP_S - now))

    def _sweep(self, _: object = None) -> None:
        """End the entries whose data is no more.

        Called by the garbage collector too, at any point of any thread: it must not wait for a lock that this very
        thread may be holding further up. Where it cannot have it, the next call or the timer sweeps.
        """
        if not self._lock.acquire(blocking=False):
            return
        try:
            for entry in [e for e in self._entries if e.token is not None and e.token() is None]:
                self._end(entry)
        finally:
            self._lock.release()

    def shutdown(self) -> None:
        """End all that is not in use."""
        with self._lock:
            for entry in list(self._entries):
                self._end(entry)
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

    def disown(self) -> None:
        """In a forked child."""
        self.__init__()  # type: ignore[misc]


_registry = _Registry()
at_shutdown(_registry.shutdown)
atexit.register(_registry.shutdown)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_registry.disown)


def _reference(token: object, callback: Callable[[object], None]) -> weakref.ref[Any] | None:
    try:
        return weakref.ref(token, callback)
    except TypeError:  # a list, a dict, a tuple
        return None


def run_kept(
    tasks: Keepable,
    call: Call,
    workers: int,
    load: Callable[[Any], Any] | None,
    load_timeout: float | None,
) -> Iterator[Outcome]:
    """Run a call on workers that keep the data of `tasks`, now and for the next call."""

    def make() -> Shards:
        return Shards(len(tasks), workers, load, load_timeout)

    seen = fingerprint(tasks.token)
    if seen is not None:
        terms = (seen, len(tasks), workers, _identity(load), load_timeout)
        entry = _registry.find(tasks.token, terms, make)
        try:
            yield from entry.shards.run(call, entry.shards.router(tasks.without_data()), wait=False)
        except BusyError:  # in use by another thread, or by a call of this one that is half read
            pass
        else:
            return
        finally:
            _registry.used(entry)
    shards = make()
    try:
        yield from shards.run(call, shards.router(tasks.without_data()))
    finally:
        shards.close()


def _identity(load: Callable[[Any], Any] | None) -> bytes | None:
    """`load` as it travels: a function that is defined anew with the same text is the same."""
    return None if load is None else pl.in_one(load)
