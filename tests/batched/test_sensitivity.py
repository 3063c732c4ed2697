"""`Fits.sensitivity`: how solutions move with the data and with hyperparameters, against refits and closed forms."""

from __future__ import annotations

import collections
import importlib.util
import pickle

import numpy as np
import pandas as pd
import pytest

jax = pytest.importorskip("jax", reason="the batched engine needs jax, which a plain install has not")

import jax.numpy as jnp  # noqa: E402

import parfit  # noqa: E402
from parfit.batched.sensitivity import LOSSES  # noqa: E402
from parfit.core.errors import InvalidInputError, InvalidTypeError, MissingPackageError  # noqa: E402

T = np.linspace(0.0, 4.0, 9)
EXACT = {"ftol": 1e-15, "xtol": 1e-15, "gtol": 1e-15}
ROWS = {"engine": "rows", "executor": "serial", "jac": "jax"}
START = {"a": 1.0, "b": 0.5}


def rows(n=5):
    rng = np.random.default_rng(1)
    truth = rng.uniform([1.0, 0.3], [4.0, 1.0], (n, 2))
    values = [a * np.exp(-b * T) + 0.1 * rng.normal(size=len(T)) for a, b in truth]
    return pd.DataFrame(values, index=list("vwxyz")[:n], columns=[f"t{i}" for i in range(len(T))])


def residuals(p, row):
    return p["a"] * np.exp(-p["b"] * T) - row.to_numpy()


def half_squares(p, row):
    r = p["a"] * jnp.exp(-p["b"] * T) - jnp.asarray(row)
    return 0.5 * jnp.sum(r**2)


def by_refit(fit, data, column, step=1e-3):
    """Central differences of the solutions, which hold about nine digits."""
    up, down = data.copy(), data.copy()
    up[column] += step
    down[column] -= step
    return (fit(up).params - fit(down).params) / (2 * step)


# ---- the data


@pytest.mark.parametrize("engine", ["rows", "batch"])
def test_against_refits(engine):
    given = ROWS if engine == "rows" else {"engine": engine}

    def fit(data):
        return parfit.fit(data, residuals, START, options=EXACT, **given)

    fits = fit(rows())
    found = fits.sensitivity()
    assert fits.engine == engine
    assert found.index.equals(fits.labels)
    assert found.columns.names == ["parameter", None]
    assert found.columns.tolist() == [(name, f"t{i}") for name in "ab" for i in range(len(T))]
    for column in ("t0", "t3", "t8"):
        wanted = by_refit(fit, rows(), column)
        for name in "ab":
            np.testing.assert_allclose(found[name, column], wanted[name], rtol=1e-4, atol=1e-6)


def test_scalar_objectives():
    by_residuals = parfit.fit(rows(), residuals, START, options=EXACT, **ROWS).sensitivity("data")
    start = {"a": 2.0, "b": 0.6}
    lowest = parfit.fit(rows(), half_squares, start, method="trust-exact", options={"gtol": 1e-8}, **ROWS)
    options = {"gtol": 1e-9, "ftol": 1e-16}
    highest = parfit.fit(rows(), lambda p, row: -half_squares(p, row), start, maximize=True, options=options, **ROWS)
    for fits in (lowest, highest):
        assert fits.success.all()
        np.testing.assert_allclose(fits.sensitivity("data"), by_residuals, rtol=1e-5, atol=1e-7)


def test_linear_least_squares_is_the_pseudo_inverse():
    rng = np.random.default_rng(0)
    A, Y = rng.normal(size=(7, 3)), rng.normal(size=(4, 7))
    for engine in ({"engine": "rows", "executor": "serial"}, {"engine": "batch"}):
        found = parfit.fit(Y, lambda p, y: A @ p - y, [0.0] * 3, **engine).sensitivity()
        assert found.shape == (4, 3, 7)
        np.testing.assert_allclose(found, np.broadcast_to(np.linalg.pinv(A), (4, 3, 7)), rtol=1e-9, atol=1e-12)


