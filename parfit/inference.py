"""Covariance, standard errors, rank and intervals from the Jacobian of the residuals.

The formulas are those of `scipy.optimize.curve_fit`: the covariance is the pseudo-inverse of ``J.T @ J``,
scaled by the residual variance ``2 * cost / (m - n)``. Where the rank is short, `curve_fit` gives infinity
for everything; here the parameters that the data determine keep their standard errors, and those that take
part in an undetermined direction have an infinite one.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import pandas as pd
import scipy
from numpy.typing import NDArray

__all__ = ["Inference", "conf_int", "from_jacobian"]

FloatArray = NDArray[np.float64]

#: A parameter takes part in a null direction of the Jacobian where its squared share is above this.
_SHARE = 1e-8


class Inference(NamedTuple):
    """What a Jacobian says.

    Attributes
    ----------
    cov : ndarray, shape (n, n)
        The covariance; infinite rows and columns where a parameter is not determined, NaN where the Jacobian is
        not finite.
    rank
        The numerical rank of the Jacobian.
    condition
        The ratio of its largest to its smallest singular value.
    """

    cov: FloatArray
    rank: int
    condition: float


def from_jacobian(J: FloatArray, cost: float, *, absolute_sigma: bool = False) -> Inference:
    """The covariance of least-squares parameters.

    Parameters
    ----------
    J : ndarray, shape (m, n)
        The Jacobian of the residuals at the solution.
    cost
        ``0.5 * sum(r**2)`` there.
    absolute_sigma
        True where the residuals are in units of their standard deviation, so that nothing is scaled.

    Returns
    -------
    Inference
        With ``m == n`` residuals nothing is left to estimate the variance from: the covariance is infinite.

    Notes
    -----
    The rank is judged after the columns are scaled to unit length, so that it does not depend on the units of
    the parameters; the threshold is `numpy.linalg.matrix_rank`'s, ``eps * max(m, n)``, widened to the square root
    of the machine epsilon times the largest singular value, since a Jacobian by forward differences is only that
    exact.
    """
    m, n = J.shape
    if n == 0:
        return Inference(np.empty((0, 0)), 0, math.nan)
    scale = np.sqrt((J * J).sum(axis=0))
    if not scale.sum() < math.inf:
        return Inference(np.full((n, n), math.nan), -1, math.nan)
    dead = not scale.all()
    safe = np.where(scale > 0.0, scale, 1.0) if dead else scale
    # LAPACK itself: NumPy's wrapper takes as long as the decomposition of a small matrix
    _, s, Vt, info = scipy.linalg.lapack.dgesdd(J / safe, full_matrices=0)
    if info:
        return Inference(np.full((n, n), math.nan), -1, math.nan)
    values = s.tolist()
    largest, smallest = values[0], values[-1]
    threshold = max(m, n) ** 0.5 * _RANK_RTOL * largest
    rank = sum(value > threshold for value in values)
    condition = largest / smallest if smallest > 0.0 else math.inf
    if rank == 0 or (m <= n and not absolute_sigma):
        return Inference(np.full((n, n), math.inf), rank, condition)
    W = Vt[:rank] / s[:rank, None] / safe
    if not absolute_sigma:
        W *= math.sqrt(2.0 * cost / (m - n))
    cov = W.T @ W
    if rank < n:
        lost = 1.0 - (Vt[:rank] ** 2).sum(axis=0) > _SHARE
        cov[lost, :] = math.inf
        cov[:, lost] = math.inf
    return Inference(cov, rank, condition)


#: Forward differences leave an error of about 1.5e-8 in each column of unit length.
_RANK_RTOL = float(np.finfo(float).eps ** 0.5)


def conf_int(params: pd.DataFrame, stderr: pd.DataFrame, freedom: NDArray[np.intp], level: float) -> pd.DataFrame:
    """Confidence intervals from Student's t distribution.

    Parameters
    ----------
    params, stderr
        Labels × names.
    freedom : ndarray, shape (B,)
        The degrees of freedom, ``m - n``, of each dataset.
    level
        The coverage, between 0 and 1.

    Returns
    -------
    DataFrame
        Labels × (name, ``lower`` or ``upper``).
    """
    with np.errstate(invalid="ignore"):
        quantile = np.asarray(scipy.stats.t.ppf(0.5 + level / 2, np.where(freedom > 0, freedom, np.nan)))
        width = quantile[:, None] * stderr.to_numpy()
    columns = pd.MultiIndex.from_product([params.columns, ["lower", "upper"]])
    values = np.stack([params.to_numpy() - width, params.to_numpy() + width], axis=2)
    return pd.DataFrame(values.reshape(len(params), len(columns)), index=params.index, columns=columns)
