"""The stand-in of the frame that a model's run gives: times by columns, values traced."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from parfit.batched.tracing.standins.labels import Frame, by_labels
from parfit.batched.tracing.standins.row import Row
from parfit.batched.tracing.standins.vector import Array
from parfit.batched.tracing.untraceable import Untraceable

__all__ = ["Run"]

_by_labels = functools.partial(by_labels, of="DataFrame")


class Run(Frame):
    """The stand-in of a frame of numbers whose labels are known.

    Parameters
    ----------
    values : jax.Array, shape (T, k)
        The numbers.
    index, columns : pandas.Index
        Times and names.
    """

    def __init__(self, values: Array, index: pd.Index[Any], columns: pd.Index[Any]) -> None:
        self.raw = values
        self.positions = pd.DataFrame(np.arange(values.size).reshape(values.shape), index=index, columns=columns)

    def picked(self, found: Any) -> Any:
        if isinstance(found, pd.Series):
            return Row(found.index, self._at(found.to_numpy()))
        if isinstance(found, pd.DataFrame):
            return Run(self._at(found.to_numpy()), found.index, found.columns)
        return jax.lax.index_in_dim(self.raw.reshape(-1), int(found), keepdims=False)

    def _at(self, positions: np.ndarray[Any, Any]) -> Array:
        if np.isnan(positions).any():
            raise Untraceable("a label is asked for that is not there")
        return self.raw.reshape(-1)[positions.astype(np.intp)]

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

    def __repr__(self) -> str:
        return f"<stand-in of a run with the columns {list(self.columns)!r}>"
