"""What every method promises, whatever the objective does; the methods are in `solver_table`."""

from __future__ import annotations

import dataclasses
import pickle
import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest

import parfit
from parfit import solvers
from parfit.core.protocols import Solver
from tests.contracts.solver_table import BY_NAME, REFEREED, TABLE, WITHOUT_DERIVATIVES, Entry
from tests.problems import QUADRATIC, ROSENBROCK, SCALARS, Scalar

#: trust-constr says so of every function that is close to linear; under pytest's filters it would raise.
pytestmark = pytest.mark.filterwarnings("ignore:delta_grad == 0.0")
every = pytest.mark.parametrize("entry", TABLE, ids=repr)
refereed = pytest.mark.parametrize("entry", REFEREED, ids=repr)
#: Where the minimum is moved to; the first row leaves it where it is.
SHIFTS = pd.DataFrame([[0.0, 0.0], [0.25, -0.5], [0.0, 0.125]], index=["r", "s", "t"], columns=["u", "v"])


def residuals(p: Any, d: Any) -> np.ndarray:
    """Rosenbrock's function as residuals, and a third one that does not vanish."""
    u, v = p[0] - d.iloc[0], p[1] - d.iloc[1]
    return np.array([1 - u, np.sqrt(10) * (v - u**2), 0.3 * u])


def objective(entry: Entry, problem: Scalar = QUADRATIC) -> Any:
    if entry.residuals:
        return residuals
    return lambda p, d: problem.fun(np.asarray(p), d.to_numpy())


def fit(entry: Entry, data: Any = SHIFTS, problem: Scalar = QUADRATIC, **given: Any) -> parfit.Fits:
    options = {**entry.options, **given.pop("options", {})}
    bounds = given.pop("bounds", entry.box(problem.box))
    given = {"executor": "serial", "method": entry.name, "bounds": bounds, "options": options, **given}
    return parfit.fit(data, given.pop("objective", objective(entry, problem)), given.pop("x0", problem.start), **given)


def test_the_table_is_complete() -> None:
    assert sorted(BY_NAME) == sorted(solvers.METHODS)


@pytest.mark.parametrize(
    ("entry", "problem"),
    [(e, p) for e in TABLE for p in SCALARS if e.name != "spsa" or p is QUADRATIC],  # a valley is no place for SPSA
    ids=repr,
)
def test_finds_known_minima(entry: Entry, problem: Scalar) -> None:
    if entry.residuals:
        fits = fit(entry, objective=lambda p, d: residuals(p, d)[:2])
        wanted, cost = (1.0, 1.0), 0.0
    else:
        fits, wanted, cost = fit(entry, problem=problem), problem.x, problem.cost
    assert fits.success.all(), fits.summary["message"].tolist()
    np.testing.assert_allclose(fits.params, SHIFTS.to_numpy() + wanted, atol=entry.rtol * 2)
    np.testing.assert_allclose(fits.summary["cost"], cost, atol=max(1e-6, entry.rtol**2 * 20))
    assert (fits.summary["nfev"] > 0).all()


@refereed
@pytest.mark.parametrize("problem", SCALARS, ids=repr)
def test_the_same_bits_as_scipy(entry: Entry, problem: Scalar) -> None:
    row = SHIFTS.iloc[0]
    more: dict[str, Any] = {}
    given: dict[str, Any] = {}
    if entry.name in WITHOUT_DERIVATIVES:
        d = row.to_numpy()
        more = {"jac": lambda p: problem.grad(p, d), "hess": lambda p: problem.hess(p, d)}
        given = {"jac": lambda p, d: problem.grad(p, d.to_numpy())}
        given["options"] = {"hess": lambda p, d: problem.hess(p, d.to_numpy())}
    fits = fit(entry, SHIFTS.iloc[[0]], problem, **given)
    fun = objective(entry, problem)
    found = entry.referee(lambda p: fun(p, row), problem.start, entry.box(problem.box), entry.options, **more)
    assert np.array_equal(fits.params.iloc[0], found.x)
    assert fits.summary["cost"].iloc[0] == (found.cost if entry.residuals else found.fun)
    for name in ("nit", "njev"):
        if name in found and found[name] is not None:
            assert fits.summary[name].iloc[0] == found[name]
    assert "message" not in found or str(fits.summary["message"].iloc[0]) == " ".join(np.atleast_1d(found.message))


