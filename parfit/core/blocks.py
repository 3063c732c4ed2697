"""Datasets on their way to a worker, which pickle small and hand out each dataset as the objective sees it.

A dataset is a copy: an objective that writes into it changes nothing of the caller's, in whatever process it runs.
"""

from __future__ import annotations

import copy
import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from parfit.core.group_names import named

__all__ = ["DataBlock", "FrameBlock", "GroupBlock", "HandedOut", "ItemBlock", "TreeBlock", "mapped"]


class DataBlock(ABC):
    """Some datasets on their way to a worker. Picklable."""

    @abstractmethod
    def part(self, start: int, stop: int) -> DataBlock:
        """The datasets `start` to `stop` (exclusive) of this block."""

    @abstractmethod
    def visit(self, call: Callable[[int, Any], None]) -> None:
        """Call `call(i, dataset)` for each dataset in order."""


@dataclass(frozen=True)
class FrameBlock(DataBlock):
    """Rows of a frame; each is the Series that `DataFrame.apply` hands out.

    The rows lie contiguous in memory, whatever the size of the block, so that sums and products over a row
    have the same bits in every block.
    """

    frame: pd.DataFrame

    def part(self, start: int, stop: int) -> DataBlock:
        return FrameBlock(self.frame.iloc[start:stop])

    def visit(self, call: Callable[[int, Any], None]) -> None:
        frame = self.frame
        dtypes = set(frame.dtypes)
        if len(dtypes) == 1 and isinstance(dtype := next(iter(dtypes)), np.dtype) and dtype.kind != "O":
            values = np.array(frame.to_numpy(), order="C")
            for i, label in enumerate(frame.index):
                call(i, pd.Series(values[i], index=frame.columns, name=label, copy=False))
        else:
            for i in range(len(frame)):
                call(i, _copied(frame.iloc[i]))


@dataclass(frozen=True)
class ItemBlock(DataBlock):
    """Objects of any kind."""

    items: list[Any]

    def part(self, start: int, stop: int) -> DataBlock:
        return ItemBlock(self.items[start:stop])

    def visit(self, call: Callable[[int, Any], None]) -> None:
        for i, item in enumerate(self.items):
            call(i, _copied(item))


#: What an objective may write into without meaning to change what the caller has.
_CONTAINERS = (np.ndarray, list, dict, tuple, set, pd.Series, pd.DataFrame)


def _copied(item: Any) -> Any:
    """A copy of data in the usual containers, also where one is inside the other; anything else as it is."""
    made: Any
    if isinstance(item, pd.DataFrame):
        made = item.copy()
        for i, dtype in enumerate(item.dtypes):
            if isinstance(dtype, np.dtype) and dtype.kind == "O":
                made.isetitem(i, _copied(item.iloc[:, i]))
        return made
    if isinstance(item, pd.Series):
        made = item.copy()
        if item.dtype.kind == "O" and any(isinstance(cell, _CONTAINERS) for cell in item.array):
            cells: Any = _copied(item.to_numpy())
            made = pd.Series(cells, index=made.index, name=made.name, dtype=object)
        return made
    if isinstance(item, np.ndarray):
        made = item.copy()
        if item.dtype.kind == "O":
            for i, cell in enumerate(item.flat):
                made.flat[i] = _copied(cell)
        return made
    if type(item) in (dict, list, tuple, set):
        try:
            return copy.deepcopy(item)
        except Exception:  # noqa: BLE001 - something inside cannot be copied: a lock, a connection
            return item
    return item


@dataclass(frozen=True)
class GroupBlock(DataBlock):
    """Groups with their keys; as in `groupby.apply`, `name` of a group is its key."""

    items: list[Any]
    keys: list[Any]

    def part(self, start: int, stop: int) -> DataBlock:
        return GroupBlock(self.items[start:stop], self.keys[start:stop])

    def visit(self, call: Callable[[int, Any], None]) -> None:
        for i, (item, key) in enumerate(zip(self.items, self.keys, strict=True)):
            call(i, named(_copied(item), key))


def mapped(tree: Any, function: Callable[[Any], Any]) -> Any:
    """`tree` with what `function` makes of each of its leaves."""
    if isinstance(tree, Mapping):
        return {key: mapped(value, function) for key, value in tree.items()}
    if isinstance(tree, (tuple, list)):
        made = [mapped(value, function) for value in tree]
        return type(tree)(*made) if hasattr(tree, "_fields") else type(tree)(made)
    return function(tree)


def _entry(i: int, leaf: NDArray[Any]) -> Any:
    return _copied(leaf[i]) if leaf.dtype.kind == "O" else leaf[i].copy()


@dataclass(frozen=True)
class TreeBlock(DataBlock):
    """A slice of arrays that share their leading axis."""

    tree: Any
    length: int

    def part(self, start: int, stop: int) -> DataBlock:
        return TreeBlock(mapped(self.tree, lambda leaf: leaf[start:stop]), stop - start)

    def visit(self, call: Callable[[int, Any], None]) -> None:
        for i in range(self.length):
            call(i, mapped(self.tree, functools.partial(_entry, i)))


class HandedOut(Sequence[Any]):
    """The datasets of a block, made when one is first asked for; until then it travels as the block does."""

    def __init__(self, block: DataBlock, length: int) -> None:
        self._block: DataBlock | None = block
        self._length = length
        self._made: list[Any] = []

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, i: Any) -> Any:
        if self._block is not None:
            made: list[Any] = []
            self._block.visit(lambda _, dataset: made.append(dataset))
            self._block, self._made = None, made
        return self._made[i]
