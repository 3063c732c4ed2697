"""What may stand at the path of a store: no file at all, half a file, a lock that is gone."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import textwrap
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import parfit
from parfit import StoreError
from parfit.stores import opening, reading
from parfit.stores.lock import Lock

DATA = pd.DataFrame({"y": np.arange(200.0)})


def residuals(p, row):
    return np.array([p["a"] - row["y"], 0.1 * p["a"]])


def fit(path, data=DATA, **more):
    return parfit.fit(data, residuals, {"a": 1.0}, store=path, engine="rows", executor="serial", **more)


def damaged(path: Path) -> None:
    """A bit is another in the last of its blocks."""
    content = bytearray(path.read_bytes())
    content[content.rindex(b'"parameters"') + 2] ^= 1
    path.write_bytes(bytes(content))


# ---- no files


@pytest.mark.skipif(os.name != "posix", reason="there are no such pipes")
@pytest.mark.parametrize("overwrite", [False, True])
def test_what_is_no_file_is_left_as_it_is(tmp_path, overwrite):
    path = tmp_path / "fits.db"
    os.mkfifo(path)
    before = path.stat().st_mode
    with pytest.raises(StoreError, match=r"fits\.db is no file"):
        fit(path, overwrite=overwrite)
    assert path.stat().st_mode == before


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="only root makes devices")
def test_a_device_is_no_file(tmp_path):
    path = tmp_path / "null"
    try:
        os.mknod(path, 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    except OSError:
        pytest.skip("may not make a device")
    with pytest.raises(StoreError, match="null is no file"):
        fit(path)
    assert stat.S_ISCHR(path.stat().st_mode)


def test_a_name_that_is_too_long_is_told(tmp_path):
    for call, why in ((fit, "cannot be written: File name too long"), (parfit.open_store, "there is no store")):
        with pytest.raises(StoreError, match=why):
            call(tmp_path / ("x" * 300))


def test_a_file_that_may_not_be_read_is_not_called_damaged(tmp_path, monkeypatch):
    fit(tmp_path / "fits.db")

    monkeypatch.setattr("parfit.stores.reading.os.access", lambda path, mode: False)
    for call in (fit, parfit.open_store):
        with pytest.raises(StoreError, match="cannot be read: permission denied"):
            call(tmp_path / "fits.db")


# ---- half a file


def test_a_run_that_was_killed_at_once_gives_way(tmp_path):
    """All that there is of it is in the log."""
    script = f"""
        import os, sys, signal
        sys.path.insert(0, {str(Path(__file__).parents[2])!r})
        from tests.stores.test_odd_files import *
        fit({str(tmp_path / "fits.db")!r}, progress=lambda done, total: done > 5 and os.kill(os.getpid(), 9))
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=False)
    assert (tmp_path / "fits.db").read_bytes()[68:72] != reading.APPLICATION.to_bytes(4, "big")
    assert not parfit.open_store(tmp_path / "fits.db").success.all()
    assert fit(tmp_path / "fits.db", overwrite=True).success.all()


def cut_short(*_):
    raise MemoryError


def test_a_repair_that_is_cut_short_has_lost_nothing(tmp_path, monkeypatch):
    path = tmp_path / "fits.db"
    for n in range(40, 201, 40):
        fit(path, DATA[:n])
    damaged(path)
    content = path.read_bytes()
    with monkeypatch.context() as patch, warnings.catch_warnings(record=True):
        warnings.simplefilter("always")
        patch.setattr(opening.os, "replace", cut_short)
        with pytest.raises(MemoryError):
            fit(path)
    assert path.read_bytes() == content
    assert not (tmp_path / "fits.db.new").exists()
    fitted = []
    with pytest.warns(parfit.ParfitWarning, match="is damaged"):
        fits = fit(path, progress=lambda done, total: fitted.append(done))
    assert fits.success.all()
    assert 0 < len(fitted) < len(DATA)
    assert (tmp_path / "fits.db.damaged").read_bytes() == content
    assert not (tmp_path / "fits.db.new").exists()


