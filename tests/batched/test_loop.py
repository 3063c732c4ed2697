"""The loop over rows: a row's answer is its own, whatever its neighbours, and each row ends where it should."""

from __future__ import annotations

import signal
import threading
import time
from typing import Any

import numpy as np
import pandas as pd
import pytest

import parfit
from tests.batched.decays import T, decays, fit, table

pytest.importorskip("jax", reason="the batched engine needs jax")
import jax

from parfit import batched
from parfit.batched import loop as loops
from parfit.batched import streams

ROWS = 10_000
#: A row that needs more than ten times the steps of the others: its curve is nearly the other exponential.
HARD = 2.0 * np.exp(-0.5 * T) + 1e-3 * np.sin(40 * T)


def two_decays(p: Any, row: Any) -> Any:
    return p[0] * np.exp(-p[1] * T) + p[2] * np.exp(-p[3] * T) - row.to_numpy()


START = [1.0, 0.2, 1.0, 2.0]
MANY = pd.DataFrame(decays(ROWS, seed=1).to_numpy() + np.exp(-3 * T))


def fit_many(data: pd.DataFrame = MANY, **given: Any) -> parfit.Fits:
    return fit(data, two_decays, START, **given)


@pytest.fixture(scope="module")
def whole() -> parfit.Fits:
    """All rows at once."""
    return fit_many()


def assert_same(found: parfit.Fits, wanted: pd.DataFrame) -> None:
    """The same table, bit for bit."""
    pd.testing.assert_frame_equal(table(found), wanted, check_exact=True)


# ---- neighbours


@pytest.mark.parametrize("size", [1, 10, 1500])
def test_a_row_is_fitted_alone_as_in_any_company(size: int, whole: parfit.Fits) -> None:
    found = fit_many(MANY.iloc[:size])
    wanted = table(whole).iloc[:size]
    assert found.status.tolist() == wanted["status"].tolist()
    np.testing.assert_allclose(found.summary["cost"], wanted["cost"], rtol=1e-12)
    assert_same(found, wanted)


def test_rows_in_another_order_have_the_same_fits(whole: parfit.Fits) -> None:
    shuffled = MANY.sample(frac=1.0, random_state=3)
    assert_same(fit_many(shuffled), table(whole).loc[shuffled.index])


def test_bad_and_hard_rows_change_nothing_for_the_others(whole: parfit.Fits) -> None:
    data = MANY.copy()
    rng = np.random.default_rng(0)
    rows = rng.choice(ROWS, 300, replace=False)
    data.iloc[rows[:100]] = HARD
    data.iloc[rows[100:200], 3] = np.nan
    data.iloc[rows[200:], 3] = np.inf
    found = fit_many(data)
    assert_same_but_for(found, whole, rows)
    assert (found.status.iloc[rows[100:]] == "nonfinite").all()
    hard = found.summary.iloc[rows[:100]]
    assert hard["cost"].nunique() == hard["nfev"].nunique() == 1
    assert hard["nfev"].iloc[0] > 3 * whole.summary["nfev"].median()


def assert_same_but_for(found: parfit.Fits, wanted: parfit.Fits, rows: Any) -> None:
    labels = found.labels[rows]
    pd.testing.assert_frame_equal(table(found).drop(index=labels), table(wanted).drop(index=labels), check_exact=True)


def test_every_row_is_there_once_and_at_its_place(whole: parfit.Fits) -> None:
    assert len(whole) == ROWS
    assert whole.labels.equals(MANY.index)
    assert not (whole.status == "not_run").any()
    p = whole.params.to_numpy()
    r = p[:, :1] * np.exp(-p[:, 1:2] * T) + p[:, 2:3] * np.exp(-p[:, 3:] * T) - MANY.to_numpy()
    np.testing.assert_allclose(0.5 * (r * r).sum(axis=1), whole.summary["cost"], rtol=1e-9)


# ---- blocks and streams


@pytest.mark.parametrize("workers", [1, 3])
def test_the_number_of_streams_changes_nothing(workers: int, whole: parfit.Fits) -> None:
    assert_same(fit_many(workers=workers), table(whole))


def test_few_that_are_left_of_many_blocks_are_merged(monkeypatch: pytest.MonkeyPatch, whole: parfit.Fits) -> None:
    """Blocks of a chunk each: what is left of each is moved together."""
    merged: list[int] = []
    real = streams.merged

    def counting(blocks: list[Any]) -> Any:
        merged.append(len(blocks))
        return real(blocks)

    monkeypatch.setattr(streams, "merged", counting)
    monkeypatch.setattr(loops, "_SIZES", (1,))
    assert_same(fit_many(workers=2), table(whole))
    assert max(merged) > 1


