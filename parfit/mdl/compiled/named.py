"""Arrays with named axes: what stands for xarray's `DataArray` in PySD's translation of a model.

A value that is known while compiling is held as NumPy's and computed there, with PySD's own rounding; the others are
JAX's. Axes are matched by their names, as xarray does, and labels by the labels.
"""

from __future__ import annotations

import operator
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from parfit.mdl.compiled.pieces import Pieces, is_known
from parfit.mdl.compiled.unsupported import StructuralError, Unsupported

__all__ = ["Coords", "Named", "elementwise", "exactly", "is_known", "known", "named", "raw", "together", "where"]

Coords = Mapping[str, Sequence[str]]
Data = Any  # a NumPy array or number, or a jax.Array

#: Powers up to this are products, whose derivative is a product too; NumPy, too, squares.
_PRODUCTS = 8


class _Mode(threading.local):
    """Whether divisions are to give exactly what the processor's division gives."""

    exact = False


_mode = _Mode()


class exactly:  # noqa: N801 - used like a function, in a `with`
    """Keep XLA from multiplying by the reciprocal of a constant divisor while this is open.

    The reciprocal is rounded, so that ``INTEGER(x / 3)`` would be 0 for an x of 3 now and then. The barrier costs up
    to twice the time of derivatives, so that it stands only where a quotient decides something.
    """

    def __init__(self, wanted: bool = True) -> None:
        self._wanted = wanted

    def __enter__(self) -> None:
        self._before, _mode.exact = _mode.exact, _mode.exact or self._wanted

    def __exit__(self, *_: object) -> None:
        _mode.exact = self._before


def _number(data: Data) -> Data:
    """Truth values as numbers, where they are not arrays: Python counts them."""
    if data.dtype == bool and not data.ndim:
        return data.astype(float)
    return data


def _divided(a: Data, b: Data) -> Data:
    if _mode.exact and is_known(b):
        b = jax.lax.optimization_barrier(jnp.asarray(b))
    return jnp.true_divide(a, b)


def _raised(a: Data, b: Data) -> Data:
    if is_known(b) and not b.ndim and float(b).is_integer() and abs(b) <= _PRODUCTS:
        return jax.lax.integer_pow(a, int(b))
    return jnp.power(a, b)


def _operator(
    on_known: Callable[..., Any], on_traced: Callable[..., Any], *, reflected: bool = False
) -> Callable[..., Named]:
    def method(self: Named, other: Any) -> Named:
        a, b = (other, self) if reflected else (self, other)
        return elementwise(
            lambda p, q: on_known(_number(p), _number(q)), lambda p, q: on_traced(_number(p), _number(q)), a, b
        )

    return method


