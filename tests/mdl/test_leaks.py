"""A run depends on its arguments alone: any sequence of runs, each equal to one of a freshly loaded model."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from pandas.testing import assert_frame_equal

from parfit.core.errors import InvalidInputError
from parfit.mdl import load_model
from parfit.mdl.live import Live
from tests.mdl.same import assert_same_run

pytestmark = pytest.mark.slow

RATES = [f"dec_{i}_loss_rate" for i in range(1, 10)]
STOCKS = [f"dec_{i}" for i in range(1, 10)]

numbers = st.floats(-0.1, 0.4)
series = st.builds(lambda a, b: pd.Series([a, b, a], index=[2000.0, 2004.0, 2010.0]), numbers, numbers)
chain_runs = st.fixed_dictionaries(
    {},
    optional={
        "params": st.dictionaries(
            st.sampled_from([*RATES, "dec 3 loss rate", "births", "bday40", "dec 6 loss"]),
            numbers | series,
            max_size=4,
        ).filter(lambda params: not {"dec_3_loss_rate", "dec 3 loss rate"} <= set(params)),
        "initial_condition": st.tuples(
            st.sampled_from([1999.0, 2000.0, 2005.0]), st.dictionaries(st.sampled_from(STOCKS), numbers)
        ),
        "return_columns": st.lists(
            st.sampled_from([*STOCKS, "dec 2", "births", "bday10", "bday40", "TIME STEP", *RATES[:3]]),
            min_size=1,
            unique=True,
        ),
        "return_timestamps": st.sampled_from([2006.0, [2006.0, 2007.0], [2012.0, 2006.0]]),
        "time_step": st.sampled_from([0.25, 0.5]),
        "saveper": st.sampled_from([0.5, 1.0]),
        "final_time": st.sampled_from([2007.0, 2012.0]),
    },
)
SETTINGS = settings(
    max_examples=12,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.generate],
)


@SETTINGS
@given(runs=st.lists(chain_runs, min_size=2, max_size=5))
def test_any_sequence_of_runs_of_the_chain(aging, aging_file, referee, runs):
    for arguments in runs:
        expected = referee(aging_file).run(**{"return_columns": STOCKS} | arguments)
        assert_same_run(aging, aging.run(**arguments), expected)


def curve(a, b):
    return pd.Series([1.0, a, b], index=[-20.0, 0.4, 200.0])


region_runs = st.fixed_dictionaries(
    {},
    optional={
        "params": st.fixed_dictionaries(
            {},
            optional={
                "building": numbers | st.builds(lambda a: pd.Series([a, 2 * a], index=[0.0, 3.0]), numbers),
                "capacity": st.floats(100, 400),
                "growth rate": numbers,
                "crowding": st.builds(curve, numbers, numbers),
                "delay_time": st.sampled_from([1.0, 2.0, 5.0]),
                "share": numbers,
                "catch": numbers,
            },
        ),
        "initial_condition": st.tuples(
            st.sampled_from([0.0, 1.0]),
            st.dictionaries(st.sampled_from(["fish", "school"]), st.floats(1, 90)),
        ),
        "return_columns": st.lists(
            st.sampled_from(
                ["fish", "fish[south]", "boats", "queue", "late share", "reported share", "first_catch",
                 "all fish", "growth rate", "school[west,old]", "capacity"]
            ),
            min_size=1,
            unique=True,
        ),
        "time_step": st.sampled_from([0.25, 1.0]),
        "final_time": st.sampled_from([1.0, 2.0]),
    },
)  # fmt: skip


@pytest.mark.filterwarnings("ignore:_delay")  # "casting delay order": what is tested is that it is cast back
@settings(SETTINGS, max_examples=8)
@given(runs=st.lists(region_runs, min_size=2, max_size=3))
def test_any_sequence_of_runs_with_subscripts_delays_and_lookups(regions, models, referee, runs):
    # capacity and delay_time set the orders of delays; time_step the length of a fixed delay's pipe.
    for arguments in runs:
        expected = referee(models / "Regions.mdl").run(**{"return_columns": ["fish", "school", "boats"]} | arguments)
        got = regions.run(**arguments)
        assert_same_run(regions, got, expected)


def test_runs_of_a_macro(models, referee):
    model = load_model(models / "Macro.mdl")
    for arguments in [
        {},
        {"params": {"tap": 3.0}},
        {"initial_condition": (1.0, {"pool": 4.0}), "time_step": 0.25},
        {"params": {"waiting": 12.0}},
        {},
    ]:
        expected = referee(models / "Macro.mdl").run(return_columns=["pool", "held"], **arguments)
        assert_same_run(model, model.run(return_columns=["pool", "held"], **arguments), expected)


def test_the_example_of_the_reported_leak(aging):
    before = aging.run()
    changed = aging.run(params={"births": 100}, initial_condition=(2003, {"dec_2": 99}), time_step=0.5)
    assert not changed.equals(before.loc[changed.index.intersection(before.index)])
    assert_frame_equal(aging.run(), before, check_exact=True)


def test_a_function_as_a_parameter_leaves_no_trace(aging):
    before = aging.run()

    def wave():
        return 3.0

    assert aging.run(params={"births": wave}).loc[2010, "dec_1"] > before.loc[2010, "dec_1"]
    assert vars(wave) == {}
    assert wave.__name__ == "wave"
    assert_frame_equal(aging.run(), before, check_exact=True)


def test_a_run_that_raises_in_the_middle(aging):
    before = aging.run()
    calls = []

    def breaks():
        calls.append(1)
        if len(calls) > 30:
            raise ZeroDivisionError("in the middle")
        return 1.0

    with pytest.raises(ZeroDivisionError, match="in the middle"):
        aging.run(params={"births": breaks, "dec_1_loss_rate": 9.0}, time_step=0.25, final_time=2050)
    assert_frame_equal(aging.run(), before, check_exact=True)


def test_a_run_stopped_by_the_keyboard(aging):
    before = aging.run()

    def stops():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        aging.run(params={"births": stops}, time_step=0.25)
    assert_frame_equal(aging.run(), before, check_exact=True)


def test_a_run_inside_a_run(aging):
    alone = aging.run(params={"births": float(aging.run().loc[2010, "dec_9"])})
    nested = aging.run(params={"births": lambda: float(aging.run().loc[2010, "dec_9"])}, final_time=2001)
    assert_frame_equal(nested, alone.loc[:2001], check_exact=True)


def test_what_a_run_returns_is_the_callers(aging, regions):
    first = regions.run(return_columns=["fish"], flatten_output=False)
    first["fish"].iloc[0][:] = -1
    assert (regions.run().iloc[0][["fish[north]", "fish[south]", "fish[west]"]] == [100, 50, 20]).all()
    frame = aging.run()
    frame.iloc[:] = 0
    assert aging.run().iloc[0].eq(10).all()


def test_what_a_run_is_given_stays_the_callers(regions):
    rates = np.array([0.1, 0.2, 0.3])
    over_time = pd.Series([2, 1], index=[8, 0])
    regions.run(params={"growth rate": rates, "building": over_time}, final_time=1)
    assert list(rates) == [0.1, 0.2, 0.3]
    assert list(over_time.index) == [8, 0]


def test_live_models_are_kept_but_not_those_that_raised(models):
    model = load_model(models / "Tank.xmile", compile=False)
    model.run()
    model.run(params={"tap": 3})
    (live,) = model._runner._idle
    assert isinstance(live, Live)
    with (
        pytest.raises(InvalidInputError, match="none falls on a step"),
        pytest.warns(UserWarning, match="multiple of the time step"),
    ):
        model.run(return_timestamps=[0.1, 0.2])
    assert model._runner._idle == []
    assert model.run().equals(load_model(models / "Tank.xmile", compile=False).run())


def test_noise_repeats_and_leaves_the_callers_generator_alone(models):
    model = load_model(models / "Noise.mdl")
    np.random.seed(3)  # noqa: NPY002
    expected = np.random.uniform(size=3)  # noqa: NPY002
    np.random.seed(3)  # noqa: NPY002
    first = model.run()
    assert_frame_equal(model.run(), first, check_exact=True)
    assert not model.run(seed=1).equals(first)
    assert_frame_equal(load_model(model.path).run(seed=1), model.run(seed=1), check_exact=True)
    assert list(np.random.uniform(size=3)) == list(expected)  # noqa: NPY002


def test_noise_is_pysds_own_from_the_same_seed(models, referee):
    judge = referee(models / "Noise.mdl")
    judge.run()
    np.random.seed(5)  # noqa: NPY002
    expected = judge.quietly(judge.model.run, return_columns=["walk"])
    assert_frame_equal(load_model(models / "Noise.mdl").run(seed=5), expected, check_exact=True)
