"""SPSA as users call it: starts, bounds, refusals, seeds, the result, callbacks, SciPy's method, the recipe."""

from __future__ import annotations

import copy
import logging
import pickle

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import Bounds, LinearConstraint, OptimizeResult, minimize

from parfit.core.errors import InvalidInputError, InvalidTypeError, ParfitWarning
from parfit.core.parameters import read_parameters
from parfit.core.problem import Problem
from parfit.core.solution import Status
from parfit.core.tasks import RowTask
from parfit.solvers.spsa import SPSA, SPSAResult
from parfit.solvers.spsa_solver import SPSASolver


def quadratic(curvatures, minimum=3.0):
    curvatures = np.asarray(curvatures, dtype=float)
    return lambda p: 1 + 0.5 * float(np.sum(curvatures * (np.asarray(p) - minimum) ** 2))


def rosenbrock(p):
    return float(np.sum(100 * (p[1:] - p[:-1] ** 2) ** 2 + (1 - p[:-1]) ** 2))


def problem(fun, x0, lower=-np.inf, upper=np.inf, seed=0):
    """What a solver is handed, reduced to what SPSA uses of it."""
    x0 = np.asarray(x0, dtype=float)
    lower, upper = (np.broadcast_to(np.asarray(b, float), x0.shape).copy() for b in (lower, upper))
    bounds = list(zip(lower.tolist(), upper.tolist(), strict=True))
    parameters = read_parameters(x0, bounds, None, pd.RangeIndex(1), None)
    return Problem(lambda params, _: fun(params), parameters, seed=seed).bind(RowTask(0, None))


# ---- starts and bounds


def test_starts_of_every_shape():
    np.testing.assert_allclose(SPSA(quadratic([1, 1]), [1, 2], a_par=0.5, maxiter=500).x, 3, atol=1e-2)
    shapes = []

    def f(p):
        shapes.append(np.shape(p))
        return float(np.sum((p - 3) ** 2))

    result = SPSA(f, np.ones((2, 3), dtype=int), a_par=0.2, maxiter=500)
    assert set(shapes) == {(2, 3)} == {result.x.shape}
    np.testing.assert_allclose(result.x, 3, atol=1e-2)
    params, _, _ = SPSA(lambda p: (p - 3) ** 2, 1, a_par=0.3, bounds=(0, 5), maxiter=500)
    assert isinstance(params, float)
    assert params == pytest.approx(3, abs=1e-2)


def test_an_objective_that_writes_into_its_argument():
    def spoil(p):
        value = float(np.sum((p - 3) ** 2))
        p[:] = np.nan
        return value

    assert SPSA(spoil, [1, 1], a_par=0.3, maxiter=50) is not None
    np.testing.assert_allclose(SPSA(spoil, [1, 1], a_par=0.3, maxiter=500).x, 3, atol=1e-2)


def test_args():
    result = SPSA(lambda p, a, b: float(np.sum((p - a) ** 2)) + b, [0.0], 0.3, args=(2, 5), maxiter=300)
    assert result.fun == pytest.approx(5, abs=1e-3)
    assert SPSA(lambda p, a: float((p[0] - a) ** 2), [0.0], args=2, maxiter=2).nit == 2


@pytest.mark.parametrize(
    "bounds", [[(None, 2), (0, None)], [(-np.inf, 2), (0, np.inf)], Bounds([-np.inf, 0], [2, np.inf])]
)
def test_a_minimum_on_a_bound_is_reached(bounds):
    result = SPSA(quadratic([1, 1]), [1, 1], a_par=0.5, bounds=bounds, param_tol=1e-3, maxiter=500)
    assert result.x[0] == 2
    assert result.x[1] == pytest.approx(3, abs=1e-2)


def test_a_minimum_inside_a_box_narrower_than_the_perturbation_is_found():
    result = SPSA(quadratic([1.0], 0.003), [0.0005], a_par=0.5, c_par=0.01, bounds=[(0, 0.005)], maxiter=500)
    assert result.x[0] == pytest.approx(0.003, abs=1e-5)