@refereed
def test_residuals_as_half_their_sum_of_squares(entry: Entry) -> None:
    row = SHIFTS.iloc[1]
    fits = fit(entry, SHIFTS.iloc[[1]], ROSENBROCK, objective=residuals, x0=[1.45, 0.7])
    best = fit(BY_NAME["lm"], SHIFTS.iloc[[1]], objective=residuals)
    assert fits.summary["cost"].iloc[0] == pytest.approx(
        best.summary["cost"].iloc[0], abs=max(1e-6, entry.rtol**2 * 50)
    )
    assert fits.summary["n_residuals"].tolist() == [3]
    assert fits.summary["rank"].tolist() == [2]
    if entry.residuals or entry.draws or entry.name in WITHOUT_DERIVATIVES:
        return

    def fun(p: np.ndarray) -> float:
        r = residuals(p, row)
        return 0.5 * float(r.dot(r))

    found = entry.referee(fun, [1.45, 0.7], entry.box(ROSENBROCK.box), entry.options)
    assert np.array_equal(fits.params.iloc[0], found.x)
    assert fits.summary["cost"].iloc[0] == found.fun


@refereed
def test_a_fixed_parameter_as_if_it_were_not_there(entry: Entry) -> None:
    row = SHIFTS.iloc[0]
    fun = objective(entry)
    box = entry.box(QUADRATIC.box)
    fits = fit(entry, SHIFTS.iloc[[0]], x0=[0.0, 0.5], fixed=["x1"])
    assert fits.params["x1"].tolist() == [0.5]
    assert fits.at_bound["x1"].tolist() == [0]
    if entry.name in WITHOUT_DERIVATIVES:
        assert fits.success.all()
        assert fits.params["x0"].iloc[0] == pytest.approx(1 - 2.5 / 3, rel=1e-5)
        return
    found = entry.referee(lambda z: fun(np.array([z[0], 0.5]), row), [0.0], box and box[:1], entry.options)
    assert fits.params["x0"].iloc[0] == np.ravel(found.x)[0]


@every
def test_bounds_are_kept_or_refused(entry: Entry) -> None:
    bounds = [(-0.5, 0.75), (-0.5, 3.0)]
    if not entry.bounded:
        with pytest.raises(parfit.InvalidInputError, match=f"'{entry.name}' takes no bounds; these do: lm, .*spsa"):
            fit(entry, bounds=bounds)
        return
    asked: list[np.ndarray] = []

    def watched(p: np.ndarray, d: pd.Series) -> Any:
        asked.append(np.array(p))
        return objective(entry)(p, d)

    fits = fit(entry, SHIFTS.iloc[[0]], bounds=bounds, objective=watched, x0=[0.0, 0.0])
    points = np.array([fits.params.iloc[0], *(asked if entry.name != "COBYLA" else [])])  # bounds may wait, to COBYLA
    assert (points >= [-0.5, -0.5]).all()
    assert (points <= [0.75, 3.0]).all()
    assert fits.success.all() or entry.name == "spsa", fits.summary["message"].tolist()
    if not entry.residuals:  # on the lower bound of the second parameter, 0.5 * 3 * (p - 1 + 0.5)**2 is left
        np.testing.assert_allclose(fits.params, [[0.5, -0.5]], atol=max(0.01, entry.rtol))
        if entry.name not in ("brute", "direct"):
            assert fits.at_bound.iloc[0].tolist() == [0, -1]
            assert fits.summary["at_bound"].all()


@pytest.mark.parametrize("entry", [e for e in TABLE if e.needs_box], ids=repr)
def test_a_box_is_asked_for(entry: Entry) -> None:
    with pytest.raises(parfit.InvalidInputError, match=f"'{entry.name}' needs finite bounds for every free parameter"):
        fit(entry, bounds=[(0, 3), (0, None)])
    fits = fit(entry, bounds=[(-3, 3), (0, None)], fixed=["x1"])
    assert len(fits) == 3
    some = fit(entry, bounds=lambda d: [(-4, 4), (-4, 4 if d.name == "s" else None)])
    assert some.status.tolist() == ["invalid", "converged", "invalid"]


