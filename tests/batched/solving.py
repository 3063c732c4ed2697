"""Rows through L-BFGS-B, and what SciPy's makes of the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from scipy.optimize import minimize

from parfit.batched.blocks import Block, Finished
from parfit.batched.ends import End
from parfit.batched.lane import Lane
from parfit.batched.lbfgsb import LBFGSB
from parfit.batched.loop import Loop

TIGHT = {"ftol": 1e-15, "gtol": 1e-9, "maxfun": 1000}
INF = np.inf


def solved(
    solver: LBFGSB,
    cost: Callable[[Any, Any], Any],
    start: Any,
    lower: Any = -INF,
    upper: Any = INF,
    data: Any = 0.0,
    *,
    dtype: Any = np.float64,
    bounded: bool = True,
) -> Any:
    """The states in which rows end; `cost` takes parameters and data."""
    start = np.atleast_2d(np.asarray(start, dtype))
    full = [np.broadcast_to(np.asarray(a, dtype), start.shape).copy() for a in (lower, upper)]
    data = np.asarray(data) if np.ndim(data) else np.zeros(len(start))
    data = data.astype(dtype) if data.dtype.kind == "f" else data
    rows = {"start": start, "lower": full[0], "upper": full[1], "data": data}
    example = {k: jax.ShapeDtypeStruct(a.shape[1:], a.dtype) for k, a in rows.items()}

    def lane(row: Any) -> Lane:
        return Lane(row["start"], row["lower"], row["upper"], lambda z: cost(z, row["data"]), bounded=bounded)

    loop = Loop(solver, lane, None, example, 64, dtype is np.float64)
    parts = list(loop.run(Block(np.arange(len(start)), rows, None), lambda: False, lambda left: False))
    finished = [part for part in parts if isinstance(part, Finished)]
    order = np.argsort(np.concatenate([part.positions for part in finished]))
    state = jax.tree.map(lambda *each: np.concatenate(each), *[part.state for part in finished])
    return at(state, order)


def at(state: Any, chosen: Any) -> Any:
    return jax.tree.map(lambda a: a[chosen], state)


def ends(state: Any) -> list[End]:
    return [End(end) for end in state.end.tolist()]


def judge(values: Any, start: Any, lower: Any = -INF, upper: Any = INF, **options: Any) -> Any:
    """What SciPy makes of costs with their gradients."""
    bounds = list(zip(*(np.broadcast_to(a, np.shape(start)) for a in (lower, upper)), strict=True))
    with np.errstate(all="ignore"):
        return minimize(values, start, jac=True, method="L-BFGS-B", bounds=bounds, options={**TIGHT, **options})
