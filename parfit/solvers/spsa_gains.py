"""The gain sequences of SPSA, and the rule that finds the gain `a` where none is given.

Sources: J. C. Spall, "Implementation of the simultaneous perturbation algorithm for stochastic
optimization", IEEE Transactions on Aerospace and Electronic Systems 34(3):817-823, 1998, for the sequences,
for the choice of `a` by the size of the first step, and for going back after a step that made things worse
(there called blocking).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

__all__ = ["PROBES", "AutoGain", "Gains"]

FloatArray = NDArray[np.float64]

#: Gradient estimates at the start from which `a` is found (fewer for runs under 100 iterations).
PROBES = 10
#: Pairs whose mean is one reading of the objective. This and the next three were chosen on the problems of
#: ``AUTO_PROBLEMS`` in tests/solvers/test_spsa.py, from among 10 to 40, 1.25 to 2, and 1e-4 to 1e-2.
READING = 20
RAISE = 0.5
LOWER = 0.5
FRACTION = 1e-3
#: Standard errors by which two readings must differ to count as different.
SIGNIFICANT = 3.0


@dataclass(frozen=True, slots=True)
class Gains:
    """The sequences ``a_k = a / (k + 1 + A)**alpha`` and ``c_k = c / (k + 1)**gamma``, k = 0, 1, ...

    Attributes
    ----------
    c, A, alpha, gamma
        As in Spall (1998), who recommends alpha = 0.602 and gamma = 0.101, `A` a tenth of the iterations
        expected or allowed, and `c` about the standard deviation of the noise.
    """

    c: float
    A: float
    alpha: float
    gamma: float

    def a_k(self, a: float, k: int) -> float:
        """The gain of iteration `k`."""
        return float(a / (k + 1 + self.A) ** self.alpha)

    def c_k(self, k: int) -> float:
        """The half-width of the perturbation of iteration `k`."""
        return float(self.c / (k + 1) ** self.gamma)

    def a_for(self, first_step: float, slope: float) -> float:
        """The `a` with which a gradient element of size `slope` gives a first step of `first_step`."""
        return float(first_step * (1 + self.A) ** self.alpha / slope)


@dataclass(frozen=True, slots=True, eq=False)
class AutoGain:
    """What is known while `a` is found and kept fit; a value, replaced by its methods.

    First, `PROBES` gradient estimates at the start: `a` is such that the first step has the size wanted.
    Then the mean of every `READING` pairs is one reading of the objective. A reading that is significantly
    worse than the one before sends the iterate back to where the best was taken and halves `a`; one that is
    significantly better raises `a` by a half, by less the more often it had to be halved.

    Attributes
    ----------
    slopes
        Mean size of the elements of each gradient estimate at the start.
    means
        The means of the pairs of the reading under way.
    start
        The objective at the start.
    last, best
        A reading and its standard error; None before the first and after a return.
    best_x : ndarray, shape (n,)
        Where the best reading ended.
    n_lowered
        How often `a` was halved.
    """

    best_x: FloatArray
    slopes: tuple[float, ...] = ()
    means: tuple[float, ...] = ()
    start: float = math.nan
    last: tuple[float, float] | None = None
    best: tuple[float, float] = (math.inf, 0.0)
    n_lowered: int = 0

    def probed(self, slope: float, mean: float) -> AutoGain:
        """With one more gradient estimate at the start."""
        return replace(self, slopes=(*self.slopes, slope), means=(*self.means, mean))

    def started(self) -> AutoGain:
        """With the probes taken as the first reading."""
        first = reading(self.means)
        return replace(self, means=(), start=first[0], last=first, best=first)

    def watched(self, a: float, mean: float, x: FloatArray) -> tuple[AutoGain, float, FloatArray | None]:
        """With the mean of a pair around `x`; also the gain, and the point to go back to or None."""
        means = (*self.means, mean)
        if len(means) < READING:
            return replace(self, means=means), a, None
        now = reading(means)
        if self.last is not None and worse(now, self.last):
            lowered = replace(self, means=(), last=None, n_lowered=self.n_lowered + 1)
            return lowered, a * LOWER, self.best_x
        gained = 0.0 if self.last is None else self.last[0] - now[0]
        if self.last is not None and worse(self.last, now) and gained > FRACTION * (self.start - self.best[0]):
            a *= 1 + RAISE / (1 + self.n_lowered)
        new = replace(self, means=(), last=now)
        return (new if now[0] > self.best[0] else replace(new, best=now, best_x=x)), a, None

    def final(self, x: FloatArray) -> FloatArray:
        """The answer: `x`, unless the reading under way is significantly worse than the best one."""
        if len(self.means) > 1 and worse(reading(self.means), self.best):
            return self.best_x
        return x


def reading(means: tuple[float, ...]) -> tuple[float, float]:
    """The mean of `means`, and its standard error (0 for one value)."""
    values = np.array(means)
    unit = float(np.max(np.abs(values))) or 1.0  # so that no square overflows
    values = values / unit
    error = float(np.std(values, ddof=1)) / math.sqrt(values.size) if values.size > 1 else 0.0
    return unit * float(np.mean(values)), unit * error


def worse(now: tuple[float, float], before: tuple[float, float]) -> bool:
    """Whether the reading `now` is significantly larger than `before`."""
    return now[0] - before[0] > SIGNIFICANT * math.hypot(now[1], before[1])
