"""The functions of Python's `math`, as JAX has them."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

__all__ = ["MATH"]


def _log(x: Any, base: Any = None) -> Any:
    return jnp.log(x) if base is None else jnp.log(x) / jnp.log(base)


def _isclose(a: Any, b: Any, *, rel_tol: float = 1e-9, abs_tol: float = 0.0) -> Any:
    return jnp.abs(a - b) <= jnp.maximum(rel_tol * jnp.maximum(jnp.abs(a), jnp.abs(b)), abs_tol)


def _hypot(*sides: Any) -> Any:
    return functools.reduce(jnp.hypot, sides, jnp.zeros(()))


def _fsum(terms: Any) -> Any:
    return functools.reduce(operator.add, terms, 0.0)


def _prod(factors: Any, *, start: Any = 1) -> Any:
    return functools.reduce(operator.mul, factors, start)


def _dist(p: Any, q: Any) -> Any:
    return _hypot(*(a - b for a, b in zip(p, q, strict=True)))


_SAME = (
    "exp", "exp2", "expm1", "log1p", "log2", "log10", "sqrt", "cbrt", "sin", "cos", "tan", "sinh", "cosh", "tanh",
    "isnan", "isinf", "isfinite", "copysign", "floor", "ceil", "trunc", "fmod", "fabs", "degrees", "radians",
)  # fmt: skip
_RENAMED = {
    "asin": "arcsin", "acos": "arccos", "atan": "arctan", "atan2": "arctan2", "asinh": "arcsinh", "acosh": "arccosh",
    "atanh": "arctanh", "pow": "power",
}  # fmt: skip

#: Name in `math` -> what takes traced numbers in its place. Where `math` raises, these give NaN or infinity.
MATH: dict[str, Callable[..., Any]] = {
    **{name: getattr(jnp, name) for name in _SAME},
    **{name: getattr(jnp, renamed) for name, renamed in _RENAMED.items()},
    "log": _log,
    "hypot": _hypot,
    "fsum": _fsum,
    "prod": _prod,
    "dist": _dist,
    "isclose": _isclose,
    "gamma": jax.scipy.special.gamma,
    "lgamma": jax.scipy.special.gammaln,
    "erf": jax.scipy.special.erf,
    "erfc": jax.scipy.special.erfc,
}
