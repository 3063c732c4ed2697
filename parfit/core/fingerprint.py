"""What something is, in 16 bytes: whether data, a function or options are those that were seen before.

    digest(thing) ── read part by part: numbers, arrays, frames, containers, functions with all they reach ──▶ 16 bytes
    of_columns(arrays) ── each row of many, in operations on whole columns ──▶ (B, 2) of uint64

Equal things have equal fingerprints in every process. A function is what it computes: its instructions, its constants,
the values of its closure and of the globals that it names, and so on for the user's own functions among them; where it
stands in which file, its comments and its documentation are not part of it. Libraries are taken by their names.
"""

from __future__ import annotations

import functools
import gc
import hashlib
import types
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from parfit.core.codes import closure_of, globals_of, imported_by, names_of
from parfit.core.errors import InvalidInputError
from parfit.core.reach import is_own_class, is_own_function, is_own_module, unwrapped

__all__ = ["digest", "digest_and_parts", "of_columns"]

_SIZE = 16


def digest(thing: Any) -> bytes:
    """The fingerprint of anything.

    What cannot be looked into (a lock, a connection) counts by its type alone.

    Raises
    ------
    InvalidInputError
        For what is nested too deeply to be read.
    """
    return _digest(thing, {})


def digest_and_parts(thing: Any) -> tuple[bytes, dict[str, bytes]]:
    """The fingerprint of a thing; of a function of the user's, also those of what it is made of, by their names."""
    known: dict[int, tuple[bytes, Any]] = {}
    return _digest(thing, known), {name: _digest(part, known) for name, part in _parts_of(thing).items()}


def _digest(thing: Any, known: dict[int, tuple[bytes, Any]]) -> bytes:
    try:
        return _Reader(known, {}).of(thing)
    except RecursionError:
        text = f"a {type(thing).__name__} is nested too deeply to be known again: flatten it, or do without a store"
        raise InvalidInputError(text) from None


def _parts_of(thing: Any) -> dict[str, Any]:
    while isinstance(thing, functools.partial):
        thing = thing.func
    function = getattr(unwrapped(thing), "__func__", unwrapped(thing))
    if not is_own_function(function):
        return {}
    found = {f"`{name}` of its closure": value for name, value in closure_of(function).items()}
    for name in sorted(globals_of(function.__code__) & function.__globals__.keys()):
        found[f"its global `{name}`"] = function.__globals__[name]
    return {**found, "a default of its arguments": (function.__defaults__, function.__kwdefaults__)}


