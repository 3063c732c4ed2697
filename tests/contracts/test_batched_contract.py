"""What every batched solver must do: the cross product of the solvers and a table of rows, driven step by step."""

from __future__ import annotations

import copy
import dataclasses
import functools
import itertools
import pickle
from typing import Any, NamedTuple

import numpy as np
import pytest
from scipy.optimize import least_squares

pytest.importorskip("jax", reason="the batched engine needs jax")
import jax
import jax.numpy as jnp

from parfit.batched import METHODS
from parfit.batched.ends import End
from parfit.batched.lane import Lane
from parfit.core.protocols import BatchedSolver
from tests.contracts.batched_table import NAN, ROWS, TABLE, Entry, Row, residuals

MOST_STEPS = 5000
BATCH = (*ROWS.values(), NAN)


class Run(NamedTuple):
    """The states after each step, leading axis rows."""

    states: list[Any]

    @property
    def last(self) -> Any:
        return self.states[-1]


def lane_of(row: dict[str, Any], *, residual: bool, bounded: bool = True) -> Lane:
    def objective(z: Any) -> Any:
        r = jnp.stack(residuals(z, row["at"], row["steep"]))
        return r if residual else 0.5 * jnp.sum(r * r)

    return Lane(row["start"], row["lower"], row["upper"], objective, bounded=bounded)


def run(solver: BatchedSolver, rows: tuple[Row, ...] = BATCH) -> Run:
    """Step by step to the end of the last row; a row that has ended stays as it is."""
    stacked = {f.name: np.array([getattr(row, f.name) for row in rows]) for f in dataclasses.fields(Row)}
    lane = functools.partial(lane_of, residual=solver.residuals)

    def step(row: Any, state: Any) -> Any:
        new = solver.step(lane(row), state)
        new = new._replace(end=solver.terminate(lane(row), new))
        return jax.tree.map(lambda a, b: jnp.where(state.end == int(End.RUNNING), a, b), new, state)

    with jax.enable_x64(True):
        state = jax.jit(jax.vmap(lambda row: solver.init(lane(row))))(stacked)
        advance = jax.jit(jax.vmap(step))
        states = [jax.tree.map(np.asarray, state)]
        while (states[-1].end == End.RUNNING).any():
            assert len(states) < MOST_STEPS, "a row does not end"
            state = advance(stacked, state)
            states.append(jax.tree.map(np.asarray, state))
    return Run(states)


@functools.cache
def whole(entry: Entry) -> Run:
    return run(entry.solver())


@pytest.fixture(params=TABLE, ids=repr)
def entry(request: pytest.FixtureRequest) -> Entry:
    return request.param


def number(name: str) -> int:
    return list(ROWS).index(name)


# ---- the recipe


def test_every_solver_is_in_the_table() -> None:
    assert {entry.name for entry in TABLE} == set(METHODS)
    assert all(name == solver.name for name, solver in METHODS.items())


def test_a_solver_is_a_frozen_recipe_that_travels(entry: Entry) -> None:
    solver = entry.solver()
    assert isinstance(solver, BatchedSolver)
    assert hash(solver) == hash(entry.solver())
    assert solver == entry.solver() == pickle.loads(pickle.dumps(solver)) == copy.deepcopy(solver)
    assert solver != entry.solver(**entry.limit)
    field = dataclasses.fields(solver)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(solver, field, 1.0)
    assert isinstance(solver.residuals, bool)


def test_a_state_has_the_documented_attributes(entry: Entry) -> None:
    for state in (whole(entry).states[0], whole(entry).last):
        assert state.x.shape == state.g.shape == (len(BATCH), 2)
        for name in ("cost", "start_cost", "nfev", "njev", "nit", "nonfinite", "end"):
            assert getattr(state, name).shape == (len(BATCH),)
        assert state.x.dtype == state.cost.dtype == np.float64
        assert all(getattr(state, name).dtype.kind == "i" for name in ("nfev", "nit", "nonfinite", "end"))