@st.composite
def boxes(draw):
    n = draw(st.integers(1, 4))
    lower, upper, start = [], [], []
    for _ in range(n):
        low = draw(st.floats(-1e3, 1e3))
        width = draw(st.sampled_from([0.0, 5e-324, 1e-12, 1e-3, 0.019, 0.021, 1.0, 1e6]))
        where = draw(st.floats(0, 1))
        high = low + width
        start.append(min(max(low + where * width, low), high))
        lower.append(draw(st.sampled_from([low, low, low, -np.inf])))
        upper.append(draw(st.sampled_from([high, high, high, np.inf])))
    return np.array(start), np.array(lower), np.array(upper)


@settings(max_examples=150, deadline=None)
@given(boxes(), st.sampled_from([1e-6, 1.0, 1e6, None]), st.sampled_from([1e-9, 0.01, 10.0]), st.integers(0, 9))
def test_bounds_are_never_left(box, a_par, c_par, seed):
    start, lower, upper = box
    points = []

    def f(p):
        points.append(p.copy())
        return float(np.sum(np.cos(3 * p) + 1e-3 * p))

    result = SPSA(
        f, start, a_par, c_par, bounds=list(zip(lower, upper, strict=True)), maxiter=40, seed=seed,
        callback=points.append, scale="auto" if seed % 2 else None,
    )  # fmt: skip
    points.append(result.x)
    assert np.all(lower <= np.array(points))
    assert np.all(np.array(points) <= upper)


@pytest.mark.parametrize(
    ("start", "options", "text"),
    [
        ([5, 1], {"bounds": [(0, 2), (0, 2)]}, "parameter 0 of 2 starts at 5.0, outside its bounds 0.0 to 2.0"),
        ([1, 1], {"bounds": [(0, 2), (2, 0)]}, "lower bound above its upper bound"),
        ([1, 1], {"bounds": [(0, 2)]}, "2 pairs"),
        ([1, 1], {"bounds": [(0, 2), (0, "two")]}, "2 pairs"),
        ([1, 1], {"bounds": Bounds([0, 0, 0], 2)}, "2 pairs"),
        ([1, 1], {"bounds": [(0, 2), (np.nan, 2)]}, "NaN bound"),
        ([np.nan, 1], {}, "not finite"),
        ([1, 1], {"a_par": 0}, "a_par must be a positive"),
        ([1, 1], {"c_par": -1}, "c_par must be a positive"),
        ([1, 1], {"maxiter": 2.5}, "maxiter must be a whole number"),
        ([1, 1], {"window": 1}, "window must be a whole number, 2 or more"),
        ([1, 1], {"ftol": np.nan}, "ftol must be"),
        ([1, 1], {"param_tol": [1, 1, 1]}, "param_tol has 3 elements for 2 parameters"),
        ([1, 1], {"scale": "big"}, "scale must be 'auto'"),
        ([1, 1], {"scale": [1, 0]}, "scale must be positive"),
        ([1, 1], {"seed": -1}, "seed"),
        ([1, 1], {"maxiter": -1}, "maxiter must be a whole number, 0 or more, not -1"),
        ([1, 1], {"maxiter": np.inf}, "maxiter must be a whole number"),
        ([1, 1], {"alpha": -1}, "alpha must be a non-negative"),
        ([1, 1], {"print_iters": -1}, "print_iters must be a non-negative"),
        ([1, 1], {"param_tol": -1}, "param_tol must be finite and not negative"),
        ([1, 1], {"save_iters": 0}, "save_iters must be a whole number, 1 or more"),
        ([1, 1], {"constraints": LinearConstraint([1, 1], 0, 1)}, "no constraints"),
    ],
)
def test_refusals(start, options, text):
    with pytest.raises(InvalidInputError, match=text):
        SPSA(rosenbrock, start, **options)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("maxiter", "9"), ("maxiter", True), ("maxiter", None), ("a_par", "0.1"), ("c_par", "0.1"), ("alpha", None),
        ("gamma", "x"), ("print_iters", "x"), ("ftol", "1e-8"), ("param_tol", "a"), ("param_tol", {}), ("window", [3]),
    ],
)  # fmt: skip
def test_options_of_the_wrong_kind(name, value):
    with pytest.raises(InvalidTypeError, match=f"{name} must be a"):
        SPSA(rosenbrock, [1, 1], **{name: value})
    if name != "print_iters":
        with pytest.raises(InvalidTypeError, match=f"{name} must be a"):
            SPSASolver(**{name: value})


