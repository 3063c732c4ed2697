"""Rows of Parquet files as datasets, a window of them in memory at a time.

    source ─▶ files ─▶ row groups ─▶ batches, in order, as they are wanted ─▶ a window of rows as a frame ─▶ blocks

Which files these are is decided in `parfit.parquet.source`, and how long a window is in `parfit.parquet.sizes`.

A row is what `pandas.read_parquet` of the same files would have there: its labels, its columns and their types, which
may hang on rows far away (whole numbers of which one is missing anywhere are real numbers everywhere).
"""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Iterator
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from parfit.core.blocks import DataBlock, FrameBlock
from parfit.core.data import Datasets, read_data
from parfit.core.errors import InvalidInputError, missing_package
from parfit.core.windows import cut
from parfit.parquet.gaps import Gaps
from parfit.parquet.sizes import Sizes
from parfit.parquet.source import source_of, way_to

__all__ = ["ParquetRows"]

Positions = NDArray[np.intp]

#: What a window of rows takes, bytes, and how many rows it has at most.
WINDOW_BYTES, WINDOW_ROWS = 1 << 26, 1 << 17
#: A window, and the one before it, which others may not have done with.
_KEPT = 2
#: What is read at once of a column, bytes, and rows that are taken apart at once; row groups may be of any size.
_BUFFER, _BATCH = 1 << 20, 1 << 16


