"""The arguments of `curve_fit` as arrays, by their shapes.

`read_curves` takes `ydata` and `xdata`; its `Curves` reads what else may vary from dataset to dataset.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from parfit.core.bounds import align
from parfit.core.errors import InvalidInputError, InvalidTypeError, refuse_unknown, shown
from parfit.core.values import is_array

__all__ = ["Curves", "middle", "names_of", "read_curves"]

FloatArray = NDArray[np.float64]

#: Columns with a meaning of their own in a table of parameters.
_COLUMNS = {"value", "lower_bound", "upper_bound", "fixed"}


@dataclass(frozen=True, eq=False)
class Curves:
    """The points of all datasets.

    Attributes
    ----------
    y : ndarray, shape (B, m)
        As given.
    labels
        Of the datasets.
    single, framed
        Whether `ydata` was one dataset, or a DataFrame.
    x : ndarray or object
        An array where it could be made one.
    own
        Whether the leading axis of `x` is that of the datasets.
    """

    y: FloatArray
    labels: pd.Index[Any]
    single: bool
    framed: bool
    x: Any = None
    own: bool = False

    def numbers(self, what: str, value: Any) -> FloatArray:
        """An argument as floats; the rows of a frame in the order of the labels."""
        if isinstance(value, pd.DataFrame) and self.framed:
            value = align(value, self.labels, what)
        return _numbers(what, value)

    def by_parameter(self, what: str, value: Any, names: tuple[str, ...]) -> FloatArray:
        """Starts or bounds, shape (n,) or (B, n)."""
        if isinstance(value, pd.DataFrame) and not isinstance(value.columns, pd.RangeIndex):
            if set(value.columns) != set(names):
                raise InvalidInputError(f"{what} has the columns {list(value.columns)} for the parameters {names}")
            value = value[list(names)]
        found, n = self.numbers(what, value), len(names)
        if found.size == 1 and found.ndim < 2:
            return np.full(n, found.item())
        if found.shape not in ((n,), (len(self.y), n)) or (isinstance(value, pd.DataFrame) and found.ndim != 2):
            raise InvalidInputError(
                f"{what} has shape {found.shape}; for {n} parameters and {len(self.y)} datasets it must be "
                f"({n},), for all alike, or {(len(self.y), n)}"
            )
        return found

    def bounds(self, bounds: Any, names: tuple[str, ...]) -> tuple[FloatArray, FloatArray]:
        """Lower and upper bounds, both (n,) or both (B, n)."""
        if hasattr(bounds, "lb") and hasattr(bounds, "ub"):
            sides = (bounds.lb, bounds.ub)
        elif isinstance(bounds, (tuple, list, np.ndarray)) and len(bounds) == 2:
            sides = (bounds[0], bounds[1])
        else:
            raise InvalidInputError(
                "bounds must be (lower, upper), each a number, (n,) or (B, n), or scipy.optimize.Bounds; "
                f"this is {type(bounds).__name__}"
                + (f" with {len(bounds)} entries" if hasattr(bounds, "__len__") else "")
            )
        found = [
            self.by_parameter(f"the {side} side of bounds", value, names)
            for side, value in zip(("lower", "upper"), sides, strict=True)
        ]
        lower, upper = np.broadcast_arrays(*found)
        return lower.copy(), upper.copy()

    def sigma(self, sigma: Any) -> FloatArray | None:
        """Standard deviations, shape (B,) or (B, m); or covariance matrices, (B, m, m), or (1, m, m) for all alike."""
        if sigma is None:
            return None
        found, (B, m) = self.numbers("sigma", sigma), self.y.shape
        framed = isinstance(sigma, pd.DataFrame)
        if not framed and (found.size == 1 or found.shape == (m,)):
            wrong = np.isnan(found) | (found == 0)
            if wrong.any():
                at = f" at position {int(np.argmax(wrong))}" if found.ndim else ""
                raise InvalidInputError(f"sigma is {found[wrong][0]:g}{at}, which is no standard deviation")
            return np.broadcast_to(found.reshape(-1), (B, m)) if found.size == m else np.full(B, found.item())
        if not framed and found.shape == (m, m) and (B != m or np.allclose(found, found.T, atol=0)):
            return found[None]
        if found.shape == (B, m) or (found.shape == (B, m, m) and not framed):
            return found
        if found.shape == (B, 1):
            return found[:, 0]
        raise InvalidInputError(
            f"sigma has shape {found.shape}, and ydata {self.y.shape[self.single :]}: standard deviations are a number,"
            f" {(m,)}, {(B, m)} or {(B, 1)}, and covariance matrices {(m, m)} or {(B, m, m)}"
        )

    def missing(self, check_finite: bool | None, nan_policy: str | None) -> NDArray[np.bool_] | None:
        """The points to be left out, shape (B, m); None for none.

        Raises
        ------
        InvalidInputError
            For NaN or infinity that is refused.
        """
        if nan_policy not in (None, "raise", "omit"):
            refuse_unknown("nan_policy", nan_policy, ("raise", "omit"))
        check = nan_policy is None if check_finite is None else check_finite
        arrays = isinstance(self.x, np.ndarray)
        if check or nan_policy == "raise":
            wrong: Any = (lambda a: ~np.isfinite(a)) if check else np.isnan
            self._refuse("ydata", self.y, wrong(self.y), own=True)
            if arrays:
                self._refuse("xdata", self.x, wrong(self.x), own=self.own)
        if nan_policy != "omit" or check:
            return None
        gone = np.isnan(self.y)
        lost = np.isnan(self.x) if arrays else np.zeros(1, dtype=bool)
        if not gone.any() and not lost.any():
            return None
        if arrays:
            if self.x.shape[-1:] != self.y.shape[1:]:
                raise InvalidInputError(
                    f"nan_policy='omit' leaves points out along the last axis of xdata, of shape {self.x.shape}, "
                    f"whose length must be {self.y.shape[1]}, as in ydata"
                )
            gone = gone | lost.any(axis=tuple(range(int(self.own), lost.ndim - 1)))
        return gone

    def _refuse(self, what: str, values: FloatArray, wrong: NDArray[np.bool_], *, own: bool) -> None:
        if not wrong.any():
            return
        at = tuple(np.argwhere(wrong)[0].tolist())
        where = f" of dataset {shown(self.labels[at[0]])}" if own and not self.single else ""
        place = at[1:] if own else at
        text = f"{what}{where} is {values[at]:g} at position {place[0] if len(place) == 1 else place}"
        ways = ["nan_policy='omit' leaves such points out"] if np.isnan(values[at]) else []
        if own and not self.single:
            ways.append("check_finite=False fits the other datasets")
        raise InvalidInputError(text + (": " if ways else "") + ", and ".join(ways))


def read_curves(xdata: Any, ydata: Any) -> Curves:
    """The points.

    Raises
    ------
    InvalidInputError, InvalidTypeError
        For shapes that cannot be read.
    """
    y = _numbers("ydata", ydata)
    if y.ndim not in (1, 2):
        many = ": ydata.reshape(len(ydata), -1) has a row for each" if y.ndim > 2 else ""
        raise InvalidInputError(f"ydata has shape {y.shape}; (m,) is one dataset, and (B, m) are B{many}")
    if y.shape[-1] == 0:
        raise InvalidInputError(f"`ydata` must not be empty, and has shape {y.shape}")
    framed = isinstance(ydata, pd.DataFrame)
    labels = ydata.index.copy() if framed else pd.RangeIndex(len(y) if y.ndim == 2 else 1)
    made = Curves(np.atleast_2d(y), labels, y.ndim == 1, framed)
    x, own = _read_x(made, xdata)
    return Curves(made.y, labels, made.single, framed, x, own)


def _read_x(curves: Curves, xdata: Any) -> tuple[Any, bool]:
    """An array where it is one, and whether each dataset has its own."""
    (B, m), single = curves.y.shape, curves.single
    if isinstance(xdata, pd.DataFrame):
        if single or xdata.shape != (B, m):
            return xdata, False
        return curves.numbers("xdata", xdata), True
    if isinstance(xdata, (pd.Series, pd.Index)) and xdata.dtype.kind not in "biuf":
        return xdata, False
    if not isinstance(xdata, (list, tuple, pd.Series, pd.Index)) and not is_array(xdata):
        return xdata, False
    x = _numbers("xdata", xdata)
    if single:
        return x, False
    if x.ndim >= 2 and x.shape[0] == B and x.shape[-1] == m:
        return x, True
    if x.ndim == 3 and x.shape[1:] == (B, m):
        raise InvalidInputError(
            f"xdata has shape {x.shape}, and ydata {(B, m)}: predictors of each dataset come as {(B, len(x), m)}, "
            "which is np.stack(xdata, axis=1)"
        )
    if x.ndim and m not in (*x.shape, x.size, math.prod(x.shape[1:])):
        raise InvalidInputError(
            f"xdata has shape {x.shape}, and ydata {(B, m)}: xdata must be {(m,)} or (k, {m}), shared by all, or "
            f"{(B, m)} or ({B}, k, {m})"
        )
    return x, False


def _numbers(what: str, value: Any) -> FloatArray:
    try:
        if isinstance(value, (pd.DataFrame, pd.Series)):
            return value.to_numpy(dtype=np.float64, na_value=np.nan)
        if isinstance(value, np.ma.MaskedArray):
            value = np.ma.filled(value.astype(np.float64), np.nan)
        array = np.asarray(value)
        if array.dtype.kind in "biufO":
            return array.astype(np.float64, copy=False)
        problem = f"has dtype {array.dtype}"
    except (TypeError, ValueError) as exc:
        problem = f"is {type(value).__name__} ({exc})"
        if isinstance(value, (list, tuple)) and len({np.size(row) for row in value}) > 1:
            lengths = sorted({np.size(row) for row in value})
            _refuse_ragged(what, lengths)
    raise InvalidTypeError(f"{what} must be an array of real numbers, and {problem}")


def _refuse_ragged(what: str, lengths: list[int]) -> NoReturn:
    raise InvalidInputError(
        f"{what} has rows of lengths {', '.join(map(str, lengths[:5]))}{', …' * (len(lengths) > 5)}: "
        "fill the shorter ones with NaN, and nan_policy='omit' leaves it out"
    )


def names_of(f: Callable[..., Any], p0: Any) -> tuple[str, ...]:
    """The names of the parameters: those of the signature of `f`, else ``x0``, ``x1``, …; as many as `p0` has.

    Raises
    ------
    InvalidInputError, InvalidTypeError
        Where their number is unknown, or `f` takes another.
    """
    if not callable(f):
        raise InvalidTypeError(f"f must be callable, not {type(f).__name__}")
    try:
        signature = list(inspect.signature(f).parameters.values())
    except (TypeError, ValueError):
        signature = [inspect.Parameter("params", inspect.Parameter.VAR_POSITIONAL)]
    own = [p for p in signature if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)][1:]
    names = tuple(p.name for p in own)
    if p0 is None:
        if not names:
            raise InvalidInputError("Unable to determine number of fit parameters: give p0, one number for each")
        return names if not _COLUMNS & set(names) else _numbered(len(names))
    shape = np.atleast_1d(_numbers("p0", p0)).shape
    n = shape[-1]
    if len(shape) > 2 or n == 0:
        raise InvalidInputError(f"p0 has shape {shape}; (n,) or (B, n) is wanted, for n parameters")
    least = sum(p.default is p.empty for p in own)
    if n < least or (n > len(own) and not any(p.kind is p.VAR_POSITIONAL for p in signature)):
        raise InvalidTypeError(f"f takes {len(own)} parameters after x {names}, and p0 of shape {shape} has {n}")
    if n > len(own) and isinstance(p0, pd.DataFrame):
        names = tuple(map(str, p0.columns))
    return names[:n] if n <= len(names) and not _COLUMNS & set(names) else _numbered(n)


def _numbered(n: int) -> tuple[str, ...]:
    return tuple(f"x{i}" for i in range(n))


def middle(lower: FloatArray, upper: FloatArray) -> FloatArray:
    """SciPy's start between bounds: their mean, 1 inside the one that there is, or 1."""
    low, high = np.isfinite(lower), np.isfinite(upper)
    with np.errstate(invalid="ignore"):
        beside = np.where(low, lower + 1.0, np.where(high, upper - 1.0, 1.0))
        return np.where(low & high, 0.5 * (lower + upper), beside)
