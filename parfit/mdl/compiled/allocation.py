"""ALLOCATE AVAILABLE and ALLOCATE BY PRIORITY: a supply dealt out to those who ask for it.

Along the last axis of the request; the algorithms are those of Vensim's reference manual ("Allocation overview"), with
the profiles that PySD has. What PySD refuses, such as a negative request, gives NaN here, so that PySD's own run says
why.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.scipy.special import erfc

from parfit.mdl.compiled.named import named

__all__ = ["ALLOCATION"]

#: An exponential profile has fallen to rounding errors so many widths from its middle, a normal one before that.
_REACH = 37.0
#: Halvings of the interval of prices; the last digits come from a step of Newton's.
_HALVINGS = 60


def _rectangular(x: Any, middle: Any, width: Any) -> Any:
    return jnp.clip((middle + width / 2 - x) / width, 0, 1)


def _triangular(x: Any, middle: Any, width: Any) -> Any:
    before = 1 - 2 * ((x - middle + width / 2) / width) ** 2
    after = 2 * ((middle + width / 2 - x) / width) ** 2
    inside = jnp.where(x < middle, before, after)
    return jnp.where(x <= middle - width / 2, 1.0, jnp.where(x < middle + width / 2, inside, 0.0))


def _normal(x: Any, middle: Any, width: Any) -> Any:
    return 0.5 * (2 - erfc((middle - x) / (jnp.sqrt(2.0) * width)))


def _exponential(x: Any, middle: Any, width: Any) -> Any:
    half = 0.5 * jnp.exp(-jnp.abs(x - middle) / width)
    return jnp.where(x < middle, 1 - half, half)


#: By the number of the profile: which share of its request one gets at a price.
_PROFILES = {1: _rectangular, 2: _triangular, 3: _normal, 4: _exponential}


def _available(request: Any, profiles: Any, supply: Any) -> Any:
    """One supply, dealt out at the price at which all of it is taken.

    Parameters
    ----------
    request : array, shape (n,)
    profiles : array, shape (n, 4)
        Kind, priority, width, and what the kinds there are do not use.
    supply : number
    """
    kind, middle, width = profiles[:, 0], profiles[:, 1], profiles[:, 2]

    def shares(x: Any) -> Any:
        conditions = [kind == number for number in _PROFILES]
        return jnp.select(conditions, [share(x, middle, width) for share in _PROFILES.values()], jnp.nan)

    def missing(x: Any) -> Any:
        return jnp.sum(request * shares(x)) - supply

    def halved(_: Any, interval: Any) -> Any:
        low, high = interval
        x = (low + high) / 2
        above = missing(x) > 0
        return jnp.where(above, x, low), jnp.where(above, high, x)

    begin = jnp.min(middle - _REACH * width), jnp.max(middle + _REACH * width)
    low, high = jax.lax.fori_loop(0, _HALVINGS, halved, jax.tree.map(jax.lax.stop_gradient, begin))
    x = jax.lax.stop_gradient((low + high) / 2)
    # The step carries the derivatives of the price with respect to all that it depends on.
    slope = jax.lax.stop_gradient(jax.jvp(missing, (x,), (jnp.ones_like(x),))[1])
    price = x - jnp.where(slope < 0, missing(x) / jnp.where(slope < 0, slope, 1.0), 0.0)
    dealt = request * shares(price)
    dealt = jnp.where(supply >= jnp.sum(request), request, jnp.where(supply == 0, 0.0, dealt))
    refused = jnp.any(request < 0) | jnp.any(width <= 0) | (supply < 0)
    return jnp.where(refused, jnp.nan, dealt)


def _by_priority(request: Any, priority: Any, width: Any, supply: Any) -> Any:
    """One supply, dealt out to higher priorities first.

    Who asks next begins to get something when the one before has got the share of its request that the distance of
    their priorities is of the width; those who are getting something get it in proportion to their requests.

    Parameters
    ----------
    request, priority : array, shape (n,)
    width, supply : number
    """
    n = request.shape[0]
    asks = request != 0
    order = jnp.argsort(jnp.where(asks, -priority, jnp.inf), stable=True)
    wanted, ranks = request[order], priority[order]
    gaps = jnp.minimum((ranks[:-1] - ranks[1:]) / width, 1) * wanted[:-1]
    follows = jnp.arange(1, n) < jnp.sum(asks)
    # After so much of its own the next one begins; nobody follows the last.
    until = jnp.append(jnp.where(follows, gaps, jnp.inf), jnp.inf)

    def go_on(state: Any) -> Any:
        _, _, _, left, k = state
        return (left > 0) & (k < 4 * n)

    def deal(state: Any) -> Any:
        got, active, last, left, k = state
        weights = jnp.where(active, wanted, 0.0)
        slopes = weights / jnp.sum(weights)
        steep = jnp.where(active, slopes, 1.0)
        full = jnp.min(jnp.where(active, (wanted - got) / steep, jnp.inf))
        slope = slopes[last]
        begins = jnp.where(slope > 0, (until[last] - got[last]) / jnp.where(slope > 0, slope, 1.0), jnp.inf)
        amount = jnp.minimum(jnp.minimum(full, begins), left)
        got = got + slopes * amount
        starting = jnp.isclose(amount, begins, rtol=1e-10, atol=1e-16)
        last = jnp.minimum(last + starting, n - 1)
        active = active | (starting & (jnp.arange(n) == last))
        done = (amount == full) & active & jnp.isclose(got, wanted, rtol=1e-12, atol=0)
        return jnp.where(done, wanted, got), active & ~done, last, left - amount, k + 1

    begin = (jnp.zeros_like(wanted), jnp.arange(n) == 0, jnp.int32(0), supply, jnp.int32(0))
    got = jax.lax.while_loop(go_on, deal, begin)[0]
    dealt = jnp.zeros_like(got).at[order].set(got)
    dealt = jnp.where(supply >= jnp.sum(request), request, jnp.where(supply == 0, 0.0, dealt))
    refused = jnp.any(request < 0) | (width <= 0) | (supply < 0)
    return jnp.where(refused, jnp.nan, dealt)


def _each(function: Callable[..., Any], request: Any, *others: tuple[Any, int]) -> Any:
    """A function along the last axis, for all entries of the axes before; `others` with how many axes it takes."""
    asked = named(request)
    axes = asked.shape[:-1]
    arrays = []
    for value, own in ((asked, 1), *others):
        data = jnp.asarray(named(value).data, float)
        inner = data.shape[data.ndim - own :]
        arrays.append(jnp.broadcast_to(data, (*axes, *inner)).reshape(-1, *inner))
    return asked.like(jax.vmap(function)(*arrays).reshape(asked.shape))


def _allocate_available(request: Any, profiles: Any, supply: Any) -> Any:
    return _each(_available, request, (profiles, 2), (supply, 0))


def _allocate_by_priority(request: Any, priority: Any, width: Any, supply: Any) -> Any:
    return _each(_by_priority, request, (priority, 1), (width, 0), (supply, 0))


ALLOCATION: Mapping[str, Callable[..., Any]] = {
    "allocate_available": _allocate_available,
    "allocate_by_priority": _allocate_by_priority,
}
