"""L-BFGS-B for one row: quasi-Newton steps of limited memory in a box, one evaluation a step.

The method, its constants and its tests for the end are those of R. H. Byrd, P. Lu, J. Nocedal, C. Zhu (A limited memory
algorithm for bound constrained optimization, SIAM Journal on Scientific Computing 16, 1995, 1190-1208): the inverse
Hessian by the two-loop recursion (J. Nocedal, S. J. Wright, Numerical Optimization, Springer 2006, algorithm 7.4), and
the line search of J. J. Moré and D. J. Thuente (Line search algorithms with guaranteed sufficient decrease, ACM
Transactions on Mathematical Software 20, 1994, 286-307). Where rounding errors hide a fall, slopes decide (W. W. Hager,
H. Zhang, SIAM Journal on Optimization 16, 2005, 170-192).

Bounds differ. Which parameters end at one is found not by a Cauchy point but by a few rounds of the primal-dual active
set strategy on the quadratic model (M. Hintermüller, K. Ito, K. Kunisch, SIAM Journal on Optimization 13, 2002,
865-888), from those at a bound whose gradient points outside; the search is between `x` and the point so found.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from parfit.batched.ends import End
from parfit.batched.lane import Lane
from parfit.batched.linalg import epsilon, factor
from parfit.core.protocols import BatchedSolver

__all__ = ["LBFGSB", "LBFGSBState"]

#: The conditions of Wolfe, how narrow a bracket is given up, and the longest step, as in the authors' program.
_FALL = 1e-3
_CURVATURE = 0.9
_NARROW = 0.1
_LONGEST = 1e10
#: How much of a step is tried where the whole gave NaN or infinity.
_SHRINK = 0.25
#: Changes of the cost below this, in units of its machine epsilon, are rounding errors.
_ROUNDING = 4
#: Rounds of the active set strategy; with one, bounds cost half as many evaluations again, more than three gain none.
_ROUNDS = 3

#: What came of a trial: a step; no fall that can be seen; no step along this direction; NaN or infinity; a next trial.
_TAKEN, _SETTLED, _FAILED, _CUT, _NEXT = range(5)


class Search(NamedTuple):
    """Where the line search of one row is; steps are multiples of the direction.

    Attributes
    ----------
    step, cap, slope
        The step of the trial, and the longest there may be; the slope at step 0.
    near, far : Array, shape (3,)
        Step, cost and slope at the best step so far, and at the other end of the interval of uncertainty.
    width, last_width
        Of that interval, one and two trials ago.
    bracketed, descended, tries
        Whether that interval holds a minimum; whether a step has met the condition on the fall; evaluations so far.
    """

    step: Array
    cap: Array
    slope: Array
    near: Array
    far: Array
    width: Array
    last_width: Array
    bracketed: Array
    descended: Array
    tries: Array


class LBFGSBState(NamedTuple):
    """Where one row is.

    Attributes
    ----------
    x, trial : Array, shape (n,)
        The parameters, and those that are evaluated next.
    cost, start_cost
        At `x` and at the start; infinite before the first evaluation.
    g, d : Array, shape (n,)
        The gradient at `x`, and the direction of the line search.
    S, Y : Array, shape (pairs, n)
        The last steps, and by how much the gradient changed over each, the newest last; 0 where there is none.
    search : Search
        Where the line search is.
    claim, end
        Why the last trial would end the row, before its gradient is looked at, and why the row has ended (`End`).
    bottomless
        Whether the objective has been minus infinity somewhere.
    nfev, njev, nit, nonfinite
        Counts: of evaluations, gradients, steps taken, and trials with NaN or infinity since the last step.
    """

    x: Array
    trial: Array
    cost: Array
    start_cost: Array
    g: Array
    d: Array
    S: Array
    Y: Array
    search: Search
    claim: Array
    bottomless: Array
    nfev: Array
    njev: Array
    nit: Array
    nonfinite: Array
    end: Array


@dataclass(frozen=True)
class LBFGSB(BatchedSolver):
    """L-BFGS-B, for scalars; residuals are taken as half their sum of squares.

    Parameters
    ----------
    ftol, gtol
        As for ``method="L-BFGS-B"`` of `scipy.optimize.minimize`: a step that lowers the cost by less than `ftol`,
        relative to the cost or 1, and a projected gradient without an entry above `gtol`, end a fit.
    maxiter, maxfun
        The limits of steps, and of evaluations; the latter is looked at after each line search.
    maxcor
        The most pairs that are remembered; for few parameters, no more than 2 n + 2, beyond which they are of no use.
    maxls
        The most evaluations in one line search.
    """

    ftol: float = 2.220446049250313e-09
    gtol: float = 1e-5
    maxiter: int = 15000
    maxfun: int = 15000
    maxcor: int = 10
    maxls: int = 20
    name: ClassVar[str] = "L-BFGS-B"
    residuals: ClassVar[bool] = False

    def init(self, lane: Lane) -> LBFGSBState:
        x = lane.inside(lane.start)
        zero, none, count = jnp.zeros((), x.dtype), jnp.zeros_like(x), jnp.zeros((), jnp.int32)
        cost, pairs = zero + jnp.inf, jnp.zeros((min(self.maxcor, 2 * len(x) + 2), len(x)), x.dtype)
        claim, bottomless, counts = count, jnp.zeros((), bool), (count, count, count, count)
        search = _begun(zero, zero, zero)
        return LBFGSBState(x, x, cost, cost, none, none, pairs, pairs, search, claim, bottomless, *counts, end=count)

    def step(self, lane: Lane, state: LBFGSBState) -> LBFGSBState:
        s = state
        cost, g = lane.cost_and_gradient(s.trial)
        slope = _dot(g, s.d)
        came = self._came(s, cost, g, slope)
        further = _where(came == _CUT, _shorter(s.search), _further(s.search, s.cost, cost, slope))
        s = self._judged(s, cost, g, came)._replace(search=further)
        return _proposed(lane, s, anew=(came == _TAKEN) | (came == _FAILED))

    def _came(self, s: LBFGSBState, cost: Array, g: Array, slope: Array) -> Array:
        """What came of the trial."""
        at, first = s.search, s.nfev == 0
        finite = jnp.isfinite(cost) & jnp.all(jnp.isfinite(g))
        enough = cost <= s.cost + _FALL * at.slope * at.step
        noise = _ROUNDING * epsilon(cost.dtype) * jnp.abs(s.cost)
        level, hidden = jnp.abs(cost - s.cost) <= noise, -at.slope * at.step <= noise
        wolfe = (enough | level) & (jnp.abs(slope) <= -_CURVATURE * at.slope)
        longest = (at.step >= at.cap) & enough & (slope <= _FALL * at.slope)
        closed = _closed(at)
        still = jnp.all(s.trial == s.x)
        taken = first | (~still & (wolfe | longest | (closed & (cost < s.cost))))
        # What the model promises of the whole step is too small to be seen.
        settled = hidden & (at.tries == 0) & jnp.any(s.Y != 0)
        last = ~first & (at.tries + 1 >= self.maxls)
        stuck = closed | (level & hidden & (slope > 0)) | still | last
        # `argmax`, a reduction, is computed once; plain logic would be, by XLA, for each array that depends on it.
        flags = [finite & taken, finite & settled, (finite & stuck) | last, ~finite, jnp.ones((), bool)]
        return jnp.argmax(jnp.stack(flags))

    def _judged(self, s: LBFGSBState, cost: Array, g: Array, came: Array) -> LBFGSBState:
        """Take the trial and remember what it told, or stay."""
        first, taken, failed = s.nfev == 0, came == _TAKEN, came == _FAILED
        eps = epsilon(cost.dtype)
        step, change = s.trial - s.x, g - s.g
        told = taken & ~first & (_dot(step, change) > -eps * s.search.slope * s.search.step)
        size = jnp.maximum(jnp.abs(cost), jnp.abs(s.cost))
        least = jnp.maximum(self.ftol * jnp.maximum(size, 1), _ROUNDING * eps * size)
        # A step that NaN or infinity has cut short says nothing about how much the cost can still fall.
        small = taken & ~first & (s.cost - cost <= least) & (s.nonfinite == 0)
        bottomless = s.bottomless | (cost < -1e-3 * float(np.finfo(cost.dtype).max))
        over, helpless = small | (came == _SETTLED), failed & jnp.all(s.Y == 0)
        claims = [helpless | (over & bottomless), over, jnp.ones((), bool)]
        claim = jnp.select(claims, [jnp.int32(end) for end in (End.NO_DESCENT, End.COST, End.RUNNING)])
        return s._replace(
            x=jnp.where(taken, s.trial, s.x),
            cost=jnp.where(taken | first, cost, s.cost),
            start_cost=jnp.where(first, cost, s.start_cost),
            g=jnp.where(taken, g, s.g),
            S=jnp.where(failed, 0, jnp.where(told, jnp.concatenate([s.S[1:], step[None]]), s.S)),
            Y=jnp.where(failed, 0, jnp.where(told, jnp.concatenate([s.Y[1:], change[None]]), s.Y)),
            claim=claim,
            bottomless=bottomless,
            nfev=s.nfev + 1,
            njev=s.njev + 1,
            nit=s.nit + (taken & ~first),
            nonfinite=jnp.where(taken, 0, s.nonfinite + ~(jnp.isfinite(cost) & jnp.all(jnp.isfinite(g)))),
        )

    def terminate(self, lane: Lane, state: LBFGSBState) -> Array:
        s = state
        projected = jnp.abs(s.g)
        if lane.bounded:
            room = jnp.where(s.g < 0, lane.upper - s.x, s.x - lane.lower)
            projected = jnp.minimum(projected, jnp.maximum(room, 0))
        ends = (
            ((s.nfev == 1) & (s.nonfinite > 0), jnp.int32(End.NONFINITE_START)),
            (jnp.max(projected, initial=0) <= self.gtol, jnp.int32(End.GRADIENT)),
            (s.claim != int(End.RUNNING), s.claim),
            ((s.nit >= self.maxiter) | ((s.search.tries == 0) & (s.nfev > self.maxfun)), jnp.int32(End.LIMIT)),
        )
        return jnp.select([met for met, _ in ends], [end for _, end in ends], jnp.int32(End.RUNNING))


def _dot(a: Array, b: Array) -> Array:
    return jnp.sum(a * b)


def _where(condition: Array, a: Search, b: Search) -> Search:
    return Search(*(jnp.where(condition, p, q) for p, q in zip(a, b, strict=True)))


def _proposed(lane: Lane, s: LBFGSBState, anew: Array) -> LBFGSBState:
    """The next trial: of the search that goes on, or, where `anew`, the first of the next."""
    d, slope = _direction(lane, s)
    cap = jnp.full_like(s.cost, _LONGEST)
    if lane.bounded:
        room = jnp.where(d > 0, lane.upper - s.x, jnp.where(d < 0, lane.lower - s.x, jnp.inf))
        cap = jnp.clip(jnp.min(room / jnp.where(d == 0, 1, d)), 1, _LONGEST)
    search = _where(anew, _begun(s.cost, slope, cap), s.search)
    d = jnp.where(anew, d, s.d)
    return s._replace(d=d, search=search, trial=_onto(lane, s.x + search.step * d))


def _onto(lane: Lane, x: Array) -> Array:
    """`x` inside the bounds, and on a bound where only rounding errors keep it off."""
    if not lane.bounded:
        return x
    eps = 2 * epsilon(x.dtype)
    x = jnp.where(x <= lane.lower + eps * jnp.abs(lane.lower), lane.lower, x)
    return jnp.where(x >= lane.upper - eps * jnp.abs(lane.upper), lane.upper, x)


def _direction(lane: Lane, s: LBFGSBState) -> tuple[Array, Array]:
    """From `x` to where the model is least in the box, or a step of steepest descent; and the slope of the cost."""
    held = lane.held(s.x, s.g)
    newton = _in_box(lane, s, held) if lane.bounded else -_inverse_times(s.S, s.Y, s.g[:, None])[:, 0]
    top = jnp.max(jnp.abs(s.g), initial=0)
    g = s.g / jnp.where(top > 0, top, 1)  # so that squares are finite
    good = jnp.any(s.Y != 0) & (_dot(g, newton) < 0) & jnp.all(jnp.isfinite(newton))
    steepest = jnp.where(held, 0, -g)
    norm = jnp.sqrt(_dot(steepest, steepest))
    # The first step has length 1, as in the authors' program; later ones are at most that long.
    length = jnp.where(s.nfev == 1, 1, jnp.minimum(1, norm * top))
    steepest = steepest * length / jnp.where(norm > 0, norm, 1)
    d = jnp.where(good, newton, lane.inside(s.x + steepest) - s.x if lane.bounded else steepest)
    return d, top * _dot(g, d)


def _in_box(lane: Lane, s: LBFGSBState, held: Array) -> Array:
    """The step to the minimum of the model in the box, or near it; at first, what is `held` stays."""
    eye = jnp.eye(len(held), dtype=s.x.dtype)
    H = _inverse_times(s.S, s.Y, eye)
    Hg = H @ s.g
    to_lower, to_upper = lane.lower - s.x, lane.upper - s.x
    fixed = ~lane.free

    def again(_: int, at: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        low, high, _p = at
        stopped = low | high
        given = jnp.where(low, to_lower, jnp.where(high, to_upper, 0))
        # `push` is what the bounds add to the gradient so that those that are stopped move by what is given.
        both = stopped[:, None] & stopped[None, :]
        push = factor(jnp.where(both, H, eye)).solve(jnp.where(stopped, -(given + Hg), 0))
        p = jnp.where(stopped, given, -(Hg + H @ push))
        low = fixed | (low & (push <= 0)) | (~stopped & (p < to_lower))
        high = ~fixed & ((high & (push >= 0)) | (~stopped & (p > to_upper)))
        return low, high, p

    start = (fixed | (held & (s.g >= 0)), ~fixed & held & (s.g < 0), jnp.zeros_like(s.x))
    return lane.inside(s.x + lax.fori_loop(0, _ROUNDS, again, start)[2]) - s.x


def _inverse_times(S: Array, Y: Array, R: Array) -> Array:
    """``H R``, shape (n, k), for the inverse Hessian `H` that the pairs tell, by the two-loop recursion."""
    sy, yy = jnp.sum(S * Y, axis=1), jnp.sum(Y * Y, axis=1)
    use = sy > 0
    rho = jnp.where(use, 1 / jnp.where(use, sy, 1), 0)
    scale = jnp.where(use[-1], sy[-1] / jnp.where(use[-1], yy[-1], 1), 1)

    def down(R: Array, pair: tuple[Array, Array, Array]) -> tuple[Array, Array]:
        s, y, rho = pair
        a = rho * jnp.sum(s[:, None] * R, axis=0)
        return R - y[:, None] * a, a

    def up(R: Array, pair: tuple[Array, Array, Array, Array]) -> tuple[Array, None]:
        s, y, rho, a = pair
        return R + s[:, None] * (a - rho * jnp.sum(y[:, None] * R, axis=0)), None

    # Loops, not written out: faster to compile, and to run, than what XLA makes of sums one after the other.
    R, passed = lax.scan(down, R, (S, Y, rho), reverse=True)
    return lax.scan(up, scale * R, (S, Y, rho, passed))[0]


def _begun(cost: Array, slope: Array, cap: Array) -> Search:
    one, no = jnp.ones_like(cost), jnp.zeros((), bool)
    origin = jnp.stack([0 * one, cost, slope])
    return Search(one, cap, slope, origin, origin, cap, 2 * cap, no, no, jnp.zeros((), jnp.int32))


def _interval(at: Search) -> tuple[Array, Array]:
    """Between what the next step is: inside the bracket, or beyond the trial."""
    a, b = at.near[0], at.far[0]
    beyond = jnp.where(a > 0, at.step + 1.1 * (at.step - a), 0)
    low = jnp.where(at.bracketed, jnp.minimum(a, b), beyond)
    return low, jnp.where(at.bracketed, jnp.maximum(a, b), at.step + 4 * (at.step - a))


def _closed(at: Search) -> Array:
    """Whether the bracket leaves no room for another step."""
    low, high = _interval(at)
    return at.bracketed & ((at.step <= low) | (at.step >= high) | (high - low <= _NARROW * high))


def _shorter(at: Search) -> Search:
    """The search after a trial that gave NaN or infinity: nearer, and, without a bracket, never so far again."""
    step = at.near[0] + _SHRINK * (at.step - at.near[0])
    return at._replace(step=step, cap=jnp.where(at.bracketed, at.cap, step), tries=at.tries + 1)


def _further(at: Search, start: Array, cost: Array, slope: Array) -> Search:
    """The search after a trial that does not end it."""
    needed = _FALL * at.slope
    enough = cost <= start + needed * at.step
    descended = at.descended | (enough & (slope >= needed))
    # Until a step has met the condition on the fall, the cost less what that asks for is minimised.
    less = jnp.where(~descended & (cost <= at.near[1]) & ~enough, needed, 0)

    def tilted(point: Array, by: Array) -> Array:
        return point + by * jnp.stack([0 * by, point[0], 0 * by + 1])

    trial = jnp.stack([at.step, cost, slope])
    near, far, step, bracketed = _interpolated(at, tilted(at.near, -less), tilted(at.far, -less), tilted(trial, -less))
    near, far = tilted(near, less), tilted(far, less)
    width = jnp.abs(far[0] - near[0])
    step = jnp.where(bracketed & (width >= 0.66 * at.last_width), near[0] + 0.5 * (far[0] - near[0]), step)
    last_width, width = jnp.where(bracketed, at.width, at.last_width), jnp.where(bracketed, width, at.width)
    at = at._replace(step=jnp.clip(step, 0, at.cap), near=near, far=far, width=width, last_width=last_width)
    at = at._replace(bracketed=bracketed, descended=descended, tries=at.tries + 1)
    # The best point of a bracket that leaves no room is evaluated once more, and then taken.
    return at._replace(step=jnp.where(_closed(at), near[0], at.step))


def _interpolated(at: Search, near: Array, far: Array, trial: Array) -> tuple[Array, Array, Array, Array]:
    """The interval of uncertainty with the trial in it, and the next step: the four cases of Moré and Thuente."""
    tests = [trial[1] > near[1], trial[2] * jnp.sign(near[2]) < 0, jnp.abs(trial[2]) < jnp.abs(near[2])]
    case = jnp.argmax(jnp.stack([*tests, jnp.ones((), bool)]))
    higher, turned, flatter, steeper = (case == i for i in range(4))
    low, high = _interval(at)
    span = trial[0] - near[0]
    end = jnp.where(span > 0, high, low)
    other = jnp.where(higher, trial, jnp.where(steeper, far, near))
    cubic, beyond = _cubic(jnp.where(higher, near, trial), other)
    cubic = jnp.where(flatter & beyond, end, cubic)
    # Where a parabola is least: through both costs and the slope at the near end, or through both slopes.
    parabola = near[0] + near[2] / (near[2] - (trial[1] - near[1]) / span) / 2 * span
    secant = trial[0] + trial[2] / (near[2] - trial[2]) * span
    nearer = jnp.abs(cubic - trial[0]) < jnp.abs(secant - trial[0])
    first = jnp.where(jnp.abs(cubic - near[0]) < jnp.abs(parabola - near[0]), cubic, (cubic + parabola) / 2)
    third = jnp.where(nearer == at.bracketed, cubic, secant)
    limit = trial[0] + 0.66 * (far[0] - trial[0])
    limited = jnp.where(span > 0, jnp.minimum(limit, third), jnp.maximum(limit, third))
    third = jnp.where(at.bracketed, limited, jnp.clip(third, low, high))
    rest = jnp.where(flatter, third, jnp.where(at.bracketed, cubic, end))
    step = jnp.where(higher, first, jnp.where(turned, jnp.where(nearer, secant, cubic), rest))
    far = jnp.where(higher, trial, jnp.where(turned, near, far))
    near = jnp.where(higher, near, trial)
    step = jnp.where(jnp.isfinite(step), step, (near[0] + far[0]) / 2)
    return near, far, step, at.bracketed | higher | turned


def _cubic(base: Array, other: Array) -> tuple[Array, Array]:
    """Where the cubic through two points with their slopes is least; and whether that is not between, or nowhere."""
    theta = 3 * (other[1] - base[1]) / (base[0] - other[0]) + other[2] + base[2]
    size = jnp.max(jnp.abs(jnp.stack([theta, other[2], base[2]])))
    root = size * jnp.sqrt(jnp.maximum((theta / size) ** 2 - (other[2] / size) * (base[2] / size), 0))
    root = jnp.where(base[0] > other[0], -root, root)
    part = ((root - base[2]) + theta) / (((root - base[2]) + root) + other[2])
    return base[0] + part * (other[0] - base[0]), (part >= 0) | (root == 0)
