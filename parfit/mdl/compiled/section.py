"""PySD's translation of a model, or of a macro, read with other things under the names that it imports.

The text defines a function for each variable and an object for each stock, delay and table. Here ``np``, ``xr`` and
PySD's own functions and classes are those of this folder, so that calling the functions inside a trace computes the
model in JAX: with PySD's subscripts, mappings and order of operations, whatever the model was written in.
"""

from __future__ import annotations

import builtins
import functools
import json
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from parfit.mdl.compiled.allocation import ALLOCATION
from parfit.mdl.compiled.functions import FUNCTIONS
from parfit.mdl.compiled.numeric import number, numpy_names, xarray_names
from parfit.mdl.compiled.randomness import Randomness
from parfit.mdl.compiled.statefuls import STATEFULS, Stateful
from parfit.mdl.compiled.tables import TABLES, Table
from parfit.mdl.compiled.unsupported import Unsupported
from parfit.mdl.source import Source

if TYPE_CHECKING:
    from parfit.mdl.compiled.simulation import Simulation

__all__ = ["Element", "Macro", "Section"]

#: What PySD's own functions are called that draw random numbers, and those that cut numbers to whole ones.
_DRAWS = frozenset(("random", "rvs"))
_CUTS = frozenset(("integer", "modulo", "quantum"))


@dataclass(frozen=True, eq=False)
class Element:
    """A variable.

    Attributes
    ----------
    function
        Computes it, as PySD's translation does.
    dims
        Its subscript ranges.
    needs
        The names that it is computed from; those of stocks and delays begin with an underscore.
    names
        What its code calls.
    """

    function: Callable[..., Any]
    name: str
    dims: tuple[str, ...]
    needs: frozenset[str]
    names: frozenset[str]

    @property
    def draws(self) -> bool:
        """Whether it draws random numbers."""
        return bool(self.names & _DRAWS)

    @property
    def cuts(self) -> bool:
        """Whether it cuts numbers to whole ones."""
        return bool(self.names & _CUTS)

    @property
    def takes_argument(self) -> bool:
        """Whether it is called with an argument, as a lookup is."""
        return bool(self.function.__code__.co_argcount)


@dataclass(frozen=True)
class Needs:
    """What the start of something that is remembered, and each of its steps, are computed from."""

    initial: frozenset[str] = frozenset()
    step: frozenset[str] = frozenset()


class Macro:
    """A macro in use: a section of its own."""

    section: Section

    def __init__(
        self, path: Path, arguments: Mapping[str, Callable[[], Any]], result: str, *, py_name: str, **_: Any
    ) -> None:
        self._file, self._arguments, self._result, self.py_name = path.name, arguments, result, py_name
        self.inner: Section

    def bind(self, section: Section) -> None:
        """Read its text, with the arguments of this use."""
        self.section = section
        key = f"{section.key}{self.py_name}/"
        self.inner = Section(section.simulation, section.source, self._file, key=key, arguments=self._arguments)
        elements = self.inner.elements
        self.result = next(name for name, element in elements.items() if self._result in (name, element.name))

    def __call__(self) -> Any:
        return self.inner.call(self.result)


@dataclass(eq=False)
class _Component:
    """The decorator of PySD's translation: takes note of a variable, and lets calls to it go through the simulation."""

    section: Section

    def add(
        self,
        name: str,
        subscripts: Any = None,
        depends_on: Mapping[str, Any] | None = None,
        other_deps: Mapping[str, Any] | None = None,
        **_: Any,
    ) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        section = self.section

        def note(function: Any) -> Callable[..., Any]:
            own = function.__name__
            needs = frozenset(need for need in depends_on or {} if not need.startswith("__"))
            names = frozenset(_names(function.__code__))
            section.elements[own] = Element(function, name, tuple(subscripts or ()), needs, names)
            for other, kinds in (other_deps or {}).items():
                section.needs[other] = Needs(frozenset(kinds["initial"]), frozenset(kinds["step"]))

            @functools.wraps(function)
            def call(*arguments: Any) -> Any:
                return section.call(own, *arguments)

            return call

        return note


