"""Where the caller stands, for workers to stand in the same place: `Place`.

A worker of our own takes the caller's place for good (`Place.enter`); a worker that belongs to somebody else
takes it for the time of a block (`Place.visit`), and is left as it was found.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from typing import Any

import cloudpickle

from parfit.executors.running import worker_environment

__all__ = ["Place"]


class Place:
    """Working folder, import path, environment, warnings filters and NumPy's error handling of the caller."""

    def __init__(self) -> None:
        try:
            self.folder: str | None = os.getcwd()
        except OSError:
            self.folder = None
        self.path = list(sys.path)
        self.environment = dict(os.environ)
        self.filters: list[Any] = list(warnings.filters)
        numpy = sys.modules.get("numpy")
        self.floating = numpy.geterr() if numpy is not None else None

    def __getstate__(self) -> dict[str, Any]:
        """Each filter by itself: a category that the worker cannot import concerns nobody there."""
        packed = (_packed(entry) for entry in self.filters)
        return {**self.__dict__, "filters": [data for data in packed if data is not None]}

    def enter(self) -> None:
        """Become like the caller, but for what every worker has: one thread, no GPU."""
        self._restore()
        os.environ.update(worker_environment())
        # After the import path is the caller's: a category may live there.
        self.filters = [found for entry in self.filters for found in _unpacked(entry)]
        warnings.filters[:] = self.filters  # type: ignore[index]
        warnings.simplefilter("default", append=True)
        if self.floating is not None:
            import numpy as np

            np.seterr(**self.floating)

    def beside(self) -> Place:
        """The same for a process of somebody else's on this machine: what its environment has besides is kept."""
        there = Place()
        there.__dict__.update(self.__dict__)
        there.environment = {**os.environ, **self.environment}
        return there

    def abroad(self) -> Place:
        """The same for another machine, whose folders, modules and environment are its own."""
        there = Place()
        there.filters, there.floating = self.filters, self.floating
        return there

    def _restore(self) -> None:
        if self.folder is not None:
            with contextlib.suppress(OSError):
                os.chdir(self.folder)
        sys.path[:] = self.path
        for name in [name for name in os.environ if name not in self.environment]:
            del os.environ[name]
        for name, value in self.environment.items():
            if os.environ.get(name) != value:
                os.environ[name] = value

    @contextlib.contextmanager
    def visit(self) -> Iterator[None]:
        """Be like the caller for a while, deaf to a Ctrl-C, which is the caller's to act on."""
        before = Place()
        main = threading.current_thread() is threading.main_thread()
        handler = signal.signal(signal.SIGINT, signal.SIG_IGN) if main else None
        try:
            with warnings.catch_warnings(), self.rounding():
                self.enter()
                yield
        finally:
            before._restore()
            if main:
                signal.signal(signal.SIGINT, handler)

    @contextlib.contextmanager
    def rounding(self) -> Iterator[None]:
        """Have NumPy's error handling only: where the rest is shared with other threads."""
        if self.floating is None:
            yield
            return
        import numpy as np

        with np.errstate(**self.floating):
            yield


def _packed(entry: Any) -> bytes | None:
    if isinstance(entry, bytes):  # it is on its way through somebody who has not opened it
        return entry
    try:
        return bytes(cloudpickle.dumps(entry))
    except Exception:  # noqa: BLE001 - pickling raises what it likes
        return None


def _unpacked(entry: Any) -> list[Any]:
    if not isinstance(entry, bytes):
        return [entry]
    try:
        return [pickle.loads(entry)]
    except Exception:  # noqa: BLE001 - a category that cannot be imported here
        return []
