"""NumPy's functions, called with a stand-in of a Series among the arguments.

Each ends in one of three ways: a method of the stand-in, where NumPy hands over to pandas or a mask matters; the
counterpart in `jax.numpy` entry by entry, so that labels and mask stay; or the counterpart on the bare arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from parfit.batched.tracing.standins.vector import Array, StandIn, Vector, leader
from parfit.batched.tracing.untraceable import Untraceable

__all__ = ["as_arrays", "bare", "call", "counterpart_of"]


def _masked_like(values: Array, vectors: list[Vector]) -> Any:
    """An array that a function made of stand-ins, under their common mask where it still has their length."""
    masked = [vector for vector in vectors if vector.mask is not None]
    if not masked or not isinstance(values, jax.Array) or values.shape != masked[0].raw.shape:
        return values
    array = leader(masked).array()
    return array.like(values)


def bare(value: Any) -> Any:
    """A value with the bare arrays in place of stand-ins and of pandas' objects."""
    return _replaced(value, lambda vector: vector.numbers())


def as_arrays(value: Any) -> Any:
    """A value with `Vector.array` in place of stand-ins: what a library sees that does not know pandas."""
    return _replaced(value, lambda vector: vector.array())


def _replaced(value: Any, of_vector: Callable[[Vector], Any]) -> Any:
    if isinstance(value, Vector):
        return of_vector(value)
    if isinstance(value, (pd.Series, pd.DataFrame, pd.Index, StandIn)):
        return value.to_numpy()
    if type(value) in (list, tuple):
        return type(value)(_replaced(item, of_vector) for item in value)
    if type(value) is dict:
        return {key: _replaced(item, of_vector) for key, item in value.items()}
    return value


def _vectors(value: Any) -> list[Vector]:
    if isinstance(value, Vector):
        return [value]
    if isinstance(value, (list, tuple)):
        return [vector for item in value for vector in _vectors(item)]
    return [vector for item in value.values() for vector in _vectors(item)] if isinstance(value, dict) else []


def counterpart_of(function: Any) -> Callable[..., Any] | None:
    """What in JAX matches a function of NumPy's or of `scipy.special`, or None."""
    name = function.__name__
    if isinstance(function, np.ufunc) and not hasattr(np, name):
        return getattr(jax.scipy.special, name, None)
    module = getattr(function, "__module__", None) or "numpy"
    for part in module.split(".")[1:]:
        if part in ("linalg", "fft"):
            return getattr(getattr(jnp, part), name, None)
    return getattr(jnp, name, None)


def call(
    name: str,
    counterpart: Callable[..., Any] | None,
    args: tuple[Any, ...],
    options: dict[str, Any],
    *,
    elementwise: bool = False,
) -> Any:
    """What a function gives, where at least one argument is a `Vector` or holds one.

    Parameters
    ----------
    name
        As in NumPy's namespace: ``"sum"``, ``"linalg.norm"``.
    counterpart
        What takes jax arrays in its place.
    args, options
        Of the call.
    elementwise
        Whether it gives a number for each entry.
    """
    if name in _HANDLERS and (found := _vectors(args[:2])):
        handled = _HANDLERS[name](found[0], counterpart, *args, **options)
        if handled is not NotImplemented:
            return handled
    if counterpart is None:
        raise Untraceable(f"numpy.{name} has no counterpart in jax.numpy")
    if elementwise and not options:
        return leader(args).combine(counterpart, args)
    return _masked_like(counterpart(*bare(args), **bare(options)), _vectors((args, options)))


_Handler = Callable[..., Any]


def _method(method: str, **defaults: Any) -> _Handler:
    """NumPy calls the method of a Series with the same options."""

    def handle(_: Vector, __: Any, vector: Any, *args: Any, **options: Any) -> Any:
        if not isinstance(vector, Vector):
            return NotImplemented
        return getattr(vector, method)(*args, **{**defaults, **options})

    return handle


def _of_array(method: str, **defaults: Any) -> _Handler:
    """NumPy takes the array of a Series; under a mask, the method of the `Padded` knows what to count."""

    def handle(_: Vector, __: Any, vector: Any, *args: Any, **options: Any) -> Any:
        if not isinstance(vector, Vector) or vector.mask is None:
            return NotImplemented
        return getattr(vector.array(), method)(*args, **{**defaults, **options})

    return handle


