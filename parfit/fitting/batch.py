"""Run a plan of the batched engine: its programs' ends to solutions, with what inference says of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from parfit import inference
from parfit.core.bounds import at_bound
from parfit.core.solution import Solutions, Status
from parfit.executors.cpus import worker_count

if TYPE_CHECKING:
    from parfit.batched import Bucket, Finished, Plan

__all__ = ["invalid_of", "solutions_of"]

_ORDER = tuple(Status)
FloatArray = NDArray[np.float64]


def solutions_of(plan: Plan, workers: int | None) -> Iterator[Solutions]:
    """The solutions of all rows of a plan, many at a time, as they end."""
    from parfit import batched

    yield from invalid_of(plan)
    short = {p: text for bucket in plan.buckets for p, text in _too_few(plan, bucket).items()}
    if short:
        yield _invalid(plan, short, evaluated=True)
        plan = plan.without(np.array(sorted(short)))
    yield from batched.run(plan, lambda bucket, found: _concluded(plan, bucket, found), worker_count(workers))


def invalid_of(plan: Plan) -> Iterator[Solutions]:
    """The rows of a plan whose start cannot be used; they are in none of its buckets."""
    if plan.starts.wrong:
        yield _invalid(plan, {plan.positions[i]: text for i, text in plan.starts.wrong.items()})


def _too_few(plan: Plan, bucket: Bucket) -> dict[Any, str]:
    """Rows with fewer residuals than free parameters."""
    if bucket.m < 0:
        return {}
    counts = plan.counts(bucket, bucket.positions)
    if counts.min(initial=1) >= len(plan.problem.parameters.names):
        return {}
    free = plan.free_of(bucket.positions).sum(axis=1)
    made = {}
    for i in np.flatnonzero((counts < free) | (counts == 0)).tolist():
        m = int(counts[i])
        text = f"{m} residual{'s' * (m != 1)} cannot determine {int(free[i])} free parameters"
        text = text if m else "the objective gave no residuals (an array of length 0)"
        made[bucket.positions[i]] = text + " (a scalar is returned as a number, not as an array of length 1)" * (m == 1)
    return made


def _invalid(plan: Plan, why: dict[Any, str], *, evaluated: bool = False) -> Solutions:
    """Rows that cannot be fitted: by their start, or by how many residuals they have."""
    positions = np.array(list(why), dtype=np.intp)
    k, n = len(why), len(plan.problem.parameters.names)
    nan, minus, zero = np.full(k, np.nan), np.full(k, -1), np.zeros(k, dtype=int)
    return Solutions(
        positions=positions,
        x=plan.start_of(positions) if evaluated else np.full((k, n), np.nan),
        status=np.full(k, _ORDER.index(Status.INVALID), dtype=np.int8),
        message=np.arange(k),
        messages=list(why.values()),
        cost=nan, optimality=nan, condition=nan, seconds=np.zeros(k),
        n_residuals=plan.count_of(positions) if evaluated else minus,
        nfev=zero + evaluated, njev=minus, nit=zero, rank=minus,
        at_bound=np.zeros((k, n), dtype=np.int8),
    )  # fmt: skip


def _concluded(plan: Plan, bucket: Bucket, found: Finished) -> Solutions:
    """Status, parameters and covariance of rows whose solver has ended."""
    from parfit import batched

    verdict = batched.judged(bucket.loop, found)
    state = found.state
    m = plan.counts(bucket, found.positions)
    free = plan.free_of(found.positions)
    converged = verdict.status == _ORDER.index(Status.CONVERGED)
    said = _inferred(bucket, found, m, free if plan.traced.free is None else free[:, plan.traced.free])
    x = _expanded(plan, found.positions, state.x)
    lower, upper = plan.bounds_of(found.positions)
    n = x.shape[1]
    cov = None
    rank, condition = np.full(len(x), -1), np.full(len(x), np.nan)
    if said is not None:
        stopped = np.flatnonzero(~converged & (said.rank >= 0) & np.isnan(said.condition))
        if len(stopped):
            said.condition[stopped] = inference.conditions(said.cov[stopped])
        cov = _all_parameters(plan, said.cov, n)
        cov[~converged] = np.nan
        unknown = ~np.isfinite(state.cost) | (verdict.status == _ORDER.index(Status.NONFINITE))
        rank, condition = np.where(unknown, -1, said.rank), np.where(unknown, np.nan, said.condition)
    return Solutions(
        positions=found.positions,
        x=x,
        status=verdict.status,
        message=verdict.message,
        messages=verdict.messages,
        cost=np.where(np.isfinite(state.cost), state.cost, np.nan).astype(np.float64),
        optimality=verdict.optimality,
        condition=condition,
        seconds=found.seconds,
        n_residuals=m,
        nfev=state.nfev,
        njev=state.njev,
        nit=state.nit,
        rank=rank,
        at_bound=np.where(free, at_bound(x, lower, upper), 0).astype(np.int8),
        cov=cov,
        start=plan.start_of(found.positions) if plan.problem.parameters.starts_alone else None,
    )


def _inferred(bucket: Bucket, found: Finished, m: NDArray[Any], free: NDArray[np.bool_]) -> inference.Inferences | None:
    """Covariance, rank and condition: from the normal equations where they are exact enough, else from Jacobians."""
    state = found.state
    cost = state.cost.astype(np.float64)
    if bucket.m < 0:
        return None if found.extra is None else inference.from_hessians(found.extra.astype(np.float64), free)
    if state.A is not None:
        double = bucket.loop.double
        said = inference.from_normal(state.A.astype(np.float64), cost, m, free, has_jacobians=double)
        asked = np.flatnonzero(said.doubtful & double)
    else:
        said, asked = None, np.arange(len(m))
    if not len(asked):
        return said
    again = inference.from_jacobians(
        bucket.jacobians(found.rows(asked), state.x[asked]), cost[asked], m[asked], free[asked]
    )
    if said is None:
        return again
    said.put(asked, again)
    return said


def _expanded(plan: Plan, positions: NDArray[np.intp], z: NDArray[Any]) -> FloatArray:
    """All parameters, where the free ones are `z`."""
    if plan.traced.free is None:
        return z.astype(np.float64)
    x = plan.start_of(positions).copy()
    x[:, plan.traced.free] = z
    return x


def _all_parameters(plan: Plan, cov: FloatArray, n: int) -> FloatArray:
    """Upper triangles of the covariances of all parameters, from those of the free ones."""
    free = plan.traced.free
    if free is None:
        return cov
    where = np.zeros((n, n), dtype=np.intp)
    rows, columns = np.triu_indices(n)
    where[rows, columns] = np.arange(len(rows))
    inner_rows, inner_columns = np.triu_indices(len(free))
    made = np.zeros((len(cov), len(rows)))
    made[:, where[free[inner_rows], free[inner_columns]]] = cov
    return made
