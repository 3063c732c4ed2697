"""A frame cut into slices that travel to workers, in which every row lies in memory as it did."""

from __future__ import annotations

import copy
import pickle
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from parfit.core.protocols import Block
from parfit.executors.chunking import ChunkSizer, PairBlock
from parfit.executors.cpus import cpu_count

__all__ = ["FrameBlocks", "Slice", "own", "writeable"]

#: Long against what it costs to cut, send and unpack a block of a frame (about 0.5 ms).
_BLOCK_S = 0.1


@dataclass(frozen=True)
class Slice:
    """`count` rows (or columns) of a frame, after the first `skip`.

    One row alone lies in memory otherwise than among others, and BLAS may then round otherwise; so a single row
    travels with a neighbour, which is passed over. With ``raw=True``, pandas hands out memory that the function may
    write to, or not: `writeable`.
    """

    frame: pd.DataFrame
    skip: int
    count: int
    writeable: bool


class FrameBlocks:
    """A frame cut into slices, one task each, by the measured cost of its rows; or only some rows, one by one.

    Attributes
    ----------
    sizer
        Is told what slices cost.
    sent
        First and last position of the slices that are on their way.
    limit
        Slices from this position on are held back.
    """

    def __init__(self, df: pd.DataFrame, axis: int, raw: bool, workers: int | None) -> None:
        self._df = df
        self._axis = axis
        self._values = _handed_out(df, raw)
        self._total = df.shape[1 - axis]
        self._spans = [(0, self._total)]
        self.sizer = ChunkSizer(workers or cpu_count(), self._total, _BLOCK_S)
        self.sent: dict[int, int] = {}
        self.limit = self._total

    def singly(self, rows: list[int]) -> FrameBlocks:
        """Some rows of the same frame, one by one."""
        made = copy.copy(self)
        made._spans = [(row, row + 1) for row in reversed(rows)]
        made.sizer = ChunkSizer(1, 0)
        made.sent = {}
        return made

    @property
    def next(self) -> int:
        """The position that comes next; the number of rows where none does."""
        return self._spans[-1][0] if self._spans else self._total

    def take(self, n: int) -> Block | None:  # noqa: ARG002 - a task is a slice, of the size that suits this frame
        if self.next >= self.limit:
            return None
        start, end = self._spans.pop()
        stop = min(start + self.sizer.next_size(), end)
        if stop < end:
            self._spans.append((stop, end))
        self.sent[start] = stop
        self.sizer.sent(stop - start)
        first, last = (start, stop) if stop - start > 1 else (min(start, max(self._total - 2, 0)), start + 2)
        writeable = self._values is None or self._values.flags.writeable
        return PairBlock([(start, Slice(self._cut(slice(first, last)), start - first, stop - start, writeable))])

    def _cut(self, chosen: slice) -> Any:
        index = (chosen, slice(None)) if self._axis == 1 else (slice(None), chosen)
        frame: Any = self._df.iloc[index]
        if self._values is None:
            return frame
        values = _as_it_lies(self._values[index], self._axis)
        if self._total == 1 and values.shape != frame.shape:
            frame = pd.concat([frame, frame], axis=1 - self._axis)  # type: ignore[call-overload]
        cut = type(frame)(values, frame.index, frame.columns, dtype=values.dtype, copy=False)
        return cut.__finalize__(frame)


def _handed_out(df: pd.DataFrame, raw: bool) -> NDArray[Any] | None:
    """The values of a frame where `Slice`s are to be cut from these: one block of numbers, or with ``raw=True`` any."""
    if raw:
        return df.to_numpy()
    if type(df) is not pd.DataFrame or (dtype := _one_dtype(df)) is None or dtype.kind not in "fiuc":
        return None
    values = df.to_numpy()
    return values if np.may_share_memory(values, df.iloc[:, 0].to_numpy()) else None


def _one_dtype(df: pd.DataFrame) -> np.dtype[Any] | None:
    dtypes = set(df.dtypes)
    dtype = dtypes.pop()
    return dtype if isinstance(dtype, np.dtype) and not dtypes else None


def _as_it_lies(values: NDArray[Any], axis: int) -> NDArray[Any]:
    """A slice in which each row lies in memory as before: in one piece, or scattered.

    BLAS rounds otherwise in the one case than in the other. Pickling alone would put a slice in C order.
    """
    in_one_piece = values.strides[axis] == values.itemsize
    if values.shape[1 - axis] == 1 and not in_one_piece:
        values = np.repeat(values, 2, axis=1 - axis)
    return np.asarray(values, order="C" if in_one_piece == (axis == 1) else "F")


def own(frame: pd.DataFrame) -> pd.DataFrame:
    """A copy that lies in memory like the original, which `copy` does not keep to.

    In the caller's own process, what the function writes into a row must not reach the caller's frame either.
    """
    buffers: list[pickle.PickleBuffer] = []
    data = pickle.dumps(frame, protocol=5, buffer_callback=buffers.append)
    copied: pd.DataFrame = pickle.loads(data, buffers=[bytearray(buffer.raw()) for buffer in buffers])
    return copied


class _Writeable(pd.DataFrame):
    """A frame whose rows pandas hands out from memory that may be written to."""

    @property
    def values(self) -> NDArray[Any]:
        found: NDArray[Any] = self.__dict__["memory"]
        return found


def writeable(frame: pd.DataFrame) -> pd.DataFrame:
    """The same frame, such that a function may write into each of its rows.

    pandas 3 makes a copy for the first row that is written to, and refuses the second, where all columns lie in one
    block; with slices of any size, each would begin anew.
    """
    if type(frame) is not pd.DataFrame or _one_dtype(frame) is None or (values := frame.to_numpy()).flags.writeable:
        return frame
    made: Any = _Writeable(frame, copy=False)
    made.__dict__["memory"] = values.copy("K")
    return made.__finalize__(frame)  # type: ignore[no-any-return]
