"""Kinds of values and of runs: whole numbers and truths, deep models, times of one's own, runs inside a trace."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pytest
from pandas.testing import assert_frame_equal

import parfit
from parfit.core.errors import InvalidInputError
from parfit.mdl import Model, load_model
from tests.mdl.compiled.constructs import vensim

jax = pytest.importorskip("jax")

GROWTH = "level = INTEG(gain, 10)\ngain = level * rate\nrate = 0.05"


@pytest.fixture
def load(tmp_path):
    """Equations to a model, and to the same model run by PySD."""

    def loaded(equations):
        file = tmp_path / "Small.mdl"
        file.write_text(vensim(equations))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = load_model(file)
        assert model.compiled, model.unsupported
        return model, Model(replace(model._source, compile=False))

    return loaded


def programs_of(model: Model) -> int:
    return len(model._runner._programs._made)


@pytest.mark.parametrize("columns", [["level", "push", "held"], ["push"], ["held"]])
def test_a_whole_number_at_the_start_alone_does_not_make_whole_numbers(load, columns):
    model, referee = load(
        "level = INTEG(push / 3, 10)\npush = ACTIVE INITIAL(level * 1.37, 3)\n"
        "held = ACTIVE INITIAL(third / 3, 3)\nthird = 2\nother = INTEG(held, held)"
    )
    assert_frame_equal(model.run(return_columns=columns), referee.run(return_columns=columns), check_dtype=False)


def test_truths_are_truths(load):
    model, referee = load("level = INTEG(1, 2)\nlate = Time > 2\nboth = late :AND: level > 5\nnever = 1 > 2")
    columns = ["late", "both", "never"]
    run = model.run(return_columns=columns)
    assert_frame_equal(run, referee.run(return_columns=columns))
    assert set(run.dtypes) == {np.dtype(bool)}
    assert len(run[run["late"]]) == int(run["late"].sum())


@pytest.mark.slow
def test_long_chains_of_variables(load):
    links = "\n".join(f"a{i} = a{i - 1} * 1.001 + pull" for i in range(1, 500))
    held = "\n".join(f"c{i} = c{i - 1} + 0.5" for i in range(1, 500))
    model, _ = load(f"stock = INTEG(pull, c499)\na0 = stock * 1.001 + pull\npull = 1\nc0 = 2\n{links}\n{held}")
    with jax.enable_x64(True):
        last = jax.jit(lambda pull: model.simulate({"pull": pull}, times=[1], columns=["a499", "stock"]))(1.0)
    value, stock = 251.5 + 1, 251.5 + 1
    for _ in range(500):
        value = value * 1.001 + 1
    np.testing.assert_allclose([last["a499"][0], last["stock"][0]], [value, stock], rtol=1e-12)
    np.testing.assert_allclose(model.simulate(times=[1], columns=["a499"])["a499"][0], value, rtol=1e-12)


def test_an_initial_time_that_is_a_parameter(load):
    model, referee = load("k = 1\nlevel = INTEG(k, FINAL TIME)\nINITIAL TIME = k\nFINAL TIME = 4")
    for given in ({"params": {"k": 2}}, {"params": {"k": 2}, "initial_condition": {"level": 1}}):
        run = model.run(**given)
        assert run.index[0] == 2
        assert_frame_equal(run, referee.run(**given), check_dtype=False)


@pytest.mark.parametrize("run", ["simulate", "run"])
def test_a_run_of_nothing_traced_inside_a_trace(load, run):
    model, _ = load(GROWTH)
    baseline = (
        (lambda: model.simulate({"rate": 0.1})["level"][-1])
        if run == "simulate"
        else (lambda: model.run({"rate": 0.1}, return_columns=["level"]).to_numpy()[-1, 0])
    )
    expected = baseline()
    with jax.enable_x64(True):
        assert jax.jit(lambda a: baseline() * a)(2.0) == pytest.approx(2 * expected, rel=1e-14)
        assert jax.jit(jax.grad(lambda a: baseline() * a))(2.0) == pytest.approx(expected, rel=1e-14)


def test_an_objective_beside_a_fixed_run_is_compiled(load):
    model, _ = load(GROWTH)

    def residuals(p, row):
        base = model.simulate({"rate": 0.01})["level"]
        return model.simulate({"rate": p[0]})["level"] - base - row["gain"]

    data = [{"gain": gain} for gain in (1.0, 2.0)]
    fits = parfit.fit(data, residuals, [0.05])
    assert fits.engine == "batch", fits.engine_reason
    np.testing.assert_allclose(
        fits.params, parfit.fit(data, residuals, [0.05], engine="rows", executor="serial").params, rtol=1e-6
    )


def test_one_program_for_all_starts_steps_and_orders_of_names(load):
    model, referee = load(GROWTH + "\nother = rate * 2")
    kinds = [
        {"initial_condition": (start, {"level": 3.0}), "params": {"rate": 0.1, "other": 1}} for start in (0.5, 1, 2)
    ]
    kinds += [{**kinds[0], "params": {"other": 1, "rate": 0.1}}]
    for kind in kinds:
        assert_frame_equal(model.run(**kind), referee.run(**kind), rtol=1e-12, check_dtype=False)
    assert programs_of(model) <= 2  # as many as there are lengths of runs


def test_a_start_on_which_something_depends_is_kept_apart(load):
    model, referee = load("level = INTEG(Time, INITIAL TIME)")
    for start in (0.5, 1, 2):
        given = {"initial_condition": (start, {})}
        assert_frame_equal(model.run(**given), referee.run(**given), rtol=1e-12, check_dtype=False)


def test_one_column_under_two_spellings(load):
    for model in load(GROWTH):
        found = model.simulate(columns=["gain", "gain", "Gain"])
        np.testing.assert_array_equal(found["gain"], found["Gain"])


def test_times_between_steps_are_named_and_no_others(load):
    model, _ = load(GROWTH)
    with pytest.raises(InvalidInputError, match=r"^times 0\.3 fall on no step"):
        model.simulate(times=[0.3, 0.5, 1])


def test_what_goes_wrong_in_a_variable_is_named_with_it(tmp_path):
    file = tmp_path / "Odd.mdl"
    file.write_text(vensim("slow = DELAY1(level, 0.1)\nlevel = INTEG(1, 2)"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = load_model(file)
        assert not model.compiled
        assert [reason.rpartition(" (in ")[2] for reason in model.unsupported] == ["slow)"]
