"""500 MB of data that every dataset needs: how often it travels, and what the parent's memory does.

    python benchmarks/shared_data.py [--mb 500] [--workers 4]

The data are handed to `parfit.fit` through ``args``. Each worker notes when they arrive; the parent's peak is the
kernel's (VmHWM), the whole interpreter included.
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import parfit


class Shared:
    """An array that says where it arrives, and counts how often it is pickled."""

    pickled = 0

    def __init__(self, values: np.ndarray, folder: str) -> None:
        self.values = values
        self.folder = folder

    def __getstate__(self) -> dict[str, Any]:
        Shared.pickled += 1
        return {"values": self.values, "folder": self.folder}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        with open(Path(self.folder, str(os.getpid())), "a") as note:
            note.write("arrived\n")


def error(params: np.ndarray, row: pd.Series, shared: Shared) -> np.ndarray:
    time.sleep(0.002)
    return params - row.to_numpy() * shared.values[:2]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mb", type=int, default=500)
    parser.add_argument("--workers", type=int, default=4)
    args = parser.parse_args()
    df = pd.DataFrame(np.random.default_rng(0).normal(size=(400, 2)))
    parfit.fit(df[:2], lambda p, row: p - row.to_numpy(), [0.0, 0.0], workers=1)  # imports are not what is measured
    parfit.shutdown_workers()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    with tempfile.TemporaryDirectory() as folder:
        shared = Shared(np.ones(args.mb * 2**20 // 8), folder)
        begin = time.perf_counter()
        fits = parfit.fit(df, error, [0.0, 0.0], args=(shared,), workers=args.workers)
        seconds = time.perf_counter() - begin
        arrivals = {path.name: path.read_text().count("arrived") for path in Path(folder).iterdir()}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{args.mb} MB of shared data, {args.workers} workers, {len(df)} fits: {seconds:.1f} s")
    print(f"  converged: {int(fits.success.sum())} of {len(fits)}")
    print(f"  pickled {Shared.pickled} time(s); arrived per worker: {sorted(arrivals.values())}")
    print(f"  parent's peak memory: {peak:.0f} MB = {peak / args.mb:.2f} x the data (before the call: {before:.0f} MB)")


if __name__ == "__main__":
    main()
