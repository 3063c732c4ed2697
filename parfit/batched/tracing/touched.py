"""What a function's code does to things that are not its own, read off its bytecode without running it.

The stack is followed instruction by instruction, in the order in which they are written: what is on it is either a
`Thing` from outside the function, with its value where that can be looked up, or of no interest (None).
"""

from __future__ import annotations

import builtins
import dis
import inspect
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

from parfit.core.reach import NOTHING, nested_codes

__all__ = ["Event", "Thing", "events"]

#: Instructions that leave what is below their operands as it was.
_NO_RESULT = ("POP_", "STORE_", "DELETE_", "RETURN_", "JUMP", "LIST_", "SET_", "MAP_", "DICT_", "RERAISE", "RAISE")
_NO_EFFECT = frozenset({"NOP", "RESUME", "CACHE", "EXTENDED_ARG", "KW_NAMES", "MAKE_CELL", "COPY_FREE_VARS"})
_ENDS = ("JUMP_FORWARD", "JUMP_BACKWARD", "RETURN_", "RAISE_", "RERAISE")


@dataclass(frozen=True)
class Thing:
    """Something from outside a function.

    Attributes
    ----------
    what
        What it is part of, in words: ``the list `calls` of its module``.
    value
        It, or `NOTHING` where that cannot be told.
    """

    what: str
    value: Any = NOTHING


@dataclass(frozen=True)
class Event:
    """Something that a function does.

    Attributes
    ----------
    kind
        ``"reads"`` a thing from outside, ``"changes"`` one, ``"takes"`` the attribute `name` of something that is
        not known, ``"calls for"`` a method that may change a thing, ``"imports"`` the module `name`, or ``"catches"``
        an exception.
    thing
        What it is done to.
    name
        Of the variable, attribute or module.
    """

    kind: str
    thing: Thing
    name: str = ""


@dataclass(frozen=True)
class _Constant:
    value: Any


def events(function: FunctionType, bound: Any = NOTHING) -> Iterator[Event]:
    """What a function does, and what the functions that are written inside it do.

    Parameters
    ----------
    function
        In Python.
    bound
        The object that it is a method of.
    """
    cells = {
        name: _contents(cell)
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=False)
    }
    own = _defaults(function)
    if bound is not NOTHING and function.__code__.co_varnames:
        own[function.__code__.co_varnames[0]] = Thing("the object that it is a method of", bound)
    yield from _all_events(function.__code__, function.__globals__, cells, own)


def _all_events(code: CodeType, names: dict[str, Any], cells: dict[str, Any], own: dict[str, Thing]) -> Iterator[Event]:
    yield from _Reader(code, names, cells, own).events()
    for inner in nested_codes(code):
        outer = {name: value for name, value in cells.items() if name in inner.co_freevars}
        yield from _all_events(inner, names, outer, {})


