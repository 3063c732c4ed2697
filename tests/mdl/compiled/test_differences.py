"""What of a model is not compiled, what differs from PySD and why, and random numbers."""

from __future__ import annotations

import logging
import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from pandas.testing import assert_frame_equal
from scipy import stats

from parfit.core.errors import ModelError
from parfit.mdl import Model, load_model
from tests.mdl.compiled.constructs import vensim

jax = pytest.importorskip("jax")


@pytest.fixture
def load(tmp_path):
    """Equations to a model, and to the same model run by PySD."""

    def loaded(equations, **options):
        file = tmp_path / "Small.mdl"
        file.write_text(vensim(equations))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = load_model(file, **options)
        return model, Model(replace(model._source, compile=False))

    return loaded


def quietly(function, *args, **kwargs):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return function(*args, **kwargs)


# What is left to PySD.


@pytest.mark.parametrize(
    ("equation", "what"),
    [
        ("odd = GET TIME VALUE(2, 0, 1) + level", "GET TIME VALUE of anything but the model's own time"),
        ("odd = A FUNCTION OF(level)", "a variable without an equation (A FUNCTION OF)"),
    ],
)
def test_what_is_not_compiled_is_named_with_its_place_and_runs_through_pysd(load, caplog, equation, what):
    model, referee = load(f"level = INTEG(1, 2)\n{equation}\nuser = odd * 2")
    assert not model.compiled
    assert model.unsupported == (f"{what} (in odd)",)
    with caplog.at_level(logging.INFO, "parfit.mdl"):
        run = quietly(model.run, return_columns=["user"])
    assert "run through PySD" in caplog.text
    assert_frame_equal(run, quietly(referee.run, return_columns=["user"]), check_exact=True)
    with jax.enable_x64(True):
        with pytest.raises(ModelError, match="cannot be compiled"):
            jax.jit(lambda x: model.simulate(initial={"level": x}, columns=["user"]))(1.0)
        # What does not need it can be traced.
        level = jax.jit(lambda x: model.simulate(initial={"level": x})["level"])(1.5)
    np.testing.assert_allclose(level, 1.5 + np.arange(9) / 2)


def test_every_construct_that_is_not_compiled_is_named(load):
    odd = "GET TIME VALUE(2, 0, 1)"
    model, _ = load(f"level = INTEG(1, 2)\none = {odd}\ntwo = {odd}\nstock = INTEG({odd}, 0)\nstart = INTEG(1, {odd})")
    assert len(model.unsupported) == 4
    for place in ("(in one)", "(in two)", "stock)", "start)"):
        assert sum(text.endswith(place) for text in model.unsupported) == 1, (place, model.unsupported)


def test_a_function_that_pysd_does_not_know_is_named_and_raises_as_in_pysd(load):
    model, referee = load("level = INTEG(1, 2)\nodd = SOMETHING NEW(level, 2)")
    assert len(model.unsupported) == 1
    assert model.unsupported[0].endswith("(in odd)")
    for each in (model, referee):
        with pytest.raises(NotImplementedError, match="something_new"):
            each.run(return_columns=["odd"])
    assert_frame_equal(model.run().astype(float), referee.run().astype(float), check_index_type=False)


def test_the_order_of_a_delay_may_be_a_parameter_but_cannot_be_traced(load):
    model, referee = load("order = 3\nx = SIN(Time)\nlate = DELAY N(x, 2.5, 1.5, order)")
    assert model.compiled
    for order in (1, 2, 5):
        arguments = {"params": {"order": order}, "return_columns": ["late"]}
        assert_frame_equal(model.run(**arguments), referee.run(**arguments), rtol=1e-12)
    with pytest.raises(ModelError, match="cannot be traced"):
        jax.jit(lambda order: model.simulate({"order": order}, columns=["late"]))(2.0)


@pytest.mark.parametrize("wait", [0.0, 0.5, 1.2, 1.25, 1.3, 3.0, 50.0])
def test_a_traced_delay_time_of_delay_fixed_is_rounded_as_pysd_rounds_it(load, wait):
    model, referee = load("wait = 1\nlate = DELAY FIXED(Time^2, wait, -1.5)")
    expected = quietly(referee.run, {"wait": wait}, return_columns=["late"])["late"]
    with jax.enable_x64(True):
        found = jax.jit(lambda x: model.simulate({"wait": x}, columns=["late"])["late"])(wait)
    np.testing.assert_allclose(found, expected, rtol=1e-13)
    np.testing.assert_allclose(
        quietly(model.run, {"wait": wait}, return_columns=["late"])["late"], expected, rtol=1e-13
    )


