"""How the batched engine holds up: many rows, hard rows, start-up, and how often it compiles.

    python benchmarks/batched_scale.py [--only million hard start compilations]

million       10^6 decays from a DataFrame: time, peak memory, and the cost of a row beside that at 10^5 rows
hard          20,000 decays, with one row, and 1 % of the rows, that run to the limit of evaluations
start         a script of 1,000 rows of 3 parameters in a new process, imports included: cold, and with the cache
compilations  20 different lengths of groups, and 5 refits
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

import numpy as np
import pandas as pd

SCRIPT = """
import time
begin = time.perf_counter()
import numpy as np, pandas as pd, parfit
import jax.numpy as jnp
t = np.linspace(0, 4, 20)
rng = np.random.default_rng(0)
p = rng.uniform([1, 0.5, 0], [10, 2, 1], (1000, 3))
frame = pd.DataFrame(p[:, :1] * np.exp(-p[:, 1:2] * t) + p[:, 2:] + rng.normal(0, 0.1, (1000, 20)))
def residuals(p, row):
    return p["height"] * jnp.exp(-p["rate"] * t) + p["floor"] - row.to_numpy()
fits = parfit.fit(frame, residuals, {"height": 5.0, "rate": 1.0, "floor": 0.5})
assert fits.engine == "batch" and fits.success.all(), fits
"""


def decays(rows: int) -> pd.DataFrame:
    t = np.linspace(0, 4, 20)
    rng = np.random.default_rng(0)
    p = rng.uniform([1, 0.5, 0], [10, 2, 1], (rows, 3))
    return pd.DataFrame(p[:, :1] * np.exp(-p[:, 1:2] * t) + p[:, 2:] + rng.normal(0, 0.1, (rows, 20)))


def residuals(p: Any, row: Any) -> Any:
    t = np.linspace(0, 4, 20)
    return p["height"] * np.exp(-p["rate"] * t) + p["floor"] - row.to_numpy()


START = {"height": 5.0, "rate": 1.0, "floor": 0.5}


def seconds_of(frame: pd.DataFrame, repeats: int, **more: Any) -> float:
    import parfit

    taken = []
    for _ in range(repeats):
        begin = time.perf_counter()
        parfit.fit(frame, residuals, START, engine="batch", progress=False, **more)
        taken.append(time.perf_counter() - begin)
    return statistics.median(taken)


def million() -> None:
    frame = decays(1_000_000)
    seconds_of(frame[:100_000], 1)
    few, many = seconds_of(frame[:100_000], 5), seconds_of(frame, 3)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"1,000,000 decays: {many:.2f} s, {1e6 / many:,.0f} fits/s, peak memory {peak:.2f} GB")
    print(f"cost of a row, 10^6 over 10^5: {many / few / 10:.2f}")


def hard() -> None:
    # a hard row has a singular Jacobian at its minimum, and the minimum at zero: each step halves what is left of the
    # parameters, no relative test is ever met, and it goes on until the limit
    import parfit
    from parfit.batched import counts

    t = np.linspace(0, 4, 20)
    weights = np.random.default_rng(1).normal(size=(3, 20))

    def objective(p: Any, d: Any) -> Any:
        easy = p[0] * np.exp(-p[1] * t) + p[2] - d["y"]
        return (1 - d["hard"]) * easy + d["hard"] * (p**2 @ weights)

    frame = decays(20_000).to_numpy()
    taken = {}
    for share in (0.0, 1 / 20_000, 0.01):
        flags = np.zeros(20_000)
        flags[np.linspace(500, 19_000, round(share * 20_000)).astype(int)] = 1.0
        data = {"y": frame, "hard": flags}

        def call(data: Any = data) -> Any:
            return parfit.fit(data, objective, [5.0, 1.0, 0.5], engine="batch", progress=False)

        call()
        seconds = []
        for _ in range(7):
            begin = time.perf_counter()
            fits = call()
            seconds.append(time.perf_counter() - begin)
        taken[share] = statistics.median(seconds)
        nfev = fits.summary["nfev"]
        n = int(flags.sum())
        of_hard = nfev[flags > 0].mean() if n else float("nan")
        ratio = taken[share] / taken[0.0]
        text = f"evaluations: {nfev[flags == 0].mean():.1f} an easy row, {of_hard:.0f} a hard one"
        print(f"{n:>4} hard rows in 20,000: {1e3 * taken[share]:7.1f} ms, {ratio:.2f} x; {text}")
    print(counts())


def start() -> None:
    for name in ("cold", "warm cache", "warm cache"):
        with tempfile.TemporaryDirectory() as folder:
            env = {**os.environ, "PARFIT_CACHE_DIR": folder}
            runs = []
            for i in range(4 if name != "cold" else 1):
                begin = time.perf_counter()
                subprocess.run([sys.executable, "-c", SCRIPT], check=True, env=env)
                if i or name == "cold":
                    runs.append(time.perf_counter() - begin)
            print(f"1,000 rows, 3 parameters, new process, {name}: {statistics.median(runs):.2f} s")


def compilations() -> None:
    import parfit
    from parfit.batched import counts

    rng = np.random.default_rng(0)
    frames = []
    for group in range(200):
        x = np.sort(rng.uniform(0, 5, 5 + 7 * (group % 20)))
        y = rng.uniform(1, 5) * np.exp(-rng.uniform(0.3, 1) * x) + rng.normal(0, 0.05, len(x))
        frames.append(pd.DataFrame({"group": group, "x": x, "y": y}))
    groups = pd.concat(frames).groupby("group")
    os.environ["PARFIT_CACHE_DIR"] = ""
    before = counts().compiled
    fits = parfit.fit(groups, lambda p, g: p[0] * np.exp(-p[1] * g["x"]) - g["y"], [1.0, 1.0], engine="batch")
    print(f"200 groups of 20 lengths, 5 to 138: {counts().compiled - before} programs compiled")
    before = counts().compiled
    for _ in range(5):
        fits = fits.refit("all", x0="solution")
    print(f"5 refits of all: {counts().compiled - before} compiled")
    before = counts().compiled
    for k in (1, 2, 10, 50, 100):
        fits = fits.refit(list(range(k)), x0="solution")
    print(f"5 refits of 1, 2, 10, 50, 100 groups: {counts().compiled - before} compiled")


CLAIMS = {"million": million, "hard": hard, "start": start, "compilations": compilations}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=CLAIMS, default=list(CLAIMS))
    for name in parser.parse_args().only:
        CLAIMS[name]()


if __name__ == "__main__":
    main()