def test_the_curvature_of_residuals_counts():
    """Where residuals are large, Gauss and Newton's ``J.T @ J`` is not the Hessian."""
    Y = np.array([[0.0, 3.0], [1.0, 2.0]])

    def parabola(p, y):
        return jnp.stack([p[0] - y[0], p[0] ** 2 - y[1]])

    found = parfit.fit(Y, parabola, [1.5], options=EXACT, **ROWS)
    x, y1 = found.params["x0"].to_numpy(), Y[:, 1]
    H = 1 + 4 * x**2 + 2 * (x**2 - y1)
    np.testing.assert_allclose(found.sensitivity()[:, 0, 0], 1 / H, rtol=1e-7)
    np.testing.assert_allclose(found.sensitivity()[:, 0, 1], 2 * x / H, rtol=1e-7)


@pytest.mark.parametrize("loss", sorted(set(LOSSES) - {"linear"}))
def test_robust_losses(loss):
    data = rows()
    data.iloc[:, 2] += 1.0
    options = {**EXACT, "loss": loss, "f_scale": 0.3}

    def fit(data):
        return parfit.fit(data, residuals, START, method="trf", options=options, **ROWS)

    found, wanted = fit(data).sensitivity(), by_refit(fit, data, "t2", 1e-3)
    np.testing.assert_allclose(found.xs("t2", axis=1, level=1), wanted, rtol=2e-3, atol=1e-5)


def test_a_loss_of_ones_own_is_refused():
    def rho(z):
        return np.stack([z, np.ones_like(z), np.zeros_like(z)])

    fits = parfit.fit(rows(), residuals, START, method="trf", options={"loss": rho}, **ROWS)
    with pytest.raises(InvalidInputError, match="loss function of one's own"):
        fits.sensitivity()


# ---- what does not move