class _File(NamedTuple):
    """A file.

    Attributes
    ----------
    path, rows
        Where it is, and how many rows it has.
    groups
        Where each row group begins.
    state
        What tells whether it has changed.
    places
        Where each column is, if not as in the others; None where all is.
    """

    path: str
    rows: int
    groups: NDArray[np.intp]
    state: Any
    places: list[int] | None


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
        self._system, paths, self.schema = source_of(source)
        self._said_by = "the schema of the dataset"
        self._files: list[_File] = []
        self._gaps = Gaps(pyarrow)
        sizes = Sizes(pyarrow)
        for path in paths:
            self._look_at(path, sizes)
        self._begins = np.cumsum([0, *(file.rows for file in self._files)])
        self._length = int(self._begins[-1])
        self._lock = threading.RLock()
        self._windows: OrderedDict[int, pd.DataFrame] = OrderedDict()
        self._reader = _Reader(self)
        self._levels = self._read_levels()
        #: A row with the types of all.
        self.form: pd.DataFrame = self._gaps.row(self.schema).to_pandas()
        self._typed_as = self.form.index
        self.form.index = self._numbered(self.form, 0)
        plain = sum(getattr(dtype, "itemsize", 16) for dtype in self.form.dtypes)
        self.window = sizes.window(WINDOW_ROWS, WINDOW_BYTES, plain)

    def __len__(self) -> int:
        return self._length

    @cached_property
    def labels(self) -> pd.Index[Any]:  # type: ignore[override]
        names = [level for level in self._levels if isinstance(level, str)]
        if not names:
            return self._numbered(pd.DataFrame(index=range(self._length)), 0)
        with self._lock:
            chosen = self._pa.schema([self.schema.field(name) for name in names], metadata=self.schema.metadata)
            tables = []
            for number, file in enumerate(self._files):
                try:
                    table = self._opened(number).read(columns=names)
                except (self._pa.ArrowException, OSError) as exc:
                    self._refuse_changed(file)
                    raise self._unreadable(file.path, exc) from exc
                self._refuse_changed(file)
                columns = [self._as_wanted(table.column(f.name), f.type) for f in chosen]
                tables.append(self._pa.Table.from_arrays(columns, schema=chosen))
            return self._numbered(self._pa.concat_tables(tables).to_pandas(), 0)

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

    def _look_at(self, path: str, sizes: Sizes) -> None:
        """Note a file, and what its rows take."""
        state = self._state(path)
        file = self._parquet(path)
        metadata, schema = file.metadata, file.schema_arrow
        if self.schema is None:
            self.schema, self._said_by = schema, path
        places = way_to(self.schema, schema, path, self._said_by)
        groups = [metadata.row_group(g) for g in range(metadata.num_row_groups)]
        begins = np.cumsum([0, *(group.num_rows for group in groups)])
        try:
            sizes.add(file)
            self._gaps.add(file)
        except (self._pa.ArrowException, OSError) as exc:
            raise self._unreadable(path, exc) from exc
        same = schema.equals(self.schema, check_metadata=False)
        self._files.append(_File(path, metadata.num_rows, begins, state, None if same else places))

    def _read_levels(self) -> list[str | pd.RangeIndex]:
        """What the labels are of: columns, and numbers that are in no column; leaves the columns to PyArrow.

        PyArrow leaves out numbers that are not as many as the rows, and a window has fewer than all.
        """
        said = (self.schema.pandas_metadata or {}).get("index_columns", [])
        levels: list[str | pd.RangeIndex] = []
        for level in said:
            if isinstance(level, str):
                levels.append(level)
            else:
                numbers = pd.RangeIndex(level["start"], level["stop"], level["step"], name=level["name"])
                levels += [numbers] * (len(numbers) == self._length)
        if said:
            kept = [level for level in levels if isinstance(level, str)]
            told = json.dumps({**self.schema.pandas_metadata, "index_columns": kept})
            self.schema = self.schema.with_metadata({**self.schema.metadata, b"pandas": told.encode()})
        return levels or [pd.RangeIndex(self._length)]

    def _numbered(self, frame: pd.DataFrame, start: int) -> pd.Index[Any]:
        """The labels of a frame whose rows are those from `start` on, with the levels that are in no column."""
        there = iter(range(frame.index.nlevels))
        stop = start + len(frame)
        levels: list[pd.Index[Any]] = [
            frame.index.get_level_values(next(there))
            if isinstance(level, str)
            else (level[start:stop] if len(self) else pd.RangeIndex(stop, name=level.name))
            for level in self._levels
        ]
        if len(levels) == 1:
            return levels[0]
        if not any(isinstance(level, pd.RangeIndex) for level in self._levels):
            return frame.index
        return pd.MultiIndex.from_arrays(levels, names=[level.name for level in levels])

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
        table, inside = self._reader.table(start, stop), self._gaps.inside
        if inside:
            table = self._pa.concat_tables([table, self._gaps.row(self.schema)])
            for j, field in enumerate(self.schema):
                if field.name in inside:  # in one piece, each of which PyArrow looks at by itself
                    table = table.set_column(j, field, self._pa.concat_arrays(table.column(j).chunks))
        frame: pd.DataFrame = table.to_pandas()
        if inside:
            frame = frame.iloc[: stop - start].copy()
        assert self.form is not None
        for i, wanted in enumerate(self.form.dtypes):
            if frame.dtypes.iloc[i] != wanted and not isinstance(wanted, pd.CategoricalDtype):
                frame.isetitem(i, frame.iloc[:, i].astype(wanted).array)
        frame.index = self._numbered(frame.set_axis(self._typed(frame.index)), start)
        return frame

    def _typed(self, index: pd.Index[Any]) -> pd.Index[Any]:
        """Labels that are in columns, of the types that they have in all rows."""
        form = self._typed_as
        if isinstance(index, pd.MultiIndex):
            assert isinstance(form, pd.MultiIndex)
            typed = [
                level if isinstance(wanted.dtype, pd.CategoricalDtype) else level.astype(wanted.dtype)
                for level, wanted in zip(index.levels, form.levels, strict=True)
            ]
            return index.set_levels(typed)  # type: ignore[arg-type]
        return index if isinstance(form.dtype, pd.CategoricalDtype) else index.astype(form.dtype)

    def table_of(self, batches: list[Any]) -> Any:
        """Batches as one table."""
        return self._pa.Table.from_batches(batches, schema=self.schema)

    def _opened(self, number: int) -> Any:
        """A file, as it was when it was first looked at."""
        file = self._files[number]
        self._refuse_changed(file)
        return self._parquet(file.path)

    def refuse_changed(self, start: int, stop: int) -> None:
        """Raise `InvalidInputError` where a file that has some of the rows is not as it was: they may be new ones."""
        for number in range(self.group_of(start)[0], self.group_of(stop - 1)[0] + 1):
            self._refuse_changed(self._files[number])

    def _refuse_changed(self, file: _File) -> None:
        if self._state(file.path) != file.state:
            raise InvalidInputError(f"{file.path} has changed since this fit was begun: call parfit.fit again")

    def _as_wanted(self, column: Any, kind: Any) -> Any:
        return column if column.type.equals(kind) else column.cast(kind)

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

    def ended(self, position: int) -> InvalidInputError:
        """The error of files that have no more rows from a position on."""
        path = self._files[self.group_of(position)[0]].path
        return InvalidInputError(f"data: {path} cannot be read as a Parquet file: it has fewer rows than it says")

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
            places = self._files[number].places
            try:
                for batch in file.iter_batches(batch_size=min(self.window, _BATCH), row_groups=groups):
                    yield batch if places is None else self._in_place(batch, places)
            except (self._pa.ArrowException, OSError) as exc:
                raise self._unreadable(self._files[number].path, exc) from exc
            number, first = number + 1, 0

    def _in_place(self, batch: Any, places: list[int]) -> Any:
        """A batch with its columns where the others have them."""
        columns = [self._as_wanted(batch.column(j), f.type) for f, j in zip(self.schema, places, strict=True)]
        return self._pa.RecordBatch.from_arrays(columns, schema=self.schema)


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
            found = self._rows.table_of(list(self._parts(start, stop)))
            self._rows.refuse_changed(start, stop)
            return found
        except BaseException as exc:  # in the middle, by a Ctrl-C: the next begins anew
            self._batches = None
            if isinstance(exc, Exception):  # which may be anything, where another writes the file
                self._rows.refuse_changed(start, stop)
            raise

    def _parts(self, start: int, stop: int) -> Iterator[Any]:
        number, group, begin = self._rows.group_of(start)
        if self._batches is None or not begin <= self._at <= start:
            self._left, self._at, self._batches = None, begin, self._rows.batches(number, group)
        while self._at < stop:
            batch = self._left if self._left is not None else next(self._batches, None)
            if batch is None:
                raise self._rows.ended(self._at)
            end = self._at + len(batch)
            low, high = max(start - self._at, 0), min(stop, end) - self._at
            if low < high:
                yield batch.slice(low, high - low)
            self._left = batch.slice(high) if end > stop else None
            self._at = min(end, stop)