def _where_masked(handle: _Handler) -> _Handler:
    def guarded(vector: Vector, counterpart: Any, *args: Any, **options: Any) -> Any:
        if all(found.mask is None for found in _vectors((args, options))):
            return NotImplemented
        return handle(vector, counterpart, *as_arrays(args), **as_arrays(options))

    return guarded


def _product(_: Vector, __: Any, left: Any, right: Any) -> Any:
    return left.dot(right) if isinstance(left, Vector) else right.__rmatmul__(left)


@_where_masked
def _percentile(_: Vector, __: Any, array: Any, q: Any, **options: Any) -> Any:
    return array.quantile(jnp.asarray(q) / 100, **options)


@_where_masked
def _average(_: Vector, __: Any, array: Any, axis: Any = None, weights: Any = None) -> Any:
    return array.mean(axis=axis) if weights is None else (array * weights).sum(axis=axis) / (0 * array + weights).sum()


@_where_masked
def _norm(_: Vector, __: Any, array: Any, ord: Any = None) -> Any:
    if ord in (None, 2):
        return jnp.sqrt((array * array).sum())
    sizes: Mapping[Any, Callable[[], Any]] = {1: abs(array).sum, np.inf: abs(array).max}
    if ord not in sizes:
        raise Untraceable(f"numpy.linalg.norm(ord={ord!r}) of a group cannot be compiled")
    return sizes[ord]()


@_where_masked
def _difference(_: Vector, __: Any, array: Any, n: int = 1) -> Any:
    for _turn in range(n):
        array = array[1:] - array[:-1]
    return array


@_where_masked
def _trapezoid(_: Vector, __: Any, y: Any, x: Any = None, dx: Any = 1.0) -> Any:
    steps = dx if x is None else x[1:] - x[:-1]
    return ((y[1:] + y[:-1]) * steps / 2).sum()


@_where_masked
def _concatenated(vector: Vector, __: Any, parts: Any, *more: Any, **options: Any) -> Any:
    if options.get("axis", 0) not in (0, None) or any(isinstance(item, int) and item for item in more):
        raise Untraceable("groups of unequal length can only be joined end to end")
    pieces = [piece if isinstance(piece, Vector) else jnp.atleast_1d(piece) for piece in parts]
    values = jnp.concatenate([bare(piece) for piece in pieces])
    masks = [
        piece.mask if isinstance(piece, Vector) and piece.mask is not None else jnp.ones(bare(piece).shape, bool)
        for piece in pieces
    ]
    return vector.array().joined(values, jnp.concatenate(masks))


def _appended(vector: Vector, counterpart: Any, array: Any, values: Any, **options: Any) -> Any:
    return _concatenated(vector, counterpart, (array, values), **options)


def _length(_: Vector, counterpart: Any, vector: Any, axis: Any = None) -> Any:
    if not isinstance(vector, Vector) or axis is not None:
        return NotImplemented
    return vector.size if counterpart is jnp.size else vector.shape


_HANDLERS: dict[str, _Handler] = {
    **{name: _method(name) for name in ("sum", "prod", "mean", "min", "max", "any", "all")},
    **{name: _method(name) for name in ("cumsum", "cumprod", "clip", "round", "argmax", "argmin")},
    **{name: _method(name, ddof=0) for name in ("std", "var")},
    **{f"nan{name}": _of_array(name, skipna=True) for name in ("sum", "prod", "mean", "min", "max", "std", "var")},
    "amax": _method("max"),
    "amin": _method("min"),
    "around": _method("round"),
    "median": _of_array("median"),
    "nanmedian": _of_array("median", skipna=True),
    "quantile": _of_array("quantile"),
    "percentile": _percentile,
    "average": _average,
    "ptp": _where_masked(lambda _, __, array: array.max() - array.min()),
    "count_nonzero": _where_masked(lambda _, __, array: (array != 0).sum()),
    "linalg.norm": _norm,
    "dot": _product,
    "matmul": _product,
    "inner": _where_masked(_product),
    "vdot": _where_masked(_product),
    "diff": _difference,
    "trapezoid": _trapezoid,
    "trapz": _trapezoid,
    "concatenate": _concatenated,
    "hstack": _concatenated,
    "append": _where_masked(_appended),
    "size": _length,
    "shape": _length,
}
