"""What a function in Python refers to: its closure, globals, attributes, and what it imports while it runs."""

from __future__ import annotations

import contextlib
import dis
import types
from collections.abc import Iterator
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import Any

from parfit.core.reach import is_own_module, nested_codes

__all__ = ["HAS_DOCUMENTATION", "closure_of", "constants_of", "imported_by", "names_of", "used_globals_of"]

#: The flag of a code that is documented, in Python from 3.13 on.
HAS_DOCUMENTATION = 0x4000000


def closure_of(function: types.FunctionType) -> dict[str, Any]:
    """What the closure of a function holds, by name."""
    found = {}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        with contextlib.suppress(ValueError):  # not filled yet
            found[name] = cell.cell_contents
    return found


def used_globals_of(function: types.FunctionType) -> dict[str, Any]:
    """The globals that a function reads, by name in their order; behind those that `jaxify` has put in their place."""
    space = getattr(function.__globals__, "original", function.__globals__)
    return {name: space[name] for name in sorted(globals_of(function.__code__) & space.keys())}


def globals_of(code: types.CodeType) -> set[str]:
    """The names of globals that a code reads, those of functions inside it, too."""
    own = {one.argval for one in dis.get_instructions(code) if one.opname in ("LOAD_GLOBAL", "LOAD_NAME")}
    return own.union(*(globals_of(inner) for inner in nested_codes(code)))


def names_of(code: types.CodeType) -> set[str]:
    """What a code names: globals, and attributes; of the functions inside it, too."""
    return set(code.co_names).union(*(names_of(inner) for inner in nested_codes(code)))


def constants_of(code: types.CodeType) -> tuple[Any, ...]:
    """The constants that a code works with: its documentation is the first one, and no instruction loads it.

    Where there is none, its place may be empty.
    """
    first = code.co_consts[:1]
    if not first or not isinstance(first[0], (str, type(None))):
        return code.co_consts
    used = any(one.arg == 0 and one.opcode in dis.hasconst for one in dis.get_instructions(code))
    return code.co_consts if used else code.co_consts[1:]


def imported_by(function: types.FunctionType, home: str | None = None) -> dict[str, types.CodeType]:
    """The code of the user's own modules that a function imports while it runs, and of those that they import.

    None is imported for that: what it would do, it does where the function runs.
    """
    found: dict[str, types.CodeType] = {}
    _follow(function.__code__, function.__globals__.get("__package__") or "", found, home)
    return dict(sorted(found.items()))


def _follow(code: types.CodeType, package: str, found: dict[str, types.CodeType], home: str | None) -> None:
    for name in _imports_of(code, package):
        if name in found:
            continue
        with contextlib.suppress(Exception):  # what cannot be read is told of where the function runs
            spec = _spec_of(name, home)
            if spec is not None and spec.origin is not None and spec.origin.endswith(".py"):
                found[name] = made = compile(Path(spec.origin).read_bytes(), name, "exec", dont_inherit=True)
                _follow(made, name if spec.submodule_search_locations else name.rpartition(".")[0], found, home)


def _imports_of(code: types.CodeType, package: str) -> Iterator[str]:
    """The full names of what may be a module in import statements."""
    steps = list(dis.get_instructions(code))
    for i, step in enumerate(steps):
        if step.opname == "IMPORT_NAME":
            level, taken = steps[i - 2].argval, steps[i - 1].argval or ()
            base = package.rsplit(".", level - 1)[0] if level else ""
            name = f"{base}.{step.argval}".strip(".")
            yield from (name, *(f"{name}.{part}" for part in taken))
    for inner in nested_codes(code):
        yield from _imports_of(inner, package)


def _spec_of(name: str, home: str | None) -> ModuleSpec | None:
    """Where a module of the user's own would come from."""
    spec, path, begun = None, None, ""
    for part in name.split("."):
        begun = f"{begun}.{part}".strip(".")
        spec = PathFinder.find_spec(begun, path)
        if spec is None:
            return None
        path = spec.submodule_search_locations
    module = types.ModuleType(name)
    module.__file__ = spec.origin if spec is not None else None
    return spec if is_own_module(module, home) else None
