"""A folder of Parquet files, a part of the rows in each: for tables that are longer than memory.

    fits.parquet/   part-00000.parquet …   the rows, as `Fits.to_frame` has them, and what is to know of the part in its
                                           footer: the fingerprint of its data, counts, of what the table is
                    _parfit.json           of what the table is: the call, the parameters, rows to a part; checksums of
                                           the parts' files (`parfit.stores.manifest`)
                    _rows-00003.db         the solutions of a part that is not finished (`parfit.stores.sqlite`)

A file is written under another name, and gets its own once it is on the disk: what is there is whole, whatever becomes
of this process. The checksum of a part is listed before it gets its name, beside that of the file whose place it takes:
whichever of the two is there after a crash is known. Names that begin with an underscore are none of the table's for
those who read Parquet.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pandas as pd

from parfit.core.errors import InvalidTypeError, ParfitWarning, StoreError, StoreMismatchError, missing_package
from parfit.core.labels import unstorable
from parfit.stores.folder import (
    KEY,
    UNSIGNED,
    checksum,
    is_part,
    is_parts,
    part_path,
    part_paths,
    read_folder,
    read_part,
    rows_files,
    sign,
)
from parfit.stores.lock import Lock
from parfit.stores.manifest import MANIFEST, Listing, Manifest, as_text, said_of
from parfit.stores.opening import refuse_another

__all__ = ["Parts"]

_ROWS = re.compile(r"_rows-\d+\.db.*|.*\.unfinished")


class Parts:
    """The folder while it is written; one process does.

    Parameters
    ----------
    path
        The folder; made where there is none. The one that it is in must exist.
    manifest
        Of what the table is; the rows to a part are those of the folder, where it is there already.
    overwrite
        Whether a table gives way.

    Raises
    ------
    MissingPackageError
        Where PyArrow is not installed.
    StoreError, StoreMismatchError
        On entering, as of a SQLite store.
    """

    def __init__(self, path: str | os.PathLike[str], manifest: Manifest, *, overwrite: bool) -> None:
        try:
            import pyarrow.parquet
        except ImportError:
            raise missing_package("pyarrow", "a store of Parquet files", "parquet") from None
        self._parquet = pyarrow.parquet
        self._pa = pyarrow
        self.path = Path(path).resolve()
        self.manifest = manifest
        self._overwrite = overwrite
        self.footers: dict[int, dict[str, Any]] = {}
        self._sums: dict[int, list[int]] = {}
        self._writing: list[int] = []
        #: Whether `_parfit.json` says of no part that it is on its way that is there.
        self._settled = True

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as opened:
            opened.enter_context(Lock(self.path))
            try:
                self._open()
            except OSError as exc:
                if isinstance(exc, StoreError):
                    raise
                raise self._unwritable(exc) from exc
            self._opened = opened.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        with self._opened, contextlib.suppress(StoreError):  # the next call settles it
            if not self._settled and self.path.is_dir():
                self.note()

    def _open(self) -> None:
        if self.path.exists() and not self.path.is_dir():
            raise StoreError(f"{self.path} is a file, and no folder of parfit's: it is left as it is")
        self.path.mkdir(exist_ok=True)
        there = is_parts(self.path)
        if not there and any(not _ROWS.fullmatch(p.name) for p in self.path.iterdir()):
            raise StoreError(f"{self.path} is a folder of something else, and is left as it is")
        if there and self._overwrite:
            self._begin_anew()
            return
        for unfinished in self.path.glob("*.unfinished"):
            unfinished.unlink()
        for p in self.path.glob("_rows-*.db.lock"):  # of one who was killed while removing the others
            if not p.with_suffix("").exists():
                p.unlink()
        if there:
            self._take_in()
        self.note()

    def _begin_anew(self) -> None:
        """Remove what is there; who is killed meanwhile leaves a folder that says which of its parts are to go."""
        parts = part_paths(self.path)
        if not (self.path / MANIFEST).exists():
            own = {p for p in parts.values() if is_part(p)}
            if any(p not in own and not _ROWS.fullmatch(p.name) for p in self.path.iterdir()):
                raise StoreError(f"{self.path} has files that are not parfit's, and is left as it is")
        for p in list(self.path.iterdir()):
            if _ROWS.fullmatch(p.name):
                p.unlink()
        self._writing = sorted(parts)
        self.note()
        for p in parts.values():
            p.unlink()
        self._writing = []
        self.note()

    def _take_in(self) -> None:
        """Check that the folder is of the same, and read what its parts say."""
        found = read_folder(self.path)
        identity = found.manifest.identity
        refuse_another(self.path, self.manifest.identity, identity)
        facts = {**self.manifest.identity.facts, "engine": identity.facts.get("engine")}
        self.manifest = self.manifest._replace(
            rows=found.manifest.rows, identity=self.manifest.identity._replace(facts=facts)
        )
        self.footers, self._sums = found.footers, found.sums
        self._refuse_more(found.manifest.total)
        for number in found.leftover:
            part_path(self.path, number).unlink()
        if found.damage:
            warnings.warn(f"{self.path}: {found.damage}", ParfitWarning, stacklevel=2)

    def _refuse_more(self, total: int) -> None:
        """Rows beyond the data would be in the table of everybody who reads the folder."""
        rows, now = self.manifest.rows, self.manifest.total
        beyond = any(k * rows + footer["rows"] > now for k, footer in self.footers.items())
        if beyond or any(k * rows >= now for k in rows_files(self.path)):
            raise StoreMismatchError(
                f"{self.path} holds fits of {total:,} datasets, and data has {now:,}; overwrite=True starts anew, "
                "another path keeps both"
            )

    @property
    def engine(self) -> str | None:
        """Which engine made what is here, where that is known."""
        engine: str | None = self.manifest.identity.facts.get("engine")
        return engine

    def refuse_labels(self, labels: pd.Index[Any], number: int) -> None:
        """Raise `InvalidTypeError` for labels that a Parquet file cannot hold, before a part is fitted."""
        try:
            self.table(pd.DataFrame(index=labels), number)
        except (self._pa.ArrowInvalid, self._pa.ArrowTypeError, self._pa.ArrowNotImplementedError) as exc:
            raise InvalidTypeError(
                f"the labels are {unstorable(labels) or 'of a type'}, which one column of a Parquet file cannot hold; "
                "as text they can be written: data.rename(index=str)"
            ) from exc

    def note(self, **facts: Any) -> None:
        """Write of what the table is, with more facts."""
        identity = self.manifest.identity
        self.manifest = self.manifest._replace(identity=identity._replace(facts={**identity.facts, **facts}))
        with self._finished(self.path / MANIFEST) as unfinished:
            unfinished.write_text(as_text(Listing(self.manifest, self._sums, self._writing)), encoding="utf-8")

    def range_of(self, number: int) -> range:
        """The positions of a part's rows."""
        rows = self.manifest.rows
        return range(number * rows, min((number + 1) * rows, self.manifest.total))

    def __len__(self) -> int:
        """How many parts there are to be; one of no rows, where there are no data."""
        return max(1, -(-self.manifest.total // self.manifest.rows))

    def rows_file(self, number: int) -> Path:
        """Where the solutions of a part are that is not finished."""
        return self.path / f"_rows-{number:05d}.db"

    def drop_rows(self, number: int) -> None:
        """Remove the solutions of a part that is finished."""
        for p in self.path.glob(f"_rows-{number:05d}.db*"):
            p.unlink(missing_ok=True)

    def read(self, number: int) -> pd.DataFrame:
        """The rows of a part."""
        return read_part(part_path(self.path, number))

    def write(self, number: int, frame: pd.DataFrame, footer: dict[str, Any]) -> None:
        """Write a part, in place of the one that may be there; raises `StoreError` where that cannot be done."""
        said = {**footer, "table": said_of(self.manifest), **UNSIGNED}
        try:
            table = self.table(frame, number)
            table = table.replace_schema_metadata({**table.schema.metadata, KEY: json.dumps(said).encode()})
            with self._finished(part_path(self.path, number)) as unfinished:
                self._parquet.write_table(table, unfinished, write_page_checksum=True)
                sign(unfinished)
                crc = checksum(unfinished)
                self._sums[number] = [*self._sums.get(number, [])[-1:], crc]
                self._writing = sorted({*self._writing, number})
                self.note()
        except self._pa.ArrowException as exc:
            raise StoreError(f"{self.path} cannot be written: {exc}") from exc
        self._sums[number] = [crc]
        self._writing.remove(number)
        self._settled = False
        self.footers[number] = footer

    def table(self, frame: pd.DataFrame, number: int) -> Any:
        """A frame as PyArrow's table.

        Labels that number the rows from 0 on are left out, and are there again for who reads all parts, or one.
        """
        labels = frame.index
        plain = isinstance(labels, pd.RangeIndex) and labels.name is None
        begin = number * self.manifest.rows
        plain = plain and labels.equals(pd.RangeIndex(begin, begin + len(labels)))
        return self._pa.Table.from_pandas(frame, preserve_index=None if plain else True)

    @contextlib.contextmanager
    def _finished(self, path: Path) -> Iterator[Path]:
        """A path to write to, which becomes `path` once what is written is on the disk."""
        unfinished = path.with_name(f"_{path.name.lstrip('_')}.unfinished")
        try:
            yield unfinished
            with open(unfinished, "rb+") as file:
                os.fsync(file.fileno())
            os.replace(unfinished, path)
            _synchronise(self.path)
        except OSError as exc:
            with contextlib.suppress(OSError):
                unfinished.unlink()
            raise exc if isinstance(exc, StoreError) else self._unwritable(exc) from exc

    def _unwritable(self, exc: OSError) -> StoreError:
        return StoreError(f"{self.path} cannot be written: {exc.strerror or exc}")


def _synchronise(folder: Path) -> None:
    """Have the names in a folder on the disk."""
    if os.name == "nt":  # pragma: no cover
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