def _contents(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return NOTHING


def _defaults(function: FunctionType) -> dict[str, Thing]:
    positional = function.__code__.co_varnames[: function.__code__.co_argcount]
    defaults = function.__defaults__ or ()
    given = dict(zip(positional[len(positional) - len(defaults) :], defaults, strict=True))
    given.update(function.__kwdefaults__ or {})
    return {name: Thing(f"the default of its argument `{name}`", value) for name, value in given.items()}


def _kind(value: Any) -> str:
    return "variable" if value is NOTHING or value is None else type(value).__name__


def attribute(thing: Thing, name: str) -> Thing:
    """An attribute of a thing, looked up without running code of the thing's."""
    value = thing.value
    if value is NOTHING:
        return thing
    if isinstance(value, ModuleType):
        return replace(thing, value=getattr(value, name, NOTHING))
    found = inspect.getattr_static(value, name, NOTHING)
    if isinstance(found, property):
        found = found.fget
    if isinstance(found, (staticmethod, classmethod)):
        return replace(thing, value=found.__func__)
    if isinstance(found, FunctionType) and not isinstance(value, type) and name not in getattr(value, "__dict__", {}):
        return replace(thing, value=MethodType(found, value))
    return replace(thing, value=found)


class _Reader:
    """Follows the stack through one code."""

    def __init__(self, code: CodeType, names: dict[str, Any], cells: dict[str, Any], own: dict[str, Thing]) -> None:
        self._code, self._names, self._cells = code, names, cells
        self._locals: dict[str, Any] = dict(own)
        self._stack: list[Any] = []
        self._found: list[Event] = []

    def events(self) -> Iterator[Event]:
        for thing in self._locals.values():
            yield Event("reads", thing)
        jumps: dict[int, list[Any]] = {}
        ended = handles = False
        for instruction in dis.get_instructions(self._code):
            if ended:
                self._stack = list(jumps.get(instruction.offset, []))
            self._step(instruction)
            if instruction.opname == "CHECK_EXC_MATCH" or (handles and instruction.opname == "POP_TOP"):
                self._found.append(Event("catches", Thing("an exception")))
            handles = instruction.opname == "PUSH_EXC_INFO"
            if instruction.opcode in dis.hasjrel or instruction.opcode in dis.hasjabs:
                jumps.setdefault(instruction.argval, list(self._stack))
            ended = instruction.opname.startswith(_ENDS)
            yield from self._found
            self._found.clear()

    def _pop(self) -> Any:
        return self._stack.pop() if self._stack else None

    def _push(self, *things: Any) -> None:
        self._stack.extend(things)

    def _note(self, kind: str, thing: Any, name: str = "") -> None:
        if isinstance(thing, Thing):
            self._found.append(Event(kind, thing, name))

    def _step(self, instruction: dis.Instruction) -> None:
        op = instruction.opname
        for prefix, method in _STEPS.items():
            if op.startswith(prefix):
                method(self, instruction)
                return
        self._other(instruction)

    # One method for each kind of instruction.

    def _load_global(self, instruction: dis.Instruction) -> None:
        name = instruction.argval
        if name in self._names:
            value = self._names[name]
            thing = Thing(f"the {_kind(value)} `{name}` of its module", value)
        else:
            thing = Thing(f"the built-in `{name}`", getattr(builtins, name, NOTHING))
        self._note("reads", thing, name)
        null = [None] if instruction.opname == "LOAD_GLOBAL" and (instruction.arg or 0) & 1 else []
        self._push(*([thing, *null] if sys.version_info >= (3, 13) else [*null, thing]))

    def _load_fast(self, instruction: dis.Instruction) -> None:
        names = instruction.argval if isinstance(instruction.argval, tuple) else (instruction.argval,)
        self._push(*(self._locals.get(name) for name in names))

    def _store_fast(self, instruction: dis.Instruction) -> None:
        names = instruction.argval if isinstance(instruction.argval, tuple) else (instruction.argval,)
        self._locals[names[0]] = self._pop()
        if instruction.opname == "STORE_FAST_STORE_FAST":
            self._locals[names[1]] = self._pop()
        elif len(names) > 1:
            self._push(self._locals.get(names[1]))

    def _load_deref(self, instruction: dis.Instruction) -> None:
        if instruction.opname != "LOAD_DEREF" and instruction.opname != "LOAD_CLASSDEREF":
            self._pop()
        name = instruction.argval
        if name not in self._cells:
            self._push(self._locals.get(name))
            return
        value = self._cells[name]
        thing = Thing(f"the {_kind(value)} `{name}` of the function around it", value)
        self._note("reads", thing, name)
        self._push(thing)

    def _store_outside(self, instruction: dis.Instruction) -> None:
        name = instruction.argval
        if instruction.opname.startswith("STORE"):
            self._pop()
        if instruction.opname.endswith("_GLOBAL"):
            self._note("changes", Thing(f"the variable `{name}` of its module"), name)
        elif instruction.opname.endswith("_DEREF") and name in self._cells:
            self._note("changes", Thing(f"the variable `{name}` of the function around it"), name)

    def _load_attr(self, instruction: dis.Instruction) -> None:
        owner, name = self._pop(), instruction.argval
        found = None
        if isinstance(owner, Thing):
            found = attribute(owner, name)
            self._note("calls for", owner, name)
            self._note("reads", found, name)
        else:
            self._found.append(Event("takes", Thing("something"), name))
        self._push(found)
        method = instruction.opname == "LOAD_METHOD"
        if method or (sys.version_info >= (3, 12) and (instruction.arg or 0) & 1):
            self._push(None)

    def _subscript(self, instruction: dis.Instruction) -> None:
        key = self._pop()
        if instruction.opname == "BINARY_SLICE":
            self._pop()
        owner = self._pop()
        if not isinstance(owner, Thing):
            self._push(None)
            return
        value = NOTHING
        if isinstance(key, _Constant) and type(owner.value) in (dict, list, tuple):
            try:
                value = owner.value[key.value]
            except (KeyError, IndexError, TypeError):
                value = NOTHING
            self._note("reads", replace(owner, value=value))
        self._push(replace(owner, value=value))

    def _store_part(self, instruction: dis.Instruction) -> None:
        above = {"STORE_SUBSCR": 1, "DELETE_SUBSCR": 1, "STORE_SLICE": 2}.get(instruction.opname, 0)
        for _ in range(above):
            self._pop()
        self._note("changes", self._pop())
        if instruction.opname.startswith("STORE"):
            self._pop()

    def _load_const(self, instruction: dis.Instruction) -> None:
        self._push(_Constant(instruction.argval))

    def _copy(self, instruction: dis.Instruction) -> None:
        n = instruction.arg or 1
        self._push(self._stack[-n] if len(self._stack) >= n else None)

    def _swap(self, instruction: dis.Instruction) -> None:
        n = instruction.arg or 2
        if len(self._stack) >= n:
            self._stack[-1], self._stack[-n] = self._stack[-n], self._stack[-1]

    def _import_name(self, instruction: dis.Instruction) -> None:
        names, name = self._pop(), instruction.argval
        self._pop()
        self._found.append(Event("imports", Thing("a module"), name))
        whole = isinstance(names, _Constant) and names.value
        module = sys.modules.get(name if whole else name.partition(".")[0], NOTHING)
        self._push(Thing(f"the module `{name}`", module))

    def _import_from(self, instruction: dis.Instruction) -> None:
        owner = self._stack[-1] if self._stack else None
        found = attribute(owner, instruction.argval) if isinstance(owner, Thing) else None
        self._note("reads", found, instruction.argval)
        self._push(found)

    def _operate(self, instruction: dis.Instruction) -> None:
        if instruction.argrepr == "[]":
            self._subscript(instruction)
            return
        self._pop()
        owner = self._pop()
        if instruction.argrepr.endswith("=") and isinstance(owner, Thing):
            self._note("calls for", owner, "__iadd__")
        self._push(None)

    def _other(self, instruction: dis.Instruction) -> None:
        if instruction.opname in _NO_EFFECT:
            return
        argument = instruction.arg if instruction.opcode >= dis.HAVE_ARGUMENT else None
        try:
            effect = dis.stack_effect(instruction.opcode, argument, jump=False)
        except ValueError:
            effect = 0
        for _ in range(-effect):
            self._pop()
        self._push(*[None] * max(effect, 0))
        if effect <= 0 and self._stack and not instruction.opname.startswith(_NO_RESULT):
            self._stack[-1] = None


_Step = Callable[[_Reader, dis.Instruction], None]
#: How an instruction's name begins -> what it does; the first that fits.
_STEPS: dict[str, _Step] = {
    "LOAD_GLOBAL": _Reader._load_global,
    "LOAD_NAME": _Reader._load_global,
    "LOAD_FAST": _Reader._load_fast,
    "STORE_FAST": _Reader._store_fast,
    "LOAD_DEREF": _Reader._load_deref,
    "LOAD_CLASSDEREF": _Reader._load_deref,
    "LOAD_FROM_DICT_OR_DEREF": _Reader._load_deref,
    "STORE_GLOBAL": _Reader._store_outside,
    "DELETE_GLOBAL": _Reader._store_outside,
    "STORE_DEREF": _Reader._store_outside,
    "DELETE_DEREF": _Reader._store_outside,
    "LOAD_ATTR": _Reader._load_attr,
    "LOAD_METHOD": _Reader._load_attr,
    "BINARY_SUBSCR": _Reader._subscript,
    "BINARY_SLICE": _Reader._subscript,
    "BINARY_OP": _Reader._operate,
    "STORE_SUBSCR": _Reader._store_part,
    "DELETE_SUBSCR": _Reader._store_part,
    "STORE_SLICE": _Reader._store_part,
    "STORE_ATTR": _Reader._store_part,
    "DELETE_ATTR": _Reader._store_part,
    "LOAD_CONST": _Reader._load_const,
    "LOAD_SMALL_INT": _Reader._load_const,
    "COPY": _Reader._copy,
    "SWAP": _Reader._swap,
    "IMPORT_NAME": _Reader._import_name,
    "IMPORT_FROM": _Reader._import_from,
}
