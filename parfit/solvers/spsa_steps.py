"""SPSA as a recipe with ``init``, ``step`` and ``terminate``, its state as a value, and the loop over them.

Source: J. C. Spall (1998), as cited in `parfit.solvers.spsa_gains`; the projection that keeps both points of
a pair inside the bounds follows P. Sadegh, "Constrained optimization via stochastic approximation with a
simultaneous perturbation gradient approximation", Automatica 33(5):889-892, 1997.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parfit.solvers.spsa_gains import PROBES, AutoGain, Gains

__all__ = ["SPSARecipe", "SPSAState", "Stop", "answered", "describe", "iterate"]

FloatArray = NDArray[np.float64]
#: The objective of the flat parameters, shape (n,).
FlatFunction = Callable[[FloatArray], float]

#: Pairs in a row without a finite difference after which the run is given up.
GIVE_UP = 100
#: Balanced pairs in a row (see `SPSAState`) that end a run: at a minimum of a symmetric objective all pairs are,
#: and with two parameters, half of those elsewhere.
BALANCED = 40
#: A rise of the objective from its first value, relative to that, which is taken for divergence.
RISE = 9.0


class Stop(Enum):
    """Why a run ended: SciPy's ``status``, whether that is success, and a sentence."""

    FTOL = (0, True, "converged: both evaluations agree to within ftol, over the whole window")
    PARAM_TOL = (0, True, "converged: the parameters changed by no more than param_tol, over the whole window")
    FIXED = (0, True, "no parameter is free to move")
    MAXITER = (1, False, "stopped at maxiter")
    NONFINITE = (2, False, "the objective, or a step that it led to, is NaN or infinite")
    CALLBACK = (99, False, "the callback raised StopIteration")

    def __init__(self, status: int, success: bool, sentence: str) -> None:
        self.status = status
        self.success = success
        self.sentence = sentence


@dataclass(frozen=True, slots=True, eq=False)
class SPSAState:
    """A run between two iterations; all that is needed to go on.

    Attributes
    ----------
    x, good : ndarray, shape (n,)
        The iterate, and the last one whose pair was finite.
    rng
        The state of the bit generator, as NumPy gives it.
    a
        The gain, NaN while it is still being found.
    auto
        What the search for it knows; None where `a` was given.
    nit, k, nfev
        Pairs evaluated, steps made (the index of the gains), and evaluations.
    n_tied, n_skipped, n_skipped_in_a_row
        Pairs with equal values; pairs without a finite difference, in all and just before now.
    n_balanced
        Tied pairs just before now, each at another level than the pair before it: where the objective is not
        flat and yet has no slope.
    spreads
        ``|f+ - f-| / max(|f+|, |f-|)`` of the last untied pairs, at most a window of them.
    trail : tuple of ndarray, shape (n,) each
        The iterates that these led to; empty where no `param_tol` asks for them.
    first, mean
        The mean of the first finite pair, and of the last.
    answer, value
        The parameters to return and the objective there, once the run has ended.
    """

    x: FloatArray
    good: FloatArray
    rng: dict[str, Any]
    a: float
    auto: AutoGain | None
    nit: int = 0
    k: int = 0
    nfev: int = 0
    n_tied: int = 0
    n_skipped: int = 0
    n_skipped_in_a_row: int = 0
    n_balanced: int = 0
    spreads: tuple[float, ...] = ()
    trail: tuple[FloatArray, ...] = ()
    first: float = math.nan
    mean: float = math.nan
    answer: FloatArray | None = None
    value: float = math.nan


