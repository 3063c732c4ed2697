"""Values of options that no dataset can be fitted with are one error; those that SciPy can use reach SciPy."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import optimize

import parfit
from parfit import solvers
from parfit.solvers import minimize
from parfit.solvers.options import KINDS, MINIMIZE_METHODS, checked_options

ONE = pd.DataFrame([[0.0, 0.0], [0.5, 0.25]], index=["u", "v"])
A = np.array([[3.0, 1.0], [1.0, 2.0]])
BOX = [(-3.0, 3.1), (-3.0, 3.1)]
GLOBAL = ("differential_evolution", "dual_annealing", "shgo", "direct", "brute")


def scalar(p: Any, d: Any = 0.0) -> float:
    q = np.asarray(p) - 1 - np.asarray(d)
    return float(0.5 * q @ A @ q) + 1


def residuals(p: Any, d: Any = 0.0) -> np.ndarray:
    return np.array([p[0] - 1, p[1] - 2, p[0] * p[1] + 0.3]) - np.sum(np.asarray(d))


def fit(method: Any, options: Any, **given: Any) -> parfit.Fits:
    objective = residuals if method in solvers.least_squares.METHODS else scalar
    bounds = BOX if method in GLOBAL else None
    given = {"objective": objective, "bounds": bounds, "executor": "serial", **given}
    return parfit.fit(ONE, given.pop("objective"), [0.2, 0.3], method=method, options=options, **given)


# ---- wrong values


@pytest.mark.parametrize(
    ("method", "options", "error", "text"),
    [
        ("trf", {"loss": "hubr"}, parfit.UnknownNameError, "value for option 'loss' .* 'hubr'. Did you mean 'huber'"),
        ("lm", {"x_scale": "jack"}, parfit.UnknownNameError, "Did you mean 'jac'"),
        ("trf", {"tr_solver": "exakt"}, parfit.UnknownNameError, "Did you mean 'exact'"),
        ("trf", {"x_scale": [1.0, -1.0]}, parfit.InvalidInputError, "positive numbers, one or one per parameter"),
        ("trf", {"x_scale": [1.0, 1.0, 1.0]}, parfit.InvalidInputError, "has 3 numbers for 2 parameters; give 1 or 2"),
        (
            "dogbox",
            {"ftol": "small"},
            parfit.InvalidTypeError,
            "'ftol' of method 'dogbox' must be a number at least 0, or None",
        ),
        ("trf", {"max_nfev": 0}, parfit.InvalidInputError, "a whole number, 1 or more, or None, not 0"),
        ("trf", {"max_nfev": 2.5}, parfit.InvalidInputError, "not 2.5"),  # SciPy would never stop
        ("trf", {"ftol": None, "xtol": None, "gtol": 0}, parfit.InvalidInputError, "one at least must be above 0"),
        ("trf", {"verbose": 7}, parfit.InvalidInputError, "0, 1 or 2"),
        ("trf", {"loss": 3}, parfit.InvalidTypeError, "a function, not 3"),
        ("BFGS", {"maxiter": "ten"}, parfit.InvalidTypeError, "'maxiter' of method 'BFGS' .* 0 or more, .* not 'ten'"),
        ("BFGS", {"maxiter": -3}, parfit.InvalidInputError, "not -3"),
        ("L-BFGS-B", {"maxiter": None}, parfit.InvalidTypeError, "not None"),
        ("L-BFGS-B", {"maxls": 0}, parfit.InvalidInputError, "1 or more"),
        ("BFGS", {"c1": 2.0}, parfit.InvalidInputError, "above 0 and below 1"),
        ("trust-exact", {"initial_trust_radius": -1}, parfit.InvalidInputError, "a number above 0"),
        ("trust-exact", {"hess": "exact"}, parfit.UnknownNameError, "'2-point', '3-point', 'cs'"),
        ("trust-exact", {"hess": A}, parfit.InvalidTypeError, "HessianUpdateStrategy"),
        ("BFGS", {"hess": scalar}, parfit.UnknownNameError, "takes no 'hess'; these do: Newton-CG, trust-constr"),
        ("dogleg", {"hessp": scalar}, parfit.UnknownNameError, "takes no 'hessp'; these do: Newton-CG, trust-constr"),
        ("trust-constr", {"factorization_method": "QR"}, parfit.UnknownNameError, "'QRFactorization'"),
        ("Nelder-Mead", {"initial_simplex": A}, parfit.InvalidInputError, r"shape \(2, 2\); \(3, 2\) is wanted"),
        ("Powell", {"direc": np.eye(3)}, parfit.InvalidInputError, r"\(2, 2\) is wanted"),
        ("BFGS", {"hess_inv0": np.eye(3)}, parfit.InvalidInputError, r"\(2, 2\) is wanted"),
        ("differential_evolution", {"strategy": "best1bim"}, parfit.UnknownNameError, "Did you mean 'best1bin'"),
        ("differential_evolution", {"mutation": (0.5, 2.0)}, parfit.InvalidInputError, "from 0 to below 2"),
        ("dual_annealing", {"maxiter": "9"}, parfit.InvalidTypeError, "not '9'"),
        ("shgo", {"sampling_method": "sobel"}, parfit.UnknownNameError, "Did you mean 'sobol'"),
        ("direct", {"len_tol": 2}, parfit.InvalidInputError, "at least 0 and at most 1"),
        ("basinhopping", {"take_step": 3}, parfit.InvalidTypeError, "a function, or None"),
        ("basinhopping", {"minimizer_kwargs": {"method": "nelder"}}, parfit.UnknownNameError, "mean 'Nelder-Mead'"),
        ("brute", {"Ns": 0}, parfit.InvalidInputError, "1 or more"),
        (None, {"loss": "hubr"}, parfit.UnknownNameError, "Did you mean 'huber'"),
        (None, {"maxiter": "ten"}, parfit.InvalidTypeError, "not 'ten'"),
        (None, {"gtol": None}, parfit.MethodMismatchError, "a scalar, which is fitted by 'L-BFGS-B'.* not None"),
        ("spsa", {"maxiter": "9"}, parfit.InvalidTypeError, "maxiter must be a number, not '9'"),
        ("spsa", {"param_tol": "a"}, parfit.InvalidTypeError, "param_tol"),
        ("spsa", {"scale": [1, 2, 3]}, parfit.InvalidInputError, "has 3 numbers for 2 parameters"),
        ("spsa", {"scale": 0}, parfit.InvalidInputError, "scale must be positive"),
        ("spsa", {"a_par": "auot"}, parfit.InvalidTypeError, "None or 'auto' to have it found"),
        ("spsa", {"savestate": "here"}, parfit.UnknownNameError, "an argument of parfit.SPSA"),
    ],
)
def test_a_wrong_value_is_one_error(method: Any, options: Any, error: type[Exception], text: str) -> None:
    called = []

    def objective(p: Any, d: Any) -> Any:
        called.append(p)
        return residuals(p, d) if method in solvers.least_squares.METHODS else scalar(p, d)

    with pytest.raises(error, match=text):
        fit(method, options, objective=objective)
    assert not called or error is parfit.MethodMismatchError


@pytest.mark.parametrize(
    ("method", "option", "text"),
    [
        ("trf", "maxiter", "what comes nearest is 'max_nfev'"),
        ("L-BFGS-B", "max_nfev", "what comes nearest is 'maxfun'"),
        ("basinhopping", "max_nfev", "what comes nearest is 'niter'"),
        ("BFGS", "verbose", "what comes nearest is 'disp'"),
        ("trf", "bounds", r"give it to fit itself, fit\(..., bounds=...\)"),
        (None, "jac", r"give it to fit itself"),
        ("spsa", "seed", r"give it to fit itself"),
    ],
)
def test_an_option_under_another_name(method: Any, option: str, text: str) -> None:
    with pytest.raises(parfit.UnknownNameError, match=text):
        fit(method, {option: 3})


@pytest.mark.parametrize(
    ("method", "name"),
    [
        ("DE", "differential_evolution"),
        ("leastsq", "lm"),
        ("Levenberg-Marquardt", "lm"),
        ("l-bfgs", "L-BFGS-B"),
        ("neldermeed", "Nelder-Mead"),
    ],
)
def test_a_method_under_another_name(method: str, name: str) -> None:
    with pytest.raises(parfit.UnknownNameError, match=f"unknown method '{method}'. Did you mean '{name}'"):
        solvers.resolve(method, None)


@pytest.mark.parametrize(
    ("method", "text"),
    [(parfit.SPSA, "write method='spsa'"), (optimize.differential_evolution, "write method='differential_evolution'")],
)
def test_the_function_of_a_method(method: Callable[..., Any], text: str) -> None:
    with pytest.raises(parfit.InvalidTypeError, match=text):
        solvers.resolve(method, None)


# ---- values that are right


def test_whole_numbers_as_scipy_wants_them() -> None:
    """``direct`` refuses NumPy's integers, MINPACK floats."""
    for method, options in (
        ("lm", {"max_nfev": 1e3}),
        ("dual_annealing", {"maxiter": 1e1}),
        ("direct", {"maxiter": np.int64(50)}),
        ("L-BFGS-B", {"maxcor": np.float64(5)}),
    ):
        assert not len(fit(method, options).errors), method


