"""A second look at a success that a local method claims: whether the cost still falls beside its solution.

The tolerances of SciPy's methods are absolute, or know one size for all parameters, so that an objective in unlucky
units meets them far from its minimum; and a line search that ends at infinity may be called a success. A few
evaluations around the solution tell, in steps that are relative to each parameter.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parfit.core.problem import BoundProblem
from parfit.core.solution import Solution

__all__ = ["Best", "still_falls"]

FloatArray = NDArray[np.float64]

# The figures below were chosen on likelihoods from random starts, on decays with costs and parameters in units of
# 1e-8 to 1e4, and on Rosenbrock's valley, quadratics, kinks and noise that have to stay converged: `test_second_look`.

#: A fall of the cost, relative to it, that is worth another step; SciPy's own tolerance where it is wider.
_FALLS = 1e-5
#: And relative to how far the cost has come down from the start: where the cost is 0 at the minimum.
_DESCENT = 1e-10
#: The same up to a descent of 1, above which absolute tolerances no longer grow with the cost.
_SMALL_DESCENT = 1e-7
#: The tolerances in the cost that methods have where the user gives none (COBYLA's is what its last radius leaves).
_FTOL = {"Nelder-Mead": 1e-4, "Powell": 1e-4, "COBYLA": 1e-4, "SLSQP": 1e-6}
#: And those in the parameters, of methods that know no slope: a fall within a few of them is none.
_XTOL = {"Nelder-Mead": 1e-4, "Powell": 1e-4, "COBYLA": 1e-4, "COBYQA": 1e-6}
#: How far from its bounds an interior point may come to rest, relative to the parameter or to its box.
_BARRIER = 2e-3
#: The probes' distance, relative to each parameter.
_STEP = 1e-3
#: How many times as far a parabola through the probes may lead.
_FAR = 100.0
#: What the options that hold tolerances are called.
_FTOL_NAMES, _XTOL_NAMES = ("ftol", "fatol", "tol"), ("xtol", "xatol", "xrtol", "final_tr_radius", "tol")


class Best:
    """The best point that the functions it is `noting` were asked for, among those where they are finite.

    Attributes
    ----------
    z : ndarray, shape (n,), or None
        The point; None where there is none.
    cost
        Its cost.
    """

    def __init__(self) -> None:
        self.z: FloatArray | None = None
        self.cost = math.inf

    def noting(self, function: Callable[[FloatArray], Any]) -> Callable[[FloatArray], Any]:
        """`function`, each of whose values (or pairs of value and gradient) is noted."""

        def noted(z: FloatArray) -> Any:
            found = function(z)
            cost = found[0] if type(found) is tuple else found
            if z.dtype.kind != "c" and -math.inf < cost < self.cost:
                self.z, self.cost = z.copy(), float(cost)
            return found

        return noted


def still_falls(
    problem: BoundProblem, solution: Solution, gradient: FloatArray | None, method: str, options: Mapping[str, Any]
) -> bool:
    """Whether the cost falls beside a solution by more than the tolerances of the method allow.

    It costs at most ``2 n + 7`` evaluations, and none where the gradient is small enough to settle it.

    Parameters
    ----------
    gradient : ndarray, shape (n,), or None
        At the solution, as the method knows it.
    method, options
        The name of the method, and what the user chose: looser tolerances are kept to.
    """
    z, cost, at_bound = solution.x, solution.cost, solution.at_bound
    assert at_bound is not None
    gtol, target = options.get("gtol", options.get("tol")), options.get("f_target")
    if (gtol is not None and solution.optimality <= gtol) or (target is not None and cost <= target):
        return False
    enough = _enough(problem.start_cost, cost, method, options)
    scale = _scale(problem, z)
    width = np.where(np.isfinite(problem.upper - problem.lower), problem.upper - problem.lower, 0.0)
    beside = np.maximum(scale, width) * _BARRIER if method == "trust-constr" else np.zeros(len(z))
    lower = np.where((at_bound < 0) | (z - problem.lower <= beside), z, problem.lower)
    upper = np.where((at_bound > 0) | (problem.upper - z <= beside), z, problem.upper)
    if gradient is not None and gradient.any() and np.isfinite(gradient).all():
        room = np.where(gradient > 0, z - lower, upper - z)
        if float(np.abs(gradient) @ np.minimum(scale, room)) <= enough:
            return False
    chosen = _given(options, _XTOL_NAMES) or 0.0
    close = np.maximum(5 * _XTOL.get(method, 0.0) * scale, 10 * chosen * np.maximum(1.0, scale))
    steps = len(problem.trace)
    falls = _Look(problem, z, cost, lower, upper).falls(scale, enough, close)
    del problem.trace[steps:]  # the history is the solver's
    return falls


def _enough(start: float, cost: float, method: str, options: Mapping[str, Any]) -> float:
    """The fall of the cost below which a method may call itself done."""
    given = _given(options, _FTOL_NAMES)
    ftol = _FTOL.get(method, 0.0) if given is None else 10 * given
    descent = max(start - cost, 0.0) if math.isfinite(start) else 0.0
    return max(
        max(_FALLS, ftol) * abs(cost), _DESCENT * descent, max(_SMALL_DESCENT, ftol) * min(descent, 1.0),
    )  # fmt: skip


def _given(options: Mapping[str, Any], names: tuple[str, ...]) -> float | None:
    """The widest of the tolerances that the user chose; below 0 stands for the method's own."""
    found = [float(np.max(options[name])) for name in names if options.get(name) is not None]
    return max((value for value in found if value >= 0), default=None)


