"""One parameter set for all of the data, which is dear to load and lies in several files: ProducerConsumer.

python examples/sharded_data.py

Each worker loads its share of the files once and keeps it. A run sends it the parameters, a few bytes, and all
workers score their files at the same time. On top: SciPy, for the whole sum, and SPSA, which gets along with a
sum over a random tenth of the data at each call.
"""

import tempfile
import time
from pathlib import Path

import numpy as np
from scipy.optimize import minimize

import parfit

TRUTH = np.array([1.5, -0.7, 0.3])
N_FILES, N_ROWS = 8, 20_000


def write(folder):
    """Files of points along a parabola, with noise."""
    random = np.random.default_rng(3)
    paths = []
    for i in range(N_FILES):
        x = random.uniform(-1, 1, N_ROWS)
        y = np.polynomial.polynomial.polyval(x, TRUTH) + 0.1 * random.standard_normal(N_ROWS)
        paths.append(Path(folder) / f"shard {i}.npz")
        np.savez(paths[-1], x=x, y=y)
    return paths


def load(path):
    """Called once for each file, in the worker that keeps it."""
    with np.load(path) as file:
        time.sleep(0.2)  # as if it were large
        return file["x"], file["y"]


def score(p, shard):
    """The mean square of one file, or of a random tenth of it."""
    values, seed = p
    x, y = shard
    if seed is not None:
        chosen = np.random.default_rng(seed).integers(0, len(x), len(x) // 10)
        x, y = x[chosen], y[chosen]
    return float(np.mean((np.polynomial.polynomial.polyval(x, values) - y) ** 2))


with tempfile.TemporaryDirectory() as folder, parfit.ProducerConsumer(load, write(folder), score) as shards:
    for which in ("first", "second", "third"):
        begin = time.perf_counter()
        found = shards.run((TRUTH, None))
        seconds = time.perf_counter() - begin
        print(f"{which:<6} run: {seconds:6.4f} s, scores {min(found):.5f} to {max(found):.5f} of {len(found)} files")

    begin = time.perf_counter()
    scipys = minimize(lambda values: np.mean(shards.run((values, None))), np.zeros(3), method="L-BFGS-B")
    print(f"\nSciPy {scipys.x.round(2)}  {scipys.nfev:>4} runs, {time.perf_counter() - begin:.2f} s")

    seeds = iter(range(10**9))
    begin = time.perf_counter()
    gains = {"a_par": 1.2, "c_par": 0.1, "stability": 20}
    spsas = parfit.SPSA(lambda values: np.mean(shards.run((values, next(seeds)))), np.zeros(3), maxiter=300, **gains)
    print(f"SPSA  {spsas.x.round(2)}  {spsas.nfev:>4} runs of a tenth each, {time.perf_counter() - begin:.2f} s")
    print(f"truth {TRUTH}")
