"""What is packed for the workers: a payload, or the sentence that says what in it cannot be pickled, and where.

Only after pickling has failed is it taken apart: closure cells, defaults, globals, arguments of a partial, attributes,
items; from the whole down to the smallest part that cannot be pickled by itself.
"""

from __future__ import annotations

import dataclasses
import functools
import reprlib
import time
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from parfit.core.errors import InvalidTypeError, SetupError
from parfit.core.protocols import Block
from parfit.core.solution import TaskError
from parfit.executors import payload as pl

__all__ = ["packed", "packed_call", "result_error", "setup_failed", "task_error", "unsendable"]

#: Looking for the culprit takes no longer than this, s.
_PATIENCE_S = 3.0
#: Of a collection, so many items are looked at.
_ITEMS = 2000
_DEPTH = 30
_NO_PARTS = ("__dict__", "__weakref__", "__doc__")
#: How pickle itself names what it cannot do; such a message adds nothing to the name of the type.
_PLAIN = "cannot pickle"
#: Roles, by the name of the argument or attribute, for which there is no other executor to choose.
_NO_CHOICE = ("fun", "load", "process_function", "params", "call", "item")
_IN_WORDS = {"load": "the loading function", "setup": "the setup"}


def packed(what: str, obj: Any) -> pl.Payload:
    """Pickle `obj`; raises `SetupError` that says what in it cannot be, `what` being all of it."""
    try:
        return pl.dumps(obj)
    except Exception as exc:
        raise SetupError(unsendable(what, obj, exc)) from exc


