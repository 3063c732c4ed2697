"""Random functions: drawn from a key, by the place where they stand and the step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from parfit.mdl.compiled.named import raw

if TYPE_CHECKING:
    from parfit.mdl.compiled.simulation import Simulation

__all__ = ["Randomness"]


class Randomness:
    """What ``np.random`` and ``scipy.stats`` are for PySD's translation."""

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation
        self.truncnorm, self.truncexpon = _Of(self._truncated_normal), _Of(self._truncated_exponential)

    def uniform(self, low: Any, high: Any, size: tuple[int, ...] = ()) -> Any:
        """RANDOM 0 1 and RANDOM UNIFORM."""
        low, high = raw(low), raw(high)
        return low + (high - low) * jax.random.uniform(self._simulation.draw(), size, float)

    def _truncated_normal(self, a: Any, b: Any, loc: Any, scale: Any, size: tuple[int, ...] = ()) -> Any:
        drawn = jax.random.truncated_normal(self._simulation.draw(), raw(a), raw(b), size, float)
        return raw(loc) + raw(scale) * drawn

    def _truncated_exponential(self, b: Any, loc: Any, scale: Any, size: tuple[int, ...] = ()) -> Any:
        # The inverse of its distribution function.
        u = jax.random.uniform(self._simulation.draw(), size, float)
        return raw(loc) - raw(scale) * jnp.log1p(u * jnp.expm1(-raw(b)))


class _Of:
    """A distribution of `scipy.stats`."""

    def __init__(self, rvs: Any) -> None:
        self.rvs = rvs
