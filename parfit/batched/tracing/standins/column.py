"""The stand-in of a column of a group: rows without known labels, and perhaps padding behind them."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any, ClassVar, Self

import numpy as np

from parfit.batched.tracing.standins.labels import resolved_key
from parfit.batched.tracing.standins.padded import Padded, refuse_length, rows_at
from parfit.batched.tracing.standins.summaries import Summarised
from parfit.batched.tracing.standins.vector import Array, Vector
from parfit.batched.tracing.untraceable import Untraceable

__all__ = ["Column", "position_of_row", "renumbered", "rows_after"]

#: The labels that a group's rows have after ``reset_index(drop=True)``: their positions.
_COUNTED = "counted"


def rows_after(rows: Hashable, key: slice) -> Hashable:
    """What tells the labels of a slice of rows from those of others: a column meets only its like."""
    return rows if key == slice(None) else (rows, key.start, key.stop, key.step)


def renumbered(rows: Hashable) -> Hashable:
    """What tells the labels of rows that were counted anew."""
    return _COUNTED if rows in (None, _COUNTED) else (_COUNTED, rows)


def position_of_row(rows: Hashable, key: Any) -> Any:
    """The position, or slice of positions, under a label of a group's rows, where that is known."""
    if isinstance(key, slice) and key == slice(None):
        return key
    if rows == _COUNTED and isinstance(key, (int, np.integer)) and key >= 0:
        return key
    raise Untraceable(
        f"a row of a group is taken by its label {key!r}, and the labels differ from group to group; "
        "`.iloc` takes positions"
    )


class _Rows:
    """``column.iloc`` and ``column.loc``."""

    def __init__(self, column: Column, *, labels: bool) -> None:
        self._column, self._labels = column, labels

    def __getitem__(self, key: Any) -> Any:
        key = resolved_key(key, self._column)
        if self._labels:
            key = position_of_row(self._column.rows, key)
        return self._column.rows_at(key)

    def __setitem__(self, key: Any, value: Any) -> None:
        self._column[key] = value


class Column(Summarised):
    """The stand-in of a column of the frame of a group, shape (L,).

    Parameters
    ----------
    values : jax.Array, shape (L,)
        The numbers, with padding behind the last row where groups are of unequal length.
    mask : jax.Array of bool, shape (L,), optional
        Which rows are real; they come first. None: all are.
    rows
        What tells the labels of its rows from those of other columns of the group.
    """

    rank: ClassVar[int] = 2

    def __init__(self, values: Array, mask: Array | None = None, rows: Hashable = None) -> None:
        super().__init__(values, mask)
        self.rows = rows

    def like(self, values: Array) -> Self:
        return type(self)(values, self.mask, self.rows)

    def array(self) -> Any:
        return self.raw if self.mask is None else Padded(self.raw, self.mask)

    def combine(self, function: Callable[..., Array], operands: Sequence[Any], *, compares: bool = False) -> Any:  # noqa: ARG002 -- labels that differ are refused anyhow
        mask = self.mask
        for operand in operands:
            if isinstance(operand, Column) and operand.rows != self.rows:
                raise Untraceable(
                    "two parts of a group's columns are combined: pandas aligns them by labels, which "
                    "differ from group to group; `.to_numpy()` combines by position"
                )
            if isinstance(operand, Vector) and operand.mask is not None and operand.mask is not mask:
                mask = operand.mask if mask is None else mask & operand.mask
        values = function(*(self.plain(operand) for operand in operands))
        if values.shape != self.raw.shape:
            raise Untraceable("a column of a group is combined with an array of another length")
        return Column(values, mask, self.rows)

    # Rows.

    def rows_at(self, key: Any) -> Any:
        """The entry at a position, or the column of a slice of positions."""
        if isinstance(key, slice):
            return Column(*rows_at(self.raw, self.mask, key), rows_after(self.rows, key))
        if not isinstance(key, (int, np.integer)):
            raise Untraceable("of a group's rows, only one or a slice can be taken in a compiled function")
        return rows_at(self.raw, self.mask, key)[0]

    @property
    def iloc(self) -> _Rows:
        return _Rows(self, labels=False)

    iat = iloc

    @property
    def loc(self) -> _Rows:
        return _Rows(self, labels=True)

    at = loc

    def __getitem__(self, key: Any) -> Any:
        key = resolved_key(key, self)
        # Of slices, those of ints go by position, whatever the labels are.
        return self.rows_at(key if isinstance(key, slice) else position_of_row(self.rows, key))

    def head(self, n: int = 5) -> Column:
        found: Column = self.rows_at(slice(None, n))
        return found

    def tail(self, n: int = 5) -> Column:
        found: Column = self.rows_at(slice(-n, None) if n else slice(0, 0))
        return found

    def reset_index(self, *, drop: bool = False) -> Column:
        if not drop:
            raise Untraceable("Series.reset_index makes a frame, which cannot be compiled")
        return Column(self.raw, self.mask, renumbered(self.rows))

    def __contains__(self, label: Any) -> bool:
        raise Untraceable(f"whether {label!r} labels a row of a group is not known while compiling")

    # As a container.

    def _refuse_mask(self, what: str) -> None:
        if self.mask is not None:
            raise refuse_length(what)

    def __len__(self) -> int:
        self._refuse_mask("the length of a group")
        return int(self.raw.size)

    def __iter__(self) -> Iterator[Array]:
        self._refuse_mask("a loop over the rows of a group")
        return iter([self.rows_at(i) for i in range(len(self))])

    @property
    def size(self) -> int:
        return len(self)

    @property
    def shape(self) -> tuple[int]:
        return (len(self),)

    @property
    def empty(self) -> bool:
        return len(self) == 0

    def to_numpy(self, dtype: Any = None, copy: bool = False, na_value: Any = None) -> Any:  # noqa: ARG002
        column = self if na_value is None else self.fillna(na_value)
        return (column if dtype is None else column.astype(dtype)).array()

    @property
    def values(self) -> Any:
        return self.array()

    def to_list(self) -> list[Array]:
        return list(self)

    tolist = to_list

    def __repr__(self) -> str:
        return "<stand-in of a column of a group>"