def _names(code: types.CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names(constant)


@functools.lru_cache(maxsize=64)
def _code(text: str, name: str) -> types.CodeType:
    return compile(text, name, "exec", dont_inherit=True)


class Section:
    """The variables of a model, or of one use of a macro.

    Parameters
    ----------
    simulation
        What holds the values.
    source
        The texts and the data.
    file
        The text of this section.
    key
        Precedes the names of its states.
    arguments
        Of a macro.

    Attributes
    ----------
    elements
        By Python identifier.
    needs
        What each stock and delay is computed from.
    namespace
        What the text has defined.
    """

    def __init__(
        self,
        simulation: Simulation,
        source: Source,
        file: str,
        *,
        key: str = "",
        arguments: Mapping[str, Callable[[], Any]] | None = None,
    ) -> None:
        self.simulation, self.source, self.key = simulation, source, key
        self.elements: dict[str, Element] = {}
        self.needs: dict[str, Needs] = {}
        self.namespace: dict[str, Any] = {
            "__builtins__": {**vars(builtins), "float": number, "__import__": self._import},
            "__name__": "model",
            "__file__": str(Path("/", file)),
        }
        self._file = file
        exec(_code(source.texts[file], file), self.namespace)
        self.namespace["_init_outer_references"]({"time": simulation.time, "scope": self})
        for name, function in (arguments or {}).items():
            self._argue(self.namespace["_params"][name], function)
        for name, value in list(self.namespace.items()):
            if isinstance(value, Stateful):
                value.section, value.key = self, key + name
            elif isinstance(value, Table):
                # As PySD calls what it holds, which for data from the user's files is not the name in the text.
                value.section, value.key = self, key + value.py_name
        self.macros = {name: m for name, m in sorted(self.namespace.items()) if isinstance(m, Macro)}
        for macro in self.macros.values():
            macro.bind(self)

    def _argue(self, name: str, function: Callable[[], Any]) -> None:
        """An argument of a macro is a variable that changes over time."""
        self.elements[name] = Element(function, name, (), frozenset(("time",)), frozenset())
        self.namespace[name] = lambda: self.call(name)

    def _import(self, name: str, *_: Any, **__: Any) -> Any:
        """What an import statement of PySD's translation gives."""
        if name == "pathlib":
            return builtins.__import__(name)
        random = Randomness(self.simulation)
        known: Mapping[str, Any] = {
            "numpy": numpy_names(random),
            "scipy": types.SimpleNamespace(stats=random),
            "xarray": xarray_names(),
            "pysd": types.SimpleNamespace(Component=lambda: _Component(self)),
            "pysd.py_backend.functions": types.SimpleNamespace(**FUNCTIONS),
            "pysd.py_backend.allocation": types.SimpleNamespace(**ALLOCATION),
            "pysd.py_backend.statefuls": types.SimpleNamespace(**STATEFULS),
            "pysd.py_backend.lookups": types.SimpleNamespace(**TABLES),
            "pysd.py_backend.data": types.SimpleNamespace(**TABLES),
            "pysd.py_backend.external": types.SimpleNamespace(**TABLES),
            "pysd.py_backend.model": types.SimpleNamespace(Macro=Macro),
            "pysd.py_backend.utils": types.SimpleNamespace(
                load_model_data=self._model_data, load_modules=self._modules
            ),
        }
        if name not in known:
            raise Unsupported(f"a translation that imports {name}")
        return known[name]

    def _model_data(self, _: Path, name: str) -> tuple[Any, Any]:
        """The subscripts and the modules of a model that was split by its views."""
        texts = self.source.texts
        return json.loads(texts[f"_subscripts_{name}.json"]), json.loads(texts[f"modules_{name}/_modules.json"])

    def _modules(self, folder: str, *_: Any) -> str:
        names = [name for name in self.source.texts if name.startswith(folder + "/") and name.endswith(".py")]
        return "\n\n".join(self.source.texts[name] for name in sorted(names))

    def parts(self) -> Iterator[Section]:
        """The section itself and those of its macros, in the order in which PySD numbers them."""
        yield self
        for macro in self.macros.values():
            yield from macro.inner.parts()

    def tables(self) -> Iterator[Table]:
        """The tables of this section."""
        return (value for value in self.namespace.values() if isinstance(value, Table))

    def call(self, name: str, *arguments: Any) -> Any:
        """The value of a variable, or of a lookup at its argument."""
        return self.simulation.value(self, name, *arguments)
