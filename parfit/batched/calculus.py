"""What exact derivatives are made of: differentiation, and the objective as JAX can trace it, where it is the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from parfit.batched.tracing.jaxify import jaxified
from parfit.batched.tracing.recorded import looks_for_nan
from parfit.batched.tracing.untraceable import Untraceable
from parfit.core.values import checked

__all__ = ["Function", "all_used", "candidates", "cost_of", "differs", "gradient", "hessian", "reason"]

Function = Callable[..., Any]

#: How far apart the traced and the plain value may be, relative to the largest entry, for rounding errors of sums taken
#: in another order; and that for single precision.
_ALIKE, _ALIKE_SINGLE = 2e-9, 1e-4


# ---- differentiation


def gradient(function: Function) -> Function:
    """The gradient of a scalar function; by forward mode where it looks for NaN, or has a loop of unknown length."""

    def differentiated(z: Any) -> Any:
        if looks_for_nan(jax.make_jaxpr(function)(z).jaxpr):
            return jax.jacfwd(function)(z)
        try:
            return jax.grad(function)(z)
        except ValueError:
            return jax.jacfwd(function)(z)

    return differentiated


def hessian(function: Function) -> Function:
    """The Hessian of a scalar function, shape (n, n)."""
    return jax.jacfwd(gradient(function))


def cost_of(value: Array) -> Array:
    """What is minimised: the scalar, or ``0.5 * sum(r**2)``."""
    return value if value.ndim == 0 else 0.5 * jnp.sum(value**2)


def all_used(function: Function) -> Function:
    """The function of arrays, which JAX does not compile for fewer arguments where some are not used.

    What is kept of programs is found by their text, which does not say which arguments were left out.
    """
    return lambda *args: function(*jax.lax.optimization_barrier(args))


# ---- from the user's function to one that can be traced


def candidates(function: Function, args: tuple[Any, ...]) -> Iterator[Callable[[], tuple[Function, tuple[Any, ...]]]]:
    """The objective and its further arguments as they are, and as `jaxify` makes them."""
    yield lambda: (function, args)
    yield lambda: jaxified(function, args)


def reason(found: list[Exception]) -> str:
    """The sentence that tells most: what `jaxify` met or what differs, else what the trace met."""
    for exc in reversed(found):
        if isinstance(exc, Untraceable):
            return str(exc)
    first = next((line for line in str(found[-1]).splitlines() if line.strip()), "")
    return f"{type(found[-1]).__name__}: {first[:200]}"


def differs(traced: Any, plain: Any, *, single: bool) -> str | None:
    """In what the value of a traced objective is not what a plain call gave; None where they are the same.

    `single` where the data are of less than double precision.
    """
    single = single or getattr(plain, "dtype", None) in (np.float32, np.float16)
    a, b = np.asarray(traced, dtype=np.float64), np.asarray(checked(plain))
    if a.shape != b.shape:
        return f"shape {a.shape}, and {b.shape} as Python"
    there = np.isfinite(a) & np.isfinite(b)
    slack = (_ALIKE_SINGLE if single else _ALIKE) * np.max(np.abs(b), where=there, initial=0.0)
    with np.errstate(invalid="ignore"):
        alike = (np.abs(a - b) <= slack) | (a == b) | ~(np.isfinite(a) | np.isfinite(b))
    if alike.all():
        return None
    i = int(np.argmin(alike))
    return f"{a.flat[i]:.9g}, and {b.flat[i]:.9g} as Python" + (f" (residual {i})" if a.ndim else "")
