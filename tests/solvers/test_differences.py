"""Forward differences of our own: the numbers are SciPy's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.optimize import least_squares

import parfit
from parfit.core.data import read_data
from parfit.core.parameters import read_parameters
from parfit.core.problem import BoundProblem, Problem
from parfit.core.tasks import RowTask
from parfit.solvers.differences import ForwardDifferences

T = np.linspace(0, 4, 20)
SCALES = [1e-9, 1.0, 1e6]


def decay(p: np.ndarray, y: np.ndarray) -> np.ndarray:
    return p[0] * np.exp(-p[1] * T) + p[2] - y


def data(n: int) -> np.ndarray:
    rng = np.random.default_rng(5)
    p = rng.uniform([1, 0.3, 0.2], [3, 1, 0.6], (n, 3))
    return np.stack([decay(row, 0 * T) for row in p]) + 0.02 * rng.normal(size=(n, 20))


def bound(objective: Any, x0: Any, bounds: Any = None) -> BoundProblem:
    parameters = read_parameters(x0, bounds, None, read_data([0]).labels, lambda function: function(0))
    problem = Problem(objective=objective, parameters=parameters).bind(RowTask(0, 0))
    problem.start()
    return problem


@pytest.mark.parametrize("method", ["lm", "trf", "dogbox"])
@pytest.mark.parametrize("limits", [None, ([0, 0, 0], [9, 9, 9]), ([0, 0, 0.3], [2, 0.8, 0.55])], ids=str)
def test_the_fit_is_scipys_bit_for_bit(method: str, limits: Any) -> None:
    if method == "lm" and limits is not None:
        pytest.skip("bounded, it is trf with options of its own")
    Y = data(20)
    fits = parfit.fit(list(Y), decay, [1.0, 0.5, 0.4], bounds=limits, method=method, executor="serial")
    for i, y in enumerate(Y):
        bounds = (-np.inf, np.inf) if limits is None else limits
        found = least_squares(decay, [1.0, 0.5, 0.4], args=(y,), bounds=bounds, method=method)
        assert fits[i].x.tolist() == found.x.tolist()
        assert fits[i].cost == found.cost


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("at", [-1.0, 0.0, 0.5, 1.0], ids=str)
def test_the_jacobian_is_scipys(scale: float, at: float) -> None:
    """In the open, at a bound, and where the box is narrower than the step."""
    from scipy.optimize._numdiff import approx_derivative

    def objective(p: Any, _: Any) -> np.ndarray:
        return np.array([np.sin(p[0] / scale), p[0] * p[1], p[1] ** 3])

    z = np.array([at * scale, 0.7])
    for lower, upper in [(-np.inf, np.inf), (at * scale, np.inf), (-np.inf, at * scale), (z[0] - 1e-9, z[0] + 3e-9)]:
        limits = [(lower, upper), (None, None)]
        problem = bound(objective, z, limits if np.isfinite([lower, upper]).any() else None)
        differences = ForwardDifferences(problem)
        box = ([lower, -np.inf], [upper, np.inf])
        wanted = approx_derivative(lambda z: objective(z, 0), z, method="2-point", bounds=box)
        np.testing.assert_array_equal(differences.jacobian(z), wanted)
        differences.residuals(z)
        np.testing.assert_array_equal(differences.jacobian(z), wanted)


def test_residuals_that_were_just_computed_are_not_computed_again() -> None:
    problem = bound(lambda p, _: np.array([p[0], p[1] ** 2, 1.0]), np.array([1.0, 2.0]))
    differences = ForwardDifferences(problem)
    z = np.array([3.0, 4.0])
    differences.residuals(z)[:] = 7.0  # SciPy's robust losses write into them
    before = problem.nfev
    J = differences.jacobian(z)
    assert problem.nfev == before + 2
    np.testing.assert_allclose(J, [[1, 0], [0, 8], [0, 0]], rtol=1e-7)
    z[0] = 5.0
    differences.jacobian(z)
    assert problem.nfev == before + 5


def test_an_objective_that_hands_out_the_same_array() -> None:
    memory = np.empty(20)

    def reused(p: np.ndarray, y: np.ndarray) -> np.ndarray:
        np.subtract(p[0] * np.exp(-p[1] * T) + p[2], y, out=memory)
        return memory

    Y = list(data(3))
    once, twice = (parfit.fit(Y, f, [1.0, 0.5, 0.4], executor="serial") for f in (decay, reused))
    assert once.params.equals(twice.params)


@pytest.mark.parametrize("method", ["lm", "trf", "dogbox"])
@pytest.mark.parametrize("parameters_too", [False, True])
def test_residuals_of_single_precision_get_steps_that_they_can_show(method: str, parameters_too: bool) -> None:
    def single(p: np.ndarray, y: np.ndarray) -> np.ndarray:
        return decay(p.astype(np.float32) if parameters_too else p, y).astype(np.float32)

    Y = list(data(30))
    fits, best = (parfit.fit(Y, f, [1.0, 0.5, 0.4], method=method, executor="serial") for f in (single, decay))
    assert fits.success.all()
    np.testing.assert_allclose(fits.summary["cost"], best.summary["cost"], rtol=1e-5)
