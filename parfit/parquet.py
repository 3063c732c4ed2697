"""Rows of Parquet files as datasets, a window of them in memory at a time.

    files ─▶ row groups ─▶ batches, in order, as they are wanted ─▶ a window of rows as a frame ─▶ blocks

A row is what `pandas.read_parquet` of the same files would have there: its labels, its columns and their types, which
may hang on rows far away (whole numbers of which one is missing anywhere are real numbers everywhere).
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from parfit.core.blocks import DataBlock, FrameBlock
from parfit.core.data import Datasets, read_data
from parfit.core.errors import InvalidInputError, InvalidTypeError, missing_package
from parfit.core.windows import cut

__all__ = ["ParquetRows", "is_parquet"]

Positions = NDArray[np.intp]

#: What a window of rows takes, bytes, and how many rows it has at most.
WINDOW_BYTES, WINDOW_ROWS = 1 << 26, 1 << 17
#: A window, and the one before it, which others may not have done with.
_KEPT = 2
_ENDINGS = (".parquet", ".pq")
_MAGIC = b"PAR1"
#: What is read at once of a column, bytes, and rows that are taken apart at once; row groups may be of any size.
_BUFFER, _BATCH = 1 << 20, 1 << 16


def is_parquet(data: Any) -> bool:
    """Whether data are Parquet files: a path that says so, a folder, a file that begins so, or what PyArrow has."""
    if type(data).__module__.startswith(("pyarrow._dataset", "pyarrow.parquet")):
        return True
    if not isinstance(data, (str, os.PathLike)) or "\0" in str(data):
        return False
    path = Path(data)
    try:
        if path.suffix.lower() in _ENDINGS or path.is_dir():
            return True
        with open(path, "rb") as file:
            return file.read(len(_MAGIC)) == _MAGIC
    except OSError:
        return False


class _File(NamedTuple):
    """A file: its number of rows, where each row group begins, and what tells whether it has changed."""

    path: str
    rows: int
    groups: NDArray[np.intp]
    state: Any


class ParquetRows(Datasets):
    """A dataset for each row of Parquet files.

    Parameters
    ----------
    source
        A path of a file or a folder, or a dataset of PyArrow's.

    Raises
    ------
    MissingPackageError
        Where PyArrow is not installed.
    InvalidInputError, InvalidTypeError
        For what is no Parquet file, or files of different columns.
    """

    def __init__(self, source: Any) -> None:
        try:
            import pyarrow
            import pyarrow.parquet
        except ImportError:
            raise missing_package("pyarrow", "reading Parquet files", "parquet") from None
        self._pa = pyarrow
        self.owner = source
        self._system, paths = _files_of(source)
        self._files: list[_File] = []
        #: Whether a column of whole numbers or truth values has a gap anywhere.
        self._gaps: dict[str, bool] = {}
        size = 0
        for path in paths:
            size += self._look_at(path)
        self._begins = np.cumsum([0, *(file.rows for file in self._files)])
        self._length = int(self._begins[-1])
        self._lock = threading.RLock()
        self._windows: OrderedDict[int, pd.DataFrame] = OrderedDict()
        self._reader = _Reader(self)
        self.form = self._form()
        own = sum(getattr(dtype, "itemsize", 16) for dtype in self.form.dtypes)
        row = max(own, size // max(self._length, 1), 1)
        self.window = max(1, min(WINDOW_ROWS, WINDOW_BYTES // row))

    def __len__(self) -> int:
        return self._length

    @cached_property
    def labels(self) -> pd.Index[Any]:  # type: ignore[override]
        found = self._range
        if found is None:
            with self._lock:
                names = [name for name in self._index_columns if isinstance(name, str)]
                tables = [self._opened(i).read(columns=names) for i in range(len(self._files))]
                frame = self._pa.concat_tables(tables).to_pandas()
                found = frame.index
        return found

    def block(self, positions: Positions) -> DataBlock:
        with self._lock:
            return FrameBlock(self._frame(positions))

    def part(self, start: int, stop: int) -> Datasets:
        return _Part(self, start, stop)

    def let_go(self) -> None:
        with self._lock:
            self._windows.clear()
            self._reader = _Reader(self)

    def fingerprints(self) -> NDArray[np.uint64]:
        made = np.empty((self._length, 2), dtype=np.uint64)
        for at, frame in self.frames(0, self._length):
            made[at : at + len(frame)] = read_data(frame).fingerprints()
        return made

    def frames(self, start: int, stop: int) -> Iterator[tuple[int, pd.DataFrame]]:
        """The rows from `start` to `stop` (exclusive), a window at a time, and where each begins."""
        for positions in cut(range(start, stop), self.window):
            with self._lock:
                frame = self._frame(positions)
            yield int(positions[0]), frame

    # ---- what the files say of themselves

    def _look_at(self, path: str) -> int:
        """Note a file; the bytes of its numbers."""
        file = self._parquet(path)
        metadata, schema = file.metadata, file.schema_arrow
        if not self._files:
            self.schema = schema
        elif not schema.equals(self.schema, check_metadata=False):
            raise InvalidInputError(f"the files differ in their columns: {path} is not as {self._files[0].path}")
        groups = [metadata.row_group(g) for g in range(metadata.num_row_groups)]
        begins = np.cumsum([0, *(group.num_rows for group in groups)])
        places = {metadata.schema.column(j).path: j for j in range(metadata.num_columns)}
        for field in schema:
            if self._is_exact(field) and not self._gaps.get(field.name):
                chunks = [group.column(places[field.name]) for group in groups]
                known = [
                    c.statistics.null_count if c.statistics and c.statistics.has_null_count else None for c in chunks
                ]
                gaps = any(known) or (None in known and self._has_gaps(file, field.name))
                self._gaps[field.name] = gaps
        self._files.append(_File(path, metadata.num_rows, begins, self._state(path)))
        return sum(group.total_byte_size for group in groups)

    def _is_exact(self, field: Any) -> bool:
        """Whether the type of a column hangs on its gaps."""
        kinds = self._pa.types
        return bool(kinds.is_integer(field.type) or kinds.is_boolean(field.type))

    def _has_gaps(self, file: Any, name: str) -> bool:
        """The same by reading the column, where a file does not say."""
        return any(batch.column(0).null_count for batch in file.iter_batches(columns=[name]))

    def _form(self) -> pd.DataFrame:
        """A row with the types of all: one of gaps, but where there are none."""
        pa = self._pa
        cells = []
        for field in self.schema:
            exact = self._is_exact(field) and not self._gaps.get(field.name)
            cells.append(pa.array([0 if exact else None]).cast(field.type) if exact else pa.nulls(1, field.type))
        made: pd.DataFrame = pa.Table.from_arrays(cells, schema=self.schema).to_pandas()
        return made

    @property
    def _index_columns(self) -> list[Any]:
        return list((self.schema.pandas_metadata or {}).get("index_columns", []))

    @cached_property
    def _range(self) -> pd.RangeIndex | None:
        """The labels, where they are not in a column."""
        said = self._index_columns
        if any(isinstance(name, str) for name in said):
            return None
        for range_ in said:
            made = pd.RangeIndex(range_["start"], range_["stop"], range_["step"], name=range_["name"])
            if len(made) == self._length:
                return made
        return pd.RangeIndex(self._length)

    # ---- reading

    def _frame(self, positions: Positions) -> pd.DataFrame:
        """The rows at some positions."""
        assert self.window is not None
        assert self.form is not None
        if not len(positions):
            return self.form.iloc[:0]
        windows = positions // self.window
        ends = [*(np.flatnonzero(np.diff(windows)) + 1).tolist(), len(positions)]
        parts, at = [], 0
        for end in ends:
            chosen = positions[at:end] - windows[at] * self.window
            frame = self._window(int(windows[at]))
            run = slice(int(chosen[0]), int(chosen[-1]) + 1)
            parts.append(frame.iloc[run if (np.diff(chosen) == 1).all() else chosen])
            at = end
        return parts[0] if len(parts) == 1 else pd.concat(parts)

    def _window(self, number: int) -> pd.DataFrame:
        if number not in self._windows:
            while len(self._windows) >= _KEPT:
                self._windows.popitem(last=False)
            assert self.window is not None
            start = number * self.window
            self._windows[number] = self._as_frame(start, min(start + self.window, self._length))
        self._windows.move_to_end(number)
        return self._windows[number]

    def _as_frame(self, start: int, stop: int) -> pd.DataFrame:
        frame: pd.DataFrame = self._reader.table(start, stop).to_pandas()
        assert self.form is not None
        for i, wanted in enumerate(self.form.dtypes):
            if frame.dtypes.iloc[i] != wanted and not isinstance(wanted, pd.CategoricalDtype):
                frame.isetitem(i, frame.iloc[:, i].astype(wanted).array)
        if self._range is not None:
            frame.index = self._range[start:stop]
        elif frame.index.nlevels == 1 and not isinstance(wanted := self.form.index.dtype, pd.CategoricalDtype):
            frame.index = frame.index.astype(wanted)
        return frame

    def table_of(self, batches: list[Any]) -> Any:
        """Batches as one table."""
        return self._pa.Table.from_batches(batches, schema=self.schema)

    def _opened(self, number: int) -> Any:
        """A file, as it was when it was first looked at."""
        file = self._files[number]
        if self._state(file.path) != file.state:
            raise InvalidInputError(f"{file.path} has changed since this fit was begun: call parfit.fit again")
        return self._parquet(file.path)

    def _state(self, path: str) -> Any:
        info = self._system.get_file_info(path)
        return info.size, info.mtime_ns

    def _parquet(self, path: str) -> Any:
        try:
            source = self._system.open_input_file(path)
            return self._pa.parquet.ParquetFile(source, buffer_size=_BUFFER, pre_buffer=False)
        except (self._pa.ArrowException, OSError) as exc:
            raise self._unreadable(path, exc) from exc

    def _unreadable(self, path: str, exc: Exception) -> InvalidInputError:
        first = str(exc).partition("\n")[0]
        return InvalidInputError(f"data: {path} cannot be read as a Parquet file: {first}")

    def group_of(self, position: int) -> tuple[int, int, int]:
        """Which file and row group a position is in, and the position where that begins."""
        number = int(np.searchsorted(self._begins, position, side="right")) - 1
        begin = int(self._begins[number])
        groups = self._files[number].groups
        group = int(np.searchsorted(groups, position - begin, side="right")) - 1
        return number, group, begin + int(groups[group])

    def batches(self, number: int, first: int) -> Iterator[Any]:
        """Batches of rows from a row group of a file on."""
        assert self.window is not None
        while number < len(self._files):
            file, groups = self._opened(number), list(range(first, len(self._files[number].groups) - 1))
            try:
                yield from file.iter_batches(batch_size=min(self.window, _BATCH), row_groups=groups)
            except (self._pa.ArrowException, OSError) as exc:
                raise self._unreadable(self._files[number].path, exc) from exc
            number, first = number + 1, 0


class _Part(Datasets):
    """Some of the rows, one after another: their labels and fingerprints, read in one pass."""

    def __init__(self, whole: ParquetRows, start: int, stop: int) -> None:
        self._whole, self._start = whole, start
        self.owner, self.window, self.form = None, whole.window, whole.form
        assert whole.form is not None
        labels, prints = [whole.form.index[:0]], [np.empty((0, 2), dtype=np.uint64)]
        for _, frame in whole.frames(start, stop):
            labels.append(frame.index)
            prints.append(read_data(frame).fingerprints())
        labels = labels[1:] or labels
        self.labels = labels[0].append(labels[1:]) if len(labels) > 1 else labels[0]
        self._prints = np.concatenate(prints)

    def block(self, positions: Positions) -> DataBlock:
        return self._whole.block(positions + self._start)

    def fingerprints(self) -> NDArray[np.uint64]:
        return self._prints


class _Reader:
    """Where the last reading of rows ended, so that the next goes on there."""

    def __init__(self, rows: ParquetRows) -> None:
        self._rows = rows
        self._at = 0
        self._batches: Iterator[Any] | None = None
        self._left: Any = None

    def table(self, start: int, stop: int) -> Any:
        """The rows from `start` to `stop` (exclusive)."""
        try:
            return self._rows.table_of(list(self._parts(start, stop)))
        except BaseException:  # in the middle, by a Ctrl-C: the next begins anew
            self._batches = None
            raise

    def _parts(self, start: int, stop: int) -> Iterator[Any]:
        number, group, begin = self._rows.group_of(start)
        if self._batches is None or not begin <= self._at <= start:
            self._left, self._at, self._batches = None, begin, self._rows.batches(number, group)
        while self._at < stop:
            batch = self._left if self._left is not None else next(self._batches)
            end = self._at + len(batch)
            low, high = max(start - self._at, 0), min(stop, end) - self._at
            if low < high:
                yield batch.slice(low, high - low)
            self._left = batch.slice(high) if end > stop else None
            self._at = min(end, stop)


def _files_of(source: Any) -> tuple[Any, list[str]]:
    """The file system, and the paths of the files."""
    import pyarrow.dataset
    import pyarrow.fs

    if isinstance(source, (str, os.PathLike)):
        path = Path(source)
        if not path.exists():
            raise InvalidInputError(f"data: there is no file or folder {path}")
        found = (
            sorted(str(p) for p in path.rglob("*") if p.is_file() and _is_data(p, path)) if path.is_dir() else [path]
        )
        if not found:
            raise InvalidInputError(f"data: the folder {path} has no Parquet files")
        if inner := next((p.parent.name for p in map(Path, found) if "=" in p.parent.name), None):
            raise InvalidInputError(
                f"data: {path} is partitioned, with a column in the names of its folders ({inner}): give one of them, "
                "or write that column into the files"
            )
        return pyarrow.fs.LocalFileSystem(), list(map(str, found))
    fragments = getattr(source, "fragments", None)  # of a ParquetDataset
    if fragments is None and isinstance(source, pyarrow.dataset.FileSystemDataset):
        try:
            fragments = list(source.get_fragments())
        except ValueError as exc:
            raise InvalidTypeError(f"data is a filtered dataset, which cannot be read in windows: {exc}") from exc
    if not fragments or not all(isinstance(f, pyarrow.dataset.ParquetFileFragment) for f in fragments):
        raise InvalidTypeError(
            f"data of type {type(source).__module__}.{type(source).__name__} is not understood: a path of a Parquet "
            "file or a folder of them, or pyarrow.dataset.dataset(…) of such"
        )
    return fragments[0].filesystem, [fragment.path for fragment in fragments]


def _is_data(path: Path, folder: Path) -> bool:
    """As PyArrow has it: names that begin with a dot or an underscore are no data."""
    return path.suffix.lower() in _ENDINGS and not any(p.startswith((".", "_")) for p in path.relative_to(folder).parts)
