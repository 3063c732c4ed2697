"""Situations of `fit` where all rows run at once: the same answers, a status for each, no row waits for another."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import curve_fit, least_squares

import parfit
from tests.programs import run_program
from tests.situations.lines import START, T, assert_equal_but_for, lines, residuals, table

pytest.importorskip("jax", reason="the batched engine needs jax")
from parfit import batched


@pytest.fixture(scope="module", autouse=True)
def compiled_programs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Compiled programs are kept for this run, and the user's own cache is not touched."""
    with pytest.MonkeyPatch.context() as patch:
        if "PARFIT_CACHE_DIR" not in os.environ:
            patch.setenv("PARFIT_CACHE_DIR", str(tmp_path_factory.getbasetemp() / "parfit-cache"))
        yield


def fit(data: Any, objective: Any = residuals, x0: Any = START, **given: Any) -> parfit.Fits:
    return parfit.fit(data, objective, x0, **{"engine": "batch", **given})


# ---- 9: serial and parallel disagree


def test_the_table_is_bit_for_bit_the_same_whatever_the_number_of_workers():
    """pyspeckit#424, pandarallel#187."""
    frame = lines(3000)
    tables = [table(fit(frame, workers=workers)) for workers in (1, 2, 5)]
    for other in (*tables[1:], table(fit(frame.sample(frac=1, random_state=1))).loc[frame.index]):
        pd.testing.assert_frame_equal(other, tables[0], check_exact=True)


# ---- 10: one bad element throws for a whole batch


