"""The names of a model: what there is, under which names, and what a name may be used for."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from parfit.core.errors import InvalidInputError, refuse_unknown

if TYPE_CHECKING:
    from parfit.mdl.live import Live

__all__ = ["Catalog", "Variable"]

# PySD's reserved identifiers, each with the argument of `run` that sets it.
_CONTROLS = {
    "time": "initial_condition=(time, {…})",
    "initial_time": "initial_condition=(time, {…})",
    "final_time": "final_time=",
    "time_step": "time_step=",
    "saveper": "saveper=",
}


@dataclass(frozen=True)
class Variable:
    """One variable of a model.

    Attributes
    ----------
    name, real_name
        As a Python identifier, and as the model's file has it.
    kind, subtype
        PySD's: ``Constant``, ``Auxiliary``, ``Stateful``, ``Lookup``, ``Data``; ``Normal``, ``Integ``, …
    coords
        Subscript range to its elements, in the order of the variable's axes; empty for a scalar.
    units, doc
        From the model's file; empty where it has none.
    knots
        Of a lookup: the arguments at which it has values, increasing.
    """

    name: str
    real_name: str
    kind: str
    subtype: str
    coords: Mapping[str, Sequence[str]]
    units: str
    doc: str
    knots: tuple[float, ...] | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """The lengths of the subscript ranges."""
        return tuple(len(elements) for elements in self.coords.values())

    @property
    def is_stock(self) -> bool:
        """Whether this is a level, an ``INTEG``."""
        return self.kind == "Stateful" and "Integ" in self.subtype

    @property
    def axes(self) -> str:
        """The axes in words."""
        return " × ".join(f"{dim} ({', '.join(elements)})" for dim, elements in self.coords.items())


def _folded(name: str) -> str:
    """A name as Vensim compares names: case, quotes, and the kind and number of blanks do not count."""
    return re.sub(r"[\s_]+", " ", name.strip().strip('"')).lower()


class Catalog:
    """The variables of a model and the questions that are asked of their names.

    Parameters
    ----------
    live
        Any live model of the source; it is read, not changed.
    """

    def __init__(self, live: Live) -> None:
        model = live.model
        ranges = model.subscripts
        self.doc: pd.DataFrame = model.doc
        self.variables: dict[str, Variable] = {}
        for real_name, name in model.namespace.items():
            component = getattr(model.components, name)
            coords = {dim: tuple(ranges[dim]) for dim in component.subscripts or ()}
            doc = re.sub(r"\s+", " ", component.__doc__ or "").strip()
            kinds = (component.type or "", component.subtype or "")
            knots = live.knots(name) if kinds[0] == "Lookup" else None
            self.variables[name] = Variable(name, real_name, *kinds, coords, component.units or "", doc, knots)
        self._exact = {v.real_name: v for v in self.variables.values()}
        self._exact = {**self.variables, **self._exact}
        self._folded: dict[str, Variable | None] = {}
        for name, variable in self._exact.items():
            other = self._folded.setdefault(_folded(name), variable)
            if other is not variable:
                self._folded[_folded(name)] = None
        self.stocks = [v.name for v in self.variables.values() if v.is_stock]
        self.parameters = self._parameters(live)
        self.times = {name: _constant(model.components._control_vars[name]) for name in list(_CONTROLS)[1:]}

    def _parameters(self, live: Live) -> pd.DataFrame:
        found = [v for v in self.variables.values() if v.kind == "Constant" and v.name not in _CONTROLS]
        values: list[Any] = [_value_of(live, v.name) for v in found]
        return pd.DataFrame(
            {
                "real_name": pd.Series([v.real_name for v in found], dtype=object),
                "value": pd.Series(values, dtype=object if any(v.coords for v in found) else float),
                "units": pd.Series([v.units for v in found], dtype=object),
                "subscripts": pd.Series([tuple(v.coords) for v in found], dtype=object),
                "doc": pd.Series([v.doc for v in found], dtype=object),
            }
        ).set_axis(pd.Index([v.name for v in found], name="name", dtype=object))

    def find(self, name: object) -> Variable | None:
        """The variable of that name, Python's or the file's; None where there is none, or several."""
        if not isinstance(name, str):
            return None
        return self._exact.get(name) or self._folded.get(_folded(name))

    def _refuse(self, what: str, name: object, found: Iterable[Variable]) -> Variable:
        if isinstance(name, str) and "[" in name and (whole := self.find(name.split("[")[0])):
            raise InvalidInputError(
                f"{what} {name!r}: give {whole.name!r} as a whole, as an array of shape {whole.shape} "
                f"over {whole.axes}."
            )
        as_in_file = isinstance(name, str) and (" " in name or name != name.lower())
        refuse_unknown(what, name, [v.real_name if as_in_file else v.name for v in found])

    def parameter(self, name: object, start: str = "initial_condition") -> Variable:
        """The variable of that name, where `params` may set it; `start` is the argument that sets a stock."""
        variables = self.variables.values()
        found = self.find(name)
        if found is None:
            settable = [v for v in variables if not v.is_stock and v.name not in _CONTROLS]
            return self._refuse("parameter", name, sorted(settable, key=lambda v: v.kind != "Constant"))
        if found.is_stock:
            raise InvalidInputError(
                f"{name!r} is a stock: params does not set it. Give its value at the start as "
                f"{start}=(time, {{{name!r}: value}})."
            )
        if found.name in _CONTROLS:
            raise InvalidInputError(
                f"{name!r} is a setting of the simulation, not a parameter: use "
                f"{_CONTROLS[found.name].replace('initial_condition', start)}."
            )
        return found

    def stateful(self, name: object, start: str = "initial_condition") -> Variable:
        """The variable of that name, where the argument `start` may set it."""
        found = self.find(name)
        if found is None:
            return self._refuse("stock", name, (v for v in self.variables.values() if v.is_stock))
        if found.kind != "Stateful":
            raise InvalidInputError(
                f"{name!r} is not a stock: {start} does not set it. Give it as params={{{name!r}: value}}."
            )
        return found

    def columns(self, label: object) -> list[tuple[str, str]]:
        """A column as PySD has to be asked for it, with the name that it is to have.

        They are the same where `label` is spelt as in the file or as PySD's identifier. Of a variable with
        two subscripts, one element of the first stands for several columns; PySD would leave that element
        out of their names, so that those of another took their place.

        Raises
        ------
        UnknownNameError
            Names the nearest variable, or the nearest element of a subscript range.
        InvalidInputError
            For a lookup table, which has no value over time.
        """
        base, address = label, None
        if isinstance(label, str) and self.find(label) is None and label.endswith("]"):
            base, address = label[:-1].split("[", 1) if "[" in label else (label, None)
        found = self.find(base)
        if found is None:
            refuse_unknown("column", label, [*self.variables, *(v.real_name for v in self.variables.values())])
        if found.kind == "Lookup":
            raise InvalidInputError(f"column {label!r} is a lookup table: it has no value over time.")
        written = str(base)
        exact = written if written in self._exact else found.name
        if address is None:
            return [(exact, written)]
        elements = [element.strip() for element in address.split(",")]
        if len(elements) > len(found.coords):
            raise InvalidInputError(
                f"column {label!r} has {len(elements)} subscripts; {found.real_name!r} has {len(found.coords)}."
            )
        for element, (dim, known) in zip(elements, found.coords.items(), strict=False):
            if element not in known:
                refuse_unknown(f"element of {dim!r} in column {label!r}:", element, known)
        if len(elements) == len(found.coords):
            return [(f"{exact}[{address}]", str(label))]
        rest = itertools.product(*list(found.coords.values())[len(elements) :])
        ends = [f"[{','.join([*elements, *more])}]" for more in rest]
        return [(exact + end, written + end) for end in ends]


def _value_of(live: Live, name: str) -> Any:
    """The value of a constant, or NaN where PySD has no way to work it out, which a run will then say."""
    try:
        return live.value(name)
    except (ArithmeticError, AttributeError, LookupError, NotImplementedError, RuntimeError, TypeError, ValueError):
        return float("nan")


def _constant(value: Any) -> float | None:
    """A control variable's value before any run, or None where it needs one."""
    try:
        return float(value())
    except (AttributeError, KeyError, NameError, TypeError, ValueError):
        return None
