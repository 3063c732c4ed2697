"""What stands for NumPy, math, SciPy and JAX in a function that `jaxify` has made.

Where nothing among a function's arguments is traced, NumPy's own function is called: sizes, grids and constants
stay what they are in the plain function, and may decide what it does. Where something is, JAX's counterpart is.
"""

from __future__ import annotations

import functools
import sys
import types
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import jax.scipy.integrate
import jax.scipy.linalg
import jax.scipy.special
import jax.scipy.stats
import numpy as np

from parfit.batched.tracing.mathematics import MATH
from parfit.batched.tracing.standins.calls import as_arrays, bare, call
from parfit.batched.tracing.standins.padded import Padded
from parfit.batched.tracing.standins.statistics import widened
from parfit.batched.tracing.standins.vector import StandIn, Vector, is_traced
from parfit.batched.tracing.untraceable import Untraceable
from parfit.core.reach import NOTHING, is_own_class

__all__ = ["BUILTINS", "stand_in"]

#: Arrays that are made to be filled, or added to; JAX's from the start.
_MAKERS = frozenset({"zeros", "ones", "empty", "full", "zeros_like", "ones_like", "empty_like", "full_like"})
#: Functions of jax.numpy that take lists of lists.
_NESTED = frozenset({"array", "asarray", "asanyarray", "block"})
#: Functions of jax.numpy that take a list of arrays; the others take no lists.
_OF_LISTS = frozenset(
    {"stack", "concatenate", "hstack", "vstack", "dstack", "column_stack"}
    | {"append", "select", "piecewise", "broadcast_arrays", "meshgrid", "multi_dot", "lexsort", "ix_", "choose"}
)
#: Functions that take an array where a list of plain numbers may stand.
_OF_ARRAYS = frozenset(
    {"interp", "dot", "vdot", "inner", "outer", "matmul", "polyval", "average", "convolve", "correlate", "where"}
    | {"trapezoid", "trapz", "isclose", "allclose", "clip", "cross", "kron", "searchsorted", "digitize", "solve"}
)
#: Where JAX has another name, or has kept one that NumPy dropped or is dropping.
_RENAMED = {"trapz": "trapezoid", "in1d": "isin", "row_stack": "vstack", "product": "prod", "asanyarray": "asarray"}
_FROZEN = "drawn numbers would be frozen into the compiled function"


def _counterpart(module: str, name: str) -> Any:
    """What JAX has for a name in a module, or None."""
    root, _, rest = module.partition(".")
    if root == "math":
        return MATH.get(name)
    if root not in ("numpy", "scipy"):
        return None
    found: Any = jnp if root == "numpy" else jax.scipy
    for part in filter(None, rest.split(".")):
        found = getattr(found, part, None)
    return getattr(found, _RENAMED.get(name, name), None)


class _Function:
    """A function of a library, which calls its counterpart where an argument is traced."""

    def __init__(self, real: Any, counterpart: Any, path: str) -> None:
        self.__wrapped__ = real
        self._counterpart = counterpart
        self._path = path
        self._root, _, self._name = path.partition(".")

    def __call__(self, *args: Any, **options: Any) -> Any:
        args = tuple(_without_kinds(argument) for argument in args)
        options = {key: _without_kinds(argument) for key, argument in options.items()}
        traced = is_traced((args, options))
        if not traced and not (self._root == "numpy" and self._name in _MAKERS):
            return self.__wrapped__(*args, **options)
        if self._counterpart is None:
            has = "jax.numpy" if self._root in ("numpy", "math") else "jax.scipy"
            raise Untraceable(f"{self._path} has no counterpart in {has}")
        if options.get("dtype") is not None:
            options["dtype"] = jax.dtypes.canonicalize_dtype(options["dtype"])
        elementwise = _is_elementwise(self.__wrapped__)
        args = tuple(self._listless(argument, elementwise) for argument in args)
        if self._name in ("cumsum", "cumprod") and isinstance(args[0] if args else None, jax.Array):
            args = (widened(args[0]), *args[1:])
        options = {key: self._listless(argument, elementwise) for key, argument in options.items()}
        if traced and _has_vector((args, options)):
            name = self._name if self._root == "numpy" else self._path
            return call(name, self._counterpart, args, options, elementwise=elementwise)
        return self._counterpart(*bare(args), **bare(options))

    def _listless(self, argument: Any, elementwise: bool) -> Any:
        if not isinstance(argument, (list, tuple)) or self._root != "numpy":
            return argument
        name = self._name.rpartition(".")[2]
        if name in _NESTED or not (elementwise or name in _OF_ARRAYS or is_traced(argument)):
            return argument
        if name in _OF_LISTS:
            return [jnp.asarray(bare(item)) if isinstance(item, (list, tuple)) else item for item in argument]
        return jnp.asarray(bare(argument))

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.__wrapped__, name)
        if name.startswith("__") or not callable(found):
            return found
        return _Function(found, getattr(self._counterpart, name, None), f"{self._path}.{name}")

    def __repr__(self) -> str:
        return f"<{self._path}, which can be traced>"


