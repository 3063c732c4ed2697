"""Datasets as arrays with a leading axis, and back inside the trace: what an objective is handed there.

A `Feed` reads any datasets into a tree of NumPy arrays whose leading axis counts datasets, and rebuilds from one entry
of each the object that stands for the dataset in a traced objective. Datasets of unequal length are padded; what is
rebuilt then knows which entries are there.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any

import jax.numpy as jnp
import numpy as np
import pandas as pd
from jax import Array
from numpy.typing import NDArray

from parfit.batched.tracing.standins import Column, Group, Opaque, Row
from parfit.batched.tracing.untraceable import Untraceable
from parfit.core.blocks import FrameBlock, GroupBlock, ItemBlock, TreeBlock, mapped
from parfit.core.data import Datasets, read_data
from parfit.core.errors import shown

__all__ = ["Feed", "is_number", "read_feed", "read_one"]

Tree = Any
Positions = NDArray[np.intp]
_NUMBERS = "fiub"


class Feed(ABC):
    """All datasets of a fit, as arrays.

    Attributes
    ----------
    lengths : ndarray of int, shape (B,), optional
        The length of each dataset, where they differ.
    """

    lengths: NDArray[np.intp] | None = None

    @abstractmethod
    def leaves(self, positions: Positions, length: int = 0) -> Tree:
        """The datasets at `positions` as arrays with a leading axis, padded to `length` where lengths differ."""

    @abstractmethod
    def rebuilt(self, leaves: Tree) -> Any:
        """What stands for one dataset, from one entry of each array."""

    def mask(self, leaves: Tree) -> Array | None:  # noqa: ARG002
        """True for the entries of one dataset that are there, shape (length,); None where nothing is padded."""
        return None

    def is_like(self, other: Feed) -> bool:
        """Whether the datasets of another feed are rebuilt as these are, so that a program suits both."""
        return self is other


def read_feed(datasets: Datasets) -> Feed:
    """The feed of any datasets.

    Raises
    ------
    Untraceable
        Where they are no numbers, or of different kinds.
    """
    block = datasets.block(np.arange(min(1, len(datasets))))
    if isinstance(block, FrameBlock):
        return _Frame(datasets)
    if isinstance(block, TreeBlock):
        return _Arrays(datasets, block.tree)
    assert isinstance(block, (ItemBlock, GroupBlock))
    return _Items(datasets)


def read_one(dataset: Any, *, padded: bool = False) -> Feed:
    """The feed of one dataset, as the objective sees it; its arrays have a leading axis of length 1.

    Parameters
    ----------
    padded
        Whether a frame may be padded, so that it is of one form with longer and shorter ones; others never are.

    Raises
    ------
    Untraceable
        Where it holds no numbers.
    """
    if isinstance(dataset, pd.Series):
        return _OneRow(dataset)
    made = _Items(read_data([dataset]))
    if padded and isinstance(dataset, pd.DataFrame):
        made.pad(len(dataset))
    return made


# ---- rows of a frame


class _Frame(Feed):
    def __init__(self, datasets: Datasets) -> None:
        frame = datasets.form
        assert frame is not None
        self._datasets = datasets
        self._columns = frame.columns
        numbers = [is_number(frame.iloc[:, k]) for k in range(frame.shape[1])]
        self._chosen = np.flatnonzero(numbers)
        self._opaque = frozenset(np.flatnonzero(np.logical_not(numbers)).tolist())
        kinds = set(frame.dtypes.iloc[self._chosen]) if not self._opaque else set()
        kind = next(iter(kinds)) if len(kinds) == 1 else None
        self._dtype = kind if isinstance(kind, np.dtype) and kind.kind in _NUMBERS else np.dtype(np.float64)

    def leaves(self, positions: Positions, length: int = 0) -> Tree:  # noqa: ARG002
        block = self._datasets.block(positions)
        assert isinstance(block, FrameBlock)
        frame = block.frame.iloc[:, self._chosen] if self._opaque else block.frame
        if any(isinstance(dtype, pd.api.extensions.ExtensionDtype) for dtype in frame.dtypes):
            return frame.to_numpy(dtype=self._dtype, na_value=np.nan)
        return frame.to_numpy(dtype=self._dtype)

    def rebuilt(self, leaves: Tree) -> Any:
        return _row(self._columns, leaves, self._chosen, self._opaque)


class _OneRow(Feed):
    """A row of a frame, without the frame; one of mixed types holds objects."""

    def __init__(self, row: pd.Series[Any]) -> None:
        self.index = row.index
        is_text = np.zeros(len(row), dtype=bool)
        if not is_number(row):
            is_text[:] = [not (isinstance(v, Real) or v is pd.NA) for v in row.array]
        self._chosen = np.flatnonzero(~is_text)
        self.opaque = frozenset(np.flatnonzero(is_text).tolist())
        self._values = _numbers_of(row.iloc[self._chosen] if self.opaque else row)

    def leaves(self, positions: Positions, length: int = 0) -> Tree:  # noqa: ARG002
        return self._values[None]

    def rebuilt(self, leaves: Tree) -> Any:
        return _row(self.index, leaves, self._chosen, self.opaque)

    def is_like(self, other: Feed) -> bool:
        return isinstance(other, _OneRow) and self.opaque == other.opaque and self.index.equals(other.index)


def _row(index: pd.Index[Any], values: Array, chosen: NDArray[np.intp], opaque: frozenset[int]) -> Row:
    if not opaque:
        return Row(index, values)
    whole = jnp.full(len(index), jnp.nan, values.dtype).at[chosen].set(values)
    return Row(index, whole, opaque)


def is_number(column: pd.Series[Any]) -> bool:
    """Whether a column holds nothing but real numbers: only of Python's objects do the values tell, else the type does.

    A column of text with nothing but gaps, as some rows of one may have, is text.
    """
    if isinstance(column.dtype, pd.CategoricalDtype):
        return is_number(column.dtype.categories.to_series())
    if column.dtype == np.dtype(object):
        return bool(len(column)) and all(isinstance(v, Real) for v in column.array)
    return bool(pd.api.types.is_numeric_dtype(column.dtype)) and not pd.api.types.is_complex_dtype(column.dtype)


# ---- arrays with a leading axis


class _Arrays(Feed):
    def __init__(self, datasets: Datasets, tree: Tree) -> None:
        self._datasets = datasets
        mapped(tree, _refuse_array)

    def leaves(self, positions: Positions, length: int = 0) -> Tree:  # noqa: ARG002
        block = self._datasets.block(positions)
        assert isinstance(block, TreeBlock)
        return block.tree

    def rebuilt(self, leaves: Tree) -> Any:
        return leaves


def _refuse_array(leaf: NDArray[Any]) -> None:
    if isinstance(leaf, np.ma.MaskedArray):
        raise Untraceable("the data are masked arrays, of which a compiled function would not see the mask")
    if leaf.dtype.kind not in _NUMBERS:
        raise Untraceable(f"the data have dtype {leaf.dtype}, and only real numbers can be compiled")


# ---- one object a dataset


@dataclass(frozen=True, eq=False)
class _Leaf:
    """Where a number or an array of a dataset goes; `ragged` where its length differs from dataset to dataset."""

    at: int
    ragged: bool = False


class _Items(Feed):
    """Objects, all of one form; each is read into its leaves once."""

    def __init__(self, datasets: Datasets) -> None:
        block = datasets.block(np.arange(len(datasets)))
        assert isinstance(block, (ItemBlock, GroupBlock))
        read = [_Reader() for _ in block.items]
        forms = [reader.form(item) for reader, item in zip(read, block.items, strict=True)]
        self._form = forms[0]
        for position, form in enumerate(forms):
            if not _alike(form, self._form):
                raise Untraceable(
                    f"the datasets are not all of one form: {shown(datasets.labels[position])} differs from the first"
                )
        self._leaves = [reader.leaves for reader in read]
        self._find_ragged()

    def _find_ragged(self) -> None:
        first = self._leaves[0]
        self._ragged = [False] * len(first)
        self._kinds = [np.result_type(*{leaves[k].dtype for leaves in self._leaves}) for k in range(len(first))]
        for k, leaf in enumerate(first):
            shapes = {leaves[k].shape for leaves in self._leaves}
            if len(shapes) == 1:
                continue
            if leaf.ndim == 0 or len({shape[1:] for shape in shapes}) > 1:
                raise Untraceable(f"the datasets hold arrays of different shapes: {sorted(shapes)[:3]}")
            self._ragged[k] = True
        if any(self._ragged):
            at = self._ragged.index(True)
            lengths = [leaves[at].shape[0] for leaves in self._leaves]
            for k in np.flatnonzero(self._ragged).tolist():
                if [leaves[k].shape[0] for leaves in self._leaves] != lengths:
                    raise Untraceable("the arrays of one dataset differ in length, and not alike in all datasets")
            self.lengths = np.array(lengths, dtype=np.intp)

    def pad(self, length: int) -> None:
        """Take all arrays of the only dataset, of this length, for such as differ in length."""
        self._ragged = [True] * len(self._ragged)
        self.lengths = np.array([length], dtype=np.intp) if self._ragged else None

    def leaves(self, positions: Positions, length: int = 0) -> Tree:
        made: list[NDArray[Any]] = []
        for k, ragged in enumerate(self._ragged):
            each = [self._leaves[i][k] for i in positions.tolist()]
            if not ragged:
                made.append(np.stack(each).astype(self._kinds[k], copy=False))
                continue
            out = np.empty((len(each), length, *each[0].shape[1:]), self._kinds[k])
            for into, part in zip(out, each, strict=True):
                into[: len(part)] = part
                into[len(part) :] = part[-1] if len(part) else 0  # in the objective's domain, as the last entry is
            made.append(out)
        if self.lengths is not None:
            made.append(self.lengths[positions].astype(np.int32))
        return made

    def mask(self, leaves: Tree) -> Array | None:
        if self.lengths is None:
            return None
        length = next(leaf.shape[0] for leaf, ragged in zip(leaves, self._ragged, strict=False) if ragged)
        there: Array = jnp.arange(length) < leaves[-1]
        return there

    def rebuilt(self, leaves: Tree) -> Any:
        return self._rebuilt(self._form, leaves, self.mask(leaves))

    def is_like(self, other: Feed) -> bool:
        return isinstance(other, _Items) and self._ragged == other._ragged and _alike(self._form, other._form)

    def _rebuilt(self, form: Any, leaves: Tree, mask: Array | None) -> Any:
        if isinstance(form, _Leaf):
            return leaves[form.at]
        if isinstance(form, _SeriesForm):
            values, ragged = leaves[form.leaf.at], self._ragged[form.leaf.at]
            if ragged or form.index is None:
                return Column(values, mask if ragged else None)
            return Row(form.index, values)
        if isinstance(form, _FrameForm):
            at = [leaf.at for leaf in form.leaves.values()]
            own = mask if at and self._ragged[at[0]] else None
            columns = {label: Column(leaves[leaf.at], own) for label, leaf in form.leaves.items()}
            return Group(columns, form.columns, own)
        if isinstance(form, _Text):
            return Opaque(form.what)
        if isinstance(form, dict):
            return {key: self._rebuilt(inner, leaves, mask) for key, inner in form.items()}
        made = [self._rebuilt(inner, leaves, mask) for inner in form]
        return type(form)(*made) if hasattr(form, "_fields") else type(form)(made)


@dataclass(frozen=True, eq=False)
class _SeriesForm:
    leaf: _Leaf
    index: pd.Index[Any] | None


@dataclass(frozen=True, eq=False)
class _FrameForm:
    leaves: dict[Any, _Leaf]
    columns: pd.Index[Any]


@dataclass(frozen=True, eq=False)
class _Text:
    what: str


class _Reader:
    """Takes one dataset apart."""

    def __init__(self) -> None:
        self.leaves: list[NDArray[Any]] = []

    def _leaf(self, values: Any) -> _Leaf:
        array = np.asarray(values)
        _refuse_array(array)
        self.leaves.append(array)
        return _Leaf(len(self.leaves) - 1)

    def form(self, item: Any) -> Any:
        """The form of a dataset; its numbers go into `leaves`."""
        if isinstance(item, pd.DataFrame):
            if not item.columns.is_unique:
                raise Untraceable("a dataset has two columns of one name")
            numbers = [label for k, label in enumerate(item.columns) if is_number(item.iloc[:, k])]
            return _FrameForm({label: self._leaf(_numbers_of(item[label])) for label in numbers}, item.columns)
        if isinstance(item, pd.Series):
            if not is_number(item):
                raise Untraceable(f"a dataset is a Series of dtype {item.dtype}, and only numbers can be compiled")
            index = None if isinstance(item.index, pd.RangeIndex) else item.index
            return _SeriesForm(self._leaf(_numbers_of(item)), index)
        if isinstance(item, Mapping):
            return {key: self.form(value) for key, value in item.items()}
        if isinstance(item, (list, tuple)):
            if item and isinstance(item, list) and all(isinstance(v, Real) for v in item):
                raise Untraceable("a dataset holds a list of numbers; an array can be compiled")
            made = [self.form(value) for value in item]
            return type(item)(*made) if hasattr(item, "_fields") else type(item)(made)
        if isinstance(item, (Real, np.number)) or (isinstance(item, np.ndarray) and item.dtype.kind != "O"):
            return self._leaf(item)
        if item is None or isinstance(item, str):
            return _Text(f"{shown(item)} in the data")
        raise Untraceable(f"a dataset holds an object of type {type(item).__name__}, which cannot be compiled")


def _numbers_of(column: pd.Series[Any]) -> NDArray[Any]:
    if isinstance(column.dtype, np.dtype) and column.dtype.kind in _NUMBERS:
        return column.to_numpy()
    return column.to_numpy(dtype=np.float64, na_value=np.nan)


def _alike(a: Any, b: Any) -> bool:
    """Whether two datasets are of one form."""
    if type(a) is not type(b):
        return False
    if isinstance(a, _Leaf):
        return bool(a.at == b.at)
    if isinstance(a, _SeriesForm):
        return (a.index is None) == (b.index is None) and (a.index is None or a.index.equals(b.index))
    if isinstance(a, _FrameForm):
        return a.columns.equals(b.columns) and list(a.leaves) == list(b.leaves)
    if isinstance(a, _Text):
        return True
    if isinstance(a, dict):
        return list(a) == list(b) and all(_alike(a[key], b[key]) for key in a)
    return len(a) == len(b) and all(_alike(x, y) for x, y in zip(a, b, strict=True))