def test_options_of_other_kinds_that_are_numbers():
    plain = SPSA(quadratic([1, 1]), [1, 1], 0.5, maxiter=5)
    for a, n in ((np.array(0.5), 5.0), (np.float64(0.5), np.int64(5)), (np.array(0.5), np.array(5))):
        np.testing.assert_array_equal(SPSA(quadratic([1, 1]), [1, 1], a, maxiter=n).x, plain.x)


@pytest.mark.parametrize("start", [None, "one", {"a": 1}, [1j, 2], [[1], [1, 2]]])
def test_starts_of_the_wrong_kind(start):
    with pytest.raises(InvalidTypeError, match="initparams"):
        SPSA(rosenbrock, start)


@pytest.mark.parametrize("value", [None, "x", np.zeros(3), 1j, [1, 2]])
def test_objectives_of_the_wrong_kind(value):
    with pytest.raises(InvalidTypeError, match="one real number"):
        SPSA(lambda p: value, [1, 2])


def test_an_exception_of_the_objective_passes_through():
    with pytest.raises(ZeroDivisionError):
        SPSA(lambda p: 1 / 0, [1, 2])
    with pytest.raises(StopIteration):
        SPSA(lambda p: next(iter([])), [1, 2])
    with pytest.raises(ZeroDivisionError):
        SPSASolver().solve(problem(lambda p: 1 / 0, [1, 2]))


# ---- seeds


def test_the_seed_decides_the_run_and_nothing_else_is_touched():
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    first, again, other = (SPSA(rosenbrock, [0.0, 0], a_par=None, maxiter=50, seed=s) for s in (1, 1, 2))
    np.testing.assert_array_equal(first.x, again.x)
    assert not np.array_equal(first.x, other.x)
    generator = SPSA(rosenbrock, [0.0, 0], a_par=None, maxiter=50, seed=np.random.default_rng(1))
    np.testing.assert_array_equal(first.x, generator.x)
    assert first.rng_state == generator.rng_state
    fresh = [SPSA(rosenbrock, [0.0, 0], a_par=None, maxiter=50, seed=None).x for _ in range(2)]
    assert not np.array_equal(*fresh)
    np.testing.assert_array_equal(before, np.random.get_state()[1])  # noqa: NPY002


# ---- the result, the callback, the reports


def test_the_result_is_both_a_tuple_and_an_optimize_result():
    result = SPSA(quadratic([1, 1]), [1, 2], maxiter=3)
    params, value, n_iter = result
    assert isinstance(result, OptimizeResult)
    assert len(result) == 3
    assert result[0] is params is result.x is result["x"]
    assert result[1] == value == result.fun == result["fun"]
    assert result[2] == result[-1] == n_iter == result.nit == 3
    assert result[:2] == (params, value)
    assert "x" in result
    assert {"x", "fun", "nit", "nfev", "success", "status", "message"} <= set(result.keys())
    assert "message" in repr(result)
    with pytest.raises(AttributeError):
        result.nonsense  # noqa: B018
    with pytest.raises(IndexError):
        result[3]
    for twin in (
        pickle.loads(pickle.dumps(result)), copy.copy(result), copy.deepcopy(result), result.copy()
    ):  # fmt: skip
        assert type(twin) is SPSAResult
        assert twin.keys() == result.keys()
        np.testing.assert_array_equal(twin[0], params)
    assert dict(result)["nit"] == 3