def _is_elementwise(function: Any) -> bool:
    return isinstance(function, np.ufunc) and function.signature is None and function.nout == 1


def _has_vector(value: Any) -> bool:
    if isinstance(value, dict):
        value = tuple(value.values())
    return isinstance(value, Vector) or (isinstance(value, (list, tuple)) and any(map(_has_vector, value)))


class _JaxFunction:
    """A function of JAX's, or one compiled by it, which is given arrays for the stand-ins of pandas' objects."""

    def __init__(self, real: Any, name: str | None) -> None:
        self.__wrapped__ = real
        self._name = name

    def __call__(self, *args: Any, **options: Any) -> Any:
        args = tuple(_without_kinds(argument) for argument in args)
        if self._name is not None and _has_vector((args, options)):
            args, options = as_arrays(args), as_arrays(options)
            if _has_vector((args, options)):
                return call(self._name, self.__wrapped__, args, options)
        made = self.__wrapped__(*bare(args), **bare(options))
        return _JaxFunction(made, None) if callable(made) and not isinstance(made, type) else made

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__wrapped__, name)


class _Kind:
    """A type, such as ``numpy.float64`` or ``float``, which also converts what is traced."""

    def __init__(self, real: type) -> None:
        self.__wrapped__ = real

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(self.__wrapped__)

    def __call__(self, *args: Any, **options: Any) -> Any:
        if not is_traced((args, options)):
            return self.__wrapped__(*args, **options)
        (value,) = args
        if isinstance(value, Vector):
            return value.astype(self.dtype)
        value = jnp.asarray(bare(value), jax.dtypes.canonicalize_dtype(self.dtype))
        if self.__wrapped__ is float and value.ndim:
            raise Untraceable(f"float() is given an array of shape {value.shape}")
        return value

    def __instancecheck__(self, value: Any) -> bool:
        if isinstance(value, self.__wrapped__):
            return True
        if self.__wrapped__ is np.ndarray:
            return isinstance(value, Padded) or (isinstance(value, jax.Array) and value.ndim > 0)
        # What a number of the plain function would be: NumPy's float64 is a float.
        if not isinstance(value, jax.Array) or value.ndim:
            return False
        kind = np.float64 if jnp.issubdtype(value.dtype, jnp.floating) else np.dtype(value.dtype).type
        return issubclass(kind, self.__wrapped__)

    def __subclasscheck__(self, value: Any) -> bool:
        return issubclass(value.__wrapped__ if isinstance(value, _Kind) else value, self.__wrapped__)

    def __eq__(self, other: object) -> bool:
        return self.__wrapped__ == (other.__wrapped__ if isinstance(other, _Kind) else other)

    def __hash__(self) -> int:
        return hash(self.__wrapped__)

    def __or__(self, other: Any) -> Any:
        return self.__wrapped__ | other

    __ror__ = __or__

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__wrapped__, name)


def _without_kinds(argument: Any) -> Any:
    return argument.__wrapped__ if isinstance(argument, _Kind) else argument


class _Refuser:
    """What must not be used in a function that is traced."""

    def __init__(self, what: str, why: str) -> None:
        self._what, self._why = what, why

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise Untraceable(f"{self._what}: {self._why}")

    def __call__(self, *_: Any, **__: Any) -> Any:
        raise Untraceable(f"{self._what}: {self._why}")


class _Module:
    """A module of NumPy's, SciPy's or JAX's, or math."""

    def __init__(self, real: types.ModuleType) -> None:
        self.__wrapped__ = real

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.__wrapped__, name)
        if name.startswith("__"):
            return found
        return _member(self.__wrapped__.__name__, name, found)

    def __dir__(self) -> list[str]:
        return dir(self.__wrapped__)

    def __repr__(self) -> str:
        return f"<{self.__wrapped__.__name__}, which can be traced>"


