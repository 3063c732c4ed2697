"""What a store on disk holds, read without changing it: while it is written, after a crash, and where it is damaged.

The tables are those of `parfit.stores.sqlite`.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sqlite3
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from parfit.core.errors import StoreError
from parfit.core.fingerprint import digest
from parfit.stores.log import damage_of_log
from parfit.stores.packing import Rows, unpacked

__all__ = [
    "APPLICATION",
    "BUSY_S",
    "DAMAGE",
    "FORMAT",
    "PAGE",
    "Argument",
    "Identity",
    "Stored",
    "UnreadableError",
    "is_empty",
    "is_ours",
    "read_store",
]

#: "prft" as a number, by which SQLite files of parfit's are known.
APPLICATION = 0x70726674
FORMAT = 4
#: Short transactions write a page or two, long rows fill many (benchmarks/store.py).
PAGE = 32768
#: How long one waits for another's transaction, s.
BUSY_S = 30.0
#: What reading a damaged file may raise.
DAMAGE = (sqlite3.Error, ValueError, TypeError, LookupError, AttributeError, OverflowError, MemoryError)


class UnreadableError(StoreError):
    """A file is damaged, or no store.

    Attributes
    ----------
    why
        In words.
    """

    def __init__(self, path: Path, why: str, advice: str) -> None:
        super().__init__(f"{path} is damaged, or no store of parfit's: {why} ({advice})")
        self.why = why


class Argument(NamedTuple):
    """An argument of the call: its fingerprint, what to call it in a message, and fingerprints of its parts by name."""

    fingerprint: str
    shown: str
    parts: dict[str, str]


class Identity(NamedTuple):
    """What a table is of.

    Attributes
    ----------
    call
        The arguments that decide what is in it, by name.
    facts
        All else that a reader needs, by name; goes through JSON.
    """

    call: dict[str, Argument]
    facts: dict[str, Any]

    def fingerprint(self) -> str:
        """Of the call and its parameters' names; each block of rows says it."""
        return digest([[*self.facts["names"]], {name: self.call[name].fingerprint for name in sorted(self.call)}]).hex()


class Stored(NamedTuple):
    """What a file holds.

    Attributes
    ----------
    identity
        Of what.
    rows
        In the order in which they were written: of a row that comes twice, the later counts.
    damage
        What cannot be read, in words; none for nothing.
    """

    identity: Identity
    rows: list[Rows]
    damage: str = ""


def read_store(path: str | os.PathLike[str]) -> Stored:
    """All that a file holds, also while it is written, and after a crash.

    Raises
    ------
    StoreError
        Where there is no such file, or it is none of parfit's, or nothing of it can be read.
    """
    path = Path(path)
    unread = damage_of_log(path, PAGE)
    if not os.path.isfile(path) or (is_empty(path) and not unread):
        raise StoreError(f"there is no store {path}")
    try:
        with _reader(path) as file:
            if unread and not file.execute("select count(*) from sqlite_master").fetchone()[0]:
                raise sqlite3.DatabaseError(unread)
            stored = _read(file, path)
            return stored if stored.damage else stored._replace(damage=unread)
    except DAMAGE as exc:
        again = "overwrite=True starts anew" if is_ours(path) else "without the file, it starts anew"
        advice = f"the call of fit that wrote it recovers the rows that are sound; {again}"
        raise UnreadableError(path, str(exc), advice) from exc


def is_empty(path: Path) -> bool:
    """Whether there is no file, or one without a byte or a table: where a process died that had just made it.

    Raises
    ------
    StoreError
        For what is no file, or cannot be read.
    """
    if not os.path.exists(path):  # unlike a method of a path, it says no to a name that cannot be
        return True
    if not path.is_file():
        raise StoreError(f"{path} is no file")
    # Nothing but SQLite opens the file: closing it lets go of all locks that this process has on it.
    if not os.access(path, os.R_OK):
        raise StoreError(f"{path} cannot be read: permission denied")
    if not os.path.getsize(path):
        return True
    try:
        with _reader(path) as database:
            return not database.execute("select count(*) from sqlite_master").fetchone()[0]
    except DAMAGE:
        return False


