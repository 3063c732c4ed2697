"""Covariance, standard errors, rank and intervals from the Jacobian of the residuals.

The formulas are those of `scipy.optimize.curve_fit`: the covariance is the pseudo-inverse of ``J.T @ J``,
scaled by the residual variance ``2 * cost / (m - n)``. Where the rank is short, `curve_fit` gives infinity
for everything; here the parameters that the data determine keep their standard errors, and those that take
part in an undetermined direction have an infinite one.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import scipy
from numpy.typing import NDArray

__all__ = [
    "Inference",
    "Inferences",
    "conditions",
    "conf_int",
    "from_hessians",
    "from_jacobian",
    "from_jacobians",
    "from_normal",
]

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


class Inferences(NamedTuple):
    """What the Jacobians or Hessians of many fits say.

    Attributes
    ----------
    cov : ndarray, shape (B, n (n + 1) / 2)
        The upper triangles of the covariances, as in `Inference`; 0 for parameters that are not free.
    rank, condition : ndarray, shape (B,)
        As in `Inference`.
    doubtful : ndarray of bool, shape (B,)
        Where rounding errors have taken half of the digits, so that the Jacobian itself is to be asked.
    """

    cov: FloatArray
    rank: NDArray[np.int32]
    condition: FloatArray
    doubtful: NDArray[np.bool_]

    def put(self, rows: NDArray[np.intp], others: Inferences) -> None:
        """Put in what is said of some rows, in place of what was there."""
        self.cov[rows] = others.cov
        self.rank[rows] = others.rank
        self.condition[rows] = others.condition
        self.doubtful[rows] = others.doubtful


#: Singular values from normal equations hold fewer than half of their digits below this, relative to the largest.
_DOUBTFUL = 1e-4


def from_normal(
    A: FloatArray,
    cost: FloatArray,
    m: NDArray[Any],
    free: NDArray[np.bool_],
    *,
    absolute_sigma: bool = False,
    has_jacobians: bool = False,
) -> Inferences:
    """As `from_jacobian`, for many fits at once and from their normal equations.

    Parameters
    ----------
    A : ndarray, shape (B, n, n)
        ``J.T @ J`` at the solutions.
    cost, m : ndarray, shape (B,)
        Half the sum of squares, and the number of residuals.
    free : ndarray of bool, shape (B, n)
        What was fitted.
    has_jacobians
        Whether the Jacobians of what is doubtful will be asked: where that is certain at once, nothing else is said.

    Returns
    -------
    Inferences
        `condition` is NaN where `conditions` gives it from the covariance.
    """
    variance = _variance(cost, m, free, absolute_sigma)
    return _by_columns(A, free, variance, np.maximum(m, A.shape[1]), has_jacobians)


def _by_columns(
    A: FloatArray, free: NDArray[np.bool_], variance: FloatArray, size: NDArray[Any], has_jacobians: bool = False
) -> Inferences:
    """Rows that are regular beyond doubt in operations on whole columns; the others by their spectra."""
    B, n = A.shape[:2]
    cov, spread = np.empty((B, n * (n + 1) // 2)), np.empty(B)
    with np.errstate(all="ignore"):
        for begin in range(0, B, _SLICE):
            part = slice(begin, begin + _SLICE)
            cov[part], spread[part] = _inverted(A[part], variance[part])
        plain = (n * spread < 1 / _DOUBTFUL**2) & (variance > 0) & np.isfinite(variance) & free.all(axis=1)
        # The trace of an inverse is at most n times its largest eigenvalue.
        hopeless = ~(spread < n / _DOUBTFUL**2) & has_jacobians & free.all(axis=1) & np.isfinite(A).all(axis=(1, 2))
    found = Inferences(cov, np.full(B, n, np.int32), np.full(B, math.nan), hopeless)
    others = np.flatnonzero(~plain & ~hopeless)
    if len(others):
        again = _from_quadratics(A[others], free[others], variance[others], size[others])
        found.put(others, again)
    return found


#: Rows that go through one pass: their numbers stay in the cache.
_SLICE = 4096


def _inverted(A: FloatArray, variance: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The upper triangles of ``variance * inv(A)``, and the trace of the inverse of `A` scaled to a unit diagonal.

    By Cholesky's factors, in operations on whole columns: for such small matrices many times faster than LAPACK's,
    one matrix at a time. What has no factors gives NaN.
    """
    n = A.shape[1]
    L: dict[tuple[int, int], FloatArray] = {}
    W: dict[tuple[int, int], FloatArray] = {}  # the inverse of L
    for j in range(n):
        W[j, j] = 1 / np.sqrt(A[:, j, j] - sum(L[j, k] * L[j, k] for k in range(j)))
        for i in range(j + 1, n):
            L[i, j] = (A[:, i, j] - sum(L[i, k] * L[j, k] for k in range(j))) * W[j, j]
    for j in range(n):
        for i in range(j + 1, n):
            W[i, j] = -sum(L[i, k] * W[k, j] for k in range(j, i)) * W[i, i]
    cov, spread, column = np.empty((len(A), n * (n + 1) // 2)), np.zeros(len(A)), 0
    for i in range(n):
        for j in range(i, n):
            entry = sum(W[k, i] * W[k, j] for k in range(j, n))
            spread += entry * A[:, i, i] if i == j else 0.0
            cov[:, column] = entry * variance
            column += 1
    return cov, spread


def conditions(cov: FloatArray) -> FloatArray:
    """The condition of the Jacobians, their columns scaled to unit length, that regular covariances come from.

    Parameters
    ----------
    cov : ndarray, shape (B, n (n + 1) / 2)
        Upper triangles, finite; variances of 0 belong to parameters that are not free.
    """
    n = int((2 * cov.shape[1]) ** 0.5)
    rows, columns = np.triu_indices(n)
    full = np.empty((len(cov), n, n))
    full[:, rows, columns] = full[:, columns, rows] = cov
    free = np.einsum("kii->ki", full) > 0
    full += np.where(free, 0.0, 1.0)[:, :, None] * np.eye(n)  # an eigenvalue of 1, which lies between the others
    A: FloatArray = np.asarray(np.linalg.inv(_scaled(full)), dtype=np.float64)
    values: FloatArray = np.asarray(np.linalg.eigvalsh(_scaled(A)), dtype=np.float64)
    return np.asarray(np.sqrt(values[:, -1] / values[:, 0]), dtype=np.float64)


def _scaled(A: FloatArray) -> FloatArray:
    """Positive definite matrices, scaled to a diagonal of ones."""
    scale = 1 / np.sqrt(np.einsum("kii->ki", A))
    scaled: FloatArray = A * (scale[:, :, None] * scale[:, None, :])
    return scaled


def from_hessians(H: FloatArray, free: NDArray[np.bool_]) -> Inferences:
    """The covariance of maximum-likelihood estimates: the inverse of the Hessian of a negative log-likelihood.

    Parameters
    ----------
    H : ndarray, shape (B, n, n)
        The Hessians of the objectives at the solutions.
    free : ndarray of bool, shape (B, n)
        What was fitted.

    Returns
    -------
    Inferences
        `condition` as from `from_normal`.
    """
    one = np.ones(len(H))
    found = _by_columns((H + H.swapaxes(1, 2)) / 2, free, one, np.full(len(H), H.shape[1]))
    return found._replace(doubtful=np.zeros(len(H), dtype=bool))


def from_jacobians(
    J: FloatArray, cost: FloatArray, m: NDArray[Any], free: NDArray[np.bool_], *, absolute_sigma: bool = False
) -> Inferences:
    """As `from_jacobian`, for many Jacobians of one shape, (B, m, n); rows of zeros in them are padding."""
    variance = _variance(cost, m, free, absolute_sigma)
    n = J.shape[2]
    J = np.where(free[:, None, :], J, 0.0)
    scale = np.sqrt((J * J).sum(axis=1))
    scale = np.where(scale > 0, scale, 1.0)
    finite: NDArray[np.bool_] = np.isfinite(J).all(axis=(1, 2))  # type: ignore[assignment]
    scaled = np.where(finite[:, None, None], J / scale[:, None, :], 0.0)
    _, s, Vt = np.linalg.svd(scaled, full_matrices=False)
    if s.shape[1] < n:  # fewer residuals than parameters: what they say nothing of is of size 0
        extra = n - s.shape[1]
        s = np.pad(s, ((0, 0), (0, extra)))
        Vt = np.pad(Vt, ((0, 0), (0, extra), (0, 0)))
    held = n - free.sum(axis=1)
    return _from_spectrum(s, Vt.swapaxes(1, 2), scale, free, finite, variance, np.maximum(m, n), held)


def _variance(cost: FloatArray, m: NDArray[Any], free: NDArray[np.bool_], absolute: bool) -> FloatArray:
    if absolute:
        return np.ones(len(cost))
    freedom = m - free.sum(axis=1)
    return np.where(freedom > 0, 2 * cost / np.maximum(freedom, 1), math.inf)


def _from_quadratics(A: FloatArray, free: NDArray[np.bool_], variance: FloatArray, size: Any) -> Inferences:
    n = A.shape[1]
    inner = free[:, :, None] & free[:, None, :]
    finite: NDArray[np.bool_] = np.isfinite(A).all(axis=(1, 2))  # type: ignore[assignment]
    norms = np.abs(np.diagonal(A, axis1=1, axis2=2))
    scale = np.sqrt(np.where(free & (norms > 0), norms, 1.0))
    if not (free.all() and finite.all()):
        A = np.where(inner & finite[:, None, None], A, 0.0)
    inverse = 1 / scale
    scaled = A * (inverse[:, :, None] * inverse[:, None, :])
    values, V = np.linalg.eigh(scaled)
    s = np.sqrt(np.maximum(values[:, ::-1], 0.0))
    held = n - free.sum(axis=1)
    return _from_spectrum(s, V[:, :, ::-1], scale, free, finite, variance, size, held)


def _from_spectrum(
    s: FloatArray,
    V: FloatArray,
    scale: FloatArray,
    free: NDArray[np.bool_],
    finite: NDArray[np.bool_],
    variance: FloatArray,
    size: Any,
    held: NDArray[np.intp],
) -> Inferences:
    """From singular values, shape (B, n), largest first, of which the last `held` belong to what is not free."""
    n = s.shape[1]
    rows, columns = np.triu_indices(n)
    largest = s[:, :1]
    kept = s > (np.asarray(size) ** 0.5 * _RANK_RTOL)[..., None] * largest
    least = np.take_along_axis(s, np.maximum(n - 1 - held, 0)[:, None], axis=1)[:, 0]
    doubtful = finite & ~(least > _DOUBTFUL * largest[:, 0])
    with np.errstate(divide="ignore", invalid="ignore"):
        condition = np.where(least > 0, largest[:, 0] / least, math.inf)
        W = V / s[:, None, :] / scale[:, :, None]
    if kept.all() and np.isfinite(variance).all() and finite.all():
        W *= np.sqrt(variance)[:, None, None]
        return Inferences((W @ W.swapaxes(1, 2))[:, rows, columns], np.full(len(s), n, np.int32), condition, doubtful)
    W = np.where(kept[:, None, :], W, 0.0)
    rank = kept.sum(axis=1)
    vain = ~np.isfinite(variance) | (rank == 0)
    W *= np.sqrt(np.where(vain, 0.0, variance))[:, None, None]
    cov = (W @ W.swapaxes(1, 2))[:, rows, columns]
    lost = vain[:, None] | (1.0 - np.where(kept[:, None, :], V * V, 0.0).sum(axis=2) > _SHARE)
    lost &= free
    if lost.any():
        cov[(lost[:, rows] & free[:, columns]) | (lost[:, columns] & free[:, rows])] = math.inf
    cov[~(free[:, rows] & free[:, columns])] = 0.0
    cov[~finite] = math.nan
    return Inferences(cov, np.where(finite, rank, -1).astype(np.int32), np.where(finite, condition, math.nan), doubtful)


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
