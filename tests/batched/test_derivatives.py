"""``jac="jax"``: exact gradients, Jacobians and Hessians for the methods of SciPy, from the objective itself."""

from __future__ import annotations

import collections
import importlib.util
import pickle

import cloudpickle
import numpy as np
import pandas as pd
import pytest
import scipy.optimize

jax = pytest.importorskip("jax", reason="the batched engine needs jax, which a plain install has not")

import jax.numpy as jnp  # noqa: E402

import parfit  # noqa: E402
from parfit.batched.derivatives import Derivative  # noqa: E402
from parfit.core.errors import InvalidInputError, MissingPackageError, UnknownNameError  # noqa: E402
from parfit.core.structure import Structure  # noqa: E402
from parfit.executors.serial import SerialExecutor  # noqa: E402

T = np.linspace(0.0, 4.0, 12)
#: Through which module an objective computes: as it is, or by way of `jaxify`.
MODULES = {"numpy": np, "jax.numpy": jnp}
Pair = collections.namedtuple("Pair", ["a", "b"])
X = np.array([2.0, 0.7])
Y = 3.0 * np.exp(-0.5 * T)
ROW = pd.Series(Y, index=[f"t{i}" for i in range(len(T))], name="somewhere")


def decay(a, b, t=T, xp=np):
    return a * xp.exp(-b * t)


def true_jacobian(x=X, t=T):
    e = np.exp(-x[1] * t)
    return np.stack([e, -x[0] * t * e], axis=1)


def true_hessian(x=X, y=Y):
    """Of half the sum of squares of ``a exp(-b t) - y``."""
    e = np.exp(-x[1] * T)
    r, J = x[0] * e - y, true_jacobian(x)
    H = J.T @ J
    H[0, 1] += r @ (-T * e)
    H[1, 0] += r @ (-T * e)
    H[1, 1] += r @ (x[0] * T**2 * e)
    return H


@pytest.fixture(params=MODULES, ids=MODULES.keys())
def xp(request):
    return MODULES[request.param]


STRUCTURES = {
    "vector": (X, lambda p: (p[0], p[1])),
    "dict": ({"a": 2.0, "b": 0.7}, lambda p: (p["a"], p["b"])),
    "nested": ({"u": {"a": 2.0}, "v": [np.array([0.7])]}, lambda p: (p["u"]["a"], p["v"][0][0])),
    "series": (pd.Series({"a": 2.0, "b": 0.7}), lambda p: (p["a"], p["b"])),
    "table": (pd.DataFrame({"value": X}, index=["a", "b"]), lambda p: (p.loc["a", "value"], p["value"]["b"])),
    "named tuple": (Pair(2.0, [[0.7]]), lambda p: (p.a, p.b[0][0])),
}


