"""What the normal equations of 10,240 rows cost in several layouts: 2-D Gaussians on 12 x 12 points, 5 parameters.

    python benchmarks/normal_equations.py

The engine uses the last line but one: the columns of the Jacobian kept apart, all products summed in one reduction with
many operands, in chunks, compiled so that sums may be reordered (parfit/batched/normal.py, compiled.py).
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from parfit.batched.compiled import _CPU_OPTIONS as FAST
from parfit.batched.normal import normal_equations

ROWS, WIDTH, N = 10_240, 128, 5
b, a = (grid.ravel().astype(float) for grid in np.mgrid[:12, :12])


def residuals(p: Any, y: Any) -> Any:
    return p[0] * jnp.exp(-((a - p[1]) ** 2 + (b - p[2]) ** 2) / (2 * p[3] ** 2)) + p[4] - y


def products_of_matrices(p: Any, y: Any) -> Any:
    J = jax.jacfwd(residuals)(p, y)
    r = residuals(p, y)
    return J.T @ J, J.T @ r, 0.5 * r @ r


def separate_sums(p: Any, y: Any) -> Any:
    r, push = jax.linearize(lambda z: residuals(z, y), p)
    J = [push(e) for e in jnp.eye(N)]
    return [jnp.sum(J[i] * J[j]) for i in range(N) for j in range(i + 1)], [jnp.sum(c * r) for c in J], jnp.sum(r * r)


def one_reduction(p: Any, y: Any) -> Any:
    return normal_equations(lambda z: residuals(z, y), p, together=False)


def chunked(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` over all rows, a chunk at a time."""

    def run(p: Any, y: Any) -> Any:
        parts = p.reshape(-1, WIDTH, N), y.reshape(-1, WIDTH, y.shape[1])
        return lax.map(lambda part: jax.vmap(function)(*part), parts)

    return run


def main() -> None:
    rng = np.random.default_rng(0)
    p = rng.uniform([80, 5, 5, 1.5, 5], [120, 6, 6, 2.5, 15], (ROWS, N))
    y = rng.uniform(0, 100, (ROWS, 144))
    print(f"{'layout':<44}{'compile s':>10}{'us a row':>10}")
    with jax.enable_x64(True):
        for name, function, options in (
            ("vmap of J.T @ J", jax.vmap(products_of_matrices), {}),
            ("vmap of separate sums", jax.vmap(separate_sums), {}),
            ("separate sums in chunks", chunked(separate_sums), {}),
            ("separate sums in chunks, sums reordered", chunked(separate_sums), FAST),
            ("one reduction in chunks", chunked(one_reduction), {}),
            ("one reduction in chunks, sums reordered", chunked(one_reduction), FAST),
            ("one reduction, not in chunks, sums reordered", jax.vmap(one_reduction), FAST),
        ):
            begin = time.perf_counter()
            run = jax.jit(function).lower(p, y).compile(compiler_options=options)
            compiled = time.perf_counter() - begin
            seconds = []
            for _ in range(15):
                begin = time.perf_counter()
                jax.block_until_ready(run(p, y))
                seconds.append(time.perf_counter() - begin)
            print(f"{name:<44}{compiled:>10.2f}{1e6 * statistics.median(seconds) / ROWS:>10.2f}")


if __name__ == "__main__":
    main()