@dataclass(frozen=True, slots=True, eq=False)
class SPSARecipe:
    """SPSA for one start and one box: the options, resolved. Arrays have shape (n,).

    The parameters are measured in units of `scale`; `reach` is `scale`, less where the box is narrow, and a
    pair lies at ``c_k * reach`` on both sides of its centre.
    """

    x0: FloatArray
    lower: FloatArray
    upper: FloatArray
    scale: FloatArray
    reach: FloatArray
    gains: Gains
    a: float
    max_step: float
    param_tol: FloatArray | None
    ftol: float | None
    maxiter: int
    window: int

    def init(self, rng: np.random.Generator) -> SPSAState:
        """The state before the first iteration."""
        auto = AutoGain(best_x=self.x0) if math.isnan(self.a) else None
        return SPSAState(x=self.x0, good=self.x0, rng=dict(rng.bit_generator.state), a=self.a, auto=auto)

    def step(self, fun: FlatFunction, state: SPSAState, rng: np.random.Generator) -> SPSAState:
        """Evaluate one pair and make one step. `rng` is at ``state.rng`` and is advanced.

        The new state takes the generator's state after the evaluations, so that an objective may draw its
        noise from the same generator.
        """
        plus, minus = self.pair(state, rng)
        f_plus, f_minus = fun(plus), fun(minus)
        difference = f_plus - f_minus
        after = replace(
            state,
            nit=state.nit + 1,
            nfev=state.nfev + 2,
            rng=dict(rng.bit_generator.state),
            answer=None,
            value=math.nan,
        )
        if not math.isfinite(difference):
            return self._skipped(after)
        mean = 0.5 * f_plus + 0.5 * f_minus
        after = replace(
            after,
            good=state.x,
            first=mean if math.isnan(state.first) else state.first,
            mean=mean,
            n_tied=state.n_tied + (difference == 0),
            n_balanced=state.n_balanced + 1 if difference == 0 and mean != state.mean else 0,
            n_skipped_in_a_row=0,
        )
        slope = quotient(difference, plus - minus)
        if math.isnan(state.a):
            return self._probed(after, slope)
        return self._moved(after, slope, abs(difference) / max(abs(f_plus), abs(f_minus), 5e-324))

    def pair(self, state: SPSAState, rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
        """The two points of the next evaluation, in the bounds: around the iterate, or as near as they fit."""
        delta = 2.0 * rng.integers(0, 2, self.x0.size) - 1.0
        half = self.gains.c_k(state.k) * self.reach
        centre = np.clip(state.x, self.lower + half, self.upper - half)
        step = half * delta
        return np.clip(centre + step, self.lower, self.upper), np.clip(centre - step, self.lower, self.upper)

    def terminate(self, state: SPSAState) -> Stop | None:
        """Why to stop here, or None."""
        if not np.any(self.lower < self.upper):
            return Stop.FIXED
        if state.n_skipped_in_a_row >= GIVE_UP or state.nit == state.n_skipped >= max(self.maxiter, 1):
            return Stop.NONFINITE
        if state.n_balanced >= max(BALANCED, self.window):
            if self.ftol is not None or self.param_tol is not None:
                return Stop.FTOL if self.ftol is not None else Stop.PARAM_TOL
        elif len(state.spreads) == self.window:
            if self.ftol is not None and max(state.spreads) <= self.ftol:
                return Stop.FTOL
            if self.param_tol is not None and self._at_rest(state.trail, self.param_tol * self.scale):
                return Stop.PARAM_TOL
        return Stop.MAXITER if state.nit >= self.maxiter else None

    def finish(self, fun: FlatFunction, state: SPSAState) -> SPSAState:
        """With the answer and the objective there: one evaluation, two where the first is not finite."""
        if state.answer is not None:
            return state
        answer = state.x if state.auto is None else state.auto.final(state.x)
        value, nfev = fun(answer), state.nfev + 1
        if not math.isfinite(value) and not np.array_equal(answer, state.good):
            answer = state.good
            value, nfev = fun(answer), nfev + 1
        return replace(state, answer=answer, value=value, nfev=nfev)

    def _at_rest(self, trail: tuple[FloatArray, ...], tolerance: FloatArray) -> bool:
        if len(trail) < self.window or np.any(np.abs(trail[-1] - trail[0]) > tolerance):
            return False
        return bool(np.all(np.ptp(np.stack(trail), axis=0) <= tolerance))

    def _skipped(self, state: SPSAState) -> SPSAState:
        """Without a step; from the second time in a row on, halfway back to where the pair was finite."""
        in_a_row = state.n_skipped_in_a_row + 1
        x = state.x if in_a_row < 2 else 0.5 * state.x + 0.5 * state.good
        return replace(
            state,
            x=x,
            k=state.k + (not math.isnan(state.a)),
            n_skipped=state.n_skipped + 1,
            n_skipped_in_a_row=in_a_row,
        )

    def _probed(self, state: SPSAState, slope: FloatArray) -> SPSAState:
        """With one more estimate of the gradient at the start, and with the gain after the last of them."""
        assert state.auto is not None
        free = self.lower < self.upper
        size = float(np.mean(np.abs(self.scale * slope)[free]))
        if not 0 < size < math.inf:
            return state
        auto = state.auto.probed(size, state.mean)
        if len(auto.slopes) < min(PROBES, max(1, self.maxiter // 10)):
            return replace(state, auto=auto)
        a = self.gains.a_for(self.max_step, sum(auto.slopes) / len(auto.slopes))
        if not 0 < a < math.inf:
            return state
        return replace(state, auto=auto.started(), a=a)

    def _moved(self, state: SPSAState, slope: FloatArray, spread: float) -> SPSAState:
        """After a step down the estimated `slope`; a tie is no step, and is not counted in the window."""
        auto, a = state.auto, state.a
        if auto is not None:
            auto, a, back = auto.watched(a, state.mean, state.x)
            if back is not None:
                return replace(state, x=back, k=state.k + 1, a=a, auto=auto, spreads=(), trail=())
        with np.errstate(all="ignore"):
            move = -self.gains.a_k(a, state.k) * self.scale * (self.scale * slope)
            longest = float(np.max(np.abs(move) / self.scale))
            if longest > self.max_step:
                move = move * (self.max_step / longest)
            x = np.clip(state.x + move, self.lower, self.upper)
        if not np.all(np.isfinite(x)):
            return self._skipped(state)
        state = replace(state, x=x, k=state.k + 1, a=a, auto=auto)
        if spread == 0:
            return state
        return replace(
            state,
            spreads=(*state.spreads, spread)[-self.window :],
            trail=() if self.param_tol is None else (*state.trail, x)[-self.window :],
        )


def iterate(
    recipe: SPSARecipe,
    fun: FlatFunction,
    state: SPSAState,
    rng: np.random.Generator,
    *,
    keep: Callable[[SPSAState], None] | None = None,
    watch: Callable[[SPSAState], None] | None = None,
) -> tuple[SPSAState, Stop]:
    """Run to the end; `keep` is called with each new state, then `watch`, whose `StopIteration` stops."""
    stop = recipe.terminate(state)
    while stop is None:
        state = recipe.step(fun, state, rng)
        if keep is not None:
            keep(state)
        try:
            if watch is not None:
                watch(state)
        except StopIteration:
            stop = Stop.CALLBACK
        else:
            stop = recipe.terminate(state)
    return recipe.finish(fun, state), stop


def answered(state: SPSAState) -> tuple[FloatArray, float]:
    """The parameters and the objective of a run that has ended."""
    assert state.answer is not None
    return state.answer, state.value


def describe(stop: Stop, state: SPSAState) -> tuple[Stop, str]:
    """The reason in the light of the final value, and a sentence with what else the user should know."""
    if not math.isfinite(state.value) and stop is not Stop.CALLBACK:
        stop = Stop.NONFINITE
    text = stop.sentence
    if stop is Stop.NONFINITE and math.isnan(state.mean):
        text = "the objective is NaN or infinite wherever it was evaluated; is it defined at the start?"
    elif state.n_skipped:
        text += (
            f"; {state.n_skipped} of {state.nit} pairs were NaN or infinite, or led to infinite steps, and were skipped"
        )
    elif state.nit and state.n_tied == state.nit:
        text += "; every pair of evaluations was tied, the objective does not change over 2 * c_par"
    if state.auto is None and (what := _divergence(stop, state)) is not None:
        text += f"; {what}: take a smaller a_par, a max_step, or a_par=None, which finds the gain"
    return stop, text


def _divergence(stop: Stop, state: SPSAState) -> str | None:
    """How a run with a gain of the user's shows that the gain is too large; None where it does not."""
    if stop is Stop.NONFINITE and not math.isnan(state.first):
        return "it began at finite values, and the steps from there are too long"
    if stop is Stop.MAXITER and state.value - state.first > RISE * abs(state.first):
        return (
            f"the objective rose from {state.first:.6g} (the first pair's mean) to {state.value:.6g}, and where that "
            "is not noise, the steps are too long"
        )
    return None


def quotient(difference: float, span: FloatArray) -> FloatArray:
    """``difference / span``, shape (n,), and 0 where a parameter was not perturbed."""
    with np.errstate(all="ignore"):
        return np.divide(difference, span, out=np.zeros_like(span), where=span != 0)
