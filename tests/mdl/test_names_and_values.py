"""Names and values are checked before anything runs; Vensim's names and Python's serve alike."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from pandas.testing import assert_frame_equal

from parfit.core.errors import InvalidInputError, InvalidTypeError, ParfitError, UnknownNameError
from parfit.mdl.live import Live
from tests.mdl.same import assert_same_run


@pytest.fixture
def unrun(monkeypatch):
    """No run may start."""

    def run(self, request):
        raise AssertionError("the model was run")

    monkeypatch.setattr(Live, "run", run)


@pytest.mark.parametrize(
    ("arguments", "nearest"),
    [
        ({"params": {"dec_1_los_rate": 0.1}}, "dec_1_loss_rate"),
        ({"params": {"dec 1 los rate": 0.1}}, "dec 1 loss rate"),
        ({"params": {"Birth": 0.1}}, "births"),
        ({"initial_condition": (2000, {"dec1": 1.0})}, "dec_1"),
        ({"initial_condition": (2000, pd.Series({"dec_1": 1.0, "dec_": 2.0}))}, "dec_"),
        ({"return_columns": ["dec_1", "bday_10"]}, "bday10"),
        ({"return_columns": "Dec 1 lost"}, "dec 1 loss"),
    ],
)
def test_unknown_names(aging, unrun, arguments, nearest):
    with pytest.raises(UnknownNameError, match=f"Did you mean '{nearest}"):
        aging.run(**arguments)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"params": {"dec_1": 3}}, r"'dec_1' is a stock.*initial_condition=\(time, \{'dec_1': value\}\)"),
        ({"params": {"TIME STEP": 1}}, "'TIME STEP' is a setting.*use time_step="),
        ({"params": {"initial_time": 1}}, "setting of the simulation.*initial_condition"),
        ({"initial_condition": (2000, {"births": 1})}, r"not a stock.*params=\{'births': value\}"),
        ({"initial_condition": "current"}, "a run leaves nothing behind"),
        ({"initial_condition": "state.pic"}, r"give the values, as \(time, \{stock: value\}\)"),
        ({"params": {"births": np.nan * np.ones(2)}}, r"params\['births'\] has shape \(2,\).*takes a number"),
        ({"params": {"births": 1.0, "Births": 2.0}}, "'births' twice"),
        ({"params": {"births": pd.Series([1.0, 2.0])[:0]}}, "index of a Series is the time"),
        ({"params": {"births": pd.Series([1.0, 2.0], index=["a", "b"])}}, "different finite numbers"),
        ({"params": {"births": pd.Series([1.0, 2.0], index=[1, 1])}}, "different finite numbers"),
        ({"time_step": 0}, "time_step must be above zero"),
        ({"saveper": -1}, "saveper must be above zero"),
        ({"final_time": np.inf}, "final_time must be finite"),
        ({"return_timestamps": [2001, np.nan]}, "return_timestamps must be finite"),
        ({"return_timestamps": 1990}, "return_timestamps 1990 lie before the run's start, 2000; it starts elsewhere"),
        ({"return_timestamps": [*range(1980, 2005)]}, "return_timestamps 1980, 1981, 1982, 1983, 1984, … lie before"),
        ({"return_timestamps": 2005, "initial_condition": (2006, {})}, "lie before the run's start, 2006"),
        ({"final_time": 1999}, "final_time 1999 lies before the run's start, 2000"),
        ({"seed": -1}, "seed must be an integer"),
        ({"seed": 1.5}, "seed must be an integer"),
    ],
)
def test_values_that_cannot_be_used(aging, unrun, arguments, sentence):
    with pytest.raises(InvalidInputError, match=sentence):
        aging.run(**arguments)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"params": {"births": "1"}}, r"params\['births'\] must be a number, not '1'"),
        ({"params": {"births": None}}, "must be a number, not None"),
        ({"params": {"births": pd.Series(["1", "2"], index=[2000, 2001])}}, "the Series must hold numbers"),
        ({"params": [1, 2]}, "params must map names to values, not list"),
        ({"initial_condition": (2000, {"dec_1": lambda: 1})}, "must be a number"),
        ({"initial_condition": (2000,)}, "initial_condition must be"),
        ({"initial_condition": 2000}, "initial_condition must be"),
        ({"initial_condition": ("start", {"dec_1": 1})}, "the time of initial_condition must be a number"),
        ({"return_timestamps": "late"}, "return_timestamps must be a number or several"),
        ({"time_step": "small"}, "time_step must be a number"),
    ],
)
def test_values_of_a_kind_that_cannot_be_used(aging, unrun, arguments, sentence):
    with pytest.raises(InvalidTypeError, match=sentence):
        aging.run(**arguments)


def test_all_of_them_are_parfits_errors(aging):
    with pytest.raises(ParfitError):
        aging.run(params={"nothing": 1})


def test_vensims_names_and_pythons_are_the_same(aging):
    start = {f"dec_{i}": 10.0 * i for i in range(1, 10)}
    python = aging.run({"dec_1_loss_rate": 0.2}, (2000, start), 2010)
    vensim = aging.run(
        {"dec 1 loss rate": 0.2}, (2000, {name.replace("_", " "): v for name, v in start.items()}), [2010]
    )
    shouted = aging.run({"DEC 1  Loss Rate": 0.2}, [2000, pd.Series(start)], 2010)
    assert_frame_equal(vensim, python, check_exact=True)
    assert_frame_equal(shouted, python, check_exact=True)


def test_columns_come_back_as_asked_for(aging, aging_file, referee):
    asked = ["dec 2", "bday10", "dec_2", "births", "FINAL TIME"]
    run = aging.run(return_columns=asked)
    assert_same_run(aging, run, referee(aging_file).run(return_columns=asked))
    assert list(run.columns) == asked
    assert list(aging.run(return_columns="dec 3").columns) == ["dec 3"]
    timed = aging.run(return_columns=["Time", "dec_1"])  # which PySD cannot
    assert (timed["Time"] == timed.index).all()
    other = aging.run(return_columns=["DEC 2", "dec_2", "Dec 2"])
    assert list(other.columns) == ["DEC 2", "dec_2", "Dec 2"]
    # To the last digit or two: compiled, a product and a sum may be rounded as one in one program, and not in another.
    np.testing.assert_allclose(other.to_numpy().T, [run["dec 2"]] * 3, rtol=1e-14)


def test_all_columns_and_those_that_change(aging, aging_file, referee):
    judge = referee(aging_file)
    assert_same_run(aging, aging.run(return_columns="all"), judge.run(return_columns=None))
    assert_same_run(aging, aging.run(return_columns="step"), judge.run(return_columns="step"))


def test_the_start_without_its_time_is_the_models_own(aging):
    assert_frame_equal(aging.run(None, {"dec_4": 3}), aging.run(None, (2000, {"dec_4": 3})), check_exact=True)
    assert_frame_equal(aging.run(None, "original"), aging.run(), check_exact=True)


def test_a_series_over_time_in_any_order_and_without_remarks(aging, aging_file, referee):
    births = pd.Series([0.0, 50.0, 20.0], index=[2000, 2003, 2010])
    expected = referee(aging_file).run(params={"births": births}, return_columns=["dec_1", "births"])
    for given in (births, births.iloc[::-1], births.astype(object)):
        run = aging.run(params={"births": given}, return_columns=["dec_1", "births"])
        assert_same_run(aging, run, expected)


def test_numbers_of_every_kind(aging):
    expected = aging.run({"births": 2.0}, return_timestamps=2001)
    for two in (2, np.int32(2), np.float32(2), np.array(2), pd.Series({"births": 2})["births"]):
        assert_frame_equal(aging.run({"births": two}, None, 2001), expected, check_exact=True)
    assert_frame_equal(aging.run(pd.Series({"births": 2}), None, 2001), expected, check_exact=True)


@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300])
def test_numbers_that_lead_nowhere_are_run_and_shown(aging, value):
    end = aging.run({"dec_1_loss_rate": value}, return_timestamps=2010).loc[2010]
    assert not np.isfinite(end["dec_1"])
    assert np.isfinite(aging.run().to_numpy()).all()


def test_times_at_the_ends_of_a_run_and_beyond_the_models_own(aging):
    for asked, start in ((1999.9999999, 2000), (2000, 2000), (2006.125, 2006.125), (2020, 2006), ([2006, 2007], 2006)):
        frame = aging.run(return_timestamps=asked, initial_condition=(start, {}))
        np.testing.assert_allclose(frame.index, np.atleast_1d(asked), atol=1e-6)
    assert list(aging.run(return_timestamps=2004, final_time=2004).index) == [2004]


def test_no_row_is_an_error_that_says_which_steps_there_are(aging):
    with (
        pytest.raises(InvalidInputError, match=r"none falls on a step; it goes from 2000 to 2005.05 by 0.125"),
        pytest.warns(UserWarning, match="not be a multiple"),
    ):
        aging.run(return_timestamps=2005.05)


def test_text_for_people(aging):
    text = "<parfit.Model Aging_Chain.mdl: 9 stocks, 10 parameters, 2000 to 2010 by 0.125"
    if aging.compiled:
        assert repr(aging) == text + ">"
        assert aging.unsupported == ()
    else:
        assert repr(aging) == text + "; runs through PySD>"
        assert aging.unsupported == ("compile=False, so PySD does all runs",)
    assert list(aging.doc.columns)[:3] == ["Real Name", "Py Name", "Subscripts"]
