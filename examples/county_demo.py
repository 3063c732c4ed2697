"""Fit the loss rates of all US counties in one call, and a few of them by the usual recipe.

    python examples/county_demo.py [--counties all|N] [--recipe 40] [--workers 2] [--out out]

A model of nine age brackets runs from a county's males of 2000 to 2010; nine loss rates, one a bracket, are fitted to
the counts of 2010. First `parfit.fit` takes all counties, with the model compiled; then some of them are done as they
are usually done, with PySD inside an error function inside `scipy.optimize.minimize`, a county at a time. The counties
are the synthetic ones that ship with parfit, whose true rates are known; or the real ones, where the environment
variable PARFIT_CENSUS_CSV names the census file. Written to the output folder: county_params.csv, loss_histogram.png,
loss_histogram.svg.
"""

from __future__ import annotations

import argparse
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
START = dict.fromkeys(RATES, 0.05)
#: Births are unknown, so the first bracket does not count.
COUNTED = np.array([0.0] + [1.0] * 8)

model = parfit.load_model(datasets.aging_chain_path())


# ---- all counties at once


def residuals(rates: dict[str, float], county: pd.Series) -> pd.Series:
    """The misses of 2010, in persons."""
    run = model.run(rates, (2000, county["2000"]), 2010)
    return (run.loc[2010] - county["2010"]) * COUNTED


# ---- the recipe, as anyone would write it

pysd_model = parfit.load_model(datasets.aging_chain_path(), compile=False)


def error(values: Any, county: pd.Series) -> float:
    """The sum of squares, in persons."""
    run = pysd_model.run(dict(zip(RATES, values, strict=True)), (2000, county["2000"]), 2010)
    misses = run.loc[2010] - county["2010"]
    return (misses[1:] ** 2).sum()


def fit(county: pd.Series) -> pd.Series:
    """The loss rates of one county."""
    result = minimize(error, [0.05] * 9, args=county, method="L-BFGS-B")
    return pd.Series(result.x, index=RATES)


def main() -> None:
    """Load, fit, compare, print and write."""
    asked = arguments()
    counties, truth = load(asked.counties)
    kind = "synthetic" if truth is not None else "real"
    if not model.compiled:
        print(f"The model is not compiled ({model.unsupported[0]}): {asked.recipe} counties only, in workers.")
        counties = counties.iloc[: asked.recipe]
    print(
        f"1. {len(counties):,} {kind} counties, {model.path.name}: parfit.fit(counties, residuals, start)", flush=True
    )
    begin = time.perf_counter()
    fits = parfit.fit(counties, residuals, START, workers=asked.workers)
    seconds = time.perf_counter() - begin
    print(fits)
    print(table(fits.params, truth).to_string(float_format="{:.3f}".format))
    print("\n" + closeness(counties, fits))

    few = counties.iloc[: asked.recipe]
    workers = asked.workers or parfit.cpu_count()
    print(f"\n2. {len(few):,} of them by the recipe, in {workers} worker{'s' if workers > 1 else ''}", flush=True)
    begin = time.perf_counter()
    rates = parfit.apply_by_multiprocessing(few, fit, workers, progress=True)
    usual = time.perf_counter() - begin
    print(comparison(few, fits, rates))
    whole = usual / len(few) * len(counties)
    print(
        f"{usual / len(few):.2f} s a county, {duration(whole)} for all {len(counties):,}; "
        f"all at once they took {duration(seconds)}: {whole / seconds:,.0f} times faster."
    )
    write(asked.out, fits.params, f"{len(counties):,} {kind} counties: fitted loss rates")


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Fit the loss rates of counties, in parallel.")
    parser.add_argument("--counties", default="all", help="how many, or 'all' (default: all)")
    parser.add_argument("--recipe", type=int, default=40, help="how many of them by the recipe, too (default: 40)")
    parser.add_argument("--workers", type=int, help="how many processes (default: one per core)")
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder to write to (default: out)")
    asked = parser.parse_args()
    if asked.counties != "all" and (not asked.counties.isdecimal() or int(asked.counties) < 1):
        parser.error(f"--counties takes a number from 1 on, or 'all', not {asked.counties!r}")
    if asked.recipe < 1:
        parser.error(f"--recipe takes a number from 1 on, not {asked.recipe}")
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


def ends(counties: pd.DataFrame, rates: pd.DataFrame) -> pd.DataFrame:
    """The males of 2010 by bracket that the model runs to."""
    runs = [model.run(rates.iloc[i], (2000, counties.iloc[i]["2000"]), 2010).loc[2010] for i in range(len(counties))]
    return pd.DataFrame(runs).set_axis(counties.index)


def table(rates: pd.DataFrame, truth: pd.DataFrame | None) -> pd.DataFrame:
    """The rates per year of each bracket, over the counties."""
    shown = rates.quantile([0.1, 0.5, 0.9]).T.set_axis(["10 %", "median", "90 %"], axis="columns")
    if truth is not None:
        shown["true median"] = truth.median()
        shown["median |fit - true|"] = (rates - truth).abs().median()
    return shown


def closeness(counties: pd.DataFrame, fits: parfit.Fits) -> str:
    """How close the model comes to the counts, and what the data do not tell."""
    misses = (ends(counties, fits.params) - counties["2010"]).abs().iloc[:, 1:]
    close = (misses <= 1e-6 * counties["2010"].iloc[:, 1:]).all(axis=1)
    undetermined = (fits.summary["rank"] < len(RATES)).mean()
    met = f"met within 1e-6 of their size in {close.sum():,} counties"
    return (
        f"Counts of 2010, dec_2 to dec_9: {met}; the worst is off by\n{misses.max(axis=None):.1g} of a person. "
        f"Eight counts for nine rates: in {undetermined:.0%} of the counties the rank is below nine.\n"
        "dec_1 is free, takes dec_2 and dec_3 along at no cost to the counts, and leaves no degree of freedom for\n"
        "standard errors."
    )


def comparison(counties: pd.DataFrame, fits: parfit.Fits, rates: pd.DataFrame) -> str:
    """What the recipe makes of some counties, next to what the fit of all made of them."""
    mine = ends(counties, fits.params.iloc[: len(counties)])
    theirs = ends(counties, rates)
    apart = (mine - theirs).abs().iloc[:, 1:]
    cost = ((theirs - counties["2010"]).iloc[:, 1:] ** 2).sum(axis=1)
    return (
        f"Males of 2010, dec_2 to dec_9: they differ by at most {apart.max(axis=None):.2g} persons; the recipe misses "
        f"the counts by up to\n{np.sqrt(cost.max()):.2g}, parfit.fit by up to "
        f"{np.sqrt(2 * fits.summary['cost'].iloc[: len(counties)].max()):.2g}."
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
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


if __name__ == "__main__":
    main()
