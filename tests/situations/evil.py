"""What a row can do to the process that it runs in, and what its status is then. Workers import this."""

from __future__ import annotations

import ctypes
import os
import signal
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

from tests.situations.lines import match_for_ever, run_for_ever, sleep_with_every_signal_blocked

LINE = b"\xff\xfe not text \0 "


class OddError(BaseException):
    """No `Exception`."""


class Evil(NamedTuple):
    """What is done, the status, and what the message says (nothing where the row is fitted all the same)."""

    do: Callable[[], object]
    status: str
    reason: str = ""


def raising(exc: BaseException) -> Callable[[], None]:
    def do() -> None:
        raise exc

    return do


def write_to_every_descriptor() -> None:
    for fd in range(1, 2048):
        try:
            os.write(fd, LINE * 10)
        except OSError:
            continue


def write_megabytes() -> None:
    for fd in (1, 2):
        for _ in range(20):
            os.write(fd, LINE * 10_000)


def leave_a_process() -> None:
    """It holds every pipe open that it was given; the tests know it by the number of their process."""
    os.posix_spawnp("sleep", ["sleep", f"{os.getppid()}00"], os.environ)


def leave_a_process_and_die() -> None:
    leave_a_process()
    os._exit(3)


def fork_and_stay() -> None:
    if os.fork() == 0:
        time.sleep(1000)
        os._exit(0)


def fork_and_return() -> None:
    os.fork()


def ignore_every_signal() -> None:
    for number in signal.valid_signals():
        try:
            signal.signal(number, signal.SIG_IGN)
        except (OSError, ValueError):
            continue


def recurse(n: int = 0) -> int:
    return recurse(n + 1) + 1


def leave_a_thread() -> None:
    threading.Thread(target=time.sleep, args=(1000,)).start()


LOST = "worker_lost"
EVIL = {
    "os._exit": Evil(lambda: os._exit(3), LOST, "exited with code 3"),
    "os._exit(0)": Evil(lambda: os._exit(0), LOST, "exited with code 0"),
    "segfault": Evil(lambda: ctypes.string_at(0), LOST, "killed by SIGSEGV"),
    "abort": Evil(os.abort, LOST, "killed by SIGABRT"),
    "kill -9": Evil(lambda: os.kill(os.getpid(), signal.SIGKILL), LOST, "killed by SIGKILL.*memory has run out"),
    "kill the group": Evil(lambda: os.killpg(0, signal.SIGTERM), LOST, "killed by SIGTERM"),
    "SystemExit": Evil(raising(SystemExit(4)), "error", "SystemExit: 4"),
    "KeyboardInterrupt": Evil(raising(KeyboardInterrupt()), "error", "KeyboardInterrupt"),
    "GeneratorExit": Evil(raising(GeneratorExit("gone")), "error", "GeneratorExit: gone"),
    "BaseException": Evil(raising(OddError("odd")), "error", "OddError: odd"),
    "recursion": Evil(recurse, "error", "RecursionError: maximum recursion depth"),
    "MemoryError": Evil(lambda: bytearray(1 << 62), "error", "MemoryError"),
    "python loop": Evil(run_for_ever, "timeout", "timeout=1 s"),
    "C loop": Evil(match_for_ever, "timeout", "timeout=1 s"),
    "deaf to signals": Evil(sleep_with_every_signal_blocked, "timeout", "timeout=1 s"),
    "closes 0 to 256": Evil(lambda: os.closerange(0, 256), "converged"),
    "closes 3 to 256": Evil(lambda: os.closerange(3, 256), "converged"),
    "closes all": Evil(lambda: os.closerange(0, 1 << 16), LOST, "its connection with the parent was closed"),
    "writes to all": Evil(write_to_every_descriptor, LOST, "something else was written into its connection"),
    "writes megabytes": Evil(write_megabytes, "converged"),
    "leaves a process": Evil(leave_a_process, "converged"),
    "leaves a process and dies": Evil(leave_a_process_and_die, LOST, "exited with code 3"),
    "forks, and both stay": Evil(fork_and_stay, "converged"),
    "forks, and both return": Evil(fork_and_return, "converged"),
    "leaves a thread": Evil(leave_a_thread, "converged"),
    "ignores signals": Evil(ignore_every_signal, "converged"),
    "goes elsewhere": Evil(lambda: os.chdir("/"), "converged"),
}
