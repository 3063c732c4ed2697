"""A parallel map of a function made on the spot, with no main guard: async_map, Pool and async_apply.

python examples/async_map_closure.py
"""

import time

import numpy as np

import parfit


def bootstrap(data, statistic):
    """A function from a seed to the statistic of resampled data; it lives in this call alone."""

    def once(seed):
        chosen = np.random.default_rng(seed).integers(0, len(data), len(data))
        return float(statistic(data[chosen]))

    return once


incomes = np.random.default_rng(4).lognormal(10, 0.8, 8_000)
# A closure over an array and a lambda: it travels to each worker once, not with each seed.
ratio = bootstrap(incomes, lambda x: np.divide(*np.quantile(x, [0.9, 0.1])))

begin = time.perf_counter()
serial = [ratio(seed) for seed in range(10_000)]
middle = time.perf_counter()
parallel = parfit.async_map(ratio, range(10_000))
end = time.perf_counter()
print(f"list comprehension {middle - begin:.2f} s, async_map on {parfit.cpu_count()} cores {end - middle:.2f} s")
print(f"the same results, in the same order: {parallel == serial}")
low, high = np.quantile(parallel, [0.025, 0.975])
print(f"90 % to 10 % quantile of incomes: {low:.2f} to {high:.2f} (95 % interval; the truth is {np.exp(2.0505):.2f})")

# One call in the background, while this process does something else; and an exception, which comes back as itself.
with parfit.Pool() as pool:
    later = parfit.async_apply(pool, ratio, (10_001,))
    failing = parfit.async_apply(pool, lambda: 1 / 0)
    print(f"\nmeanwhile: ready? {later.ready()}")
    print(f"then: {later.get():.2f}")
    try:
        failing.get()
    except ZeroDivisionError as error:
        print(f"and: {type(error).__name__}: {error}")
