"""Whether an objective does what a compiled function could not repeat: it would do it once, while it is compiled.

Nothing is run: the code of the objective is read, and that of the user's own functions that it reaches.
"""

from __future__ import annotations

import builtins
import collections
import collections.abc
import functools
import io
import logging
import random
import types
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from parfit.batched.tracing.touched import Event, Thing, events
from parfit.core.reach import (
    NOTHING,
    home_of,
    is_own_class,
    is_own_function,
    unwrapped,
)

__all__ = ["is_suspicious"]

_BUILTINS = ("print", "open", "input", "exec", "eval", "breakpoint", "compile", "setattr", "delattr", "globals")
#: Modules that read the clock, draw numbers, or do something to the process or the world outside it.
_MODULES = frozenset(
    "os posix nt sys time datetime random _random subprocess signal socket logging threading _thread multiprocessing "
    "ctypes warnings _warnings secrets uuid io _io pathlib shutil pickle sqlite3 _sqlite3 tempfile gc atexit queue "
    "concurrent asyncio urllib http requests matplotlib tqdm IPython joblib traceback glob".split()
)
#: Those whose objects are alive; an object of the others, such as a date, is a value.
_ALIVE = _MODULES - {"datetime", "uuid"}
_DRAWS = (np.random.Generator, np.random.RandomState, random.Random)
_CONTAINERS = (list, dict, set, bytearray, collections.deque)
_CHANGES = frozenset(
    "append extend insert add update pop popitem clear remove discard setdefault appendleft extendleft popleft sort "
    "reverse rotate subtract move_to_end difference_update intersection_update symmetric_difference_update "
    "__setitem__ __delitem__ __iadd__".split()
)
#: Those that nothing but a container has, where it is not known what has them.
_SURELY_CHANGES = frozenset("append extend insert popitem setdefault appendleft extendleft popleft".split())
_CHANGES_ARRAY = frozenset("fill sort put itemset resize partition setfield setflags __setitem__ __iadd__".split())
_CHANGES_FRAME = frozenset("insert pop update __setitem__ __iadd__".split())
_WRITES = frozenset("to_csv to_pickle to_parquet to_excel to_hdf to_feather to_sql tofile savefig".split())
_NUMPY_STATE = frozenset("save savez savez_compressed savetxt seterr seterrcall set_printoptions".split())
#: A container of functions is short; a longer one is data.
_FEW = 1000


def is_suspicious(function: Any) -> str | None:
    """What an objective does that a compiled function could not repeat.

    It prints, writes, reads the clock, draws numbers, catches an exception that only some datasets raise, or changes
    what outlives its call: a global variable, a list or an array of its module or of a function around it, an
    attribute of its object.

    Parameters
    ----------
    function : callable
        The objective.

    Returns
    -------
    str or None
        A sentence without a full stop, such as ``"it calls print()"``; None where nothing was found.
    """
    search = _Search(home_of(function))
    found = search.callable(function)
    return found if found is not None or search.seen else "it is not written in Python, so what it does cannot be seen"


