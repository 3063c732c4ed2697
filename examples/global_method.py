"""A global method with bounds of their own for each row: the frequencies of 24 noisy waves.

python examples/global_method.py

A wave's sum of squares has a valley for about each of its swings, so a local method ends in the nearest one.
"""

import numpy as np
import pandas as pd

import parfit

random = np.random.default_rng(2)
t = np.linspace(0, 10, 120)
names = [f"wave {i}" for i in range(24)]
truth = pd.DataFrame({"frequency": random.uniform(0.3, 5, 24), "height": random.uniform(1, 3, 24)}, index=names)
waves = pd.DataFrame(
    truth["height"].to_numpy()[:, None] * np.sin(2 * np.pi * truth["frequency"].to_numpy()[:, None] * t)
    + 0.2 * random.standard_normal((24, 120)),
    index=names,
)


def error(p, wave):
    """The sum of squares."""
    return ((p["height"] * np.sin(2 * np.pi * p["frequency"] * t) - wave.to_numpy()) ** 2).sum()


# Each wave is known to lie within a band of its own: a frame for the lower bounds and one for the upper ones.
middle = truth["frequency"] * random.uniform(0.7, 1.3, 24)
bounds = (
    pd.DataFrame({"frequency": 0.6 * middle, "height": 0.0}),
    pd.DataFrame({"frequency": 1.6 * middle, "height": 5.0}),
)
start = pd.DataFrame({"frequency": middle, "height": 1.0})

for method, options in (("L-BFGS-B", {}), ("differential_evolution", {"popsize": 16})):
    fits = parfit.fit(waves, error, start, bounds=bounds, method=method, options=options)
    right = (fits.params["frequency"] - truth["frequency"]).abs() < 0.01
    calls = fits.summary["nfev"].mean()
    print(f"{method:<24} {right.sum():>2} of {len(fits)} frequencies found, {calls:6,.0f} calls a wave")

print("\nThe last five, by differential evolution:")
shown = fits.params.add_prefix("fitted ").join(truth.add_prefix("true ")).join(fits.summary[["status", "cost"]])
print(shown.tail().round(3).to_string())
