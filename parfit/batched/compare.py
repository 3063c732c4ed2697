"""Whether compiled programs give what plain calls of the objective give, on the rows most likely to tell."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from numpy.typing import NDArray

from parfit.batched.compiled import precision
from parfit.batched.tracing.untraceable import Untraceable
from parfit.core.data import Datasets
from parfit.core.errors import shown
from parfit.core.problem import RowTask

if TYPE_CHECKING:
    from parfit.batched.plan import Bucket, Plan

__all__ = ["compare"]

Positions = NDArray[np.intp]
#: How many datasets are called plainly, to compare.
_SAMPLE = 3
#: And how many of those with odd numbers; each column is looked at where there are so few.
_MOST_ODD, _NARROW = 6, 3
#: How far apart the two values may be, relative to the larger, in units of the precision.
_ALIKE = 1e7


def compare(plan: Plan, datasets: Datasets) -> None:
    """Refuse an objective whose compiled value is not its plain one, on a few rows, at the start and beside it."""
    for bucket in plan.buckets:
        chosen = _sample(plan, bucket)
        rows = plan.rows(bucket, chosen)
        beside = np.clip(rows["start"] * 1.01 + 1e-3, rows["lower"], rows["upper"]).astype(rows["start"].dtype)
        both = jax.tree.map(lambda a: np.concatenate([a, a]), rows)
        points = np.concatenate([rows["start"], beside])
        bucket.loop.compile_for(min(len(bucket.positions), bucket.loop.most))
        found = bucket.loop.costs(both, points)
        calls = [_plain(plan, datasets, p, z) for p, z in zip([*chosen, *chosen], points, strict=True)]
        plain = np.array([cost for cost, _ in calls])
        counts = np.tile(plan.counts(bucket, chosen), 2)
        if (wrong := np.flatnonzero(counts != [m for _, m in calls])).size:
            i = int(wrong[0])
            label = shown(datasets.labels[chosen[i % len(chosen)]])
            raise Untraceable(
                f"the objective gives {calls[i][1]} residuals for dataset {label}, and {counts[i]} compiled, since "
                "datasets of unequal length are padded: give one for each entry"
            )
        eps = float(np.finfo(plan.dtype).eps) * _ALIKE
        slack = eps * np.maximum(np.abs(plain), np.abs(found))
        slack += 1e-4 * eps * np.nanmax(np.abs(plain), initial=0.0)
        with np.errstate(invalid="ignore"):
            alike = (np.abs(plain - found) <= slack) | (plain == found) | ~(np.isfinite(plain) | np.isfinite(found))
        if not alike.all():
            i = int(np.argmin(alike))
            label = shown(datasets.labels[chosen[i % len(chosen)]])
            raise Untraceable(
                f"compiled, the objective gives another value for dataset {label}: cost {found[i]:.9g}, "
                f"and {plain[i]:.9g} as Python" + (", padded to the length of other datasets" if bucket.length else "")
            )


def _sample(plan: Plan, bucket: Bucket) -> Positions:
    """A few rows: the first, the last, one between; of unequal lengths the shortest and the longest."""
    positions, lengths = bucket.positions, plan.traced.feed.lengths
    ends = np.linspace(0, len(positions) - 1, _SAMPLE).astype(int)
    if lengths is not None:
        own = lengths[positions]
        ends = np.array([0, int(own.argmin()), int(own.argmax())])
    else:
        ends = np.concatenate([ends, _odd(plan.traced.feed.leaves(positions, 0))])
    chosen: Positions = positions[np.unique(ends)]
    return chosen


def _odd(leaves: Any) -> NDArray[np.intp]:
    """Rows that are most likely to differ: with NaN, with the least and the greatest entry or sum of entries."""
    found: list[int] = []
    for leaf in jax.tree.leaves(leaves):
        flat = np.asarray(leaf).reshape(len(leaf), -1)
        if flat.dtype.kind not in "iuf" or not flat.size:
            continue
        with np.errstate(invalid="ignore", over="ignore"):
            columns = flat.T if flat.shape[1] <= _NARROW else flat.sum(axis=1)[None]
        for column in columns:
            missing = np.isnan(column)
            found += [int(missing.argmax())] if missing.any() else []
            if not missing.all():
                found += [int(np.nanargmin(column)), int(np.nanargmax(column))]
    return np.array(list(dict.fromkeys(found))[:_MOST_ODD], dtype=np.intp)


def _plain(plan: Plan, datasets: Datasets, position: int, z: NDArray[Any]) -> tuple[float, int]:
    """The cost by a plain call of the objective, and the number of residuals; -1 for a scalar."""
    problem = plan.problem
    x = plan.starts.start[np.searchsorted(plan.positions, position)].copy()
    x[slice(None) if plan.traced.free is None else plan.traced.free] = z
    lower, upper = np.full(len(x), -np.inf), np.full(len(x), np.inf)
    with precision(plan.dtype == np.float64):
        parameters = replace(problem.parameters.common(), start_of=None, bounds_of=None)
        bound = replace(problem, seed=None, parameters=parameters).bind(
            RowTask(int(position), datasets.one(int(position)), x, lower, upper)
        )
        try:
            with warnings.catch_warnings(), np.errstate(all="ignore"):
                warnings.simplefilter("ignore")
                cost = float(bound.start_cost)
                return cost, -1 if bound.n_residuals is None else bound.n_residuals
        except Exception as exc:
            label = shown(datasets.labels[position])
            raise Untraceable(f"the objective raises {type(exc).__name__} for dataset {label}: {exc}") from exc
