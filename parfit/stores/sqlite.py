"""In a SQLite file: rows are durable within a second, readable while others come, and there after a crash.

    put, put_many ─▶ columns in memory, and the positions that the file lacks
                        │ a thread, 50 times a second: packed, with a checksum, in a transaction of its own
                        ▼
    file:  facts    what the table is: names, labels, versions          ┐ text, with checksums
           call     a fingerprint of each argument that matters         ┘
           blocks   rows, those that came together; of a row that is in two, the later counts. Many short blocks are
                    made one on closing

One process writes (`parfit.stores.lock`), any number read. Nothing in the file is a pickle: to open one that somebody
else made runs no code.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import sqlite3
import threading
import time
import warnings
import zlib
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from parfit.core.columns import Columns
from parfit.core.errors import ParfitWarning, StoreError, StoreMismatchError
from parfit.core.protocols import Store
from parfit.core.solution import Outcome, Solutions, Status
from parfit.stores.lock import Lock
from parfit.stores.packing import Rows, packed
from parfit.stores.reading import (
    APPLICATION,
    BUSY_S,
    FORMAT,
    Identity,
    Stored,
    damage_of,
    is_empty,
    read_store,
    refuse_other,
)

__all__ = ["SqliteStore"]

#: How long a row waits until it is written, s.
_INTERVAL_S = 0.02
#: And how long until it outlives a power failure: until then it outlives this process alone.
_SYNCHRONISED_S = 0.8
#: More blocks than this are made one; of so many rows, at most.
_BLOCKS, _LONGEST = 64, 20_000
_TABLES = (
    "create table facts (name text primary key, value text not null, crc integer not null)",
    "create table call (name text primary key, value text not null, crc integer not null)",
    "create table blocks (id integer primary key autoincrement, body blob not null, crc integer not null)",
)


class SqliteStore(Store):
    """A file, and its columns in memory.

    Parameters
    ----------
    path
        The file; made where there is none. Its folder must exist.
    identity
        Of what the table is.
    fingerprints : ndarray of uint64, shape (B, 2)
        Of the data of each row.
    starts : ndarray, shape (B, n)
        Where each row starts; NaN where that is not known.
    retry_failed
        Whether rows that did not converge are to be fitted again.
    overwrite
        Whether a table of something else gives way.

    Raises
    ------
    StoreError
        On entering, where the file cannot be written or read, or another process writes it; on leaving, where
        something could not be written.
    StoreMismatchError
        On entering, where the file holds a table of something else.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        identity: Identity,
        fingerprints: NDArray[np.uint64],
        starts: NDArray[np.float64],
        *,
        retry_failed: bool = False,
        overwrite: bool = False,
    ) -> None:
        self._path = Path(path).resolve()  # one lock, by whatever name the file is called
        self._identity = identity._replace(facts={**identity.facts, "first_block": 1})
        self._fingerprints = fingerprints
        self._starts = starts
        self._retry_failed = retry_failed
        self._overwrite = overwrite
        self._columns = Columns(len(starts), len(identity.facts["names"]))
        self._waiting: list[NDArray[np.intp]] = []
        self._waits = 0
        self._lock = threading.Lock()
        self._ends = threading.Event()
        self._error: Exception | None = None
        self._told = False
        #: Whether the file has rows that are not in the columns.
        self._holds_more = False
        self._old: NDArray[np.float64] | None = None

    # ---- the protocol

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as opened:
            opened.enter_context(Lock(self._path))
            stored = None if is_empty(self._path) or self._gives_way() else read_store(self._path)
            if stored is not None:
                self._take_in(stored)
                if stored.damaged:
                    self._put_aside(stored)
            anew = stored is None or stored.damaged > 0
            self._file = opened.enter_context(contextlib.closing(self._connected(anew)))
            if anew:
                self._begin(stored)
            elif stored is not None:
                self._note_changes(stored.identity.facts)
            self._thread = threading.Thread(target=self._write_on, name="parfit store", daemon=True)
            self._thread.start()
            self._opened = opened.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self._ends.set()
        self._thread.join()
        with self._opened:
            with contextlib.suppress(sqlite3.Error):  # all is there without
                self._gather()
                self._file.execute("pragma wal_checkpoint(truncate)")
        if kind is None and not self._path.exists():
            raise StoreError(f"{self._path} was removed while it was written")
        if self._waits and kind is None:
            raise StoreError(f"{self._waits:,} rows could not be written to {self._path}: {self._error}")

    def put(self, position: int, outcome: Outcome) -> None:
        with self._lock:
            self._columns.put(position, outcome)
            self._wait(np.array([position]))
        self._tell()

    def put_many(self, solutions: Solutions) -> None:
        with self._lock:
            self._columns.put_many(solutions)
            self._wait(solutions.positions)
        self._tell()

    def done(self) -> Iterable[int]:
        again = (Status.NOT_RUN,) if not self._retry_failed else tuple(s for s in Status if s is not Status.CONVERGED)
        done: list[int] = np.flatnonzero(~self._columns.has(*again)).tolist()
        return done

    def columns(self) -> Columns:
        with self._lock:
            return self._columns

    def old_solutions(self) -> NDArray[np.float64] | None:
        return self._old

    def settle(self, engine: str) -> None:
        if self.engine not in (None, engine) and not self._columns.has(Status.NOT_RUN).all():
            raise StoreMismatchError(
                f"{self._path} holds fits of engine {self.engine!r}, and this call would go on with {engine!r}, whose "
                f"last digits are others: engine={self.engine!r} goes on, overwrite=True starts anew"
            )
        self.engine = self._identity.facts["engine"] = engine
        with contextlib.suppress(sqlite3.Error):  # rows, which cannot be written either, tell
            _say(self._file, "facts", "engine", engine)

    # ---- opening

    def _gives_way(self) -> bool:
        """Whether what is there gives way; never what is not a store."""
        if not self._overwrite:
            return False
        with open(self._path, "rb") as file:
            head = file.read(72)
        if head and head[68:72] != APPLICATION.to_bytes(4, "big"):
            raise StoreError(f"{self._path} is no store of parfit's, and is left as it is")
        return True

    def _put_aside(self, stored: Stored) -> None:
        """Keep a damaged file under another name; what is sound goes into a new one."""
        names = (f"{self._path.name}.damaged{number or ''}" for number in itertools.count())
        aside = next(path for path in map(self._path.with_name, names) if not path.exists())
        for ending in ("", "-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                os.replace(self._path.with_name(self._path.name + ending), aside.with_name(aside.name + ending))
        warnings.warn(
            f"{self._path} is damaged: {damage_of(stored)}; the rows that are lost are fitted again. "
            f"The damaged file is kept as {aside.name}",
            ParfitWarning,
            stacklevel=2,
        )

    def _take_in(self, stored: Stored) -> None:
        """Check that the file is of the same, and read its rows."""
        refuse_other(self._path, stored.identity, self._identity)
        self.engine = self._identity.facts["engine"] = stored.identity.facts.get("engine")
        fingerprints = np.zeros_like(self._fingerprints)
        there = np.zeros(len(fingerprints), dtype=bool)
        for rows in stored.rows:
            inside = rows.positions < len(there)
            positions, columns = rows.positions, rows.columns
            if not inside.all():
                self._holds_more = True
                positions, columns = positions[inside], columns.taken(np.flatnonzero(inside))
            self._columns.place(positions, columns)
            fingerprints[positions], there[positions] = rows.fingerprints[inside], True
        same = (fingerprints == self._fingerprints).all(axis=1)
        if there.any() and not same[there].any():
            raise StoreMismatchError(
                f"{self._path} holds fits of other data: none of its {int(there.sum()):,} rows is in these; "
                "overwrite=True starts anew, another path keeps both"
            )
        changed = np.flatnonzero(there & ~same)
        self._holds_more |= len(changed) > 0
        if len(changed):
            self._old = np.full(self._columns.params.shape, np.nan)
            self._old[changed] = self._columns.params[changed]
            self._columns.place(changed, Columns(len(changed), self._old.shape[1]))

    def _connected(self, anew: bool) -> sqlite3.Connection:
        """A connection that writes; to an empty file where there is nothing to keep."""
        try:
            if anew:
                for ending in ("", "-wal", "-shm"):
                    self._path.with_name(self._path.name + ending).unlink(missing_ok=True)
            file = sqlite3.connect(self._path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
            file.execute("pragma page_size = 65536")  # blocks are long
            file.execute("pragma journal_mode = wal")
            file.execute("pragma synchronous = normal")
        except (sqlite3.Error, OSError) as exc:
            raise StoreError(f"{self._path} cannot be written: {exc}") from exc
        return file

    def _begin(self, stored: Stored | None) -> None:
        """The tables, and what is sound of a damaged file."""
        file = self._file
        try:
            file.execute("begin")
            for statement in _TABLES:
                file.execute(statement)
            file.execute(f"pragma application_id = {APPLICATION}")
            file.execute(f"pragma user_version = {FORMAT}")
            for name, argument in self._identity.call.items():
                _say(file, "call", name, list(argument))
            for name, value in self._identity.facts.items():
                _say(file, "facts", name, value)
            for rows in stored.rows if stored is not None else ():
                _insert(file, packed(rows))
            file.execute("commit")
        except sqlite3.Error as exc:
            raise StoreError(f"{self._path} cannot be written: {exc}") from exc

    def _note_changes(self, facts: dict[str, Any]) -> None:
        """What may differ from call to call: labels, versions."""
        for name, value in self._identity.facts.items():
            if name != "first_block" and facts.get(name) != json.loads(json.dumps(value)):
                _say(self._file, "facts", name, value)

    # ---- the thread

    def _wait(self, positions: NDArray[np.intp]) -> None:
        self._waiting.append(positions)
        self._waits += len(positions)

    def _write_on(self) -> None:
        synchronised = time.monotonic()
        while not self._ends.wait(_INTERVAL_S):
            self._flush()
            if time.monotonic() > synchronised + _SYNCHRONISED_S:
                with contextlib.suppress(sqlite3.Error):  # what cannot be written waits, and tells
                    self._file.execute("pragma wal_checkpoint(passive)")
                synchronised = time.monotonic()
        self._flush()

    def _flush(self) -> None:
        """Write what waits; where that fails, it waits on."""
        with self._lock:
            if not self._waiting:
                return
            positions = np.unique(np.concatenate(self._waiting))
            self._waiting, self._waits = [], 0
            body = self._packed(positions)
        try:
            _insert(self._file, body)
            self._error = None
        except sqlite3.Error as exc:
            with self._lock:
                self._error = exc
                self._waiting.append(positions)
                self._waits += len(positions)

    def _gather(self) -> None:
        """Make many short blocks a few long ones."""
        file = self._file
        count, last = file.execute("select count(*), max(id) from blocks").fetchone()
        if count <= _BLOCKS or self._waits or self._holds_more:
            return
        done = np.flatnonzero(~self._columns.has(Status.NOT_RUN))
        file.execute("begin")
        for at in range(0, len(done), _LONGEST):
            _insert(file, self._packed(done[at : at + _LONGEST]))
        file.execute("delete from blocks where id <= ?", (last,))
        _say(file, "facts", "first_block", last + 1)
        file.execute("commit")

    def _packed(self, positions: NDArray[np.intp]) -> bytes:
        columns = self._columns.taken(positions)
        return packed(Rows(positions, self._fingerprints[positions], self._starts[positions], columns))

    def _tell(self) -> None:
        """Warn, once, of what cannot be written; fitting goes on."""
        if self._error is not None and not self._told:
            self._told = True
            warnings.warn(
                f"{self._path} cannot be written ({self._error}): fitting goes on, and writing is tried again",
                ParfitWarning,
                stacklevel=4,
            )


def _say(file: sqlite3.Connection, table: str, name: str, value: Any) -> None:
    text = json.dumps(value)
    crc = zlib.crc32(f"{name}={text}".encode())
    file.execute(f"insert or replace into {table} (name, value, crc) values (?, ?, ?)", (name, text, crc))


def _insert(file: sqlite3.Connection, body: bytes) -> None:
    file.execute("insert into blocks (body, crc) values (?, ?)", (body, zlib.crc32(body)))