def packed_call(fun: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bytes:
    """A call as it is now: what the caller does to the arguments afterwards does not reach the worker."""
    try:
        return pl.in_one((fun, args, dict(kwargs)))
    except Exception as exc:
        raise InvalidTypeError(unsendable("call", _Call(fun, args, dict(kwargs)), exc)) from exc


@dataclasses.dataclass
class _Call:
    """For taking apart."""

    fun: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


def setup_failed(error: TaskError) -> SetupError:
    """What to raise where a worker has not got through its setup, or could not unpack what it was sent."""
    said = f"{error.type}: {error.message}"
    if "in loads" in error.traceback and ("ModuleNotFound" in error.type or "Can't get attribute" in error.message):
        return SetupError(
            f"a worker cannot unpack what it was sent: {said}. What a module defines travels by name, and workers "
            "import the module as it is on disk now: is it on sys.path, and does it still define that?"
        )
    return SetupError(f"the setup failed in a worker: {said}")


def task_error(block: Block, exc: BaseException) -> TaskError:
    """The error of a block that cannot be pickled; where it is one task, it says what in that is to blame."""
    if len(block) != 1:
        return TaskError.from_exception(exc)
    payloads: list[Any] = []
    block.visit(lambda _, payload: payloads.append(payload))
    error = InvalidTypeError(unsendable("item", payloads[0], exc))
    error.__cause__ = exc
    return TaskError.from_exception(error)


def result_error(value: Any, exc: BaseException) -> TaskError:
    """The error of a task whose value cannot be pickled."""
    error = InvalidTypeError(unsendable("the result", value, exc, back=True))
    error.__cause__ = exc
    return TaskError.from_exception(error)


class _Nowhere:
    """A file that keeps nothing."""

    def write(self, data: Any) -> int:
        return len(data)


def _obstacle(obj: Any) -> BaseException | None:
    """What pickling raises; None where it works."""
    try:
        # None is what pickle expects of a callback that has taken the buffer.
        pl.Pickler(_Nowhere(), protocol=5, buffer_callback=lambda _: None).dump(obj)
    except Exception as exc:  # noqa: BLE001 - pickling raises what it likes
        return exc
    return None


def unsendable(what: str, obj: Any, exc: BaseException, *, back: bool = False) -> str:
    """The sentence for something that cannot be pickled.

    Parameters
    ----------
    what
        What it is, "setup".
    obj
        The object.
    exc
        What pickling it raised.
    back
        It was on its way from a worker to the caller.
    """
    trail = _Trail(what, obj, back)
    leaf, why = obj, exc
    deadline = time.monotonic() + _PATIENCE_S
    seen = {id(obj)}
    for _ in range(_DEPTH):
        for step, part in _parts(leaf):
            if id(part) in seen:
                continue
            seen.add(id(part))
            found = _obstacle(part)
            if found is not None:
                trail.go(leaf, step, part)
                leaf, why = part, found
                break
            if time.monotonic() > deadline:
                return trail.sentence(leaf, why)
        else:
            break
    return trail.sentence(leaf, why)


def _parts(obj: Any) -> Iterator[tuple[str, Any]]:
    """What an object is made of, each with how to get there: ``.name``, ``[key]``, or words for a function's."""
    if isinstance(obj, types.MethodType):
        yield "of", obj.__self__
        yield "", obj.__func__
    elif isinstance(obj, types.FunctionType):
        yield from _parts_of_function(obj)
    elif isinstance(obj, functools.partial):
        yield "", obj.func
        yield from ((f"is given argument {i}", arg) for i, arg in enumerate(obj.args))
        yield from ((f"is given argument {name}", arg) for name, arg in obj.keywords.items())
    elif isinstance(obj, Mapping):
        yield from ((f"[{_short(key)}]", value) for key, value, _ in zip(obj.keys(), obj.values(), range(_ITEMS)))  # noqa: B905
        yield from ((f"has the key {_short(key)}", key) for key, _ in zip(obj, range(_ITEMS)))  # noqa: B905
    elif isinstance(obj, tuple) and hasattr(obj, "_fields"):
        yield from ((f".{name}", part) for name, part in zip(obj._fields, obj, strict=True))
    elif isinstance(obj, (list, tuple)):
        yield from ((f"[{i}]", obj[i]) for i in range(min(len(obj), _ITEMS)))
    elif isinstance(obj, (set, frozenset)):
        yield from ((f"[{_short(item)}]", item) for item, _ in zip(obj, range(_ITEMS)))  # noqa: B905
    if not isinstance(obj, (types.FunctionType, types.MethodType, types.ModuleType)) and not _refuses(obj):
        yield from ((f".{name}", part) for name, part in _attributes(obj))
        if not isinstance(obj, type):
            yield ".__class__", type(obj)


def _refuses(obj: Any) -> bool:
    """Whether an object of the user's says itself that it cannot be pickled, whatever its parts."""
    kind: Any = type(obj)
    if kind.__reduce_ex__ is object.__reduce_ex__ and kind.__reduce__ is object.__reduce__:
        return False
    try:
        obj.__reduce_ex__(5)
    except Exception:  # noqa: BLE001
        return True
    return False


def _parts_of_function(function: types.FunctionType) -> Iterator[tuple[str, Any]]:
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield f"captures {name}", cell.cell_contents
        except ValueError:  # not filled yet
            continue
    names = function.__code__.co_varnames[: function.__code__.co_argcount]
    defaults = function.__defaults__ or ()
    yield from ((f"has the default {n}", v) for n, v in zip(names[len(names) - len(defaults) :], defaults, strict=True))
    yield from ((f"has the default {name}", value) for name, value in (function.__kwdefaults__ or {}).items())
    for name in dict.fromkeys(_global_names(function.__code__)):
        if name in function.__globals__:
            yield f"uses the global {name}", function.__globals__[name]
    yield from ((f"has the attribute {name}", value) for name, value in vars(function).items())


def _global_names(code: types.CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _global_names(constant)


def _attributes(obj: Any) -> Iterator[tuple[str, Any]]:
    """What an instance holds (a class: what it defines)."""
    held: Mapping[str, Any] = getattr(obj, "__dict__", None) or {}
    yield from [(name, part) for name, part in held.items() if name not in _NO_PARTS]
    for kind in type(obj).__mro__:
        slots = kind.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if name not in _NO_PARTS and hasattr(obj, name):
                yield name, getattr(obj, name)


def _short(key: Any) -> str:
    try:
        return reprlib.repr(key)
    except Exception:  # noqa: BLE001 - a __repr__ of the user's
        return f"a {type(key).__name__}"


def _kind(obj: Any) -> str:
    if isinstance(obj, type):
        return f"the class {obj.__qualname__}"
    kind = type(obj)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


class _Trail:
    """The way from the whole to the part that cannot be pickled, in words."""

    def __init__(self, what: str, obj: Any, back: bool) -> None:
        self._role = what
        self._back = back
        self._choice = what not in _NO_CHOICE
        self._subject = obj
        self._path = ""
        self._clauses: list[tuple[str, str]] = []  # a verb, and the expression that follows it

    def go(self, parent: Any, step: str, part: Any) -> None:
        """Take one step down."""
        if not self._clauses and not self._path and _is_ours(parent):
            # Wrappers of parfit's own go unnamed; the attribute tells what the user's object is.
            if step.startswith(".") and not self._back:
                self._role = step[1:].lstrip("_")
            self._subject = part
        elif step == "of":
            self._clauses.append(("belongs to", f"a {type(part).__qualname__}"))
        elif not step.startswith((".", "[")):
            if step:
                verb, _, name = step.rpartition(" ")
                self._clauses.append((verb, repr(name)))
        elif not self._clauses and _is_plain(self._subject):
            self._path += step
        elif not self._clauses or self._clauses[-1][0] == "belongs to":
            self._clauses.append(("holds", repr(step.lstrip("."))))
        else:
            verb, expression = self._clauses[-1]
            self._clauses[-1] = verb, repr(expression[1:-1] + step)

    def sentence(self, leaf: Any, why: BaseException) -> str:
        """The whole sentence, `why` being what pickling `leaf` raised."""
        said = str(why)
        reason = "cannot be pickled"
        if not (said.startswith(_PLAIN) and type(leaf).__name__ in said):
            reason += f" ({type(why).__name__}: {said})"
        reason += self._advice(leaf)
        subject, where = self._named() + self._path, f"cannot be sent {'back' if self._back else 'to workers'}"
        if not self._clauses:
            kind = f" ({_kind(leaf)})" if self._path or _is_plain(self._subject) else ""
            return f"{subject}{kind} {where}: it {reason}"
        chain = ", which ".join(f"{verb} {expression}" for verb, expression in self._clauses)
        return f"{subject} {where}: it {chain} ({_kind(leaf)}), which {reason}"

    def _named(self) -> str:
        role, subject = _IN_WORDS.get(self._role, self._role), self._subject
        if _is_plain(subject):
            return role
        while isinstance(subject, functools.partial):
            subject = subject.func
        name = getattr(subject, "__qualname__", None)
        if isinstance(name, str):
            return f"{role} {name.rpartition('<locals>.')[2]!r}"
        return f"{role} ({_kind(subject)})"

    def _advice(self, leaf: Any) -> str:
        if self._back:
            return ""
        if isinstance(leaf, types.GeneratorType):
            make = "give a list of what it yields"
        elif self._clauses and self._clauses[0][0] in ("captures", "uses the global", "has the default"):
            make = "create it inside the function"
        else:
            make = "create it where it is used"
        return f"; {make}" + (", or use executor='threads'" if self._choice and self._role not in _NO_CHOICE else "")


def _is_ours(obj: Any) -> bool:
    if isinstance(obj, functools.partial):
        obj = obj.func
    module = obj.__module__ if isinstance(obj, types.FunctionType) else type(obj).__module__
    return str(module).startswith("parfit.")


def _is_plain(obj: Any) -> bool:
    """Whether the role alone names it: data, as opposed to the user's own functions and objects."""
    return isinstance(obj, (tuple, list, dict, set, frozenset)) or (_is_ours(obj) or not callable(obj))
