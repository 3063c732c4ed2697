"""What something is, in 16 bytes: whether data, a function or options are those that were seen before.

    digest(thing) ── read part by part: numbers, arrays, frames, containers, functions with all they reach ──▶ 16 bytes

Equal things have equal fingerprints in every process. A function is what it computes: its instructions, its constants,
the values of its closure and of the globals that it names, and so on for the user's own functions among them; where it
stands in which file, its comments and its documentation are not part of it. Libraries are taken by their names.
Those of many datasets at once are in `parfit.core.rowprints`.
"""

from __future__ import annotations

import copyreg
import functools
import gc
import hashlib
import types
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from parfit.core.codes import HAS_DOCUMENTATION, closure_of, constants_of, imported_by, names_of, used_globals_of
from parfit.core.errors import InvalidInputError
from parfit.core.reach import unwrapped
from parfit.core.scope import Scope, besides, held_by, left_out, parts_of, scope_of, state_of

__all__ = ["digest", "digest_and_parts"]

_SIZE = 16


def digest(thing: Any, *, strict: bool = False) -> bytes:
    """The fingerprint of anything.

    What cannot be looked into (a lock, a connection) counts by its type alone, or is refused where `strict`.

    Raises
    ------
    InvalidInputError
        For what is nested too deeply to be read, and what gives other values each time.
    """
    return _digest(thing, {}, scope_of(thing, strict=strict))


def digest_and_parts(thing: Any, home: str | None = None) -> tuple[bytes, dict[str, bytes]]:
    """The fingerprint of a thing; of a function of the user's, also those of what it is made of, by their names.

    `home` is the installed package that the objective of the call comes from.
    """
    known: dict[int, tuple[bytes, Any]] = {}
    scope = scope_of(thing, home)
    return _digest(thing, known, scope), {
        name: _digest(part, known, scope) for name, part in parts_of(thing, scope).items()
    }


def _digest(thing: Any, known: dict[int, tuple[bytes, Any]], scope: Scope) -> bytes:
    try:
        return _Reader(known, {}, scope).of(thing)
    except RecursionError:
        text = f"a {type(thing).__name__} is nested too deeply to be known again: flatten it, or do without a store"
        raise InvalidInputError(text) from None


