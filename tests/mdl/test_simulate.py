"""`Model.simulate`: arrays, outside and inside a trace, and the runs of an objective that is fitted in one program."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

import parfit
from parfit.core.errors import InvalidInputError, InvalidTypeError, ModelError, UnknownNameError
from parfit.mdl import load_model

STOCKS = [f"dec_{i}" for i in range(1, 10)]
RATES = [f"dec_{i}_loss_rate" for i in range(1, 10)]


def test_arrays_are_those_of_the_run(aging, regions):
    run = aging.run({"births": 2}, (2000, {"dec 3": 40}), [2001, 2005, 2010])
    found = aging.simulate({"births": 2}, (2000, {"dec 3": 40}), [2001, 2005, 2010])
    assert list(found) == STOCKS
    for name, values in found.items():
        assert isinstance(values, np.ndarray)
        np.testing.assert_allclose(values, run[name], rtol=1e-13)
    run = regions.run(return_columns=["fish", "school", "all fish"])
    found = regions.simulate(columns=["fish", "school", "school[west, old]", "all fish", "Time"])
    assert {name: values.shape for name, values in found.items()} == {
        **{"fish": (4, 3), "school": (4, 3, 2), "school[west, old]": (4,), "all fish": (4,), "Time": (4,)}
    }
    np.testing.assert_allclose(found["fish"], run[[f"fish[{r}]" for r in ("north", "south", "west")]], rtol=1e-13)
    np.testing.assert_allclose(found["school"][:, 2, 1], found["school[west, old]"])
    assert list(found["Time"]) == [0, 1, 2, 3]


def test_times_in_any_order_more_than_once_or_one_alone(aging):
    found = aging.simulate(times=[2010, 2000, 2010], columns="dec_2")["dec_2"]
    forward = aging.simulate(times=[2000, 2010], columns="dec_2")["dec_2"]
    assert list(found) == [forward[1], forward[0], forward[1]]
    alone = aging.simulate(times=2010, columns="dec_2")["dec_2"]
    assert alone.shape == ()
    assert alone == pytest.approx(forward[1], rel=1e-14)


@pytest.mark.parametrize(
    ("arguments", "error", "sentence"),
    [
        ({"params": {"dec_1_los_rate": 1}}, UnknownNameError, "Did you mean 'dec_1_loss_rate'"),
        ({"params": {"dec_1": 3}}, InvalidInputError, r"initial=\(time, \{'dec_1': value\}\)"),
        ({"initial": {"births": 1}}, InvalidInputError, "not a stock: initial does not set it"),
        ({"initial": 3}, InvalidTypeError, "initial must be"),
        ({"times": [1990]}, InvalidInputError, "times 1990 lie before the run's start"),
        ({"times": [2000.05]}, InvalidInputError, "times 2000.05 fall on no step|none falls on a step"),
        ({"times": [2000, 2000.05, 2001]}, InvalidInputError, "times 2000.05 fall on no step"),
        ({"times": "late"}, InvalidTypeError, "times must be a number or several"),
        ({"integrator": "rk5"}, UnknownNameError, "Did you mean 'rk4'"),
    ],
)
def test_what_cannot_be_used_is_refused_in_its_own_words(aging, arguments, error, sentence):
    with pytest.raises(error, match=sentence):
        aging.simulate(**arguments)


def test_lookups_by_their_values(regions):
    # At the arguments that the model's lookup has: -10, 0.5, 1, 100.
    given = regions.simulate({"crowding": [1, 0.8, 0, -0.5]}, columns="fish")["fish"]
    np.testing.assert_allclose(given, regions.simulate(columns="fish")["fish"], rtol=1e-13)
    other = regions.run({"crowding": pd.Series([2, 0.8, 0, -0.5], index=[-10, 0.5, 1, 100])})
    found = regions.simulate({"crowding": [2, 0.8, 0, -0.5]}, columns="fish[north]")["fish[north]"]
    np.testing.assert_allclose(found, other["fish[north]"], rtol=1e-13)
    with pytest.raises(InvalidInputError, match=r"a lookup, whose values have shape \(4,\), at the arguments -10, 0.5"):
        regions.simulate({"crowding": [1, 2, 3]})


def test_what_changes_over_time_by_either_engine(regions):
    expected = regions.run(return_columns="step")
    found = regions.simulate(columns="step")
    assert sum(values[0].size for values in found.values()) == expected.shape[1]


ENDS = """{UTF-8}
s = INTEG(0.1 * s + Time, 5) ~~|
f = FINAL TIME * 1 ~~|
INITIAL TIME = -10 ~~|
FINAL TIME = 10 ~~|
TIME STEP = 0.5 ~~|
SAVEPER = 1 ~~|
"""


def test_a_run_may_end_at_time_zero(tmp_path, engine):
    (tmp_path / "Ends.mdl").write_text(ENDS)
    model = load_model(tmp_path / "Ends.mdl", compile=engine == "compiled")
    assert list(model.run(final_time=0).index) == list(range(-10, 1))
    assert list(model.run(None, (0, {"s": 3}), final_time=0).index) == [0]
    assert list(model.simulate(times=[-5, 0], columns="f")["f"]) == [0, 0]


def test_a_model_that_pysd_runs_gives_arrays_too(models):
    model = load_model(models / "Tank.xmile", compile=False)
    found = model.simulate()
    run = model.run()
    assert {name: list(values) for name, values in found.items()} == {name: list(run[name]) for name in run}
    assert model.unsupported == ("compile=False, so PySD does all runs",)


def test_runge_and_kutta_of_fourth_order(aging):
    pytest.importorskip("jax")
    if not aging.compiled:
        with pytest.raises(InvalidInputError, match="rk4"):
            aging.simulate(integrator="rk4")
        return
    # dec_1 with no births decays exponentially, at 0.15 a year.
    exact = 10 * np.exp(-0.15 * 10)
    errors = [
        abs(aging.simulate(times=2010, columns="dec_1", integrator="rk4", time_step=dt)["dec_1"] / exact - 1)
        for dt in (1.0, 0.5)
    ]
    assert errors[0] < 1e-5
    assert errors[0] / errors[1] == pytest.approx(16, rel=0.1)


class TestTraced:
    """Inside a trace."""

    @pytest.fixture(autouse=True)
    def _jax(self):
        self.jax = pytest.importorskip("jax", reason="needs the extra 'jax'")
        with self.jax.enable_x64(True):
            yield

    @pytest.mark.slow
    def test_derivatives_of_parameters_stocks_and_lookups(self, models):
        jnp = self.jax.numpy
        model = load_model(models / "Regions.mdl")

        def end(v):
            params = {"capacity": 150 + v[0], "growth rate": v[1:4], "crowding": v[4:8]}
            found = model.simulate(params, {"fish": v[8:11], "school": v[0]}, [2, 3], ["fish", "queue"])
            return jnp.concatenate([found["fish"].reshape(-1), found["queue"]])

        # Not at a knot of the lookup, where the two sides have derivatives of their own.
        x = np.array([10, 0.1, 0.2, 0.3, 1, 0.8, 0.1, -0.5, 90.0, 40.0, 21.0])
        for J in (self.jax.jacfwd(end)(x), self.jax.jacrev(end)(x)):
            for i, h in enumerate(1e-6 * np.maximum(1, np.abs(x))):
                e = h * np.eye(len(x))[i]
                np.testing.assert_allclose(J[:, i], (end(x + e) - end(x - e)) / (2 * h), rtol=1e-5, atol=1e-6)

    def test_a_lookup_may_be_a_constant_for_each_element(self, tmp_path):
        lines = ["{UTF-8}", "A: a1, a2 ~~|", "t[A]((0,0),(1,2),(2,3)) ~~|", "y[A] = t[A](Time / 5) ~~|"]
        settings = ["INITIAL TIME = 0 ~~|", "FINAL TIME = 5 ~~|", "TIME STEP = 1 ~~|", "SAVEPER = 1 ~~|"]
        (tmp_path / "Tables.mdl").write_text("\n".join([*lines, *settings]))
        model = load_model(tmp_path / "Tables.mdl")
        f = lambda v: model.simulate({"t": v}, times=5, columns="y")["y"]  # noqa: E731
        for given in ([5.0, 6.0], [[0.0, 0.0], [2.0, 7.0], [3.0, 3.0]]):
            np.testing.assert_allclose(self.jax.jit(f)(np.array(given)), f(given))

    def test_many_runs_at_once_are_those_of_one_by_one(self, aging_file):
        model = load_model(aging_file)
        rates = np.random.default_rng(0).uniform(0, 0.2, (7, 9))
        end = lambda v: model.simulate(dict(zip(RATES, v, strict=True)), times=2010)  # noqa: E731
        found = self.jax.jit(self.jax.vmap(end))(rates)
        for i, row in enumerate(rates):
            np.testing.assert_allclose([found[s][i] for s in STOCKS], [*end(row).values()], rtol=1e-13)

    def test_nan_and_infinity_stay_where_they_arise(self, aging_file):
        model = load_model(aging_file)
        end = lambda v: model.simulate({RATES[4]: v}, times=2010)  # noqa: E731
        found = self.jax.vmap(end)(np.array([0.05, np.nan, np.inf]))
        plain = model.simulate(times=2010)
        for stock in STOCKS[:4]:
            np.testing.assert_allclose(found[stock], [plain[stock]] * 3, rtol=1e-13)
        for stock in STOCKS[4:]:
            assert list(np.isfinite(found[stock])) == [True, False, False]

    def test_a_chain_of_a_hundred_stocks_is_traced_once(self, tmp_path):
        # Each part of a scan's state that comes to depend on what is mapped would have it traced again.
        stages = [f"s{i} = INTEG({f's{i - 1}' if i else 'inflow'} - s{i} / 2, 1) ~~|" for i in range(100)]
        settings = ["INITIAL TIME = 0 ~~|", "FINAL TIME = 4 ~~|", "TIME STEP = 1 ~~|", "SAVEPER = 1 ~~|"]
        (tmp_path / "Chain.mdl").write_text("\n".join(["{UTF-8}", "inflow = 1 ~~|", *stages, *settings]))
        model = load_model(tmp_path / "Chain.mdl")
        traced = []
        step = model._runner._programs.traced

        def counted(asked):
            traced.append(asked)
            return step(asked)

        model._runner._programs.traced = counted
        end = lambda v: model.simulate({"inflow": v}, times=4, columns="s99")["s99"]  # noqa: E731
        text = str(self.jax.make_jaxpr(self.jax.vmap(self.jax.grad(end)))(np.ones(3)))
        assert len(traced) == 1
        assert text.count("scan[") <= 4

    def test_what_decides_about_steps_cannot_be_traced(self, aging_file):
        model = load_model(aging_file)
        with pytest.raises(InvalidTypeError, match=r"times cannot be traced.*jnp\.take"):
            self.jax.jit(lambda t: model.simulate(times=t))(2010.0)
        with pytest.raises(InvalidTypeError, match=r"time_step cannot be traced"):
            self.jax.jit(lambda t: model.simulate(time_step=t))(0.5)

    def test_a_model_that_is_not_compiled_says_so(self, models):
        model = load_model(models / "Tank.xmile", compile=False)
        with pytest.raises(ModelError, match="compile=False"):
            self.jax.jit(lambda v: model.simulate({"tap": v}))(1.0)

    def test_a_frame_cannot_be_traced_by_jax_alone(self, aging_file):
        model = load_model(aging_file)
        with pytest.raises(ModelError, match=r"use Model\.simulate"):
            self.jax.jit(lambda v: model.run({"births": v}).loc[2010, "dec_1"])(1.0)


def residuals_of_run(model):
    counted = np.array([0.0] + [1.0] * 8)

    def residuals(rates, county):
        run = model.run(rates, (2000, county["2000"]), 2010)
        return (run.loc[2010] - county["2010"]) * counted

    return residuals


@pytest.mark.slow
def test_the_run_of_an_objective_is_compiled_for_all_rows(aging_file, counties):
    pytest.importorskip("jax", reason="needs the extra 'jax'")
    model = load_model(aging_file)
    start = dict.fromkeys(RATES, 0.05)
    fits = parfit.fit(counties, residuals_of_run(model), start)
    assert fits.engine == "batch"
    assert fits.success.all()
    assert (fits.summary["rank"] == 8).all()  # eight counts for nine rates
    assert np.isinf(fits.stderr).all(axis=None)
    for i in range(len(counties)):
        end = model.run(fits.params.iloc[i], (2000, counties.iloc[i]["2000"]), 2010).loc[2010]
        np.testing.assert_allclose(end[1:], counties.iloc[i]["2010"][1:], rtol=1e-9)
    rows = parfit.fit(counties, residuals_of_run(load_model(aging_file, compile=False)), start, executor="serial")
    assert rows.engine == "rows"
    assert "compile=False" in rows.engine_reason or "serial" in rows.engine_reason
    np.testing.assert_allclose(rows.summary["cost"], fits.summary["cost"], atol=1e-12)


def test_the_recipes_own_error_function_is_compiled_as_it_stands(aging_file, counties):
    pytest.importorskip("jax", reason="needs the extra 'jax'")
    model = load_model(aging_file)

    def error(values, county):
        run = model.run(dict(zip(RATES, values, strict=True)), (2000, county["2000"]), 2010)
        misses = run.loc[2010] - county["2010"]
        return (misses[1:] ** 2).sum()

    fits = parfit.fit(counties, error, [0.05] * 9)
    assert fits.engine == "batch"
    assert (fits.summary["cost"] < 1e-2).all()


@pytest.mark.slow
def test_a_program_is_the_same_text_in_every_process(aging_file, models):
    pytest.importorskip("jax", reason="needs the extra 'jax'")
    code = (
        "import sys, hashlib, jax\n"
        "from parfit.mdl import load_model\n"
        "model = load_model(sys.argv[1])\n"
        "run = jax.jit(lambda v: model.simulate({'capacity': v}))\n"
        "print(hashlib.sha256(run.lower(1.0).as_text().encode()).hexdigest())\n"
    )
    said = {
        subprocess.run(
            [sys.executable, "-c", code, str(models / "Regions.mdl")],
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(said) == 1
