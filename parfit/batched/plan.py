"""From a fit to compiled programs: is the objective traceable, does it give the same values, in which shapes.

    objective, data ─▶ trace (as it is, else by `jaxify`) ─▶ compile ─▶ compare with plain calls on a few rows ─▶ Plan

What stands in the way is an `Untraceable`, whose sentence tells the user why the ordinary engine runs.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import jax
import numpy as np
from numpy.typing import NDArray

from parfit.batched.blocks import Block, together
from parfit.batched.compare import compare, telling
from parfit.batched.compiled import precision
from parfit.batched.lane import Lane
from parfit.batched.loop import Loop, chunk_width
from parfit.batched.normal import pushed_together
from parfit.batched.starts import Starts, read_starts
from parfit.batched.tracing.deadline import TracedTooLong, within
from parfit.batched.tracing.feeds import read_feed
from parfit.batched.tracing.purity import is_suspicious
from parfit.batched.tracing.recorded import Recorded, kept, record
from parfit.batched.tracing.traced import Traced
from parfit.batched.tracing.untraceable import Untraceable
from parfit.core.data import Datasets
from parfit.core.errors import MethodMismatchError
from parfit.core.problem import Problem
from parfit.core.protocols import BatchedSolver
from parfit.core.windows import Windows

__all__ = ["Bucket", "Plan", "Shape", "make_plan"]

Positions = NDArray[np.intp]
#: Padding may add so many numbers before shapes of their own are compiled: what they cost is less than a compilation.
_PADDING = 4_000_000
_LEAST_LENGTH = 8
#: Up to so many parameters, gradients of objectives with loops are taken forwards.
_FORWARD = 32
#: How long tracing may take where the ordinary engine will do, s.
_TRACING_S = 5.0


@dataclass(frozen=True, eq=False)
class Bucket:
    """Rows that share a program.

    Attributes
    ----------
    positions
        Theirs in the input.
    length
        What they are padded to; 0 where nothing is.
    loop
        The programs.
    m
        The number of residuals, padding included; -1 for a scalar.
    derivative
        The program of Jacobians at solutions.
    """

    positions: Positions
    length: int
    loop: Loop
    m: int
    derivative: Loop

    def jacobians(self, rows: Any, x: NDArray[Any]) -> NDArray[np.float64]:
        """The Jacobians of the residuals of some rows, shape (k, m, n)."""
        return np.asarray(self.derivative.extras(rows, x), dtype=np.float64)


class Shape(NamedTuple):
    """What decides a program beside the objective: the length that datasets are padded to, and if any has a bound."""

    length: int
    bounded: bool


@dataclass(frozen=True, eq=False)
class Plan:
    """What runs: compiled programs, and what they read.

    Attributes
    ----------
    problem, datasets
        What is fitted.
    traced
        The objective.
    buckets
        Rows of one shape each.
    starts
        By position, of the rows of all buckets.
    how
        What was done to the objective, in a sentence.
    most_operations
        Objectives with more operations are refused.
    shape
        The shape of the whole, where these rows are a part of it.
    """

    problem: Problem
    traced: Traced
    buckets: list[Bucket]
    starts: Starts
    positions: Positions
    dtype: Any
    how: str
    most_operations: int | None = None
    shape: Shape | None = None

    @property
    def where(self) -> str:
        """On what it runs, in words."""
        solvers = {bucket.loop.solver.name for bucket in self.buckets}
        return f"{' '.join(solvers) or 'nothing'} on {jax.default_backend()}"

    @cached_property
    def _is_all(self) -> bool:
        return len(self.positions) > 0 and int(self.positions[-1]) == len(self.positions) - 1

    def _places(self, positions: Positions) -> Any:
        """Where rows at some positions are in `starts`: an index of arrays, a slice where they follow each other."""
        found = positions if self._is_all else np.searchsorted(self.positions, positions)
        return together(found)

    def rows(self, bucket: Bucket, positions: Positions) -> dict[str, Any]:
        """What the programs read of some rows: arrays with a leading axis."""
        found = self._places(positions)
        free = self.traced.free
        cut: Callable[[Any], Any] = lambda v: (v[found] if free is None else v[found][:, free]).astype(self.dtype)  # noqa: E731
        made = {"start": cut(self.starts.start), "lower": cut(self.starts.lower), "upper": cut(self.starts.upper)}
        if free is not None:
            made["full"] = self.starts.start[found].astype(self.dtype)
        made["data"] = jax.tree.map(self._as_wanted, self.traced.feed.leaves(positions, bucket.length))
        return made

    def _as_wanted(self, leaf: NDArray[Any]) -> NDArray[Any]:
        leaf = np.asarray(leaf)
        if leaf.dtype.kind == "f":
            return leaf.astype(
                np.promote_types(self.dtype, np.float32) if leaf.itemsize > 4 else leaf.dtype, copy=False
            )
        if leaf.dtype.kind in "iu" and self.dtype == np.float32:
            return leaf.astype(np.int32)
        return leaf

    def block(self, bucket: Bucket, positions: Positions) -> Block:
        """The rows at some positions, before their first step."""
        return Block(positions, self.rows(bucket, positions), None)

    def counts(self, bucket: Bucket, positions: Positions) -> NDArray[np.intp]:
        """How many residuals each row has; -1 for a scalar."""
        lengths = self.traced.feed.lengths
        if bucket.m < 0 or lengths is None or bucket.length == 0 or bucket.m % bucket.length:
            return np.full(len(positions), bucket.m, dtype=np.intp)
        return lengths[positions] * (bucket.m // bucket.length)

    def count_of(self, positions: Positions) -> NDArray[np.intp]:
        """As `counts`, for rows of any bucket."""
        found = np.full(len(positions), -1, dtype=np.intp)
        for bucket in self.buckets:
            own = np.isin(positions, bucket.positions)
            found[own] = self.counts(bucket, positions[own])
        return found

    def start_of(self, positions: Positions) -> NDArray[np.float64]:
        """The starts of some rows, shape (k, n), all parameters."""
        found: NDArray[np.float64] = self.starts.start[self._places(positions)]
        return found

    def bounds_of(self, positions: Positions) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The bounds of some rows, shape (k, n) each."""
        found = self._places(positions)
        return self.starts.lower[found], self.starts.upper[found]

    def free_of(self, positions: Positions) -> NDArray[np.bool_]:
        """Which parameters of some rows are fitted, shape (k, n)."""
        lower, upper = self.bounds_of(positions)
        free: NDArray[np.bool_] = (lower < upper) & ~self.problem.parameters.fixed
        return free

    def at(self, positions: Positions, datasets: Datasets) -> Plan:
        """The same programs for the rows at some positions, which may be others where all rows have one shape."""
        if positions is self.positions:
            return self
        starts = read_starts(self.problem.parameters, datasets, positions)
        usable = np.delete(positions, list(starts.wrong))
        one = self.traced.feed.lengths is None
        chosen = [replace(b, positions=usable if one else np.intersect1d(b.positions, usable)) for b in self.buckets]
        return replace(self, buckets=[b for b in chosen if len(b.positions)], starts=starts, positions=positions)

    def without(self, positions: Positions) -> Plan:
        """The same without some rows."""
        left = [replace(b, positions=np.setdiff1d(b.positions, positions)) for b in self.buckets]
        return replace(self, buckets=[bucket for bucket in left if len(bucket.positions)])


