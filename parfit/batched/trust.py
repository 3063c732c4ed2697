"""The step of Levenberg and Marquardt that is as long as a trust region allows, for one row.

J.J. Moré, The Levenberg-Marquardt algorithm: implementation and theory, in Numerical Analysis, Lecture Notes in
Mathematics 630, Springer 1978: the damping is found by Newton's method on the length of the step, kept between bounds.
Here on the normal equations.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from parfit.batched.linalg import Factor, damped

__all__ = ["Step", "trust_step"]

#: The length of a step may be off by this much of the radius.
_SLACK = 0.1
_MOST_TRIES = 10


class Step(NamedTuple):
    """A step, its scaled length, and the damping that makes it so long."""

    step: Array
    length: Array
    damping: Array


class _Search(NamedTuple):
    step: Array
    length: Array
    damping: Array
    used: Array
    least: Array
    most: Array
    excess: Array
    tries: Array
    done: Array


def trust_step(A: Array, g: Array, D: Array, radius: Array, damping: Array) -> Step:
    """The minimum of ``g s + s A s / 2`` where ``s D s <= radius**2``, to within 10 % of the radius.

    Parameters
    ----------
    A, g : Array, shapes (n, n) and (n,)
        The normal equations.
    D : Array, shape (n,)
        The squared scale of each parameter.
    radius, damping
        The radius, and the damping of the step before.
    """
    steepest = _length(g / D, D)
    zero = jnp.zeros_like(radius)
    most = jnp.maximum(steepest / radius, float(np.finfo(g.dtype).tiny) / jnp.minimum(radius, 0.1))
    start = _Search(g, zero, zero, zero, zero, most, zero, jnp.int32(0), jnp.zeros((), bool))
    factor_at = damped(A, D)
    found = lax.while_loop(lambda s: ~s.done, lambda s: _try(s, factor_at, g, D, radius, damping, steepest), start)
    return Step(found.step, found.length, found.used)


def _try(
    s: _Search,
    factor_at: Callable[[Array], Factor],
    g: Array,
    D: Array,
    radius: Array,
    before: Array,
    steepest: Array,
) -> _Search:
    """One step: without damping at first, then with what makes its length fit."""
    first = s.tries == 0
    factorised = factor_at(s.damping)
    step = factorised.solve(-g)
    length = _length(step, D)
    excess = length - radius
    slope = D * step / _positive(length)
    newton = excess / radius / _positive(slope @ factorised.solve(slope))
    fits = excess <= _SLACK * radius
    close = jnp.abs(excess) <= _SLACK * radius
    short = (s.least == 0) & (excess <= s.excess) & (s.excess < 0)
    done = jnp.where(first, fits & jnp.all(jnp.isfinite(step)), close | short | (s.tries >= _MOST_TRIES))
    lowest = jnp.where(factorised.regular & jnp.isfinite(newton), newton, 0)
    least = jnp.where(first, lowest, jnp.where(excess > 0, jnp.maximum(s.least, s.damping), s.least))
    most = jnp.where(first | (excess >= 0), s.most, jnp.minimum(s.most, s.damping))
    begin = jnp.clip(before, least, most)
    begin = jnp.where(begin == 0, steepest / _positive(length), begin)
    damping = jnp.where(first, begin, jnp.maximum(least, s.damping + newton))
    damping = jnp.where(damping > 0, damping, 1e-3 * most)
    return _Search(step, length, damping, s.damping, least, most, excess, s.tries + 1, done)


def _length(step: Array, D: Array) -> Array:
    return jnp.sqrt(jnp.sum(D * step * step))


def _positive(value: Array) -> Array:
    return jnp.where(value > 0, value, 1)
