"""A folder of Parquet files, a part of the rows in each: for tables that are longer than memory.

    fits.parquet/   part-00000.parquet …   the rows, as `Fits.to_frame` has them, and what is to know of the part in its
                                           footer: the fingerprint of its data, counts
                    _parfit.json           of what the table is: the call, the parameters, rows to a part
                    _rows-00003.db         the solutions of a part that is not finished (`parfit.stores.sqlite`)

A file is written under another name, and gets its own once it is on the disk: what is there is whole, whatever becomes
of this process. Names that begin with an underscore are none of the table's for those who read Parquet.
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
from typing import Any, NamedTuple, Self

import pandas as pd

from parfit.core.errors import InvalidTypeError, ParfitWarning, StoreError, StoreMismatchError, missing_package
from parfit.core.labels import unstorable
from parfit.stores.lock import Lock
from parfit.stores.opening import refuse_another
from parfit.stores.reading import Argument, Identity

__all__ = ["Manifest", "Parts", "is_parts", "read_footers", "read_manifest", "rows_files"]

FORMAT = 2
_MANIFEST = "_parfit.json"
_PART = re.compile(r"part-(\d+)\.parquet")
_UNDER_WAY = re.compile(r"_rows-(\d+)\.db")
_ROWS = re.compile(r"_rows-\d+\.db.*|.*\.unfinished")
#: Under which a footer has what is to know of a part.
_KEY = b"parfit"


class Manifest(NamedTuple):
    """What a folder is of.

    Attributes
    ----------
    identity
        As of a SQLite store.
    total
        The number of datasets.
    rows
        How many of them there are to a part.
    """

    identity: Identity
    total: int
    rows: int


def is_parts(path: str | os.PathLike[str]) -> bool:
    """Whether there is such a folder."""
    return os.path.isfile(os.path.join(path, _MANIFEST))


def read_manifest(path: Path) -> Manifest:
    """What a folder is of.

    Raises
    ------
    StoreError
        Where that cannot be read.
    """
    try:
        said = json.loads((path / _MANIFEST).read_text(encoding="utf-8"))
        if said["format"] != FORMAT:
            raise StoreError(f"{path} has format {said['format']}, and this version of parfit reads format {FORMAT}")
        call = {name: Argument(*argument) for name, argument in said["call"].items()}
        return Manifest(Identity(call, said["facts"]), int(said["total"]), int(said["rows"]))
    except (OSError, ValueError, LookupError, TypeError) as exc:
        if isinstance(exc, StoreError):
            raise
        raise StoreError(f"{path / _MANIFEST} is damaged: {exc} (overwrite=True starts anew)") from exc


def read_footers(path: Path) -> dict[int, dict[str, Any]]:
    """What is to know of each part that is whole, by its number."""
    each = ((number, _footer(_part(path, number))) for number in _numbers(path))
    return {number: footer for number, footer in each if footer is not None}


def rows_files(path: Path) -> dict[int, Path]:
    """The files of parts that are not finished, by their numbers."""
    return {int(found[1]): p for p in sorted(path.iterdir()) if (found := _UNDER_WAY.fullmatch(p.name))}


def _numbers(path: Path) -> list[int]:
    """The parts that there are."""
    return sorted(int(found[1]) for p in path.iterdir() if (found := _PART.fullmatch(p.name)))


def _part(path: Path, number: int) -> Path:
    return path / f"part-{number:05d}.parquet"


def _footer(path: Path) -> dict[str, Any] | None:
    """None for a file that is damaged, or somebody else's."""
    import pyarrow
    import pyarrow.parquet

    try:
        said = pyarrow.parquet.read_metadata(path)
        made = json.loads(said.metadata[_KEY])
        return made if made["rows"] == said.num_rows else None
    except (OSError, ValueError, LookupError, TypeError, pyarrow.ArrowException):
        return None


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
        self._opened.close()

    def _open(self) -> None:
        if self.path.exists() and not self.path.is_dir():
            raise StoreError(f"{self.path} is a file, and no folder of parfit's: it is left as it is")
        self.path.mkdir(exist_ok=True)
        there = is_parts(self.path)
        if not there and any(not _ROWS.fullmatch(p.name) for p in self.path.iterdir()):
            raise StoreError(f"{self.path} is a folder of something else, and is left as it is")
        for unfinished in self.path.glob("*.unfinished"):
            unfinished.unlink()
        if there and self._overwrite:
            for p in list(self.path.iterdir()):
                if _PART.fullmatch(p.name) or _ROWS.fullmatch(p.name):
                    p.unlink()
        elif there:
            found = read_manifest(self.path)
            refuse_another(self.path, self.manifest.identity, found.identity)
            facts = {**self.manifest.identity.facts, "engine": found.identity.facts.get("engine")}
            self.manifest = self.manifest._replace(
                rows=found.rows, identity=self.manifest.identity._replace(facts=facts)
            )
            self.footers = read_footers(self.path)
            self._tell_of_damage()
            self._refuse_more(found.total)
        self.note()

    def _tell_of_damage(self) -> None:
        damaged = [_part(self.path, k).name for k in _numbers(self.path) if k not in self.footers]
        if damaged:
            warnings.warn(
                f"{self.path}: {', '.join(damaged)} is damaged, or of something else; its datasets are fitted again",
                ParfitWarning,
                stacklevel=2,
            )

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
        identity, total, rows = self.manifest
        identity = identity._replace(facts={**identity.facts, **facts})
        self.manifest = Manifest(identity, total, rows)
        said = {"format": FORMAT, "total": total, "rows": rows, "call": identity.call, "facts": identity.facts}
        with self._finished(self.path / _MANIFEST) as unfinished:
            unfinished.write_text(json.dumps(said, indent=1), encoding="utf-8")

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
        return pd.read_parquet(_part(self.path, number))

    def write(self, number: int, frame: pd.DataFrame, footer: dict[str, Any]) -> None:
        """Write a part, in place of the one that may be there."""
        table = self.table(frame, number)
        table = table.replace_schema_metadata({**table.schema.metadata, _KEY: json.dumps(footer).encode()})
        with self._finished(_part(self.path, number)) as unfinished:
            self._parquet.write_table(table, unfinished)
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
            raise self._unwritable(exc) from exc

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
