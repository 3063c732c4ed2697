"""What it costs to keep solutions in a file, and to read them back.

    python benchmarks/store.py [--only rows cheap batch resume] [--repeats 7]

rows    400 datasets of 5 ms each in two workers, without a store and with one
cheap   2,000 datasets that take as long as SciPy takes for them, likewise
batch   100,000 decays on 20 points by the batched engine, all of it warm, likewise; and the size of the file
resume  the same call once more on the finished store of 100,000, and `open_store`

Calls without and with a store take turns in one run, so that a drift of the machine hits both alike; times are medians.
Where others use the machine, too, the time that the processor was at work says more: the second line of `batch`.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import parfit

T = np.linspace(0, 4, 20)
START = [5.0, 1.0, 0.5]


def decays(rows: int) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    p = rng.uniform([1, 0.5, 0], [10, 2, 1], (rows, 3))
    return pd.DataFrame(p[:, :1] * np.exp(-p[:, 1:2] * T) + p[:, 2:] + rng.normal(0, 0.1, (rows, 20)))


def residuals(p: Any, row: Any) -> Any:
    return p[0] * np.exp(-p[1] * T) + p[2] - row.to_numpy()


def dear(p: Any, row: Any) -> Any:
    """5 ms at the start, and next to nothing after it."""
    if p[0] == START[0] and p[1] == START[1]:
        until = time.perf_counter() + 0.0045
        while time.perf_counter() < until:
            pass
    return residuals(p, row)


def seconds_of(call: Callable[[], Any]) -> tuple[float, float]:
    """How long a call took, and how long the processor was at work for it, s."""
    begin, worked = time.perf_counter(), time.process_time()
    call()
    return time.perf_counter() - begin, time.process_time() - worked


def in_turn(name: str, path: Path, call: Callable[..., Any], repeats: int) -> None:
    """The medians of a call without a store and with a new one."""
    call(None)
    without, kept = [], []
    for _ in range(repeats):
        without.append(seconds_of(lambda: call(None)))
        for file in path.parent.glob(f"{path.name}*"):
            file.unlink()
        kept.append(seconds_of(lambda: call(path)))
    for i, what in enumerate((name, "  at work") if name == "batch" else (name,)):
        a, b = (statistics.median(times[i] for times in each) for each in (without, kept))
        print(f"{what:10s} without {a:7.3f} s   with {b:7.3f} s   {100 * (b / a - 1):+6.1f} %")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=["rows", "cheap", "batch", "resume"])
    parser.add_argument("--repeats", type=int, default=7)
    args = parser.parse_args()

    def rows(store: Any) -> None:
        parfit.fit(few, dear, START, engine="rows", workers=2, store=store, progress=False)

    def cheap(store: Any) -> None:
        parfit.fit(some, residuals, START, engine="rows", workers=2, store=store, progress=False)

    def batch(store: Any) -> None:
        parfit.fit(many, residuals, START, engine="batch", store=store, progress=False)

    few, some = decays(400), decays(2000)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "fits.db")
        if "rows" in args.only:
            in_turn("rows", path, rows, args.repeats)
        if "cheap" in args.only:
            in_turn("cheap", path, cheap, args.repeats)
        if {"batch", "resume"} & {*args.only}:
            many = decays(100_000)
            in_turn("batch", path, batch, args.repeats)
            print(f"           {path.stat().st_size / len(many):.0f} bytes a row in the file")
        if "resume" in args.only:
            again = statistics.median(seconds_of(lambda: batch(path))[0] for _ in range(args.repeats))
            opened = statistics.median(seconds_of(lambda: parfit.open_store(path))[0] for _ in range(args.repeats))
            print(f"resume     the same call {again:.3f} s   open_store {opened:.3f} s")


if __name__ == "__main__":
    main()