class _Search:
    def __init__(self, home: str | None) -> None:
        self._home = home
        # Keeps what it has seen, so that an id is not given away to something else.
        self._seen: dict[tuple[int, int], Any] = {}
        self._subject = "it"

    @property
    def seen(self) -> bool:
        """Whether any code was found."""
        return bool(self._seen)

    def callable(self, value: Any) -> str | None:
        """Look through the objective itself, wherever it comes from."""
        value = unwrapped(value)
        if isinstance(value, functools.partial):
            return self.callable(value.func) or self._first(map(self.value, (*value.args, *value.keywords.values())))
        if isinstance(value, types.FunctionType):
            return self._function(value)
        if isinstance(value, types.MethodType):
            return self._method(value)
        if isinstance(value, type):
            return self._class(value)
        if isinstance(value, np.vectorize):
            return self.callable(value.pyfunc)
        call: Any = type(value).__call__ if callable(value) else None
        return self._method(types.MethodType(call, value)) if isinstance(call, types.FunctionType) else None

    def value(self, value: Any) -> str | None:
        """Look at something that the code can reach, and through it where it is the user's own."""
        if (wrong := self._wrong(value)) is not None:
            return f"{self._subject} {wrong}"
        value = unwrapped(value)
        if isinstance(value, functools.partial):
            return self._first(map(self.value, (value.func, *value.args, *value.keywords.values())))
        if is_own_function(value, self._home):
            return self._as(value.__name__, self._function, value)
        if isinstance(value, types.MethodType) and is_own_function(value.__func__, self._home):
            return self._as(value.__func__.__name__, self._method, value)
        if is_own_class(value, self._home):
            return self._as(value.__name__, self._class, value)
        if type(value) in (list, tuple, dict) and len(value) <= _FEW:
            return self._container(value)
        call: Any = type(value).__call__ if callable(value) else None
        if is_own_function(call, self._home):
            return self._as(type(value).__name__, self._method, types.MethodType(call, value))
        return None

    def _as(self, name: str, look: Any, *args: Any) -> str | None:
        before, self._subject = self._subject, f"`{name}`"
        try:
            found: str | None = look(*args)
        finally:
            self._subject = before
        return found

    @staticmethod
    def _first(found: Iterator[str | None]) -> str | None:
        return next((sentence for sentence in found if sentence is not None), None)

    def _is_new(self, value: Any, bound: Any = None) -> bool:
        key = (id(value), id(bound))
        if key in self._seen:
            return False
        self._seen[key] = (value, bound)
        return True

    def _container(self, values: Any) -> str | None:
        if not any(callable(value) or isinstance(value, (list, tuple, dict)) for value in _values(values)):
            return None
        return self._first(map(self.value, _values(values))) if self._is_new(values) else None

    def _class(self, cls: type) -> str | None:
        """What any of its methods does; what they do to a new object is no concern."""
        if not self._is_new(cls):
            return None
        members = [
            inner
            for base in cls.__mro__
            for name, member in vars(base).items()
            for inner in _functions(member)
            if name not in ("__repr__", "__str__", "__del__")
        ]
        return self._first(self._function(member) for member in members if is_own_function(member, self._home))

    def _is_own(self, value: Any) -> bool:
        # Attributes of these are not asked for, since that may run the user's own code.
        return is_own_class(type(value), self._home)

    def _method(self, method: types.MethodType) -> str | None:
        # `super()` leads from a method to those of the same name.
        bound = method.__self__
        owner = bound if isinstance(bound, type) else type(bound)
        name = method.__func__.__name__
        alike = (inner for base in owner.__mro__ for inner in _functions(vars(base).get(name)))
        functions = {id(inner): inner for inner in (method.__func__, *alike)}.values()
        return self._first(self._function(inner, bound) for inner in functions)

    def _function(self, function: Any, bound: Any = NOTHING) -> str | None:
        if not isinstance(function, types.FunctionType) or not self._is_new(function, bound):
            return None
        return self._first(map(self._judged, events(function, bound)))

    def _judged(self, event: Event) -> str | None:
        if event.kind == "reads":
            return None if event.thing.value is NOTHING else self.value(event.thing.value)
        if event.kind == "imports":
            wrong = _is_wrong_module(event.name)
            return f"{self._subject} imports the module `{event.name}`" if wrong else None
        if event.kind == "changes" or (event.kind == "calls for" and _would_change(event.thing, event.name)):
            return f"{self._subject} changes {event.thing.what}"
        if event.kind == "catches":
            return f"{self._subject} catches exceptions, and a compiled function raises none"
        if event.name in _WRITES:
            return f"{self._subject} calls .{event.name}()"
        return None

    def _wrong(self, value: Any) -> str | None:
        """What is wrong with using a value, as what follows "it"; None where nothing is."""
        if isinstance(value, types.ModuleType):
            return f"uses the module `{value.__name__}`" if _is_wrong_module(value.__name__) else None
        if isinstance(value, _FUNCTIONS) and (name := _wrong_builtin(value)) is not None:
            return f"calls {name}()"
        owner = getattr(value, "__self__", None) if isinstance(value, _BOUND) else None
        if owner is not None and _would_change(Thing("", owner), value.__name__):
            return f"changes a {type(owner).__name__}, by its method `{value.__name__}`"
        if isinstance(value, _DRAWS) or isinstance(owner, _DRAWS):
            return "draws random numbers"
        if isinstance(value, (logging.Logger, io.IOBase)) or isinstance(owner, (logging.Logger, io.IOBase)):
            return f"uses a {type(value if owner is None else owner).__name__}"
        if callable(value) and not self._is_own(value) and isinstance(name := getattr(value, "__name__", None), str):
            module = getattr(value, "__module__", None) or ""
            if _is_wrong_module(module) or (module.partition(".")[0] == "numpy" and name in _NUMPY_STATE):
                return f"uses {module}.{name}"
            return None
        if isinstance(value, collections.abc.Iterator):
            return f"draws from an iterator ({type(value).__name__})"
        module = type(value).__module__
        return f"uses a {type(value).__name__}" if module.partition(".")[0] in _ALIVE else None


_BOUND = (types.BuiltinFunctionType, types.MethodType)
_FUNCTIONS = (types.BuiltinFunctionType, types.FunctionType)
_WRONG_BUILTINS = {getattr(builtins, name): name for name in _BUILTINS if hasattr(builtins, name)}


def _wrong_builtin(value: Any) -> str | None:
    """The name of a built-in function, or of what has been put in its place: progress bars do that with `print`."""
    replaced = (name for name in _BUILTINS if getattr(builtins, name, None) is value)
    return _WRONG_BUILTINS.get(value) or next(replaced, None)


def _values(container: Any) -> list[Any]:
    return list(container.values()) if isinstance(container, dict) else list(container)


def _functions(member: Any) -> tuple[Any, ...]:
    """The functions of a member of a class."""
    if isinstance(member, property):
        return (member.fget, member.fset)
    if isinstance(member, functools.cached_property):
        return (member.func,)
    return (member.__func__ if isinstance(member, (staticmethod, classmethod)) else member,)


def _is_wrong_module(name: str) -> bool:
    parts = name.split(".")
    return parts[0] in _MODULES or parts[:2] == ["numpy", "random"]


def _would_change(thing: Thing, name: str) -> bool:
    """Whether a method changes what it belongs to."""
    value = thing.value
    if value is NOTHING:
        return name in _SURELY_CHANGES
    if isinstance(value, np.ndarray):
        return name in _CHANGES_ARRAY
    if isinstance(value, (pd.DataFrame, pd.Series)):
        return name in _CHANGES_FRAME
    return isinstance(value, _CONTAINERS) and name in _CHANGES