def test_tolerances_that_minpack_has_not() -> None:
    plain = fit("lm", {"ftol": 1e-12, "xtol": 1e-12})
    for value in (None, 0):
        assert fit("lm", {"gtol": value, "ftol": 1e-12, "xtol": 1e-12}).success.all()
        np.testing.assert_allclose(fit("lm", {"ftol": value}).params, plain.params, rtol=1e-6)


@pytest.mark.parametrize("method", ["lm", "trf", "dogbox"])
def test_a_scale_for_all_parameters_beside_a_fixed_one(method: str) -> None:
    whole = fit(method, {"x_scale": [3.0, 1.0], "diff_step": [1e-6, 1e-7]}, fixed=["x0"])
    cut = fit(method, {"x_scale": [1.0], "diff_step": [1e-7]}, fixed=["x0"])
    assert np.array_equal(whole.params, cut.params)
    scaled = fit("spsa", {"scale": [5.0, 1.0], "param_tol": [1.0, 1e-6]}, fixed=["x0"])
    assert np.array_equal(scaled.params, fit("spsa", {"scale": 1.0}, fixed=["x0"]).params)


def test_inputs_that_are_left_as_they_are() -> None:
    options = {"loss": lambda z: np.array([z, np.ones_like(z), np.zeros_like(z)]), "x_scale": np.ones(2)}
    assert solvers.resolve("trf", options).options == options
    assert solvers.resolve("Nelder-Mead", {"maxiter": np.inf}).options == {"maxiter": np.inf}