class _Distribution:
    """A distribution of `scipy.stats`."""

    def __init__(self, real: Any) -> None:
        self.__wrapped__ = real

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.__wrapped__, name)
        if name.startswith("__") or not callable(found):
            return found
        path = f"scipy.stats.{self.__wrapped__.name}"
        if name == "rvs":
            return _Refuser(f"{path}.rvs", _FROZEN)
        return _Function(found, _counterpart(path, name), f"{path}.{name}")

    def __call__(self, *args: Any, **options: Any) -> Any:
        if is_traced((args, options)):
            raise Untraceable(f"scipy.stats.{self.__wrapped__.name} is frozen with traced parameters")
        return self.__wrapped__(*args, **options)


def _member(module: str, name: str, value: Any) -> Any:
    """The stand-in of a member of a module; the member itself where it needs none."""
    if isinstance(value, (types.ModuleType, type)) or not callable(value):
        found = stand_in(value)
        return value if found is NOTHING else found
    root, _, rest = module.partition(".")
    if root == "jax":
        inner = f"{rest.removeprefix('numpy').lstrip('.')}.{name}".lstrip(".")
        return _JaxFunction(value, inner if rest.split(".")[0] == "numpy" else None)
    if _is_distribution(value):
        return _Distribution(value)
    return _Function(value, _counterpart(module, name), f"{module}.{name}")


def _is_distribution(value: Any) -> bool:
    return type(value).__module__.startswith("scipy.stats") and hasattr(value, "name") and hasattr(value, "rvs")


def stand_in(value: Any) -> Any:
    """What stands for a module, a function or a type of NumPy's, math, SciPy's or JAX's; `NOTHING` for all else."""
    if isinstance(value, types.ModuleType):
        if value.__name__ in ("random", "numpy.random") or value.__name__.startswith("numpy.random."):
            return _Refuser(value.__name__, _FROZEN)
        return _Module(value) if value.__name__.partition(".")[0] in ("numpy", "math", "scipy", "jax") else NOTHING
    if isinstance(value, type):
        return _Kind(value) if value is np.ndarray or issubclass(value, np.generic) else NOTHING
    draws = (np.random.Generator, np.random.RandomState)
    methods = (types.BuiltinFunctionType, types.MethodType)
    if isinstance(value, draws) or (isinstance(value, methods) and isinstance(value.__self__, draws)):
        return _Refuser("numpy.random", _FROZEN)
    if not callable(value) or is_own_class(type(value)) or isinstance(value, (StandIn, _Function, _JaxFunction, _Kind)):
        return NOTHING
    if _is_distribution(value):
        return _Distribution(value)
    name, kind = getattr(value, "__name__", None), type(value).__module__.partition(".")[0]
    module = "" if isinstance(value, np.ufunc) else getattr(value, "__module__", None) or ""
    for place in _places(value, module):
        if name is not None and getattr(sys.modules.get(place), name, None) is value:
            return _member(place, name, value)
    return _JaxFunction(value, None) if kind in ("jax", "jaxlib") or module.startswith("jax.") else NOTHING


def _places(value: Any, module: str) -> tuple[str, ...]:
    """The public modules in which a function may be found under its name."""
    if isinstance(value, np.ufunc):
        return ("numpy", "scipy.special")
    parts = module.split(".")
    if parts[0] == "jax":
        return ("jax.numpy", "jax.numpy.linalg", "jax.numpy.fft", "jax")
    if parts[0] in ("numpy", "scipy"):
        public = [part for part in parts if not part.startswith("_")]
        return (".".join(public[:2]), "numpy", "numpy.linalg", "numpy.fft")
    return ("math",) if module == "math" else ()


def _extreme(real: Callable[..., Any], better: Callable[[Any, Any], Any]) -> Callable[..., Any]:
    @functools.wraps(real)
    def extreme(*args: Any, **options: Any) -> Any:
        if options or not is_traced(args):
            return real(*args, **options)
        items = list(args[0]) if len(args) == 1 else list(args)
        if any(isinstance(item, StandIn) or jnp.ndim(item) for item in items):
            return real(items)
        return functools.reduce(lambda best, item: jnp.where(better(item, best), item, best), items)

    return extreme


#: Built-in names that would want the number behind what is traced.
BUILTINS: dict[str, Any] = {
    "float": _Kind(float),
    "max": _extreme(max, lambda item, best: item > best),
    "min": _extreme(min, lambda item, best: item < best),
}