def make_plan(
    problem: Problem,
    datasets: Datasets,
    work: Windows,
    solver_for: Callable[[bool], BatchedSolver],
    dtype: Any = np.float64,
    most_operations: int | None = None,
    shape: Shape | None = None,
) -> Plan:
    """The plan for the rows at some positions; `Plan.at` has it for those of one window.

    Parameters
    ----------
    work
        The positions. Where not all are in memory together, the plan is made from a few that tell most of all.
    solver_for
        The solver for residuals (True) or a scalar (False); may raise.
    dtype
        The type of the numbers.
    most_operations
        Objectives with more operations are refused; None for no limit.
    shape
        The shape of the whole that these rows are a part of: they have the bits then that they have there.

    Raises
    ------
    Untraceable
        Where they cannot be run so, with the reason.
    """
    objective = problem.objective
    if (why := is_suspicious(objective)) is not None:
        raise Untraceable(f"the objective does what a compiled function cannot: {why}")
    feed = read_feed(datasets)
    sample = None if work.size is None else telling(problem.parameters, datasets, feed, work)
    positions = work.all() if sample is None else sample
    starts = read_starts(problem.parameters, datasets, positions)
    usable = np.delete(positions, list(starts.wrong))
    fixed = problem.parameters.fixed
    free = np.flatnonzero(~fixed) if fixed.any() else None
    sign = -1.0 if problem.maximize else 1.0
    traced = Traced(objective, problem.parameters.structure.root, feed, problem.args, free, sign)
    how = "the objective was compiled"
    plan = Plan(problem, traced, [], starts, positions, np.dtype(dtype), how, most_operations, shape)
    if not len(usable):
        return replace(plan, how="no row has a start that can be used")
    rebound = replace(traced, function=_Later(objective))
    how = "the objective was compiled, with its calls of NumPy as JAX's"
    reasons = []
    for candidate in (plan, replace(plan, traced=rebound, how=how)):
        try:
            made = replace(candidate, buckets=_buckets(candidate, usable, solver_for))
            compare(made, datasets, sample, min(len(work), work.size or len(work)))
            return made
        except (MethodMismatchError, TracedTooLong):
            raise
        except Exception as exc:  # noqa: BLE001 - whatever tracing the user's function raises
            reasons.append(exc)
    raise _reason(reasons)


