"""`fit`: one model, many independent datasets. The one place where the rooms meet."""

from __future__ import annotations

import dataclasses
import functools
import logging
import time
import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parfit import executors, inference, solvers
from parfit.core.columns import Columns
from parfit.core.data import Datasets, read_data
from parfit.core.errors import (
    FitError,
    FitInterrupted,
    InvalidInputError,
    InvalidTypeError,
    MethodMismatchError,
    ParfitWarning,
    refuse_unknown,
)
from parfit.core.parameters import Parameters, read_parameters
from parfit.core.problem import BoundProblem, Problem, RowTask
from parfit.core.protocols import Executor, Solver, Store
from parfit.core.solution import Outcome, OutcomeKind, Solution, Status, TaskError
from parfit.core.tasks import FitTasks
from parfit.progress import Progress, reporting
from parfit.results import Fits, Origin
from parfit.stores import MemoryStore

__all__ = ["fit"]

_log = logging.getLogger("parfit")
Positions = NDArray[np.intp]


def fit(
    data: Any,
    objective: Callable[..., Any],
    x0: Any,
    *,
    bounds: Any = None,
    fixed: Any = None,
    constraints: Any = (),
    method: str | Solver | None = None,
    options: Mapping[str, Any] | None = None,
    jac: Any = None,
    args: Any = (),
    maximize: bool = False,
    engine: str = "auto",
    executor: Any = None,
    workers: int | None = None,
    chunk_size: int | None = None,
    timeout: float | None = None,
    retries: int = 1,
    on_error: str = "record",
    store: Store | None = None,
    seed: int | None = 0,
    progress: Progress = None,
    history: bool = False,
) -> Fits:
    """Fit one model to each of many independent datasets, in parallel.

    Parameters
    ----------
    data : DataFrame, GroupBy, mapping, sequence, ndarray or tree of arrays
        A dataset per row of a DataFrame (as a Series), per group of a GroupBy (as a DataFrame), per entry of a
        mapping or sequence, or per index of the leading axis of an array, or of a dict or tuple of arrays of which
        one at least is 2-D. Labels are the index, the group keys, the mapping's keys or 0 … n-1.
    objective : callable
        ``objective(params, dataset, *args)``. A scalar is minimised; a 1-D array is a vector of residuals, and half
        its sum of squares is minimised.
    x0 : list, array, dict, Series, DataFrame, nesting of these, or callable
        Start values, in the structure that `objective` is to receive (a list of numbers arrives as an array). A
        DataFrame with a column ``value`` is a table of parameters, with optional columns ``lower_bound``,
        ``upper_bound`` and ``fixed``; any other DataFrame has one start per dataset, and its index is the data's. A
        callable ``x0(dataset)`` gives each dataset its own.
    bounds : optional
        In the structure of `x0`, in whole or in part, with a pair ``(lower, upper)`` for each; a list of pairs;
        `scipy.optimize.Bounds`; ``(lower, upper)`` of which each may be a DataFrame with one row per dataset; or a
        callable ``bounds(dataset)``. A parameter whose bounds are equal is fixed there.
    fixed : optional
        Names of parameters that stay at their start, or True and False in the structure of `x0`, in whole or in part.
    constraints : optional
        As for `scipy.optimize.minimize`; their functions receive the parameters in the structure of `x0`.
    method : str or Solver, optional
        By default ``"lm"`` for residuals (a bounded variant where there are bounds) and ``"L-BFGS-B"`` for scalars.
        Any method of `scipy.optimize.minimize` and `least_squares`, ``"differential_evolution"``,
        ``"dual_annealing"``, ``"shgo"``, ``"basinhopping"``, ``"direct"``, ``"brute"``, ``"spsa"``.
    options : dict, optional
        The method's options, under SciPy's names.
    jac : callable or str, optional
        ``jac(params, dataset, *args)``: the gradient in the structure of `x0` (or flat), or the Jacobian of the
        residuals, shape (m, n); True where the objective returns value and gradient; or SciPy's ``"2-point"``,
        ``"3-point"``, ``"cs"``.
    args : tuple, optional
        More arguments of `objective`. They travel to each worker once.
    maximize : bool
        Maximise a scalar objective.
    engine : {"auto", "rows"}
        ``"rows"`` runs any Python in workers, a dataset at a time.
    executor : str, Executor or concurrent.futures executor, optional
        Where: ``"processes"`` (the default), ``"serial"``, ``"threads"``, ``"multiprocessing"``, ``"loky"``,
        ``"joblib"``, ``"producer_consumer"``.
    workers : int, optional
        How many; by default one per usable core.
    chunk_size : int, optional
        How many datasets travel together; by default as their cost suggests.
    timeout : float, optional
        The limit for one dataset, s. It is killed then, and its status is ``timeout``.
    retries : int
        How often a dataset whose worker died is tried again, alone.
    on_error : {"record", "raise"}
        ``"record"``: a dataset that cannot be fitted is a row with a status, and the others go on. ``"raise"`` stops at
        the first, naming its label.
    store : Store, optional
        Where solutions are kept; by default in memory.
    seed : int or None
        Every dataset's random numbers come from this and its position.
    progress : bool or callable, optional
        True, False, or ``callable(done, total)``; by default a bar on terminals and in notebooks.
    history : bool
        Keep every evaluation, for `Fits.history`.

    Returns
    -------
    Fits
        One row per dataset, in the data's order, whatever any of them did.

    Raises
    ------
    InvalidInputError, InvalidTypeError, UnknownNameError
        For arguments that no dataset can be fitted with (ValueError and TypeError).
    FitError
        With ``on_error="raise"``.
    FitInterrupted
        At a Ctrl-C; its ``fits`` holds what was finished.

    Examples
    --------
    >>> import numpy as np, pandas as pd, parfit
    >>> t = np.linspace(0, 4, 20)
    >>> decays = pd.DataFrame([3 * np.exp(-0.5 * t), 2 * np.exp(-0.9 * t)], index=["a", "b"])
    >>> def residuals(p, row):
    ...     return p["height"] * np.exp(-p["rate"] * t) - row.to_numpy()
    >>> fits = parfit.fit(decays, residuals, {"height": 1.0, "rate": 1.0}, executor="serial")
    >>> fits.params.round(3)
       height  rate
    a     3.0   0.5
    b     2.0   0.9
    """
    call = _prepare(locals())
    return call.run()


