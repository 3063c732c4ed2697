"""Fits per second by the number of rows in a chunk: the rows that go through a step together.

    python benchmarks/chunk_width.py [--only gaussians decays logistic]

Sets the constants of parfit/batched/loop.py: a chunk holds as many rows as make 512 KiB of residuals, and 256
at most.
"""

from __future__ import annotations

import argparse

import numpy as np

from benchmarks.batched_vs_peers import CASES, by_parfit
from parfit.batched import loop, plan

ROWS = 50_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES))
    chosen = parser.parse_args()
    for name in chosen.only:
        case = CASES[name](ROWS, np.random.default_rng(0))
        usual = loop.chunk_width(case.data.shape[1], 8)
        for width in (32, 64, 128, 256, 512, 1024, 2048):
            plan.chunk_width = lambda numbers, itemsize, width=width: width
            seconds, _ = by_parfit(case, "float64", 5)
            mark = "  <- used" if width == usual else ""
            print(f"{name:<12}{width:>6} rows a chunk{ROWS / seconds:>12,.0f} fits/s{mark}", flush=True)


if __name__ == "__main__":
    main()
