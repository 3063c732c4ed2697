"""Sums, means, running sums, ... of the stand-ins of a Series, with the options and defaults of pandas."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Self

import jax.numpy as jnp
import numpy as np
import pandas as pd

from parfit.batched.tracing.standins import statistics
from parfit.batched.tracing.standins.calls import call, counterpart_of
from parfit.batched.tracing.standins.vector import Array, Vector, refuse_keywords
from parfit.batched.tracing.untraceable import Untraceable

__all__ = ["Summarised"]


def _refuse_axis(name: str, axis: Any) -> None:
    if axis not in (None, 0, -1, "index", "rows"):
        raise ValueError(f"No axis named {axis} for object type Series ({name})")


def _summary(name: str, function: Callable[..., Array]) -> Callable[..., Array]:
    def method(self: Summarised, axis: Any = None, skipna: bool | None = None, **options: Any) -> Array:
        _refuse_axis(name, axis)
        refuse_keywords(name, options)
        return function(self.numbers(), self.counted(skipna))

    return method


def _spread(name: str, function: Callable[..., Array]) -> Callable[..., Array]:
    def method(
        self: Summarised, axis: Any = None, skipna: bool | None = None, ddof: int | None = None, **options: Any
    ) -> Array:
        _refuse_axis(name, axis)
        refuse_keywords(name, options)
        return function(self.numbers(), self.counted(skipna), self.ddof if ddof is None else ddof)

    return method


def _running(name: str) -> Callable[..., Any]:
    def method(self: Summarised, axis: Any = None, skipna: bool | None = None, **options: Any) -> Any:
        _refuse_axis(name, axis)
        refuse_keywords(name, options)
        return self.like(statistics.cumulated(name, self.numbers(), self.counted(skipna)))

    return method


class Summarised(Vector):
    """A `Vector` that knows which of its entries count."""

    #: Whether NaN is passed over, and the degrees of freedom that std and var take off, unless asked otherwise.
    skips_missing: ClassVar[bool] = True
    ddof: ClassVar[int] = 1

    def counted(self, skipna: bool | None = None) -> Array | None:
        """Which entries a sum takes, shape (n,); None for all."""
        skips = self.skips_missing if skipna is None else skipna
        return statistics.valid(self.numbers(), self.mask, skipna=skips)

    sum, prod = _summary("sum", statistics.total), _summary("prod", statistics.product)
    mean, product = _summary("mean", statistics.mean), prod
    min, max = _summary("min", statistics.minimum), _summary("max", statistics.maximum)
    any, all = _summary("any", statistics.any_true), _summary("all", statistics.all_true)
    std, var = _spread("std", statistics.std), _spread("var", statistics.var)
    cumsum, cumprod, cummax, cummin = map(_running, ("cumsum", "cumprod", "cummax", "cummin"))

    def count(self) -> Array:
        return statistics.count(self.numbers(), self.counted(True))

    def sem(self, ddof: int = 1, **options: Any) -> Array:
        return self.std(ddof=ddof, **options) / jnp.sqrt(self.count())

    def quantile(self, q: Any = 0.5, interpolation: str = "linear", skipna: bool | None = None) -> Array:
        if np.ndim(q) or interpolation != "linear":
            raise Untraceable("of quantiles, only a single one, interpolated linearly, can be compiled")
        return statistics.quantile(self.numbers(), self.counted(skipna), q)

    def median(self, axis: Any = None, skipna: bool | None = None, **options: Any) -> Array:
        _refuse_axis("median", axis)
        refuse_keywords("median", options)
        return self.quantile(0.5, skipna=skipna)

    def argmax(self, axis: Any = None, skipna: bool | None = None) -> Array:
        _refuse_axis("argmax", axis)
        return statistics.position_of_extreme(self.numbers(), self.counted(skipna), greatest=True)

    def argmin(self, axis: Any = None, skipna: bool | None = None) -> Array:
        _refuse_axis("argmin", axis)
        return statistics.position_of_extreme(self.numbers(), self.counted(skipna), greatest=False)

    def shift(self, periods: int = 1, **options: Any) -> Self:
        refuse_keywords("shift", options)
        values, n = self._real_or_missing(), self.raw.size
        missing = jnp.full(min(abs(periods), n), jnp.nan, values.dtype)
        kept = values[: max(n - periods, 0)] if periods >= 0 else values[-periods:]
        return self.like(jnp.concatenate([missing, kept] if periods >= 0 else [kept, missing]))

    def diff(self, periods: int = 1) -> Self:
        return self.like(self._real_or_missing() - self.shift(periods).raw)

    def _real_or_missing(self) -> Array:
        values = self.numbers()
        if not jnp.issubdtype(values.dtype, jnp.inexact):
            values = values.astype(float)
        return values if self.mask is None else jnp.where(self.mask, values, jnp.nan)

    def dot(self, other: Any) -> Array:
        if isinstance(other, (Vector, pd.Series)) or np.ndim(other) == 1:
            product = self.combine(lambda mine, theirs: mine * theirs, [self, other], compares=True)
            return product.sum(skipna=False)
        return self._weights() @ other

    __matmul__ = dot

    def __rmatmul__(self, other: Any) -> Array:
        return self.dot(other) if np.ndim(other) == 1 else other @ self._weights()

    def _weights(self) -> Array:
        values = self.numbers()
        return values if self.mask is None else jnp.where(self.mask, values, 0)

    # NumPy's protocols.

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> Any:
        counterpart: Any = counterpart_of(ufunc)
        if method != "__call__":
            counterpart = getattr(counterpart, method, None)
        name = ufunc.__name__ if method == "__call__" else f"{ufunc.__name__}.{method}"
        elementwise = method == "__call__" and ufunc.signature is None and ufunc.nout == 1
        return call(name, counterpart, inputs, options, elementwise=elementwise)

    def __array_function__(self, function: Any, _: Any, args: Any, options: Any) -> Any:
        module = getattr(function, "__module__", "numpy")
        name = f"linalg.{function.__name__}" if module.startswith("numpy.linalg") else function.__name__
        return call(name, counterpart_of(function), args, options)
