"""Rows of a DataFrame in parallel: parfit and its peers, side by side in one run.

    python benchmarks/rows_vs_peers.py [--rows 400] [--repeats 5] [--workers 2]

Four tables:

1. Heavy-tailed rows of about 5 ms (lognormal, sigma 1), sorted so that the dear ones sit together at the end:
   the parallel efficiency, serial time / (workers x wall time). The work is a loop of fixed length, not a wait. Two
   cores of a shared machine seldom give twice what one does: what they give is the last line, where the rows are dealt
   out so that the processes end together, which needs to know in advance what each costs.
2. Rows of about 1 us: the speed against `DataFrame.apply`.
3. The first call of a process against the second: what it costs to start workers.
4. What `parfit.fit` costs over the bare `scipy.optimize.least_squares` call, per row, in one process.

Times are medians over interleaved repeats, so that a drift of the machine hits all alike.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from scipy.optimize import least_squares

import parfit


def burn(row: pd.Series) -> float:
    """A loop of as many steps as the row says."""
    total = 0.0
    for i in range(int(row["steps"])):
        total += i * 1e-9
    return total


def tiny(row: pd.Series) -> float:
    """About 1 us."""
    total = 0.0
    for i in range(38):
        total += i
    return total


def apply_part(part: pd.DataFrame, func: Callable[[pd.Series], float]) -> pd.Series:
    return part.apply(func, axis=1)


def peer_pool(df: pd.DataFrame, func: Callable[[pd.Series], float], workers: int) -> Callable[[], Any]:
    """The usual recipe: split the frame into as many parts as there are workers, `Pool.map`, `concat`."""
    edges = np.linspace(0, len(df), workers + 1).astype(int)
    return _pool([df.iloc[a:b] for a, b in itertools.pairwise(edges)], func)


def ceiling(df: pd.DataFrame, func: Callable[[pd.Series], float], workers: int) -> Callable[[], Any]:
    """What the machine gives to as many processes: sorted rows dealt out in turn, so that all end together."""
    return _pool([df.iloc[k::workers] for k in range(workers)], func)


def _pool(frames: list[pd.DataFrame], func: Callable[[pd.Series], float]) -> Callable[[], Any]:
    import multiprocessing

    pool = multiprocessing.get_context("fork").Pool(len(frames))
    return lambda: pd.concat(pool.starmap(apply_part, [(frame, func) for frame in frames]))


def peer_joblib(df: pd.DataFrame, func: Callable[[pd.Series], float], workers: int) -> Callable[[], Any]:
    from joblib import Parallel, delayed

    return lambda: pd.Series(Parallel(n_jobs=workers)(delayed(func)(row) for _, row in df.iterrows()), index=df.index)


def peer_pandarallel(df: pd.DataFrame, func: Callable[[pd.Series], float], workers: int) -> Callable[[], Any]:
    from pandarallel import pandarallel

    pandarallel.initialize(nb_workers=workers, verbose=0, use_memory_fs=False)
    return lambda: df.parallel_apply(func, axis=1)


def peers(
    df: pd.DataFrame, func: Callable[[pd.Series], float], workers: int, *, without_joblib: bool = False
) -> dict[str, Callable[[], Any]]:
    """All that are installed and run."""
    made: dict[str, Callable[[], Callable[[], Any]]] = {
        "DataFrame.apply": lambda: lambda: df.apply(func, axis=1),
        "parfit": lambda: lambda: parfit.apply_by_multiprocessing(df, func, workers=workers),
        "Pool over split frames": lambda: peer_pool(df, func, workers),
        "joblib, a task a row": lambda: peer_joblib(df, func, workers),
    }
    if importlib.util.find_spec("pandarallel") is not None:
        made["pandarallel"] = lambda: peer_pandarallel(df, func, workers)
    if without_joblib:
        del made["joblib, a task a row"]
    runs = {}
    for name, make in made.items():
        try:
            run = make()
            run()
        except Exception as exc:  # noqa: BLE001 - a peer that does not run under this pandas is left out, and said so
            print(f"  ({name} does not run here: {type(exc).__name__}: {exc})")
        else:
            runs[name] = run
    return runs


def interleaved(runs: dict[str, Callable[[], Any]], repeats: int) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            begin = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - begin)
    return times


def steps_per_ms() -> float:
    probe = pd.Series({"steps": 200_000})
    found = []
    for _ in range(5):
        begin = time.perf_counter()
        burn(probe)
        found.append(200_000 / (1e3 * (time.perf_counter() - begin)))
    return statistics.median(found)


def heavy_tail(rows: int, repeats: int, workers: int) -> None:
    rng = np.random.default_rng(1)
    cost_ms = np.sort(5.0 * rng.lognormal(-0.5, 1.0, rows))
    df = pd.DataFrame({"steps": (cost_ms * steps_per_ms()).astype(int), "other": 0.0})
    share = cost_ms[rows // 2 :].sum() / cost_ms.sum()
    print(f"\n1. {rows} heavy-tailed rows of about 5 ms, sorted (dear half: {share:.0%}; dearest {cost_ms[-1]:.0f} ms)")
    runs = peers(df, burn, workers)
    runs["the machine: rows dealt out"] = ceiling(df, burn, workers)
    times = interleaved(runs, repeats)
    serial, best = times["DataFrame.apply"], times["the machine: rows dealt out"]
    print(f"   {'':28}{'wall s':>9}{'efficiency':>12}{'  (min – max)':>16}{'of the machine':>17}")
    for name, found in times.items():
        each = [s / (workers * t) for s, t in zip(serial, found, strict=True)]
        share = statistics.median(b / t for b, t in zip(best, found, strict=True))
        spread = "" if name == "DataFrame.apply" else f"{min(each):8.2f} – {max(each):.2f}{share:17.2f}"
        shown = "" if name == "DataFrame.apply" else f"{statistics.median(each):12.2f}"
        print(f"   {name:28}{statistics.median(found):9.3f}{shown}{spread}")


def tiny_rows(rows: int, repeats: int, workers: int) -> None:
    df = pd.DataFrame(np.random.default_rng(2).normal(size=(rows, 3)), columns=list("abc"))
    row = df.iloc[0]
    begin = time.perf_counter()
    for _ in range(20_000):
        tiny(row)
    print(f"\n2. {rows:,} rows of {1e6 * (time.perf_counter() - begin) / 20_000:.2f} us")
    small = peers(df, tiny, workers, without_joblib=True)
    times = interleaved(small, repeats)
    part = df.iloc[: rows // 100]
    times["joblib, a task a row"] = [100 * t for t in interleaved({"": peer_joblib(part, tiny, workers)}, 2)[""]]
    serial = times["DataFrame.apply"]
    print(f"   {'':28}{'wall s':>9}{'speed against DataFrame.apply':>32}")
    for name, found in times.items():
        each = [s / t for s, t in zip(serial, found, strict=False)]
        print(f"   {name:28}{statistics.median(found):9.3f}{statistics.median(each):20.2f} x")


_FIRST = """
import time, pandas as pd, scipy.optimize, parfit
df = pd.DataFrame({{"a": range(40)}})
def call():
    begin = time.perf_counter()
    parfit.apply_by_multiprocessing(df, lambda row: {function}, workers={workers})
    return time.perf_counter() - begin