#: Of every kind that there is; what SciPy can do with one it gets.
VALUES = {
    "None": None, "0": 0, "1": 1, "5": 5, "0.5": 0.5, "2.5": 2.5, "100.0": 100.0, "inf": np.inf, "True": True,
    "False": False, "int64": np.int64(5), "float32": np.float32(0.5), "0-d": np.array(5), "1-d": np.array([5]),
    "pair": [0.5, 0.6], "dict": {}, "function": lambda *a: 0.0, "linear": "linear", "jac": "jac", "exact": "exact",
    "3-point": "3-point", "best1bin": "best1bin", "sobol": "sobol", "deferred": "deferred",
    "SVDFactorization": "SVDFactorization",
}  # fmt: skip
#: Options that SciPy takes whatever they are, and does not use, or not so: a string as the number of iterations.
UNUSED = {
    "f_scale", "disp", "jac_sparsity", "eps", "finite_diff_rel_step", "maxiter", "diff_step", "barrier_tol",
    "initial_barrier_parameter", "initial_barrier_tolerance", "initial_simplex", "hess", "hessp",
}  # fmt: skip
#: And those of which a number is no better.
UNREAD = {"finish", "tr_options", "minimizer_kwargs", "workers", "niter_success"}


def is_excused(method: str, option: str, value: Any) -> bool:
    """Whether SciPy's taking a value says nothing."""
    if option == "max_nfev" and np.size(value) == 1 and value in (0.5, 2.5):
        return True  # `trf` asks whether the limit is met, not passed: it never stops
    if option in ("maxfev", "subproblem_maxiter") and np.size(value) == 1 and value == 0.5:
        return True
    strange = isinstance(value, (str, dict)) or callable(value) or np.size(value) > 1 or value is None
    return option in UNREAD or (option in UNUSED and strange)