@every
def test_an_unknown_option_gets_the_nearest_match(entry: Entry) -> None:
    known = {"residuals": "max_nfev", "spsa": "maxiter", "direct": "maxiter", "shgo": "iters", "brute": "finish"}
    right = known["residuals"] if entry.residuals else known.get(entry.name, "maxiter")
    right = {"TNC": "maxfun", "basinhopping": "niter"}.get(entry.name, right)
    wrong = right[:-1] + right[-1] * 2
    with pytest.raises(
        parfit.UnknownNameError, match=f"option of method '{entry.name}' '{wrong}'. Did you mean '{right}'"
    ):
        fit(entry, options={wrong: 10})


@every
def test_the_name_in_other_spellings(entry: Entry) -> None:
    for spelling in (entry.name.upper(), entry.name.replace("-", "").replace("_", ""), entry.name.replace("-", "_")):
        solver = solvers.resolve(spelling, entry.options)
        assert solver.name == entry.name
        assert solver == solvers.resolve(entry.name, entry.options)


@every
def test_a_solver_is_a_frozen_recipe_that_travels(entry: Entry) -> None:
    solver = solvers.resolve(entry.name, entry.options)
    assert isinstance(solver, Solver)
    assert pickle.loads(pickle.dumps(solver)) == solver
    with pytest.raises(dataclasses.FrozenInstanceError):
        solver.name = "other"  # type: ignore[misc]
    bounds = entry.box(QUADRATIC.box)
    fits = parfit.fit(SHIFTS, objective(entry), QUADRATIC.start, method=solver, bounds=bounds, executor="serial")
    pd.testing.assert_frame_equal(fits.params, fit(entry).params, check_exact=True)
    with pytest.raises(parfit.InvalidInputError, match="a Solver has its options already"):
        fit(entry, method=solver, options={"maxiter": 3})


@every
def test_a_row_does_not_depend_on_its_neighbours(entry: Entry) -> None:
    if entry.draws:
        shuffled = fit(entry, SHIFTS.set_axis(["a", "b", "c"]))
        pd.testing.assert_frame_equal(shuffled.params.set_axis(SHIFTS.index), fit(entry).params)
        return
    together = fit(entry)
    for label in SHIFTS.index:
        alone = fit(entry, SHIFTS.loc[[label]])
        pd.testing.assert_frame_equal(alone.params, together.params.loc[[label]], check_exact=True)
    backwards = fit(entry, SHIFTS.iloc[::-1])
    pd.testing.assert_frame_equal(backwards.params.iloc[::-1], together.params, check_exact=True)


@every
def test_an_objective_that_writes_into_its_parameters(entry: Entry) -> None:
    """The start that all datasets share is not the objective's to change; nor are the points of SciPy's methods."""
    fun = objective(entry)

    def vandal(p: np.ndarray, d: pd.Series) -> Any:
        value = fun(p, d)
        if vandal.calls < 1:
            p[:] = 1e6
        vandal.calls += 1
        return value

    vandal.calls = 0
    x0 = np.array(QUADRATIC.start)
    fits = fit(entry, SHIFTS.iloc[[0, 0, 0]], objective=vandal, x0=x0)
    assert x0.tolist() == list(QUADRATIC.start)
    if not entry.draws:
        wanted = fit(entry, SHIFTS.iloc[[0, 0, 0]])
        assert np.array_equal(fits.params.iloc[1:], wanted.params.iloc[1:])


@every
def test_maximize(entry: Entry) -> None:
    if entry.residuals:
        with pytest.raises(parfit.MethodMismatchError, match="maximize=True needs a scalar objective"):
            fit(entry, maximize=True)
        return
    fun = objective(entry)
    down = fit(entry)
    up = fit(entry, objective=lambda p, d: -fun(p, d), maximize=True)
    pd.testing.assert_frame_equal(up.params, down.params, check_exact=True)
    assert (up.summary["cost"] == down.summary["cost"]).all()
    assert up["s"].fun == -down["s"].fun
    assert up["s"].cost == down["s"].cost


