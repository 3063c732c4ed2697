"""Constraints in SciPy's forms, also beside fixed parameters, with SciPy called directly as the referee."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import optimize, sparse
from scipy.optimize import BFGS, LinearConstraint, NonlinearConstraint

import parfit

#: What SciPy itself warns of; under pytest's filters it would raise.
pytestmark = [
    pytest.mark.filterwarnings("ignore:delta_grad == 0.0"),
    pytest.mark.filterwarnings("ignore:Constraint options"),
]

METHODS = ["SLSQP", "trust-constr", "COBYLA", "COBYQA"]
#: The point of a circle or line that is nearest to a target, one target a row.
TARGETS = pd.DataFrame([[2.0, 1.0], [1.5, 0.5], [0.1, 0.2]], index=["far", "near", "inside"])
START = [0.5, 0.25]


def distance(p: Any, target: Any) -> float:
    return float((p[0] - target.iloc[0]) ** 2 + (p[1] - target.iloc[1]) ** 2)


def circle(p: Any) -> float:
    return 1.0 - p[0] ** 2 - p[1] ** 2


def circle_gradient(p: Any) -> np.ndarray:
    return np.array([-2.0 * p[0], -2.0 * p[1]])


def circle_hessian(p: Any, v: Any) -> np.ndarray:
    return -2.0 * v[0] * np.eye(2)


FORMS: dict[str, Any] = {
    "dict": {"type": "ineq", "fun": circle},
    "dict with jac": {"type": "ineq", "fun": circle, "jac": circle_gradient},
    "dict with args": {"type": "ineq", "fun": lambda p, r: r - p[0] ** 2 - p[1] ** 2, "args": (1.0,)},
    "nonlinear": NonlinearConstraint(circle, 0, np.inf),
    "nonlinear with derivatives": NonlinearConstraint(circle, 0, np.inf, jac=circle_gradient, hess=circle_hessian),
    "nonlinear with BFGS": NonlinearConstraint(circle, 0, np.inf, jac="2-point", hess=BFGS()),
    "linear": LinearConstraint([[1.0, 1.0]], -np.inf, 1.0),
    "several": [LinearConstraint([1.0, 1.0], ub=1.0), {"type": "ineq", "fun": lambda p: p[0] - p[1]}],
}


def fit(method: str, constraints: Any, data: Any = TARGETS, **given: Any) -> parfit.Fits:
    given = {"objective": distance, "x0": START, **given}
    objective, x0 = given.pop("objective"), given.pop("x0")
    return parfit.fit(data, objective, x0, method=method, constraints=constraints, executor="serial", **given)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("method", METHODS)
def test_the_same_bits_as_scipy(method: str, form: str) -> None:
    fits = fit(method, FORMS[form])
    for label, target in TARGETS.iterrows():
        found = optimize.minimize(distance, START, args=(target,), method=method, constraints=FORMS[form])
        assert np.array_equal(fits.params.loc[label], found.x)
        assert fits[label].cost == found.fun
        assert fits[label].success == found.success


@pytest.mark.parametrize("method", METHODS)
def test_known_answers(method: str) -> None:
    loose = 0.02 if method == "COBYLA" else 2e-4
    on_circle = TARGETS.div(np.maximum(1.0, np.hypot(TARGETS[0], TARGETS[1])), axis=0)
    np.testing.assert_allclose(fit(method, FORMS["dict"]).params, on_circle, atol=loose)
    excess = np.maximum(TARGETS.sum(axis=1) - 1.0, 0.0).to_numpy()[:, None]
    np.testing.assert_allclose(fit(method, FORMS["linear"]).params, TARGETS - excess / 2, atol=loose)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("method", METHODS)
def test_beside_a_fixed_parameter(method: str, form: str) -> None:
    """With x1 fixed at 0.25, what is left is one coordinate, cut off where the constraint says."""
    limit = {"linear": 0.75, "several": 0.75}.get(form, np.sqrt(1 - 0.25**2))
    low = 0.25 if form == "several" else -np.inf
    fits = fit(method, FORMS[form], fixed=["x1"])
    assert fits.success.all(), fits.summary["message"].tolist()
    assert (fits.params["x1"] == 0.25).all()
    np.testing.assert_allclose(fits.params["x0"], np.clip(TARGETS[0], low, limit), atol=1e-3)


@pytest.mark.parametrize("method", METHODS)
def test_parameters_reach_the_constraint_in_their_structure(method: str) -> None:
    def inside(p: Any) -> float:
        return circle([p["a"], p["b"][0]])

    fits = fit(
        method,
        {"type": "ineq", "fun": inside},
        objective=lambda p, d: distance([p["a"], p["b"][0]], d),
        x0={"a": 0.5, "b": [0.25]},
    )
    assert np.array_equal(fits.params, fit(method, FORMS["dict"]).params)


def test_a_sparse_linear_constraint() -> None:
    constraint = LinearConstraint(sparse.csr_matrix([[1.0, 1.0]]), -np.inf, 1.0)
    for fixed in (None, ["x1"]):
        dense = fit("trust-constr", FORMS["linear"], fixed=fixed)
        np.testing.assert_allclose(fit("trust-constr", constraint, fixed=fixed).params, dense.params, atol=1e-3)


@pytest.mark.parametrize("method", METHODS)
def test_several_of_different_lengths_beside_bounds(method: str) -> None:
    constraints = [
        NonlinearConstraint(lambda p: [circle(p), p[0] - p[1]], 0, np.inf),
        LinearConstraint([1.0, 1.0], ub=1.2),
    ]
    fits = fit(method, constraints, bounds=[(0, 0.9), (0.05, 1)])
    assert fits.success.all(), fits.summary["message"].tolist()
    values = fits.params.to_numpy()
    assert (values >= np.array([0, 0.05]) - 1e-4).all()
    assert (values <= np.array([0.9, 1]) + 1e-4).all()
    assert (values.sum(axis=1) <= 1.2 + 1e-4).all()
    assert (values[:, 0] >= values[:, 1] - 1e-4).all()


@pytest.mark.parametrize("method", METHODS)
def test_equality(method: str) -> None:
    fits = fit(method, {"type": "eq", "fun": lambda p: p[0] + p[1] - 1})
    np.testing.assert_allclose(fits.params.sum(axis=1), 1.0, atol=1e-4)
    offset = (TARGETS.sum(axis=1) - 1).to_numpy()[:, None] / 2
    np.testing.assert_allclose(fits.params, TARGETS - offset, atol=5e-3)


def test_optimality_is_not_told_from_a_gradient_that_cannot_vanish() -> None:
    assert fit("SLSQP", FORMS["dict"]).summary["optimality"].isna().all()
    assert (fit("trust-constr", FORMS["dict"]).summary["optimality"] < 1e-3).all()


def test_constraints_alone_choose_the_method() -> None:
    assert np.array_equal(fit(None, FORMS["dict"]).params, fit("SLSQP", FORMS["dict"]).params)  # type: ignore[arg-type]
    assert fit(None, None).success.all()  # type: ignore[arg-type]


def test_residuals_with_constraints() -> None:
    fits = fit("SLSQP", FORMS["dict"], objective=lambda p, d: np.append(p - d.to_numpy(), 0.01))
    scalar = fit("SLSQP", FORMS["dict"], objective=lambda p, d: 0.5 * distance(p, d))
    np.testing.assert_allclose(fits.params, scalar.params, atol=1e-3)


@pytest.mark.parametrize("method", ["lm", "L-BFGS-B", "Nelder-Mead", "differential_evolution", "spsa"])
def test_methods_without_constraints_refuse_them(method: str) -> None:
    with pytest.raises(parfit.InvalidInputError, match=r"takes no constraints; these do: SLSQP, trust-constr"):
        fit(method, FORMS["dict"], bounds=[(-1, 1), (-1, 1)])


@pytest.mark.parametrize(
    ("constraints", "error", "text"),
    [
        (5, parfit.InvalidTypeError, "a constraint of type int"),
        ([circle], parfit.InvalidTypeError, "a constraint of type function"),
        ({"type": "ineq"}, parfit.InvalidInputError, "a function 'fun'"),
        ({"type": "less", "fun": circle}, parfit.InvalidInputError, "'eq' or 'ineq'"),
        ({"type": "ineq", "fun": circle, "jacobian": 1}, parfit.UnknownNameError, "entry of a constraint 'jacobian'"),
        ({"type": "ineq", "fun": circle, "jac": "4-point"}, parfit.UnknownNameError, "'jac' of the constraint"),
        ({"type": "ineq", "fun": circle, "jac": 5}, parfit.InvalidTypeError, "must be a function or one of"),
        ({"type": "ineq", "fun": lambda p: None}, parfit.InvalidTypeError, "a number or an array of numbers, not None"),
        ({"type": "ineq", "fun": lambda p: "a"}, parfit.InvalidTypeError, "not 'a'"),
        (
            {"type": "ineq", "fun": circle, "jac": lambda p: [1.0, 2.0, 3.0]},
            parfit.InvalidInputError,
            r"shape \(3,\) for 2",
        ),
        (LinearConstraint([1, 1, 1], 0, 1), parfit.InvalidInputError, "a matrix A of 3 columns for 2 parameters"),
        ([FORMS["dict"], LinearConstraint([[1]], 0, 1)], parfit.InvalidInputError, "constraint 1 has a matrix"),
        (NonlinearConstraint(lambda p: [p[0], p[1]], [0, 0, 0], 1), parfit.InvalidInputError, "2 values, .*'lb' has 3"),
        (NonlinearConstraint(circle, 0, 1, hess="4-point"), parfit.UnknownNameError, "'hess' of the constraint"),
        (NonlinearConstraint(circle, 0, 1, hess=5), parfit.InvalidTypeError, "'hess' of the constraint"),
        (NonlinearConstraint(5, 0, 1), parfit.InvalidTypeError, "'fun' of the constraint must be a function"),
    ],
)
def test_what_is_no_constraint(constraints: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        fit("SLSQP", constraints)


def test_a_constraint_that_raises_fails_its_row() -> None:
    def fails(p: Any) -> float:
        raise ValueError("no such constraint")

    with pytest.warns(parfit.ParfitWarning, match=r"every dataset raised ValueError.*no such constraint"):
        fits = fit("COBYLA", {"type": "ineq", "fun": fails})
    assert fits.status.tolist() == ["error"] * 3
    assert "in fails" in fits.errors["traceback"].iloc[0]