class _Reader:
    """Feeds a hash with all that makes a thing what it is.

    Parameters
    ----------
    known
        By the `id` of what holds others, its fingerprint, and itself, so that no id comes again.
    around
        What is being read, by its `id`, with its depth: a function that calls itself is in itself.
    scope
        How far to look.
    """

    def __init__(self, known: dict[int, tuple[bytes, Any]], around: dict[int, int], scope: Scope) -> None:
        self._hash = hashlib.blake2b(digest_size=_SIZE)
        self._known = known
        self._around = around
        self._scope = scope

    def of(self, thing: Any) -> bytes:
        self.read(thing)
        return self._hash.digest()

    def read(self, thing: Any) -> None:
        plain = _VALUES.get(type(thing))
        if plain is not None:
            plain(self, thing)
            return
        for kinds, reading in _READINGS:
            if isinstance(thing, kinds):
                reading(self, thing)
                return
        key = id(thing)
        if key in self._around:
            self.say("inside", len(self._around) - self._around[key])
            return
        if key not in self._known:
            inner = _Reader(self._known, {**self._around, key: len(self._around)}, self._scope)
            inner.holder(thing)
            self._known[key] = (inner._hash.digest(), thing)
        self._hash.update(self._known[key][0])

    def holder(self, thing: Any) -> None:
        """What may hold other things."""
        if thing is np.random.mtrand._rand:
            self.say("the global generator")  # whose state is another each time
            return
        if not isinstance(thing, type) and type(thing) not in _PLAIN and isinstance(thing, _PLAIN):
            self._special(thing)
        for kinds, reading in _HOLDERS:
            if isinstance(thing, kinds):
                reading(self, thing)
                return
        inner = unwrapped(thing)
        if inner is not thing:
            self.say("wrapped", _name(type(thing)))
            self.read(inner)
        else:
            self.object(thing)

    def _special(self, thing: Any) -> None:
        """What an instance of a class that is made from a usual one has besides."""
        kind = type(thing)
        self.say("of", _name(kind))
        if self._scope.has_class(kind):
            self.read(kind)
        for name, value in sorted(besides(thing).items()):
            self.say("attribute", name)
            self.read(value)

    def say(self, kind: str, *parts: object) -> None:
        text = "\x1f".join((kind, *map(str, parts)))
        self._hash.update(f"{len(text)}:{text}".encode("utf-8", "surrogatepass"))

    def raw(self, kind: str, data: Any) -> None:
        view = memoryview(data).cast("B")
        self.say(kind, len(view))
        self._hash.update(view)

    # ---- values

    def array(self, array: NDArray[Any]) -> None:
        self.say("array", array.dtype.str if array.dtype.names is None else array.dtype.descr, array.shape)
        if isinstance(array, np.ma.MaskedArray):
            self.array(np.ma.getmaskarray(array))
            array = array.filled(0) if array.dtype.kind in "iufcb" else np.asarray(array.data)
        if array.dtype.hasobject:
            for item in array.flat:
                self.read(item)
        elif array.size:
            self.raw("values", np.ascontiguousarray(array).view(np.uint8).reshape(-1))

    def values(self, array: Any) -> None:
        """An array of pandas', of whatever kind."""
        if isinstance(array, pd.Categorical):
            self.say("categories", array.ordered)
            self.read(array.categories)
            self.array(array.codes)
        elif isinstance(array.dtype, np.dtype):
            self.array(np.asarray(array))
        else:
            self.say("dtype", array.dtype)
            for item in array:
                self.read(item)

    def frame(self, frame: pd.DataFrame) -> None:
        self.say("frame", len(frame))
        self.read(frame.columns)
        self.read(frame.index)
        for i in range(frame.shape[1]):
            self.values(frame.iloc[:, i].array)
        if frame.attrs:
            self.read(frame.attrs)

    def series(self, series: pd.Series[Any]) -> None:
        self.say("series")
        self.read(series.name)
        self.read(series.index)
        self.values(series.array)
        if series.attrs:
            self.read(series.attrs)

    def index(self, index: pd.Index[Any]) -> None:
        self.say("index", list(index.names))
        if isinstance(index, pd.MultiIndex):
            for level in range(index.nlevels):
                self.read(index.get_level_values(level))
        else:
            self.values(index.array)

    def mapping(self, mapping: Mapping[Any, Any]) -> None:
        self.say("mapping", len(mapping))
        for key, value in mapping.items():
            self.read(key)
            self.read(value)

    def sequence(self, items: Any) -> None:
        self.say(_name(type(items)), len(items), *getattr(type(items), "_fields", ()))
        for item in items:
            self.read(item)

    def base(self, value: Any) -> None:
        """A number or text of a class of its own."""
        kind = next(kind for kind in _BASES if isinstance(value, kind))
        self.say(kind.__name__, kind.__repr__(value))

    def view(self, view: memoryview) -> None:
        self.say("view", view.format, view.shape)
        self.raw("values", view.tobytes())

    def unordered(self, items: Any) -> None:
        self.say(_name(type(items)), sorted(_Reader({}, {}, self._scope).of(item).hex() for item in items))

    # ---- functions and what they reach

    def function(self, function: types.FunctionType) -> None:
        self._scope = replace(self._scope, strict=False)
        own = self._scope.has_function(function)
        if not own and id(function) != self._scope.asked:
            self.say("library function", _name(function))
            for inner in held_by(function, closure_of(function)):
                self.read(inner)
            return
        self.say("function", function.__name__)
        self._code(function.__code__)
        self.read(function.__defaults__)
        self.read(function.__kwdefaults__)
        for value in closure_of(function).values():
            self.read(value)
        if not own:  # a library's, of whose module the version is known
            return
        for name, value in sorted(vars(function).items()):
            self.say("attribute", name)
            self.read(value)
        names = names_of(function.__code__)
        for name, value in used_globals_of(function).items():
            self.say("global", name)
            self.read(value)
            self._used_of(value, names, set())
        for name, code in imported_by(function, self._scope.home).items():
            self.say("imports", name)
            self._code(code)

    def _used_of(self, module: Any, names: set[str], seen: set[int]) -> None:
        """What a function may use of a module of the user's, and of modules in it."""
        if not self._scope.has_module(module) or id(module) in seen:
            return
        seen.add(id(module))
        for used in sorted(names & vars(module).keys()):
            self.say("of module", used)
            value = vars(module)[used]
            self.read(value)
            self._used_of(value, names, seen)

    def _code(self, code: types.CodeType) -> None:
        flags = code.co_flags & ~HAS_DOCUMENTATION
        self.say("code", code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, flags)
        self.say("names", code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)
        self.raw("instructions", code.co_code)
        self.raw("exceptions", code.co_exceptiontable)
        for const in constants_of(code):
            if isinstance(const, types.CodeType):
                self._code(const)
            else:
                self.read(const)

    def builtin(self, function: Any) -> None:
        self.say("builtin", _name(function))
        held = getattr(function, "__self__", None)
        if held is not None and not isinstance(held, types.ModuleType):
            self.read(held)

    def ufunc(self, function: np.ufunc) -> None:
        self.say("builtin", _name(function))
        for held in gc.get_referents(function):  # `np.frompyfunc` has a function inside
            if callable(held):
                self.read(held)

    def property(self, made: property) -> None:
        self.say("property")
        for function in (made.fget, made.fset):
            self.read(function)

    def method(self, method: types.MethodType) -> None:
        self.say("method", method.__name__)
        self.read(method.__func__)
        self.read(method.__self__)

    def partial(self, partial: functools.partial[Any]) -> None:
        self.say("partial")
        self.read(partial.func)
        self.read(partial.args)
        self.read(partial.keywords)

    def class_(self, kind: type) -> None:
        self._scope = replace(self._scope, strict=False)
        self.say("class", _name(kind))
        if self._scope.has_class(kind):
            for base in (type(kind), *kind.__bases__):
                self.read(base)
            for name, value in sorted(vars(kind).items()):
                if name not in _OF_ANY_CLASS:
                    self.say("attribute", name)
                    self.read(getattr(value, "__func__", value))

    def module(self, module: types.ModuleType) -> None:
        self.say("module", module.__name__)

    def once(self, thing: Any) -> None:
        text = f"a {type(thing).__name__} gives its values once, and cannot be known again"
        raise InvalidInputError(f"{text}: make a list of it, or do without a store")

    def object(self, thing: Any) -> None:
        kind = type(thing)
        self.read(kind)
        own, reducing = self._scope.has_class(kind), copyreg.dispatch_table.get(kind)
        try:
            made = thing.__reduce_ex__(4) if reducing is None else reducing(thing)
        except Exception:  # noqa: BLE001 - whatever a class raises that cannot be pickled
            self._unpickled(state_of(thing) if own else {}, kind)
            return
        if isinstance(made, str):
            self.say("named", made)
            return
        make, args, state, items, pairs = (*made, None, None, None, None)[:5]
        if isinstance(state, dict) and not state:
            state = None  # that an exception has no attributes is said in the one way or the other
        for part in (make, args, state, None if items is None else list(items), None if pairs is None else dict(pairs)):
            self.read(part)
        if own:
            self.read(left_out(thing))

    def _unpickled(self, state: dict[str, Any], kind: type) -> None:
        if self._scope.strict and not state:
            text = f"a {_name(kind)} cannot be looked into, and a change in it would go unnoticed"
            raise InvalidInputError(f"{text}: put what it holds in its place, or do without a store")
        self.say("opaque")
        self.read(dict(sorted(state.items())))


