"""The worker's side of the executor `processes`: a plain interpreter that serves one parent.

    parent ── "begin", place, limit + setup ─▶ worker    stale | failed | (nothing)
           ── "function" + function ─────────▶           ready | failed
           ── "run", sealed? + block ───────▶            some*, done | unreadable
           ── "end" ────────────────────────▶            (drops the state, waits for the next call)
           ── end of stream ────────────────▶            exits

Three descriptors are inherited: the socket, the board (`board.Board`) and the lifeline, a pipe whose other
end only the parent holds (`lifeline.die_with_parent`).
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import time
from typing import Any

from parfit.core.solution import Outcome, TaskError
from parfit.executors import payload as pl
from parfit.executors.place import Place
from parfit.executors.running import mark_as_worker, recording_warnings, run_block
from parfit.executors.workers import wire
from parfit.executors.workers.board import Board
from parfit.executors.workers.descriptors import CUT_OFF, StandardStreams, out_of_reach
from parfit.executors.workers.heap import Heap, die_before_parent
from parfit.executors.workers.lifeline import die_with_parent
from parfit.executors.workers.sending import dumps_outcomes

__all__ = ["main"]

#: An idle worker waits this long for the next call, s.
IDLE_S = 60.0
#: Finished tasks are reported at least this often, s.
FLUSH_S = 0.05

_started = time.time()


class _Modules:
    """Notices when a module that was imported here has changed on disk since."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[int, int] | None] = {}
        self._known = 0

    def changed(self) -> bool:
        """Whether any module's file may differ from what was loaded from it.

        One that is newer than this process may have been changed after it was loaded, in the middle of a call;
        that it was not costs a new worker at worst, which is then newer than the file.
        """
        for path in self._files():
            stat = self._stat(path)
            if self._seen.get(path, stat) != stat or (stat is not None and stat[0] > _started * 1e9):
                return True
        return False

    def note(self) -> None:
        """Remember the files of modules that are new."""
        if len(sys.modules) == self._known:
            return
        self._known = len(sys.modules)
        for path in self._files():
            if path not in self._seen:
                self._seen[path] = self._stat(path)

    @staticmethod
    def _files() -> set[str]:
        files = {getattr(module, "__file__", None) for module in list(sys.modules.values())}
        return {path for path in files if isinstance(path, str)}

    @staticmethod
    def _stat(path: str) -> tuple[int, int] | None:
        try:
            found = os.stat(path)
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size


class _Worker:
    def __init__(self, sock: socket.socket, board: Board) -> None:
        self._sock = sock
        self._reader = wire.Reader(sock)
        self._board = board
        self._function: Any = None
        self._state: Any = None
        self._ready = False
        self._used = False
        self._modules = _Modules()
        self._streams = StandardStreams()
        self._heap = Heap()
        self._pid = os.getpid()

    def say(self, word: str, *rest: Any) -> None:
        wire.send(self._sock, pl.dumps((word, *rest), by_value=False))

    def serve(self) -> None:
        while True:
            self._sock.settimeout(IDLE_S if self._function is None else None)
            try:
                frame = wire.receive(self._reader)
            except TimeoutError:
                return
            if frame is None:
                return
            word, argument, has_body = pl.loads(frame)
            body = wire.receive(self._reader) if has_body else (0, [])
            if body is None:
                return
            if word == "begin":
                place, memory_limit = argument
                self._begin(place, memory_limit, body)
            elif word == "function":
                self._learn(body)
            elif word == "run":
                self._run(argument, body)
            elif word == "end":
                self._function = self._state = None
                self._used = True
                self._modules.note()

    def _begin(self, place: Place, memory_limit: int | None, body: pl.Payload) -> None:
        # Not at first: a file that is dated in the future would have one worker after the other replaced.
        stale, self._used, self._ready = self._used and self._modules.changed(), True, False
        if stale:
            self.say("stale")
            return
        place.enter()
        self._heap.limit(memory_limit)
        try:
            setup = pl.loads(body)
            self._state = None if setup is None else setup()
        except BaseException as exc:  # noqa: BLE001 - whatever it is, the parent is told
            self.say("failed", TaskError.from_exception(exc, skip_frames=1))
        else:
            self._ready = True

    def _learn(self, body: pl.Payload) -> None:
        if not self._ready:
            return
        try:
            self._function = pl.loads(body)
        except BaseException as exc:  # noqa: BLE001
            self.say("failed", TaskError.from_exception(exc, skip_frames=1))
        else:
            self.say("ready")

    def _run(self, sealed: bool, body: pl.Payload) -> None:
        try:
            block = pl.loads(body)
        except BaseException as exc:  # noqa: BLE001
            self.say("unreadable", TaskError.from_exception(exc, skip_frames=1))
            return
        waiting: list[Outcome] = []
        flushed = time.perf_counter()

        def emit(outcome: Outcome) -> None:
            nonlocal flushed
            if os.getpid() != self._pid:  # the task has forked, and this is the child: the worker goes on, it does not
                os._exit(0)
            waiting.append(self._heap.explained(outcome))
            if (now := time.perf_counter()) - flushed > FLUSH_S:
                self._report("some", waiting, sealed=sealed)
                waiting.clear()
                flushed = now

        with recording_warnings():
            run_block(self._function, self._state, block, emit, self._board.begin, interrupts=True)
        self._board.idle()
        self._streams.mend()
        self._modules.note()  # before the parent knows that the block is done, and may change files
        self._report("done", waiting, sealed=sealed)

    def _report(self, word: str, outcomes: list[Outcome], *, sealed: bool) -> None:
        """Send outcomes, sealed for a parent that passes them on unopened.

        A value that cannot be pickled makes its own outcome an error, and no other.
        """
        if sealed:
            payload = pl.dumps((word, pl.Sealed(dumps_outcomes(outcomes))), by_value=False)
        else:
            payload = dumps_outcomes(outcomes, word)
        try:
            wire.send(self._sock, payload)
        except (BrokenPipeError, ConnectionError):  # the parent has let go
            raise
        except OSError:  # a task has closed the socket
            os._exit(CUT_OFF)


def main(sock_fd: int, board_fd: int, lifeline_fd: int) -> None:
    """Serve until the parent closes the connection, dies, or is silent for a minute."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sock_fd, lifeline_fd = out_of_reach(sock_fd), out_of_reach(lifeline_fd)
    die_with_parent(lifeline_fd)
    die_before_parent()
    mark_as_worker()
    board = Board(board_fd)
    os.close(board_fd)
    with socket.socket(fileno=sock_fd) as sock, contextlib.suppress(BrokenPipeError, ConnectionError):
        _Worker(sock, board).serve()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
