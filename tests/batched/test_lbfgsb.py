"""L-BFGS-B against SciPy's, with the same gradients and tolerances; and where the objective is not kind."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

pytest.importorskip("jax", reason="the batched engine needs jax, which a plain install has not")

import jax
import jax.numpy as jnp

from parfit.batched.compiled import precision
from parfit.batched.ends import End
from parfit.batched.lane import Lane
from parfit.batched.lbfgsb import LBFGSB
from tests.batched.solving import INF, TIGHT, at, ends, judge, solved
from tests.mgh import MGH, Problem

pytestmark = pytest.mark.usefixtures("quickly_compiled")

Array = np.ndarray
#: A cost so much higher than SciPy's is as good; relative to it, and, as `ftol` is where costs are below 1, absolute.
RTOL, ATOL = 1e-10, 1e-14


# ---- the problems of Moré, Garbow and Hillstrom

SIZES = (4, 12)
#: Where the cost may be higher, by how much, relative to SciPy's, and why.
LOOSER = {
    ("watson-9", "free"): (1e-6, "a valley of condition 1e10, along which both creep until a step gains too little"),
    ("watson-12", "free"): (50, "a valley of condition 1e16, along which both creep until a step gains too little"),
    ("watson-12", "active"): (50, "a valley of condition 1e16, along which both creep until a step gains too little"),
    ("penalty-2-10", "free"): (1e-5, "a curved valley, along which both creep until a step gains too little"),
    ("biggs", "active"): (1e-2, "a valley without curvature, along which both creep until a step gains too little"),
    ("powell-badly-scaled", "active"): (1, "a curved valley of ratio 1e10, in which rounding errors decide"),
    ("chebyquad-10", "active"): (0.1, "there are two minima, and SciPy's path leads to the other one"),
}


@functools.cache
def problems(size: int) -> tuple[Problem, ...]:
    least = max((other for other in SIZES if other < size), default=0)
    return tuple(p for p in MGH if least < len(p.start) <= size)


def half_squares(size: int) -> Callable[[Any, Any], Any]:
    """The cost of the problem with the number `which`; parameters beyond its own play no part."""
    return lambda z, which: jax.lax.switch(
        which, [lambda z, p=p: 0.5 * jnp.sum(p.residuals(z[: len(p.start)], jnp) ** 2) for p in problems(size)], z
    )


@functools.cache
def of_mgh(size: int) -> dict[tuple[str, str], tuple[Any, ...]]:
    """How the problems end: (problem, kind of bounds) -> x, cost, nfev, bounds, what SciPy found."""
    both = jax.jit(jax.value_and_grad(half_squares(size)))
    rows, names, wanted = [], [], []
    for which, p in enumerate(problems(size)):
        n = len(p.start)
        start = np.pad(np.array(p.start), (0, size - n))

        def values(z: Array, which: int = which, n: int = n) -> tuple[float, Array]:
            with precision(True):
                cost, g = both(np.pad(z, (0, size - n)), which)
            return float(cost), np.asarray(g)[:n]

        infinite = np.full(n, INF)
        first = judge(values, start[:n], maxcor=10)
        half = start[:n] + (first.x - start[:n]) / 2
        cut = np.arange(n) % 2 == 0
        down, up = (first.x < start[:n]) & cut, (first.x > start[:n]) & cut
        active = np.where(down, half, -infinite), np.where(up, half, infinite)
        for kind, (lower, upper) in {"free": (-infinite, infinite), "active": active}.items():
            names.append((p.name, kind))
            rows.append([start, *(np.pad(bound, (0, size - n)) for bound in (lower, upper)), which])
            wanted.append(first if kind == "free" else judge(values, start[:n], lower, upper))
    start, lower, upper, which = (np.array(part) for part in zip(*rows, strict=True))
    state = solved(LBFGSB(**TIGHT), half_squares(size), start, lower, upper, which.astype(np.int32))
    assert (state.x[start == lower] == start[start == lower]).all()
    numbers = (state.x, state.cost, state.nfev, lower, upper, wanted)
    return dict(zip(names, zip(*numbers, strict=True), strict=True))


def size_of(problem: Problem) -> int:
    return min(size for size in SIZES if size >= len(problem.start))


@pytest.mark.parametrize("kind", ["free", "active"])
@pytest.mark.parametrize("problem", MGH, ids=str)
def test_the_cost_is_scipys_or_lower(problem: Problem, kind: str) -> None:
    x, cost, _, lower, upper, wanted = of_mgh(size_of(problem))[problem.name, kind]
    rtol, _ = LOOSER.get((problem.name, kind), (RTOL, ""))
    assert cost <= (1 + rtol) * wanted.fun + ATOL
    assert ((lower <= x) & (x <= upper)).all()


@pytest.mark.parametrize("kind", ["free", "active"])
def test_as_many_evaluations_as_scipy(kind: str) -> None:
    ratios = [
        np.log(row[2] / row[-1].nfev)
        for size in SIZES
        for (_, of_kind), row in of_mgh(size).items()
        if of_kind == kind and abs(row[1] - row[-1].fun) <= 1e-6 * row[-1].fun + 1e-10  # they end at the same minimum
    ]
    assert np.exp(np.mean(ratios)) < 1.1


# ---- likelihoods: many rows

POINTS, ROWS, SOME = 50, 500, 100


@functools.cache
def likelihoods() -> tuple[Array, Array]:
    """The predictors of a logistic regression, shape (50, 4), and the outcomes of each row, shape (500, 50)."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(POINTS, 4))
    chance = 1 / (1 + np.exp(-rng.normal(size=(ROWS, 4)) @ X.T))
    return X, (rng.random((ROWS, POINTS)) < chance).astype(float)


