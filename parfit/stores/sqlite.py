"""In a SQLite file: rows are durable within a second, readable while others come, and there after a crash.

    put, put_many ─▶ columns in memory, and the positions that the file lacks
                        │ a thread, as soon as it is idle: packed, with a checksum, in a transaction of its own
                        ▼
    file:  facts    what the table is: names, labels, versions          ┐ text, with checksums
           call     a fingerprint of each argument that matters         ┘
           blocks   rows, those that came together, by position; of a position that is in two, the later counts. Many
                    short blocks are made one on closing

The table is what stands at the positions of the datasets of the last call; behind them are rows of other datasets,
kept for a call that has them again (`parfit.stores.matching`). One process writes (`parfit.stores.lock`), any number
read. Nothing in the file is a pickle: to open one that somebody else made runs no code.
"""

from __future__ import annotations

import contextlib
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
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from parfit.core.columns import Columns
from parfit.core.errors import ParfitWarning, StoreError, StoreMismatchError
from parfit.core.protocols import Store
from parfit.core.solution import Outcome, Solution, Solutions, Status
from parfit.stores.database import connected, make_tables, say, synchronise_soon, wait_until_synchronised
from parfit.stores.lock import Lock
from parfit.stores.matching import matched, merged
from parfit.stores.opening import gives_way, put_aside, refuse_another, refused_data, what_is_there
from parfit.stores.packing import Packer, Rows
from parfit.stores.reading import Identity, Stored

__all__ = ["SqliteStore", "Wanted"]

#: After a transaction the thread waits so many times as long as it took, and no longer than this, s: what comes one by
#: one is written at once, what comes fast is written together (benchmarks/store.py).
_REST, _LONGEST_REST_S = 20, 0.02
#: What comes in one burst is waited for, s.
_BURST_S = 0.001
#: How long until a row outlives a power failure, s: until then it outlives this process alone.
_SYNCHRONISED_S = 0.8
#: More blocks than this are made one; of so many rows, at most.
_BLOCKS, _LONGEST = 64, 20_000


class Wanted(NamedTuple):
    """The datasets of a call.

    Attributes
    ----------
    fingerprints : ndarray of uint64, shape (B, 2)
        Of all that is each one's own: data, start, bounds.
    labels : ndarray of uint64, shape (B,)
        A number for each label, the same for equal ones.
    starts : ndarray, shape (B, n)
        Where each starts; NaN where only the worker knows.
    """

    fingerprints: NDArray[np.uint64]
    labels: NDArray[np.uint64]
    starts: NDArray[np.float64]


