"""The stand-in of a frame of parameters."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import jax
import numpy as np
import pandas as pd

from parfit.batched.tracing.standins.row import Row, resolved_key
from parfit.batched.tracing.standins.vector import Array, StandIn, is_traced
from parfit.batched.tracing.untraceable import Untraceable

__all__ = ["Table"]

#: The column that is fitted.
_VALUE = "value"


class _Cell:
    """What is in the frame in place of a value: the position of that value."""

    def __init__(self, position: int) -> None:
        self.position = position


class _Locator:
    def __init__(self, table: Table, name: str) -> None:
        self._table, self._name = table, name

    def __getitem__(self, key: Any) -> Any:
        return self._table.read(getattr(self._table.frame, self._name)[resolved_key(key, self._table)])

    def __setitem__(self, key: Any, value: Any) -> None:
        self._table[key] = value


def _by_labels(name: str) -> Callable[..., Any]:
    def method(self: Table, *args: Any, **options: Any) -> Any:
        if is_traced((args, options)) or options.get("inplace"):
            raise Untraceable(f"DataFrame.{name} is used in a way that cannot be compiled")
        return self.read(getattr(self.frame, name)(*args, **options))

    return method


class Table(StandIn):
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

    ndim: ClassVar[int] = 2

    def __init__(self, frame: pd.DataFrame, values: Array) -> None:
        cells = np.empty(len(frame), dtype=object)
        cells[:] = [_Cell(i) for i in range(len(frame))]
        self.frame = frame.assign(**{_VALUE: cells})
        self._values = values

    def read(self, found: Any) -> Any:
        """What pandas found in the frame, with values in place of their positions."""
        if isinstance(found, _Cell):
            return jax.lax.index_in_dim(self._values, found.position, keepdims=False)
        if isinstance(found, pd.Series):
            read = [self.read(entry) for entry in found]
            if not any(isinstance(entry, jax.Array) for entry in read):
                return found
            return Row.of(read, found.index)
        if isinstance(found, pd.DataFrame) and _VALUE in found.columns:
            return self._part(found)
        return found

    def _part(self, found: pd.DataFrame) -> Table:
        positions = np.array([cell.position for cell in found[_VALUE]], dtype=np.intp)
        return Table(found, self._values[positions])

    @property
    def loc(self) -> _Locator:
        return _Locator(self, "loc")

    @property
    def iloc(self) -> _Locator:
        return _Locator(self, "iloc")

    @property
    def at(self) -> _Locator:
        return _Locator(self, "at")

    @property
    def iat(self) -> _Locator:
        return _Locator(self, "iat")

    def __getitem__(self, key: Any) -> Any:
        return self.read(self.frame[resolved_key(key, self)])

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        if hasattr(pd.DataFrame, name):
            raise Untraceable(f"DataFrame.{name} is used: it cannot be compiled")
        if name in self.columns:
            return self[name]
        raise AttributeError(f"'DataFrame' object has no attribute {name!r}")

    def __setitem__(self, key: Any, value: Any) -> None:
        raise Untraceable(f"the parameters are assigned to ({key!r}), and a compiled function cannot change them")

    def get(self, key: Any, default: Any = None) -> Any:
        return self[key] if key in self else default

    xs, head, tail, drop = _by_labels("xs"), _by_labels("head"), _by_labels("tail"), _by_labels("drop")
    query, filter, take = _by_labels("query"), _by_labels("filter"), _by_labels("take")
    set_index, reset_index, droplevel = _by_labels("set_index"), _by_labels("reset_index"), _by_labels("droplevel")

    def iterrows(self) -> Iterator[tuple[Any, Any]]:
        return ((label, self.iloc[i]) for i, label in enumerate(self.index))

    @property
    def index(self) -> pd.Index[Any]:
        return self.frame.index

    @property
    def columns(self) -> pd.Index[Any]:
        return self.frame.columns

    @property
    def shape(self) -> tuple[int, int]:
        return self.frame.shape

    @property
    def size(self) -> int:
        return self.frame.size

    @property
    def empty(self) -> bool:
        return self.frame.empty

    def copy(self, deep: bool = True) -> Table:  # noqa: ARG002 -- nothing here can be changed
        return self

    def keys(self) -> pd.Index[Any]:
        return self.columns

    def items(self) -> Iterator[tuple[Any, Any]]:
        return ((label, self[label]) for label in self.columns)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.columns)

    def __contains__(self, label: Any) -> bool:
        return label in self.columns

    def __len__(self) -> int:
        return len(self.frame)

    def __bool__(self) -> bool:
        raise ValueError("The truth value of a DataFrame is ambiguous. Use a.empty, a.any() or a.all().")

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise Untraceable("NumPy cannot read the values of a function that is being compiled")

    def __repr__(self) -> str:
        return f"<stand-in of the parameters {list(self.index)!r}>"
