"""Which functions, classes and modules are the user's own, so that they may be looked through and copied."""

from __future__ import annotations

import functools
import sys
import sysconfig
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

__all__ = ["NOTHING", "home_of", "is_own_class", "is_own_function", "is_own_module", "nested_codes", "unwrapped"]

#: In place of what is not there, where None might be.
NOTHING: Any = object()

_INSTALLED = ("site-packages", "dist-packages")
#: Packages whose functions are known to do what they say, wherever they lie.
_LIBRARIES = frozenset({"numpy", "scipy", "pandas", "jax", "jaxlib", "parfit", "pysd", "xarray"})


@functools.cache
def _library_folders() -> tuple[str, ...]:
    paths = sysconfig.get_paths()
    return (*{str(Path(paths[name])) for name in ("stdlib", "platstdlib")}, str(Path(__file__).parents[1]))


@functools.cache
def _is_library_file(filename: str) -> bool:
    if filename.startswith("<"):
        return filename.startswith("<frozen")
    path = Path(filename)
    if any(part in _INSTALLED for part in path.parts):
        return True
    return any(path.is_relative_to(folder) for folder in _library_folders())


def home_of(function: Any) -> str | None:
    """The package that an objective comes from, where it is an installed one; all of it counts as the user's own."""
    while isinstance(function, functools.partial):
        function = function.func
    function = unwrapped(function)
    code = getattr(getattr(function, "__func__", function), "__code__", None)
    module = getattr(function if code is not None else type(function), "__module__", None) or ""
    filename = code.co_filename if code is not None else getattr(sys.modules.get(module), "__file__", None)
    root = module.partition(".")[0]
    installed = filename is not None and _is_library_file(filename)
    return root if installed and root not in _LIBRARIES and root not in sys.stdlib_module_names else None


def _is_own(filename: str | None, module: str | None, home: str | None) -> bool:
    root = (module or "").partition(".")[0]
    if home is not None and root == home:
        return True
    if filename is None or _is_library_file(filename):
        return False
    # Code that a library made on the fly has no file; its module tells.
    made = filename.startswith("<") and not filename.startswith("<doctest")
    file = getattr(sys.modules.get(module or ""), "__file__", None)
    return not (made and file is not None and _is_library_file(file))


def is_own_function(value: Any, home: str | None = None) -> bool:
    """Whether a value is a function in Python that no library brought."""
    return isinstance(value, FunctionType) and _is_own(value.__code__.co_filename, value.__module__, home)


def is_own_class(value: Any, home: str | None = None) -> bool:
    """Whether a value is a class that no library brought."""
    if not isinstance(value, type) or value.__module__ in sys.builtin_module_names:
        return False
    module = sys.modules.get(value.__module__)
    return module is not None and _is_own(getattr(module, "__file__", None) or "<string>", value.__module__, home)


def is_own_module(value: Any, home: str | None = None) -> bool:
    """Whether a value is a module that no library brought."""
    if not isinstance(value, ModuleType):
        return False
    return _is_own(getattr(value, "__file__", None), value.__name__, home)


def unwrapped(value: Any) -> Any:
    """The function behind a cached one or a compiled one; anything else as it is."""
    while isinstance(value, functools._lru_cache_wrapper) or type(value).__module__.partition(".")[0] in (
        "jax",
        "jaxlib",
    ):
        inner = getattr(value, "__wrapped__", None)
        if inner is None:
            break
        value = inner
    return value


def nested_codes(code: CodeType) -> list[CodeType]:
    """The code of the functions, lambdas and comprehensions that are written directly inside a code."""
    return [const for const in code.co_consts if isinstance(const, CodeType)]