def _prepare(given: dict[str, Any]) -> _Call:
    """Check and convert every argument, once."""
    objective, store = given["objective"], given["store"]
    if not callable(objective):
        raise InvalidTypeError(f"objective must be callable, not {type(objective).__name__}")
    for name, choices in (("engine", ("auto", "rows")), ("on_error", ("record", "raise"))):
        if given[name] not in choices:
            refuse_unknown(f"value of `{name}`", given[name], choices)
    if store is not None and not isinstance(store, Store):
        raise InvalidTypeError(f"store must be a parfit Store or None, not {type(store).__name__}")
    seed = given["seed"]
    if seed is not None and (isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0):
        raise InvalidInputError(f"seed must be a whole number from 0 on, or None, not {seed!r}")
    _check_number("timeout", given["timeout"], above=0)
    _check_number("chunk_size", given["chunk_size"], least=1)
    _check_number("retries", given["retries"], least=0)
    constraints = given["constraints"]
    if not isinstance(constraints, (list, tuple)):
        constraints = (constraints,)
    datasets = read_data(given["data"])
    parameters = read_parameters(
        given["x0"], given["bounds"], given["fixed"], datasets.labels, functools.partial(_first, datasets)
    )
    solver = solvers.resolve(given["method"], given["options"], constrained=bool(constraints))
    _check_solver(solver, parameters, bool(constraints))
    problem = Problem(
        objective=objective,
        parameters=parameters,
        args=given["args"] if isinstance(given["args"], tuple) else (given["args"],),
        maximize=bool(given["maximize"]),
        jac=given["jac"],
        constraints=tuple(constraints),
        seed=None if seed is None else int(seed),
        history=bool(given["history"]),
    )
    return _Call(
        datasets=datasets,
        problem=problem,
        solver=solver,
        executor=executors.resolve(given["executor"], given["workers"], given["timeout"]),
        chunk_size=given["chunk_size"],
        timeout=given["timeout"],
        retries=int(given["retries"]),
        on_error=given["on_error"],
        store=store,
        progress=given["progress"],
        given=given,
    )