def test_bounds_hold():
    def fit(data):
        return parfit.fit(data, residuals, {"a": 1.0, "b": 0.4}, bounds={"b": (0.0, 0.5)}, options=EXACT, **ROWS)

    fits = fit(rows())
    held = fits.at_bound["b"].to_numpy() != 0
    assert held.any()
    assert not held.all()
    found, wanted = fits.sensitivity(), by_refit(fit, rows(), "t1")
    assert (found.loc[held, "b"] == 0).all(axis=None)
    np.testing.assert_allclose(found["a", "t1"], wanted["a"], rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(found["b", "t1"], wanted["b"], rtol=1e-4, atol=1e-7)
    e = np.exp(-0.5 * T)
    np.testing.assert_allclose(found.loc[held, "a"], np.tile(e / (e @ e), (held.sum(), 1)), rtol=1e-7)


def test_fixed_parameters_do_not_move():
    fits = parfit.fit(rows(), residuals, {"a": 1.0, "b": 0.5}, fixed=["b"], **ROWS)
    e = np.exp(-0.5 * T)
    np.testing.assert_allclose(fits.sensitivity()["a"], np.tile(e / (e @ e), (5, 1)), rtol=1e-9)
    assert (fits.sensitivity()["b"] == 0).all(axis=None)


def test_bounds_that_fix_a_parameter_of_some_rows():
    bounds = pd.DataFrame({"b": [(0.0, 9.0)] * 4 + [(0.5, 0.5)]}, index=rows().index)
    fits = parfit.fit(rows(), residuals, START, bounds=lambda row: {"b": bounds.loc[row.name, "b"]}, **ROWS)
    moves = (fits.sensitivity()["b"] != 0).any(axis=1)
    assert moves.tolist() == [True] * 4 + [False]


def test_undetermined_parameters_are_nan():
    def sums(p, row):
        return p["a"] + p["b"] - row.to_numpy() + 0.0 * p["d"] + np.arange(9) * p["c"]

    fits = parfit.fit(rows(), sums, {"a": 1.0, "b": 1.0, "c": 0.0, "d": 3.0}, **ROWS)
    assert fits.success.all()
    found = fits.sensitivity()
    assert found[["a", "b", "d"]].isna().all(axis=None)
    line = np.stack([np.ones(9), np.arange(9)], axis=1)
    np.testing.assert_allclose(found["c"], np.tile(np.linalg.pinv(line)[1], (5, 1)), rtol=1e-7, atol=1e-12)


def test_rows_that_did_not_converge_are_nan():
    data = rows()
    data.loc["w", "t4"] = np.nan
    fits = parfit.fit(data, residuals, START, **ROWS)
    found = fits.sensitivity()
    assert found.loc["w"].isna().all()
    assert found.drop(index="w").notna().all(axis=None)
    nothing = parfit.fit(rows(), residuals, START, method="trf", options={"max_nfev": 1}, **ROWS)
    assert nothing.sensitivity().isna().all(axis=None)
    assert nothing.sensitivity().shape == found.shape


# ---- the forms of data


def test_columns_that_are_no_numbers_are_left_out_and_counts_are_numbers():
    frame = pd.DataFrame({"name": list("pqr"), "n": [3, 4, 5], "m": [1.0, 2.0, 4.0]}, index=[7, 7, 8])
    fits = parfit.fit(frame, lambda p, row: jnp.stack([p - row["n"], p - row["m"]]), 1.0, **ROWS)
    found = fits.sensitivity()
    assert found.columns.tolist() == [("x0", "n"), ("x0", "m")]
    assert found.index.tolist() == [7, 7, 8]
    np.testing.assert_allclose(found, 0.5)


def test_columns_of_several_levels():
    frame = rows()
    frame.columns = pd.MultiIndex.from_tuples([("y", i) for i in range(9)], names=["what", "when"])
    found = parfit.fit(frame, residuals, START, **ROWS).sensitivity()
    assert found.columns.names == ["parameter", "what", "when"]
    assert found["a", "y"].columns.tolist() == list(range(9))


def test_trees_of_arrays():
    Pair = collections.namedtuple("Pair", ["y", "t"])
    values = rows().to_numpy()
    times = np.tile(T, (5, 1))
    table = parfit.fit(rows(), residuals, START, **ROWS).sensitivity()

    def in_tree(p, d):
        return p["a"] * np.exp(-p["b"] * d.t["s"]) - d.y

    fits = parfit.fit(Pair(values, {"s": times}), in_tree, START, **ROWS)
    found = fits.sensitivity()
    assert type(found) is Pair
    assert found.t["s"].shape == (5, 2, 9)
    np.testing.assert_allclose(found.y.reshape(5, 18), table, rtol=1e-6, atol=1e-9)

    step = 1e-5
    moved = times.copy()
    moved[:, 4] += step
    again = parfit.fit(Pair(values, {"s": moved}), in_tree, START, options=EXACT, **ROWS)
    exact = parfit.fit(Pair(values, {"s": times}), in_tree, START, options=EXACT, **ROWS)
    np.testing.assert_allclose(found.t["s"][:, :, 4], (again.params - exact.params) / step, rtol=1e-3, atol=1e-5)


def test_whole_numbers_that_are_an_index_have_none():
    values = np.array([[1.0, 2.0, 6.0], [3.0, 5.0, 1.0]])
    group = np.array([[0, 0, 1], [1, 0, 0]])
    fits = parfit.fit((values, group), lambda p, d: p[d[1]] - d[0], np.zeros(2), **ROWS)
    by_value, by_group = fits.sensitivity()
    np.testing.assert_allclose(by_value[0], [[0.5, 0.5, 0.0], [0.0, 0.0, 1.0]])
    np.testing.assert_allclose(by_value[1], [[0.0, 0.5, 0.5], [1.0, 0.0, 0.0]])
    assert np.isnan(by_group).all()
    assert by_group.shape == (2, 2, 3)


def test_groups_of_unequal_length():
    """The mean: every value moves it by 1 / length."""
    frame = pd.DataFrame({"k": list("aaabbbbbbbbbbbbc"), "y": np.arange(16.0) ** 1.5})
    fits = parfit.fit(frame.groupby("k"), lambda p, g: p["m"] - g["y"], {"m": 0.0}, **ROWS)
    found = fits.sensitivity()
    assert [len(part) for part in found] == [3, 12, 1]
    for part, (_, group) in zip(found, frame.groupby("k"), strict=True):
        assert part.columns.tolist() == [("m", "y")]
        assert part.index.equals(group.index)
        np.testing.assert_allclose(part["m", "y"], 1 / len(group))


def test_groups_that_cannot_be_padded():
    frame = pd.DataFrame({"k": [*"aaabbbbcc"], "y": np.arange(9.0) ** 1.5})
    fits = parfit.fit(frame.groupby("k"), lambda p, g: p["m"] - np.diff(g["y"].to_numpy()), {"m": 0.0}, **ROWS)
    wanted = [[-1 / 2, 0, 1 / 2], [-1 / 3, 0, 0, 1 / 3], [-1, 1]]
    for part, values in zip(fits.sensitivity(), wanted, strict=True):
        np.testing.assert_allclose(part["m", "y"], values, atol=1e-12)


def test_a_list_for_objects_of_any_form():
    data = {
        "p": {"y": np.array([1.0, 2.0]), "w": 2.0, "name": "x"},
        "q": {"y": np.array([5.0, 3.0]), "w": 1.0, "name": "y"},
    }
    fits = parfit.fit(data, lambda p, d: d["w"] * p["m"] - d["y"], {"m": 0.0}, **ROWS)
    first, second = fits.sensitivity()
    np.testing.assert_allclose(first["y"], [[0.25, 0.25]])
    np.testing.assert_allclose(first["w"], [-3.0 / 8.0], rtol=1e-6)
    np.testing.assert_allclose(second["y"], [[0.5, 0.5]])
    assert first["name"] is None
    series = [pd.Series([1.0, 2.0], index=["u", "v"]), pd.Series([4.0, 2.0], index=["u", "v"])]
    table = parfit.fit(series, lambda p, s: p["m"] - s, {"m": 0.0}, **ROWS).sensitivity()[1]
    assert (table.index.tolist(), table.columns.tolist()) == (["m"], ["u", "v"])
    np.testing.assert_allclose(table, 0.5)


def test_more_rows_than_a_chunk():
    Y = np.random.default_rng(0).normal(size=(3000, 4))
    found = parfit.fit(Y, lambda p, y: p[0] - y, [0.0], engine="batch").sensitivity()
    np.testing.assert_allclose(found, 0.25)


def test_no_rows():
    fits = parfit.fit(rows().iloc[:0], residuals, START, **ROWS)
    assert fits.sensitivity().shape == (0, 18)


# ---- hyperparameters


def ridge(p, d, penalty, A):
    return jnp.concatenate([A @ p - d, jnp.sqrt(penalty) * p])


def test_a_ridge_penalty():
    rng = np.random.default_rng(0)
    A, Y = rng.normal(size=(7, 3)), rng.normal(size=(4, 7))
    fits = parfit.fit(Y, ridge, [0.0] * 3, args=(0.7, A), **ROWS)
    found = fits.sensitivity(0)
    assert found.shape == (4, 3)
    M = np.linalg.inv(A.T @ A + 0.7 * np.eye(3))
    np.testing.assert_allclose(found, -(M @ fits.params.to_numpy().T).T, rtol=1e-7)
    by_matrix = fits.sensitivity(wrt=1)
    assert by_matrix.shape == (4, 3, 7, 3)
    step = 1e-5
    up, down = (parfit.fit(Y, ridge, [0.0] * 3, args=(0.7, A + s * np.eye(7, 3, -2)), **ROWS) for s in (step, -step))
    wanted = (up.params - down.params).to_numpy() / (2 * step)
    np.testing.assert_allclose((by_matrix * np.eye(7, 3, -2)).sum(axis=(2, 3)), wanted, rtol=1e-5, atol=1e-8)


def test_an_objective_of_numpy_with_arguments():
    def weighted(p, row, power):
        return (1 + T) ** (-power) * residuals(p, row)

    def fit(power):
        return parfit.fit(rows(), weighted, START, args=power, options=EXACT, **ROWS)

    found = fit(2).sensitivity(0)
    np.testing.assert_allclose(found, (fit(2.001).params - fit(1.999).params) / 2e-3, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(
    ("wrt", "error", "match"),
    [
        ("args", InvalidTypeError, "wrt is 'data', or k"),
        (True, InvalidTypeError, "wrt is 'data'"),
        (2, InvalidInputError, "2 further arguments"),
        (-1, InvalidInputError, "2 further arguments"),
        (0, InvalidTypeError, r"args\[0\] is to be a number or an array, not str"),
        (1, InvalidTypeError, "holds bool"),
    ],
)
def test_what_there_is_no_derivative_by(wrt, error, match):
    fits = parfit.fit(rows(), lambda p, row, *_: residuals(p, row), START, args=("text", np.array([True])), **ROWS)
    with pytest.raises(error, match=match):
        fits.sensitivity(wrt)


# ---- what else it cannot do


def test_an_objective_that_cannot_be_compiled():
    def branches(p, row):
        return residuals(p, row) if p["a"] > 0 else row.to_numpy()

    fits = parfit.fit(rows(), branches, START, engine="rows", executor="serial")
    with pytest.raises(InvalidInputError, match="no sensitivity without a compiled objective: "):
        fits.sensitivity()


def test_an_objective_that_gives_another_value():
    def looks(p, row):
        return residuals(p, row) + (1.0 if "Tracer" in repr(p["a"]) else 0.0)

    fits = parfit.fit(rows(), looks, START, engine="rows", executor="serial")
    with pytest.raises(InvalidInputError, match="gives another value for dataset 'v'"):
        fits.sensitivity()


def test_constraints():
    fits = parfit.fit(rows(2), half_squares, START, constraints={"type": "ineq", "fun": lambda p: 5.0 - p["a"]}, **ROWS)
    with pytest.raises(InvalidInputError, match="constraints"):
        fits.sensitivity()


def test_without_the_data():
    fits = pickle.loads(pickle.dumps(parfit.fit(rows(), residuals, START, **ROWS)))
    with pytest.raises(InvalidInputError, match="loaded without their data"):
        fits.sensitivity()


def test_without_jax(monkeypatch):
    fits = parfit.fit(rows(), residuals, START, engine="rows", executor="serial")
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "jax" else find(name, *a))
    with pytest.raises(MissingPackageError, match=r"pip install 'parfit\[jax\]'"):
        fits.sensitivity()


def test_after_a_refit():
    short = parfit.fit(rows(), residuals, START, method="trf", options={"max_nfev": 3}, **ROWS)
    fits = short.refit(options=EXACT)
    assert fits.success.all()
    wanted = parfit.fit(rows(), residuals, START, options=EXACT, **ROWS).sensitivity()
    np.testing.assert_allclose(fits.sensitivity(), wanted, rtol=1e-4, atol=1e-6)


def test_a_loop_of_unknown_length():
    def power(p, d):
        return jax.lax.while_loop(lambda c: c[0] < 3, lambda c: (c[0] + 1, c[1] * p[0]), (0, d[1]))[1] - d[:1]

    Y = np.array([[8.0, 1.0], [27.0, 1.0]])
    fits = parfit.fit(Y, power, [1.5], options=EXACT, **ROWS)
    x = fits.params["x0"].to_numpy()
    np.testing.assert_allclose(fits.sensitivity()[:, 0, 0], 1 / (3 * x**2), rtol=1e-6)
    np.testing.assert_allclose(fits.sensitivity()[:, 0, 1], -x / 3, rtol=1e-6)