def test_the_way_out_that_is_named_is_one(tmp_path):
    path = tmp_path / "fits.db"
    fit(path)
    content = path.read_bytes()
    path.write_bytes(content[:50])
    with pytest.raises(
        StoreError, match="no row of this call can be recovered from it; without the file, it starts anew"
    ):
        fit(path)
    with pytest.raises(StoreError, match="is no store of parfit's"):
        fit(path, overwrite=True)
    path.write_bytes(content[: len(content) // 40])
    with pytest.raises(StoreError, match="can be recovered from it; overwrite=True starts anew"):
        fit(path)
    assert fit(path, overwrite=True).success.all()


def test_another_format_is_another_format(tmp_path):
    path = tmp_path / "fits.db"
    fit(path)
    with sqlite3.connect(path) as db:
        db.execute("pragma user_version = 99")
    db.close()
    content = path.read_bytes()
    with pytest.raises(StoreError, match="has format 99"):
        fit(path)
    assert path.read_bytes() == content
    assert fit(path, overwrite=True).success.all()


# ---- the lock

SECOND = """
    import sys
    from parfit.stores.lock import Lock
    from pathlib import Path
    try:
        with Lock(Path(sys.argv[1])):
            print("taken")
    except Exception as exc:
        print(exc)
"""


def of_another_process(path) -> str:
    command = [sys.executable, "-c", textwrap.dedent(SECOND), str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_another_process_is_refused(tmp_path):
    path = tmp_path / "fits.db"
    with Lock(path):
        said = of_another_process(path)
        assert f"{path} is being written by process {os.getpid()} on " in said
    assert of_another_process(path) == "taken\n"


@pytest.mark.skipif(os.name != "posix", reason="elsewhere a lock goes with its own handle")
def test_a_lock_that_a_copy_has_taken_away_is_taken_again(tmp_path):
    path = tmp_path / "fits.db"
    with Lock(path) as lock:
        shutil.copy(tmp_path / "fits.db.lock", tmp_path / "copy")  # reads it, and closes it
        lock.renew()
        assert "is being written by process" in of_another_process(path)


def test_the_lock_is_looked_after_while_rows_come(tmp_path):
    path, said = tmp_path / "fits.db", []

    def copy(done, total):
        if done == 50:
            shutil.copy(tmp_path / "fits.db.lock", tmp_path / "copy")
        if done == 150:
            said.append(of_another_process(path))

    fit(path, progress=copy)
    assert "is being written by process" in said[0]


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="needs to mount a disk that cannot be written")
def test_a_log_is_read_where_nothing_can_be_written(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(disk)], check=False).returncode:
        pytest.skip("may not mount a disk")
    try:

        def copy(done, total):
            if done == 150:
                while parfit.open_store(tmp_path / "fits.db").success.sum() < 100:
                    time.sleep(0.01)
                for ending in ("", "-wal"):
                    shutil.copy(tmp_path / f"fits.db{ending}", disk)

        fit(tmp_path / "fits.db", progress=copy)
        assert (disk / "fits.db-wal").stat().st_size
        there = parfit.open_store(disk / "fits.db").success.sum()
        for leftover in disk.glob("*-shm"):
            leftover.unlink()
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        assert there >= 100
        assert parfit.open_store(disk / "fits.db").success.sum() == there
    finally:
        subprocess.run(["umount", str(disk)], check=True)


# ---- SQLite's own locks


def read_elsewhere(path) -> None:
    """As a browser of databases would: who closes the last connection removes the log."""
    program = "import sqlite3, sys; db = sqlite3.connect(sys.argv[1]); db.execute('select 1 from blocks'); db.close()"
    subprocess.run([sys.executable, "-c", program, str(path)], check=True)


def test_who_reads_the_store_that_it_writes_keeps_its_locks(tmp_path):
    path, logs = tmp_path / "fits.db", []

    def read(done, total):
        if done == 50:
            parfit.open_store(path)
            read_elsewhere(path)
            logs.append((tmp_path / "fits.db-wal").exists())

    fit(path, progress=read)
    assert logs == [True]


def test_a_call_after_another_keeps_its_locks(tmp_path, monkeypatch):
    path, logs = tmp_path / "fits.db", []
    monkeypatch.setattr("parfit.stores.database.os.fsync", lambda file: time.sleep(0.3))
    fit(path, DATA[:100])

    def read(done, total):
        if done == 150:
            time.sleep(0.4)
            read_elsewhere(path)
            logs.append((tmp_path / "fits.db-wal").exists())

    fit(path, progress=read)
    assert logs == [True]
