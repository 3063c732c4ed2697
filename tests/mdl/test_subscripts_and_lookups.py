"""Variables with subscripts, lookup tables, delays: against PySD."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray
from pandas.testing import assert_frame_equal

from parfit.core.errors import InvalidInputError, UnknownNameError
from tests.mdl.same import assert_same_run

REGION = ["north", "south", "west"]
AGE = ["young", "old"]


@pytest.fixture
def judge(models, referee):
    return referee(models / "Regions.mdl")


def test_contents(regions):
    assert regions.stocks == ["fish", "school", "boats"]
    table = regions.parameters
    assert table.loc["growth_rate", "value"].tolist() == [0.1, 0.2, 0.3]
    assert table.loc["ageing_rate", "value"].shape == (3, 2)
    assert table.loc["ageing_rate", "subscripts"] == ("region", "age")
    assert table.loc["building", "value"] == 0.5


def test_the_default_columns_are_flat(regions, judge):
    run = regions.run()
    assert_same_run(regions, run, judge.run(return_columns=["fish", "school", "boats"]))
    assert "school[west,old]" in run.columns


def test_elements_and_arrays_as_columns(regions, judge):
    asked = ["fish[south]", "school[north, old]", '"fish-to-boats"', "all fish", "boats"]
    run = regions.run(return_columns=asked)
    assert_same_run(regions, run, judge.run(return_columns=asked))
    assert list(run.columns) == [*asked[:4], "boats[north]", "boats[south]", "boats[west]"]
    other = regions.run(return_columns=["Fish", "SCHOOL[north,old]", "fish-to-boats"])
    assert list(other.columns) == [
        "Fish[north]", "Fish[south]", "Fish[west]", "SCHOOL[north,old]", "fish-to-boats"
    ]  # fmt: skip
    assert (other["Fish[south]"] == run["fish[south]"]).all()
    assert (other["SCHOOL[north,old]"] == run["school[north, old]"]).all()
    assert (other["fish-to-boats"] == run['"fish-to-boats"']).all()


def test_one_element_of_two_subscripts_stands_for_several_columns(regions):
    run = regions.run(return_columns=["school[west]", "school[north]"])
    columns = ["school[west,young]", "school[west,old]", "school[north,young]", "school[north,old]"]
    assert_frame_equal(run, regions.run()[columns], check_exact=True)


def test_unflattened(regions):
    cell = regions.run(return_columns=["fish"], flatten_output=False)["fish"].iloc[0]
    assert isinstance(cell, xarray.DataArray)
    assert cell.values.tolist() == [100, 50, 20]


@pytest.mark.parametrize(
    ("columns", "error", "sentence"),
    [
        ("fish[nort]", UnknownNameError, "element of 'region'.*Did you mean 'north'"),
        ("fish[north,old]", InvalidInputError, "has 2 subscripts; 'fish' has 1"),
        ("fihs[north]", UnknownNameError, "unknown column"),
        ("crowding", InvalidInputError, "lookup table"),
    ],
)
def test_columns_that_cannot_be(regions, columns, error, sentence):
    with pytest.raises(error, match=sentence):
        regions.run(return_columns=[columns])


def test_arrays_as_parameters(regions, judge):
    rates = [0.3, 0.1, 0.2]
    as_pysd = xarray.DataArray(rates, {"region": REGION}, ["region"])
    expected = judge.run(params={"growth rate": as_pysd}, return_columns=["fish", "growth rate"])
    for given in (rates, np.array(rates), as_pysd, pd.Series(rates).to_numpy()):
        run = regions.run({"growth rate": given}, return_columns=["fish", "growth rate"])
        assert_same_run(regions, run, expected)
    arguments = {"params": {"growth rate": 0.2, "catch": 1.5}, "return_columns": ["fish", "catch"]}
    assert_same_run(regions, regions.run(**arguments), judge.run(**arguments))
    table = np.arange(6.0).reshape(3, 2) / 100
    as_pysd = xarray.DataArray(table, {"region": REGION, "age": AGE}, ["region", "age"])
    expected = judge.run(params={"ageing_rate": as_pysd}, return_columns=["school"])
    assert_same_run(regions, regions.run({"ageing_rate": table}, return_columns=["school"]), expected)


def test_a_series_of_numbers_or_arrays_for_a_subscripted_parameter(regions, judge):
    numbers = pd.Series([0.1, 0.4], index=[0.0, 3.0])
    arrays = pd.Series(
        [xarray.DataArray(row, {"region": REGION}, ["region"]) for row in ([0.1, 0.2, 0.3], [0.3, 0.2, 0.1])],
        index=[0.0, 3.0],
    )
    for given in (numbers, arrays):
        arguments = {"params": {"growth_rate": given}, "return_columns": ["fish"], "final_time": 2}
        assert_same_run(regions, regions.run(**arguments), judge.run(**arguments))


def test_a_whole_array_has_to_be_given(regions):
    with pytest.raises(InvalidInputError, match=r"give 'growth_rate' as a whole.*\(3,\).*north, south, west"):
        regions.run({"growth rate[north]": 0.1})
    with pytest.raises(InvalidInputError, match=r"shape \(2,\).*'growth rate' has shape \(3,\)"):
        regions.run({"growth rate": [1, 2]})
    with pytest.raises(InvalidInputError, match="no subscripts"):
        regions.run({"building": xarray.DataArray([1.0, 2.0, 3.0], {"region": REGION}, ["region"])})


def test_arrays_at_the_start(regions, judge):
    fish = xarray.DataArray([1.0, 2.0, 3.0], {"region": REGION}, ["region"])
    expected = judge.run(initial_condition=(0, {"fish": fish, "school": 5}), return_columns=["fish", "school"])
    run = regions.run(None, (0, {"fish": [1, 2, 3], "school": 5}), return_columns=["fish", "school"])
    assert_same_run(regions, run, expected)


def test_a_stock_with_an_equation_for_each_element_starts_as_told(regions):
    # PySD itself gives the value to whichever stock was set before, or refuses.
    start = regions.run(None, (0, {"fish": 7, "boats": [1, 2, 3]}), return_timestamps=0).loc[0]
    assert start[["boats[north]", "boats[south]", "boats[west]"]].tolist() == [1, 2, 3]
    assert start[["fish[north]", "fish[south]", "fish[west]"]].tolist() == [7, 7, 7]
    start = regions.run(None, (0, {"boats": 4}), return_timestamps=0).loc[0]
    assert start[["boats[north]", "boats[south]", "boats[west]"]].tolist() == [4, 4, 4]
    run = regions.run(None, (0, {"boats": [1, 2, 3]}), time_step=0.25)
    expected = 1.0
    for _ in range(12):
        expected += 0.25 * (0.5 - expected / 10)
    assert run.loc[3, "boats[north]"] == pytest.approx(expected, rel=1e-13)
    assert regions.run().iloc[0]["boats[north]"] == 3


def test_lookups_as_parameters(regions, judge):
    table = pd.Series([1.0, 0.1, -0.2], index=[-10.0, 0.5, 100.0])
    expected = judge.run(params={"crowding": table}, return_columns=["fish"])
    for given in (table, table.iloc[::-1]):
        assert_same_run(regions, regions.run({"crowding": given}, return_columns=["fish"]), expected)
    expected = judge.run(params={"crowding": 0.5}, return_columns=["fish"])
    assert_same_run(regions, regions.run({"crowding": 0.5}, return_columns=["fish"]), expected)
    before = regions.run()
    assert_frame_equal(regions.run(), before, check_exact=True)


def test_other_state_than_stocks_at_the_start(regions, judge):
    arguments = {"initial_condition": (0, {"queue": 12.0}), "return_columns": ["queue"]}
    assert_same_run(regions, regions.run(**arguments), judge.run(**arguments))
    assert regions.run(**arguments).iloc[0, 0] == 12