first, second = call(), call()
print(first - second)
"""
_FUNCTIONS = {
    "a function of pandas alone": "row['a'] + 1.0",
    "one that uses scipy.optimize": "scipy.optimize.rosen([row['a'], 1.0])",
}


def first_call(repeats: int, workers: int) -> None:
    print(f"\n3. The first call of a process against the next: {workers} workers started, with what they import")
    extra: dict[str, list[float]] = {name: [] for name in _FUNCTIONS}
    for _ in range(repeats):
        for name, function in _FUNCTIONS.items():
            code = _FIRST.format(function=function, workers=workers)
            done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
            extra[name].append(float(done.stdout))
    for name, found in extra.items():
        print(f"   {name:32}{statistics.median(found):6.2f} s more   (min {min(found):.2f}, max {max(found):.2f})")


def fit_overhead(rows: int, repeats: int) -> None:
    t = np.linspace(0, 4, 20)
    rng = np.random.default_rng(3)
    a, k = rng.uniform(1, 3, rows), rng.uniform(0.3, 1, rows)
    values = a[:, None] * np.exp(-k[:, None] * t) + 0.5 + 0.02 * rng.normal(size=(rows, 20))
    df = pd.DataFrame(values)
    x0 = np.array([1.0, 1.0, 0.0])

    def error(p: np.ndarray, row: pd.Series) -> np.ndarray:
        return p[0] * np.exp(-p[1] * t) + p[2] - row.to_numpy()

    series = [row for _, row in df.iterrows()]
    runs = {
        "scipy.optimize.least_squares": lambda: [least_squares(error, x0, args=(row,), method="lm") for row in series],
        "the same in DataFrame.apply": lambda: df.apply(
            lambda row: pd.Series(least_squares(error, x0, args=(row,), method="lm").x), axis=1
        ),
        "parfit.fit, serial": lambda: parfit.fit(df, error, x0, method="lm", executor="serial"),
    }
    for run in runs.values():
        run()
    times = interleaved(runs, repeats)
    bare = times["scipy.optimize.least_squares"]
    print(f"\n4. {rows} exponential decays, 20 points, 3 parameters, one process")
    print(f"   {'':32}{'us a row':>10}{'over the bare call':>20}{'  (min – max)':>18}")
    for name, found in times.items():
        over = [1e6 * (t - b) / rows for t, b in zip(found, bare, strict=True)]
        shown = "" if found is bare else f"{statistics.median(over):17.0f} us"
        spread = "" if found is bare else f"{min(over):11.0f} – {max(over):.0f}"
        print(f"   {name:32}{1e6 * statistics.median(found) / rows:10.0f}{shown}{spread}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=400)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--only", type=int, choices=(1, 2, 3, 4))
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    print(f"parfit {parfit.__version__}, pandas {pd.__version__}, {parfit.cpu_count()} cores, {args.workers} workers")
    if args.only in (None, 1):
        heavy_tail(args.rows, args.repeats, args.workers)
    if args.only in (None, 2):
        tiny_rows(500_000, args.repeats, args.workers)
    if args.only in (None, 3):
        first_call(args.repeats, args.workers)
    if args.only in (None, 4):
        fit_overhead(2000, args.repeats)


if __name__ == "__main__":
    main()
