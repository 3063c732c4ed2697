"""What users pass on to SciPy: derivatives, constraints, options. SciPy, called directly, is the referee."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import optimize, sparse

import parfit
from parfit.solvers.minimize import METHODS
from tests.problems import QUADRATIC, ROSENBROCK

pytestmark = pytest.mark.filterwarnings("ignore:delta_grad == 0.0")

T = np.linspace(0.0, 4.0, 12)
DATA = pd.DataFrame([3 * np.exp(-0.5 * T) + 0.01 * np.cos(9 * T), 2 * np.exp(-0.9 * T)], index=["u", "v"])
ONE = pd.DataFrame([[0.0, 0.0]], columns=["u", "v"])

GRADIENT = [m for m in METHODS if m not in ("Nelder-Mead", "Powell", "COBYLA", "COBYQA")]
HESSIAN = ["Newton-CG", "trust-constr", "dogleg", "trust-ncg", "trust-exact", "trust-krylov"]
PRODUCT = ["Newton-CG", "trust-constr", "trust-ncg", "trust-krylov"]


def fun(p: Any, d: Any) -> float:
    return ROSENBROCK.fun(p, d.to_numpy())


def grad(p: Any, d: Any) -> np.ndarray:
    return ROSENBROCK.grad(p, d.to_numpy())


def hess(p: Any, d: Any) -> np.ndarray:
    return ROSENBROCK.hess(p, d.to_numpy())


def fit(**given: Any) -> parfit.Fits:
    given = {"data": ONE, "objective": fun, "x0": ROSENBROCK.start, "executor": "serial", **given}
    return parfit.fit(given.pop("data"), given.pop("objective"), given.pop("x0"), **given)


def referee(method: str, **given: Any) -> Any:
    zero = np.zeros(2)
    for name in ("jac", "hess"):
        if callable(given.get(name)):
            given[name] = {"jac": lambda p: ROSENBROCK.grad(p, zero), "hess": lambda p: ROSENBROCK.hess(p, zero)}[name]
    return optimize.minimize(lambda p: ROSENBROCK.fun(p, zero), ROSENBROCK.start, method=method, **given)


def assert_same_bits(fits: parfit.Fits, found: Any) -> None:
    assert fits.success.all(), fits.summary["message"].tolist()
    assert np.array_equal(fits.params.iloc[0], found.x)
    assert fits.summary["cost"].iloc[0] == found.fun


# ---- the gradient


@pytest.mark.parametrize("method", GRADIENT)
def test_gradient_as_a_function(method: str) -> None:
    given = {"hess": hess} if method in HESSIAN else {}
    found = referee(method, jac=grad, **given)
    assert_same_bits(fit(method=method, jac=grad, options=given), found)
    both = fit(method=method, jac=True, objective=lambda p, d: (fun(p, d), grad(p, d)), options=given)
    assert_same_bits(both, found)
    up = fit(
        method=method,
        jac=lambda p, d: -grad(p, d),
        objective=lambda p, d: -fun(p, d),
        options={"hess": lambda p, d: -hess(p, d)} if given else {},
        maximize=True,
    )
    assert_same_bits(up, found)
    assert up[0].fun == -found.fun


def test_gradient_in_the_parameters_structure() -> None:
    x0 = {"a": -1.0, "b": [1.0]}

    def nested(p: Any, d: Any) -> float:
        return fun([p["a"], p["b"][0]], d)

    plain = fit(method="BFGS", jac=grad)

    def of(p: Any) -> np.ndarray:
        return grad([p["a"], p["b"][0]], pd.Series([0.0, 0.0]))

    forms = [
        lambda p, d: {"a": of(p)[0], "b": [of(p)[1]]},
        lambda p, d: of(p),
        lambda p, d: list(of(p)),
        lambda p, d: tuple(of(p)),
    ]
    for jac in forms:
        fits = fit(objective=nested, x0=x0, method="BFGS", jac=jac)
        assert np.array_equal(fits.params, plain.params)
    fits = fit(objective=lambda p, d: (nested(p, d), forms[0](p, d)), x0=x0, method="BFGS", jac=True)
    assert np.array_equal(fits.params, plain.params)
    series = fit(x0=pd.Series({"a": -1.0, "b": 1.0}), objective=lambda p, d: fun(p.to_numpy(), d), method="BFGS",
                 jac=lambda p, d: pd.Series(grad(p.to_numpy(), d), index=["a", "b"]))  # fmt: skip
    assert np.array_equal(series.params, plain.params)


@pytest.mark.parametrize("method", ["L-BFGS-B", "SLSQP", "trust-exact"])
def test_gradient_with_a_fixed_parameter(method: str) -> None:
    options = {"hess": lambda p, d: QUADRATIC.hess(p, d.to_numpy())} if method == "trust-exact" else {}
    fits = fit(
        objective=lambda p, d: QUADRATIC.fun(p, d.to_numpy()),
        jac=lambda p, d: QUADRATIC.grad(p, d.to_numpy()),
        x0=[0.5, 0.0],
        fixed=["x0"],
        method=method,
        options=options,
    )
    assert fits.success.all()
    np.testing.assert_allclose(fits.params, [[0.5, -2 + 0.5 / 2]], rtol=1e-6)


@pytest.mark.parametrize("jac", ["2-point", "3-point", "cs"])
@pytest.mark.parametrize("method", ["BFGS", "L-BFGS-B", "trust-constr"])
def test_difference_schemes(method: str, jac: str) -> None:
    def smooth(p: Any, d: Any) -> Any:
        return (1 - p[0]) ** 2 + 10 * (p[1] - p[0] ** 2) ** 2

    found = optimize.minimize(lambda p: smooth(p, None), ROSENBROCK.start, method=method, jac=jac)
    fits = fit(objective=smooth, method=method, jac=jac)
    assert_same_bits(fits, found)
    assert np.isfinite(fit(objective=smooth, method=method, jac=jac, history=True).history["cost"]).all()
    mapping = fit(objective=lambda p, d: smooth([p["a"], p["b"]], d), x0={"a": -1.0, "b": 1.0}, method=method, jac=jac)
    assert np.array_equal(mapping.params, fits.params)


@pytest.mark.parametrize("method", ["Nelder-Mead", "Powell", "COBYLA", "COBYQA", "spsa", "differential_evolution"])
def test_a_method_that_needs_no_gradient_lets_it_be(method: str) -> None:
    given: dict[str, Any] = {"method": method, "objective": lambda p, d: QUADRATIC.fun(p, d.to_numpy())}
    if method == "differential_evolution":
        given["bounds"] = QUADRATIC.box
    plain = fit(**given)
    given["jac"] = lambda p, d: 1 / 0
    assert np.array_equal(fit(**given).params, plain.params)
    pair = {**given, "jac": True, "objective": lambda p, d: (QUADRATIC.fun(p, d.to_numpy()), None)}
    assert np.array_equal(fit(**pair).params, plain.params)


@pytest.mark.parametrize(
    ("jac", "text"),
    [
        (lambda p, d: [1.0], r"gradient: the value must have shape \(2,\), not \(1,\)"),
        (lambda p, d: np.zeros(3), r"jac gave a gradient of shape \(3,\) for 2 parameters"),
        (lambda p, d: None, "gradient"),
        (lambda p, d: "ab", "gradient"),
        (lambda p, d: np.array(["a", "b"]), "the gradient must hold real numbers"),
        (lambda p, d: {"x0": 1.0}, "gradient: .*not a mapping"),
    ],
)
def test_a_gradient_that_is_none(jac: Any, text: str) -> None:
    fits = fit(jac=jac)
    assert fits.status.tolist() == ["error"]
    assert fits.errors["message"].str.contains(text).all(), fits.errors["message"].tolist()


def test_a_derivative_that_raises_is_the_users_error() -> None:
    def fails(p: Any, d: Any) -> Any:
        raise ValueError("no derivative here")

    for given in (
        {"jac": fails},
        {"jac": grad, "method": "trust-exact", "options": {"hess": fails}},
        {"jac": fails, "objective": lambda p, d: np.array([p[0], p[1], 1.0])},
        {"method": "SLSQP", "constraints": {"type": "ineq", "fun": lambda p: fails(p, None)}},
    ):
        fits = fit(**given)
        assert fits.status.tolist() == ["error"]
        assert fits.errors["message"].tolist() == ["no derivative here"]
        assert "in fails" in fits.errors["traceback"].iloc[0]


@pytest.mark.parametrize("pair", [3.0, (1.0, 2.0, 3.0), None])
def test_jac_true_wants_a_pair(pair: Any) -> None:
    fits = fit(objective=lambda p, d: pair, jac=True)
    assert fits.status.tolist() == ["error"]
    assert "(value, gradient)" in fits.errors["message"].iloc[0]


def test_jac_true_is_for_scalars() -> None:
    fits = fit(objective=lambda p, d: (np.array([p[0], p[1]]), np.eye(2)), jac=True)
    assert "jac=True is for scalar objectives" in fits.errors["message"].iloc[0]
    fits = fit(objective=lambda p, d: (1.0, np.zeros(2)))
    assert fits.status.tolist() != ["converged"]


# ---- the Hessian


@pytest.mark.parametrize("method", PRODUCT)
def test_hessian_times_a_vector(method: str) -> None:
    zero = np.zeros(2)

    def hessp(p: Any, v: Any, d: Any) -> np.ndarray:
        return hess(p, d) @ v

    found = optimize.minimize(
        lambda p: ROSENBROCK.fun(p, zero), ROSENBROCK.start, method=method, jac=lambda p: ROSENBROCK.grad(p, zero),
        hessp=lambda p, v: ROSENBROCK.hess(p, zero) @ v,
    )  # fmt: skip
    assert_same_bits(fit(method=method, jac=grad, options={"hessp": hessp}), found)
    fixed = fit(method=method, jac=grad, options={"hessp": hessp}, x0=[0.5, 0.0], fixed=["x0"])
    np.testing.assert_allclose(fixed.params, [[0.5, 0.25]], atol=1e-4)


@pytest.mark.parametrize("method", HESSIAN)
def test_derivatives_are_found_where_none_are_given(method: str) -> None:
    np.testing.assert_allclose(fit(method=method).params, [[1, 1]], atol=1e-4)
    np.testing.assert_allclose(fit(method=method, jac=grad).params, [[1, 1]], atol=1e-4)


def test_a_quasi_newton_hessian_is_each_rows_own() -> None:
    given = {"method": "trust-constr", "jac": grad, "options": {"hess": optimize.BFGS()}}
    three = fit(data=pd.DataFrame(np.zeros((3, 2))), **given)
    assert (three.params.nunique() == 1).all()


# ---- Jacobians of residuals


def residuals(p: Any, row: Any) -> np.ndarray:
    return p[0] * np.exp(-p[1] * T) - row.to_numpy()


def jacobian(p: Any, row: Any) -> np.ndarray:
    return np.stack([np.exp(-p[1] * T), -p[0] * T * np.exp(-p[1] * T)], axis=1)


@pytest.mark.parametrize(
    ("method", "jac"),
    [
        *((method, jac) for method in ("lm", "trf", "dogbox") for jac in (jacobian, "2-point", None)),
        *((method, jac) for method in ("trf", "dogbox") for jac in ("3-point", "cs")),  # MINPACK has neither
    ],
)
def test_jacobian(method: str, jac: Any) -> None:
    direct = (lambda p, row: jacobian(p, row)) if callable(jac) else (jac or "2-point")
    fits = parfit.fit(DATA, residuals, [1.0, 1.0], method=method, jac=jac, executor="serial")
    for label, row in DATA.iterrows():
        found = optimize.least_squares(residuals, [1.0, 1.0], direct, method=method, args=(row,))
        assert np.array_equal(fits.params.loc[label], found.x)
        assert fits[label].cost == found.cost
        assert fits[label].optimality == found.optimality


def test_jacobian_of_a_fixed_parameter_is_left_out() -> None:
    given = {"method": "trf", "executor": "serial"}
    wanted = parfit.fit(DATA, residuals, [1.0, 0.7], fixed=["x1"], **given)
    for jac in (jacobian, lambda p, row: sparse.csr_matrix(jacobian(p, row)), lambda p, row: jacobian(p, row).tolist()):
        fits = parfit.fit(DATA, residuals, [1.0, 0.7], fixed=["x1"], jac=jac, **given)
        np.testing.assert_allclose(fits.params, wanted.params, rtol=1e-7)
        assert (fits.stderr["x1"] == 0).all()
        np.testing.assert_allclose(fits.stderr, wanted.stderr, rtol=1e-5)


@pytest.mark.parametrize("method", ["L-BFGS-B", "trust-exact", "Newton-CG", "Nelder-Mead", "differential_evolution"])
def test_jacobian_serves_the_methods_for_scalars(method: str) -> None:
    bounds = [(0, 5), (0, 5)] if method == "differential_evolution" else None
    fits = parfit.fit(DATA, residuals, [2.5, 0.6], method=method, jac=jacobian, bounds=bounds, executor="serial")
    best = parfit.fit(DATA, residuals, [1.0, 1.0], executor="serial")
    assert fits.success.all()
    np.testing.assert_allclose(fits.params, best.params, rtol=1e-3)
    np.testing.assert_allclose(fits.stderr.loc["u"], best.stderr.loc["u"], rtol=1e-2)


@pytest.mark.parametrize(
    ("jac", "text"),
    [
        (lambda p, row: jacobian(p, row).T, r"jac gave shape \(2, 12\); \(12, 2\) is wanted: residuals × parameters"),
        (lambda p, row: None, "shape"),
        (lambda p, row: np.full((12, 2), "a"), "the Jacobian must hold real numbers"),
    ],
)
def test_a_jacobian_that_is_none(jac: Any, text: str) -> None:
    with pytest.warns(parfit.ParfitWarning, match="every dataset raised"):
        fits = parfit.fit(DATA, residuals, [1.0, 1.0], jac=jac, executor="serial")
    assert fits.status.tolist() == ["error", "error"]
    assert fits.errors["message"].str.contains(text).all()


@pytest.mark.parametrize(
    ("jac", "error", "text"),
    [
        ("2point", parfit.UnknownNameError, "Did you mean '2-point'"),
        (3, parfit.InvalidTypeError, "jac must be a function, True, or one of"),
        (np.eye(2), parfit.InvalidTypeError, "not ndarray"),
    ],
)
def test_a_jac_of_the_wrong_kind_is_refused(jac: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        fit(jac=jac)


# ---- least squares' own options


@pytest.mark.parametrize("options", [{"loss": "soft_l1", "f_scale": 0.1}, {"x_scale": "jac"}, {"ftol": 1e-3}])
@pytest.mark.parametrize("method", ["trf", "dogbox", "lm"])
def test_options_of_least_squares(method: str, options: dict[str, Any]) -> None:
    data = DATA.copy()
    data.iloc[:, 3] += 1.0
    name = "trf" if method == "lm" and "loss" in options else method
    fits = parfit.fit(data, residuals, [1.0, 1.0], method=method, options=options, executor="serial")
    assert fits.success.all(), fits.summary["message"].tolist()
    for label, row in data.iterrows():
        found = optimize.least_squares(residuals, [1.0, 1.0], method=name, args=(row,), **options)
        assert np.array_equal(fits.params.loc[label], found.x)


def test_options_of_the_default_method_follow_the_objective() -> None:
    assert fit(options={"maxiter": 500, "gtol": 1e-9}).success.all()
    assert fit(objective=lambda p, d: p - d.to_numpy(), options={"max_nfev": 50}).success.all()
    with pytest.raises(parfit.UnknownNameError, match="Did you mean 'maxiter'"):
        fit(options={"maxitr": 5})
    with pytest.raises(parfit.MethodMismatchError, match=r"a scalar.*fitted by 'L-BFGS-B'.*'max_nfev'"):
        fit(options={"max_nfev": 5})
    with pytest.raises(parfit.MethodMismatchError, match=r"gives residuals.*fitted by 'lm'.*'maxiter'"):
        fit(objective=lambda p, d: p - d.to_numpy(), options={"maxiter": 5})
    with pytest.raises(parfit.InvalidTypeError, match="options must be a dict"):
        fit(options=[("maxiter", 5)])
