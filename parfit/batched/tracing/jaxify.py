"""`jaxify`: a user's function, written with NumPy, as one that JAX can trace."""

from __future__ import annotations

import abc
import builtins
import functools
import types
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from parfit.core.errors import InvalidTypeError, missing_package
from parfit.core.reach import NOTHING, home_of, is_own_class, is_own_function, is_own_module

try:
    from parfit.batched.tracing.modules import BUILTINS, stand_in
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] not in ("jax", "jaxlib"):
        raise
    raise missing_package("jax", "jaxify", "jax") from error

__all__ = ["jaxified", "jaxify"]

F = TypeVar("F", bound=Callable[..., Any])

#: A list of functions is short; a longer one is data, and is not looked through.
_FEW = 1000
#: What a class gets when it is made.
_OF_CLASSES = ("__dict__", "__weakref__", "__slots__", "__module__", "__qualname__", "_abc_impl")
#: What the import statement reads of a module's names.
_OF_IMPORTS = ("__name__", "__package__", "__spec__", "__path__", "__file__")


def jaxify(function: F) -> F:
    """Make a function written with NumPy traceable by JAX.

    In the function that is returned, NumPy, `math` and `scipy.special` are JAX's counterparts, under whatever names
    they were imported, wherever an argument is traced; also in the helper functions, classes and modules of the
    user's own that it calls. The function that is given, and its module, stay as they are.

    Parameters
    ----------
    function : callable
        A function, lambda, method, `functools.partial` or an instance with ``__call__``, in Python.

    Returns
    -------
    callable
        Of the same signature.

    Raises
    ------
    InvalidTypeError
        Where `function` cannot be called.
    MissingPackageError
        Where JAX is not installed.

    Notes
    -----
    What no compiled function can do stays impossible: an ``if`` on a traced value, item assignment, arrays whose
    size depends on values, random numbers, and functions of compiled libraries. `math` raises for the logarithm of a
    negative number, and JAX gives NaN.

    Examples
    --------
    >>> import jax
    >>> import numpy as np
    >>> def decay(t):
    ...     return np.exp(-2 * t)
    >>> float(jax.grad(jaxify(decay))(0.0))
    -2.0
    """
    if not callable(function):
        raise InvalidTypeError(f"jaxify takes a function, and this is {type(function).__name__}")
    made: F = _Rebinder(home_of(function)).rebound(function, asked=True)
    return made


def jaxified(function: Callable[..., Any], args: tuple[Any, ...]) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """A function, and further arguments for it, both as `jaxify` makes them: an argument may hold functions too."""
    rebinder = _Rebinder(home_of(function))
    return rebinder.rebound(function, asked=True), tuple(map(rebinder.rebound, args))


class _Globals(dict[str, Any]):
    """The globals of a function: those of its module as they are when they are read, rebound."""

    def __init__(self, original: dict[str, Any], rebinder: _Rebinder) -> None:
        super().__init__({name: original[name] for name in _OF_IMPORTS if name in original})
        self.original, self._rebinder = original, rebinder
        # The interpreter takes these from the globals when the function is made. An import inside the function
        # calls `__import__`, and gets the stand-in of NumPy as well.
        self["__builtins__"] = {**vars(builtins), **BUILTINS, "__import__": self._import}

    def __missing__(self, name: str) -> Any:
        return self._rebinder.rebound(self.original[name])

    def _import(self, *args: Any, **options: Any) -> Any:
        return self._rebinder.rebound(builtins.__import__(*args, **options))


class _OwnModule:
    """A module of the user's, whose functions are rebound when they are looked up."""

    def __init__(self, real: types.ModuleType, rebinder: _Rebinder) -> None:
        self._real, self._rebinder = real, rebinder

    def __getattr__(self, name: str) -> Any:
        return self._rebinder.rebound(getattr(self._real, name))