def test_every_lane_has_its_own_status():
    """optimistix#66."""

    def decay(p, row):
        return p["height"] * np.exp(-p["slope"] * T) + 1e-3 * np.log(1 + row.to_numpy().min()) - row.to_numpy()

    clean = lines(200).abs()
    frame = clean.copy()
    frame.loc["r3", "t4"] = np.nan
    frame.loc["r8", "t0"] = np.inf
    frame.loc["r21"] = -np.inf
    frame.loc["r30", "t2"] = -2.0  # the logarithm is NaN, where another library would raise
    frame.loc["r40"] = 0.0
    start = {"height": 1.0, "slope": 0.1}
    fits = fit(frame, decay, start)
    found = fits.status.astype(str)
    assert found[["r3", "r8", "r21", "r30"]].tolist() == ["nonfinite"] * 4
    assert fits.params.loc["r40", "height"] == pytest.approx(0, abs=1e-6)
    assert len(fits.errors) == 0
    whole = fit(clean, decay, start)
    assert_equal_but_for(fits, whole, ["r3", "r8", "r21", "r30", "r40"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # NumPy's, of the logarithm
        rows = fit(frame, decay, start, engine="rows", executor="serial")
    bad = ["r3", "r8", "r21", "r30"]
    assert found[bad].tolist() == rows.status.astype(str)[bad].tolist()
    assert fits.summary["message"][bad].tolist() == rows.summary["message"][bad].tolist()


# ---- 11: the batch runs until its slowest row


def valley(p: Any, row: Any) -> Any:
    """Rosenbrock's, as steep as the row says."""
    return np.stack([row["steep"] * (p[1] - p[0] ** 2), 1 - p[0]])


def chunk_steps(monkeypatch: pytest.MonkeyPatch, frame: pd.DataFrame) -> tuple[int, parfit.Fits]:
    """How many chunks were taken a step further, at most, and the fits."""
    from parfit.batched import loop as loops

    total = 0
    real = loops.Loop.advance

    def counting(self: Any, size: int) -> Any:
        program = real(self, size)

        def run(*arguments: Any) -> Any:
            nonlocal total
            begin, end, _, k, _ = arguments[4:]
            total += int(end - begin) * int(k)
            return program(*arguments)

        return run

    monkeypatch.setattr(loops.Loop, "advance", counting)
    fits = fit(frame, valley, [-1.2, 1.0], workers=1, options={"max_nfev": 2000})
    monkeypatch.setattr(loops.Loop, "advance", real)
    return total, fits


def test_hard_rows_do_not_hold_up_the_others(monkeypatch):
    """jax#485, optimistix#67: one hard lane in 20,000 made a vmapped solver 11 times slower."""
    frame = pd.DataFrame({"steep": np.full(20_000, 1.0)})
    easy, fits = chunk_steps(monkeypatch, frame)
    assert fits.success.all()
    frame.iloc[7777] = 3000.0
    one, fits = chunk_steps(monkeypatch, frame)
    assert fits.success.all()
    nfev = fits.summary["nfev"]
    assert nfev[7777] > 10 * nfev.median()
    assert one - easy <= nfev[7777] + 64  # one chunk went on, and not all that there are
    frame.iloc[::100] = 3000.0
    many, fits = chunk_steps(monkeypatch, frame)
    assert fits.success.all()
    assert many - easy <= 2 * nfev[7777] + 64  # the hard ones of all chunks went on together


# ---- 12: the accelerated answer is not SciPy's


def test_the_answer_is_scipys():
    """jaxopt#275, Gpufit#90, diffrax#692: float64 by default, a row alone as in a batch, SciPy the referee."""
    frame = lines(300)
    tight = {"ftol": 1e-12, "xtol": 1e-12, "gtol": 1e-12}
    fits = fit(frame, options=tight)
    assert set(fits.params.dtypes) == {np.dtype("float64")}
    for label in ("r0", "r150", "r299"):
        row = frame.loc[label]
        wanted = least_squares(lambda p, row=row: residuals({"height": p[0], "slope": p[1]}, row), [1.0, 0.0], **tight)
        np.testing.assert_allclose(fits.params.loc[label], wanted.x, rtol=1e-7)
        np.testing.assert_allclose(fits.summary.loc[label, "cost"], wanted.cost, rtol=1e-12)
        alone = fit(frame.loc[[label]], options=tight)
        pd.testing.assert_frame_equal(table(alone), table(fits).loc[[label]], check_exact=True)


# ---- 21: fork after jax, and workers on the GPU


AFTER_JAX = """
    import os, sys
    import jax, numpy as np, pandas as pd, parfit

    forks = []
    os.register_at_fork(before=lambda: forks.append(1))
    frame = pd.DataFrame(np.arange(24.0).reshape(8, 3))

    def objective(p, row):
        return np.stack([p[0] - row[0], p[0] - row[1], p[0] - row[2]])

    def seen(p, row):
        import os, sys
        assert "jax" not in sys.modules
        assert os.environ["JAX_PLATFORMS"] == "cpu" or os.environ["CUDA_VISIBLE_DEVICES"] == ""
        return objective(p, row)

    if __name__ == "__main__":
        batch = parfit.fit(frame, objective, [0.0])
        assert batch.engine == "batch", batch.engine_reason
        rows = parfit.fit(frame, objective, [0.0], engine="rows", workers=2)
        np.testing.assert_allclose(rows.params, batch.params, rtol=1e-6)
        there = parfit.fit(frame, seen, [0.0], workers=2)
        assert there.engine == "rows"
        assert there.success.all(), there.errors["message"].tolist()
        again = parfit.fit(frame, objective, [0.0], engine="batch")
        assert again.params.equals(batch.params)
        print(len(forks))
"""


@pytest.mark.slow
def test_rows_run_after_jax_without_a_fork_and_see_no_gpu(tmp_path):
    """jax#18989, jax#1075."""
    cache = os.environ["PARFIT_CACHE_DIR"]
    assert run_program(tmp_path, AFTER_JAX, PARFIT_CACHE_DIR=cache, JAX_PLATFORMS="cpu") == "0\n"


# ---- 23: ragged, missing, per-row x


def test_ragged_missing_and_a_predictor_of_each_row():
    """Gpufit#85, lmfit#480, jax#5000: padded and masked equals unpadded, and the number of compilations is bounded."""
    rng = np.random.default_rng(1)
    lengths = rng.integers(5, 40, 60)
    long = pd.DataFrame({"g": np.repeat(np.arange(60), lengths), "t": rng.uniform(0, 4, lengths.sum())})
    long["y"] = 2 + 0.5 * long["g"] - long["t"] + 0.1 * rng.standard_normal(len(long))
    long.loc[::11, "y"] = np.nan

    def line(p, part):
        r = p["height"] + p["slope"] * part["t"] - part["y"]
        return np.where(np.isnan(part["y"]), 0.0, r)

    before = batched.counts()
    fits = fit(long.groupby("g"), line)
    after = batched.counts()
    assert fits.success.all()
    assert after.compiled + after.loaded - before.compiled - before.loaded <= 3
    for g, part in long.dropna().groupby("g"):
        slope, height = np.polyfit(part["t"], part["y"], 1)
        np.testing.assert_allclose(fits.params.loc[g], [height, slope], rtol=1e-7)


# ---- 24: no uncertainties from the batch


def test_the_uncertainties_are_those_of_curve_fit():
    """Gpufit#81, lmfit#720."""
    frame = lines(100)
    fits = fit(frame)
    interval = fits.conf_int(0.95)
    for label in ("r0", "r42", "r99"):
        wanted, cov = curve_fit(lambda t, a, b: a + b * t, T, frame.loc[label], [1.0, 0.0])
        np.testing.assert_allclose(fits.params.loc[label], wanted, rtol=1e-6)
        np.testing.assert_allclose(fits.cov(label), cov, rtol=1e-6)
        np.testing.assert_allclose(fits.stderr.loc[label], np.sqrt(np.diag(cov)), rtol=1e-6)
        half = 2.364624251592785 * np.sqrt(np.diag(cov))  # Student's t with 7 degrees of freedom
        np.testing.assert_allclose(interval.loc[label].xs("upper", level=1) - wanted, half, rtol=1e-5)
    rows = fit(frame, engine="rows", executor="serial")
    assert list(table(fits).columns) == list(table(rows).columns)
    assert table(fits).dtypes.equals(table(rows).dtypes)
    np.testing.assert_allclose(fits.stderr, rows.stderr, rtol=1e-6)
    np.testing.assert_allclose(interval, rows.conf_int(0.95), rtol=1e-5, atol=1e-7)