@pytest.mark.parametrize("form", STRUCTURES)
def test_every_structure_of_parameters(form, xp):
    params, read = STRUCTURES[form]

    def residuals(p, row):
        return decay(*read(p), xp=xp) - xp.asarray(row)

    def scalar(p, row):
        return 0.5 * xp.sum(residuals(p, row) ** 2)

    J = Derivative(residuals, Structure(params))
    g = Derivative(scalar, Structure(params))
    r = decay(*X) - Y
    np.testing.assert_allclose(J(params, Y), true_jacobian(), rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(g(params, Y), true_jacobian().T @ r, rtol=1e-12)
    for derivative in (J, g):
        np.testing.assert_allclose(derivative.hessian(params, Y), true_hessian(), rtol=1e-12)
    assert J(params, Y).dtype == np.float64


def in_row(p, row):
    return decay(p["a"], p["b"]) - row.to_numpy()


def in_labels(p, row):
    return np.array([decay(p["a"], p["b"], t) - row[f"t{i}"] for i, t in enumerate(T)])


def in_mixed(p, row):
    return decay(p["a"], p["b"]) - row[[f"t{i}" for i in range(len(T))]].to_numpy()


def in_array(p, y):
    return decay(p["a"], p["b"]) - y


def in_dict(p, data):
    return decay(p["a"], p["b"], data["t"]) - data["y"]


def in_pair(p, data):
    t, y = data
    return decay(p["a"], p["b"], t) - y


def in_group(p, group):
    return decay(p["a"], p["b"], group["t"]) - group["y"]


DATASETS = {
    "row": (in_row, ROW),
    "row by labels": (in_labels, ROW),
    "row with text": (in_mixed, pd.Series({"name": "x", **ROW.to_dict()})),
    "row without labels": (in_row, ROW.reset_index(drop=True)),
    "array": (in_array, Y),
    "dict": (in_dict, {"t": T, "y": Y}),
    "pair": (in_pair, (T, Y)),
    "dict of Series": (in_dict, {"t": pd.Series(T), "y": pd.Series(Y)}),
    "group": (in_group, pd.DataFrame({"name": "x", "t": T, "y": Y}, index=range(5, 17))),
}


@pytest.mark.parametrize("form", DATASETS)
def test_every_form_of_dataset(form):
    objective, dataset = DATASETS[form]
    found = Derivative(objective, Structure({"a": 2.0, "b": 0.7}))({"a": 2.0, "b": 0.7}, dataset)
    np.testing.assert_allclose(found, true_jacobian(), rtol=1e-12, atol=1e-14)


def test_integers_and_single_precision():
    d = Derivative(in_array, Structure({"a": 1.0, "b": 1.0}))
    for y in (np.arange(12), Y.astype(np.float32)):
        np.testing.assert_allclose(d({"a": 2.0, "b": 0.7}, y), true_jacobian(), rtol=1e-6, atol=1e-7)


def test_programs_that_read_different_arrays_are_not_mixed_up():
    for name, data in (("u", {"u": Y, "v": T}), ("v", {"u": T, "v": Y})):
        d = Derivative(lambda p, data, name=name: p[0] * p[0] * data[name], Structure([1.0]))
        np.testing.assert_allclose(d(np.array([1.0]), data)[:, 0], 2 * Y, rtol=1e-12)


def test_other_parameters_than_the_wanted_have_zeros():
    wanted = Derivative(in_array, Structure({"a": 1.0, "b": 1.0}), free=np.array([1]))
    params = {"a": 2.0, "b": 0.7}
    np.testing.assert_allclose(wanted(params, Y), true_jacobian() * [0, 1], rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(wanted.hessian(params, Y), true_hessian() * [[0, 0], [0, 1]], rtol=1e-12)


def test_further_arguments():
    def residuals(p, y, scale, function):
        return scale * function(p[0] * T) - y

    d = Derivative(residuals, Structure([0.5]), (np.full(12, 2.0), np.cosh))
    np.testing.assert_allclose(d(np.array([0.5]), Y)[:, 0], 2 * T * np.sinh(0.5 * T), rtol=1e-12, atol=1e-14)


def test_loops_go_by_forward_mode():
    def power(p, n):
        return jax.lax.while_loop(lambda c: c[0] < n, lambda c: (c[0] + 1, c[1] * p[0]), (0, p[1]))[1]

    d = Derivative(power, Structure([1.0, 1.0]))
    np.testing.assert_allclose(d(np.array([2.0, 3.0]), 5), [5 * 2.0**4 * 3, 2.0**5], rtol=1e-12)
    np.testing.assert_allclose(d.hessian(np.array([2.0, 3.0]), 5), [[20 * 8.0 * 3, 80.0], [80.0, 0.0]], rtol=1e-12)


def test_a_function_with_a_reverse_mode_of_its_own():
    @jax.custom_vjp
    def double(x):
        return 2.0 * x

    double.defvjp(lambda x: (2.0 * x, None), lambda _, g: (2.0 * g,))
    d = Derivative(lambda p, y: double(p[0] * T) - y, Structure([1.0]))
    np.testing.assert_allclose(d(np.array([0.5]), Y)[:, 0], 2 * T)


# ---- one program for each form


@pytest.fixture
def traces():
    return []


@pytest.fixture
def counting(traces):
    def residuals(p, g):
        if isinstance(p["a"], jax.core.Tracer):
            traces.append(len(g))
        return decay(p["a"], p["b"], g["t"]) - g["y"]

    return residuals


def group(n, seed=0):
    t = np.sort(np.random.default_rng(seed).uniform(0, 4, n))
    return pd.DataFrame({"t": t, "y": 3 * np.exp(-0.5 * t)})


def test_datasets_of_one_shape_share_a_program(traces, counting):
    d, params = Derivative(counting, Structure({"a": 2.0, "b": 0.7})), {"a": 2.0, "b": 0.7}
    d(params, group(9))
    first = len(traces)
    for seed in range(5):
        g = group(9, seed)
        np.testing.assert_allclose(d(params, g), true_jacobian(t=g["t"].to_numpy()), rtol=1e-12, atol=1e-14)
    assert len(traces) == first


@pytest.mark.parametrize("n", [1, 2, 8, 10, 15, 16])
def test_frames_of_unequal_length_share_a_padded_program(traces, counting, n):
    d, params = Derivative(counting, Structure({"a": 2.0, "b": 0.7})), {"a": 2.0, "b": 0.7}
    d(params, group(12))
    d(params, group(5))
    before = len(traces)
    g = group(n)
    np.testing.assert_allclose(d(params, g), true_jacobian(t=g["t"].to_numpy()), rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(d.value(params, g), counting(params, g), rtol=1e-12)
    assert set(traces[before:]) <= {n, 16 if n > 8 else 8}


def test_frames_that_cannot_be_padded():
    def steps(p, g):
        return np.diff(decay(p["a"], p["b"], g["t"].to_numpy()) - g["y"].to_numpy())

    d = Derivative(steps, Structure({"a": 2.0, "b": 0.7}))
    for n in (5, 12):
        g = group(n)
        wanted = np.diff(true_jacobian(t=g["t"].to_numpy()), axis=0)
        np.testing.assert_allclose(d({"a": 2.0, "b": 0.7}, g), wanted, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("dumps", [pickle.dumps, cloudpickle.dumps])
def test_it_travels_without_its_programs(dumps):
    d = Derivative(in_array, Structure({"a": 2.0, "b": 0.7}))
    params = {"a": 2.0, "b": 0.7}
    d.learn(params, Y, ("curvature",))
    again = pickle.loads(dumps(d))
    again.compile()
    np.testing.assert_array_equal(again(params, Y), d(params, Y))
    np.testing.assert_array_equal(again.hessian(params, Y), d.hessian(params, Y))


def test_settings_of_jax_stay_as_they_are():
    before = jax.config.jax_enable_x64
    Derivative(in_array, Structure({"a": 2.0, "b": 0.7}))({"a": 2.0, "b": 0.7}, Y)
    assert jax.config.jax_enable_x64 == before
    assert jnp.ones(1).dtype == (np.float64 if before else np.float32)


# ---- what cannot be


def branches(p, y):
    return decay(p["a"], p["b"]) - y if p["a"] > 0 else y


def table(p, y):
    return scipy.optimize.rosen(np.array([p["a"], p["b"]])) + np.interp(p["a"], T, y, period=3.0)


def draws(p, y):
    return decay(p["a"], p["b"]) - y + np.random.rand(len(y))  # noqa: NPY002


def looks(p, y):
    return decay(p["a"], p["b"]) - y + (1.0 if "Tracer" in repr(p["a"]) else 0.0)


class Nowhere(SerialExecutor):
    """Runs nothing."""

    def open(self, setup=None, *, retries=1):
        raise AssertionError("this must not be reached")


@pytest.mark.parametrize("objective", [branches, table, draws, looks])
def test_what_cannot_be_traced_is_one_error_before_anything_runs(objective):
    with pytest.raises(InvalidInputError, match=r"jac='jax' cannot be used: .*; leave out `jac`"):
        parfit.fit([Y, Y], objective, {"a": 1.0, "b": 1.0}, jac="jax", engine="rows", executor=Nowhere())


def test_another_value_is_named():
    with pytest.raises(InvalidInputError, match=r"compiled, the objective gives another value: -?[\d.]+, and -?[\d.]+"):
        parfit.fit([Y], looks, {"a": 1.0, "b": 1.0}, jac="jax", engine="rows", executor="serial")


def test_what_cannot_be_traced_in_some_datasets_is_their_error():
    def residuals(p, data):
        return decay(p["a"], p["b"]) - data["y"]

    data = [{"y": Y, "more": None}, {"y": Y, "more": object()}]
    fits = parfit.fit(data, residuals, {"a": 1.0, "b": 1.0}, jac="jax", engine="rows", executor="serial")
    assert fits.status.tolist() == ["converged", "error"]
    assert "jac='jax' cannot be used: a dataset holds an object" in fits.errors["message"].iloc[0]


def test_an_unknown_name():
    with pytest.raises(UnknownNameError, match="Did you mean 'jax'"):
        parfit.fit([Y], in_array, {"a": 1.0, "b": 1.0}, jac="jaxx")


def test_without_jax(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "jax" else find(name, *a))
    with pytest.raises(MissingPackageError, match=r"pip install 'parfit\[jax\]'"):
        parfit.fit([Y], in_array, {"a": 1.0, "b": 1.0}, jac="jax", engine="rows")
