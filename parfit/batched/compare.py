"""Whether compiled programs give what plain calls of the objective give, on the rows most likely to tell."""

from __future__ import annotations

import itertools
import warnings
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from numpy.typing import NDArray

from parfit.batched.compiled import precision
from parfit.batched.starts import read_starts
from parfit.batched.tracing.feeds import Feed
from parfit.batched.tracing.untraceable import Untraceable
from parfit.core.data import Datasets
from parfit.core.errors import shown
from parfit.core.parameters import Parameters
from parfit.core.tasks import RowTask
from parfit.core.windows import Windows

if TYPE_CHECKING:
    from parfit.batched.plan import Bucket, Plan

__all__ = ["compare", "telling"]

Positions = NDArray[np.intp]
#: How many datasets are called plainly, to compare.
_SAMPLE = 3
#: And how many of those with odd numbers; each column is looked at where there are so few.
_MOST_ODD, _NARROW = 6, 3
#: How far apart the two values may be, relative to the larger, in units of the precision.
_ALIKE = 1e7


def compare(plan: Plan, datasets: Datasets, sample: Positions | None, rows: int) -> None:
    """Refuse an objective whose compiled value is not its plain one, on a few rows, at the start and beside it.

    Parameters
    ----------
    sample
        Which rows; None for a choice among those of the plan.
    rows
        How many rows there will be at once.
    """
    for bucket in plan.buckets:
        chosen = _sample(plan, bucket) if sample is None else bucket.positions
        read = plan.rows(bucket, chosen)
        beside = np.clip(read["start"] * 1.01 + 1e-3, read["lower"], read["upper"]).astype(read["start"].dtype)
        both = jax.tree.map(lambda a: np.concatenate([a, a]), read)
        points = np.concatenate([read["start"], beside])
        bucket.loop.compile_for(min(len(bucket.positions) if sample is None else rows, bucket.loop.most))
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
        odd = _Odd()
        odd.see(np.arange(len(positions)), plan.traced.feed.leaves(positions, 0))
        ends = np.concatenate([ends, odd.found()])
    chosen: Positions = positions[np.unique(ends)]
    return chosen


def telling(parameters: Parameters, datasets: Datasets, feed: Feed, work: Windows) -> Positions:
    """The same, of rows that are not in memory together, with a start that can be used; none where there is none."""
    odd = _Odd()
    for positions in work:
        odd.see(positions, feed.leaves(positions, 0))
    ends = [work[int(place)] for place in np.linspace(0, len(work) - 1, _SAMPLE).astype(int)]
    chosen: Positions = np.unique([*ends, *odd.found()]).astype(np.intp)
    for positions in itertools.chain([chosen], work):
        usable = np.delete(positions, list(read_starts(parameters, datasets, positions).wrong))
        if len(usable):
            return usable[: _SAMPLE + _MOST_ODD]
    return chosen


class _Odd:
    """Rows that are most likely to differ: with NaN, with the least and the greatest entry or sum of entries."""

    def __init__(self) -> None:
        self._missing: dict[tuple[int, int], int] = {}
        #: The least and the greatest so far, by array, column and side, and where.
        self._extreme: dict[tuple[int, int, int], tuple[Any, int]] = {}

    def see(self, positions: Positions, leaves: Any) -> None:
        """Look at some rows."""
        for k, leaf in enumerate(jax.tree.leaves(leaves)):
            flat = np.asarray(leaf).reshape(len(leaf), -1)
            if flat.dtype.kind not in "iuf" or not flat.size:
                continue
            with np.errstate(invalid="ignore", over="ignore"):
                columns = flat.T if flat.shape[1] <= _NARROW else flat.sum(axis=1)[None]
            for j, column in enumerate(columns):
                self._look((k, j), positions, column)

    def _look(self, key: tuple[int, int], positions: Positions, column: NDArray[Any]) -> None:
        missing = np.isnan(column)
        if missing.any():
            self._missing.setdefault(key, int(positions[missing.argmax()]))
        if missing.all():
            return
        for side, i in enumerate((int(np.nanargmin(column)), int(np.nanargmax(column)))):
            known = self._extreme.get((*key, side))
            if known is None or (column[i] > known[0] if side else column[i] < known[0]):
                self._extreme[*key, side] = column[i], int(positions[i])

    def found(self) -> Positions:
        """The positions of a handful."""
        keys = sorted({*self._missing, *((k, j) for k, j, _ in self._extreme)})
        each = [
            position
            for key in keys
            for position in (
                self._missing.get(key),
                *(self._extreme[*key, side][1] for side in (0, 1) if (*key, side) in self._extreme),
            )
            if position is not None
        ]
        return np.array(list(dict.fromkeys(each))[:_MOST_ODD], dtype=np.intp)


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
