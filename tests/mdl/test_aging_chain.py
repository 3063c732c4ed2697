"""The ageing chain against PySD, a loop written by hand, and the recipe that people use."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from pandas.testing import assert_frame_equal
from scipy.optimize import minimize

from tests.mdl.same import assert_same_run

STOCKS = [f"dec_{i}" for i in range(1, 10)]
RATES = [f"dec_{i}_loss_rate" for i in range(1, 10)]


def by_hand(start, rates, births=0.0, years=10.0, step=0.125):
    """Euler's method for nine cohorts."""
    people = np.array(start, dtype=float)
    rates = np.asarray(rates)
    for _ in range(round(years / step)):
        birthdays = people / 10
        birthdays[-1] = 0
        arrivals = np.concatenate([[births], birthdays[:-1]])
        people = people + step * (arrivals - birthdays - people * rates)
    return people


def test_contents(aging):
    doc = aging.doc.set_index("Py Name")
    assert aging.stocks == STOCKS
    assert set(doc.index) == {
        "time", "initial_time", "final_time", "time_step", "saveper", "births",
        *STOCKS, *RATES, *(f"dec_{i}_loss" for i in range(1, 10)), *(f"bday{i}0" for i in range(1, 9)),
    }  # fmt: skip
    assert (doc["Comment"].str.len() > 0).all()
    assert doc.drop(index="time")["Units"].notna().all()


def test_parameters(aging):
    table = aging.parameters
    assert list(table.index) == [*RATES, "births"]
    assert list(table["value"]) == [0.05] * 9 + [0.0]
    assert list(table["real_name"])[:2] == ["dec 1 loss rate", "dec 2 loss rate"]
    assert table.loc["births", "units"] == "People/Year"
    assert table["doc"].str.len().min() > 0
    table.loc["births", "value"] = 7.0
    assert aging.parameters.loc["births", "value"] == 0.0


def test_plain_run_is_the_models_own(aging, aging_file, referee):
    run = aging.run()
    assert list(run.columns) == STOCKS
    assert run.index.name == "time"
    assert list(run.index) == list(np.arange(2000, 2010.0625, 0.125))
    assert_same_run(aging, run, referee(aging_file).run(return_columns=STOCKS))
    np.testing.assert_allclose(run.loc[2010], by_hand([10] * 9, [0.05] * 9), rtol=1e-13)
    assert run.loc[2010, "dec_1"] == pytest.approx(10 * (1 - 0.125 * 0.15) ** 80, rel=1e-13)


def test_by_hand_for_five_counties(aging, counties):
    rng = np.random.default_rng(0)
    for _, county in counties.iterrows():
        rates = rng.normal(0, 0.05, 9)
        end = aging.run(dict(zip(RATES, rates, strict=True)) | {"births": 321}, (2000, county["2000"]), 2010)
        np.testing.assert_allclose(end.loc[2010], by_hand(county["2000"], rates, births=321.0), rtol=1e-12, atol=1e-12)


def test_the_recipe(aging, counties):
    model = aging

    def error(values, county):
        end = model.run(
            params=dict(zip(RATES, values)),  # noqa: B905
            initial_condition=(2000, county["2000"]),
            return_timestamps=2010,
            rtol=1,
        ).loc[2010]
        return ((end - county["2010"]).iloc[1:] ** 2).sum()

    for _, county in counties.iterrows():
        values = [0.05, *np.linspace(-0.05, 0.1, 8)]
        expected = ((by_hand(county["2000"], values) - county["2010"].to_numpy())[1:] ** 2).sum()
        assert error(values, county) == pytest.approx(expected, rel=1e-12)

    county = counties.loc[(1, 1)]
    end = model.run(dict(zip(RATES, [0.05] * 9, strict=True)), (2000, county["2000"]), 2010).loc[2010]
    assert isinstance(end, pd.Series)
    assert list(end.index) == STOCKS
    assert not (end - county["2010"]).isna().any()
    found = minimize(error, [0.05] * 9, args=(county,), method="L-BFGS-B", options={"maxiter": 3, "maxfun": 40})
    assert found.fun < 0.9 * error([0.05] * 9, county)


@pytest.mark.parametrize("years", [1, 10, 25])
def test_the_run_ends_with_the_last_time_stamp(aging, years):
    run = aging.run(None, {"dec_1": 4.0}, return_timestamps=2000 + years)
    assert list(run.index) == [2000 + years]
    np.testing.assert_allclose(run.iloc[0], by_hand([4.0] + [10] * 8, [0.05] * 9, years=years), rtol=1e-12)


@pytest.mark.parametrize(
    "stamps",
    [2005, 2005.0, np.int64(2005), np.array(2005), [2005], (2005,), np.array([2005]), pd.Series([2005.0])],
)
def test_forms_of_one_time_stamp(aging, stamps):
    assert_frame_equal(aging.run(return_timestamps=stamps), aging.run().loc[[2005.0]])


def test_time_stamps_are_sorted_and_taken_once(aging):
    run = aging.run(return_timestamps=[2004, 2001, 2004.0, 2000])
    assert list(run.index) == [2000, 2001, 2004]


@pytest.mark.parametrize(
    "settings",
    [
        {"time_step": 0.5},
        {"saveper": 1},
        {"final_time": 2003},
        {"time_step": 0.25, "saveper": 0.5, "final_time": 2001},
        {"return_timestamps": 2002, "final_time": 2004},
        {"initial_condition": (1990, {"dec_1": 5.0}), "saveper": 5},
    ],
)
def test_time_settings(aging, aging_file, referee, settings):
    expected = referee(aging_file).run(return_columns=STOCKS, **settings)
    assert_same_run(aging, aging.run(**settings), expected)


def test_tolerances_are_noted_once(aging, caplog):
    from parfit.mdl.model import _note_tolerances

    _note_tolerances.cache_clear()
    with caplog.at_level("INFO", logger="parfit.mdl"):
        first = aging.run(return_timestamps=2001, rtol=1, atol=1e-3)
        second = aging.run(return_timestamps=2001, rtol=1e-9)
    assert_frame_equal(first, second, check_exact=True)
    assert [record.message for record in caplog.records if "rtol" in record.message] == [
        "rtol and atol have no effect: PySD integrates by Euler's method with the model's time step."
    ]