class _Reader:
    """Feeds a hash with all that makes a thing what it is.

    Parameters
    ----------
    known
        By the `id` of what holds others, its fingerprint, and itself, so that no id comes again.
    around
        What is being read, by its `id`, with its depth: a function that calls itself is in itself.
    """

    def __init__(self, known: dict[int, tuple[bytes, Any]], around: dict[int, int]) -> None:
        self._hash = hashlib.blake2b(digest_size=_SIZE)
        self._known = known
        self._around = around

    def of(self, thing: Any) -> bytes:
        self.read(thing)
        return self._hash.digest()

    def read(self, thing: Any) -> None:
        for kinds, reading in _READINGS:
            if isinstance(thing, kinds):
                reading(self, thing)
                return
        key = id(thing)
        if key in self._around:
            self.say("inside", len(self._around) - self._around[key])
            return
        if key not in self._known:
            inner = _Reader(self._known, {**self._around, key: len(self._around)})
            inner.holder(thing)
            self._known[key] = (inner._hash.digest(), thing)
        self._hash.update(self._known[key][0])

    def holder(self, thing: Any) -> None:
        """What may hold other things."""
        if thing is np.random.mtrand._rand:
            self.say("the global generator")  # whose state is another each time
            return
        if not isinstance(thing, type) and is_own_class(type(thing)) and isinstance(thing, _PLAIN):
            self.read(type(thing))  # one of the user's own, with methods
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

    def series(self, series: pd.Series[Any]) -> None:
        self.say("series", series.name)
        self.read(series.index)
        self.values(series.array)

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

    def unordered(self, items: Any) -> None:
        self.say(_name(type(items)), sorted(digest(item).hex() for item in items))

    # ---- functions and what they reach

    def function(self, function: types.FunctionType) -> None:
        if not is_own_function(function):
            self.say("library function", _name(function))
            held = [vars(function).get("__wrapped__"), *closure_of(function).values()]
            for inner in held:  # a decorator's, or a transformation's: what they call may be the user's own
                if isinstance(inner, (types.FunctionType, types.MethodType, functools.partial)):
                    self.read(inner)
            return
        self.say("function", function.__name__)
        self._code(function.__code__)
        self.read(function.__defaults__)
        self.read(function.__kwdefaults__)
        for value in closure_of(function).values():
            self.read(value)
        names = names_of(function.__code__)
        for name in sorted(globals_of(function.__code__) & function.__globals__.keys()):
            self.say("global", name)
            value = function.__globals__[name]
            self.read(value)
            self._used_of(value, names, set())
        for name, code in imported_by(function).items():
            self.say("imports", name)
            self._code(code)

    def _used_of(self, module: Any, names: set[str], seen: set[int]) -> None:
        """What a function may use of a module of the user's, and of modules in it."""
        if not is_own_module(module) or id(module) in seen:
            return
        seen.add(id(module))
        for used in sorted(names & vars(module).keys()):
            self.say("of module", used)
            value = vars(module)[used]
            self.read(value)
            self._used_of(value, names, seen)

    def _code(self, code: types.CodeType) -> None:
        self.say("code", code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags)
        self.say("names", code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)
        self.raw("instructions", code.co_code)
        documentation = code.co_consts[0] if code.co_consts and isinstance(code.co_consts[0], str) else None
        for const in code.co_consts:
            if isinstance(const, types.CodeType):
                self._code(const)
            elif const is not documentation:
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
        self.say("class", _name(kind))
        if is_own_class(kind):
            for base in kind.__bases__:
                self.read(base)
            for name, value in sorted(vars(kind).items()):
                if name not in _OF_ANY_CLASS:
                    self.say("attribute", name)
                    self.read(getattr(value, "__func__", value))

    def module(self, module: types.ModuleType) -> None:
        self.say("module", module.__name__)

    def object(self, thing: Any) -> None:
        kind = type(thing)
        self.read(kind)
        try:
            made = thing.__reduce_ex__(4)
        except Exception:  # noqa: BLE001 - whatever a class raises that cannot be pickled
            self.say("opaque")
            return
        if isinstance(made, str):
            self.say("named", made)
            return
        make, args, state, items, pairs = (*made, None, None, None, None)[:5]
        if isinstance(state, dict) and not state:
            state = None  # that an exception has no attributes is said in the one way or the other
        for part in (make, args, state, None if items is None else list(items), None if pairs is None else dict(pairs)):
            self.read(part)


#: What every class has, and says nothing of what its instances do.
_OF_ANY_CLASS = frozenset(
    "__dict__ __weakref__ __doc__ __module__ __slotnames__ __firstlineno__ __static_attributes__".split()
)

_NUMBERS = (type(None), bool, int, float, complex, np.generic, type(Ellipsis), type(NotImplemented))