def logistic(z: Any, y: Any) -> Any:
    """The negative logarithm of the likelihood, with a weak prior that keeps separated rows finite."""
    eta = jnp.asarray(likelihoods()[0], z.dtype) @ z
    return jnp.sum(jnp.logaddexp(0, eta) - y * eta) + 0.05 * jnp.sum(z**2)


def judged_rows(start: Array, lower: Array, upper: Array, y: Array) -> tuple[Array, Array]:
    """SciPy's costs and evaluations; it is given the free parameters only."""
    X, found = likelihoods()[0], []
    for row in range(len(y)):
        full, free = start[row].copy(), lower[row] < upper[row]

        def values(z: Array, full: Array = full, free: Array = free, y: Array = y[row]) -> tuple[float, Array]:
            full[free] = z
            eta = X @ full
            g = X.T @ (1 / (1 + np.exp(-eta)) - y) + 0.1 * full
            return float(np.sum(np.logaddexp(0, eta) - y * eta) + 0.05 * full @ full), g[free]

        r = judge(values, full[free].copy(), lower[row][free], upper[row][free])
        found.append((r.fun, r.nfev))
    return tuple(np.array(found).T)  # type: ignore[return-value]


def kinds_of_bounds() -> dict[str, tuple[Array, Array, Array, Array]]:
    """Start, lower, upper and outcomes of rows, by what their bounds do."""
    rng, y = np.random.default_rng(1), likelihoods()[1]
    none, start = np.full((ROWS, 4), INF), rng.normal(size=(ROWS, 4))
    low, high = np.full((SOME, 4), -0.7), np.full((SOME, 4), 0.5)
    fixed = rng.random((SOME, 4)) < 0.4
    fixed[:, 0] = False
    few = start[:SOME]
    return {
        "none": (start, -none, none, y),
        "far": (few, few - 50, few + 50, y[:SOME]),
        "active": (np.clip(few, low, high), low, high, y[:SOME]),
        "one side": (np.maximum(few, low), low, none[:SOME], y[:SOME]),
        "start on a bound": (np.where(few > 0, low, high), low, high, y[:SOME]),
        "fixed": (few, np.where(fixed, few, -INF), np.where(fixed, few, INF), y[:SOME]),
        "fixed in a box": (
            np.clip(few, low, high),
            np.where(fixed, np.clip(few, low, high), low),
            np.where(fixed, np.clip(few, low, high), high),
            y[:SOME],
        ),
    }


