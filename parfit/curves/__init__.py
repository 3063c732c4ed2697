"""`curve_fit`: SciPy's call with a batch axis, a thin layer over `fit`.

    arguments.py   what belongs to each dataset, by its shape; names, starts, bounds
    objective.py   f as residuals of a dataset ──▶ fit ──▶ popt, pcov

What `fit` refuses or records is refused or recorded here; SciPy's names, shapes and warnings are what is added.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import scipy
from numpy.typing import NDArray

from parfit.core.data import Datasets
from parfit.core.errors import FitError, InvalidInputError, ParfitWarning, refuse_unknown
from parfit.core.parameters import Parameters
from parfit.core.problem import Problem
from parfit.core.structure import Structure
from parfit.core.tasks import RowTask
from parfit.curves.arguments import middle, names_of, read_curves
from parfit.curves.objective import Jacobian, assembled
from parfit.fitting import fit
from parfit.inference import from_jacobian
from parfit.progress import Progress
from parfit.results import Fits
from parfit.solvers.differences import numerical_jacobian

__all__ = ["curve_fit"]

FloatArray = NDArray[np.float64]

_METHODS = ("lm", "trf", "dogbox")
#: Below this, dividing by the variance of the residuals could lose digits to underflow.
_LEAST_VARIANCE = 1e-150


def curve_fit(
    f: Callable[..., Any],
    xdata: Any,
    ydata: Any,
    p0: Any = None,
    sigma: Any = None,
    absolute_sigma: bool = False,
    check_finite: bool | None = None,
    bounds: Any = (-np.inf, np.inf),
    method: str | None = None,
    jac: Any = None,
    *,
    full_output: bool = False,
    nan_policy: str | None = None,
    engine: str = "auto",
    executor: Any = None,
    workers: int | None = None,
    progress: Progress = None,
    **kwargs: Any,
) -> tuple[Any, ...]:
    """Fit a function to each of many curves: `scipy.optimize.curve_fit` with a batch axis.

    Parameters
    ----------
    f : callable
        ``f(x, *params)``, with NumPy or `jax.numpy`, for one dataset: shape (m,), or a number for all points.
    xdata : array or object
        Shared by all datasets, (m,) or (k, m) for k predictors, or each dataset's own, (B, m) or (B, k, m). An array
        of two axes or more whose first is B and whose last is m belongs to the datasets, and any other is shared. So
        (B, m) is a row per dataset also where B predictors could be meant: `f` must then give m values, and not a
        number for all points, and shared predictors are written ``np.broadcast_to(xdata, (B, *xdata.shape))``. An
        object that is no array goes to `f` as it is.
    ydata : array, shape (B, m), or DataFrame
        A dataset per row. With one axis, (m,), it is one dataset, and what is returned has SciPy's shapes.
    p0 : array, shape (n,) or (B, n), optional
        The start. By default 1, or between the bounds, as in SciPy; n by the signature of `f`.
    sigma : number or array, optional
        Standard deviations: a number, (m,), (B, m), or (B, 1) for one a dataset; or covariance matrices, (m, m) or
        (B, m, m). Where B is m, an array of two axes is a covariance matrix if it is symmetric, else it holds the
        standard deviations of each dataset.
    absolute_sigma : bool
        Whether `sigma` is in the units of `ydata`, so that `pcov` is not scaled to a reduced chi square of 1.
    check_finite : bool, optional
        Whether NaN and infinity are refused; by default without a `nan_policy`. With False, a dataset that holds any
        fails, and the others are fitted.
    bounds : tuple of two, or scipy.optimize.Bounds
        ``(lower, upper)``, each a number, (n,) or (B, n). A parameter whose bounds are equal stays there.
    method : {"lm", "trf", "dogbox"}, optional
        By default ``"lm"``, which takes bounds too.
    jac : callable or str, optional
        ``jac(x, *params)``, shape (m, n), or ``"2-point"``, ``"3-point"``, ``"cs"``; a compiled fit needs none.
    full_output : bool
        Whether the `Fits` is returned too, in place of SciPy's ``infodict``, ``mesg`` and ``ier``.
    nan_policy : {None, "raise", "omit"}
        ``"raise"`` refuses NaN in `ydata` and `xdata`; ``"omit"`` leaves such points out, dataset by dataset.
    engine, executor, workers, progress
        As in `parfit.fit`. One dataset alone is fitted in this process.
    **kwargs
        Options of `scipy.optimize.least_squares`: ``ftol``, ``xtol``, ``gtol``, ``max_nfev``, ``x_scale``, ...

    Returns
    -------
    popt : ndarray, shape (B, n)
        The parameters; NaN for a dataset that could not be fitted.
    pcov : ndarray, shape (B, n, n)
        Their covariances. Infinite for a dataset that could not be fitted, for a parameter that the data do not
        determine (where SciPy gives infinity for all parameters), and for m = n points without `absolute_sigma`.
    fits : Fits
        With `full_output`: each dataset's status and message. Its standard errors are those of
        ``absolute_sigma=False``.

    Raises
    ------
    InvalidInputError, InvalidTypeError, UnknownNameError
        For arguments that no dataset can be fitted with (ValueError and TypeError).
    FitError
        Where `ydata` is one dataset and its fit fails (RuntimeError).

    Warns
    -----
    ParfitWarning
        Of how many datasets that could not be fitted, by status.
    scipy.optimize.OptimizeWarning
        Of how many datasets whose covariance is not finite.

    Notes
    -----
    A DataFrame as `sigma`, `p0` or one side of `bounds`, or as `xdata` where it has the shape of `ydata`, has a row
    per dataset, found by its label where `ydata` is a DataFrame too; columns with names are found by those of the
    parameters, which are the arguments of `f`.

    Examples
    --------
    >>> import numpy as np, parfit
    >>> def decay(t, height, rate):
    ...     return height * np.exp(-rate * t)
    >>> t = np.linspace(0, 4, 20)
    >>> y = [decay(t, 3.0, 0.5), decay(t, 2.0, 0.9)]
    >>> popt, pcov = parfit.curve_fit(decay, t, y, engine="rows", executor="serial")
    >>> popt.round(3)
    array([[3. , 0.5],
           [2. , 0.9]])
    >>> pcov.shape
    (2, 2, 2)
    """
    curves = read_curves(xdata, ydata)
    names = names_of(f, p0)
    lower, upper = curves.bounds(bounds, names)
    start = middle(lower, upper) if p0 is None else curves.by_parameter("p0", p0, names)
    gone = curves.missing(check_finite, nan_policy)
    datasets, residuals = assembled(f, curves, curves.sigma(sigma), gone)
    derivative = Jacobian(residuals, jac) if callable(jac) else jac
    if curves.single and executor is None and workers is None and engine != "batch":
        executor = "serial"
    fits = fit(
        datasets,
        residuals,
        _start(start, names, curves.labels),
        bounds=_bounds(lower, upper, names, curves.labels),
        method=_method(method),
        options=_options(kwargs),
        jac=derivative,
        engine=engine,
        executor=executor,
        workers=workers,
        progress=progress,
    )
    failed = ~fits.success.to_numpy()
    if curves.single and failed.any():
        raise _failure(fits) from (fits.row(0).error.to_exception() if len(fits.errors) else None)
    popt, pcov = fits.params.to_numpy(copy=True), fits.covariances()
    if absolute_sigma:
        _unscale(pcov, fits, datasets, _problem(residuals, derivative, names, lower, upper))
    pcov[failed | np.isnan(pcov).any(axis=(1, 2))] = np.inf
    popt[failed] = np.nan
    _warn(fits, failed, ~np.isfinite(pcov).all(axis=(1, 2)) & ~failed, single=curves.single)
    made = (popt[0], pcov[0]) if curves.single else (popt, pcov)
    return (*made, fits) if full_output else made


# ---- the arguments of fit


def _start(start: FloatArray, names: tuple[str, ...], labels: pd.Index[Any]) -> Any:
    if start.ndim == 1:
        return dict(zip(names, start.tolist(), strict=True))
    return pd.DataFrame(start, index=labels, columns=list(names))


def _bounds(lower: FloatArray, upper: FloatArray, names: tuple[str, ...], labels: pd.Index[Any]) -> Any:
    if (lower == -np.inf).all() and (upper == np.inf).all():
        return None
    if lower.ndim == 1:
        return dict(zip(names, zip(lower.tolist(), upper.tolist(), strict=True), strict=True))
    return tuple(pd.DataFrame(side, index=labels, columns=list(names)) for side in (lower, upper))


def _method(method: str | None) -> str:
    if method is None:
        return "lm"
    if method not in _METHODS:
        refuse_unknown("method of curve_fit", method, _METHODS)
    return method


def _options(given: dict[str, Any]) -> dict[str, Any]:
    """The options, where `leastsq` has another name for the limit of evaluations, and 0 is its default."""
    if "args" in given:
        raise InvalidInputError("'args' is not a supported keyword argument: functools.partial gives f more arguments")
    made = {name: value for name, value in given.items() if name != "maxfev"}
    if given.get("maxfev"):
        made.setdefault("max_nfev", given["maxfev"])
    return made


# ---- what comes back


def _failure(fits: Fits) -> FitError:
    return FitError(f"Optimal parameters not found: {fits.summary['message'].iloc[0]}", fits.labels[0])


def _problem(residuals: Any, jac: Any, names: tuple[str, ...], lower: FloatArray, upper: FloatArray) -> Problem:
    structure = Structure(dict.fromkeys(names, 0.0))
    free = np.zeros(len(names), dtype=bool)
    return Problem(residuals, Parameters(structure, np.zeros(len(names)), lower, upper, free, inside=True), jac=jac)


def _unscale(pcov: FloatArray, fits: Fits, datasets: Datasets, problem: Problem) -> None:
    """Take the variance of the residuals out of the covariances; where it is 0 or infinite, make them anew."""
    p = problem.parameters
    freedom = fits.summary["n_residuals"].to_numpy() - (p.lower < p.upper).sum(axis=-1)
    variance = np.where(freedom > 0, 2.0 * fits.summary["cost"].to_numpy() / np.maximum(freedom, 1), 0.0)
    usable = variance > _LEAST_VARIANCE
    pcov[usable] /= variance[usable, None, None]
    x = fits.params.to_numpy()
    for i in np.flatnonzero(fits.success.to_numpy() & ~usable).tolist():
        lower, upper = np.broadcast_to(p.lower, x.shape)[i], np.broadcast_to(p.upper, x.shape)[i]
        pcov[i] = _absolute(problem, RowTask(i, datasets.one(i), x[i], lower, upper))


def _absolute(problem: Problem, task: RowTask) -> FloatArray:
    """The covariance of the parameters at the start of `task`, not scaled; NaN where it cannot be had."""
    bound = problem.bind(task)
    n = len(bound.full)
    free = np.arange(n) if bound.free is None else bound.free
    made = np.zeros((n, n))
    try:
        bound.start()
        J = bound.jac(bound.x0) if callable(bound.jac) else numerical_jacobian(bound, bound.x0)
        made[np.ix_(free, free)] = from_jacobian(J, 0.0, absolute_sigma=True).cov
    except Exception:  # noqa: BLE001 - the user's own function, beside the solution
        made[np.ix_(free, free)] = np.nan
    return made


def _warn(fits: Fits, failed: NDArray[np.bool_], lost: NDArray[np.bool_], *, single: bool) -> None:
    """How many datasets failed, and how many have no covariance."""
    said = len(fits) > 1 and len(fits.errors) == len(fits) and fits.errors["type"].nunique() == 1  # by `fit`
    if failed.any() and not said:
        counts = fits.status[failed].astype(str).value_counts()
        statuses = ", ".join(f"{count} {status}" for status, count in counts.items())
        warnings.warn(
            f"{failed.sum()} of {len(fits)} datasets could not be fitted ({statuses}): their popt is NaN, their pcov "
            "infinite; full_output=True returns the Fits, with a message for each",
            ParfitWarning,
            stacklevel=3,
        )
    if lost.any():
        text = "Covariance of the parameters could not be estimated"
        text += "" if single else f" for {lost.sum()} of {len(fits)} datasets"
        warnings.warn(text, scipy.optimize.OptimizeWarning, stacklevel=3)