#: Read wherever they are.
_READINGS: tuple[tuple[Any, Callable[[_Reader, Any], None]], ...] = (
    (np.generic, lambda r, v: r.array(np.asarray(v))),
    (_NUMBERS, lambda r, v: r.say(type(v).__name__, repr(v))),
    (str, lambda r, v: r.say("str", v)),
    ((bytes, bytearray), lambda r, v: r.raw("bytes", v)),
    ((pd.Timestamp, pd.Timedelta, pd.Period, type(pd.NaT), type(pd.NA)), lambda r, v: r.say(type(v).__name__, repr(v))),
    (types.ModuleType, _Reader.module),
)
#: What is read by what it holds, whatever its class.
_PLAIN = (dict, list, tuple, set, frozenset, np.ndarray)
#: Read once each.
_HOLDERS: tuple[tuple[Any, Callable[[_Reader, Any], None]], ...] = (
    (np.ndarray, _Reader.array),
    (pd.DataFrame, _Reader.frame),
    (pd.Series, _Reader.series),
    (pd.Index, _Reader.index),
    (dict, _Reader.mapping),
    ((list, tuple), _Reader.sequence),
    ((set, frozenset), _Reader.unordered),
    (types.FunctionType, _Reader.function),
    (types.MethodType, _Reader.method),
    (types.BuiltinFunctionType, _Reader.builtin),
    (np.ufunc, _Reader.ufunc),
    (property, _Reader.property),
    (functools.partial, _Reader.partial),
    (type, _Reader.class_),
)


def _name(thing: Any) -> str:
    own = getattr(thing, "__qualname__", None) or getattr(thing, "__name__", None) or type(thing).__qualname__
    return f"{getattr(thing, '__module__', '')}.{own}"


# ---- many rows at once

#: A multiplier of splitmix64 (G.L. Steele, D. Lea, C.H. Flood, Fast splittable pseudorandom number generators, 2014).
_MIX = np.uint64(0xBF58476D1CE4E5B9)
_LANES = 2
#: Rows that go through one pass, of an array by rows or by columns: their numbers stay in the cache.
_SLICE, _LONG_SLICE = 2048, 16384


def of_columns(arrays: list[NDArray[Any]], rows: int) -> NDArray[np.uint64]:
    """The fingerprint of each row of some arrays of numbers, shape (rows, …) each; shape (rows, 2).

    Sums of each entry, mixed, times an odd number of its own: a change in one entry always shows.
    """
    found = np.zeros((_LANES, rows), dtype=np.uint64)
    begin = 0
    for array in arrays if rows else ():
        words = _words(array)
        count = words.shape[1]
        keys = np.frombuffer(
            b"".join(hashlib.blake2b(f"{begin + i}".encode(), digest_size=8 * _LANES).digest() for i in range(count)),
            dtype=np.uint64,
        ).reshape(count, _LANES) | np.uint64(1)
        begin += count
        (_add_by_rows if words.flags.c_contiguous and count > 1 else _add_by_columns)(found, words, keys)
    return np.ascontiguousarray(found.T)


def _add_by_rows(found: NDArray[np.uint64], words: NDArray[np.uint64], keys: NDArray[np.uint64]) -> None:
    for at in range(0, len(words), _SLICE):
        mixed = _mixed(words[at : at + _SLICE])
        for lane in range(_LANES):
            found[lane, at : at + _SLICE] += mixed @ keys[:, lane]


def _add_by_columns(found: NDArray[np.uint64], words: NDArray[np.uint64], keys: NDArray[np.uint64]) -> None:
    for at in range(0, len(words), _LONG_SLICE):
        for column, key in zip(words[at : at + _LONG_SLICE].T, keys, strict=True):
            mixed = _mixed(column)
            for lane in range(_LANES):
                found[lane, at : at + _LONG_SLICE] += mixed * key[lane]


def _mixed(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    mixed = (words ^ (words >> np.uint64(32))) * _MIX
    mixed ^= mixed >> np.uint64(29)
    return mixed


def _words(array: NDArray[Any]) -> NDArray[np.uint64]:
    """The bits of each row as whole numbers, shape (B, k)."""
    flat = array.reshape(len(array), -1)
    if flat.dtype.itemsize == 8:
        return flat.view(np.uint64)
    if flat.dtype.kind in "iub":
        return flat.astype(np.int64).view(np.uint64)
    return flat.astype(np.float64).view(np.uint64)