def _scale(problem: BoundProblem, z: FloatArray) -> FloatArray:
    """The size of each parameter; one at 0 is measured by its start."""
    least = np.where(problem.x0 == 0, 1.0, np.minimum(1.0, np.abs(problem.x0)))
    return np.maximum(np.abs(z), 1e-3 * least)


@dataclass(frozen=True)
class _Look:
    """Around the point `z`, within bounds."""

    problem: BoundProblem
    z: FloatArray
    cost: float
    lower: FloatArray
    upper: FloatArray

    def at(self, step: FloatArray) -> FloatArray:
        """The point a step away, as far as the bounds allow."""
        return np.clip(self.z + step, self.lower, self.upper)

    def gain(self, there: FloatArray) -> float:
        """How far the cost falls: NaN where the objective raises, since a second look must not cost a fit."""
        try:
            return self.cost - self.problem.fun(there)
        except Exception:  # noqa: BLE001 - it raised where no solver has been
            return math.nan

    def falls(self, scale: FloatArray, enough: float, close: FloatArray) -> bool:
        """Whether there is a point, not `close`, to which the cost falls all the way, by more than `enough`."""
        for there, gain in self.points(scale, close):
            if enough < gain < math.inf and (np.abs(there - self.z) > close).any():
                return self.is_slope(there, gain)
        return False

    def is_slope(self, there: FloatArray, gain: float) -> bool:
        """Whether the cost falls all the way to a point that is lower, and is not lower there by noise alone."""
        return all(self.gain(self.z + t * (there - self.z)) >= 0.5 * t * gain for t in (0.75, 0.5, 0.25))

    def points(self, scale: FloatArray, close: FloatArray) -> Iterator[tuple[FloatArray, float]]:
        """Points and what is gained there: along each parameter, and then downhill, where the former lead."""
        n = len(self.z)
        slopes, downhill = np.zeros(n), np.zeros(n)
        distance = np.maximum(_STEP * scale, 1.2 * close)
        for i in range(n):
            near = []
            for side in (-distance[i], distance[i]):
                there = self.at(side * (np.arange(n) == i))
                t = float(there[i] - self.z[i])
                if abs(t) <= 1e-3 * distance[i]:  # at its bound, or as good as
                    continue
                gain = self.gain(there)
                yield there, gain
                if math.isfinite(gain):
                    near.append((t, -gain / t))
            slopes[i], downhill[i] = _vertex(near, _FAR * distance[i])
        if downhill.any():
            yield from self.ahead(slopes, downhill)

    def ahead(self, slopes: FloatArray, downhill: FloatArray) -> Iterator[tuple[FloatArray, float]]:
        """Along the parameter that promises most, and along all together.

        Their single steps together are the negative gradient, each part over its own curvature.
        """
        promises = slopes * downhill
        alone = self.at(np.where(np.arange(len(self.z)) == np.argmin(promises), downhill, 0.0))
        yield alone, self.gain(alone)
        if np.count_nonzero(downhill) == 1:
            return
        together = self.at(downhill)
        gain = self.gain(together)
        yield together, gain
        short = self.at(0.1 * downhill)
        yield short, self.gain(short)
        slope = float(slopes @ (together - self.z))
        bend = -gain - slope
        if slope < 0 < bend:  # to the vertex of the parabola along them
            vertex = self.at(min(-slope / (2 * bend), 10.0) * (together - self.z))
            yield vertex, self.gain(vertex)


def _vertex(near: list[tuple[float, float]], far: float) -> tuple[float, float]:
    """The slope at 0, and the step to the vertex of the parabola, from points beside it and the slopes to them."""
    if len(near) < 2:
        slope, curvature = (near[0][1], 0.0) if near else (0.0, 0.0)
    else:
        (t, left), (u, right) = near
        half = (right - left) / (u - t)
        slope, curvature = left - half * t, 2 * half
    if curvature * far > abs(slope):
        return slope, -slope / curvature
    return slope, -math.copysign(far, slope) if slope else 0.0