#: What JAX's exceptions mean to who never asked for JAX.
_IN_WORDS = {
    "TracerBoolConversionError": "it branches on a value (if, while, and, or, min, max of Python); np.where chooses "
    "in compiled functions",
    "TracerArrayConversionError": "a value goes into NumPy itself, as when it is the index into an array of NumPy's; "
    "np.take(table, index) and jnp.asarray(table)[index] can be compiled",
    "TracerIntegerConversionError": "a value is used as a whole number of Python's, as when it is the index into a "
    "list; jnp.asarray(table)[index] can be compiled",
    "ConcretizationTypeError": "a value is used as a number of Python's (float, int, range), and is not known while "
    "compiling",
    "NonConcreteBooleanIndexError": "how many entries a mask leaves depends on values; np.where, or sums over a "
    "product with the mask, can be compiled",
}


class _Later:
    """`jaxify` of an objective and of its further arguments, once it is called."""

    def __init__(self, objective: Callable[..., Any]) -> None:
        self._objective = objective

    def __call__(self, params: Any, dataset: Any, *args: Any) -> Any:
        from parfit.batched.tracing.jaxify import jaxified  # all of jax.scipy, which few need

        function, args = jaxified(self._objective, args)
        return function(params, dataset, *args)


def _reason(found: list[Exception]) -> Untraceable:
    """The sentence that tells most: what differs, else what `jaxify` met, else what the trace met."""
    for exc in reversed(found):
        if isinstance(exc, Untraceable):
            return exc
    exc = found[-1]
    if (why := _IN_WORDS.get(type(exc).__name__)) is not None:
        return Untraceable(f"the objective cannot be traced: {why}")
    if "JAX arrays are immutable" in str(exc):
        return Untraceable(
            "the objective cannot be traced: it assigns into an array, and a compiled function builds it"
        )
    if "__jax_array__" in str(exc):
        return Untraceable(
            "the objective cannot be traced: a column of a group is the index into an array; jnp.take(array, column) "
            "can be compiled"
        )
    first = next((line for line in str(exc).splitlines() if line.strip()), "")
    return Untraceable(f"the objective cannot be traced: {type(exc).__name__}: {first[:200]}")


# ---- shapes


