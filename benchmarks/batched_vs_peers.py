"""The batched engine beside what people use today, in one run on one machine.

    python benchmarks/batched_vs_peers.py [--rows 10000 100000] [--only gaussians decays logistic] [--peers-rows 2000]

Three problems, a DataFrame with a dataset per row each:

gaussians   2-D Gaussians on 12 x 12 points, 5 parameters, Poisson noise, starts off by up to 20 % (least squares)
decays      exponential decays on 20 points, 3 parameters (least squares)
logistic    logistic regressions on 50 points, 4 parameters (a scalar: the negative log-likelihood)

parfit runs as a user calls it, from the DataFrame to the `Fits` with standard errors, after one call on the same
problem (compilation is the subject of `batched_start.py`). optimistix and jaxopt run under `jax.jit(jax.vmap(...))`,
also after one call, at their own tolerances of 1e-8, in double precision; SciPy in a loop, on a part of the rows, with
the derivatives that its users have (differences). `best` is the share of rows whose cost is within 1e-6 of the lowest
that any of them found for that row.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import scipy.optimize

import parfit

Array = np.ndarray


@dataclass
class Case:
    """A problem: `value(p, y, xp)` gives residuals or a scalar."""

    name: str
    value: Callable[[Any, Any, Any], Any]
    residuals: bool
    data: Array
    start: Array


def gaussians(rows: int, rng: np.random.Generator) -> Case:
    b, a = (grid.ravel().astype(float) for grid in np.mgrid[:12, :12])

    def model(p: Any, xp: Any) -> Any:
        return p[0] * xp.exp(-((a - p[1]) ** 2 + (b - p[2]) ** 2) / (2 * p[3] ** 2)) + p[4]

    low, high = np.array([80, 5, 5, 1.5, 5]), np.array([120, 6, 6, 2.5, 15])
    true = rng.uniform(low, high, (rows, 5))
    data = rng.poisson(model(true.T[:, :, None], np)).astype(float)
    return Case("gaussians", lambda p, y, xp: model(p, xp) - y, True, data, true * rng.uniform(0.8, 1.2, true.shape))


def decays(rows: int, rng: np.random.Generator) -> Case:
    t = np.linspace(0, 4, 20)

    def model(p: Any, xp: Any) -> Any:
        return p[0] * xp.exp(-p[1] * t) + p[2]

    true = rng.uniform([1, 0.5, 0], [10, 2, 1], (rows, 3))
    data = model(true.T[:, :, None], np) + rng.normal(0, 0.1, (rows, 20))
    return Case("decays", lambda p, y, xp: model(p, xp) - y, True, data, true * rng.uniform(0.8, 1.2, true.shape))


def logistic(rows: int, rng: np.random.Generator) -> Case:
    X = np.column_stack([np.ones(50), rng.normal(size=(50, 3))])
    true = rng.normal(0, 1, (rows, 4))
    data = (rng.random((rows, 50)) < 1 / (1 + np.exp(-true @ X.T))).astype(float)

    def value(p: Any, y: Any, xp: Any) -> Any:  # a weak prior keeps separable rows finite
        z = X @ p
        return xp.sum(xp.logaddexp(0.0, z) - y * z) + 0.05 * xp.sum(p * p)

    return Case("logistic", value, False, data, np.zeros((rows, 4)))


CASES = {"gaussians": gaussians, "decays": decays, "logistic": logistic}


def timed(call: Callable[[], Any], repeats: int) -> tuple[float, Any]:
    """The median time of some calls, s, and what the last gave."""
    seconds, found = [], None
    for _ in range(repeats):
        begin = time.perf_counter()
        found = call()
        seconds.append(time.perf_counter() - begin)
    return statistics.median(seconds), found


def by_parfit(case: Case, dtype: str, repeats: int) -> tuple[float, Array]:
    frame = pd.DataFrame(case.data)
    start = pd.DataFrame(case.start)

    def objective(p: Any, row: Any) -> Any:
        return case.value(p.to_numpy(), row.to_numpy(), jnp)

    def call() -> Any:
        return parfit.fit(frame, objective, start, engine="batch", options={"dtype": dtype}, progress=False)

    call()
    seconds, fits = timed(call, repeats)
    return seconds, fits.params.to_numpy()


def by_vmap(case: Case, solve: Callable[[Any, Any], Any]) -> tuple[float, Array]:
    with jax.enable_x64(True):
        run = jax.jit(jax.vmap(solve))
        x0, y = jnp.asarray(case.start), jnp.asarray(case.data)
        jax.block_until_ready(run(x0, y))
        seconds, x = timed(lambda: jax.block_until_ready(run(x0, y)), 1)
        return seconds, np.asarray(x)


def by_optimistix(case: Case) -> tuple[float, Array]:
    import optimistix

    if case.residuals:
        solver = optimistix.LevenbergMarquardt(rtol=1e-8, atol=1e-8)
        minimise = optimistix.least_squares
    else:
        solver = optimistix.BFGS(rtol=1e-8, atol=1e-8)
        minimise = optimistix.minimise
    return by_vmap(
        case,
        lambda x0, y: minimise(lambda p, y: case.value(p, y, jnp), solver, x0, y, max_steps=1000, throw=False).value,
    )


def by_jaxopt(case: Case) -> tuple[float, Array]:
    import jaxopt

    if case.residuals:
        solver: Any = jaxopt.LevenbergMarquardt(lambda p, y: case.value(p, y, jnp), maxiter=100, tol=1e-8, xtol=1e-8)
    else:
        solver = jaxopt.LBFGS(lambda p, y: case.value(p, y, jnp), maxiter=200, tol=1e-6)
    return by_vmap(case, lambda x0, y: solver.run(x0, y).params)


def by_scipy(case: Case) -> tuple[float, Array]:
    def one(x0: Array, y: Array) -> Array:
        if case.residuals:
            return scipy.optimize.leastsq(lambda p: case.value(p, y, np), x0)[0]
        return scipy.optimize.minimize(lambda p: case.value(p, y, np), x0, method="L-BFGS-B").x

    seconds, found = timed(lambda: [one(x0, y) for x0, y in zip(case.start, case.data, strict=True)], 1)
    return seconds, np.array(found)


def costs(case: Case, x: Array) -> Array:
    with jax.enable_x64(True):
        value = jax.vmap(lambda p, y: case.value(p, y, jnp))(jnp.asarray(x, dtype=float), jnp.asarray(case.data))
        return np.asarray(0.5 * (value**2).sum(axis=1) if case.residuals else value)


def part(case: Case, rows: int) -> Case:
    return Case(case.name, case.value, case.residuals, case.data[:rows], case.start[:rows])


def table(case: Case, peers_rows: int, repeats: int) -> None:
    few = part(case, peers_rows)
    found: list[tuple[str, int, float, Array]] = []
    for dtype in ("float64", "float32"):
        seconds, x = by_parfit(case, dtype, repeats)
        found.append((f"parfit {dtype}", len(case.data), seconds, x[: len(few.data)]))
    for name, run in (("optimistix", by_optimistix), ("jaxopt", by_jaxopt), ("scipy loop", by_scipy)):
        try:
            seconds, x = run(few)
        except ImportError:
            print(f"  {name} is not installed")
            continue
        found.append((name, len(few.data), seconds, x))
    reached = np.array([costs(few, x) for *_, x in found])
    best = np.nanmin(reached, axis=0)
    share = (reached <= best + 1e-6 * np.abs(best)).mean(axis=1)
    loop = found[-1][1] / found[-1][2]
    print(f"{case.name}, {len(case.data):,} rows ({len(few.data):,} for the peers)")
    for (name, rows, seconds, _), reach in zip(found, share, strict=True):
        rate = rows / seconds
        print(f"  {name:<16}{rate:>12,.0f} fits/s   {rate / loop:>7.1f} x loop   best {100 * reach:6.2f} %")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--peers-rows", type=int, default=2_000)
    parser.add_argument("--repeats", type=int, default=5)
    chosen = parser.parse_args()
    print(f"jax {jax.__version__} on {jax.devices()[0].device_kind}, {parfit.cpu_count()} cores")
    for name in chosen.only:
        for rows in chosen.rows:
            table(CASES[name](rows, np.random.default_rng(0)), chosen.peers_rows, chosen.repeats)


if __name__ == "__main__":
    main()