def test_gaps_in_raw_data_are_nan_as_in_pysd(load, tmp_path):
    (tmp_path / "given.csv").write_text("Time,given\n0,1\n1,2\n4,5\n")
    model, referee = load("given:RAW:\nk = 2\nsum = given * k", data_files="given.csv")
    assert model.compiled
    run = model.run(return_columns=["sum", "given"])
    assert run["sum"].isna().sum() == 6
    assert_frame_equal(run, referee.run(return_columns=["sum", "given"]), rtol=1e-13)


@pytest.mark.parametrize(
    "equation", ["x = 1 / (a - Time)", "x = LN(Time - a)", "x = (Time - a)^0.5", "x = 0^(Time - a)"]
)
def test_where_values_are_not_finite_the_run_is_pysds(load, equation):
    model, referee = load(f"a = 2\n{equation}")
    outcomes = []
    for each in (model, referee):
        try:
            outcomes.append(quietly(each.run, {"a": 1}, return_columns=["x"]))
        except ArithmeticError as error:
            outcomes.append(repr(error))
    if isinstance(outcomes[1], str):
        assert outcomes[0] == outcomes[1]
    else:
        assert_frame_equal(*outcomes, check_exact=True)


def test_numbers_in_the_text_that_cannot_be_divided_are_left_to_pysd(load):
    model, referee = load("level = INTEG(1, 2)\nx = IF THEN ELSE(level > 0, level, 1 / 0)")
    assert model.unsupported[0].endswith("(in x)")
    assert_frame_equal(model.run(return_columns=["x"]), referee.run(return_columns=["x"]), check_exact=True)


# Where compiled code does as Vensim does, and PySD does not.


SAMPLES = {
    "of a stock": "sample = SAMPLE IF TRUE(MODULO(Time, 2) = 0, level, -1)",
    "of a variable": "double = level * 2\nsample = SAMPLE IF TRUE(MODULO(Time, 2) = 0, double, -1)",
    "by a stock": "sample = SAMPLE IF TRUE(MODULO(level, 2) = 0, Time, -1)",
    "of a delay": "delayed = DELAY1(level, 3)\nsample = DELAY FIXED(delayed, 2, -1)",
    "of a fixed delay": "delayed = DELAY FIXED(level, 1, 5)\nsample = DELAY FIXED(delayed, 2, -1)",
    "of a sample": "first = SAMPLE IF TRUE(MODULO(Time, 2) = 0, level, -1)\n"
    "sample = SAMPLE IF TRUE(MODULO(Time, 3) = 0, first, -1)",
    "into a stock": "sampled = SAMPLE IF TRUE(MODULO(Time, 2) = 0, level, -1)\nsample = INTEG(sampled, 0)",
}


@pytest.mark.parametrize("name", SAMPLES)
def test_samples_and_fixed_delays_take_what_a_step_begins_with(load, name):
    """PySD does so only with what it has computed before, as it has where all is asked for at each step.

    Else it computes their input when some stocks have moved on already, so that its values depend on the columns.
    """
    model, referee = load(f"TIME STEP = 1\nlevel = INTEG(1, 0)\n{SAMPLES[name]}")
    columns = [text for text in ("level", "double", "delayed", "first", "sampled", "sample") if text in SAMPLES[name]]
    columns = ["level", *(column for column in columns if column != "level")]
    expected = referee.run(return_columns=columns)["sample"]
    np.testing.assert_allclose(model.run(return_columns=columns)["sample"], expected, rtol=1e-13)
    alone = model.run(return_columns=["sample"])["sample"]
    np.testing.assert_allclose(alone, expected, rtol=1e-13)
    assert not np.allclose(referee.run(return_columns=["sample"])["sample"], alone)


WHOLE = """
start = {0}
given = 1.7 + Time / 3
smooth = SMOOTHI(given, 2.5, start)
smooth often = SMOOTH N(given, 2.5, {0}, 2)
delay = DELAY N(given, IF THEN ELSE(Time < 1, {0}, {1}), 1.5, 2)
"""