def asked(method: str, option: str, value: Any) -> None:
    """SciPy with one option."""
    if method in solvers.least_squares.METHODS:
        optimize.least_squares(residuals, [0.2, 0.3], method=method, **{option: value})
    elif method in MINIMIZE_METHODS:
        more: dict[str, Any] = {}
        if method in ("Newton-CG", "dogleg", "trust-ncg", "trust-exact", "trust-krylov"):
            more = {"jac": lambda p: A @ (p - 1), "hess": lambda p: A}
        tops = {option: value} if option in ("tol", "hess", "hessp") else {"options": {option: value}}
        optimize.minimize(scalar, [0.2, 0.3], method=method, **{**more, **tops})
    elif method == "basinhopping":
        optimize.basinhopping(scalar, [0.2, 0.3], **{"niter": 2, option: value})
    else:
        few = {"brute": {"Ns": 4}, "direct": {"maxfun": 100}, "differential_evolution": {"maxiter": 1, "popsize": 4}}
        few["dual_annealing"] = {"maxiter": 2}
        getattr(optimize, method)(scalar, BOX, **{**few.get(method, {}), option: value})


def takes(method: str, option: str, value: Any) -> bool:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            asked(method, option, value)
    except Exception:
        return False
    return True


def wrongly_refused(method: str) -> list[str]:
    """The values that the table refuses and SciPy takes."""
    found = []
    for option in KINDS[method]:
        if method in MINIMIZE_METHODS and option not in (*minimize.METHODS[method], "tol"):
            continue
        for name, value in VALUES.items():
            try:
                checked_options(method, {option: value})
            except (ValueError, TypeError):
                if not is_excused(method, option, value) and takes(method, option, value):
                    found.append(f"{option}={name}")
    return found


@pytest.mark.parametrize("method", [m for m in KINDS if m != "shgo"])  # whose n and iters may be without end
def test_nothing_that_scipy_can_use_is_refused(method: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert wrongly_refused(method) == []
    capfd.readouterr()


def test_every_name_in_the_table_is_one_of_scipys() -> None:
    for method, kinds in KINDS.items():
        for option, kind in kinds.items():
            for name in kind.names:
                own = name == "polish" or option == "hess" or (method, option) == ("lm", "loss")
                if not own and option != "factorization_method":  # of which some are for constraints only
                    assert takes(method, option, name), (method, option, name)


def test_the_table_names_options_that_there_are() -> None:
    for method, kinds in KINDS.items():
        solver = solvers.resolve(method, None)
        for option in kinds:
            if option in ("hess", "hessp"):
                continue
            known = {
                solvers.LeastSquares: lambda: solvers.least_squares.option_names(),
                solvers.Minimize: lambda method=method: (*minimize.METHODS[method], "tol"),
                solvers.GlobalSearch: lambda method=method: solvers.global_search.option_names(method),
            }[type(solver)]()
            assert option in known, (method, option)
