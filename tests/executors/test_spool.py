"""The folder that the caller and its workers share: what is in it, and that it goes."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from parfit.executors import payload as pl
from parfit.executors.foreign import spool as module
from parfit.executors.foreign.spool import BETWEEN, IDLE, SETUP, Spool, Whereabouts, board_code, pack, unpack
from parfit.executors.workers.board import open_board


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    module._sweep.cache_clear()
    return tmp_path


def test_it_is_removed_and_was_private(temporary: Path) -> None:
    spool = Spool()
    assert os.stat(spool.folder).st_mode & 0o077 == 0
    spool.save("setup", pl.dumps(np.arange(5)))
    spool.remove()
    spool.remove()
    assert list(temporary.iterdir()) == []


def test_it_goes_with_its_holder(temporary: Path) -> None:
    Spool()
    gc.collect()
    assert list(temporary.iterdir()) == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_child_leaves_it_alone() -> None:
    spool = Spool()
    child = os.fork()
    if child == 0:
        spool.remove()
        os._exit(0)
    os.waitpid(child, 0)
    assert os.path.isdir(spool.folder)
    spool.remove()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs a FIFO")
def test_what_a_killed_caller_has_left_is_swept_and_nothing_else(temporary: Path) -> None:
    code = (
        "import os, sys, tempfile; tempfile.tempdir = sys.argv[1]; from parfit.executors.foreign.spool import Spool; "
        "spool = Spool(); print(spool.folder, flush=True); os.kill(os.getpid(), 9)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", code, str(temporary)]
    left = subprocess.run(command, env=environment, check=False, capture_output=True, text=True).stdout.strip()
    assert os.path.isdir(left)
    (temporary / "parfit-somebody-else").mkdir()
    live = Spool()
    assert not os.path.exists(left)
    module._sweep.cache_clear()
    other = Spool()
    assert {path.name for path in temporary.iterdir()} == {
        "parfit-somebody-else",
        Path(live.folder).name,
        Path(other.folder).name,
    }
    live.remove()
    other.remove()


@pytest.mark.parametrize("obj", ["small", np.arange(10_000)], ids=["in hand", "in a file"])
def test_a_payload_gets_across_once(obj: Any, temporary: Path) -> None:
    packed = pack(pl.dumps(obj), str(temporary), "block-1")
    assert isinstance(packed, str) == (not isinstance(obj, str))
    np.testing.assert_array_equal(pl.loads(unpack(packed, str(temporary))), obj)
    assert list(temporary.iterdir()) == []
    if isinstance(packed, str):
        with pytest.raises(OSError, match="block-1"):
            unpack(packed, str(temporary))


def test_a_payload_goes_by_hand_where_it_cannot_be_written(temporary: Path) -> None:
    packed = pack(pl.dumps(np.arange(1000)), str(temporary / "nowhere"), "block-1")
    assert not isinstance(packed, str)
    array = pl.loads(packed)
    array[0] = 5


def test_boards_and_watchdogs() -> None:
    spool = Spool()
    codes = {11: board_code(7, 3), 12: board_code(8, BETWEEN), 13: SETUP, 14: None}
    boards = {pid: open_board(os.path.join(spool.folder, f"{pid}.board"), create=True) for pid in codes}
    for pid, code in codes.items():
        if code is not None:
            boards[pid].begin(code)
        boards[pid].close()
    Path(spool.folder, "11.late").write_text("Timeout")
    Path(spool.folder, "12.late").touch()
    Path(spool.folder, "block-5").touch()
    where = spool.whereabouts()
    expected = {11: (7, 3), 12: (8, BETWEEN), 13: (SETUP, BETWEEN), 14: (IDLE, BETWEEN)}
    assert {pid: at[:2] for pid, at in where.items()} == expected
    assert all(isinstance(at, Whereabouts) and at.seconds >= 0 for at in where.values())
    assert spool.late() == {11}
    spool.wipe()
    assert (spool.whereabouts(), spool.late()) == ({}, set())
    assert os.listdir(spool.folder) == ["lifeline"]
    spool.remove()
