"""The worker's side of executors whose processes somebody else's library runs.

    caller                                        a worker (of loky, joblib, concurrent.futures, …)
    ┌──────────────────┐  run_remote(ticket, n, block)   ┌────────────────────────────────────────┐
    │ foreign.          │ ─────────────────────────────▶ │ _Desk per open executor, kept between  │
    │   ForeignPool     │ ◀───────────────────────────── │ calls: setup's state, the function     │
    │                   │  ("outcomes", …) | ("missing")  │ board, watchdog                        │
    └──────────────────┘  | ("failed", …) | …             └────────────────────────────────────────┘
              │                                                             │
              └──────────────▶ spool.Spool, a folder ◀──────────────────────┘

A call carries a ticket, a number and a block; the setup and the function are fetched from the folder once per
worker. A worker that does not find them there (on another machine) says so, and is sent them by hand.
A desk belongs to one thread: where a library runs several threads in a process, each has its own state.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import platform
import signal
import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any

from parfit.core.solution import Outcome, TaskError
from parfit.executors import payload as pl
from parfit.executors.foreign.spool import BETWEEN, SETUP, Packed, board_code, open_lifeline, pack, unpack
from parfit.executors.place import Place
from parfit.executors.running import recording_warnings, recording_warnings_together, run_block
from parfit.executors.workers.board import Board, open_board
from parfit.executors.workers.lifeline import die_with_parent, tied_to_parent
from parfit.executors.workers.sending import dumps_outcomes

__all__ = ["Hand", "Ticket", "run_remote", "start_worker"]

#: This many open executors are remembered by a worker that serves several.
_DESKS = 2

#: Place, setup and function by hand, for workers that cannot read the caller's folder.
Hand = tuple[pl.Payload, pl.Payload, pl.Payload]


@dataclass(frozen=True)
class Ticket:
    """What a worker has to know to run a block.

    Attributes
    ----------
    token
        Which open executor this is; unique in the world.
    run
        The number of its function.
    folder
        The caller's `spool.Spool`.
    pid, host
        The caller's process.
    private
        The worker is ours alone, so that it takes the caller's place for good.
    watched
        The worker keeps a board, and may be killed.
    timeout
        The limit for each task, s.
    """

    token: str
    run: int
    folder: str
    pid: int
    host: str
    private: bool
    watched: bool
    timeout: float | None


class _MissingError(Exception):
    """The caller's folder, or what should be in it, is not there."""


class _Desk:
    """What one thread of this process knows of one open executor."""

    def __init__(self, ticket: Ticket, hand: Hand | None) -> None:
        self.folder = ticket.folder
        self._private = ticket.private
        self._run = -1
        self._has_state = False
        self._state: Any = None
        self._function: Any = None
        self._threads: Any = None
        self._place: Place = pl.loads(self._fetch("place", hand, 0))
        self.board: Board | None = None
        self._late: IO[bytes] | None = None
        self._lifeline: int | None = None
        if ticket.watched:
            path = os.path.join(ticket.folder, str(os.getpid()))
            self.board = open_board(f"{path}.board", create=True)
            self._late = open(f"{path}.late", "wb", buffering=0)
        if ticket.private:
            self._place.enter()
        elif ticket.watched:
            self._lifeline = open_lifeline(ticket.folder)

    def _fetch(self, name: str, hand: Hand | None, index: int) -> pl.Payload:
        if hand is not None:
            return hand[index]
        try:
            return pl.load_file(os.path.join(self.folder, name), mapped=True)
        except OSError:
            raise _MissingError from None

    @contextlib.contextmanager
    def at_the_callers_place(self) -> Iterator[None]:
        """Around everything of the caller's that runs here."""
        if self._private:
            with recording_warnings():
                yield
        elif threading.current_thread() is threading.main_thread():
            with self._place.visit(), recording_warnings():
                yield
        else:  # working folder, environment and filters are shared with what other threads do here
            with self._place.rounding(), recording_warnings_together():
                yield

    def _one_thread(self) -> contextlib.AbstractContextManager[Any]:
        """One thread for BLAS, until the end of the block; a private worker has it for good."""
        limited: contextlib.AbstractContextManager[Any]
        mine = self._private or threading.current_thread() is not threading.main_thread()
        limited = contextlib.nullcontext() if mine or self._threads is None else self._threads.limit(limits=1)
        return limited

    def learn(self, ticket: Ticket, hand: Hand | None) -> None:
        """Run the setup, the first time, and fetch the function, where it is another one."""
        if self._has_state and self._run == ticket.run:
            return
        if self.board is not None:
            self.board.begin(SETUP)
        if not self._has_state:
            setup = pl.loads(self._fetch("setup", hand, 1))
            self._state = None if setup is None else setup()
            self._has_state = True
        if self._run != ticket.run:
            self._function = pl.loads(self._fetch(f"function-{ticket.run}", hand, 2))
            self._run = ticket.run
        import threadpoolctl

        self._threads = threadpoolctl.ThreadpoolController()  # it sees the libraries that are loaded by now
        if self._private:
            threadpoolctl.threadpool_limits(limits=1)

    def work(self, ticket: Ticket, number: int, block: Any) -> list[Outcome]:
        """Run a block; the watchdog ends this process where a task is over its limit."""
        outcomes: list[Outcome] = []
        limit_s = ticket.timeout if ticket.watched else None

        def begin(index: int) -> None:
            if self.board is not None:
                self.board.begin(board_code(number, index))
            if limit_s is not None and self._late is not None:
                faulthandler.dump_traceback_later(limit_s, exit=True, file=self._late)

        try:
            with self._one_thread(), tied_to_parent(self._lifeline):  # a private worker always is
                run_block(self._function, self._state, block, outcomes.append, begin, interrupts=True)
        finally:
            if limit_s is not None:
                faulthandler.cancel_dump_traceback_later()
        if self.board is not None:
            self.board.begin(board_code(number, BETWEEN))
        return outcomes

    def close(self) -> None:
        """Let go of the files."""
        if self.board is not None:
            self.board.close()
        if self._late is not None:
            self._late.close()
        if self._lifeline is not None:
            os.close(self._lifeline)