@functools.cache
def with_bounds() -> dict[str, Any]:
    kinds = kinds_of_bounds()
    state = solved(LBFGSB(**TIGHT), logistic, *(np.concatenate(part) for part in zip(*kinds.values(), strict=True)))
    last = np.cumsum([len(part[0]) for part in kinds.values()])
    return {kind: at(state, slice(b - len(kinds[kind][0]), b)) for kind, b in zip(kinds, last, strict=True)}


@pytest.mark.parametrize("kind", kinds_of_bounds())
def test_likelihoods(kind: str) -> None:
    start, lower, upper, y = kinds_of_bounds()[kind]
    state = with_bounds()[kind]
    cost, nfev = judged_rows(start, lower, upper, y)
    assert (state.cost <= (1 + 1e-10) * cost).all()
    assert state.nfev.sum() <= 1.1 * nfev.sum()
    assert ((lower <= state.x) & (state.x <= upper)).all()
    assert set(ends(state)) <= {End.GRADIENT, End.COST}
    assert (state.njev == state.nfev).all()
    if kind in ("none", "far"):
        assert (np.abs(state.g).max(axis=1) < 1e-6).all()


def test_without_bounds_in_the_program() -> None:
    """The same answers as with bounds that are infinite."""
    start, _, _, y = kinds_of_bounds()["none"]
    state, other = solved(LBFGSB(**TIGHT), logistic, start, data=y, bounded=False), with_bounds()["none"]
    np.testing.assert_allclose(state.cost, other.cost, rtol=1e-13)
    np.testing.assert_allclose(state.x, other.x, atol=1e-7)
    assert abs(state.nfev.mean() / other.nfev.mean() - 1) < 0.05


def test_single_precision() -> None:
    start, lower, upper, y = (part[:SOME] for part in kinds_of_bounds()["active"])
    state = solved(LBFGSB(), logistic, start, lower, upper, y, dtype=np.float32)
    assert {state.x.dtype, state.cost.dtype, state.g.dtype} == {np.dtype(np.float32)}
    np.testing.assert_allclose(state.cost, with_bounds()["active"].cost, rtol=2e-6)
    assert set(ends(state)) <= {End.GRADIENT, End.COST}


# ---- ten parameters: Rosenbrock's valley, and quadratics of condition 1e6

TEN = 10


def valley_or_bowl(z: Any, d: Any) -> Any:
    """Rosenbrock's function, where the data are zeros; otherwise a quadratic above 1."""
    r = z - d[:TEN]
    bowl = 1 + 0.5 * r @ d[TEN:].reshape(TEN, TEN) @ r
    return jnp.where(jnp.any(d != 0), bowl, jnp.sum(100 * (z[1:] - z[:-1] ** 2) ** 2 + (1 - z[:-1]) ** 2))


def gradient_of(z: Array, d: Array) -> tuple[float, Array]:
    if d.any():
        r, A = z - d[:TEN], d[TEN:].reshape(TEN, TEN)
        return 1 + 0.5 * r @ A @ r, A @ r
    slack, g = z[1:] - z[:-1] ** 2, np.zeros(TEN)
    g[1:] = 200 * slack
    g[:-1] -= 400 * slack * z[:-1] + 2 * (1 - z[:-1])
    return float(np.sum(100 * slack**2 + (1 - z[:-1]) ** 2)), g


