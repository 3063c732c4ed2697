"""SPSA against its published formulas and on problems with known minima; when it ends; what NaN does to it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from parfit.core.parameters import read_parameters
from parfit.core.problem import Problem
from parfit.core.solution import Status
from parfit.core.tasks import RowTask
from parfit.solvers.spsa import SPSA
from parfit.solvers.spsa_gains import Gains
from parfit.solvers.spsa_solver import SPSASolver


def quadratic(curvatures, minimum=3.0):
    curvatures = np.asarray(curvatures, dtype=float)
    return lambda p: 1 + 0.5 * float(np.sum(curvatures * (np.asarray(p) - minimum) ** 2))


def skewed_quartic(p):
    """Spall, Introduction to Stochastic Search and Optimization (Wiley, 2003), example 6.6: minimum 0 at 0."""
    y = np.triu(np.ones((p.size, p.size))) @ p / p.size
    return float(y @ y + 0.1 * np.sum(y**3) + 0.01 * np.sum(y**4))


def rosenbrock(p):
    return float(np.sum(100 * (p[1:] - p[:-1] ** 2) ** 2 + (1 - p[:-1]) ** 2))


TIMES = np.linspace(0, 10, 30)


def decay(p):
    return 0.5 * float(np.sum((p[0] * np.exp(-p[1] * TIMES) + p[2] - 5 * np.exp(-0.4 * TIMES) - 1) ** 2))


def decay_of_unequal_scale(p):
    t = 10 * TIMES
    return 0.5 * float(np.sum((p[0] * np.exp(-p[1] * t) - 5e4 * np.exp(-0.004 * t)) ** 2))


# name: objective, start, minimum, largest excess over it after 2000 iterations with the defaults of the recipe.
# The excesses are loose where the curvatures differ by much, which first-order methods do not like.
AUTO_PROBLEMS: dict[str, tuple[Any, list[float], float, float]] = {
    "round, far": (quadratic([1] * 5), [1.0] * 5, 1.0, 1e-10),
    "round, start next to the minimum": (quadratic([1] * 5), [2.97, 3.03, 3.01, 2.99, 3.02], 1.0, 1e-10),
    "long valley": (quadratic([100] + [1] * 8), [1.0] * 9, 1.0, 1e-6),
    "long valley, near": (quadratic([100] + [1] * 8), [3.03, 2.98] * 4 + [3.01], 1.0, 1e-6),
    "50 parameters, near": (quadratic(np.linspace(1, 10, 50)), [3.01] * 50, 1.0, 1e-3),
    "Rosenbrock": (rosenbrock, [-1.2, 1.0], 0.0, 0.3),
    "Rosenbrock, 5 parameters": (rosenbrock, [1.3, 0.7, 0.8, 1.9, 1.2], 0.0, 0.1),
    "decay": (decay, [1.0, 1.0, 0.5], 0.0, 1e-3),
    "decay, scales 1e4 and 1e-2": (decay_of_unequal_scale, [3e4, 0.01], 0.0, 50.0),
    "skewed quartic": (skewed_quartic, [1.0] * 10, 0.0, 1e-2),
}


def noisy(f, sd, seed=1):
    noise = np.random.default_rng(seed)
    return lambda p: f(p) + sd * noise.normal()


def problem(fun, x0, lower=-np.inf, upper=np.inf, seed=0):
    """What a solver is handed, reduced to what SPSA uses of it."""
    x0 = np.asarray(x0, dtype=float)
    lower, upper = (np.broadcast_to(np.asarray(b, float), x0.shape).copy() for b in (lower, upper))
    bounds = list(zip(lower.tolist(), upper.tolist(), strict=True))
    parameters = read_parameters(x0, bounds, None, pd.RangeIndex(1), None)
    return Problem(lambda params, _: fun(params), parameters, seed=seed).bind(RowTask(0, None))


# ---- the published formulas


def test_gains_are_those_of_the_paper():
    gains = Gains(c=0.05, A=100.0, alpha=0.602, gamma=0.101)
    k = np.arange(1000)
    np.testing.assert_allclose([gains.a_k(0.16, i) for i in k], 0.16 / (k + 1 + 100) ** 0.602, rtol=1e-14)
    np.testing.assert_allclose([gains.c_k(i) for i in k], 0.05 / (k + 1) ** 0.101, rtol=1e-14)
    assert gains.a_k(gains.a_for(0.1, 7.0), 0) * 7.0 == pytest.approx(0.1)


def test_every_step_is_the_formula():
    calls, iterates = [], []
    f = quadratic([1, 5, 0.2])

    def recorded(p):
        calls.append(p.copy())
        return f(p)

    a, c, A = 0.3, 0.05, 7.0
    result = SPSA(recorded, [1.0, 2, 5], a, c, maxiter=40, stability=A, ftol=None, seed=5, callback=iterates.append)
    rng, x = np.random.default_rng(5), np.array([1.0, 2, 5])
    for k in range(40):
        delta = 2.0 * rng.integers(0, 2, 3) - 1
        a_k, c_k = a / (k + 1 + A) ** 0.602, c / (k + 1) ** 0.101
        np.testing.assert_allclose(calls[2 * k], x + c_k * delta, rtol=1e-12)
        np.testing.assert_allclose(calls[2 * k + 1], x - c_k * delta, rtol=1e-12)
        x = x - a_k * (f(x + c_k * delta) - f(x - c_k * delta)) / (2 * c_k * delta)
        np.testing.assert_allclose(iterates[k], x, rtol=1e-10)
    np.testing.assert_array_equal(calls[80], result.x)
    assert len(calls) == result.nfev == 81
    assert result.fun == f(result.x)
    assert set(np.unique(np.sign(calls[0] - calls[1]))) <= {-1, 1}


def test_stability_is_a_tenth_of_maxiter_unless_given():
    assert SPSA(rosenbrock, [0.0, 0], maxiter=50).gains["A"] == 5
    assert SPSA(rosenbrock, [0.0, 0], maxiter=50, stability=0).gains["A"] == 0


def test_the_automatic_gain_makes_a_first_step_of_the_size_asked_for():
    iterates = []
    SPSA(quadratic([1.0]), [13.0], a_par=None, max_step=0.5, maxiter=200, callback=iterates.append)
    path = np.ravel(iterates)
    assert np.all(path[:10] == 13)  # the gradient estimates at the start
    assert path[10] == pytest.approx(12.5)


# ---- known minima


@pytest.mark.parametrize("n", [1, 2, 10, 40])
def test_noisy_quadratic(n):
    result = SPSA(noisy(quadratic([1] * n), 0.01), [1] * n, a_par=4 / n, c_par=0.1, maxiter=3000)
    np.testing.assert_allclose(result.x, 3, atol=0.1)
    assert result.message == "stopped at maxiter"
    assert (result.status, result.success, result.nit, result.nfev) == (1, False, 3000, 6001)


def test_noisy_skewed_quartic():
    start = np.ones(10)
    assert skewed_quartic(start) == pytest.approx(4.178, abs=5e-4)
    result = SPSA(noisy(skewed_quartic, 0.1), start, a_par=0.5, c_par=0.1, maxiter=5000)
    assert skewed_quartic(result.x) < 0.04


def test_noisy_rosenbrock_descends():
    result = SPSA(noisy(rosenbrock, 0.01), [-1.2, 1], a_par=None, maxiter=5000)
    assert rosenbrock(result.x) < 0.5


@pytest.mark.parametrize("name", AUTO_PROBLEMS)
@pytest.mark.parametrize("seed", range(3))
def test_recipe_out_of_the_box(name, seed):
    f, start, minimum, excess = AUTO_PROBLEMS[name]
    solution = SPSASolver().solve(problem(f, start, seed=seed))
    assert solution.cost - minimum < excess
    assert solution.cost == f(solution.x)
    assert solution.status in (Status.CONVERGED, Status.MAX_STEPS)
    assert solution.nfev == 2 * solution.nit + 1


@pytest.mark.parametrize("factor", [1e-200, 1e-9, 1e9, 1e200])
def test_the_automatic_gain_does_not_depend_on_the_unit_of_the_objective(factor):
    result = SPSA(lambda p: factor * decay(p), [1, 1, 0.5], a_par=None, scale="auto", maxiter=1000)
    assert decay(result.x) < 0.01


# ---- termination


def test_a_tolerance_on_the_objective_ends_a_run_without_noise():
    result = SPSA(quadratic([1, 2]), [1, 1], a_par=0.5, stability=0, maxiter=3000)
    assert result.success
    assert result.status == 0
    assert "ftol" in result.message
    np.testing.assert_allclose(result.x, 3, atol=1e-5)


def test_noise_is_not_taken_for_convergence():
    result = SPSA(noisy(lambda p: 1.0, 1e-3), [1, 1], a_par=1e-6, maxiter=500)
    assert not result.success
    assert result.nit == 500


def test_tiny_gains_are_not_taken_for_convergence_in_the_objective():
    result = SPSA(quadratic([1, 1]), [1, 1], a_par=1e-6, maxiter=200)
    assert not result.success


def test_a_plateau_is_no_convergence():
    result = SPSA(lambda p: 5.0, [1, 2], param_tol=1, maxiter=100)
    assert not result.success
    assert (result.n_tied, result.nit) == (100, 100)
    assert "tied" in result.message
    auto = SPSA(lambda p: 5.0, [1, 2], a_par=None, param_tol=1, maxiter=100)
    assert (auto.success, auto.nit) == (False, 100)
    np.testing.assert_array_equal(auto.x, [1, 2])


def test_the_very_minimum_of_a_symmetric_objective_is_no_plateau():
    result = SPSA(quadratic([1, 1]), [1, 1], a_par=0.5, stability=0, window=2, maxiter=1000)
    assert result.success
    np.testing.assert_allclose(result.x, 3, atol=1e-6)
    at_once = SPSA(quadratic([1, 1]), [3, 3], a_par=0.5)
    assert (at_once.success, at_once.nit) == (True, 40)


def test_an_objective_of_integers_is_minimised():
    steps = noisy(lambda p: float(np.sum((p - 3) ** 2)), 1.0)
    result = SPSA(lambda p: round(steps(p)), [10, -4], a_par=0.3, c_par=0.5, maxiter=2000)
    assert result.n_tied > 20
    assert result.nit == 2000
    np.testing.assert_allclose(result.x, 3, atol=0.5)


def test_zero_or_one_is_no_convergence():
    coin = np.random.default_rng(0)
    result = SPSA(lambda p: int(coin.integers(2)), [1.0, 2.0], ftol=1e-3, maxiter=500)
    assert result.nit == 500
    assert result.n_tied > 100


@pytest.mark.parametrize("tolerance", [1e-3, [1e-3, 1e-2]])
def test_param_tol(tolerance):
    seen = []
    result = SPSA(quadratic([1, 2]), [1, 2], a_par=0.5, ftol=None, param_tol=tolerance, window=15, callback=seen.append)
    assert result.success
    assert "param_tol" in result.message
    assert np.all(np.ptp(seen[-15:], axis=0) <= tolerance)
    assert not np.all(np.ptp(seen[-16:-1], axis=0) <= tolerance)


def test_no_iteration_at_all():
    params, value, n_iter = SPSA(rosenbrock, [1, 2], maxiter=0)
    assert (params.tolist(), value, n_iter) == ([1, 2], 100.0, 0)


def test_nothing_to_move():
    result = SPSA(rosenbrock, [1, 2], bounds=[(1, 1), (2, 2)])
    assert (result.success, result.nit, result.nfev, result.fun) == (True, 0, 1, 100.0)


# ---- NaN


def test_nothing_but_nan():
    for a_par in (0.1, None):
        result = SPSA(lambda p: np.nan, [1, 2], a_par=a_par)
        assert (result.success, result.status) == (False, 2)
        assert result.n_skipped == result.nit == 100
        assert "NaN" in result.message
        assert "start" in result.message
        np.testing.assert_array_equal(result.x, [1, 2])
    assert "start" in SPSA(lambda p: np.inf, [1, 2], maxiter=5).message


def test_a_nan_now_and_then_is_skipped_and_counted():
    crash = np.random.default_rng(3)
    f = quadratic([1, 1])
    result = SPSA(lambda p: np.nan if crash.random() < 0.2 else f(p), [1, 1], 0.5, stability=0, maxiter=300, ftol=None)
    assert 50 < result.n_skipped < 200
    assert f"{result.n_skipped} of 300" in result.message
    if np.isfinite(result.fun):
        np.testing.assert_allclose(result.x, 3, atol=1e-2)


def test_out_of_a_region_of_nan_again():
    def f(p):  # the gain is too large by far: the first step lands where the logarithm is NaN
        return float(10 * p[0] - 10 * np.log(p[0])) if p[0] > 0 else np.nan

    result = SPSA(f, [5.0], a_par=2, stability=0, maxiter=1000, ftol=None)
    assert result.n_skipped > 1
    assert np.isfinite(result.fun)
    assert result.x[0] == pytest.approx(1, abs=0.3)


def test_never_ends_on_nan_where_something_finite_is_known():
    result = SPSA(lambda p: float(p[0]) if p[0] > 0 else np.nan, [1.0], a_par=5, stability=0, maxiter=1)
    assert result.nfev == 4
    assert (result.x.tolist(), result.fun) == ([1.0], 1.0)


# ---- gains that are too large


@pytest.mark.filterwarnings("ignore:overflow")
@pytest.mark.parametrize("a_par", [1e3, 1e200])
def test_divergence_is_named_with_what_helps(a_par):
    result = SPSA(quadratic([1, 1]), [1, 1], a_par=a_par, maxiter=300)
    assert not result.success
    assert result.message.endswith("take a smaller a_par, a max_step, or a_par=None, which finds the gain")
    assert SPSA(quadratic([1, 1]), [1, 1], a_par=a_par, max_step=0.5, maxiter=300).fun < 2
    assert SPSA(quadratic([1, 1]), [1, 1], a_par=None, maxiter=300).fun < 2
    stopped = SPSA(quadratic([1, 1]), [1, 1], a_par=0.1, maxiter=5)
    assert stopped.message == "stopped at maxiter"
