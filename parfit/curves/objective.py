"""A curve as an objective: datasets with ``x``, ``y`` and ``weight``, and the residuals that `fit` minimises.

In a trace, what comes into `Residuals` has operators and methods only, and no function of NumPy's is called on it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parfit.core.data import Datasets, read_data
from parfit.core.errors import InvalidInputError
from parfit.curves.arguments import Curves

__all__ = ["Jacobian", "Residuals", "assembled"]

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Residuals:
    """``weight * (f(x, *params) - y)`` of one dataset, a mapping of ``y``, and where they are ``x`` and ``weight``.

    Attributes
    ----------
    f
        The user's function.
    x, weight
        What all datasets share: an x that is no array, and the inverse of the factor of a covariance matrix.
    turned
        Whether the points are the first axis of each dataset's ``x``, and not the last.
    strict
        Whether `f` must give a value for each point.
    """

    f: Callable[..., Any]
    x: Any = None
    weight: FloatArray | None = None
    turned: bool = False
    strict: bool = False

    def __call__(self, params: Any, data: Any) -> Any:
        y = data["y"]
        value = self.of(self.f, params, data)
        if not hasattr(value, "shape"):
            value = np.asarray(value)
        if value.shape != y.shape and (self.strict or value.shape not in ((), (1,))):
            raise InvalidInputError(
                f"f gave shape {value.shape}, and a dataset of ydata has {y.shape}" + self.strict * _OTHERWISE
            )
        weight = data.get("weight", self.weight)
        if weight is None:
            return value - y
        return weight @ (value - y) if weight.ndim == 2 else weight * (value - y)

    def of(self, function: Callable[..., Any], params: Any, data: Any) -> Any:
        """A function of x and the parameters, which are a dict, or a Series where datasets have their own starts."""
        x = data.get("x", self.x)
        if self.turned:
            x = x.transpose((*range(1, x.ndim), 0))
        return function(x, *(params.values() if isinstance(params, dict) else params))


_OTHERWISE = (
    "; xdata was read as a row for each dataset, and predictors that all share are "
    "np.broadcast_to(xdata, (B, *xdata.shape))"
)


@dataclass(frozen=True, eq=False)
class Jacobian:
    """The user's Jacobian of f, shape (m, n), as that of the residuals."""

    residuals: Residuals
    jac: Callable[..., Any]

    def __call__(self, params: Any, data: Any) -> Any:
        J = np.asarray(self.residuals.of(self.jac, params, data))
        weight = data.get("weight", self.residuals.weight)
        if weight is None:
            return J
        return weight @ J if weight.ndim == 2 else (weight[:, None] if weight.ndim else weight) * J


def assembled(
    f: Callable[..., Any], curves: Curves, spread: FloatArray | None, gone: NDArray[np.bool_] | None
) -> tuple[Datasets, Residuals]:
    """The datasets and their residuals, where `spread` is what `Curves.sigma` gave, and `gone`, (B, m), is left out.

    An x that all datasets share goes into each of them, so that a compiled program serves any x of its shape.
    """
    x, y = curves.x, curves.y
    made = Residuals(f, strict=curves.own and len(y) > 1 and x.shape == y.shape)
    data: Any = {"y": y}
    if isinstance(x, np.ndarray):
        data["x"] = x if curves.own else np.broadcast_to(x, (len(y), *x.shape))
    else:
        made = replace(made, x=x)
    if gone is not None:
        made = replace(made, turned="x" in data)
        data = [_kept(i, ~gone[i], data, spread) for i in range(len(y))]
    elif spread is not None and spread.ndim == 3 and len(spread) == 1:
        made = replace(made, weight=_whitening(spread)[0])
    elif spread is not None:
        data["weight"] = _whitening(spread) if spread.ndim == 3 else _inverse(spread)
    datasets = read_data(data)
    datasets.labels, datasets.hint = curves.labels, ""
    return datasets, made


def _kept(i: int, kept: NDArray[np.bool_], data: dict[str, FloatArray], spread: FloatArray | None) -> dict[str, Any]:
    """The points of one dataset that are there, as the first axis of each array."""
    item: dict[str, Any] = {"y": data["y"][i, kept]}
    if "x" in data:
        item["x"] = np.ascontiguousarray(np.moveaxis(data["x"][i][..., kept], -1, 0))
    if spread is not None:
        part = spread[i % len(spread)]
        if part.ndim == 2:
            item["weight"] = _whitening(part[np.ix_(kept, kept)][None])[0]
        else:
            item["weight"] = _inverse(part[kept] if part.ndim else part)
    return item


def _inverse(spread: Any) -> Any:
    with np.errstate(divide="ignore"):  # a deviation of 0 makes infinite residuals, the matter of its dataset
        return 1.0 / spread


def _whitening(C: FloatArray) -> FloatArray:
    """The inverses of the Cholesky factors of covariance matrices, shape (k, m, m); NaN where there is no factor.

    Raises
    ------
    InvalidInputError
        Where none has one.
    """
    try:
        L = np.linalg.cholesky(C)
    except np.linalg.LinAlgError:
        found = [_factor(one) for one in C]
        if all(one is None for one in found):
            raise InvalidInputError(f"`sigma` of shape {C.shape[-2:]} must be positive definite") from None
        L = np.array([np.full_like(C[0], np.nan) if one is None else one for one in found])
    W = np.zeros_like(L)
    for i in range(L.shape[1]):  # forward substitution, all matrices at once
        W[:, i, i] = 1.0
        W[:, i] -= np.einsum("kj,kjl->kl", L[:, i, :i], W[:, :i])
        W[:, i] /= L[:, i, i, None]
    return W


def _factor(C: FloatArray) -> FloatArray | None:
    try:
        L: Any = np.linalg.cholesky(C)
        return L  # type: ignore[no-any-return]
    except np.linalg.LinAlgError:
        return None