def is_ours(path: Path) -> bool:
    """Whether a file is a store, sound or not."""
    try:
        with _reader(path) as database:
            return bool(database.execute("pragma application_id").fetchone()[0] == APPLICATION)
    except DAMAGE:  # nobody writes it
        with contextlib.suppress(OSError), open(path, "rb") as file:
            return file.read(72)[68:] == APPLICATION.to_bytes(4, "big")
        return False


@contextlib.contextmanager
def _reader(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection that changes nothing, also in a folder where nothing can be written."""
    with contextlib.ExitStack() as opened:

        def connected(where: Path, how: str) -> sqlite3.Connection:
            address = f"{where.absolute().as_uri()}?{how}"
            file = sqlite3.connect(address, uri=True, timeout=BUSY_S, isolation_level=None)
            opened.enter_context(contextlib.closing(file))
            file.execute("select 1 from sqlite_master").fetchall()
            return file

        try:
            file = connected(path, "mode=ro")
        except sqlite3.OperationalError:
            copy = _copied(path, opened)
            file = connected(path, "mode=ro&immutable=1") if copy is None else connected(copy, "mode=rw")
        yield file


def _copied(path: Path, opened: contextlib.ExitStack) -> Path | None:
    """A copy with its log, which SQLite reads only where it can write; None where there is no log."""
    log = path.with_name(path.name + "-wal")
    try:
        if os.access(path.parent, os.W_OK) or not log.exists() or not log.stat().st_size:
            return None
        folder = Path(opened.enter_context(tempfile.TemporaryDirectory()))
        for one in (path, log):
            shutil.copy(one, folder)
    except OSError as exc:  # it is gone
        raise sqlite3.OperationalError(f"it cannot be copied: {exc.strerror}") from exc
    return folder / path.name


def _read(file: sqlite3.Connection, path: Path) -> Stored:
    """In one transaction: as it is at one moment, whoever writes."""
    file.execute("begin")
    if file.execute("pragma application_id").fetchone()[0] != APPLICATION:
        raise StoreError(f"{path} is a SQLite file, and no store of parfit's")
    version = file.execute("pragma user_version").fetchone()[0]
    if version != FORMAT:
        raise StoreError(
            f"{path} has format {version}, and this version of parfit reads format {FORMAT}: "
            "read it with the version that wrote it, or begin anew with overwrite=True"
        )
    facts = {name: json.loads(text) for name, text in _texts(file, "facts")}
    call = {name: Argument(*json.loads(text)) for name, text in _texts(file, "call")}
    identity = Identity(call, facts)
    rows, damaged = _blocks(file, facts["first_block"], identity.fingerprint())
    damage = f"of its blocks of rows {len(rows)} can be read, and {damaged} or more cannot" if damaged else ""
    return Stored(identity, rows, damage)


def _texts(file: sqlite3.Connection, table: str) -> Iterator[tuple[str, str]]:
    for name, text, crc in file.execute(f"select name, value, crc from {table} order by rowid"):
        if zlib.crc32(f"{name}={text}".encode()) != crc:
            raise sqlite3.DatabaseError(f"{table}: the checksum of {name} is wrong")
        yield name, text


def _blocks(file: sqlite3.Connection, first: int, call: str) -> tuple[list[Rows], int]:
    """What can be read of the rows, and how many blocks, of those from the first on, cannot."""
    found, damaged = [], 0
    last = file.execute("select seq from sqlite_sequence where name = 'blocks'").fetchone()
    most = file.execute("select max(id) from blocks").fetchone()[0] or 0
    said = int(last[0]) if last else 0
    damaged += said != most
    for key in range(first, most + 1):
        try:
            block = file.execute("select body, crc from blocks where id = ?", (key,)).fetchone()
            if block is None or zlib.crc32(block[0]) != block[1] or (held := unpacked(block[0])).call != call:
                damaged += 1
            else:
                found.append(held.rows)
        except DAMAGE:
            damaged += 1
    if not damaged and file.execute("pragma quick_check(1)").fetchone()[0] != "ok":
        damaged = 1  # of which nothing is left that says so
    return found, damaged