class Named:
    """An array with named axes, each with its labels; a number has none.

    Parameters
    ----------
    data
        NumPy's where it is known while compiling, else JAX's; a number is spread over the axes.
    coords
        Name of an axis to its labels.
    dims
        The axes in order.
    """

    __hash__ = None  # type: ignore[assignment]
    __array_ufunc__ = None
    __slots__ = ("_data", "_pending", "coords", "dims")

    def __init__(self, data: Any, coords: Coords | None = None, dims: Sequence[str] = ()) -> None:
        coords = coords or {}
        self.dims = tuple(dims)
        self.coords = {dim: tuple(coords[dim]) for dim in self.dims}
        self._pending: Pieces | None = None
        data = raw(data)
        if is_known(data):
            array = np.asarray(data)
            data = array if array.dtype == bool else array.astype(float)
        if self.dims and data.shape != self.shape:
            data = (np if is_known(data) else jnp).broadcast_to(data, self.shape)
        elif not self.dims and data.ndim:
            if data.size != 1:
                raise Unsupported(f"an array of shape {data.shape} where a number is wanted")
            data = data.reshape(())
        self._data = data

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(len(self.coords[dim]) for dim in self.dims)

    @property
    def data(self) -> Data:
        if self._pending is not None:
            self._data, self._pending = self._pending.data(), None
        return self._data

    def put(self, places: tuple[np.ndarray[Any, Any], ...], value: Any) -> None:
        """Put numbers in, in place, at a block of positions given by an index array for each axis."""
        if self._pending is None:
            self._pending = Pieces(self.shape, self._data)
        self._pending.put(self._pending.places[places], raw(value))

    def like(self, data: Data) -> Named:
        return Named(data, self.coords, self.dims)

    # What PySD's translation calls.

    @property
    def values(self) -> _Values:
        return _Values(self)

    @property
    def loc(self) -> _Locator:
        return _Locator(self)

    def rename(self, names: Mapping[str, str]) -> Named:
        dims = [names.get(dim, dim) for dim in self.dims]
        return Named(self.data, dict(zip(dims, self.coords.values(), strict=True)), dims)

    def transpose(self, *dims: str) -> Named:
        dims = dims or self.dims[::-1]
        return Named(self.data.transpose([self.dims.index(dim) for dim in dims]), self.coords, dims)

    def expand_dims(self, new: Coords, axis: int = 0) -> Named:
        dims, coords = list(self.dims), {**self.coords, **{dim: tuple(labels) for dim, labels in new.items()}}
        data = self.data
        for dim in reversed(list(new)):
            dims.insert(axis, dim)
            data = (np if is_known(data) else jnp).expand_dims(data, axis)
        return Named(data, coords, dims)

    def reset_coords(self, *_: Any, **__: Any) -> Named:
        return self

    def __len__(self) -> int:
        if not self.dims:
            raise TypeError("a number has no length")
        return self.shape[0]

    def __bool__(self) -> bool:
        return bool(known(self, "a condition"))

    def __float__(self) -> float:
        return float(known(self, "a number"))

    def __int__(self) -> int:
        return int(known(self, "a whole number"))

    __add__, __radd__ = _operator(np.add, jnp.add), _operator(np.add, jnp.add, reflected=True)
    __sub__, __rsub__ = _operator(np.subtract, jnp.subtract), _operator(np.subtract, jnp.subtract, reflected=True)
    __mul__, __rmul__ = _operator(np.multiply, jnp.multiply), _operator(np.multiply, jnp.multiply, reflected=True)
    __truediv__, __rtruediv__ = _operator(np.true_divide, _divided), _operator(np.true_divide, _divided, reflected=True)
    __pow__, __rpow__ = _operator(np.power, _raised), _operator(np.power, _raised, reflected=True)
    __mod__, __rmod__ = _operator(np.mod, jnp.mod), _operator(np.mod, jnp.mod, reflected=True)
    __lt__, __le__ = _operator(operator.lt, operator.lt), _operator(operator.le, operator.le)
    __gt__, __ge__ = _operator(operator.gt, operator.gt), _operator(operator.ge, operator.ge)
    __eq__: Callable[..., Named] = _operator(operator.eq, operator.eq)  # type: ignore[assignment]
    __ne__: Callable[..., Named] = _operator(operator.ne, operator.ne)  # type: ignore[assignment]

    def __neg__(self) -> Named:
        return elementwise(operator.neg, operator.neg, self)

    def __pos__(self) -> Named:
        return self

    def __abs__(self) -> Named:
        return elementwise(np.abs, jnp.abs, self)

    def __repr__(self) -> str:
        return f"<{'known' if is_known(self.data) else 'traced'} value over {self.coords}>"


def known(value: Any, what: str) -> np.ndarray[Any, Any]:
    """The numbers of a value that has to be known while compiling.

    Raises
    ------
    StructuralError
        Where it is traced.
    """
    data = named(value).data
    if not is_known(data):
        raise StructuralError(f"{what} depends on a value that is not known while compiling")
    found: np.ndarray[Any, Any] = data
    return found


def named(value: Any) -> Named:
    """A value as a `Named`."""
    return value if isinstance(value, Named) else Named(value)


def raw(value: Any) -> Data:
    """The bare numbers of a value."""
    if isinstance(value, Named):
        return value.data
    return value.owner.data if isinstance(value, _Values) else value


class _Values:
    """``array.values``: read and written in place, with a mask that is known."""

    def __init__(self, owner: Named) -> None:
        self.owner = owner

    def __getitem__(self, mask: Any) -> Data:
        return self.owner.data[np.nonzero(np.asarray(raw(mask)))]

    def __setitem__(self, mask: Any, value: Any) -> None:
        self.owner.put(np.nonzero(np.asarray(raw(mask))), value)


