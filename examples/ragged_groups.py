"""A dataset per group, of unequal lengths: 60 exponential decays, each with standard errors.

python examples/ragged_groups.py
"""

import numpy as np
import pandas as pd

import parfit

SIGMA = 0.05

random = np.random.default_rng(1)
truth = pd.DataFrame({"height": random.uniform(1, 5, 60), "lifetime": random.uniform(0.5, 3, 60)})
truth.index = pd.Index([f"sample {i}" for i in range(60)], name="sample")

# Between 8 and 80 measurements of each sample, all in one long table; one sample has two only, one has a gap.
parts = []
for name, row in truth.iterrows():
    n = 2 if name == "sample 7" else random.integers(8, 80)
    t = np.sort(random.uniform(0, 6, n))
    y = row["height"] * np.exp(-t / row["lifetime"]) + SIGMA * random.standard_normal(n)
    parts.append(pd.DataFrame({"sample": name, "t": t, "y": y}))
measured = pd.concat(parts, ignore_index=True)
measured.loc[measured.index[measured["sample"] == "sample 11"][0], "y"] = np.nan


def residuals(p, group):
    """The misses of one sample; as many as it has measurements."""
    return p["height"] * np.exp(-group["t"] / p["lifetime"]) + p["offset"] - group["y"]


start = {"height": 2.0, "lifetime": 1.0, "offset": 0.0}
fits = parfit.fit(measured.groupby("sample", sort=False), residuals, start)

print(f"{len(measured):,} measurements of {len(fits)} samples\n")
print(fits)

found = fits.params[["height", "lifetime"]]
off = ((found - truth) / fits.stderr[["height", "lifetime"]])[fits.success]
print(f"\nWithin two standard errors of the truth: {(off.abs() < 2).to_numpy().mean():.0%} (95 % are to be expected)")
sizes = measured.groupby("sample", sort=False).size()
shown = pd.DataFrame({"n": sizes, "lifetime": found["lifetime"], "stderr": fits.stderr["lifetime"]})
print(shown.assign(truth=truth["lifetime"]).sort_values("n").iloc[[0, 1, 2, -2, -1]].round(3).to_string())
