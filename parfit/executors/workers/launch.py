"""Start one worker process and hold its ends: socket, board, lifeline."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

from parfit.executors import payload as pl
from parfit.executors.running import worker_environment
from parfit.executors.workers import wire
from parfit.executors.workers.board import Board, Position, create_file
from parfit.executors.workers.descriptors import CUT_OFF

__all__ = ["WorkerProcess", "exit_in_words"]

#: A worker that has closed its connection and does not exit within this has lost the connection only, s.
_EXIT_S = 1.0
_PROGRAM = (
    "import json, sys; a = json.loads(sys.argv[1]); sys.path[:] = a['path']; "
    "from parfit.executors.workers.worker import main; main(*a['fds'])"
)


class WorkerProcess:
    """A worker, seen from the parent. Its process group is its own, so that a Ctrl-C does not reach it."""

    def __init__(self) -> None:
        if sys.platform == "win32":  # sockets and pages cannot be inherited by number there
            raise OSError("worker processes need a POSIX system; use executor='loky' here")
        self._parent = os.getpid()
        self._process: Any = None
        self._cut = False
        self._stack = contextlib.ExitStack()  # lets go of what is held here
        try:
            with _ctrl_c_afterwards():
                self._start()
        except BaseException:
            self.close()
            raise

    def _start(self) -> None:
        keep = self._stack
        with contextlib.ExitStack() as theirs:
            self.sock, sock = socket.socketpair()
            keep.callback(self.sock.close)
            theirs.callback(sock.close)
            board_fd = create_file()
            theirs.callback(os.close, board_fd)
            lifeline_read, lifeline = os.pipe()
            theirs.callback(os.close, lifeline_read)
            keep.callback(os.close, lifeline)
            self._board = Board(board_fd)
            keep.callback(self._board.close)
            fds = (sock.fileno(), board_fd, lifeline_read)
            self._process = subprocess.Popen(
                [sys.executable, *["-O"] * sys.flags.optimize, "-c", _PROGRAM, _arguments(fds)],
                stdin=subprocess.DEVNULL,
                pass_fds=fds,
                process_group=0,
                cwd=_existing_folder(),
                env={**os.environ, **worker_environment()},
            )
        self._reader, self._writer = wire.Reader(self.sock), wire.Writer(self.sock)
        self.exit_fd = os.pidfd_open(self._process.pid) if hasattr(os, "pidfd_open") else None
        if self.exit_fd is not None:
            keep.callback(os.close, self.exit_fd)

    @property
    def pid(self) -> int:
        """The process id."""
        return int(self._process.pid)

    def post(self, word: str, argument: Any = None, body: pl.Payload | None = None) -> None:
        """Have a message sent, and its body as a frame of its own: now as far as it is read, the rest by `flush`."""
        self._writer.put(pl.dumps((word, argument, body is not None), by_value=False))
        if body is not None:
            self._writer.put(body)

    def flush(self) -> bool:
        """Send what can be sent without waiting; whether there is more. Raises `OSError` where the worker is gone."""
        self._writer.flush()
        return self._writer.pending

    def send(self, word: str, argument: Any = None, body: pl.Payload | None = None) -> None:
        """As `post` to a worker that reads: waits until all of it is out. Raises `OSError` where the worker is gone."""
        wire.send(self.sock, pl.dumps((word, argument, body is not None), by_value=False))
        if body is not None:
            wire.send(self.sock, body)

    def read(self) -> pl.Payload | None:
        """A message where a whole one has arrived."""
        return self._reader.read(socket.MSG_DONTWAIT)

    @property
    def gone(self) -> bool:
        """Whether the worker has closed its end, or has exited."""
        return self._reader.closed or self._exited()

    def _exited(self) -> bool:
        """Whether it has exited; it is not reaped, so that its number still means its process group and no other."""
        if not hasattr(os, "waitid"):
            return self._process.poll() is not None
        try:
            return os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
        except ChildProcessError:
            return True

    def position(self) -> Position | None:
        """The task that it is on."""
        return self._board.read()

    @property
    def cut_off(self) -> bool:
        """Whether a task has spoilt the connection. That shows later than it happens: no telling which task."""
        return self._reader.garbled or self._cut or self._process.returncode == CUT_OFF

    def end(self) -> str:
        """As `close`, of a worker that is `gone`: how it ended, in words."""
        deadline = time.monotonic() + _EXIT_S
        while not self._reader.garbled and not self._exited() and time.monotonic() < deadline:
            time.sleep(0.001)  # its connection closes a moment before it is gone
        self._cut = not self._exited()
        self.close()
        if self._reader.garbled:
            return "something else was written into its connection with the parent"
        if self.cut_off:
            return "its connection with the parent was closed"
        return exit_in_words(self._process.returncode)

    def kill(self) -> None:
        """End it, and what it has started, at once."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        """Kill it, and what it has left running, and let go of its descriptors."""
        if self._process is not None and self._process.returncode is None:
            self.kill()
        self.abandon()

    def abandon(self) -> None:
        """Let go of the descriptors only (in a forked child, the worker is the parent's)."""
        self._stack.close()

    def __del__(self) -> None:
        """Nobody holds it any more: a Ctrl-C has come before it was written down."""
        if "_stack" not in self.__dict__ or sys.is_finalizing():
            return
        if os.getpid() == self._parent:
            self.close()
        else:
            self.abandon()


@contextlib.contextmanager
def _ctrl_c_afterwards() -> Iterator[None]:
    """Hold back a Ctrl-C until something that must not be half done is done."""
    handler = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(handler):
        yield
        return
    came: list[tuple[int, Any]] = []
    signal.signal(signal.SIGINT, lambda number, frame: came.append((number, frame)))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
        if came:
            handler(*came[0])


def exit_in_words(code: int | None) -> str:
    """How a process ended, from its exit code as `subprocess` and `multiprocessing` give it."""
    if code is None:
        return "how is not known"
    if code < 0:
        with contextlib.suppress(ValueError):
            return f"killed by {signal.Signals(-code).name}"
        return f"killed by signal {-code}"
    return f"exited with code {code}"


def _existing_folder() -> str | None:
    """None for the folder of this process; where that has been removed, one in which an interpreter can start."""
    try:
        os.getcwd()
    except OSError:
        return os.sep
    return None


def _arguments(fds: tuple[int, ...]) -> str:
    return json.dumps({"path": sys.path, "fds": fds})