class _Rebinder:
    """Makes, once each, what takes the place of the functions, classes and modules that a function reaches."""

    def __init__(self, home: str | None) -> None:
        self._home = home
        # Each with what it was made of, so that an id is not given away to something else.
        self._made: dict[int, tuple[Any, Any]] = {}
        self._globals: dict[int, _Globals] = {}

    def rebound(self, value: Any, *, asked: bool = False) -> Any:
        """What takes the place of a value; the value itself where nothing has to.

        Parameters
        ----------
        value
            Anything that a function can reach.
        asked
            Whether it counts as the user's own wherever it comes from.
        """
        if id(value) in self._made:
            return self._made[id(value)][1]
        made = stand_in(value)
        if made is NOTHING:
            made = self._rebuilt(value, asked)
        return self._keep(value, made)

    def _keep(self, value: Any, made: Any) -> Any:
        self._made[id(value)] = (value, made)
        return made

    def _rebuilt(self, value: Any, asked: bool) -> Any:
        if isinstance(value, types.FunctionType):
            return self._function(value) if asked or is_own_function(value, self._home) else value
        if isinstance(value, types.MethodType):
            own = asked or is_own_function(value.__func__, self._home)
            return types.MethodType(self.rebound(value.__func__, asked=own), self.rebound(value.__self__))
        if isinstance(value, functools.partial):
            inner = self.rebound(value.func, asked=asked)
            return functools.partial(inner, *map(self.rebound, value.args), **self._mapping(value.keywords))
        if isinstance(value, functools._lru_cache_wrapper):  # a traced argument cannot be a key
            return self.rebound(value.__wrapped__, asked=asked)
        if is_own_module(value, self._home):
            return _OwnModule(value, self)
        if isinstance(value, type):
            return self._class(value) if is_own_class(value, self._home) else value
        if type(value) in (list, tuple, dict) and len(value) <= _FEW:
            return self._container(value)
        if type(value) is np.ndarray:
            # JAX remembers by its identity what it has made of an array. Made in single precision, it would meet the
            # next call, in double.
            return value.view()
        if asked or is_own_class(type(value), self._home):
            return self._instance(value)
        return value

    def _mapping(self, values: dict[str, Any]) -> dict[str, Any]:
        return {key: self.rebound(value) for key, value in values.items()}

    def _container(self, values: Any) -> Any:
        """A list, tuple or dict of functions; one that holds none stays what it is."""
        self._keep(values, values)  # one that holds itself
        if type(values) is dict:
            made: Any = self._mapping(values)
            changed = any(made[key] is not value for key, value in values.items())
        else:
            made = type(values)(map(self.rebound, values))
            changed = any(new is not old for new, old in zip(made, values, strict=True))
        return made if changed else values

    def _function(self, function: types.FunctionType) -> types.FunctionType:
        cells = tuple(types.CellType() for _ in function.__closure__ or ())
        key = id(function.__globals__)
        if key not in self._globals:
            self._globals[key] = _Globals(function.__globals__, self)
        made = types.FunctionType(function.__code__, self._globals[key], function.__name__, None, cells or None)
        self._keep(function, made)  # before its closure is filled, which may hold the function itself
        for cell, original in zip(cells, function.__closure__ or (), strict=True):
            try:
                cell.cell_contents = self.rebound(original.cell_contents)
            except ValueError:  # nothing is in there yet
                continue
        if function.__defaults__ is not None:
            made.__defaults__ = tuple(map(self.rebound, function.__defaults__))
        if function.__kwdefaults__ is not None:
            made.__kwdefaults__ = self._mapping(function.__kwdefaults__)
        made.__dict__.update(function.__dict__)
        for name in ("__module__", "__qualname__", "__doc__", "__annotations__"):
            setattr(made, name, getattr(function, name))
        return made

    def _class(self, cls: type) -> type:
        """A class of rebound methods on rebound classes; the class itself where making one would be noticed."""
        if type(cls) not in (type, abc.ABCMeta) or any(
            "__init_subclass__" in vars(base) or not (is_own_class(base, self._home) or base is abc.ABC)
            for base in cls.__mro__[:-1]
        ):
            return cls
        # Its methods hold the class itself, for `super()`: it exists before they are rebound.
        slots = _slots(cls)
        blank = {"__module__": cls.__module__, "__qualname__": cls.__qualname__}
        made = type(cls)(cls.__name__, tuple(map(self.rebound, cls.__bases__)), {**blank, **_own_slots(cls)})
        self._keep(cls, made)
        for name, member in vars(cls).items():
            if name not in slots and name not in _OF_CLASSES:
                setattr(made, name, self._member(member))
        return made

    def _member(self, member: Any) -> Any:
        if isinstance(member, (staticmethod, classmethod)):
            return type(member)(self.rebound(member.__func__))
        if isinstance(member, property):
            return property(*map(self.rebound, (member.fget, member.fset, member.fdel)))
        if isinstance(member, functools.cached_property):
            cached: Any = functools.cached_property(self.rebound(member.func))
            cached.attrname = member.attrname
            return cached
        return self.rebound(member)

    def _instance(self, value: Any) -> Any:
        """An instance of the subclass, with the same attributes; the instance itself where that cannot be made."""
        cls = self.rebound(type(value))
        try:
            made = object.__new__(cls)
        except TypeError:  # it is also a list, an array, ...
            return value
        self._keep(value, made)
        slots = (name for base in type(value).__mro__ for name in _slots(base))
        attributes = {name: getattr(value, name) for name in slots if hasattr(value, name)}
        attributes.update(getattr(value, "__dict__", {}))
        rebound = self._mapping(attributes)
        if cls is type(value) and all(rebound[name] is attribute for name, attribute in attributes.items()):
            return value
        for name, attribute in rebound.items():
            object.__setattr__(made, name, attribute)
        return made


def _slots(cls: type) -> tuple[str, ...]:
    slots = vars(cls).get("__slots__", ())
    return (slots,) if isinstance(slots, str) else tuple(slots)


def _own_slots(cls: type) -> dict[str, Any]:
    return {"__slots__": vars(cls)["__slots__"]} if "__slots__" in vars(cls) else {}
