"""The array of a column whose rows are padded to the length of the longest group."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar, Self

import jax
import jax.numpy as jnp
import numpy as np

from parfit.batched.tracing.standins.summaries import Summarised
from parfit.batched.tracing.standins.vector import Array, Vector, is_traced
from parfit.batched.tracing.untraceable import Untraceable

__all__ = ["Padded", "refuse_length", "rows_at"]


def refuse_length(what: str) -> Untraceable:
    """The refusal of what depends on the number of rows of a group."""
    return Untraceable(f"{what} is used: groups have unequal lengths, and are compiled at the length of the longest")


def rows_at(values: Array, mask: Array | None, key: Any) -> tuple[Array, Array | None]:
    """The entries that an int or a slice picks, counted from the last real row where it is negative.

    Parameters
    ----------
    values, mask : shape (n, ...) and (n,)
        The real rows come first.
    key
        An int or a slice of ints.

    Returns
    -------
    values, mask
        Of shape (...) and None for an int, of shape (m, ...) and (m,) for a slice.
    """
    n = values.shape[0]
    if not isinstance(key, slice):
        i = int(key)
        if not -n <= i < n:
            raise IndexError("single positional indexer is out-of-bounds")
        if i >= 0 or mask is None:
            return jax.lax.index_in_dim(values, i, keepdims=False), None
        return values[jnp.maximum(jnp.sum(mask) + i, 0)], None
    if mask is None:
        return values[key], None
    start, stop, step = key.start, key.stop, 1 if key.step is None else key.step
    start = 0 if start is None else int(start)
    if step < 0:
        raise refuse_length("a slice that runs backwards")
    if start >= 0 and (stop is None or stop >= 0):
        return values[key], mask[key]
    real = jnp.sum(mask)
    first = start if start >= 0 else jnp.maximum(real + start, 0)
    end = real if stop is None else jnp.minimum(stop, real) if stop >= 0 else real + stop
    longest = (n - start if start >= 0 else min(-start, n)) + min(0 if stop is None else stop, 0)
    places = first + step * np.arange(max(-(-longest // step), 0))
    return values[jnp.clip(places, 0, n - 1)], places < end


class Padded(Summarised):
    """What stands for the array of a column, shape (L,), where a mask says which rows are real.

    It sums, averages, ... over real rows only, as NumPy does: no NaN is passed over, and ``ddof`` is 0. For
    whatever else it is asked, it is the bare array, padding included.

    Parameters
    ----------
    values : jax.Array, shape (L,)
    mask : jax.Array of bool, shape (L,)
    rows_first
        Whether all real rows come before all padding.
    """

    rank: ClassVar[int] = 1
    skips_missing: ClassVar[bool] = False
    ddof: ClassVar[int] = 0

    def __init__(self, values: Array, mask: Array, *, rows_first: bool = True) -> None:
        super().__init__(values, mask)
        self.rows_first = rows_first

    def like(self, values: Array) -> Self:
        return type(self)(values, self.mask, rows_first=self.rows_first)

    def joined(self, values: Array, mask: Array) -> Padded:
        """Several arrays end to end."""
        return Padded(values, mask, rows_first=False)

    def array(self) -> Padded:
        return self

    def combine(self, function: Callable[..., Array], operands: Sequence[Any], *, compares: bool = False) -> Any:  # noqa: ARG002 -- arrays are never aligned
        padded = [operand for operand in operands if isinstance(operand, Padded)]
        values = function(
            *(
                o.raw if isinstance(o, Padded) else jnp.asarray(o) if isinstance(o, (list, tuple)) else o
                for o in operands
            )
        )
        if values.shape != self.raw.shape:
            return values
        mask: Any = padded[0].mask
        for other in padded[1:]:
            mask = mask if other.mask is mask else mask & other.mask
        return Padded(values, mask, rows_first=all(other.rows_first for other in padded))

    def dot(self, other: Any) -> Any:
        if np.ndim(bare := other.raw if isinstance(other, Vector) else other) == 1:
            return (self * bare).sum()
        return super().dot(other)

    __matmul__ = dot

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, Vector) or (is_traced(key) and getattr(key, "dtype", None) == np.bool_):
            raise Untraceable(
                "entries are selected by computed values: how many there are is not known while compiling"
            )
        if not isinstance(key, (int, np.integer, slice)) or isinstance(key, bool):
            return self.raw[key]
        if not self.rows_first:
            raise refuse_length("an index into groups that were joined end to end")
        values, mask = rows_at(self.raw, self.mask, key)
        return values if mask is None else Padded(values, mask)

    def __iter__(self) -> Iterator[Array]:
        raise refuse_length("a loop over the rows of a group")

    def __len__(self) -> int:
        raise refuse_length("the length of a group's array")

    @property
    def size(self) -> int:
        raise refuse_length("the size of a group's array")

    @property
    def shape(self) -> tuple[int, ...]:
        raise refuse_length("the shape of a group's array")

    def ravel(self, *_: Any) -> Self:
        return self

    flatten = ravel

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self.raw, name)

    def __repr__(self) -> str:
        return "<stand-in of the array of a padded column>"
