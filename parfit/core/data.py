"""Any data as labelled datasets, cut into blocks that travel.

`read_data` finds out what the user has; a `Datasets` has labels and gives the datasets at any positions as a
`DataBlock`, which pickles small and hands out each dataset as the objective sees it. A dataset is a copy: an
objective that writes into it changes nothing of the caller's, in whatever process it runs.
"""

from __future__ import annotations

import copy
import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pandas.api.typing
from numpy.typing import NDArray

from parfit.core.errors import InvalidInputError, InvalidTypeError, shown
from parfit.core.values import is_array

__all__ = ["DataBlock", "Datasets", "read_data"]

Positions = NDArray[np.intp]


class DataBlock(ABC):
    """Some datasets on their way to a worker. Picklable."""

    @abstractmethod
    def part(self, start: int, stop: int) -> DataBlock:
        """The datasets `start` to `stop` (exclusive) of this block."""

    @abstractmethod
    def visit(self, call: Callable[[int, Any], None]) -> None:
        """Call `call(i, dataset)` for each dataset in order."""


class Datasets(ABC):
    """All datasets of a fit.

    Attributes
    ----------
    labels
        The label of each, in order; may hold duplicates.
    owner
        The user's own object.
    """

    labels: pd.Index[Any]
    owner: Any
    #: What else the data could have meant, for the one whose objective fails on every dataset.
    hint: str = ""

    def __len__(self) -> int:
        return len(self.labels)

    @abstractmethod
    def block(self, positions: Positions) -> DataBlock:
        """The datasets at `positions`."""

    def one(self, position: int) -> Any:
        """The dataset at `position`, as the objective sees it."""
        found: list[Any] = []
        self.block(np.array([position])).visit(lambda _, dataset: found.append(dataset))
        return found[0]


def read_data(data: Any) -> Datasets:
    """The datasets in whatever the user has.

    Raises
    ------
    InvalidTypeError, InvalidInputError
        For what holds no datasets.
    """
    if isinstance(data, Datasets):
        return data
    if isinstance(data, pd.DataFrame):
        return _FrameRows(data)
    if isinstance(data, (pandas.api.typing.DataFrameGroupBy, pandas.api.typing.SeriesGroupBy)):
        return _Groups(data)
    if isinstance(data, pd.Series):
        return _Items(list(data), data.index.copy(), data)
    if isinstance(data, (str, bytes)) or hasattr(data, "__fspath__"):
        raise InvalidTypeError("data is a path or text: read it first, for example with pandas.read_csv(path)")
    if is_array(data):
        if data.ndim == 0:
            raise InvalidInputError("data is a single number; an array of datasets has at least one axis")
        return _Tree(np.asanyarray(data), data.shape[0], data)
    if isinstance(data, (Mapping, tuple)) and (batch := _as_batch(data)) is not None:
        return batch
    if isinstance(data, Mapping):
        return _Items(list(data.values()), _index_of(list(data)), data)
    if isinstance(data, Sequence):
        return _Items(list(data), pd.RangeIndex(len(data)), data)
    if isinstance(data, Iterable):
        items = list(data)
        return _Items(items, pd.RangeIndex(len(items)), data)
    raise InvalidTypeError(
        f"data of type {type(data).__name__} is not understood: a DataFrame, a GroupBy, a mapping label -> dataset, "
        "a sequence, an array, or arrays with a common leading axis"
    )


def _index_of(labels: list[Any], names: Any = None) -> pd.Index[Any]:
    if labels and all(isinstance(label, tuple) for label in labels) and len({len(label) for label in labels}) == 1:
        return pd.MultiIndex.from_tuples(labels, names=names)
    if not labels and names is not None and len(names) > 1:
        return pd.MultiIndex.from_arrays([[] for _ in names], names=names)
    index = pd.Index(labels, tupleize_cols=False) if labels else pd.Index([], dtype=object)
    return index.set_names(names) if names is not None and len(names) == 1 else index


@dataclass(frozen=True)
class _FrameBlock(DataBlock):
    """Rows of a frame; each is the Series that `DataFrame.apply` hands out.

    The rows lie contiguous in memory, whatever the size of the block, so that sums and products over a row
    have the same bits in every block.
    """

    frame: pd.DataFrame

    def part(self, start: int, stop: int) -> DataBlock:
        return _FrameBlock(self.frame.iloc[start:stop])

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


def _run(positions: Positions) -> slice | None:
    """Consecutive positions as a slice, which shares memory; None where they are not."""
    if len(positions) and (np.diff(positions) == 1).all():
        return slice(int(positions[0]), int(positions[-1]) + 1)
    return None


class _FrameRows(Datasets):
    def __init__(self, frame: pd.DataFrame) -> None:
        self.labels = frame.index.copy()
        self.owner = frame

    def block(self, positions: Positions) -> DataBlock:
        chosen = _run(positions)
        return _FrameBlock(self.owner.iloc[positions if chosen is None else chosen])


