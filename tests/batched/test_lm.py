"""Levenberg-Marquardt against SciPy's, with the same Jacobians and tolerances, and against NIST's certified values."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import least_squares

import parfit
from tests.nist import NIST_ALL

pytest.importorskip("jax", reason="the batched engine needs jax")
import jax
import jax.numpy as jnp

from parfit.batched.ends import End
from tests.batched.grouped import CASES, SIZES, TOLERANCE, Case, group

#: A cost that is so much higher than SciPy's, relative to it, is as good; and one this small, relative to the start's.
RTOL, ZERO = 1e-10, 1e-28
#: Where the cost may be higher, by how much, relative to SciPy's, and why.
LOOSER = {
    ("watson-12", "free"): (1e-8, "rounding errors: the normal equations have a condition of 1e16"),
    ("watson-12", "inactive"): (1e-8, "rounding errors: the normal equations have a condition of 1e16"),
    ("watson-12", "active"): (0.02, "rounding errors: the normal equations have a condition of 1e16"),
    ("powell-badly-scaled", "active"): (
        0.01,
        "along a curved valley of ratio 1e10 it ends at the limit of evaluations",
    ),
    ("bard", "active"): (1e-5, "the minimum is at infinity, and both end at the limit of evaluations"),
    ("Lanczos1", "active"): (0.02, "there are two minima, and SciPy's path leads to the other one"),
}


class Ended(NamedTuple):
    """A row of ours and of SciPy's."""

    bounds: tuple[Any, Any]
    x: Any
    cost: float
    start_cost: float
    end: int
    nfev: int
    wanted: float


def referee(case: Case, start: Any, lower: Any, upper: Any) -> Any:
    values, jacobian = group(size_of(case)).of(case)
    free = not (np.isfinite(lower).any() or np.isfinite(upper).any()) and case.m >= case.n
    same = dict.fromkeys(("ftol", "xtol", "gtol"), TOLERANCE)
    with np.errstate(all="ignore"):
        return least_squares(
            values, start, jacobian, (lower, upper), "lm" if free else "trf", x_scale="jac", max_nfev=1000, **same
        )


def size_of(case: Case) -> int:
    return min(size for size in SIZES if size >= case.n)


def boxes(case: Case, start: Any, x: Any) -> dict[str, tuple[Any, Any]]:
    """Bounds by what they do: nothing; stand far off; cut off every other parameter halfway to the solution."""
    none = np.full(case.n, np.inf)
    far = 10 * (1 + np.abs(start) + np.abs(x))
    half = start + (x - start) / 2
    cut = np.arange(case.n) % 2 == 0
    return {
        "free": (-none, none),
        "inactive": (np.minimum(start, x) - far, np.maximum(start, x) + far),
        "active": (np.where((x < start) & cut, half, -none), np.where((x > start) & cut, half, none)),
    }


@functools.cache
def ended(size: int) -> dict[tuple[str, str], list[Ended]]:
    """How the problems that are padded to `size` parameters end: (problem, kind of bounds) -> from each start."""
    rows, names, wanted = [], [], []
    for case in group(size).cases:
        for start in map(np.array, case.starts):
            none = np.full(case.n, np.inf)
            first = referee(case, start, -none, none)
            for kind, bounds in boxes(case, start, first.x).items():
                rows.append((case, start, *bounds))
                names.append((case.name, kind))
                wanted.append(first.cost if kind == "free" else referee(case, start, *bounds).cost)
    state = group(size).solved(rows)
    found: dict[tuple[str, str], list[Ended]] = {}
    for i, (name, row) in enumerate(zip(names, rows, strict=True)):
        numbers = (state.cost[i], state.start_cost[i], state.end[i], state.nfev[i], wanted[i])
        found.setdefault(name, []).append(Ended(row[2:], state.x[i, : row[0].n], *numbers))
    return found