def _check_number(name: str, value: Any, *, least: int | None = None, above: int | None = None) -> None:
    if value is None and name != "retries":
        return
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)):
        raise InvalidTypeError(f"{name} must be a number, not {value!r}")
    if least is not None and (value < least or value != int(value)):
        raise InvalidInputError(f"{name} must be a whole number, at least {least}, not {value!r}")
    if above is not None and not value > above:
        raise InvalidInputError(f"{name} must be above {above}, not {value!r}")


def _first(datasets: Datasets, function: Callable[[Any], Any]) -> Any:
    """`function` of the first dataset that it does not raise on."""
    error: Exception | None = None
    for position in range(len(datasets)):
        try:
            return function(datasets.one(position))
        except Exception as exc:  # noqa: BLE001 - the user's own function, on a dataset that may be bad
            error = error or exc
    if error is None:
        raise InvalidInputError("x0 is a callable, and there is no dataset to call it with")
    raise InvalidInputError(f"x0(dataset) raises for every dataset: {type(error).__name__}: {error}") from error


def _check_solver(solver: Solver, parameters: Parameters, constrained: bool) -> None:
    if parameters.bounded and not solver.accepts_bounds:
        raise InvalidInputError(f"method {solver.name!r} takes no bounds")
    if constrained and not solver.accepts_constraints:
        raise InvalidInputError(
            f"method {solver.name!r} takes no constraints; these do: SLSQP, trust-constr, COBYLA, COBYQA"
        )
    if solver.needs_bounds and parameters.bounds_of is None:
        free = ~parameters.fixed
        finite = np.isfinite(parameters.lower[..., free]) & np.isfinite(parameters.upper[..., free])
        if not finite.reshape(-1, int(free.sum())).all(axis=1).any():
            raise InvalidInputError(f"method {solver.name!r} needs finite bounds for every free parameter")


# ---- in the worker


def _ready(problem: Problem, solver: Solver) -> tuple[Problem, Solver]:
    return problem, solver


def _fit_one(state: tuple[Problem, Solver], task: RowTask) -> Solution:
    """Fit one dataset; what its objective raises goes to the executor."""
    problem, solver = state
    n = len(problem.parameters.names)
    try:
        bound = problem.bind(task)
    except InvalidInputError as exc:
        return Solution(np.full(n, np.nan), Status.INVALID, str(exc), nfev=0, nit=0)
    bound.seed_globals()
    if problem.maximize and bound.is_residuals:
        raise MethodMismatchError("maximize=True needs a scalar objective, and this one gives residuals")
    return _expanded(bound, solver.solve(bound))


def _expanded(bound: BoundProblem, solution: Solution) -> Solution:
    """The solution in all parameters, with what its Jacobian says, fit to travel."""
    if solution.jac is not None:
        found = inference.from_jacobian(solution.jac, solution.cost)
        solution.cov, solution.rank, solution.condition = found
        solution.jac = None
    if bound.trace:
        solution.history = np.array(bound.trace)
    if solution.n_residuals == -1 and bound.n_residuals is not None:
        solution.n_residuals = bound.n_residuals
    if bound.free is not None:
        free, n = bound.free, len(bound.full)
        if solution.at_bound is not None:
            at = np.zeros(n, dtype=np.int8)
            at[free] = solution.at_bound
            solution.at_bound = at
        if solution.cov is not None:
            cov = np.zeros((n, n))
            cov[np.ix_(free, free)] = solution.cov
            solution.cov = cov
        solution.x = bound.expand(solution.x)
    return solution


# ---- in the parent