def ten() -> tuple[Array, Array, Array, Array]:
    """Start, lower, upper and data of 20 quadratics and 20 valleys without bounds, and of as many with some."""
    rng = np.random.default_rng(2)
    Q, _ = np.linalg.qr(rng.normal(size=(20, TEN, TEN)))
    scale = np.geomspace(1, 1e6, TEN)
    bowls = np.hstack([rng.normal(size=(20, TEN)), (Q @ (scale[:, None] * Q.transpose(0, 2, 1))).reshape(20, -1)])
    data = np.vstack([bowls, np.zeros_like(bowls)] * 2)
    none, center = np.full((40, TEN), INF), rng.normal(size=(40, TEN))
    lower, upper = np.vstack([-none, center - 1]), np.vstack([none, center + 1])
    return np.clip(rng.normal(size=(80, TEN)), lower, upper), lower, upper, data


@pytest.mark.slow
def test_ten_parameters() -> None:
    start, lower, upper, data = ten()
    state = solved(LBFGSB(**TIGHT), valley_or_bowl, start, lower, upper, data)
    assert set(ends(state)) <= {End.GRADIENT, End.COST, End.NO_DESCENT}
    wanted = [
        judge(functools.partial(gradient_of, d=d), x, lo, hi)
        for x, lo, hi, d in zip(start, lower, upper, data, strict=True)
    ]
    cost, nfev = np.array([(r.fun, r.nfev) for r in wanted]).T
    bowls = data.any(axis=1)
    assert (state.cost[bowls] <= (1 + 1e-10) * cost[bowls]).all()
    assert state.nfev.sum() <= 1.2 * nfev.sum()
    # Valleys end in a dead end now and then, ours as SciPy's: the rest of the gradient is what bounds hold back.
    step = np.clip(state.x - state.g, lower, upper) - state.x
    assert np.abs(step[~bowls]).max() < 1e-5
    assert (state.cost[40:][~bowls[40:]] <= cost[40:][~bowls[40:]] * (1 + 1e-8) + 1e-12).mean() > 0.7


# ---- objectives that are not kind


ODD: dict[str, tuple[Callable[[Any], Any], Sequence[float]]] = {
    "valley": (lambda z: 100 * (z[1] - z[0] ** 2) ** 2 + (1 - z[0]) ** 2, (-1.2, 1.0)),
    "logarithm": (lambda z: z[0] - jnp.log(z[0]) + (z[1] - 1) ** 2, (100.0, 3.0)),
    "near the wall": (lambda z: z[0] - 1e-3 * jnp.log(z[0]) + z[1] ** 2, (5.0, 1.0)),
    "beyond the wall": (lambda z: jnp.where(z[0] > 1, jnp.nan, (z[0] - 2) ** 2 + z[1] ** 2), (0.0, 1.0)),
    "to minus infinity at once": (lambda z: jnp.log(z[0]) + z[1] ** 2, (1.0, 1.0)),
    "exponential": (lambda z: z[1] ** 2 - jnp.exp(z[0]), (0.0, 1.0)),
    "saddle": (lambda z: z[1] ** 2 - z[0] ** 2, (1.0, 1.0)),
    "slope": (lambda z: z[1] ** 2 - z[0], (0.0, 1.0)),
    "flat": (lambda z: 0 * z[0] + 3, (1.0, 1.0)),
    "NaN at the start": (lambda z: jnp.log(z[0]), (-1.0, 1.0)),
    "infinite gradient": (lambda z: jnp.sqrt(z[0]) + z[1] ** 2, (0.0, 1.0)),
    "kink": (lambda z: jnp.abs(z[0] - 0.3) + z[1] ** 2, (1.0, 1.0)),
    "high up": (lambda z: 1e6 + (z[0] - 3) ** 2 + (z[1] + 1) ** 4, (1.0, 1.0)),
    "beyond overflow": (lambda z: jnp.exp(z[0] ** 2) + z[1] ** 2, (20.0, 1.0)),
}


