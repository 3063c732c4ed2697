"""What PySD's translation finds under the names of NumPy, SciPy, xarray and the built-in functions that it calls."""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

from parfit.mdl.compiled.interpolation import interpolated
from parfit.mdl.compiled.named import Named, elementwise, is_known, named, raw

__all__ = ["number", "numpy_names", "xarray_names"]


def _of_one(name: str) -> Callable[[Any], Named]:
    return lambda x: elementwise(getattr(np, name), getattr(jnp, name), _float(x))


def _of_two(name: str) -> Callable[[Any, Any], Named]:
    return lambda x, y: elementwise(getattr(np, name), getattr(jnp, name), x, y)


def _float(x: Any) -> Named:
    array = named(x)
    return array.like(array.data.astype(float)) if array.data.dtype == bool else array


def _interp(x: Any, xs: Any, ys: Any) -> Any:
    """`np.interp`, whose result has no axes of its own."""
    x = raw(x)
    if is_known(x):
        return np.interp(x, xs, ys)
    return interpolated(x, np.asarray(xs, float), np.asarray(ys, float), "interpolate")


def number(value: Any) -> Named:
    """What stands for ``float(value)``."""
    value = named(value)
    return Named(value.data.astype(float) if value.data.dtype == bool else value.data)


def _filled(value: float) -> Callable[..., Named]:
    def like(other: Named, dtype: Any = float) -> Named:
        return Named(np.full(other.shape, value, dtype), other.coords, other.dims)

    return like


_FUNCTIONS = ("abs", "exp", "sin", "cos", "tan", "arcsin", "arccos", "arctan", "sinh", "cosh", "tanh", "sqrt", "log")


def numpy_names(random: Any) -> types.SimpleNamespace:
    """What is asked of NumPy; `random` draws."""
    return types.SimpleNamespace(
        pi=np.pi,
        nan=np.nan,
        inf=np.inf,
        array=np.array,
        arange=np.arange,
        interp=_interp,
        logical_not=_of_one_truth,
        random=random,
        power=lambda x, y: named(x) ** y,
        **{name: _of_one(name) for name in _FUNCTIONS},
        **{name: _of_two(name) for name in ("minimum", "maximum", "logical_and", "logical_or")},
    )


def _of_one_truth(x: Any) -> Named:
    return elementwise(np.logical_not, jnp.logical_not, x)


def xarray_names() -> types.SimpleNamespace:
    """What is asked of xarray."""
    return types.SimpleNamespace(DataArray=Named, zeros_like=_filled(0), ones_like=_filled(1))
