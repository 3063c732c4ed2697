"""One row inside the compiled program: start, bounds, and the objective as a function of the free parameters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import Array

from parfit.batched.normal import pushed_together

__all__ = ["Lane"]


@dataclass(frozen=True, eq=False)
class Lane:
    """What the mathematics of a solver sees of one row.

    Attributes
    ----------
    start, lower, upper : Array, shape (n,)
        Start and bounds of the free parameters.
    objective
        The parameters -> residuals, shape (m,), or a scalar that is minimised.
    together
        Whether derivatives are taken in one pass through the objective (`parfit.batched.normal.jacobian`).
    forward
        Whether gradients are taken by forward mode (`parfit.batched.tracing.recorded.Recorded.skips`).
    bounded
        Whether any row has a bound; without any, what bounds need is left out of the program.
    """

    start: Array
    lower: Array
    upper: Array
    objective: Callable[[Array], Array]
    together: bool = False
    bounded: bool = True
    forward: bool = False

    @property
    def free(self) -> Array:
        """True for what can move, shape (n,)."""
        return self.lower < self.upper if self.bounded else jnp.ones(self.start.shape, bool)

    def cost(self, x: Array) -> Array:
        """What is minimised: the scalar, or half the sum of the squared residuals."""
        value = self.objective(x)
        return value if value.ndim == 0 else 0.5 * jnp.sum(value * value)

    def cost_and_gradient(self, x: Array) -> tuple[Array, Array]:
        """What is minimised, and its gradient, shape (n,)."""
        if not self.forward:
            return jax.value_and_grad(self.cost)(x)
        return pushed_together(self.cost, x)

    def hessian(self, x: Array) -> Array:
        """The Hessian of what is minimised, shape (n, n)."""
        basis = jnp.eye(len(x), dtype=x.dtype)

        def gradient(z: Array) -> Array:
            if not self.forward:
                backwards: Array = jax.grad(self.cost)(z)
                return backwards
            forwards: Array = jax.vmap(lambda e: jax.jvp(self.cost, (z,), (e,))[1])(basis)
            return forwards

        columns: Array = jax.vmap(lambda e: jax.jvp(gradient, (x,), (e,))[1])(basis)
        return columns

    def held(self, x: Array, g: Array) -> Array:
        """True for what stands at a bound with the gradient `g` pointing outside, and for what cannot move."""
        if not self.bounded:
            return jnp.zeros(x.shape, bool)
        return ~self.free | ((x <= self.lower) & (g >= 0)) | ((x >= self.upper) & (g <= 0))

    def inside(self, x: Array) -> Array:
        """The nearest point inside the bounds."""
        return jnp.clip(x, self.lower, self.upper) if self.bounded else x