def test_whole_numbers_in_the_text_do_not_cut_what_flows_in(load):
    """PySD keeps the start of a smooth, and the time of DELAY N, as whole numbers where the text has such."""
    columns = ["smooth", "smooth_often", "delay"]
    model, referee = load(WHOLE.format("3", "3.5"))
    cut = referee.run(return_columns=columns)
    _, expected = load(WHOLE.format("3.0", "3.5"))
    expected = expected.run(return_columns=columns)
    assert_frame_equal(model.run(return_columns=columns), expected, rtol=1e-13)
    assert not np.isclose(cut, expected).all(axis=0).any()


# Random numbers.


NOISE = """
region: north, south
low = -1
TIME STEP = 0.25
FINAL TIME = 500
between[region] = RANDOM UNIFORM(low, 3, 0)
any = RANDOM 0 1()
bell = RANDOM NORMAL(low, 4, 1, 2, 0)
bells[region] = RANDOM NORMAL(-100, 100, 5, 2, 0)
waiting = RANDOM EXPONENTIAL(0, 6, 1, 2, 0)
walk = INTEG(bell - 1, 0)
"""


@pytest.fixture(scope="module")
def noise(tmp_path_factory):
    file = tmp_path_factory.mktemp("noise") / "Noise.mdl"
    file.write_text(vensim(NOISE))
    model = load_model(file)
    columns = ["between", "any", "bell", "bells", "waiting", "walk"]
    return lambda **arguments: model.simulate(columns=columns, **arguments)


@pytest.mark.slow
def test_noise_repeats_with_its_seed_and_differs_with_another(noise):
    first, again, other = noise(seed=1), noise(seed=1), noise(seed=2)
    for name, values in first.items():
        np.testing.assert_array_equal(values, again[name])
        assert (values[5:] != other[name][5:]).any()
        if name != "walk":
            assert (values != other[name]).mean() > 0.99


@pytest.mark.slow
def test_noise_is_the_same_in_a_trace(noise):
    with jax.enable_x64(True):
        traced = jax.jit(lambda low: noise(params={"low": low}, seed=3))(-1.0)
    plain = noise(params={"low": -1.0}, seed=3)
    for name, values in plain.items():
        np.testing.assert_allclose(traced[name], values, rtol=1e-9, atol=1e-9, err_msg=name)


def test_noise_keeps_to_its_bounds_and_has_the_mean_and_spread_of_its_distribution(noise):
    drawn = noise(seed=4)
    low, high = max(0, 1), 6
    distributions = {
        "between": stats.uniform(-1, 4),
        "any": stats.uniform(),
        "bell": stats.truncnorm((-1 - 1) / 2, (4 - 1) / 2, loc=1, scale=2),
        "bells": stats.norm(5, 2),
        "waiting": stats.truncexpon((high - low) / 2, loc=low, scale=2),
    }
    for name, distribution in distributions.items():
        values = drawn[name].reshape(len(drawn[name]), -1)
        error = distribution.std() / np.sqrt(values.size)
        assert abs(values.mean() - distribution.mean()) < 4.5 * error, name
        assert values.std() == pytest.approx(distribution.std(), rel=0.05), name
        least, most = distribution.support()
        assert least <= values.min(), name
        assert values.max() <= most, name
        assert stats.kstest(values[:, 0], distribution.cdf).pvalue > 1e-4, name


def test_noise_is_drawn_for_each_variable_element_and_step_on_its_own(noise):
    drawn = noise(seed=5)
    table = pd.DataFrame(
        {name: values[:, i] if values.ndim > 1 else values for name, values in drawn.items() for i in (0,)}
        | {f"{name} south": values[:, 1] for name, values in drawn.items() if values.ndim > 1}
    ).drop(columns="walk")
    matrix = table.corr().to_numpy() - np.eye(table.shape[1])
    assert abs(matrix).max() < 4.5 / np.sqrt(len(table))
    for name, series in table.items():
        assert abs(series.autocorr()) < 4.5 / np.sqrt(len(table)), name
    np.testing.assert_allclose(np.diff(drawn["walk"]), 0.25 * (drawn["bell"][:-1] - 1), rtol=1e-9, atol=1e-9)
