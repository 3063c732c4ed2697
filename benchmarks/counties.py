"""All US counties through the ageing chain: from the start of the process to the parameters on disk.

    python benchmarks/counties.py [--recipe 4] [--runs 3]

PARFIT_CENSUS_CSV names the census file; without it the synthetic counties are taken. Each run is a process of its own
that imports parfit, reads the counties, loads the model, fits nine rates to each county and writes a CSV:

cold    with an empty folder for compiled programs
warm    with that folder as the run before left it; and in the same process the fit once more
recipe  PySD inside an error function inside `scipy.optimize.minimize`, a few counties in this process, scaled up

The end-of-run populations of each county are compared with the census.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PROCESS = """
import sys, time
begin = time.perf_counter()
import numpy as np
import parfit
from parfit import datasets

counties = datasets.load_census() if datasets.CENSUS_VARIABLE in __import__("os").environ else datasets.load_synthetic()
model = parfit.load_model(datasets.aging_chain_path())
brackets = [f"dec_{i}" for i in range(1, 10)]
start = {f"{bracket}_loss_rate": 0.05 for bracket in brackets}
counted = np.array([0.0] + [1.0] * 8)

def residuals(rates, county):
    run = model.run(rates, (2000, county["2000"]), 2010)
    return (run.loc[2010] - county["2010"]) * counted

ready = time.perf_counter()
fits = parfit.fit(counties, residuals, start)
fitted = time.perf_counter()
fits.params.to_csv(sys.argv[1])
end = time.perf_counter()
again = []
for _ in range(5):
    t = time.perf_counter()
    parfit.fit(counties, residuals, start)
    again.append(time.perf_counter() - t)
runs = [model.simulate(fits.params.iloc[i], (2000, counties.iloc[i]["2000"]), 2010) for i in range(len(counties))]
reached = np.array([[run[b] for b in brackets] for run in runs])
census = counties["2010"].to_numpy()
close = (np.abs(reached - census) <= 1e-6 * census)[:, 1:].all(axis=1)
print(fits.engine, len(fits), int(fits.success.sum()), int(close.sum()), int((fits.summary["rank"] == 8).sum()),
      ready - begin, fitted - ready, end - fitted, sorted(again)[2])
"""


def process(cache: str, out: Path) -> tuple[float, list[str]]:
    """One process, from its start to its parameters on disk; the time of what comes after is taken off."""
    begin = time.perf_counter()
    environment = os.environ | {"PARFIT_CACHE_DIR": cache}
    done = subprocess.run(
        [sys.executable, "-c", PROCESS, str(out)], env=environment, capture_output=True, text=True, check=True
    )
    whole = time.perf_counter() - begin
    said = done.stdout.split()
    inside = sum(map(float, said[5:8]))
    # What the interpreter takes before its first statement, and PROCESS does not see.
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-c", "pass"], check=True)
    return min(inside + time.perf_counter() - begin, whole), said


def recipe(n: int) -> float:
    """Seconds a county, by the usual recipe."""
    import pandas as pd
    from scipy.optimize import minimize

    import parfit
    from parfit import datasets

    counties = datasets.load_census() if os.environ.get(datasets.CENSUS_VARIABLE) else datasets.load_synthetic()
    model = parfit.load_model(datasets.aging_chain_path(), compile=False)
    rates = [f"dec_{i}_loss_rate" for i in range(1, 10)]

    def error(values: list[float], county: pd.Series) -> float:
        run = model.run(dict(zip(rates, values, strict=True)), (2000, county["2000"]), 2010)
        misses = run.loc[2010] - county["2010"]
        return (misses[1:] ** 2).sum()

    begin = time.perf_counter()
    for i in range(n):
        minimize(error, [0.05] * 9, args=counties.iloc[i], method="L-BFGS-B")
    return (time.perf_counter() - begin) / n


def main() -> None:
    """Run, and print the table."""
    parser = argparse.ArgumentParser(description="All counties, compiled and by the recipe.")
    parser.add_argument("--recipe", type=int, default=4, help="how many counties by the recipe (default: 4)")
    parser.add_argument("--runs", type=int, default=3, help="processes of each kind (default: 3)")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "params.csv"
        cold = [process(str(Path(folder) / f"cold{i}"), out) for i in range(asked.runs)]
        warm = [process(str(Path(folder) / "cold0"), out) for _ in range(asked.runs)]
    engine, rows, converged, close, rank = cold[0][1][:5]
    print(
        f"{rows} counties, engine {engine}: {converged} converged, {close} within 1e-6 of the census, {rank} of rank 8"
    )
    usual = recipe(asked.recipe)
    whole = usual * int(rows)
    print(f"{'recipe, one core':34s} {usual:8.2f} s a county, {whole / 3600:.2f} h for all")
    for name, found in (("cold", cold), ("warm", warm)):
        seconds = statistics.median(time for time, _ in found)
        parts = [statistics.median(float(said[k]) for _, said in found) for k in (5, 6)]
        label = f"process to parameters on disk, {name}"
        print(f"{label:34s} {seconds:8.2f} s ({parts[0]:.2f} to be ready, {parts[1]:.2f} fit): ", end="")
        print(f"{whole / seconds:,.0f} times the recipe")
    fit = statistics.median(float(said[8]) for _, said in warm)
    print(f"{'the fit again, same process':34s} {fit:8.2f} s: {whole / fit:,.0f} times the recipe")


if __name__ == "__main__":
    main()