@dataclass(frozen=True)
class _ItemBlock(DataBlock):
    """Objects of any kind."""

    items: list[Any]

    def part(self, start: int, stop: int) -> DataBlock:
        return _ItemBlock(self.items[start:stop])

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


class _Items(Datasets):
    def __init__(self, items: list[Any], labels: pd.Index[Any], owner: Any) -> None:
        self._items = items
        self.labels = labels
        self.owner = owner

    def block(self, positions: Positions) -> DataBlock:
        return _ItemBlock([self._items[i] for i in positions])


class _Groups(_Items):
    """The groups of a GroupBy, in its own order."""

    def __init__(self, groups: Any) -> None:
        pairs = list(groups)
        keys = [key for key, _ in pairs]
        sizes = groups.size()
        names = list(sizes.index.names) if isinstance(sizes, pd.Series) else list(sizes.columns[:-1])  # as_index=False
        if len(keys) and all(isinstance(key, tuple) and len(key) == 1 for key in keys):
            keys = [key[0] for key in keys]
        super().__init__([frame for _, frame in pairs], _index_of(keys, names), groups)


def _leaves(tree: Any) -> list[Any]:
    if isinstance(tree, Mapping):
        return [leaf for value in tree.values() for leaf in _leaves(value)]
    if isinstance(tree, (tuple, list)):
        return [leaf for value in tree for leaf in _leaves(value)]
    return [tree]


def _as_batch(tree: Any) -> Datasets | None:
    """A mapping or tuple as arrays with a common leading axis; None where it holds one dataset in each entry.

    The rule, whatever the number of entries: it is a batch where it holds nothing but arrays, all of one length, and
    one of them at least has two axes. ``{"x": (B, m), "y": (B, m)}`` is how data for many fits are kept, and what JAX
    maps over, while datasets under labels that are arrays of two axes and of one length are rare; but arrays of one
    axis under labels, ``{"site": y, …}``, are common, and nobody fits to a single number each. The names of fields
    are text, and a batch under other keys is refused.
    """
    leaves = _leaves(tree)
    if not leaves or not all(is_array(leaf) and leaf.ndim for leaf in leaves):
        return None
    lengths = {leaf.shape[0] for leaf in leaves}
    if len(lengths) != 1 or max(leaf.ndim for leaf in leaves) < 2:
        return None
    if not isinstance(tree, Mapping):
        return _Tree(_mapped(tree, np.asanyarray), lengths.pop(), tree)
    other = next((key for key in tree if not isinstance(key, str)), None)
    if other is not None:
        raise InvalidInputError(
            f"data can be read in two ways: pandas.Series(data) is a dataset for each key, {shown(other)} among them; "
            f"a tuple of the arrays is a dataset for each index of their leading axis, of length {lengths.pop()}"
        )
    batch = _Tree(_mapped(tree, np.asanyarray), lengths.pop(), tree)
    batch.hint = (
        f"data was read as arrays with a common leading axis, {len(batch)} datasets in all; "
        "pandas.Series(data) is a dataset for each key"
    )
    return batch


def _mapped(tree: Any, function: Callable[[Any], Any]) -> Any:
    if isinstance(tree, Mapping):
        return {key: _mapped(value, function) for key, value in tree.items()}
    if isinstance(tree, (tuple, list)):
        made = [_mapped(value, function) for value in tree]
        return type(tree)(*made) if hasattr(tree, "_fields") else type(tree)(made)
    return function(tree)


def _entry(i: int, leaf: NDArray[Any]) -> Any:
    return _copied(leaf[i]) if leaf.dtype.kind == "O" else leaf[i].copy()


def _part(chosen: Any, leaf: NDArray[Any]) -> NDArray[Any]:
    """Some entries, contiguous in memory, and with their mask where there is one."""
    return np.require(leaf[chosen], requirements="C") if type(leaf) is np.ndarray else leaf[chosen].copy()


@dataclass(frozen=True)
class _TreeBlock(DataBlock):
    """A slice of arrays that share their leading axis."""

    tree: Any
    length: int

    def part(self, start: int, stop: int) -> DataBlock:
        return _TreeBlock(_mapped(self.tree, lambda leaf: leaf[start:stop]), stop - start)

    def visit(self, call: Callable[[int, Any], None]) -> None:
        for i in range(self.length):
            call(i, _mapped(self.tree, functools.partial(_entry, i)))


class _Tree(Datasets):
    def __init__(self, tree: Any, length: int, owner: Any) -> None:
        self._tree = tree
        self.owner = owner
        self.labels = pd.RangeIndex(length)

    def block(self, positions: Positions) -> DataBlock:
        chosen = _run(positions)
        part = functools.partial(_part, positions if chosen is None else chosen)
        return _TreeBlock(_mapped(self._tree, part), len(positions))