def _buckets(plan: Plan, positions: Positions, solver_for: Callable[[bool], BatchedSolver]) -> list[Bucket]:
    """Rows by what they are padded to, each with its programs; nothing is compiled yet."""
    lengths = plan.traced.feed.lengths
    if lengths is None:
        return [_bucket(plan, positions, 0, solver_for)]
    if plan.shape is not None:
        return [_bucket(plan, positions, plan.shape.length, solver_for)]
    # Of all datasets, also where only some are fitted: these have the same bits then.
    wanted = np.maximum(_LEAST_LENGTH, 2 ** np.ceil(np.log2(np.maximum(lengths, 1))).astype(int))
    wanted = np.minimum(wanted, max(int(lengths.max()), 1))
    made: list[Bucket] = []
    left = np.ones(len(lengths), dtype=bool)
    for length in sorted(set(wanted.tolist()), reverse=True):  # shorter ones join where that costs little
        chosen = left & (wanted == length)
        shorter = left & (wanted < length)
        if shorter.any() and (length - lengths[shorter]).sum() <= _PADDING:
            chosen |= shorter
        if chosen[positions].any():
            made.append(_bucket(plan, positions[chosen[positions]], length, solver_for))
        left &= ~chosen
    return made


def _bucket(plan: Plan, positions: Positions, length: int, solver_for: Callable[[bool], BatchedSolver]) -> Bucket:
    empty = Bucket(positions, length, None, -1, None)  # type: ignore[arg-type]
    rows = plan.rows(empty, positions[:1])
    double = bool(plan.dtype == np.float64)
    with precision(double):
        example = jax.tree.map(
            lambda a: jax.ShapeDtypeStruct(a.shape[1:], jax.dtypes.canonicalize_dtype(a.dtype)), rows
        )
        limit = None if plan.most_operations is None else _TRACING_S
        found = within(limit, lambda: record(_objective_of(plan.traced), _seen(example)))
    if plan.most_operations is not None and found.operations > plan.most_operations:
        raise Untraceable(
            f"the objective unrolls to {found.operations:,} operations, which would take long to compile "
            "(a loop of Python over time steps? jax.lax.scan makes it one; engine='batch' compiles it all the same)"
        )
    residuals = len(found.shape) == 1
    m = found.shape[0] if residuals else -1
    solver = solver_for(residuals)
    bounded = plan.problem.parameters.bounded if plan.shape is None else plan.shape.bounded
    numbers = max(m, 1) if residuals else max((math.prod(a.shape) for a in jax.tree.leaves(example)), default=1)
    shapes = str(jax.tree.map(lambda a: (a.shape, str(a.dtype)), example))
    width = chunk_width(numbers, plan.dtype.itemsize, loops=found.loops)
    key = (found.key, shapes, solver, bounded, double, width, jax.default_backend())
    loop = kept(key, lambda: _loop(found, solver, bounded, example, width, double))
    derivative = kept(("derivative", *key), lambda: replace(loop, extra=_jacobian))
    return Bucket(positions, length, loop, m, derivative)


def _jacobian(lane: Lane, z: Any) -> Any:
    return pushed_together(lane.objective, z)[1].T


def _loop(found: Recorded, solver: BatchedSolver, bounded: bool, example: Any, width: int, double: bool) -> Loop:
    def lane(row: Any) -> Lane:
        objective = lambda z: found.function({**_seen(row), "start": z})  # noqa: E731
        start = row["start"]
        # Backwards through a loop, all that it carries would be kept for each of its steps.
        forward = found.skips or (found.loops and len(start) <= _FORWARD)
        return Lane(start, row["lower"], row["upper"], objective, found.loops, bounded, forward)

    extra = None if solver.residuals or solver.name == "Nelder-Mead" else Lane.hessian
    return Loop(solver, lane, extra, example, width, double)


def _seen(row: dict[str, Any]) -> dict[str, Any]:
    """What the objective sees of a row."""
    return {key: value for key, value in row.items() if key not in ("lower", "upper")}


def _objective_of(traced: Traced) -> Callable[[Any], Any]:
    return lambda row: traced(row["start"], row.get("full"), row["data"])
