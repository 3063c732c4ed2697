"""The stand-in of the frame of a group."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np
import pandas as pd

from parfit.batched.tracing.standins.column import Column, position_of_row, renumbered, rows_after
from parfit.batched.tracing.standins.labels import column_named, resolved_key
from parfit.batched.tracing.standins.padded import refuse_length
from parfit.batched.tracing.standins.row import Row
from parfit.batched.tracing.standins.vector import Array, StandIn
from parfit.batched.tracing.untraceable import Untraceable

__all__ = ["Group"]


class _Locator:
    """``group.loc``, ``group.iloc``, ``group.at`` and ``group.iat``."""

    def __init__(self, group: Group, *, labels: bool) -> None:
        self._group, self._labels = group, labels

    def __getitem__(self, key: Any) -> Any:
        rows, columns = key if isinstance(key, tuple) else (key, slice(None))
        group, columns = self._group, resolved_key(columns, self._group)
        positions = group.positions.loc if self._labels else group.positions.iloc
        found = group.picked(positions[columns])
        rows = resolved_key(rows, group)
        if self._labels:
            rows = position_of_row(group.rows, rows)
        return found.rows_at(rows)

    def __setitem__(self, key: Any, value: Any) -> None:
        self._group[key] = value


def _summary(name: str) -> Callable[..., Row]:
    def method(self: Group, axis: Any = 0, **options: Any) -> Row:
        if axis not in (0, "index"):
            raise Untraceable(f"DataFrame.{name} across columns cannot be compiled; `.to_numpy()` gives an array")
        summaries = [getattr(column, name)(**options) for _, column in self.items()]
        return Row(self.columns, jnp.stack([jnp.asarray(summary, float) for summary in summaries]))

    return method


class Group(StandIn):
    """The stand-in of the frame of a group, of L rows and k columns.

    Parameters
    ----------
    columns : mapping or sequence of Column
        By label, or in the order of `labels`. One that is missing, or None, holds no numbers, but text or dates.
    labels : pandas.Index
        Of all columns, k of them.
    mask : jax.Array of bool, shape (L,), optional
        Which rows are real; they come first. None: all are.
    rows
        What tells the labels of its rows from those of other parts of the group.
    """

    ndim: ClassVar[int] = 2

    def __init__(
        self,
        columns: Mapping[Any, Column] | Sequence[Column | None],
        labels: pd.Index[Any],
        mask: Array | None = None,
        rows: Hashable = None,
    ) -> None:
        self.columns = labels
        self.mask = mask
        self.rows = rows
        listed = [columns.get(label) for label in labels] if isinstance(columns, Mapping) else columns
        self._columns: tuple[Column | None, ...] = tuple(listed)

    @property
    def positions(self) -> pd.Series[Any]:
        """The position of each column under its label."""
        return pd.Series(np.arange(len(self.columns)), index=self.columns)

    def picked(self, found: Any) -> Any:
        """The column at a position, or the part of the group at positions, that pandas found."""
        if isinstance(found, pd.Series):
            return Group([self._columns[i] for i in found], found.index, self.mask, self.rows)
        column = self._columns[int(found)]
        if column is None:
            raise Untraceable(f"the column {self.columns[int(found)]!r} is read, and it holds no numbers")
        return column

    def rows_at(self, key: Any) -> Any:
        """The row at a position, or the part of the group at a slice of positions."""
        if isinstance(key, slice) and key == slice(None):
            return self
        parts = [None if column is None else column.rows_at(key) for column in self._columns]
        if not isinstance(key, slice):
            return Row.of(parts, self.columns)
        mask = next((part.mask for part in parts if part is not None), self.mask)
        return Group(parts, self.columns, mask, rows_after(self.rows, key))

    @property
    def _length(self) -> int:
        arrays = [self.mask, *(column.raw for column in self._columns if column is not None)]
        return next((int(array.shape[0]) for array in arrays if array is not None), 0)

    # Columns.

    def __getitem__(self, key: Any) -> Any:
        key = resolved_key(key, self)
        if isinstance(key, slice):
            return self.rows_at(key)
        if isinstance(key, (list, np.ndarray, pd.Index, pd.Series)) and pd.api.types.is_bool_dtype(np.asarray(key)):
            raise Untraceable("rows of a group are selected by a mask, and their number differs from group to group")
        return self.picked(self.positions.loc[key])

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return column_named(self, name)

    def __setitem__(self, key: Any, value: Any) -> None:
        raise Untraceable(f"the column {key!r} of a group is assigned to, and a compiled function cannot change it")

    @property
    def loc(self) -> _Locator:
        return _Locator(self, labels=True)

    at = loc

    @property
    def iloc(self) -> _Locator:
        return _Locator(self, labels=False)

    iat = iloc

    def get(self, key: Any, default: Any = None) -> Any:
        try:
            return self[key]
        except (KeyError, ValueError, IndexError):
            return default

    def drop(self, labels: Any = None, *, axis: Any = 0, columns: Any = None) -> Group:
        if columns is None and axis in (1, "columns"):
            columns = labels
        if columns is None:
            raise Untraceable("rows of a group are dropped by their labels, which differ from group to group")
        part: Group = self.picked(self.positions.drop(columns))
        return part

    def head(self, n: int = 5) -> Any:
        return self.rows_at(slice(None, n))

    def tail(self, n: int = 5) -> Any:
        return self.rows_at(slice(-n, None) if n else slice(0, 0))

    def reset_index(self, *, drop: bool = False) -> Group:
        if not drop:
            raise Untraceable("DataFrame.reset_index makes a column of labels, which differ from group to group")
        columns = [None if column is None else column.reset_index(drop=True) for column in self._columns]
        return Group(columns, self.columns, self.mask, renumbered(self.rows))

    def copy(self, deep: bool = True) -> Group:  # noqa: ARG002 -- nothing here can be changed
        return self

    sum, mean, median, prod = _summary("sum"), _summary("mean"), _summary("median"), _summary("prod")
    std, var, min, max, count = _summary("std"), _summary("var"), _summary("min"), _summary("max"), _summary("count")

    # As a container.

    def keys(self) -> pd.Index[Any]:
        return self.columns

    def items(self) -> Iterator[tuple[Any, Column]]:
        return ((label, self.picked(i)) for i, label in enumerate(self.columns))

    def __iter__(self) -> Iterator[Any]:
        return iter(self.columns)

    def __contains__(self, label: Any) -> bool:
        return label in self.columns

    def __len__(self) -> int:
        if self.mask is not None:
            raise refuse_length("the length of a group")
        return self._length

    @property
    def shape(self) -> tuple[int, int]:
        return len(self), len(self.columns)

    @property
    def size(self) -> int:
        return len(self) * len(self.columns)

    @property
    def empty(self) -> bool:
        return self._length == 0 or len(self.columns) == 0

    def __bool__(self) -> bool:
        raise ValueError("The truth value of a DataFrame is ambiguous. Use a.empty, a.any() or a.all().")

    def to_numpy(self, dtype: Any = None, copy: bool = False, na_value: Any = None) -> Array:  # noqa: ARG002
        columns = [column if dtype is None else column.astype(dtype) for _, column in self.items()]
        return jnp.stack([column.raw for column in columns], axis=1)

    @property
    def values(self) -> Array:
        return self.to_numpy()

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise Untraceable("NumPy cannot read the values of a function that is being compiled")

    def __jax_array__(self) -> Array:
        return self.to_numpy()

    def __repr__(self) -> str:
        return f"<stand-in of a DataFrame with the columns {list(self.columns)!r}>"