@functools.cache
def odd(dtype: Any = np.float64) -> dict[str, Any]:
    def cost(z: Any, which: Any) -> Any:
        return jax.lax.switch(which, [f for f, _ in ODD.values()], z)

    starts = [start for _, start in ODD.values()]
    state = solved(LBFGSB(maxfun=1000), cost, starts, data=np.arange(len(ODD), dtype=np.int32), dtype=dtype)
    return {name: at(state, i) for i, name in enumerate(ODD)}


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize(
    ("name", "x", "tolerance"),
    [
        ("valley", (1, 1), 5e-3),
        ("logarithm", (1, 1), 1e-3),
        ("near the wall", (1e-3, 0), 1e-3),
        ("high up", (3, -1), 0.3),
        ("kink", (0.3, 0), 1e-2),
    ],
)
def test_odd_minima_are_found(name: str, x: tuple[float, float], tolerance: float, dtype: Any) -> None:
    state = odd(dtype)[name]
    if (name, dtype) != ("high up", np.float32):  # where the last digit of the cost is worth a step of 0.3
        np.testing.assert_allclose(state.x, x, atol=tolerance)
    assert End(state.end) in (End.GRADIENT, End.COST) or name == "kink"


@pytest.mark.parametrize(
    "name", ["beyond the wall", "to minus infinity at once", "exponential", "saddle", "slope", "beyond overflow"]
)
def test_what_has_no_minimum_has_not_converged(name: str) -> None:
    state = odd()[name]
    if name == "beyond overflow":
        assert np.isfinite(state.cost)
        assert state.cost < state.start_cost
    else:
        assert End(state.end) in (End.LIMIT, End.NO_DESCENT)
        assert np.isfinite(state.x).all()
        assert np.isfinite(state.cost)
        assert state.cost < state.start_cost


def test_beside_a_wall_it_says_so() -> None:
    assert odd()["beyond the wall"].nonfinite > 0
    assert odd()["logarithm"].nonfinite == 0


def test_flat() -> None:
    state = odd()["flat"]
    assert (End(state.end), state.nfev, state.nit) == (End.GRADIENT, 1, 0)
    assert state.x.tolist() == [1, 1]


@pytest.mark.parametrize("name", ["NaN at the start", "infinite gradient"])
def test_a_start_that_is_not_finite(name: str) -> None:
    state = odd()[name]
    assert (End(state.end), state.nfev, state.nit, state.nonfinite) == (End.NONFINITE_START, 1, 0, 1)
    assert state.x.tolist() == list(ODD[name][1])


# ---- options


def valley(z: Any, _: Any) -> Any:
    return jnp.stack([10 * (z[1] - z[0] ** 2), 1 - z[0]])


@pytest.mark.parametrize(
    ("options", "nit", "nfev"), [({"maxiter": 3}, 3, None), ({"maxfun": 7}, None, 8), ({"maxiter": 0}, 0, 1)]
)
def test_limits(options: dict[str, int], nit: int | None, nfev: int | None) -> None:
    """Residuals are taken as half their sum of squares; what is found at the limit is the best so far."""
    state = at(solved(LBFGSB(**options), valley, [-1.2, 1.0]), 0)
    assert End(state.end) is End.LIMIT
    assert nit is None or state.nit == nit
    assert nfev is None or nfev <= state.nfev < nfev + 20
    np.testing.assert_allclose(state.start_cost, 0.5 * 24.2)
    np.testing.assert_allclose(state.cost, 0.5 * np.sum(np.asarray(valley(state.x, None)) ** 2), rtol=1e-6)


@pytest.mark.slow
def test_few_pairs_are_enough() -> None:
    """As many pairs are kept as are of use, or are asked for."""
    lane = Lane(jnp.zeros(2), jnp.zeros(2), jnp.zeros(2), lambda z: z[0])
    assert LBFGSB().init(lane).S.shape == (6, 2)
    assert LBFGSB(maxcor=3).init(lane).S.shape == (3, 2)
    state = at(solved(LBFGSB(maxcor=1, **TIGHT), valley, [-1.2, 1.0]), 0)
    assert End(state.end) in (End.GRADIENT, End.COST)
    np.testing.assert_allclose(state.x, 1, atol=1e-6)
