"""Serial and parallel disagree, seeds follow the worker, results outgrow the data, and odd frames lose their labels.

Tables are the same bit for bit wherever rows run, random numbers follow a row's position, and labels come back.
"""

from __future__ import annotations

import gc
import pickle
import tracemalloc
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pytest
from pandas.testing import assert_frame_equal

import parfit
from parfit.core.protocols import Capabilities, Executor, Pool, TaskFunction, Tasks
from parfit.core.solution import Outcome, OutcomeKind, Solution, Status
from tests.situations.lines import START, T, lines, residuals, squares, table

# ---- the same table


@pytest.mark.parametrize(
    "executor", ["serial", "threads", "processes", "multiprocessing", "loky", "joblib", "producer_consumer"]
)
def test_serial_and_parallel_agree_to_the_last_bit(executor):
    """pyspeckit#424, pandarallel#187: across executors, worker counts and chunk sizes."""
    frame = lines(40)
    wanted = parfit.fit(frame, squares, START, executor="serial", chunk_size=1)
    for workers, chunk_size in ((1, None), (2, 7), (3, 1)) if executor == "processes" else ((2, 7),):
        given = None if executor == "serial" else workers
        fits = parfit.fit(frame, squares, START, executor=executor, workers=given, chunk_size=chunk_size)
        assert_frame_equal(table(fits), table(wanted), check_exact=True)


def noisy(p: Any, row: Any) -> Any:
    return residuals(p, row) + np.random.standard_normal(len(T))  # noqa: NPY002 - as users do


def test_random_numbers_follow_the_row_and_not_the_worker():
    """numpy#9650, pints#1360: forked workers drew the same numbers, and others at each run."""
    frame = pd.DataFrame(np.zeros((12, len(T))))
    given = {"method": "trf", "options": {"max_nfev": 1}}
    drawn = [
        parfit.fit(frame, noisy, START, executor=executor, workers=workers, chunk_size=size, **given).summary["cost"]
        for executor, workers, size in (("serial", None, 5), ("processes", 2, 1), ("processes", 3, 5), ("loky", 2, 3))
    ]
    for other in drawn[1:]:
        pd.testing.assert_series_equal(other, drawn[0], check_exact=True)
    assert drawn[0].nunique() == 12  # no two rows draw the same
    other_seed = parfit.fit(frame, noisy, START, seed=1, executor="serial", **given).summary["cost"]
    assert not (other_seed == drawn[0]).any()
    part = parfit.fit(frame.iloc[:5], noisy, START, executor="serial", **given).summary["cost"]
    assert (part == drawn[0].iloc[:5]).all()


# ---- what comes back is small


class Instant(Executor):
    """Has an answer at once, so that a great many rows take no time."""

    name: ClassVar[str] = "instant"
    capabilities: ClassVar[Capabilities] = Capabilities(False, False, own_process=False)

    @contextmanager
    def open(self, setup: Callable[[], Any] | None = None, *, retries: int = 1) -> Iterator[Pool]:
        yield InstantPool()


@dataclass
class InstantPool(Pool):
    def imap_unordered(
        self, function: TaskFunction, tasks: Tasks | Iterable[tuple[Hashable, Any]], timeout: float | None = None
    ) -> Iterator[Outcome]:
        cov = np.eye(2)
        assert isinstance(tasks, Tasks)
        while (block := tasks.take(10_000)) is not None:
            for i in block.keys():
                x = np.array([float(i), 1.0])
                solution = Solution(
                    x, Status.CONVERGED, "met its tolerance", 0.5 * i, 9, 3, 3, 2, 1e-9, None, None, cov, 2
                )
                yield Outcome(i, OutcomeKind.DONE, solution, None, 1e-4)


def test_results_are_compact():
    """astropy#17538, joblib#1242: they were larger than the data, or than the memory."""
    n = 100_000
    frame = pd.DataFrame({"y": np.zeros(n)})
    gc.collect()
    tracemalloc.start()
    try:
        fits = parfit.fit(frame, residuals, START, executor=Instant())
        gc.collect()
        held, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(fits) == n
    assert fits.params["height"].iloc[-1] == n - 1
    assert held / n < 300
    assert peak / n < 600
    assert len(pickle.dumps(fits.summary["cost"])) < 20 * n


# ---- odd frames

INDEXES = {
    "duplicates": pd.Index(["a", "b", "a", "a"]),
    "two_levels": pd.MultiIndex.from_tuples([("AL", 1), ("AL", 3), ("GA", 1), ("AL", 1)], names=["state", "county"]),
    "dates": pd.date_range("2020", periods=4, freq="D", name="day"),
    "tuples": pd.Index([(1, 2), (3,), None, "x"], tupleize_cols=False),
    "floats": pd.Index([0.5, np.nan, np.inf, -1.0]),
    "categories": pd.CategoricalIndex(list("abca")),
}


@pytest.mark.parametrize("workers", [2, 9])
@pytest.mark.parametrize("name", INDEXES)
def test_labels_of_any_kind_round_trip(name, workers):
    """dask#4172, pandarallel#115, pandarallel#67."""
    frame = lines(4).set_axis(INDEXES[name])
    fits = parfit.fit(frame, residuals, START, workers=workers, engine="rows")
    for found in (fits.params, fits.summary, fits.stderr):
        pd.testing.assert_index_equal(found.index, frame.index, exact=True)
    np.testing.assert_array_equal(fits.params, parfit.fit(lines(4), residuals, START, executor="serial").params)


@pytest.mark.parametrize("executor", ["serial", "processes"])
@pytest.mark.parametrize("rows", [0, 1, 2])
def test_few_rows_and_none(rows, executor):
    """dask#4172, pandarallel#67: more workers than rows, and no rows at all."""
    frame = lines(5).iloc[:rows]
    fits = parfit.fit(frame, residuals, START, executor=executor, workers=None if executor == "serial" else 4)
    assert len(fits) == rows
    assert list(fits.params.columns) == ["height", "slope"]
    pd.testing.assert_index_equal(fits.params.index, frame.index)
    assert fits.success.all()
    assert fits.summary.dtypes.equals(parfit.fit(lines(3), residuals, START, executor="serial").summary.dtypes)


def test_a_model_is_only_ever_called_with_the_users_data():
    """dask#4172: a function was called with "foo" to see what it returns."""
    seen = []

    def objective(p, row):
        seen.append((row.name, tuple(row), p["height"]))
        return residuals(p, row)

    frame = lines(3)
    parfit.fit(frame, objective, START, executor="serial")
    assert {(name, values) for name, values, _ in seen} == {(name, tuple(row)) for name, row in frame.iterrows()}
    assert seen[0][2] == START["height"]
    seen.clear()
    parfit.fit(frame.iloc[:0], objective, START, executor="serial")
    assert seen == []
    parfit.apply_by_multiprocessing(frame, lambda row: seen.append((row.name, tuple(row))), executor="serial")
    assert seen == [(name, tuple(row)) for name, row in frame.iterrows()]
