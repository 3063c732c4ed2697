"""All datasets at once, with JAX: one compiled program instead of one call of SciPy a dataset.

    plan.py      is the objective traceable, and equal to itself? programs and shapes
                     ── tracing/: from the caller's function and data to a program ── starts.py: starts and bounds
                     ── compare.py: the same values as plain calls?
    streams.py   blocks of rows on several threads ── loop.py: the only file that knows of the batch axis
                     ── blocks.py: rows on their way ── staging.py: memory used again
    lm.py, lbfgsb.py, neldermead.py   the mathematics of one row, `init / step / terminate`, of a lane.py
                     ── normal.py, trust.py, linalg.py: what they are made of ── ends.py: why a row has ended
    verdict.py   what an end is worth
    compiled.py  double precision, compiled once ── cache.py: and kept on disk
    derivatives.py, sensitivity.py   of objectives for the rows engine, of solutions ── calculus.py: what both need

Nothing here is imported before a fit wants it.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parfit.core.errors import missing_package

if importlib.util.find_spec("jax") is None:
    raise missing_package("jax", "the batched engine", "jax")

from parfit.batched.blocks import Finished
from parfit.batched.compiled import Counts, counts
from parfit.batched.lbfgsb import LBFGSB
from parfit.batched.lm import LM
from parfit.batched.neldermead import NelderMead
from parfit.batched.plan import Bucket, Plan, Shape, make_plan
from parfit.batched.streams import run_streams
from parfit.batched.tracing.untraceable import Untraceable
from parfit.batched.verdict import judged
from parfit.core.protocols import BatchedSolver

__all__ = [
    "METHODS",
    "Bucket",
    "Counts",
    "Finished",
    "Plan",
    "Shape",
    "Untraceable",
    "counts",
    "judged",
    "make_plan",
    "run",
]

#: By the names of SciPy's methods that they stand for.
METHODS: dict[str, type[BatchedSolver]] = {solver.name: solver for solver in (LM, LBFGSB, NelderMead)}
#: The most that the data of one block may take, bytes.
_BLOCK_BYTES = 1 << 26


def run(plan: Plan, conclude: Callable[[Bucket, Finished], Any], streams: int) -> Iterator[Any]:
    """Take all rows of a plan to their end; yields what `conclude` makes of those that have ended, as they do."""
    for bucket in plan.buckets:
        chunks = _chunks(bucket, streams)
        yield from run_streams(
            bucket.loop,
            chunks,
            lambda positions, bucket=bucket: plan.block(bucket, positions),  # type: ignore[misc]
            lambda found, bucket=bucket: conclude(bucket, found),  # type: ignore[misc]
            streams,
        )


def _chunks(bucket: Bucket, streams: int) -> list[NDArray[np.intp]]:
    """The positions in blocks: as large as they may be, and the rest in equal parts for the streams."""
    width, rows = bucket.loop.width, len(bucket.positions)
    most = max(1, min(bucket.loop.most, _BLOCK_BYTES // max(bucket.loop.row_bytes, 1)) // width) * width
    whole = rows // (most * streams) * streams
    part = -(-(rows - whole * most) // (streams * width)) * width
    ends = [most * i for i in range(1, whole + 1)] + list(range(whole * most + part, rows, max(part, 1)))
    return [part for part in np.split(bucket.positions, ends) if len(part)]
