"""The stand-in of a frame of parameters."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import pandas as pd

from parfit.batched.tracing.standins.labels import Frame, by_labels
from parfit.batched.tracing.standins.row import Row
from parfit.batched.tracing.standins.vector import Array
from parfit.batched.tracing.untraceable import Untraceable

__all__ = ["Table"]

#: The column that is fitted.
_VALUE = "value"

_by_labels = functools.partial(by_labels, of="DataFrame")


class _Cell:
    """What is in the frame in place of a value: the position of that value."""

    def __init__(self, position: int) -> None:
        self.position = position


class Table(Frame):
    """The stand-in of a DataFrame of n parameters, whose column "value" is traced.

    What is read is read by pandas, from a copy of the frame that has positions for values; the other columns are
    the user's own.

    Parameters
    ----------
    frame : pandas.DataFrame
        With a column "value", whose entries are not used.
    values : jax.Array, shape (n,)
        What stands there instead.
    """

    def __init__(self, frame: pd.DataFrame, values: Array) -> None:
        cells = np.empty(len(frame), dtype=object)
        cells[:] = [_Cell(i) for i in range(len(frame))]
        self.positions = frame.assign(**{_VALUE: cells})
        self._values = values

    def picked(self, found: Any) -> Any:
        if isinstance(found, _Cell):
            return jax.lax.index_in_dim(self._values, found.position, keepdims=False)
        if isinstance(found, pd.Series):
            read = [self.picked(entry) for entry in found]
            if not any(isinstance(entry, jax.Array) for entry in read):
                return found
            return Row.of(read, found.index)
        if isinstance(found, pd.DataFrame) and _VALUE in found.columns:
            return self._part(found)
        return found

    def _part(self, found: pd.DataFrame) -> Table:
        positions = np.array([cell.position for cell in found[_VALUE]], dtype=np.intp)
        return Table(found, self._values[positions])

    def __setitem__(self, key: Any, value: Any) -> None:
        raise Untraceable(f"the parameters are assigned to ({key!r}), and a compiled function cannot change them")

    def get(self, key: Any, default: Any = None) -> Any:
        return self[key] if key in self else default

    xs, head, tail, drop = _by_labels("xs"), _by_labels("head"), _by_labels("tail"), _by_labels("drop")
    query, filter, take = _by_labels("query"), _by_labels("filter"), _by_labels("take")
    set_index, reset_index, droplevel = _by_labels("set_index"), _by_labels("reset_index"), _by_labels("droplevel")

    def iterrows(self) -> Iterator[tuple[Any, Any]]:
        return ((label, self.iloc[i]) for i, label in enumerate(self.index))

    def copy(self, deep: bool = True) -> Table:  # noqa: ARG002 -- nothing here can be changed
        return self

    def __repr__(self) -> str:
        return f"<stand-in of the parameters {list(self.index)!r}>"
