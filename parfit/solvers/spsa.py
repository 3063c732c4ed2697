"""SPSA, simultaneous perturbation stochastic approximation: for objectives that are noisy, or have many parameters.

`SPSA` is the function, also a ``method`` of `scipy.optimize.minimize`. It drives the recipe of
`parfit.solvers.spsa_steps`, as does ``parfit.fit(..., method="spsa")`` by `parfit.solvers.spsa_solver`.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import OptimizeResult

from parfit.core.errors import InvalidTypeError
from parfit.solvers.spsa_options import (
    SPSAOptions,
    count,
    every,
    flat,
    read_bounds,
    read_seed,
    read_start,
    refuse_derivatives,
    shaped,
)
from parfit.solvers.spsa_state import Keeper, load, refuse_other
from parfit.solvers.spsa_steps import SPSARecipe, SPSAState, Stop, answered, describe, iterate

__all__ = ["SPSA", "SPSAResult"]

FloatArray = NDArray[np.float64]
log = logging.getLogger("parfit")


class SPSAResult(OptimizeResult):
    """An `OptimizeResult` that also unpacks and indexes like the tuple ``(params, value, n_iter)``.

    Attributes
    ----------
    x : ndarray, in the shape of `initparams` (a float for a single number)
        The parameters.
    fun : float
        The objective, evaluated once there.
    nit, nfev : int
        Pairs and evaluations.
    status : int
        0 converged, 1 `maxiter`, 2 not finite, 99 stopped by the callback.
    success, message
        Whether it converged, and in words.
    n_tied, n_skipped : int
        Pairs with two equal values; pairs with a NaN or infinite value.
    gains : dict
        ``a``, ``c``, ``A``, ``alpha``, ``gamma`` as they were at the end.
    rng_state : dict
        The state of the bit generator at the end.
    """

    def astuple(self) -> tuple[Any, float, int]:
        """``(x, fun, nit)``."""
        return self["x"], self["fun"], self["nit"]

    def __iter__(self) -> Iterator[Any]:
        return iter(self.astuple())

    def __len__(self) -> int:
        return 3

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, (int, np.integer, slice)):
            return self.astuple()[key]
        return super().__getitem__(key)

    def copy(self) -> SPSAResult:
        """A shallow copy."""
        same: SPSAResult = _new_result(self)
        return same


#: Both are dicts, which their type stubs leave out.
_new_result: Any = SPSAResult
_new_news: Any = OptimizeResult


def SPSA(
    fnc: Callable[..., Any],
    initparams: ArrayLike,
    a_par: float | str | None = 1e-6,
    c_par: float = 0.01,
    args: Any = (),
    bounds: Any = None,
    param_tol: ArrayLike | None = None,
    ftol: float | None = 1e-8,
    maxiter: int = 10000,
    alpha: float = 0.602,
    gamma: float = 0.101,
    print_iters: float | None = 100.0,
    *,
    stability: float | None = None,
    scale: ArrayLike | str | None = None,
    max_step: float | None = None,
    window: int = 20,
    seed: Any = 0,
    callback: Callable[..., Any] | None = None,
    disp: bool = False,
    savestate: Any = None,
    save_iters: int = 100,
    tol: float | None = None,
    jac: Any = None,
    hess: Any = None,
    hessp: Any = None,
    constraints: Any = (),
) -> SPSAResult:
    """Minimise a noisy function by simultaneous perturbation stochastic approximation.

    Every iteration evaluates `fnc` twice, whatever the number of parameters: at ``x + c_k * delta`` and
    ``x - c_k * delta``, where the elements of ``delta`` are 1 or -1 with equal chance. The step is
    ``-a_k * (f_plus - f_minus) / (2 * c_k * delta)``, with ``a_k = a_par / (k + 1 + stability)**alpha`` and
    ``c_k = c_par / (k + 1)**gamma``.

    Parameters
    ----------
    fnc : callable
        ``fnc(params, *args) -> float``; `params` is a new float array in the shape of `initparams`.
    initparams : array_like of any shape, or a number
        The start; integers are taken as floats.
    a_par : float, None or "auto"
        The gain `a`. None finds it: by Spall's rule, such that the first step changes the parameters by
        `max_step`, from up to 10 gradient estimates at the start (which count as iterations); afterwards it
        is halved, and the iterate sent back, where the objective has become significantly worse, and raised
        where it is getting significantly better. With a number, the gains are the published ones throughout.
    c_par : float
        The first half-width of the perturbation; about the standard deviation of the noise, or small.
    args : tuple
        Further arguments of `fnc`.
    bounds : sequence of (lower, upper), or scipy.optimize.Bounds, optional
        None or an infinity for no bound; for an n-D start, in C order or with a last axis of 2. `fnc` is
        never called outside: near a bound the pair moves inwards as a whole (the iterate itself may lie on
        the bound), and where a box is narrower than ``4 * c_par * scale`` that parameter is perturbed by a quarter of
        the box at most.
    param_tol : float or array_like, optional
        Converged once no parameter has changed by more than this, in units of `scale`, over the window.
    ftol : float, optional
        Converged once both evaluations of a pair have differed by no more than ``ftol * max(|f+|, |f-|)`` in
        each pair of the window, that is, when there is no slope left in any direction tried. A noise larger
        than this never meets it.
    maxiter : int
        The most iterations, of two evaluations each, counted from the first run on where a `savestate` is gone on
        from: one that has reached `maxiter` does no more; raise it to go further.
    alpha, gamma : float
        The decay of the gains.
    print_iters : float, optional
        Report the progress every that many iterations, at level INFO of the logger ``"parfit"``, and on
        standard output with ``disp=True``. None, False, 0 or infinity for never.
    stability : float, optional
        The constant `A`; by default ``maxiter / 10``, as Spall recommends, of the first run where a `savestate` is
        gone on from, so that the gains go on as they were.
    scale : float, array_like, "auto" or None
        The unit of each parameter: it is perturbed by ``scale * c_k``, and its steps are multiplied by
        ``scale**2``, as though ``params / scale`` were fitted. ``"auto"`` takes ``|initparams|``, or 1 for
        zeros, at most the width of the box. None is 1, which is SPSA as published.
    max_step : float, optional
        The most that a parameter may move in one iteration, in units of `scale`; by default no limit where
        `a_par` is a number, and 0.1 where it is not.
    window : int
        Untied pairs over which a tolerance must hold. A pair of equal values (a plateau, an integer-valued
        objective) makes no step and does not count; but a run also ends after 40 ties in a row that were all
        at different levels, as they are at the very minimum of a symmetric objective without noise.
    seed : int, sequence of int, Generator or None
        For `numpy.random.default_rng`. NumPy's global generator is not touched.
    callback : callable, optional
        Called after every iteration as ``callback(xk)``, or with an `OptimizeResult` where its only parameter
        is named ``intermediate_result`` (its ``fun`` is the mean of the pair). `StopIteration` stops.
    disp : bool
        Print the progress.
    savestate : path or mapping, optional
        Keep the state there, replaced as a whole: at the start, every `save_iters` iterations, at least
        every 5 s, at the end, and when an exception passes through. The same call goes on from it and gives
        the same result, bit for bit, as one that was never stopped (as far as `fnc` does). `maxiter`, `ftol`,
        `param_tol` and the reports may differ.
    save_iters : int
        See `savestate`.
    tol : float, optional
        Replaces `ftol`; for `scipy.optimize.minimize`.
    jac, hess, hessp, constraints
        For `scipy.optimize.minimize`; derivatives are not used, constraints are refused.

    Returns
    -------
    SPSAResult
        An `OptimizeResult` that unpacks as ``params, value, n_iter``.

    Raises
    ------
    InvalidInputError, InvalidTypeError
        Where the start is outside the bounds or not finite, an option cannot be used, `fnc` returns something
        other than one number, or `savestate` holds another run or is damaged.

    Notes
    -----
    A pair with a NaN or infinite value makes no step and is counted in ``n_skipped``; from the second in a row
    on, the iterate goes halfway back to where the last pair was finite, and after 100 in a row the run ends.

    Where the minimum lies on a bound, the slope across it acts on the other parameters as noise would, and they
    settle only as slowly as the gains decay.

    The defaults ``a_par=1e-6`` and ``maxiter=10000`` are the historical ones; they make first steps of 1.6e-8
    times the slope, too little for most objectives. Try ``a_par=None`` first.

    References
    ----------
    J. C. Spall, "Implementation of the simultaneous perturbation algorithm for stochastic optimization",
    IEEE Transactions on Aerospace and Electronic Systems 34(3):817-823, 1998.

    Examples
    --------
    >>> import numpy as np
    >>> noise = np.random.default_rng(1)
    >>> params, value, n_iter = SPSA(
    ...     lambda p: float(np.sum((p - 3) ** 2) + 0.01 * noise.normal()), [1, 2], a_par=0.1, maxiter=500
    ... )
    >>> print(np.round(params, 1), n_iter)
    [3. 3.] 500
    """
    refuse_derivatives(jac, hess, hessp, constraints)
    options = SPSAOptions(
        a_par, c_par, param_tol, ftol if tol is None else tol, maxiter, alpha, gamma, stability, scale,
        max_step, window,
    )  # fmt: skip
    start, shape = read_start(initparams)
    lower, upper = read_bounds(bounds, shape)
    rng, label = read_seed(seed)
    reports = Reports(shape, callback, disp, every(print_iters))
    save_iters = count("save_iters", save_iters, 1)
    fun = flat(fnc, args, shape)

    found = None if savestate is None else load(savestate)
    if found is not None and options.stability is None:
        options = replace(options, stability=found[0].get("stability"))
    recipe = options.bind(start, lower, upper)
    settings = settings_of(options, recipe, shape, label)
    if found is not None:
        refuse_other(found[0], settings, savestate)
        rng.bit_generator.state = found[1].rng
    state = recipe.init(rng) if found is None else found[1]
    if savestate is None:
        state, stop = iterate(recipe, fun, state, rng, watch=reports.bound(recipe))
    else:
        with Keeper(savestate, settings, save_iters) as keep:
            keep(state)
            state, stop = iterate(recipe, fun, state, rng, keep=keep, watch=reports.bound(recipe))
            keep(state)
    return result_of(recipe, state, stop, shape)


class Reports:
    """What is told after an iteration: the callback, and the progress."""

    def __init__(self, shape: tuple[int, ...], callback: Any, disp: bool, every: float) -> None:
        if callback is not None and not callable(callback):
            raise InvalidTypeError(f"callback must be callable, not {callback!r}")
        self.shape = shape
        self.callback = callback
        self.disp = disp
        self.every = every
        try:
            names = set(inspect.signature(callback).parameters) if callback is not None else set()
        except (TypeError, ValueError):  # a built-in without a signature
            names = set()
        self.wants_result = names == {"intermediate_result"}

    def bound(self, recipe: SPSARecipe) -> Callable[[SPSAState], None]:
        """The function for `iterate`."""
        return lambda state: self.tell(recipe, state)

    def tell(self, recipe: SPSARecipe, state: SPSAState) -> None:
        """Report `state`; a `StopIteration` of the callback passes through."""
        if state.nit % self.every < 1:
            text = (
                f"SPSA: iteration {state.nit} of {recipe.maxiter}, {state.nfev} evaluations, objective "
                f"{state.mean:.6g} (mean of the pair), a = {state.a:.3g}, c_k = {recipe.gains.c_k(state.k):.3g}"
            )
            log.info(text)
            if self.disp:
                print(text, flush=True)
        if self.callback is None:
            return
        x = shaped(state.x, self.shape)
        if self.wants_result:
            self.callback(intermediate_result=_new_news(x=x, fun=state.mean, nit=state.nit, nfev=state.nfev))
        else:
            self.callback(x)


def result_of(recipe: SPSARecipe, state: SPSAState, stop: Stop, shape: tuple[int, ...]) -> SPSAResult:
    """The result of a run that has ended."""
    stop, message = describe(stop, state)
    x, value = answered(state)
    gains = recipe.gains
    result: SPSAResult = _new_result(
        x=shaped(x, shape),
        fun=value,
        nit=state.nit,
        nfev=state.nfev,
        success=stop.success,
        status=stop.status,
        message=message,
        n_tied=state.n_tied,
        n_skipped=state.n_skipped,
        gains={"a": state.a, "c": gains.c, "A": gains.A, "alpha": gains.alpha, "gamma": gains.gamma},
        rng_state=state.rng,
    )
    return result


def settings_of(options: SPSAOptions, recipe: SPSARecipe, shape: tuple[int, ...], label: object) -> dict[str, Any]:
    """What two runs must share for one to go on from the other's state."""
    return {
        "initparams": recipe.x0.reshape(shape),
        "lower bounds": recipe.lower,
        "upper bounds": recipe.upper,
        "a_par": options.a_par,
        "c_par": options.c_par,
        "alpha": options.alpha,
        "gamma": options.gamma,
        "stability": recipe.gains.A,
        "scale": recipe.scale,
        "max_step": options.max_step,
        "window": options.window,
        "seed": label,
    }