@dataclass(frozen=True, eq=False)
class _Call:
    """One call of `fit`, checked and ready to run, whole or in part."""

    datasets: Datasets
    problem: Problem
    solver: Solver
    executor: Executor
    chunk_size: int | None
    timeout: float | None
    retries: int
    on_error: str
    store: Store | None
    progress: Progress
    given: dict[str, Any]

    def run(self) -> Fits:
        """Fit every dataset that the store does not have."""
        n = len(self.problem.parameters.names)
        store = self.store if self.store is not None else MemoryStore(len(self.datasets), n)
        with store:
            done = np.fromiter(store.done(), dtype=np.intp)
            positions = np.setdiff1d(np.arange(len(self.datasets)), done)
            fits = self._fill(store, positions, already=len(done))
        _refuse_if_all_invalid(fits)
        return fits

    def refit(self, old: Fits, positions: Positions, changes: dict[str, Any]) -> Fits:
        """Fit some datasets again, with changed arguments."""
        given = {**self.given, "store": None}
        for name in changes:
            if name not in given or name == "data":
                refuse_unknown("argument of fit", name, [k for k in given if k != "data"])
        if isinstance(changes.get("x0"), str):
            if changes["x0"] != "solution":
                refuse_unknown("x0", changes["x0"], ("solution",))
            changes = {**changes, "x0": self.given["x0"]}
            call = _prepare({**given, **changes}).from_solution(old)
        else:
            call = _prepare({**given, **changes})
        if call.problem.parameters.names != self.problem.parameters.names:
            raise InvalidInputError(
                f"refit keeps the parameters' names {self.problem.parameters.names}, "
                f"and the new x0 has {call.problem.parameters.names}"
            )
        store = MemoryStore(len(old), len(call.problem.parameters.names), old.columns_copy())
        return call._fill(store, positions)

    def from_solution(self, old: Fits) -> _Call:
        """The same call, each dataset starting at its old solution where it has a finite one inside the bounds."""
        p = self.problem.parameters
        found = old.params.to_numpy()
        start = np.where(np.isfinite(found), found, np.broadcast_to(p.start, found.shape))
        parameters = dataclasses.replace(p, start=np.clip(start, p.lower, p.upper), start_of=None)
        return dataclasses.replace(self, problem=dataclasses.replace(self.problem, parameters=parameters))

    def _fill(self, store: Store, positions: Positions, already: int = 0) -> Fits:
        """Run the datasets at `positions` into the store, and read it out."""
        begin = time.perf_counter()
        reason = "engine='rows' was asked for" if self.given["engine"] == "rows" else "this objective runs as Python"
        _log.info("engine rows: %s; %d datasets, executor %s", reason, len(positions), self.executor.name)

        def result() -> Fits:
            columns: Columns = store.columns()
            _reconcile_kinds(columns)
            origin = Origin(
                "rows",
                reason,
                time.perf_counter() - begin,
                f"executor {self.executor.name}",
                self.problem.maximize,
                self.refit,
                self._debug,
            )
            return Fits(columns, self.datasets.labels, self.problem.parameters.structure, origin)

        try:
            self._stream(store, positions, already)
        except KeyboardInterrupt:
            fits = result()
            done = len(fits) - int((fits.status == Status.NOT_RUN.value).sum())
            raise FitInterrupted(f"interrupted with {done} of {len(fits)} datasets done; see .fits", fits) from None
        fits = result()
        _warn_in_sum(fits, positions)
        return fits

    def _stream(self, store: Store, positions: Positions, already: int) -> None:
        if not len(positions):
            return
        problem = dataclasses.replace(self.problem, parameters=self.problem.parameters.common())
        tasks = FitTasks(self.datasets, self.problem.parameters, positions, self.chunk_size)
        setup = functools.partial(_ready, problem, self.solver)
        total = already + len(positions)
        with (
            _global_random_state(kept=not self.executor.capabilities.own_process),
            reporting(self.progress, total, "fits", already) as count,
            self.executor.open(setup, retries=self.retries) as pool,
        ):
            for outcome in pool.imap_unordered(_fit_one, tasks, self.timeout):
                self._take(store, outcome)
                count(1)

    def _take(self, store: Store, outcome: Outcome) -> None:
        error = outcome.error
        if error is not None and error.type.endswith("MethodMismatchError"):
            raise MethodMismatchError(error.message)
        store.put(outcome.key, outcome)
        if self.on_error == "raise":
            self._raise_if_failed(outcome)

    def _raise_if_failed(self, outcome: Outcome) -> None:
        label = self.datasets.labels[outcome.key]
        if outcome.error is not None:
            error = outcome.error
            raise FitError(f"dataset {label!r}: {error.type}: {error.message}", label) from error.to_exception()
        solution: Solution = outcome.value
        if solution.status in (Status.INVALID, Status.NONFINITE):
            raise FitError(f"dataset {label!r}: {solution.status}: {solution.message}", label)

    def _debug(self, position: int) -> Solution:
        """Fit one dataset in this process, and let its exception pass as it is."""
        p = self.problem.parameters
        block = FitTasks(self.datasets, p, np.array([position])).take(1)
        assert block is not None
        found: list[Solution] = []
        problem = dataclasses.replace(self.problem, parameters=p.common())
        with _global_random_state(kept=True):
            block.visit(lambda _, task: found.append(_fit_one((problem, self.solver), task)))
        return found[0]