def test_progress_follows_the_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    monkeypatch.setattr(loops, "_SIZES", (1,))
    fit_many(progress=lambda done, total: seen.append(done))
    assert len(seen) > 5
    assert seen == sorted(seen)
    assert seen[-1] == ROWS


# ---- limits


def test_a_limit_of_evaluations_ends_each_row_there(whole: parfit.Fits) -> None:
    limit = int(whole.summary["nfev"].median())
    found = fit_many(options={"max_nfev": limit})
    late = (whole.summary["nfev"] > limit).to_numpy()
    assert late.any()
    assert (found.status[late] == "max_steps").all()
    assert (found.summary["nfev"][late] == limit).all()
    assert (found.summary["message"][late] == parfit.Status.MAX_STEPS.sentence).all()
    pd.testing.assert_frame_equal(table(found)[~late], table(whole)[~late], check_exact=True)


# ---- an interrupt


def finished(fits: parfit.Fits, whole: parfit.Fits) -> int:
    """The number of finished rows, which are those of the whole run; the others have not run."""
    ran = (fits.status != "not_run").to_numpy()
    pd.testing.assert_frame_equal(table(fits)[ran], table(whole)[ran], check_exact=True)
    assert fits.params[~ran].isna().all(axis=None)
    return int(ran.sum())


def streams_alive() -> int:
    return sum(thread.name.endswith("(_stream)") for thread in threading.enumerate())


def test_an_interrupt_keeps_what_is_finished(monkeypatch: pytest.MonkeyPatch, whole: parfit.Fits) -> None:
    monkeypatch.setattr(loops, "_SIZES", (1,))

    def stop(done: int, total: int | None) -> None:
        if done > ROWS // 4:
            raise KeyboardInterrupt

    with pytest.raises(parfit.FitInterrupted, match=rf"interrupted with \d+ of {ROWS} datasets done") as caught:
        fit_many(progress=stop)
    assert ROWS // 4 < finished(caught.value.fits, whole) < ROWS
    assert streams_alive() == 0
    assert_same(fit_many(), table(whole))


def test_a_signal_stops_the_streams(monkeypatch: pytest.MonkeyPatch, whole: parfit.Fits) -> None:
    """As a Ctrl-C does, while this thread waits for the streams."""
    real = batched.judged

    def slowly(*given: Any) -> Any:
        time.sleep(0.05)
        return real(*given)

    timers: list[threading.Timer] = []

    def begin(done: int, total: int | None) -> None:
        if not timers:
            timers.append(threading.Timer(0.1, signal.raise_signal, (signal.SIGINT,)))
            timers[0].start()

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    with monkeypatch.context() as patch:
        patch.setattr(loops, "_SIZES", (1,))
        patch.setattr(batched, "judged", slowly)
        try:
            with pytest.raises(parfit.FitInterrupted) as caught:
                fit_many(progress=begin, workers=2)
        finally:
            timers[0].cancel()
            signal.signal(signal.SIGINT, before)
    assert 0 < finished(caught.value.fits, whole) < ROWS
    assert streams_alive() == 0
    assert_same(fit_many(MANY.iloc[:50]), table(whole).iloc[:50])


def test_an_exception_in_a_stream_is_raised_here(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError("no verdict")

    monkeypatch.setattr(batched, "judged", broken)
    with pytest.raises(RuntimeError, match="no verdict"):
        fit_many(MANY.iloc[:5])
    assert streams_alive() == 0


# ---- sizes


def test_few_shapes_are_compiled(whole: parfit.Fits) -> None:
    """A block's size is one of three, whatever the number of rows."""
    before = batched.counts()
    for rows in (1, 3, 17, 500, 777, 1024, 1025, 4000):
        fit_many(MANY.iloc[:rows])
    after = batched.counts()
    assert (after.compiled + after.loaded) - (before.compiled + before.loaded) <= 3
    again = batched.counts()
    fit_many(MANY.iloc[:2000])
    assert (batched.counts().compiled, batched.counts().loaded) == (again.compiled, again.loaded)


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="chunks of an accelerator have one width")
def test_the_width_of_a_chunk_is_a_power_of_two_that_keeps_to_the_cache() -> None:
    widths = [loops.chunk_width(numbers, 8) for numbers in (0, 1, 15, 100, 1000, 10**6)]
    assert widths == sorted(widths, reverse=True)
    assert all(width & (width - 1) == 0 for width in widths)
    assert widths[-1] == 32