#: What every class has, and says nothing of what its instances do.
_OF_ANY_CLASS = frozenset(
    "__dict__ __weakref__ __doc__ __module__ __slotnames__ __firstlineno__ __static_attributes__ _abc_impl "
    "_value2member_map_".split()
)

_BASES = (int, float, complex, str, bytes, bytearray)

#: Values of these very types.
_VALUES: dict[type, Callable[[_Reader, Any], None]] = {
    **dict.fromkeys(
        (type(None), bool, int, float, complex, type(Ellipsis), type(NotImplemented)),
        lambda r, v: r.say(type(v).__name__, repr(v)),
    ),
    str: lambda r, v: r.say("str", v),
    bytes: lambda r, v: r.raw("bytes", v),
    bytearray: lambda r, v: r.raw("bytearray", v),
}
#: Read wherever they are.
_READINGS: tuple[tuple[Any, Callable[[_Reader, Any], None]], ...] = (
    (np.generic, lambda r, v: r.array(np.asarray(v))),
    ((pd.Timestamp, pd.Timedelta, pd.Period, type(pd.NaT), type(pd.NA)), lambda r, v: r.say(type(v).__name__, repr(v))),
    (types.ModuleType, _Reader.module),
)
#: What is read by what it holds, whatever its class.
_PLAIN = (dict, list, tuple, set, frozenset, np.ndarray, np.memmap, pd.DataFrame, pd.Series, *_BASES)
#: Read once each.
_HOLDERS: tuple[tuple[Any, Callable[[_Reader, Any], None]], ...] = (
    (np.ndarray, _Reader.array),
    (pd.DataFrame, _Reader.frame),
    (pd.Series, _Reader.series),
    (pd.Index, _Reader.index),
    ((dict, types.MappingProxyType), _Reader.mapping),
    ((list, tuple, type({}.keys()), type({}.values()), type({}.items())), _Reader.sequence),
    ((set, frozenset), _Reader.unordered),
    (_BASES, _Reader.base),
    (memoryview, _Reader.view),
    (types.FunctionType, _Reader.function),
    (types.MethodType, _Reader.method),
    (types.BuiltinFunctionType, _Reader.builtin),
    (np.ufunc, _Reader.ufunc),
    (property, _Reader.property),
    (functools.partial, _Reader.partial),
    (type, _Reader.class_),
    ((types.GeneratorType, types.CoroutineType, types.AsyncGeneratorType), _Reader.once),
)


def _name(thing: Any) -> str:
    own = getattr(thing, "__qualname__", None) or getattr(thing, "__name__", None) or type(thing).__qualname__
    return f"{getattr(thing, '__module__', '')}.{own}"