class _global_random_state:  # noqa: N801 - used like contextlib's functions
    """Puts the caller's global random state back where tasks are seeded in this process."""

    def __init__(self, *, kept: bool) -> None:
        self._kept = kept

    def __enter__(self) -> None:
        if self._kept:
            import random

            self._states = np.random.get_state(), random.getstate()  # noqa: NPY002

    def __exit__(self, *_: object) -> None:
        if self._kept:
            import random

            np.random.set_state(self._states[0])  # noqa: NPY002
            random.setstate(self._states[1])


def _reconcile_kinds(columns: Columns) -> None:
    """An objective is scalar or residuals for all datasets alike; the first that was evaluated decides."""
    m = columns.ints_of("n_residuals")
    known = np.flatnonzero((columns.ints_of("nfev") > 0) & (m != 0))
    if not len(known) or not ((m[known] > 0) != (m[known[0]] > 0)).any():
        return
    kinds = ("a scalar", "a vector of residuals")
    first = bool(m[known[0]] > 0)
    for i in known[(m[known] > 0) != first]:
        text = f"the objective gave {kinds[not first]} for this dataset, and {kinds[first]} for the first"
        error = TaskError.from_exception(InvalidTypeError(text))
        columns.put(int(i), Outcome(int(i), OutcomeKind.ERROR, None, error))


def _refuse_if_all_invalid(fits: Fits) -> None:
    """What is wrong with every dataset is wrong with the call."""
    if not len(fits):
        return
    summary = fits.summary
    at_start = (summary["status"] == "invalid") | ((summary["status"] == "nonfinite") & (summary["nit"] == 0))
    if at_start.all():
        first = summary["message"].iloc[0]
        exc = InvalidInputError(
            f"no dataset can be fitted: {first} (dataset {fits.labels[0]!r}, and all others likewise)"
        )
        exc.add_note("the attribute `fits` of this exception has the reason for each dataset")
        exc.fits = fits  # type: ignore[attr-defined]
        raise exc


def _warn_in_sum(fits: Fits, positions: Positions) -> None:
    """One warning for an objective that raises everywhere, and one for all that the objective itself warned of."""
    errors = fits.errors
    if len(positions) > 1 and len(errors) == len(fits) and errors[["type", "message"]].drop_duplicates().shape[0] == 1:
        first = errors.iloc[0]
        text = f"the objective raised {first['type']}: {first['message']} for every dataset; see fits.errors"
        warnings.warn(text, ParfitWarning, stacklevel=5)
    found = fits.warnings
    found = found[found.index.isin(positions)]
    if len(found):
        counts = Counter(f"{c}: {m}" for c, m in zip(found["category"], found["message"], strict=True))
        shown = "; ".join(f"{text} ({n})" for text, n in counts.most_common(3))
        more = f"; and {len(counts) - 3} others" if len(counts) > 3 else ""
        n = found.index.nunique()
        text = f"{n} of {len(positions)} datasets gave warnings (see fits.warnings): {shown}{more}"
        warnings.warn(text, ParfitWarning, stacklevel=5)
