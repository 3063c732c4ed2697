"""Fit the loss rates of US counties, in parallel: the recipe, and the same problem as least squares.

    python examples/county_demo.py [--counties 40|all] [--workers 2] [--out out]

A model of nine age brackets runs from a county's males of 2000 to 2010; nine loss rates, one a bracket, are fitted to
the counts of 2010. The counties are the synthetic ones that ship with parfit, whose true rates are known; or the real
ones, where the environment variable PARFIT_CENSUS_CSV names the census file. Written to the output folder:
county_params.csv, loss_histogram.png, loss_histogram.svg.
"""

from __future__ import annotations

import argparse
import math
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.optimize import minimize

import parfit
from parfit import datasets
from parfit.plots import loss_histogram

BRACKETS = [f"dec_{i}" for i in range(1, 10)]
RATES = [f"{bracket}_loss_rate" for bracket in BRACKETS]
RUNS_PER_COUNTY = 600  # about, by the recipe

model = parfit.load_model(datasets.aging_chain_path())


# ---- the recipe, as anyone would write it


def error(values: Any, county: pd.Series) -> float:
    """The sum of squares, in persons. Births are unknown, so the first bracket does not count."""
    run = model.run(dict(zip(RATES, values, strict=True)), (2000, county["2000"]), 2010)
    misses = run.loc[2010] - county["2010"]
    return (misses[1:] ** 2).sum()


def fit(county: pd.Series) -> pd.Series:
    """The loss rates of one county."""
    result = minimize(error, [0.05] * 9, args=county, method="L-BFGS-B")
    return pd.Series(result.x, index=RATES)


# ---- the same as least squares, for parfit.fit


def residuals(rates: dict[str, float], county: pd.Series) -> pd.Series:
    """The eight misses themselves, in persons."""
    run = model.run(rates, (2000, county["2000"]), 2010)
    return (run.loc[2010] - county["2010"])[1:]


def main() -> None:
    """Load, fit, print and write."""
    asked = arguments()
    counties, truth = load(asked.counties)
    kind = "synthetic" if truth is not None else "real"
    workers = asked.workers or parfit.cpu_count()
    seconds = RUNS_PER_COUNTY * seconds_per_run(counties.iloc[0]) * math.ceil(len(counties) / workers)
    print(f"{len(counties):,} {kind} counties, {model.path.name}, {workers} worker{'s' if workers > 1 else ''}")

    print(f"\n1. The recipe: apply_by_multiprocessing(counties, fit), about {duration(seconds)}", flush=True)
    begin = time.perf_counter()
    rates = parfit.apply_by_multiprocessing(counties, fit, workers, progress=True)
    seconds = time.perf_counter() - begin
    print(f"{len(rates):,} counties in {duration(seconds)}, {seconds / len(rates):.2f} s each\n")
    print(table(rates, truth).to_string(float_format="{:.3f}".format))
    print("\n" + closeness(counties, rates, truth))

    print("\n2. The same counties as least squares: parfit.fit(counties, residuals, start)", flush=True)
    start = dict.fromkeys(RATES, 0.05)
    # Eight counts cannot determine nine rates: the first, which hardly matters to them, stays where it is.
    fits = parfit.fit(counties, residuals, start, fixed=RATES[:1], workers=workers, progress=True)
    print(fits)
    if fits.success.any():
        apart = (fits.params - rates).loc[fits.success.to_numpy(), RATES[3:]].abs().to_numpy()
        print(f"dec_4 … dec_9 differ from the recipe's rates by {np.median(apart):.1g} a year (median)")

    write(asked.out, rates, f"{len(counties):,} {kind} counties: fitted loss rates")


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Fit the loss rates of counties, in parallel.")
    parser.add_argument("--counties", default="40", help="how many, or 'all' (default: 40)")
    parser.add_argument("--workers", type=int, help="how many processes (default: one per core)")
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder to write to (default: out)")
    asked = parser.parse_args()
    if asked.counties != "all" and (not asked.counties.isdecimal() or int(asked.counties) < 1):
        parser.error(f"--counties takes a number from 1 on, or 'all', not {asked.counties!r}")
    if asked.workers is not None and asked.workers < 1:
        parser.error(f"--workers takes a number from 1 on, not {asked.workers}")
    return asked


def load(wanted: str) -> tuple[pd.DataFrame, pd.DataFrame | None]:
    """The counties, and their true rates where these are known."""
    truth = None
    if os.environ.get(datasets.CENSUS_VARIABLE):
        counties = datasets.load_census()
    else:
        counties, truth = datasets.load_synthetic(), datasets.load_synthetic_rates()
    n = len(counties) if wanted == "all" else int(wanted)
    return counties.iloc[:n], None if truth is None else truth.iloc[:n]


def seconds_per_run(county: pd.Series) -> float:
    """What one evaluation of the error takes here."""
    error([0.05] * 9, county)
    begin = time.perf_counter()
    for _ in range(10):
        error([0.05] * 9, county)
    return (time.perf_counter() - begin) / 10


def table(rates: pd.DataFrame, truth: pd.DataFrame | None) -> pd.DataFrame:
    """The rates per year of each bracket, over the counties."""
    shown = rates.quantile([0.1, 0.5, 0.9]).T.set_axis(["10 %", "median", "90 %"], axis="columns")
    if truth is not None:
        shown["true median"] = truth.median()
        shown["median |fit - true|"] = (rates - truth).abs().median()
    return shown


def closeness(counties: pd.DataFrame, rates: pd.DataFrame, truth: pd.DataFrame | None) -> str:
    """How close the fit comes: to the counts, and to the true rates where these are known."""
    squares = [error(rates.iloc[i], counties.iloc[i]) for i in range(len(counties))]
    miss = np.sqrt(np.array(squares) / 8)
    text = f"Counts of 2010: the fit misses them by {np.median(miss):.1g} persons (median; worst {miss.max():.1g})."
    if truth is None:
        return text
    apart = (rates - truth).abs()[RATES[3:]].to_numpy()
    return (
        f"{text}\n"
        f"True rates, dec_4 … dec_9: {(apart < 0.01).mean():.0%} are met within 0.01 a year; what is left is chance,\n"
        "as each count of 2010 is a random draw. Nine rates meet eight counts here, so that one direction is free:\n"
        "dec_1 goes its own way and takes dec_2 along, at no cost to the counts."
    )


def write(folder: Path, rates: pd.DataFrame, title: str) -> None:
    """The rates as a table and as a picture."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / name for name in ("county_params.csv", "loss_histogram.png", "loss_histogram.svg")]
    rates.to_csv(paths[0])
    shown = rates[RATES[1:]].set_axis(["dec " + bracket.removeprefix("dec_") for bracket in BRACKETS[1:]], axis=1)
    loss_histogram(shown, paths[1:], title=title)
    print("\nWritten: " + ", ".join(str(path) for path in paths))


def duration(seconds: float) -> str:
    """In words."""
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


if __name__ == "__main__":
    main()