@every
def test_no_parameter_is_free_in_a_row(entry: Entry) -> None:
    x0 = pd.DataFrame([[0.0, 0.0], [0.5, 0.25], [0.0, 0.0]], index=SHIFTS.index, columns=["x0", "x1"])
    low, high = x0 - 1.0, x0 + 4.0
    low.loc["s"] = high.loc["s"] = x0.loc["s"]
    if not entry.bounded:
        return
    fun = objective(entry)
    fits = fit(entry, x0=x0, bounds=(low, high), objective=lambda p, d: fun(p.to_numpy(), d))
    assert fits.params.loc["s"].tolist() == [0.5, 0.25]
    assert fits.status["s"] == "converged"
    value = fun(np.array([0.5, 0.25]), SHIFTS.loc["s"])
    assert fits["s"].cost == (0.5 * value @ value if entry.residuals else value)


# ---- what goes wrong


@every
def test_an_objective_that_raises(entry: Entry) -> None:
    for error in (ValueError, TypeError, KeyError, ZeroDivisionError, RuntimeError):
        fun = objective(entry)

        def fails(p: Any, d: pd.Series, error: Any = error, fun: Any = fun) -> Any:
            if d.name == "s":
                raise error("no such county")
            return fun(p, d)

        fits = fit(entry, objective=fails)
        assert fits.status.tolist() == ["converged", "error", "converged"]
        assert fits.errors["type"].tolist() == [error.__name__]
        assert "no such county" in fits.errors["message"].iloc[0]
        assert "in fails" in fits.errors["traceback"].iloc[0]


@every
def test_an_objective_that_raises_after_a_while(entry: Entry) -> None:
    fun = objective(entry)
    calls = 0

    def fails(p: Any, d: pd.Series) -> Any:
        nonlocal calls
        calls += 1
        if calls == 5:
            raise TypeError("the fifth call")
        return fun(p, d)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fits = fit(entry, SHIFTS.iloc[[0]], objective=fails)
    assert fits.status.tolist() == ["error"]
    assert fits.errors["type"].tolist() == ["TypeError"]
    assert fits.errors["message"].tolist() == ["the fifth call"]


@every
def test_nan_in_one_row(entry: Entry) -> None:
    data = SHIFTS.copy()
    data.loc["s", "u"] = np.nan
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fits = fit(entry, data)
    assert fits.status[["r", "t"]].tolist() == ["converged"] * 2
    assert fits.status["s"] == "nonfinite"
    assert not fits["s"].success


@every
def test_a_constant_objective_has_no_minimum(entry: Entry) -> None:
    constant = np.ones(3) if entry.residuals else 1.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fits = fit(entry, SHIFTS.iloc[[0]], objective=lambda p, d: constant, x0=[0.1, 0.2])
    if entry.needs_box or entry.name in ("basinhopping", "COBYLA", "COBYQA", "Powell", "Nelder-Mead"):
        return  # these move about on a plain, and end anywhere
    assert fits.status.tolist() != ["converged"]
    assert fits.params.iloc[0].tolist() == [0.1, 0.2]


@every
def test_history_is_what_was_asked(entry: Entry) -> None:
    fits = fit(entry, SHIFTS.iloc[[0]], history=True)
    trace = fits.history
    assert len(trace) == fits.summary["nfev"].iloc[0]
    assert trace["evaluation"].tolist() == list(range(len(trace)))
    fun = objective(entry)
    for _, step in trace.iloc[:: max(1, len(trace) // 7)].iterrows():
        value = fun(step[["x0", "x1"]].to_numpy(dtype=float), SHIFTS.iloc[0])
        assert step["cost"] == pytest.approx(0.5 * value @ value if entry.residuals else value, rel=1e-12)
    assert trace["cost"].min() <= fits.summary["cost"].iloc[0]
