"""Many cheap rows, some of which raise, hang or kill their worker: all accounted for, and nothing grows.

    python benchmarks/soak.py [--rows 200000] [--workers 2] [--executors processes loky …]

One row in 100 raises, one in 1,000 hangs, one in 10,000 kills its worker; an executor that cannot stop a task, or does
not survive a worker's death, is spared that. Each line has the statuses that were found and the number of rows with
another than they should have; how large the caller was after a fifth of the rows and at the end, and how many
descriptors it had open; and the processes that are left when the call has returned and idle workers have been ended.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import os
import signal
import time
import warnings
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import psutil

import parfit
from parfit import executors

FINE, RAISES, HANGS, KILLS = range(4)
STATUS = {FINE: "converged", RAISES: "error", HANGS: "timeout", KILLS: "worker_lost"}
SHARES = {RAISES: 0.01, HANGS: 0.001, KILLS: 0.0001}
TIMEOUT_S = 0.5


def objective(p: Any, dataset: Any) -> Any:
    """A straight fit to one value; the other says what the row does."""
    if dataset[1] == RAISES:
        raise ValueError("no data")
    if dataset[1] == HANGS:
        while True:
            time.sleep(100)
    if dataset[1] == KILLS:
        os.kill(os.getpid(), signal.SIGKILL)
    return p - dataset[:1]


def made(rows: int, doings: list[int]) -> np.ndarray:
    """The data, shape (rows, 2): what is fitted, and what the row does; at least one row for each of `doings`."""
    rng = np.random.default_rng(0)
    does = np.zeros(rows)
    free = iter(rng.permutation(rows))
    for doing in doings:
        for _ in range(max(1, round(rows * SHARES[doing]))):
            does[next(free)] = doing
    return np.column_stack([rng.normal(size=rows), does])


@dataclass
class Soaked:
    """What came of it; sizes and descriptors of this process after each tenth of the rows."""

    seconds: float
    found: Counter[str]
    wrong: int
    sizes: list[int] = field(default_factory=list)
    descriptors: list[int] = field(default_factory=list)
    left: list[str] = field(default_factory=list)


def soak(executor: str, rows: int, workers: int = 2) -> Soaked:
    """Run it."""
    can = executors.resolve(executor, None).capabilities
    doings = [RAISES] + [HANGS] * can.enforces_timeout + [KILLS] * can.survives_worker_death
    data = made(rows, doings)
    this = psutil.Process()
    before = {child.pid for child in this.children(recursive=True)}
    sizes, descriptors = [], []

    def look(done: int, total: int) -> None:
        if done * 10 // total > len(sizes):
            gc.collect()
            sizes.append(this.memory_info().rss)
            descriptors.append(this.num_fds())

    begin = time.perf_counter()
    fits = parfit.fit(
        data,
        objective,
        [0.0],
        engine="rows",
        executor=executor,
        workers=None if executor == "serial" else workers,
        timeout=TIMEOUT_S if can.enforces_timeout else None,
        progress=look,
    )
    seconds = time.perf_counter() - begin
    parfit.shutdown_workers()
    found = fits.status.astype(str).to_numpy()
    wrong = int((found != np.array([STATUS[int(code)] for code in data[:, 1]])).sum())
    fine = data[:, 1] == FINE
    wrong += int((np.abs(fits.params.to_numpy()[fine, 0] - data[fine, 0]) > 1e-6).sum()) + abs(len(fits) - rows)
    left = []
    for child in this.children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if child.pid not in before and "resource_tracker" not in " ".join(child.cmdline()):
                left.append(f"{child.pid} {child.cmdline()}")
    return Soaked(seconds, Counter(found.tolist()), wrong, sizes, descriptors, left)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--executors", nargs="+", default=list(executors.EXECUTORS), choices=list(executors.EXECUTORS))
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    print(f"parfit {parfit.__version__}, {args.rows:,} rows, {args.workers} workers, {parfit.cpu_count()} cores")
    print(
        f"{'':18}{'s':>7}{'converged':>11}{'error':>7}{'timeout':>9}{'lost':>6}{'wrong':>7}"
        f"{'MB at 20 %':>12}{'at 100 %':>10}{'B a row':>9}{'files':>8}{'left':>6}"
    )
    for executor in args.executors:
        done = soak(executor, args.rows, args.workers)
        statuses = [done.found[STATUS[code]] for code in (FINE, RAISES, HANGS, KILLS)]
        early, late = done.sizes[1], done.sizes[-1]
        files = f"{done.descriptors[1]} {done.descriptors[-1]}"
        print(
            f"{executor:18}{done.seconds:7.0f}{statuses[0]:11,}{statuses[1]:7,}{statuses[2]:9,}{statuses[3]:6,}"
            f"{done.wrong:7}{early / 1e6:12.1f}{late / 1e6:10.1f}{(late - early) / (0.8 * args.rows):9.0f}"
            f"{files:>8}{len(done.left):6}",
            flush=True,
        )


if __name__ == "__main__":
    main()
