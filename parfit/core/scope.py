"""How far a fingerprint looks: which functions and classes are looked into, and what an instance holds."""

from __future__ import annotations

import enum
import functools
import sys
import types
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from parfit.core.codes import closure_of, used_globals_of
from parfit.core.reach import home_of, is_own_class, is_own_function, is_own_module, unwrapped

__all__ = ["Scope", "besides", "held_by", "left_out", "parts_of", "scope_of", "state_of"]

#: What a function of a library, or an instance that says itself what it is, may hold that counts in any case.
_SIMPLE = (type(None), bool, int, float, complex, str, bytes, np.generic, np.ndarray)
_PICKLING = ("__getstate__", "__reduce__", "__reduce_ex__")


@dataclass(frozen=True)
class Scope:
    """What counts as the user's own, and what becomes of that which cannot be looked into.

    Attributes
    ----------
    home
        The installed package that the objective comes from, all of which counts as the user's own.
    asked
        The `id` of the function that it is all about, which is looked into wherever it comes from.
    strict
        Whether what cannot be looked into is refused: data in which a change would go unnoticed.
    """

    home: str | None = None
    asked: int = 0
    strict: bool = False

    def has_function(self, function: types.FunctionType) -> bool:
        """Whether a function is the user's own, with all that it reaches."""
        if is_own_function(function):
            return True
        # A decorator of another library is not of this package, though it gives itself that name.
        return self.home is not None and _root_of(function) == self.home and is_own_function(function, self.home)

    def has_class(self, kind: Any) -> bool:
        """Whether a class is the user's own."""
        return is_own_class(kind, self.home)

    def has_module(self, module: Any) -> bool:
        """Whether a module is the user's own."""
        return is_own_module(module, self.home)


def scope_of(thing: Any, home: str | None = None, *, strict: bool = False) -> Scope:
    """How far to look for the fingerprint of a thing; `home` is that of the call, where the thing has none."""
    if not callable(thing):
        return Scope(home, 0, strict)
    found = _function_of(thing)
    while isinstance(found, types.FunctionType) and not is_own_function(found) and _wrapped_by(found, home_of(found)):
        found = _function_of(vars(found)["__wrapped__"])
    home = (home_of(found) if callable(found) else None) or home
    return Scope(home, id(found) if isinstance(found, types.FunctionType) else 0, strict)


def parts_of(thing: Any, scope: Scope) -> dict[str, Any]:
    """What a function of the user's is made of, by its names; nothing for anything else."""
    while isinstance(thing, functools.partial):
        thing = thing.func
    function = getattr(unwrapped(thing), "__func__", unwrapped(thing))
    if not isinstance(function, types.FunctionType) or not scope.has_function(function):
        return {}
    found = {f"`{name}` of its closure": value for name, value in closure_of(function).items()}
    found |= {f"its global `{name}`": value for name, value in used_globals_of(function).items()}
    found |= {f"its attribute `{name}`": value for name, value in vars(function).items()}
    return {**found, "a default of its arguments": (function.__defaults__, function.__kwdefaults__)}


def _function_of(thing: Any) -> Any:
    """The function behind partials, methods and compiled ones."""
    while True:
        if isinstance(thing, functools.partial):
            thing = thing.func
        elif isinstance(thing, types.MethodType):
            thing = thing.__func__
        elif unwrapped(thing) is not thing:
            thing = unwrapped(thing)
        else:
            return thing


def _root_of(function: types.FunctionType) -> str:
    return str(function.__globals__.get("__name__", "")).partition(".")[0]


def _wrapped_by(function: types.FunctionType, home: str | None) -> bool:
    """Whether a function is what the decorator of another package than its own has made."""
    return "__wrapped__" in vars(function) and _root_of(function) != home


def held_by(function: types.FunctionType, closure: dict[str, Any]) -> list[Any]:
    """What the function of a library holds that may be the user's: functions that it calls, and numbers given to it.

    The standard library keeps counters in such places, and no numbers of the user's.
    """
    found = [vars(function).get("__wrapped__"), *closure.values()]
    functions = (types.FunctionType, types.MethodType, functools.partial)
    simple = () if _root_of(function) in sys.stdlib_module_names else (*_SIMPLE, tuple)
    return [v for v in found if isinstance(v, (*functions, *simple)) or unwrapped(v) is not v]


def state_of(thing: Any) -> dict[str, Any]:
    """The attributes of an instance, those in slots, too."""
    found = dict(getattr(thing, "__dict__", {}))
    for kind in type(thing).__mro__:
        for name, member in vars(kind).items():
            if isinstance(member, types.MemberDescriptorType) and hasattr(thing, name):
                found[name] = getattr(thing, name)
    return found


def left_out(thing: Any) -> dict[str, Any]:
    """Numbers, texts and arrays among the attributes of an instance that says itself what to pickle of it.

    Where nothing is pickled, the objective sees them. Anything else that it leaves out is taken for a memo.
    """
    kind = type(thing)
    if all(getattr(kind, name, None) is getattr(object, name, None) for name in _PICKLING):
        return {}
    return {name: value for name, value in sorted(state_of(thing).items()) if isinstance(value, _SIMPLE)}


def besides(thing: Any) -> dict[str, Any]:
    """What an instance of a class that is made from a usual one (a dict, a float, an array) holds besides."""
    if isinstance(thing, (pd.DataFrame, pd.Series)):
        return {name: getattr(thing, name, None) for name in thing._metadata if name not in ("name", "_name")}
    if isinstance(thing, enum.Enum) or (isinstance(thing, np.ndarray) and type(thing).__module__.startswith("numpy")):
        return {}  # an enumeration's and NumPy's own are caches
    found = state_of(thing)
    return {**found, "default_factory": thing.default_factory} if isinstance(thing, defaultdict) else found
