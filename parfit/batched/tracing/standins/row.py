"""The stand-in of a row of a table, or of a Series of parameters: labels that are known, values that are not."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, ClassVar, Self

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from parfit.batched.tracing.standins.labels import Located, by_labels, resolved_key
from parfit.batched.tracing.standins.summaries import Summarised
from parfit.batched.tracing.standins.vector import Array, Vector
from parfit.batched.tracing.untraceable import Untraceable

__all__ = ["Row"]

_by_labels = functools.partial(by_labels, of="Series")

#: Up to so many entries out of order are taken one by one; the compiler makes faster code of that than of a gather.
_ONE_BY_ONE = 64


def _taken(values: Array, positions: np.ndarray[Any, Any]) -> Array:
    n = len(positions)
    if n and positions[0] + n <= values.size and np.array_equal(positions, np.arange(positions[0], positions[0] + n)):
        return jax.lax.slice_in_dim(values, int(positions[0]), int(positions[0]) + n)
    if 0 < n <= _ONE_BY_ONE:
        return jnp.stack([jax.lax.index_in_dim(values, int(i), keepdims=False) for i in positions])
    return values[positions]


class Row(Located, Summarised):
    """The stand-in of a Series whose labels are known while tracing.

    Labels are looked up by pandas itself, in a Series of positions with the same index: what is found, in which
    order, under which remaining levels, and which `KeyError` is raised, is what pandas gives.

    Parameters
    ----------
    index : pandas.Index
        The labels, k of them.
    values : jax.Array, shape (k,)
        The numbers; anything where an entry is opaque.
    opaque : set of int
        The positions of entries that hold no number, such as text and dates.
    """

    rank: ClassVar[int] = 3

    def __init__(self, index: pd.Index[Any], values: Array, opaque: AbstractSet[int] = frozenset()) -> None:
        super().__init__(values)
        if self.raw.shape != (len(index),):
            raise ValueError(f"{len(index)} labels, and values of shape {self.raw.shape}")
        self.index = index
        self.opaque = frozenset(opaque)
        self._positions: pd.Series[Any] | None = None

    @classmethod
    def of(cls, entries: Sequence[Any], index: pd.Index[Any]) -> Row:
        """Numbers, jax values, text and whatever else a Series may hold, under labels."""
        numeric = [isinstance(entry, (int, float, np.number, np.bool_, jax.Array)) for entry in entries]
        values = [entry if fits else jnp.nan for entry, fits in zip(entries, numeric, strict=True)]
        stacked = jnp.stack([jnp.asarray(value, float) for value in values]) if values else jnp.zeros(0)
        return cls(index, stacked, {i for i, fits in enumerate(numeric) if not fits})

    @property
    def positions(self) -> pd.Series[Any]:
        """The position of each entry under its label."""
        if self._positions is None:
            self._positions = pd.Series(np.arange(len(self.index)), index=self.index)
        return self._positions

    def picked(self, found: Any) -> Any:
        """The entries at positions that pandas found: an array's scalar, or a `Row`.

        A position that is NaN, of a label that is not there, gives NaN.
        """
        if not isinstance(found, pd.Series):
            self._refuse_opaque({int(found)})
            return jax.lax.index_in_dim(self.raw, int(found), keepdims=False)
        positions = found.to_numpy()
        missing = np.isnan(positions)
        places = np.where(missing, 0, positions).astype(np.intp)
        if missing.all():
            return Row(found.index, jnp.full(len(found), jnp.nan))
        values = _taken(self.raw, places)
        if missing.any():
            values = jnp.where(missing, jnp.nan, values)
        return Row(found.index, values, {i for i, p in enumerate(positions) if p in self.opaque})

    def _refuse_opaque(self, positions: AbstractSet[int]) -> None:
        if wrong := sorted(positions & self.opaque):
            raise Untraceable(f"the entry {self.index[wrong[0]]!r} is read, and it is no number")

    def numbers(self) -> Array:
        self._refuse_opaque(self.opaque)
        return self.raw

    def like(self, values: Array) -> Self:
        return type(self)(self.index, values)

    def array(self) -> Array:
        return self.numbers()

    def combine(self, function: Callable[..., Array], operands: Sequence[Any], *, compares: bool = False) -> Any:
        operands = [_as_row(operand) for operand in operands]
        rows = [operand for operand in operands if isinstance(operand, Row)]
        if any(isinstance(operand, Vector) and not isinstance(operand, Row) for operand in operands):
            raise Untraceable("a Series with labels and a column of a group cannot be aligned")
        index = rows[0].index
        if not all(index.equals(row.index) for row in rows[1:]):
            if compares:
                raise ValueError("Can only compare identically-labeled Series objects, and multiply aligned ones")
            operands, index = _aligned(operands)
        values = function(*(self.plain(operand) for operand in operands))
        if values.shape != (len(index),):
            raise Untraceable(f"a Series of {len(index)} entries is combined with an array of another length")
        return Row(index, values)

    def where(self, cond: Any, other: Any = np.nan, **options: Any) -> Any:
        # Here the result has the labels of this Series alone.
        cond, other = (
            operand.reindex(self.index) if isinstance(operand, Row) else operand
            for operand in (_as_row(cond), _as_row(other))
        )
        return super().where(cond, other, **options)

    def dot(self, other: Any) -> Array:
        other = _as_row(other)
        if isinstance(other, Row) and not self.index.equals(other.index):
            if len(self.index) != len(other.index) or set(self.index) != set(other.index):
                raise ValueError("matrices are not aligned")
            other = other.reindex(self.index)
        return super().dot(other)

    __matmul__ = dot

    # Labels.

    def __getitem__(self, key: Any) -> Any:
        return self.picked(self.positions[resolved_key(key, self)])

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("_") and not hasattr(pd.Series, name) and name in self.index:
            return self[name]
        return super().__getattr__(name)

    def get(self, key: Any, default: Any = None) -> Any:
        try:
            return self[key]
        except (KeyError, ValueError, IndexError):
            return default

    def reindex(self, index: Any = None, *, fill_value: Any = np.nan) -> Row:
        found = self.positions.reindex(index)
        row: Row = self.picked(found)
        return row if found.notna().all() else row.where(found.notna().to_numpy(), fill_value)

    def reset_index(self, *, drop: bool = False) -> Row:
        if not drop:
            raise Untraceable("Series.reset_index makes a frame, which cannot be compiled")
        return Row(pd.RangeIndex(len(self.index)), self.raw, self.opaque)

    xs, drop, filter, take, truncate, sort_index = map(
        _by_labels, ("xs", "drop", "filter", "take", "truncate", "sort_index")
    )
    head, tail, rename, set_axis, squeeze = map(_by_labels, ("head", "tail", "rename", "set_axis", "squeeze"))
    droplevel, swaplevel, reorder_levels = map(_by_labels, ("droplevel", "swaplevel", "reorder_levels"))
    add_prefix, add_suffix, rename_axis = map(_by_labels, ("add_prefix", "add_suffix", "rename_axis"))

    # As a container.

    def __len__(self) -> int:
        return len(self.index)

    def __iter__(self) -> Iterator[Array]:
        return (self.iloc[i] for i in range(len(self)))

    def __contains__(self, label: Any) -> bool:
        return label in self.index

    @property
    def size(self) -> int:
        return len(self.index)

    @property
    def shape(self) -> tuple[int]:
        return (len(self.index),)

    @property
    def empty(self) -> bool:
        return len(self.index) == 0

    @property
    def axes(self) -> list[pd.Index[Any]]:
        return [self.index]

    def keys(self) -> pd.Index[Any]:
        return self.index

    def items(self) -> Iterator[tuple[Any, Array]]:
        return zip(self.index, self, strict=True)

    def to_numpy(self, dtype: Any = None, copy: bool = False, na_value: Any = None) -> Array:  # noqa: ARG002
        row = self if na_value is None else self.fillna(na_value)
        return row.numbers() if dtype is None else row.astype(dtype).raw

    @property
    def values(self) -> Array:
        return self.numbers()

    def to_list(self) -> list[Array]:
        return list(self)

    tolist = to_list

    def to_dict(self) -> dict[Any, Array]:
        return dict(self.items())

    def item(self) -> Array:
        if len(self) != 1:
            raise ValueError("can only convert an array of size 1 to a Python scalar")
        return self.iloc[0]

    def __repr__(self) -> str:
        return f"<stand-in of a Series with the labels {list(self.index)!r}>"


def _as_row(operand: Any) -> Any:
    """A Series of the user's own as a `Row`; anything else as it is."""
    if not isinstance(operand, pd.Series):
        return operand
    if isinstance(operand.dtype, np.dtype) and operand.dtype.kind in "fiub":
        return Row(operand.index, jnp.asarray(operand.to_numpy()))
    return Row.of(list(operand), operand.index)


def _aligned(operands: Sequence[Any]) -> tuple[list[Any], pd.Index[Any]]:
    """The operands with their rows under the union of their labels, in pandas' order."""
    rows = [operand for operand in operands if isinstance(operand, Row)]
    if len(rows) != 2:
        raise Untraceable("more than two Series with unequal labels cannot be aligned")
    found = rows[0].positions.align(rows[1].positions, join="outer")
    aligned = iter([row.picked(positions) for row, positions in zip(rows, found, strict=True)])
    return [next(aligned) if isinstance(operand, Row) else operand for operand in operands], found[0].index
