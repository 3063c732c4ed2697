"""Sums, means, quantiles, ... over the counted entries of an array, as pandas and NumPy define them.

Every function takes `values`, shape (n,), and `counted`, shape (n,) of bool, or None where every entry counts.
What is not counted is replaced before it is used, never multiplied by zero: it may be NaN.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

__all__ = [
    "all_true",
    "any_true",
    "count",
    "cumulated",
    "maximum",
    "mean",
    "minimum",
    "position_of_extreme",
    "product",
    "quantile",
    "std",
    "total",
    "valid",
    "var",
]

Array = Any  # a jax array, traced or not


def valid(values: Array, mask: Array | None, *, skipna: bool) -> Array | None:
    """Which entries count: those under the mask, and where `skipna` those that are not NaN."""
    if not skipna or not jnp.issubdtype(values.dtype, jnp.inexact):
        return mask
    present = ~jnp.isnan(values)
    return present if mask is None else mask & present


def _filled(values: Array, counted: Array | None, neutral: float) -> Array:
    return values if counted is None else jnp.where(counted, values, neutral)


def _real(values: Array) -> Array:
    return values if jnp.issubdtype(values.dtype, jnp.inexact) else values.astype(float)


def count(values: Array, counted: Array | None) -> Array:
    """How many entries count; a plain int where that is known while tracing."""
    return values.size if counted is None else jnp.sum(counted)


def total(values: Array, counted: Array | None) -> Array:
    """The sum; 0 where nothing counts."""
    return jnp.sum(_filled(values, counted, 0))


def product(values: Array, counted: Array | None) -> Array:
    """The product; 1 where nothing counts."""
    return jnp.prod(_filled(values, counted, 1))


def mean(values: Array, counted: Array | None) -> Array:
    """The mean; NaN where nothing counts."""
    if values.size == 0:
        return jnp.asarray(jnp.nan)
    return total(values, counted) / count(values, counted)


def var(values: Array, counted: Array | None, ddof: int) -> Array:
    """The variance, with `ddof` degrees of freedom taken off; NaN where none is left."""
    left = count(values, counted) - ddof
    if isinstance(left, int) and left <= 0:
        return jnp.asarray(jnp.nan)
    deviations = _filled(values - mean(values, counted), counted, 0)
    return jnp.sum(deviations**2) / (left if isinstance(left, int) else jnp.where(left > 0, left, jnp.nan))


def std(values: Array, counted: Array | None, ddof: int) -> Array:
    """The standard deviation."""
    return jnp.sqrt(var(values, counted, ddof))


def _extreme(reduce: Callable[[Array], Array], neutral: float) -> Callable[[Array, Array | None], Array]:
    def extreme(values: Array, counted: Array | None) -> Array:
        if values.size == 0:
            return jnp.asarray(jnp.nan)
        if counted is None:
            return reduce(values)
        return jnp.where(jnp.any(counted), reduce(jnp.where(counted, _real(values), neutral)), jnp.nan)

    return extreme


#: The least entry; NaN where nothing counts.
minimum = _extreme(jnp.min, jnp.inf)
#: The greatest entry; NaN where nothing counts.
maximum = _extreme(jnp.max, -jnp.inf)


def any_true(values: Array, counted: Array | None) -> Array:
    """Whether any entry is not zero."""
    return jnp.any(_filled(values != 0, counted, False))


def all_true(values: Array, counted: Array | None) -> Array:
    """Whether no entry is zero."""
    return jnp.all(_filled(values != 0, counted, True))


def position_of_extreme(values: Array, counted: Array | None, *, greatest: bool) -> Array:
    """The position of the first greatest or least entry."""
    if counted is not None:
        values = jnp.where(counted, _real(values), -jnp.inf if greatest else jnp.inf)
    return jnp.argmax(values) if greatest else jnp.argmin(values)


def quantile(values: Array, counted: Array | None, q: Any) -> Array:
    """The `q`-quantile, interpolated linearly; NaN where nothing counts, or a NaN does."""
    if values.size == 0:
        return jnp.asarray(jnp.nan)
    values = _real(values)
    ordered = jnp.sort(_filled(values, counted, jnp.inf))
    last = count(values, counted) - 1
    position = q * last
    below, above = jnp.floor(position).astype(int), jnp.ceil(position).astype(int)
    low, high = (ordered[jnp.clip(i, 0, values.size - 1)] for i in (below, above))
    between = jnp.where(below == above, low, low + (high - low) * (position - below))
    missing = jnp.isnan(values) if counted is None else jnp.isnan(values) & counted
    return jnp.where(jnp.any(missing) | jnp.less(last, 0), jnp.nan, between)


def widened(values: Array) -> Array:
    """Whole numbers of few bits as those that NumPy and pandas sum them up in."""
    if values.dtype.kind not in "iub":
        return values
    return values.astype(jax.dtypes.canonicalize_dtype(np.uint64 if values.dtype.kind == "u" else np.int64))


#: Name -> the running operation, and what it takes in place of what is not counted.
_RUNNING: dict[str, tuple[Callable[[Array], Array], float]] = {
    "cumsum": (lambda values: jnp.cumsum(widened(values)), 0),
    "cumprod": (lambda values: jnp.cumprod(widened(values)), 1),
    "cummax": (jax.lax.cummax, -jnp.inf),
    "cummin": (jax.lax.cummin, jnp.inf),
}


def cumulated(name: str, values: Array, counted: Array | None) -> Array:
    """The running sum, product, ...; what is not counted is passed over, and NaN stays NaN."""
    run, neutral = _RUNNING[name]
    if counted is None:
        return run(values)
    if name in ("cummax", "cummin"):
        values = _real(values)
    running = run(jnp.where(counted, values, neutral))
    if not jnp.issubdtype(values.dtype, jnp.inexact):
        return running
    return jnp.where(jnp.isnan(values), jnp.nan, running)
