"""Clusters beside the default executor: parallel efficiency on 5 ms rows, and what a large model costs to send.

    python benchmarks/clusters.py [--rows 1000] [--repeats 3] [--mb 100] [--only efficiency|bytes]

Dask: a LocalCluster of two worker processes with a thread each; Ray: two CPUs on this machine; both started beforehand,
as a user's cluster is. Two tables:

1. Rows of about 5 ms, a loop of fixed length: serial time / (2 x wall time) of whole calls, medians over interleaved
   repeats. `warm` leaves out each executor's first call.
2. A model of 100 MB in the objective's arguments: how often it is pickled here, in how many worker processes it
   arrives, and how often in each; so the bytes that each is sent. Under Dask and Ray, the worker of the cluster passes
   it on unopened, so that it holds these bytes, too.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import parfit

WORKERS = 2


def burn(row: pd.Series) -> float:
    total = 0.0
    for i in range(int(row["steps"])):
        total += i * 1e-9
    return total


def steps_for(seconds: float) -> int:
    begin = time.perf_counter()
    burn(pd.Series({"steps": 2_000_000}))
    return int(2_000_000 * seconds / (time.perf_counter() - begin))


@contextlib.contextmanager
def clusters() -> Iterator[dict[str, Any]]:
    """The executors, by what they are called in the tables."""
    import distributed
    import ray

    ray.init(num_cpus=WORKERS, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    with (
        distributed.LocalCluster(n_workers=WORKERS, threads_per_worker=1, dashboard_address="127.0.0.1:0") as cluster,
        distributed.Client(cluster, set_as_default=False) as client,
    ):
        try:
            yield {"processes": "processes", "dask": client, "ray": "ray"}
        finally:
            ray.shutdown()


def timed(call: Callable[[], Any]) -> float:
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def efficiency(rows: int, repeats: int, executors: dict[str, Any]) -> None:
    df = pd.DataFrame({"steps": np.full(rows, steps_for(0.005))})

    def over(executor: Any) -> Callable[[], Any]:
        workers = None if executor == "serial" else WORKERS
        return lambda: parfit.apply_by_multiprocessing(df, burn, workers, executor=executor, progress=False)

    calls = {"serial": over("serial"), **{name: over(executor) for name, executor in executors.items()}}
    first = {name: timed(call) for name, call in calls.items()}
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            times[name].append(timed(call))
    serial = statistics.median(times["serial"])
    print(f"\n{rows} rows of {serial / rows * 1e3:.1f} ms, {WORKERS} workers, medians of {repeats}")
    print("executor     first call s   warm s   efficiency")
    for name, found in times.items():
        wall = statistics.median(found)
        share = serial / wall / (1 if name == "serial" else WORKERS)
        print(f"{name:12s} {first[name]:12.2f} {wall:8.2f}   {share:9.1%}")


class Model:
    """An array that says where it arrives, and counts how often it is pickled."""

    pickled = 0

    def __init__(self, mb: float, folder: str) -> None:
        self.values = np.ones(int(mb * 2**20 / 8))
        self.folder = folder

    def __getstate__(self) -> dict[str, Any]:
        Model.pickled += 1
        return self.__dict__

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        with open(Path(self.folder, "arrivals"), "a") as note:
            note.write(f"{os.getpid()}\n")


def misfit(params: np.ndarray, row: pd.Series, model: Model) -> np.ndarray:
    time.sleep(0.002)
    return params - row.to_numpy() * model.values[:2]


def sent(mb: float, executors: dict[str, Any]) -> None:
    df = pd.DataFrame(np.random.default_rng(0).normal(size=(300, 2)))
    print(f"\na model of {mb:g} MB, {len(df)} rows")
    print("executor            pickled   worker processes   arrivals in each   MB sent to each   call s")
    local = {name: name for name in ("processes", "producer_consumer", "multiprocessing", "loky", "joblib")}
    for name, executor in {**local, **executors}.items():
        with tempfile.TemporaryDirectory() as folder:
            model, Model.pickled = Model(mb, folder), 0
            took = timed(
                lambda model=model, executor=executor: parfit.fit(  # type: ignore[misc]
                    df, misfit, [0.0, 0.0], args=(model,), engine="rows", executor=executor, workers=WORKERS
                )
            )
            arrived = Counter(Path(folder, "arrivals").read_text().split())
            most = max(arrived.values())
            print(f"{name:18s} {Model.pickled:8d} {len(arrived):18d} {most:18d} {most * mb:17.0f} {took:8.2f}")
        parfit.shutdown_workers()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--mb", type=float, default=100)
    parser.add_argument("--only", choices=["efficiency", "bytes"])
    args = parser.parse_args()
    with clusters() as executors:
        if args.only != "bytes":
            efficiency(args.rows, args.repeats, executors)
        if args.only != "efficiency":
            sent(args.mb, executors)


if __name__ == "__main__":
    main()