class _Desks(threading.local):
    """The desks of a thread, the one that was used last at the end."""

    def __init__(self) -> None:
        self._desks: OrderedDict[str, _Desk] = OrderedDict()

    def find(self, ticket: Ticket, hand: Hand | None) -> _Desk:
        desk = self._desks.get(ticket.token)
        if desk is None:
            self._clear()
            desk = self._desks[ticket.token] = _Desk(ticket, hand)
        self._desks.move_to_end(ticket.token)
        return desk

    def forget(self, ticket: Ticket) -> None:
        desk = self._desks.pop(ticket.token, None)
        if desk is not None:
            desk.close()

    def _clear(self) -> None:
        """Drop what is heavy of executors that have been closed, and of all but the last of the others."""
        ended = [token for token, desk in self._desks.items() if not os.path.isdir(desk.folder)]
        rest = [token for token in self._desks if token not in ended]
        for token in ended + rest[: 1 - _DESKS]:
            self._desks.pop(token).close()


_desks = _Desks()


def run_remote(ticket: Ticket, number: int, block: Packed, hand: Hand | None = None) -> tuple[str, Any]:
    """Run a block in this worker.

    Parameters
    ----------
    ticket, number, block
        What to run, and the number by which the caller knows it.
    hand
        Place, setup and function, where the folder is out of reach.

    Returns
    -------
    tuple
        ``("outcomes", packed)``, ``("failed", TaskError)`` for the setup or the function,
        ``("unreadable", TaskError)`` for the block, ``("missing", None)`` where the folder is out of reach,
        ``("here", None)`` where this is the caller's own process but should not be.
    """
    if ticket.watched and ticket.pid == os.getpid() and ticket.host == platform.node():
        return "here", None  # joblib falls back to this where it cannot start workers; a watchdog would kill us
    try:
        try:
            desk = _desks.find(ticket, hand)
        except _MissingError:
            raise
        except Exception as exc:  # noqa: BLE001
            return "failed", TaskError.from_exception(exc, skip_frames=1)
        with desk.at_the_callers_place():
            return _run(desk, ticket, number, block, hand)
    except _MissingError:
        return "missing", None


def _run(desk: _Desk, ticket: Ticket, number: int, block: Packed, hand: Hand | None) -> tuple[str, Any]:
    try:
        desk.learn(ticket, hand)
    except _MissingError:
        raise
    except BaseException as exc:  # noqa: BLE001 - whatever it is, the caller is told
        _desks.forget(ticket)
        return "failed", TaskError.from_exception(exc, skip_frames=1)
    if desk.board is not None:
        desk.board.begin(board_code(number, BETWEEN))
    try:
        tasks = pl.loads(_arrived(block, ticket))
    except _MissingError:
        raise
    except BaseException as exc:  # noqa: BLE001
        return "unreadable", TaskError.from_exception(exc, skip_frames=1)
    outcomes = desk.work(ticket, number, tasks)
    folder = ticket.folder if os.path.isdir(ticket.folder) else None
    reply = pack(dumps_outcomes(outcomes), folder, f"reply-{number}")
    if desk.board is not None:
        desk.board.idle()
    return "outcomes", reply


def _arrived(block: Packed, ticket: Ticket) -> pl.Payload:
    try:
        return unpack(block, ticket.folder)
    except OSError:
        raise _MissingError from None


def start_worker(folder: str, parent: int, environment: dict[str, str]) -> None:
    """Begin a worker process of our own: deaf to Ctrl-C, and gone when the caller is."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ.update(environment)
    fd = open_lifeline(folder)
    if os.getppid() != parent:  # it died before there was a lifeline to watch
        os._exit(1)
    if fd is not None:
        die_with_parent(fd)