def test_callbacks():
    points = []
    SPSA(quadratic([1, 1]), [1, 2], maxiter=7, callback=points.append)
    assert [p.shape for p in points] == [(2,)] * 7
    results = []

    def collect(intermediate_result):
        results.append(intermediate_result)
        intermediate_result.x[:] = np.nan
        if intermediate_result.nit == 4:
            raise StopIteration

    stopped = SPSA(quadratic([1, 1]), [1, 2], maxiter=7, callback=collect)
    assert [r.nit for r in results] == [1, 2, 3, 4]
    assert (stopped.nit, stopped.status, stopped.success) == (4, 99, False)
    assert "callback" in stopped.message
    assert np.all(np.isfinite(stopped.x))
    with pytest.raises(InvalidTypeError, match="callback"):
        SPSA(rosenbrock, [1, 2], callback=3)


@pytest.mark.parametrize(("print_iters", "lines"), [(100.0, 3), (150, 2), (None, 0), (0, 0), (False, 0)])
def test_progress_is_logged_and_printed_only_on_request(print_iters, lines, caplog, capsys):
    with caplog.at_level(logging.INFO, logger="parfit"):
        SPSA(rosenbrock, [0, 0], maxiter=300, print_iters=print_iters)
    assert len(caplog.records) == lines
    assert capsys.readouterr() == ("", "")
    SPSA(rosenbrock, [0, 0], maxiter=300, print_iters=print_iters, disp=True)
    assert len(capsys.readouterr().out.splitlines()) == lines


# ---- as a method of SciPy, and of parfit


@pytest.mark.parametrize("bounds", [None, [(0, None), (0, 4)], Bounds([0, 0], [np.inf, 4])])
def test_as_a_method_of_scipy(bounds):
    seen = []
    result = minimize(
        quadratic([1, 1]), [1, 1], method=SPSA, bounds=bounds, callback=seen.append, tol=1e-6,
        options={"a_par": 0.5, "maxiter": 400, "stability": 0},
    )  # fmt: skip
    assert result.success
    np.testing.assert_allclose(result.x, 3, atol=1e-2)
    assert len(seen) == result.nit
    assert minimize(lambda p, a: float((p[0] - a) ** 2), 1.0, args=(2,), method=SPSA).x.shape == (1,)


def test_scipy_derivatives_are_ignored_and_constraints_refused():
    with pytest.warns(ParfitWarning, match="does not use jac"):
        minimize(quadratic([1]), [1], jac=lambda p: p - 3, method=SPSA, options={"maxiter": 2})
    with pytest.raises(InvalidInputError, match="SLSQP"):
        minimize(rosenbrock, [1, 1], method=SPSA, constraints={"type": "eq", "fun": lambda p: p[0]})
    assert minimize(rosenbrock, [1, 1], method=SPSA, constraints=[], options={"maxiter": 2}).nit == 2


def test_recipe_statuses():
    stopped = SPSASolver(maxiter=5).solve(problem(rosenbrock, [0, 0]))
    assert (stopped.status, stopped.nit) == (Status.MAX_STEPS, 5)
    assert SPSASolver().solve(problem(lambda p: np.nan, [0, 0])).status is Status.NONFINITE
    cornered = SPSASolver().solve(problem(quadratic([1]), [1], 0, 2))
    assert (cornered.status, cornered.x.tolist()) == (Status.CONVERGED, [2.0])
    assert cornered.at_bound.tolist() == [1]
    edge = SPSASolver().solve(problem(quadratic([1, 1]), [1, 1], [0, 0], [2, np.inf]))
    assert edge.at_bound.tolist() == [1, 0]
    np.testing.assert_allclose(edge.x, [2, 3], atol=0.2)


def test_the_recipe_is_frozen_pickles_and_repeats():
    recipe = SPSASolver(maxiter=60, a_par="auto")
    assert recipe == pickle.loads(pickle.dumps(recipe)) == SPSASolver(maxiter=60)
    assert (recipe.name, recipe.accepts_bounds, recipe.residuals) == ("spsa", True, False)
    with pytest.raises(AttributeError):
        recipe.maxiter = 3
    with pytest.raises(InvalidInputError, match="c_par"):
        SPSASolver(c_par=0)
    a, b = (recipe.solve(problem(rosenbrock, [1, 2, 0.5], seed=4)) for _ in range(2))
    np.testing.assert_array_equal(a.x, b.x)
