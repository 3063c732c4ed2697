"""Calibrate an epidemic in 300 regions: contact rate, infectious period, and the unknown number at the start.

    python examples/epidemic.py

epidemic.mdl is a Vensim model of susceptible, infectious and recovered people. Each region has reported its new cases
for 12 weeks; nobody knows how many were infectious on the first day, so that number is fitted, too. All regions are
fitted in one compiled program, and three of them once more by SciPy in a loop. Needs pip install 'parfit[jax]'.
"""

import time
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pandas as pd
from scipy.optimize import least_squares

import parfit

N_REGIONS, N_WEEKS = 300, 12
WEEKS = [f"week {i + 1}" for i in range(N_WEEKS)]
DAYS = 7 * np.arange(N_WEEKS + 1)
START = {"contact rate": 10.0, "infectious period": 5.0, "first infectious": 20.0}
BOUNDS = {"contact rate": (1, 50), "infectious period": (1, 30), "first infectious": (0.1, 5000)}

model = parfit.load_model(Path(__file__).parent / "epidemic.mdl")


def inputs(p, population):
    """The values of the model's constants, and of its stocks at the start."""
    constants = {"contact rate": p["contact rate"], "infectious period": p["infectious period"]}
    # All others start as susceptible: epidemic.mdl says so, for any number of infectious.
    return constants | {"population": population}, {"Infectious": p["first infectious"]}


def new_cases(p, population):
    """New cases in each week: what the week has added to those so far."""
    params, initial = inputs(p, population)
    run = model.simulate(params=params, initial=initial, times=DAYS, columns=["Cases"])
    return jnp.diff(run["Cases"])


def residuals(p, region):
    """The misses in square roots: twice the root of a count scatters by about 1, be the count small or large."""
    expected, reported = new_cases(p, region["population"]), region[WEEKS].to_numpy()
    return 2 * (jnp.sqrt(expected + 3 / 8) - jnp.sqrt(reported + 3 / 8))


def make_regions():
    """Populations and reports of 300 regions, and the true values behind them."""
    random = np.random.default_rng(6)
    truth = pd.DataFrame(
        {
            "contact rate": random.uniform(9, 13, N_REGIONS),
            "infectious period": random.uniform(5, 8, N_REGIONS),
            "first infectious": random.lognormal(np.log(20), 0.5, N_REGIONS),
        },
        index=pd.Index([f"region {i}" for i in range(N_REGIONS)], name="region"),
    )
    population = random.integers(10_000, 100_000, N_REGIONS)
    expected = [new_cases(p, n) for p, n in zip(truth.to_dict("records"), population, strict=True)]
    regions = pd.DataFrame(random.poisson(expected), index=truth.index, columns=WEEKS)
    return regions.assign(population=population), truth


def misses(values, region):
    """The residuals as one would write them for SciPy, with a DataFrame from `model.run`."""
    params, initial = inputs(dict(zip(START, values, strict=True)), region["population"])
    run = model.run(params, (0, initial), DAYS, ["Cases"])
    return 2 * (np.sqrt(np.diff(run["Cases"]) + 3 / 8) - np.sqrt(region[WEEKS].to_numpy() + 3 / 8))


def in_a_loop(regions):
    """The fitted values of a few regions by SciPy, one after the other."""
    options = {"bounds": np.array(list(BOUNDS.values())).T, "x_scale": list(START.values())}
    found = [least_squares(misses, list(START.values()), args=(row,), **options).x for _, row in regions.iterrows()]
    return pd.DataFrame(found, index=regions.index, columns=list(START))


def timed(function, *args, **options):
    """What the function returns, and the seconds it took."""
    begin = time.perf_counter()
    found = function(*args, **options)
    return found, time.perf_counter() - begin


def main():
    """Make regions, fit them, and hold the fits against the true values and against SciPy."""
    regions, truth = make_regions()
    fits, first = timed(parfit.fit, regions, residuals, START, bounds=BOUNDS)
    _, again = timed(parfit.fit, regions, residuals, START, bounds=BOUNDS)
    print(f"{fits.success.sum()} of {len(fits)} regions converged, engine {fits.engine}: {fits.engine_reason}")
    print(f"{first:.1f} s, nearly all to compile the program, or to read it from the cache; {again:.2f} s once more\n")

    interval = fits.conf_int()
    lower, upper = interval.xs("lower", axis=1, level=1), interval.xs("upper", axis=1, level=1)
    shown = pd.DataFrame(
        {
            "truth in 95 % interval": ((lower <= truth) & (truth <= upper)).mean(),
            "median relative error": ((fits.params - truth) / truth).abs().median(),
        }
    )
    print(shown.to_string(float_format="{:.1%}".format))

    few = regions.head(3)
    in_a_loop(few.head(1))  # the first run is compiled, too
    found, seconds = timed(in_a_loop, few)
    apart = (found / fits.params.head(3) - 1).abs().max(axis=None)
    print(f"\nSciPy in a loop, {len(few)} regions: {1000 * seconds / len(few):.0f} ms each;", end=" ")
    print(f"parfit.fit: {1000 * first / len(fits):.1f} ms each, {1000 * again / len(fits):.1f} ms once compiled")
    print(f"Their parameters differ by {apart:.0e} at most, relatively")


if __name__ == "__main__":
    main()
