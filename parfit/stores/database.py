"""The file of a store: its tables, a connection that writes, what makes it outlive a power failure."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import threading
import zlib
from pathlib import Path
from typing import Any

from parfit.stores.reading import APPLICATION, BUSY_S, FORMAT, PAGE

__all__ = ["connected", "make_tables", "say", "synchronise_soon", "wait_until_synchronised"]

_TABLES = (
    "create table facts (name text primary key, value text not null, crc integer not null)",
    "create table call (name text primary key, value text not null, crc integer not null)",
    "create table blocks (id integer primary key autoincrement, body blob not null, crc integer not null)",
)

#: The threads that do so, by their files.
_synchronising: dict[Path, threading.Thread] = {}


def connected(path: Path, *, anew: bool) -> sqlite3.Connection:
    """A connection that writes; to an empty file where there is nothing to keep."""
    if anew:
        for ending in ("", "-wal", "-shm"):
            path.with_name(path.name + ending).unlink(missing_ok=True)
    file = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
    try:
        file.execute(f"pragma page_size = {PAGE}")
        file.execute("pragma journal_mode = wal")
        file.execute("pragma synchronous = normal")
        file.execute("pragma wal_autocheckpoint = 0")  # the thread does
    except sqlite3.Error:
        file.close()
        raise
    return file


def make_tables(file: sqlite3.Connection) -> None:
    """The tables of a store, in an empty file."""
    for statement in _TABLES:
        file.execute(statement)
    file.execute(f"pragma application_id = {APPLICATION}")
    file.execute(f"pragma user_version = {FORMAT}")


def synchronise_soon(path: Path) -> None:
    """Have a file outlive a power failure. Who writes it next waits for that, and the interpreter that ends."""
    with contextlib.suppress(OSError):
        file = os.open(path, os.O_RDWR)

        def synchronise() -> None:
            with contextlib.suppress(OSError):
                os.fsync(file)
            os.close(file)

        thread = _synchronising[path] = threading.Thread(target=synchronise, name="parfit store")
        thread.start()
        if os.name != "posix":  # where a file that is open cannot be removed
            wait_until_synchronised(path)


def wait_until_synchronised(path: Path) -> None:
    """Wait where that is being done: closing a file lets go of all locks that this process has on it."""
    thread = _synchronising.pop(path, None)
    if thread is not None:
        thread.join()


def say(file: sqlite3.Connection, table: str, name: str, value: Any) -> None:
    """Write a fact, or an argument of the call, with its checksum."""
    text = json.dumps(value)
    crc = zlib.crc32(f"{name}={text}".encode())
    file.execute(f"insert or replace into {table} (name, value, crc) values (?, ?, ?)", (name, text, crc))
