"""Piecewise functions of tables: lookups, and data over time."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

__all__ = ["KINDS", "interpolated"]

#: Up to so many knots all are compared at once, which a processor's vectors do faster than a search.
_COMPARED = 64

#: What a table gives between its knots and beyond them.
KINDS = frozenset(("interpolate", "extrapolate", "hold_backward", "look_forward", "raw"))


def interpolated(x: Any, xs: Any, ys: Any, kind: str) -> Any:
    """The value of a table at x.

    Parameters
    ----------
    x : array of any shape S
    xs : array, shape (K,)
        Increasing.
    ys : array, shape (K,) or (K, *S)
        With axes beyond the first, a table for each entry of x; x may be a number then, which all of them are asked.
    kind
        ``interpolate``: linear, and constant beyond the ends, as Vensim does; ``extrapolate``: linear beyond the ends
        too; ``hold_backward`` and ``look_forward``: the knot before, and after; ``raw``: NaN between knots.

    Returns
    -------
    array, shape S
        At a knot exactly its value; derivatives there are those to the right of it.
    """
    xs, ys, x = jnp.asarray(xs), jnp.asarray(ys), jnp.asarray(x)
    last = xs.shape[0] - 1
    spread = ys.ndim > 1

    def at(i: Any) -> Any:
        if not spread:
            return ys[i]
        if i.ndim == 0:
            return ys[i]
        return jnp.take_along_axis(ys, i[None], axis=0)[0]

    if kind == "look_forward":
        return at(jnp.minimum(_count(xs < x[..., None], xs, x, "left"), last))
    if kind in ("hold_backward", "raw"):
        i = jnp.maximum(_count(xs <= x[..., None], xs, x, "right") - 1, 0)
        held = at(i)
        return held if kind == "hold_backward" else jnp.where(xs[i] == x, held, jnp.nan)
    if not last:
        return at(jnp.zeros(x.shape, int)) + jnp.zeros_like(x)
    i = jnp.clip(_count(xs <= x[..., None], xs, x, "right") - 1, 0, last - 1)
    left, right = at(i), at(i + 1)
    value = (right - left) / (xs[i + 1] - xs[i]) * (x - xs[i]) + left
    if kind == "extrapolate":
        return jnp.where(x == xs[last], at(jnp.full(x.shape, last)), value)
    value = jnp.where(x >= xs[last], at(jnp.full(x.shape, last)), value)
    return jnp.where(x < xs[0], at(jnp.zeros(x.shape, int)), value)


def _count(below: Any, xs: Any, x: Any, side: str) -> Any:
    """How many knots are below x."""
    if xs.shape[0] <= _COMPARED:
        return jnp.sum(below, axis=-1)
    return jnp.searchsorted(xs, x, side=side)