class _Locator:
    """``array.loc``: one label of an axis takes it out, several keep it."""

    def __init__(self, owner: Named) -> None:
        self._owner = owner

    def _resolved(self, key: Any) -> tuple[list[str], dict[str, tuple[str, ...]], list[np.ndarray[Any, Any]]]:
        owner = self._owner
        if isinstance(key, Mapping):
            entries = [key.get(dim, slice(None)) for dim in owner.dims]
        else:
            entries = list(key) if isinstance(key, tuple) else [key]
            entries += [slice(None)] * (len(owner.dims) - len(entries))
        dims, coords, positions = [], {}, []
        for dim, entry in zip(owner.dims, entries, strict=True):
            labels = owner.coords[dim]
            if isinstance(entry, str):
                positions.append(np.array([labels.index(entry)]))
                continue
            chosen = labels if isinstance(entry, slice) else tuple(entry)
            dims.append(dim)
            coords[dim] = chosen
            positions.append(np.array([labels.index(label) for label in chosen], int))
        return dims, coords, positions

    def __getitem__(self, key: Any) -> Named:
        dims, coords, positions = self._resolved(key)
        data = self._owner.data
        for axis, places in enumerate(positions):
            if np.array_equal(places, np.arange(data.shape[axis])):
                continue
            first, n = int(places[0]), len(places)
            if np.array_equal(places, np.arange(first, first + n)):
                data = data[(slice(None),) * axis + (slice(first, first + n),)]
            else:
                data = data[(slice(None),) * axis + (places,)]
        return Named(data.reshape([len(coords[dim]) for dim in dims]), coords, dims)

    def __setitem__(self, key: Any, value: Any) -> None:
        _, _, positions = self._resolved(key)
        value = raw(value)
        if getattr(value, "ndim", 0):
            # Axes that one label took out are there in the block, with a length of one.
            value = value.reshape([len(places) for places in positions])
        self._owner.put(np.ix_(*positions), value)


def _axes(values: Sequence[Named]) -> tuple[tuple[str, ...], dict[str, tuple[str, ...]]]:
    """The axes of an operation on several values: the union, in the order in which they are met."""
    coords: dict[str, tuple[str, ...]] = {}
    for value in values:
        for dim, labels in value.coords.items():
            if coords.setdefault(dim, labels) != labels:
                coords[dim] = tuple(pd.Index(coords[dim]).intersection(pd.Index(labels)))
    return tuple(coords), coords


def _laid(value: Named, dims: tuple[str, ...], coords: Mapping[str, tuple[str, ...]]) -> Data:
    """The numbers of a value with its axes in an order, and an axis of length one for each that it lacks."""
    if value.dims == dims and value.coords == coords:
        return value.data
    if any(coords[dim] != labels for dim, labels in value.coords.items()):
        value = value.loc[{dim: coords[dim] for dim in value.dims}]
    order = tuple(dim for dim in dims if dim in value.coords)
    data = value.data if order == value.dims else value.transpose(*order).data
    if order != dims and order:
        data = data.reshape([len(coords[dim]) if dim in value.coords else 1 for dim in dims])
    return data


def together(*values: Any) -> tuple[list[Data], Callable[[Data], Named]]:
    """The numbers of several values, laid out so that they broadcast, and what makes a `Named` of such numbers."""
    arrays = [named(value) for value in values]
    dims, coords = _axes(arrays)
    datas = [_laid(array, dims, coords) for array in arrays]
    floats = [data.dtype for data in datas if not is_known(data) and jnp.issubdtype(data.dtype, jnp.floating)]
    if floats:
        # What is known takes the precision of what is not.
        dtype = jnp.result_type(*floats)
        datas = [data.astype(dtype) if is_known(data) and data.dtype != bool else data for data in datas]
    return datas, lambda data: Named(data, coords, dims)


def elementwise(on_known: Callable[..., Any], on_traced: Callable[..., Any], *values: Any) -> Named:
    """A function of numbers, entry by entry; computed by NumPy where all of them are known."""
    datas, wrap = together(*values)
    if all(map(is_known, datas)):
        with np.errstate(all="ignore"):
            return wrap(on_known(*datas))
    return wrap(on_traced(*datas))


def where(condition: Any, chosen: Callable[[], Any], other: Callable[[], Any]) -> Named:
    """One of two values, entry by entry. Where the condition is known, only what is chosen is computed."""
    condition = named(condition)
    if is_known(condition.data):
        truth = np.asarray(condition.data) != 0
        if truth.all():
            return named(chosen())
        if not truth.any():
            return named(other())
    return elementwise(
        lambda c, a, b: np.where(c != 0, a, b),
        lambda c, a, b: jnp.where(c != 0, a, b),
        condition,
        chosen(),
        other(),
    )
