"""Residuals and their derivatives at one point of one row, reduced to what a step needs: the normal equations.

The columns of the Jacobian are kept apart and all their products summed in one reduction with many operands, which
XLA compiles to a single loop over the points that stores nothing: 8 times faster than a product of matrices a row
(`benchmarks/normal_equations.py`).
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array, lax

from parfit.batched.linalg import UNROLLED

__all__ = ["jacobian", "normal_equations"]

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
    columns: Array
    r, columns = jax.vmap(lambda e: jax.jvp(residuals, (z,), (e,)), out_axes=(None, 0))(basis)
    return r, [columns[i] for i in range(n)]


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