class SqliteStore(Store):
    """A file, and its columns in memory.

    Parameters
    ----------
    path
        The file; made where there is none. Its folder must exist.
    identity
        Of what the table is.
    wanted
        Of which datasets.
    retry_failed
        Whether rows that did not converge are to be fitted again.
    warm_start
        Whether rows that have all changed go on from the old ones of their labels.
    overwrite
        Whether what is there gives way, be it of this very call.

    Raises
    ------
    StoreError
        On entering, where the file cannot be written or read, or another process writes it; on leaving, where
        something could not be written.
    StoreMismatchError
        On entering, where the file holds a table of something else.
    """

    noted: ClassVar[bool] = True

    def __init__(
        self,
        path: str | os.PathLike[str],
        identity: Identity,
        wanted: Wanted,
        *,
        retry_failed: bool = False,
        warm_start: bool = False,
        overwrite: bool = False,
    ) -> None:
        self._path = Path(path).resolve()  # one lock, by whatever name the file is called
        self._held = Lock(self._path)
        self._identity = identity._replace(facts={**identity.facts, "first_block": 1})
        self._call = identity.fingerprint()
        self._retry_failed = retry_failed
        self._warm_start = warm_start
        self._overwrite = overwrite
        count, n = len(wanted.fingerprints), len(identity.facts["names"])
        self._columns = Columns(count, n)
        #: All rows of the table, done or not.
        self._rows = Rows(
            np.arange(count),
            wanted.labels,
            wanted.fingerprints,
            np.full(count, -1),
            wanted.starts,
            self._columns,
        )
        #: Those that were left undone, and are not for the file.
        self._left = np.zeros(count, dtype=bool)
        #: What the file has for other calls, behind the table.
        self._others = Rows.blank(np.empty(0, np.intp), n)
        self._waiting: list[NDArray[np.intp]] = []
        self._waits = 0
        self._packer = Packer()
        self._lock = threading.Lock()
        self._wakes = threading.Event()
        self._ends = threading.Event()
        self._error: Exception | None = None
        self._told = False
        self._old: NDArray[np.float64] | None = None

    # ---- the protocol

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as opened:
            opened.enter_context(self._held)
            wait_until_synchronised(self._path)
            anew = self._overwrite and gives_way(self._path)
            stored = None if anew else what_is_there(self._path, self._identity)
            moves = self._take_in(stored) if stored is not None else []
            try:
                if stored is not None and stored.damage:
                    self._mend(stored.damage)
                self._synchronised = stored is not None
                self._file = opened.enter_context(contextlib.closing(connected(self._path, anew=stored is None)))
                self._file.execute("begin")
                if stored is None:
                    self._begin()
                elif not stored.damage:
                    self._go_on(stored.identity.facts, moves)
                self._file.execute("commit")
            except (sqlite3.Error, OSError) as exc:
                raise StoreError(f"{self._path} cannot be written: {exc}") from exc
            self._thread = threading.Thread(target=self._write_on, name="parfit store", daemon=True)
            self._thread.start()
            self._opened = opened.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self._ends.set()
        self._wakes.set()
        self._thread.join()
        with self._opened:
            with contextlib.suppress(sqlite3.Error):  # all is there without
                self._gather()
                if not self._synchronised:  # a power failure could cost no more than what is not a second old
                    self._file.execute("pragma synchronous = off")
                self._file.execute("pragma wal_checkpoint(truncate)")
        if not self._synchronised:
            synchronise_soon(self._path)
        if kind is None and not self._path.exists():
            raise StoreError(f"{self._path} was removed while it was written")
        if self._waits and kind is None:
            raise StoreError(f"{self._waits:,} rows could not be written to {self._path}: {self._error}")

    def put(self, position: int, outcome: Outcome) -> None:
        found = outcome.value
        with self._lock:
            self._columns.put(position, outcome)
            # What raised may have drawn before.
            self._rows.seeded[position] = -1 if isinstance(found, Solution) and not found.drew else position
            if isinstance(found, Solution) and found.start is not None:
                self._rows.starts[position] = found.start
            self._left[position] = outcome.left
            if not outcome.left:  # else the next call has it
                self._wait(np.array([position]))
        self._tell()

    def put_many(self, solutions: Solutions) -> None:
        with self._lock:
            self._columns.put_many(solutions)
            self._rows.seeded[solutions.positions] = -1  # what draws is not compiled
            if solutions.start is not None:
                self._rows.starts[solutions.positions] = solutions.start
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
        if self._old is not None:  # who asks for them starts there, and then the worker knows where
            self._rows.starts[np.isfinite(self._old).all(axis=1)] = np.nan
        return self._old

    def settle(self, engine: str) -> None:
        holds = len(self._others.positions) > 0 or not self._columns.has(Status.NOT_RUN).all()
        if holds and self.engine not in (None, engine):
            raise StoreMismatchError(
                f"{self._path} holds fits of engine {self.engine!r}, and this call would go on with {engine!r}, whose "
                f"last digits are others: engine={self.engine!r} goes on, overwrite=True starts anew"
            )
        self.engine = self._identity.facts["engine"] = engine
        with contextlib.suppress(sqlite3.Error):  # rows, which cannot be written either, tell
            say(self._file, "facts", "engine", engine)

    # ---- opening

    def _take_in(self, stored: Stored) -> list[tuple[Rows, NDArray[np.intp]]]:
        """Check that the file is of the same, and read its rows; what has to move in it, where it will stand."""
        refuse_another(self._path, self._identity, stored.identity)
        self.engine = self._identity.facts["engine"] = stored.identity.facts.get("engine")
        count, n = self._columns.params.shape
        held = merged(stored.rows, n)
        matches = matched(held, self._rows.fingerprints, self._rows.labels)
        if count and len(held.positions) and not matches.known:
            same = int(np.isin(held.labels, self._rows.labels).sum())
            if not (same and self._warm_start):
                raise refused_data(self._path, len(held.positions), same)
        here = np.flatnonzero(matches.rows >= 0)
        of_these = matches.rows[here]
        self._columns.place(here, held.columns.taken(of_these))
        for mine, theirs in ((self._rows.seeded, held.seeded), (self._rows.starts, held.starts)):
            mine[here] = theirs[of_these]
        changed = np.flatnonzero(matches.old >= 0)
        if len(changed):
            self._old = np.full((count, n), np.nan)
            self._old[changed] = held.columns.params[matches.old[changed]]
        others = np.setdiff1d(np.arange(len(held.positions)), of_these)
        stands = held.positions[others]
        in_the_way = np.flatnonzero(stands < count)
        free = max(count, int(held.positions.max(initial=-1)) + 1)
        stands[in_the_way] = free + np.arange(len(in_the_way))
        self._others = held.taken(others)._replace(positions=stands)
        moved = here[held.positions[of_these] != here]
        emptied = np.setdiff1d(held.positions, np.concatenate([here, stands]))
        return [
            (self._rows, moved),
            (self._others, in_the_way),
            (Rows.blank(emptied, n), np.arange(len(emptied))),
        ]

    def _mend(self, damage: str) -> None:
        """Put a new file with what is sound in the place of a damaged one."""
        new = self._path.with_name(f"{self._path.name}.new")
        try:
            with contextlib.closing(connected(new, anew=True)) as self._file:
                self._file.execute("begin")
                self._begin()
                self._file.execute("commit")
            put_aside(self._path, new, damage)
        finally:
            new.unlink(missing_ok=True)

    def _begin(self) -> None:
        """The tables, and what is sound of a damaged file."""
        file = self._file
        make_tables(file)
        for name, argument in self._identity.call.items():
            say(file, "call", name, list(argument))
        for name, value in self._identity.facts.items():
            say(file, "facts", name, value)
        self._insert_all()

    def _go_on(self, facts: dict[str, Any], moves: list[tuple[Rows, NDArray[np.intp]]]) -> None:
        """What differs from call to call: labels, versions, and where rows stand."""
        for name, value in self._identity.facts.items():
            if name != "first_block" and facts.get(name) != json.loads(json.dumps(value)):
                say(self._file, "facts", name, value)
        for rows, chosen in moves:
            self._insert_rows(rows, chosen)

    # ---- the thread

    def _wait(self, positions: NDArray[np.intp]) -> None:
        self._waiting.append(positions)
        self._waits += len(positions)
        if not self._wakes.is_set():
            self._wakes.set()

    def _write_on(self) -> None:
        begin, written = time.monotonic(), False
        while not self._ends.is_set():
            self._wakes.wait(_SYNCHRONISED_S if written or self._waits else None)
            self._wakes.clear()
            time.sleep(_BURST_S)
            woken = time.monotonic()
            if not written:
                begin = woken
            written = self._flush() or written
            if written and woken > begin + _SYNCHRONISED_S:
                self._synchronised = True
                with contextlib.suppress(sqlite3.Error):  # what cannot be written waits, and tells
                    self._file.execute("pragma wal_checkpoint(passive)")
                written = False
            self._ends.wait(min(_LONGEST_REST_S, _REST * (time.monotonic() - woken)))
        self._flush()

    def _flush(self) -> bool:
        """Write what waits; whether anything was. Where that fails, it waits on."""
        with self._lock:
            if not self._waiting:
                return False
            positions = np.sort(np.concatenate(self._waiting))  # a row that came twice may be there twice
            self._waiting, self._waits = [], 0
        try:
            with self._lock:
                body = self._packer.packed(self._call, self.engine, self._rows, positions)
            self._held.renew()
            self._insert(body)
            self._error = None
        except Exception as exc:  # noqa: BLE001 - whatever it is, it is told, and tried again
            with self._lock:
                self._error = exc
                self._waiting.append(positions)
                self._waits += len(positions)
            return False
        return True

    def _insert(self, body: memoryview) -> None:
        self._file.execute("insert into blocks (body, crc) values (?, ?)", (body, zlib.crc32(body)))

    def _insert_rows(self, rows: Rows, chosen: NDArray[np.intp]) -> None:
        """Some rows, in blocks that are not too long."""
        for at in range(0, len(chosen), _LONGEST):
            self._insert(self._packer.packed(self._call, self.engine, rows, chosen[at : at + _LONGEST]))

    def _insert_all(self) -> None:
        """All that is known."""
        self._insert_rows(self._rows, np.flatnonzero(~self._columns.has(Status.NOT_RUN) & ~self._left))
        self._insert_rows(self._others, np.arange(len(self._others.positions)))

    def _gather(self) -> None:
        """Make many short blocks a few long ones."""
        file = self._file
        count, last = file.execute("select count(*), max(id) from blocks").fetchone()
        if count <= _BLOCKS or self._waits:
            return
        file.execute("begin")
        self._insert_all()
        file.execute("delete from blocks where id <= ?", (last,))
        say(file, "facts", "first_block", last + 1)
        file.execute("commit")

    def _tell(self) -> None:
        """Warn, once, of what cannot be written; fitting goes on."""
        if self._error is not None and not self._told:
            self._told = True
            warnings.warn(
                f"{self._path} cannot be written ({self._error}): fitting goes on, and writing is tried again",
                ParfitWarning,
                stacklevel=4,
            )
