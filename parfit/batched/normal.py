"""Residuals and their derivatives at one point of one row, reduced to what a step needs: the normal equations.

The columns of the Jacobian are kept apart and all their products summed in one reduction with many operands, which
XLA compiles to a single loop over the points that stores nothing: 8 times faster than a product of matrices a row
(`benchmarks/normal_equations.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.custom_batching import custom_vmap
from jax.extend.core import ClosedJaxpr, jaxpr_as_fun

from parfit.batched.linalg import UNROLLED

__all__ = ["jacobian", "normal_equations", "pushed_together"]

Residuals = Callable[[Array], Array]


def jacobian(residuals: Residuals, z: Array, *, together: bool) -> tuple[Array, list[Array]]:
    """The residuals, shape (m,), and the columns of their Jacobian, n of shape (m,), by forward mode.

    Parameters
    ----------
    together
        Whether all columns are pushed through as one array (for functions with loops, which then run once), or each
        for itself (so that each is fused with what follows).
    """
    n = z.shape[0]
    basis = jnp.eye(n, dtype=z.dtype)
    if not together:
        r, push = jax.linearize(residuals, z)
        return r, [push(basis[i]) for i in range(n)]
    r, columns = pushed_together(residuals, z)
    return r, [columns[i] for i in range(n)]


def pushed_together(function: Residuals, z: Array) -> tuple[Array, Array]:
    """The value of a function of shape (m,) or (), and its derivatives, (n, m) or (n,), in one pass.

    For many rows at once the derivatives lie one after another, and in each the rows side by side, so that a
    processor's vectors hold rows: 3 times faster for the ageing chain than rows of n derivatives
    (`benchmarks/simulate.py`).
    """
    closed = jax.make_jaxpr(function)(z)
    basis = jnp.eye(z.shape[0], dtype=z.dtype)

    def run(z: Array, *constants: Array) -> Array:
        value: Array = jaxpr_as_fun(ClosedJaxpr(closed.jaxpr, constants))(z)[0]
        return value

    def push_row(z: Array, *constants: Array) -> Any:
        return jax.vmap(lambda e: jax.jvp(lambda y: run(y, *constants), (z,), (e,)), out_axes=(None, 0))(basis)

    def push_rows(rows: int, mapped: list[bool], z: Array, *constants: Array) -> Any:
        z = z if mapped[0] else jnp.broadcast_to(z, (rows, *z.shape))
        axes = (0, *(0 if own else None for own in mapped[1:]))
        many = lambda y: jax.vmap(run, axes)(y, *constants)  # noqa: E731
        along: Any = lambda e: jax.jvp(many, (z,), (jnp.broadcast_to(e, z.shape),))  # noqa: E731
        value, columns = jax.vmap(along, out_axes=(None, 0))(basis)
        return (value, jnp.swapaxes(columns, 0, 1)), (True, True)

    push: Any = custom_vmap(push_row)
    push.def_vmap(push_rows)
    value, columns = push(z, *closed.consts)
    return value, columns


def normal_equations(residuals: Residuals, z: Array, *, together: bool) -> tuple[Array, Array, Array]:
    """``J.T @ J``, shape (n, n); ``J.T @ r``, shape (n,); and ``0.5 * r @ r``."""
    n = z.shape[0]
    r, J = jacobian(residuals, z, together=together)
    if n > UNROLLED:
        columns = jnp.stack(J)
        return columns @ columns.T, columns @ r, 0.5 * (r @ r)
    pairs = [(i, j) for i in range(n) for j in range(i + 1)]
    sums = _sums([J[i] * J[j] for i, j in pairs] + [column * r for column in J] + [r * r])
    found = dict(zip(pairs, sums, strict=False))
    A = jnp.stack([jnp.stack([found[max(i, j), min(i, j)] for j in range(n)]) for i in range(n)])
    return A, jnp.stack(sums[len(pairs) : -1]), 0.5 * sums[-1]


def _sums(terms: list[Array]) -> list[Array]:
    """The sum of each of several vectors of one length, in one loop."""
    zero = jnp.zeros((), terms[0].dtype)
    add = lambda a, b: tuple(x + y for x, y in zip(a, b, strict=True))  # noqa: E731
    return list(lax.reduce(tuple(terms), (zero,) * len(terms), add, (0,)))
