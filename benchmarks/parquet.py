"""Data that are longer than memory: rows of a Parquet file, fitted a window at a time; rows a second, and peak memory.

    python benchmarks/parquet.py [--rows 10_000_000] [--folder FOLDER] [--engine batch] [--only parquet sqlite frame …]

parquet   fit(path, …, store="fits.parquet"): a window of data and a part of the results in memory
sqlite    fit(path, …, store="fits.db"): a window of data, and all results in memory
again     the first once more, with nothing left to do
none      fit(path, …): the same without a file
frame     fit(pandas.read_parquet(path), …): all data, and all results

Each runs in a process of its own, whose peak resident memory is told, and that of its children. Small decays: 20
points, 3 parameters.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

T = np.linspace(0, 4, 20)
START = {"height": 5.0, "rate": 1.0, "floor": 0.5}
STORES = {"parquet": "fits.parquet", "again": "fits.parquet", "sqlite": "fits.db", "none": None, "frame": None}
_CHUNK = 200_000


def write(path: Path, rows: int) -> None:
    """The rows, a chunk of them in memory at a time."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema([(f"y{i}", pa.float64()) for i in range(len(T))])
    rng = np.random.default_rng(0)
    with pq.ParquetWriter(path, schema) as file:
        for at in range(0, rows, _CHUNK):
            k = min(_CHUNK, rows - at)
            p = rng.uniform([1, 0.5, 0], [10, 2, 1], (k, 3))
            y = p[:, :1] * np.exp(-p[:, 1:2] * T) + p[:, 2:] + rng.normal(0, 0.1, (k, len(T)))
            file.write_table(pa.table(list(np.ascontiguousarray(y.T)), schema=schema))


def residuals(p: Any, row: Any) -> Any:
    return p["height"] * np.exp(-p["rate"] * T) + p["floor"] - row.to_numpy()


def one(name: str, folder: Path, engine: str) -> None:
    """One call, in this process."""
    import pandas as pd

    import parfit

    parfit.fit(pd.DataFrame(np.ones((9, len(T)))), residuals, START, engine=engine)  # imports
    before = _peak(resource.RUSAGE_SELF)
    path, store = folder / "data.parquet", STORES[name]
    begin = time.perf_counter()
    data = pd.read_parquet(path) if name == "frame" else path
    more = {} if store is None else {"store": folder / store}
    fits: Any = parfit.fit(data, residuals, START, engine=engine, progress=False, **more)
    seconds = time.perf_counter() - begin
    parfit.shutdown_workers()  # so that their memory is known
    counts = fits.counts if name in ("parquet", "again") else fits.status.value_counts()
    print(
        f"{name:<8} {len(fits):>12,} rows {seconds:>8.1f} s {len(fits) / seconds:>12,.0f} rows/s   peak "
        f"{_peak(resource.RUSAGE_SELF):.2f} GB ({before:.2f} before; children {_peak(resource.RUSAGE_CHILDREN):.2f})   "
        f"{int(counts['converged']):,} converged",
        flush=True,
    )


def _peak(who: int) -> float:
    return resource.getrusage(who).ru_maxrss / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--folder", help="where the files go, which are removed; by default that of temporary files")
    parser.add_argument("--only", nargs="+", choices=STORES, default=list(STORES))
    parser.add_argument("--engine", choices=["batch", "rows"], default="batch")
    parser.add_argument("--one", nargs=2, metavar=("NAME", "FOLDER"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        one(asked.one[0], Path(asked.one[1]), asked.engine)
        return
    with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
        path = Path(folder) / "data.parquet"
        begin = time.perf_counter()
        write(path, asked.rows)
        size, peak = path.stat().st_size / 2**30, _peak(resource.RUSAGE_SELF)
        print(f"{asked.rows:,} rows written: {size:.2f} GB, {time.perf_counter() - begin:.0f} s, peak {peak:.2f} GB")
        for name in asked.only:
            command = [sys.executable, os.fspath(Path(__file__)), "--engine", asked.engine, "--one", name, folder]
            subprocess.run(command, check=False)
            if name == "sqlite":
                (Path(folder) / "fits.db").unlink(missing_ok=True)


if __name__ == "__main__":
    main()
