"""What solving a small positive definite system costs for each of 10,240 rows.

    python benchmarks/small_systems.py

The engine writes systems of up to 9 parameters out, so that XLA runs over rows (parfit/batched/linalg.py).
"""

from __future__ import annotations

import statistics
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from parfit.batched import linalg
from parfit.batched.compiled import _CPU_OPTIONS as FAST

ROWS = 10_240


def lapack(A: Any, b: Any) -> Any:
    return jax.scipy.linalg.cho_solve(jax.scipy.linalg.cho_factor(A), b)


def written_out(A: Any, b: Any) -> Any:
    return linalg.factor(A).solve(b)


def main() -> None:
    print(f"{'n':>3}  {'solver':<20}{'compile s':>10}{'us a row':>10}")
    linalg.UNROLLED = 12
    with jax.enable_x64(True):
        for n in (2, 3, 5, 7, 9, 12):
            J = np.random.default_rng(0).normal(size=(ROWS, n + 3, n))
            A, b = np.einsum("bmi,bmj->bij", J, J), J[:, 0]
            for name, solve in (
                ("jnp.linalg.solve", jnp.linalg.solve),
                ("LAPACK", lapack),
                ("written out", written_out),
            ):
                begin = time.perf_counter()
                run = jax.jit(jax.vmap(solve)).lower(A, b).compile(compiler_options=FAST)
                compiled = time.perf_counter() - begin
                seconds = []
                for _ in range(9):
                    begin = time.perf_counter()
                    jax.block_until_ready(run(A, b))
                    seconds.append(time.perf_counter() - begin)
                print(f"{n:>3}  {name:<20}{compiled:>10.2f}{1e6 * statistics.median(seconds) / ROWS:>10.3f}")


if __name__ == "__main__":
    main()
