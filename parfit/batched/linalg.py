"""Small positive definite systems, one for each row, written out so that rows are what the compiled loops run over.

Unrolled arithmetic on scalars becomes, under `vmap`, arithmetic on vectors over rows; a call of LAPACK for each row
costs ten times more (`benchmarks/small_systems.py`). Beyond `UNROLLED` parameters the code would grow too long, and
LAPACK's work per call is worth its price.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

__all__ = ["UNROLLED", "Factor", "damped", "epsilon", "factor"]

#: The largest system that is written out.
UNROLLED = 9


def epsilon(dtype: Any) -> float:
    """The machine epsilon of a type."""
    return float(np.finfo(dtype).eps)


class Factor(NamedTuple):
    """A factorised matrix.

    Attributes
    ----------
    solve
        ``M x = b``, shape (n,).
    regular
        Whether `M` is positive definite beyond rounding errors. Where it is not, pivots were raised to the size of
        these errors, and what `solve` gives is finite, and still a direction of descent for ``x M x / 2 - b x``.
    """

    solve: Callable[[Array], Array]
    regular: Array


def factor(M: Array) -> Factor:
    """The Cholesky factor of a symmetric matrix, shape (n, n)."""
    return _written_out(_entries(M), len(M), M.dtype) if len(M) <= UNROLLED else _by_lapack(M)


def damped(M: Array, D: Array) -> Callable[[Array], Factor]:
    """The Cholesky factors of ``M + damping * diag(D)`` as a function of the damping.

    What it reads of `M` is taken apart once, outside the loop that calls it.
    """
    n = len(M)
    if n > UNROLLED:
        return lambda damping: _by_lapack(M + jnp.diag(damping * D))
    entries, scale = _entries(M), [D[i] for i in range(n)]

    def at(damping: Array) -> Factor:
        raised = {(i, i): entries[i, i] + damping * scale[i] for i in range(n)}
        return _written_out(entries | raised, n, M.dtype)

    return at


def _sum(terms: list[Array]) -> Array | float:
    return sum(terms[1:], terms[0]) if terms else 0.0


def _entries(M: Array) -> dict[tuple[int, int], Array]:
    return {(i, j): M[i, j] for i in range(len(M)) for j in range(i + 1)}


def _written_out(M: dict[tuple[int, int], Array], n: int, dtype: Any) -> Factor:
    tiny = n * epsilon(dtype)
    L: dict[tuple[int, int], Array] = {}
    regular = jnp.ones((), bool)
    for j in range(n):
        pivot = M[j, j] - _sum([L[j, k] * L[j, k] for k in range(j)])
        least = tiny * M[j, j]
        regular &= pivot > least
        L[j, j] = jnp.sqrt(jnp.maximum(pivot, jnp.where(least > 0, least, 1)))
        for i in range(j + 1, n):
            L[i, j] = (M[i, j] - _sum([L[i, k] * L[j, k] for k in range(j)])) / L[j, j]

    def solve(b: Array) -> Array:
        y: list[Array] = []
        for i in range(n):
            y.append((b[i] - _sum([L[i, k] * y[k] for k in range(i)])) / L[i, i])
        x: list[Array] = [y[0]] * n
        for i in reversed(range(n)):
            x[i] = (y[i] - _sum([L[k, i] * x[k] for k in range(i + 1, n)])) / L[i, i]
        return jnp.stack(x)

    return Factor(solve, regular)


def _by_lapack(M: Array) -> Factor:
    n = len(M)
    diagonal = jnp.diagonal(M)
    size = jnp.where(diagonal > 0, diagonal, 1)
    plain = lax.linalg.cholesky(M, symmetrize_input=False)
    regular = jnp.all(jnp.isfinite(plain))
    raised = lax.linalg.cholesky(M + jnp.diag(2 * n * epsilon(M.dtype) * size), symmetrize_input=False)
    L = jnp.where(regular, plain, raised)

    def solve(b: Array) -> Array:
        y = lax.linalg.triangular_solve(L, b[:, None], left_side=True, lower=True)
        return lax.linalg.triangular_solve(L, y, left_side=True, lower=True, transpose_a=True)[:, 0]

    return Factor(solve, regular)
