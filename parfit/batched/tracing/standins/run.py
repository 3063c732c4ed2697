"""The stand-in of the frame that a model's run gives: times by columns, values traced."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from parfit.batched.tracing.standins.row import Row, resolved_key
from parfit.batched.tracing.standins.vector import Array, StandIn, is_traced
from parfit.batched.tracing.untraceable import Untraceable

__all__ = ["Run"]


class _Locator:
    def __init__(self, run: Run, name: str) -> None:
        self._run, self._name = run, name

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, tuple):
            key = tuple(resolved_key(part, self._run) for part in key)
        return self._run.picked(getattr(self._run.positions, self._name)[resolved_key(key, self._run)])


def _by_labels(name: str) -> Callable[..., Any]:
    """A method of a frame that picks or renames entries, whatever the values are."""

    def method(self: Run, *args: Any, **options: Any) -> Any:
        if is_traced((args, options)) or options.get("inplace"):
            raise Untraceable(f"DataFrame.{name} is used in a way that cannot be compiled")
        return self.picked(getattr(self.positions, name)(*args, **options))

    return method


class Run(StandIn):
    """The stand-in of a frame of numbers whose labels are known.

    Labels are looked up by pandas itself, in a frame of positions with the same labels.

    Parameters
    ----------
    values : jax.Array, shape (T, k)
        The numbers.
    index, columns : pandas.Index
        Times and names.
    """

    ndim: ClassVar[int] = 2

    def __init__(self, values: Array, index: pd.Index[Any], columns: pd.Index[Any]) -> None:
        self.raw = values
        self.positions = pd.DataFrame(np.arange(values.size).reshape(values.shape), index=index, columns=columns)

    def picked(self, found: Any) -> Any:
        """The entries at positions that pandas found: a number, a `Row` or a `Run`."""
        if isinstance(found, pd.Series):
            return Row(found.index, self._at(found.to_numpy()))
        if isinstance(found, pd.DataFrame):
            return Run(self._at(found.to_numpy()), found.index, found.columns)
        return jax.lax.index_in_dim(self.raw.reshape(-1), int(found), keepdims=False)

    def _at(self, positions: np.ndarray[Any, Any]) -> Array:
        if np.isnan(positions).any():
            raise Untraceable("a label is asked for that is not there")
        return self.raw.reshape(-1)[positions.astype(np.intp)]

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
        return self.picked(self.positions[resolved_key(key, self)])

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        if hasattr(pd.DataFrame, name):
            raise Untraceable(f"DataFrame.{name} of a run is used: it cannot be compiled")
        if name in self.columns:
            return self[name]
        raise AttributeError(f"'DataFrame' object has no attribute {name!r}")

    def __setitem__(self, key: Any, value: Any) -> None:
        raise Untraceable(f"the column {key!r} of a run is assigned to, and a compiled function cannot change it")

    xs, head, tail, drop = _by_labels("xs"), _by_labels("head"), _by_labels("tail"), _by_labels("drop")
    filter, reindex, squeeze = _by_labels("filter"), _by_labels("reindex"), _by_labels("squeeze")
    rename, set_axis, transpose = _by_labels("rename"), _by_labels("set_axis"), _by_labels("transpose")

    @property
    def T(self) -> Run:
        turned: Run = self.picked(self.positions.T)
        return turned

    @property
    def index(self) -> pd.Index[Any]:
        return self.positions.index

    @property
    def columns(self) -> pd.Index[Any]:
        return self.positions.columns

    @property
    def shape(self) -> tuple[int, int]:
        return self.positions.shape

    @property
    def values(self) -> Array:
        return self.raw

    def to_numpy(self, dtype: Any = None, copy: bool = False, na_value: Any = None) -> Array:  # noqa: ARG002
        return self.raw if dtype is None else self.raw.astype(jax.dtypes.canonicalize_dtype(np.dtype(dtype)))

    def __jax_array__(self) -> Array:
        return self.raw

    def _summed(self, function: Callable[..., Array], axis: Any) -> Row:
        along = 1 if axis in (1, "columns") else 0
        return Row(self.index if along else self.columns, function(self.raw, axis=along))

    def sum(self, axis: Any = 0) -> Row:
        return self._summed(jnp.sum, axis)

    def mean(self, axis: Any = 0) -> Row:
        return self._summed(jnp.mean, axis)

    def items(self) -> Iterator[tuple[Any, Any]]:
        return ((label, self[label]) for label in self.columns)

    def keys(self) -> pd.Index[Any]:
        return self.columns

    def __iter__(self) -> Iterator[Any]:
        return iter(self.columns)

    def __contains__(self, label: Any) -> bool:
        return label in self.columns

    def __len__(self) -> int:
        return len(self.positions)

    def __bool__(self) -> bool:
        raise ValueError("The truth value of a DataFrame is ambiguous. Use a.empty, a.any() or a.all().")

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise Untraceable("NumPy cannot read the values of a function that is being compiled")

    def __repr__(self) -> str:
        return f"<stand-in of a run with the columns {list(self.columns)!r}>"
