"""The board: what a reader sees belongs together, and outlives the writer."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from parfit.executors.workers import board as module
from parfit.executors.workers.board import Board, create_file, open_board


def test_begin_and_idle() -> None:
    fd = create_file()
    writer, reader = Board(fd), Board(fd)
    os.close(fd)
    assert reader.read() is None
    for index in (0, 1, (7 << 32) + 3, -2):
        writer.begin(index)
        position = reader.read()
        assert position is not None
        assert position.task == index
        assert position.seconds >= 0.0
    writer.idle()
    assert reader.read() is None
    writer.close()
    reader.close()


def test_it_outlives_the_writer(tmp_path: Path) -> None:
    path = str(tmp_path / "board")
    code = (
        "import os, sys; from parfit.executors.workers.board import open_board; "
        "open_board(sys.argv[1], create=True).begin(42); os._exit(1)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    assert subprocess.run([sys.executable, "-c", code, path], env=environment, check=False).returncode == 1
    board = open_board(path)
    position = board.read()
    assert position is not None
    assert position.task == 42
    board.close()


def test_a_reader_never_sees_the_time_of_another_task(monkeypatch: pytest.MonkeyPatch) -> None:
    fd = create_file()
    writer, reader = Board(fd), Board(fd)
    os.close(fd)
    index = 0
    main = threading.get_ident()

    class Clock:
        """In the writer the number of the task that begins, in the reader zero: then task + seconds is zero."""

        @staticmethod
        def monotonic() -> float:
            return 0.0 if threading.get_ident() == main else float(index)

    monkeypatch.setattr(module, "time", Clock)
    done = threading.Event()

    def write() -> None:
        nonlocal index
        while not done.is_set():
            for index in range(1, 200):
                writer.begin(index)
            writer.idle()

    interval = sys.getswitchinterval()
    thread = threading.Thread(target=write)
    seen = set()
    try:
        sys.setswitchinterval(2e-5)
        thread.start()
        while len(seen) < 50:
            if (position := reader.read()) is not None:
                seen.add(position)
    finally:
        done.set()
        thread.join()
        sys.setswitchinterval(interval)
    assert all(position.task + position.seconds == 0.0 for position in seen)
    writer.close()
    reader.close()