# ---- the mathematics


@pytest.mark.parametrize("name", ROWS)
def test_the_minimum_is_found_inside_the_bounds(entry: Entry, name: str) -> None:
    row, i, last = ROWS[name], number(name), whole(entry).last
    assert End(last.end[i]) in (End.GRADIENT, End.COST, End.STEP, End.BOTH, End.EXACT)
    x, cost = optimum(row)
    if name in entry.elsewhere:
        assert last.cost[i] > (1 + entry.rtol) * cost
        return
    np.testing.assert_allclose(last.cost[i], cost, rtol=entry.rtol)
    np.testing.assert_allclose(last.x[i], x, rtol=entry.xtol, atol=entry.xtol)
    r = row.residuals(last.x[i])
    np.testing.assert_allclose(last.cost[i], 0.5 * r @ r, rtol=1e-12)
    r = row.residuals(row.start)
    np.testing.assert_allclose(last.start_cost[i], 0.5 * r @ r, rtol=1e-12)


def optimum(row: Row) -> tuple[Any, float]:
    """By SciPy, in the parameters that are free."""
    start, lower, upper = (np.array(v, dtype=float) for v in (row.start, row.lower, row.upper))
    free = lower < upper

    def of_free(z: Any) -> Any:
        x = start.copy()
        x[free] = z
        return row.residuals(x)

    inside = np.clip(start[free], lower[free] + 1e-3, upper[free] - 1e-3)
    found = least_squares(of_free, inside, bounds=(lower[free], upper[free]), ftol=1e-15, xtol=1e-15, gtol=1e-15)
    x = start.copy()
    x[free] = found.x
    return x, found.cost


def test_nothing_leaves_its_bounds_at_any_step(entry: Entry) -> None:
    lower, upper = (np.array([getattr(row, name) for row in BATCH]) for name in ("lower", "upper"))
    for state in whole(entry).states:
        assert ((lower <= state.x) & (state.x <= upper)).all()


def test_what_is_fixed_stays(entry: Entry) -> None:
    i = number("one fixed")
    assert all(state.x[i, 1] == 0.5 for state in whole(entry).states)
    assert whole(entry).last.x[i, 0] != 0.0


def test_the_cost_never_rises(entry: Entry) -> None:
    costs = np.array([state.cost for state in whole(entry).states[1:]])[:, : len(ROWS)]
    assert (np.diff(costs, axis=0) <= 0).all()


def test_nan_at_the_start_ends_a_row_at_once_and_no_other(entry: Entry) -> None:
    last = whole(entry).last
    assert End(last.end[-1]) is End.NONFINITE_START
    assert last.nfev[-1] <= 3  # as many points as the first simplex has
    assert (last.end[:-1] != End.NONFINITE_START).all()


def test_a_limit_ends_a_row(entry: Entry) -> None:
    limited = run(entry.solver(**entry.limit), (ROWS["valley"],)).last
    assert End(limited.end[0]) is End.LIMIT
    ((option, most),) = entry.limit.items()
    count = limited.nit if option == "maxiter" else limited.nfev
    assert count[0] == most
    assert limited.cost[0] < limited.start_cost[0]


def test_counts_are_those_of_the_steps(entry: Entry) -> None:
    """One step evaluates the objective once."""
    states = whole(entry).states
    for before, after in itertools.pairwise(states):
        running = before.end == End.RUNNING
        np.testing.assert_array_equal(after.nfev - before.nfev, running.astype(int))
        assert (after.nit >= before.nit).all()


def test_a_row_that_has_ended_does_not_change(entry: Entry) -> None:
    states = whole(entry).states
    ended = states[len(states) // 2].end != End.RUNNING
    assert ended.any()
    np.testing.assert_array_equal(states[len(states) // 2].x[ended], states[-1].x[ended])
