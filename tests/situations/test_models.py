"""System dynamics models in workers: they travel, keep nothing from run to run, and the published recipe runs."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import parfit
from parfit import apply_by_multiprocessing, load_model
from parfit.datasets import aging_chain_path, load_alabama

pytest.importorskip("pysd")

RATES = [f"dec_{i}_loss_rate" for i in range(1, 10)]


@pytest.fixture(scope="module")
def chain():
    return load_model(aging_chain_path())


@pytest.fixture(scope="module")
def counties():
    return load_alabama()


def in_2010(model, county, rates):
    start = (2000, county["2000"])
    return model.run(dict(zip(RATES, rates, strict=True)), start, return_timestamps=2010).loc[2010]


@pytest.mark.parametrize("executor", ["processes", "loky"])
def test_a_model_travels_to_the_workers(executor, chain, counties):
    """pysd#62, pysd#131: pickle, cloudpickle and deepcopy all fail."""
    wanted = counties.apply(lambda county: in_2010(chain, county, [0.05] * 9), axis=1)
    in_closure = apply_by_multiprocessing(counties, lambda c: in_2010(chain, c, [0.05] * 9), 2, executor=executor)
    pd.testing.assert_frame_equal(in_closure, wanted, check_exact=True)
    handed = apply_by_multiprocessing(
        counties, lambda c, model: in_2010(model, c, [0.05] * 9), 2, args=(chain,), executor=executor
    )
    pd.testing.assert_frame_equal(handed, wanted, check_exact=True)


def test_the_order_of_the_rows_never_changes_their_results(chain, counties):
    """pysd#99, pysd#212: a run kept the parameters of the one before, so that rows depended on their neighbours."""

    def scored(county):
        i = int(county.name[1])
        rates = 0.001 + 0.01 * i * np.ones(9)
        with_rates = in_2010(chain, county, rates).sum() if i % 3 else -1.0
        plain = chain.run(initial_condition=(2000, county["2000"]), return_timestamps=2010).loc[2010].sum()
        return pd.Series({"with_rates": with_rates, "plain": plain})

    wanted = counties.apply(scored, axis=1)
    assert (wanted["with_rates"] != wanted["plain"]).all()
    for seed in range(3):
        shuffled = counties.sample(frac=1.0, random_state=seed)
        found = apply_by_multiprocessing(shuffled, scored, 2)
        pd.testing.assert_frame_equal(found.loc[counties.index], wanted, check_exact=True)
        assert found.index.equals(shuffled.index)


def test_every_worker_may_translate_the_same_file(tmp_path, chain):
    """Translators write a file beside their input: 8 processes at a time failed in 3 of 200 calls."""
    file = Path(shutil.copy(aging_chain_path(), tmp_path))
    tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    before = tmp_path.stat().st_mtime_ns  # which a file leaves behind that was there for a moment only
    try:
        found = apply_by_multiprocessing(
            pd.DataFrame({"a": range(6)}), lambda row: load_model(file).run(return_timestamps=2010).iloc[0].sum(), 3
        )
    finally:
        tmp_path.chmod(stat.S_IRWXU)
    assert os.listdir(tmp_path) == [file.name]
    assert tmp_path.stat().st_mtime_ns == before
    assert found.tolist() == [chain.run(return_timestamps=2010).iloc[0].sum()] * 6


def test_the_published_recipe_runs(chain, counties):
    """The recipe of the book: `np.array_split` of frames, ``rtol`` and default columns have changed under it.

    pysd inside an error function inside `minimize` inside `apply`, and the same by `fit`.
    """
    from scipy.optimize import minimize

    def error(rates, county):
        end = chain.run(
            params=dict(zip(RATES, rates, strict=True)),
            initial_condition=(2000, county["2000"]),
            return_timestamps=2010,
            rtol=1,
        ).loc[2010]
        return ((end - county["2010"]).iloc[1:] ** 2).sum()

    few = {"maxfun": 25}

    def fitted(county):
        found = minimize(error, [0.05] * 9, args=(county,), method="L-BFGS-B", options=few)
        return pd.Series([*found.x, found.fun], index=[*RATES, "error"])

    pair = counties.iloc[:2]
    end = in_2010(chain, pair.iloc[0], [0.05] * 9)
    assert len(end) == 9
    assert (end - pair.iloc[0]["2010"]).notna().all()
    by_apply = apply_by_multiprocessing(pair, fitted, 2)
    assert by_apply.notna().all(axis=None)
    by_fit = parfit.fit(pair, error, [0.05] * 9, options=few, workers=2, engine="rows")
    np.testing.assert_array_equal(by_fit.params.to_numpy(), by_apply[RATES].to_numpy())
    np.testing.assert_array_equal(by_fit.summary["cost"], by_apply["error"])
    at_start = [error([0.05] * 9, county) for _, county in pair.iterrows()]
    assert (by_apply["error"] < at_start).all()
