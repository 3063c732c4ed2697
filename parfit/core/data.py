"""Any data as labelled datasets, cut into blocks that travel.

`read_data` finds out what the user has; a `Datasets` has labels and gives the datasets at any positions as a
`DataBlock` (`parfit.core.blocks`), which pickles small and hands out each dataset as the objective sees it.
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pandas.api.typing
from numpy.typing import NDArray

from parfit.core.blocks import DataBlock, FrameBlock, GroupBlock, ItemBlock, TreeBlock, mapped
from parfit.core.errors import InvalidInputError, InvalidTypeError, shown
from parfit.core.fingerprint import digest
from parfit.core.rowprints import of_cells, of_columns, of_datasets, of_frame
from parfit.core.values import is_array

__all__ = ["DataBlock", "Datasets", "datasets_of", "read_data"]

Positions = NDArray[np.intp]

_GROUPED = (pandas.api.typing.DataFrameGroupBy, pandas.api.typing.SeriesGroupBy, pandas.api.typing.Resampler)


class Datasets(ABC):
    """All datasets of a fit.

    Attributes
    ----------
    labels
        The label of each, in order; may hold duplicates.
    owner
        The user's own object.
    window
        How many are in memory together; None where all are.
    form
        A frame with the columns and types of all rows, where a dataset is a row of a frame.
    shows_labels
        Whether a dataset shows its label to the objective.
    """

    labels: pd.Index[Any]
    owner: Any
    window: int | None = None
    form: pd.DataFrame | None = None
    shows_labels = True
    #: What else the data could have meant, for the one whose objective fails on every dataset.
    hint: str = ""

    def __len__(self) -> int:
        return len(self.labels)

    @abstractmethod
    def block(self, positions: Positions) -> DataBlock:
        """The datasets at `positions`."""

    def fingerprints(self) -> NDArray[np.uint64]:
        """What each dataset is, in 16 bytes, shape (B, 2); its label is not part of it.

        Raises
        ------
        InvalidInputError
            For one in which a change would go unnoticed, by its label.
        """
        try:
            return self._fingerprints()
        except InvalidInputError:
            for i in range(len(self)):
                try:
                    digest(self.one(i), strict=True)
                except InvalidInputError as exc:
                    raise InvalidInputError(f"dataset {shown(self.labels[i])}: {exc}") from None
            raise

    def _fingerprints(self) -> NDArray[np.uint64]:
        made = [of_datasets([self.one(i) for i in some]) for some in _runs(len(self))]
        return np.concatenate(made) if made else np.empty((0, 2), dtype=np.uint64)

    def part(self, start: int, stop: int) -> Datasets:
        """The datasets from `start` to `stop` (exclusive) by themselves, in memory."""
        return _Part(self, start, stop)

    def let_go(self) -> None:
        """Let go of what is in memory, where it can be read again."""
        return

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
    if type(data).__name__.lower().endswith("resamplergroupby"):
        raise InvalidTypeError(
            "data is the resampling of groups, which pandas does not hand out: "
            "df.groupby([…, pd.Grouper(freq=…)]) has a group for each"
        )
    if isinstance(data, _GROUPED):
        return _Groups.read(data)
    if isinstance(data, pd.Series):
        return _Items(list(data), data.index.copy(), data)
    if isinstance(data, (str, bytes)) or hasattr(data, "__fspath__"):
        raise InvalidTypeError(
            "data is a path or text, and none of Parquet: read it first, for example with pandas.read_csv(path)"
        )
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


def datasets_of(block: DataBlock) -> Datasets:
    """The datasets of a block that has travelled; those without labels of their own are 0 … n-1."""
    if isinstance(block, FrameBlock):
        return _FrameRows(block.frame)
    if isinstance(block, TreeBlock):
        return _Tree(block.tree, block.length, block.tree)
    if isinstance(block, GroupBlock):
        return _Groups(block.items, block.keys, pd.RangeIndex(len(block.items)), block)
    assert isinstance(block, ItemBlock)
    return _Items(block.items, pd.RangeIndex(len(block.items)), block)


def _index_of(labels: list[Any], names: Any = None) -> pd.Index[Any]:
    if labels and all(isinstance(label, tuple) for label in labels) and len({len(label) for label in labels}) == 1:
        return pd.MultiIndex.from_tuples(labels, names=names)
    if not labels and names is not None and len(names) > 1:
        return pd.MultiIndex.from_arrays([[] for _ in names], names=names)
    index = pd.Index(labels, tupleize_cols=False) if labels else pd.Index([], dtype=object)
    return index.set_names(names) if names is not None and len(names) == 1 else index


def _run(positions: Positions) -> slice | None:
    """Consecutive positions as a slice, which shares memory; None where they are not."""
    if len(positions) and (np.diff(positions) == 1).all():
        return slice(int(positions[0]), int(positions[-1]) + 1)
    return None


def _runs(length: int, step: int = 4096) -> Iterator[range]:
    for at in range(0, length, step):
        yield range(at, min(at + step, length))


class _Part(Datasets):
    """Some of others, one after another."""

    def __init__(self, whole: Datasets, start: int, stop: int) -> None:
        self._whole, self._start = whole, start
        self.labels = whole.labels[start:stop]
        self.owner = None
        self.shows_labels = whole.shows_labels

    def block(self, positions: Positions) -> DataBlock:
        return self._whole.block(positions + self._start)


class _FrameRows(Datasets):
    def __init__(self, frame: pd.DataFrame) -> None:
        self.labels = frame.index.copy()
        self.owner = self.form = frame

    def part(self, start: int, stop: int) -> Datasets:
        return _FrameRows(self.owner.iloc[start:stop])

    def block(self, positions: Positions) -> DataBlock:
        chosen = _run(positions)
        return FrameBlock(self.owner.iloc[positions if chosen is None else chosen])

    def _fingerprints(self) -> NDArray[np.uint64]:
        return of_frame(self.owner)


class _Items(Datasets):
    shows_labels = False
    _alike = False  # parts of one frame

    def __init__(self, items: list[Any], labels: pd.Index[Any], owner: Any) -> None:
        self._items = items
        self.labels = labels
        self.owner = owner

    def block(self, positions: Positions) -> DataBlock:
        return ItemBlock([self._items[i] for i in positions])

    def _fingerprints(self) -> NDArray[np.uint64]:
        return of_datasets(self._items, alike=self._alike)


class _Groups(_Items):
    """Groups with their keys."""

    shows_labels = True
    _alike = True

    def __init__(self, items: list[Any], keys: list[Any], labels: pd.Index[Any], owner: Any) -> None:
        super().__init__(items, labels, owner)
        self._keys = keys

    @classmethod
    def read(cls, groups: Any) -> Datasets:
        """The groups of a GroupBy, or the bins of a Resampler, in its own order."""
        pairs = list(groups)
        keys = [key for key, _ in pairs]
        sizes = groups.size()
        names = list(sizes.index.names) if isinstance(sizes, pd.Series) else list(sizes.columns[:-1])  # as_index=False
        if len(keys) and all(isinstance(key, tuple) and len(key) == 1 for key in keys):
            keys = [key[0] for key in keys]
        return cls([frame for _, frame in pairs], keys, _index_of(keys, names), groups)

    def block(self, positions: Positions) -> DataBlock:
        return GroupBlock([self._items[i] for i in positions], [self._keys[i] for i in positions])


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
        return _Tree(mapped(tree, np.asanyarray), lengths.pop(), tree)
    other = next((key for key in tree if not isinstance(key, str)), None)
    if other is not None:
        raise InvalidInputError(
            f"data can be read in two ways: pandas.Series(data) is a dataset for each key, {shown(other)} among them; "
            f"a tuple of the arrays is a dataset for each index of their leading axis, of length {lengths.pop()}"
        )
    batch = _Tree(mapped(tree, np.asanyarray), lengths.pop(), tree)
    batch.hint = (
        f"data was read as arrays with a common leading axis, {len(batch)} datasets in all; "
        "pandas.Series(data) is a dataset for each key"
    )
    return batch


def _part(chosen: Any, leaf: NDArray[Any]) -> NDArray[Any]:
    """Some entries, contiguous in memory, and with their mask where there is one."""
    return np.require(leaf[chosen], requirements="C") if type(leaf) is np.ndarray else leaf[chosen].copy()


class _Tree(Datasets):
    shows_labels = False

    def __init__(self, tree: Any, length: int, owner: Any) -> None:
        self._tree = tree
        self.owner = owner
        self.labels = pd.RangeIndex(length)

    def block(self, positions: Positions) -> DataBlock:
        chosen = _run(positions)
        part = functools.partial(_part, positions if chosen is None else chosen)
        return TreeBlock(mapped(self._tree, part), len(positions))

    def part(self, start: int, stop: int) -> Datasets:
        made = _Tree(mapped(self._tree, lambda leaf: leaf[start:stop]), stop - start, None)
        made.labels = self.labels[start:stop]
        return made

    def _fingerprints(self) -> NDArray[np.uint64]:
        leaves = _leaves(self._tree)
        if any(leaf.dtype.kind not in "iufb" or type(leaf) not in (np.ndarray, np.memmap) for leaf in leaves):
            return super()._fingerprints()
        names = of_cells([mapped(self._tree, lambda leaf: (leaf.dtype.str, leaf.shape[1:]))])
        return of_columns(leaves, len(self)) ^ names