@pytest.mark.parametrize("kind", ["free", "inactive", "active"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_cost_is_scipys_or_lower(case: Case, kind: str) -> None:
    rtol, _ = LOOSER.get((case.name, kind), (RTOL, ""))
    for row in ended(size_of(case))[case.name, kind]:
        assert row.cost <= (1 + rtol) * row.wanted + ZERO * row.start_cost
        lower, upper = row.bounds
        assert ((lower <= row.x) & (row.x <= upper)).all()
        assert End.RUNNING < row.end <= End.LIMIT or row.end == End.EXACT
        assert row.nfev <= 100 * (size_of(case) + 1)


def test_every_exception_is_needed() -> None:
    """What has become as good as SciPy's loses its place in the table."""
    by_name = {case.name: case for case in CASES}
    for (name, kind), (_, reason) in LOOSER.items():
        if reason.startswith("rounding errors"):
            continue  # which differ with the processor
        rows = ended(size_of(by_name[name]))[name, kind]
        assert any(row.cost > (1 + RTOL) * row.wanted + ZERO * row.start_cost for row in rows), (name, kind)


# ---- NIST


#: Relative tolerances of cost, parameters and standard errors.
CERTIFIED = dict.fromkeys([r.name for r in NIST_ALL], (1e-9, 1e-6, 1e-5)) | {
    # Its residuals are near the rounding errors of double precision.
    "Lanczos1": (5e-3, 1e-6, 5e-3),
}


def of_many(models: list[Any]) -> Any:
    """The residuals of a dataset that says which of the models is its own."""
    curves = [lambda b, x, m=model: m(b, x, jnp) for model in models]

    def residuals(b: Any, dataset: Any) -> Any:
        def at_point(point: Any) -> Any:
            return jax.lax.switch(dataset["which"], curves, b.to_numpy(), point[0]) - point[1]

        return jax.lax.map(at_point, (dataset["x"], dataset["y"]))

    return residuals


def _at_number(regression: Any) -> Any:
    """The model of the predictors with a number."""
    return lambda b, i, xp: regression.model(b, xp.asarray(regression.x)[:, xp.asarray(i, int)], xp)


@functools.cache
def certified_fits(least: int, most: int) -> tuple[list[Any], parfit.Fits]:
    """Regressions of `least` to `most` parameters, one dataset for each start; bounds hold those that others lack."""
    chosen = [r for r in NIST_ALL if least <= len(r.certified) <= most]
    data, starts, names = [], [], []
    for k, r in enumerate(chosen):
        x = r.x if r.name != "Nelson" else np.arange(len(r.y))  # which has two predictors
        for start in r.starts:
            data.append({"which": k, "x": x, "y": r.y})
            starts.append(np.pad(np.array(start), (0, most - len(start)), constant_values=np.nan))
            names.append(r)
    free = np.isfinite(starts)
    start, upper = (pd.DataFrame(values) for values in (np.nan_to_num(starts), np.where(free, np.inf, 0.0)))
    residuals = of_many([_at_number(r) if r.name == "Nelson" else r.model for r in chosen])
    tight = {"ftol": 1e-14, "xtol": 1e-14, "gtol": 1e-14, "max_nfev": 5000}
    return names, parfit.fit(data, residuals, start, bounds=(-upper, upper), engine="batch", options=tight)


@pytest.mark.parametrize("regression", NIST_ALL, ids=str)
def test_nists_certified_values(regression: Any) -> None:
    n = len(regression.certified)
    names, fits = certified_fits(*((2, 5) if n <= 5 else (6, 9)))
    cost, x, stderr = CERTIFIED[regression.name]
    rows = [i for i, r in enumerate(names) if r is regression]
    assert len(rows) == 2
    for row in map(fits.row, rows):
        assert row.success, row.message
        np.testing.assert_allclose(2 * row.cost, regression.ssr, rtol=cost)
        np.testing.assert_allclose(row.x[:n], regression.certified, rtol=x)
        np.testing.assert_allclose(row.stderr[:n], regression.stderr, rtol=stderr)
        assert (row.n_residuals, row.rank) == (len(regression.y), n)
        assert (row.stderr[n:] == 0).all()
