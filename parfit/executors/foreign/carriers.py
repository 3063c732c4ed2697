"""How a block gets to where it is run, and what comes back: within this process, or to another one.

Both hand out a *parcel*, a callable and its arguments, for a foreign executor to call somewhere, and read the
reply that the call returns: ``(word, value)``, as `remote.run_remote` says.
"""

from __future__ import annotations

import contextlib
import os
import platform
import threading
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from parfit.core.protocols import Block, TaskFunction
from parfit.core.solution import Outcome, TaskError
from parfit.executors import payload as pl
from parfit.executors.baggage import packed
from parfit.executors.foreign.jobs import Job
from parfit.executors.foreign.remote import Hand, Ticket, run_remote
from parfit.executors.foreign.spool import Spool, pack, unpack
from parfit.executors.place import Place
from parfit.executors.running import run_block

__all__ = ["Carrier", "LocalCarrier", "RemoteCarrier"]

Parcel = tuple[Callable[..., Any], *tuple[Any, ...]]


class Carrier(ABC):
    """Carries blocks to the workers of one open executor."""

    @abstractmethod
    def learn(self, function: TaskFunction, timeout: float | None) -> None:
        """Begin a run: the parcels that follow are for this function."""

    @abstractmethod
    def parcel(self, number: int, job: Job) -> Parcel:
        """What the foreign executor is to call. Raises what pickling raises."""

    @abstractmethod
    def open(self, reply: Any) -> tuple[str, Any]:
        """The word and the value of a reply; of ``outcomes``, the outcomes. Raises what unpickling raises."""

    @abstractmethod
    def stop(self) -> None:
        """End the run: nobody wants the rest of its blocks."""

    @abstractmethod
    def close(self) -> None:
        """Let go of everything."""


class _Stopped(BaseException):
    """Nobody wants the rest of this block."""


class LocalCarrier(Carrier):
    """Within this process, by threads: nothing is pickled. Each thread has a state of its own."""

    def __init__(self, setup: Callable[[], Any] | None) -> None:
        self._setup = setup
        self._setup_lock = threading.Lock()
        self._own = threading.local()
        self._place = Place()
        self._function: TaskFunction | None = None
        self._stopped = threading.Event()

    def learn(self, function: TaskFunction, timeout: float | None) -> None:  # noqa: ARG002
        self._function = function
        self._stopped = threading.Event()

    def parcel(self, number: int, job: Job) -> Parcel:  # noqa: ARG002
        return self._work, self._function, self._stopped, job.block

    def open(self, reply: Any) -> tuple[str, Any]:
        word, value = reply
        return word, value

    def stop(self) -> None:
        self._stopped.set()

    def close(self) -> None:
        self._stopped.set()

    def _work(self, function: TaskFunction, stopped: threading.Event, block: Block) -> tuple[str, Any]:
        outcomes: list[Outcome] = []

        def begin(index: int) -> None:  # noqa: ARG001
            if stopped.is_set():
                raise _Stopped

        with self._place.rounding():
            try:
                state = self._state()
            except BaseException as exc:  # noqa: BLE001 - whatever it is, the caller is told
                return "failed", TaskError.from_exception(exc, skip_frames=1)
            with contextlib.suppress(_Stopped):
                run_block(function, state, block, outcomes.append, begin, interrupts=True)
        return "outcomes", outcomes

    def _state(self) -> Any:
        try:
            return self._own.state
        except AttributeError:
            with self._setup_lock:  # a setup that loads or imports need not be safe against itself
                self._own.state = None if self._setup is None else self._setup()
            return self._own.state


class RemoteCarrier(Carrier):
    """To other processes, on this machine or elsewhere.

    Parameters
    ----------
    setup
        Pickled once, here.
    private, watched
        As in `remote.Ticket`.

    Raises
    ------
    SetupError
        Where `setup` cannot be pickled.
    """

    def __init__(self, setup: Callable[[], Any] | None, *, private: bool, watched: bool) -> None:
        self._place = pl.dumps(Place(), by_value=False)
        self._setup = packed("setup", setup)
        self._function: pl.Payload = (0, [])
        self._by_hand = False
        self.spool = Spool()
        folder = self.spool.folder
        self._ticket = Ticket(uuid.uuid4().hex, 0, folder, os.getpid(), platform.node(), private, watched, None)
        self._save("place", self._place)
        self._save("setup", self._setup)

    def _save(self, name: str, payload: pl.Payload) -> None:
        with contextlib.suppress(OSError):  # the disk is full: workers say that it is missing, and get it by hand
            self.spool.save(name, payload)

    def learn(self, function: TaskFunction, timeout: float | None) -> None:
        self._function = packed("function", function)
        self.spool.discard(f"function-{self._ticket.run}")
        self._ticket = replace(self._ticket, run=self._ticket.run + 1, timeout=timeout)
        self._save(f"function-{self._ticket.run}", self._function)

    def parcel(self, number: int, job: Job) -> Parcel:
        self._by_hand = self._by_hand or job.by_hand
        folder = None if self._by_hand else self.spool.folder
        block = pack(pl.dumps(job.block), folder, f"block-{number}")
        return run_remote, self._ticket, number, block, self._hand() if job.by_hand else None

    def _hand(self) -> Hand:
        place, setup, function = (pack(payload, None, "") for payload in (self._place, self._setup, self._function))
        assert not isinstance(place, str)
        assert not isinstance(setup, str)
        assert not isinstance(function, str)
        return place, setup, function

    def open(self, reply: Any) -> tuple[str, Any]:
        word, value = reply
        if word == "outcomes":
            (value,) = pl.loads(unpack(value, self.spool.folder))
        return word, value

    def stop(self) -> None:
        """Leave it to the executor, which can cancel or kill."""

    def close(self) -> None:
        self.spool.remove()
