"""Lookups, data over time, and constants, whether they stand in the model or were read from files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np

from parfit.mdl.compiled.interpolation import interpolated
from parfit.mdl.compiled.named import Coords, Named, is_known, named
from parfit.mdl.compiled.unsupported import Unsupported
from parfit.mdl.source import pysd_module

if TYPE_CHECKING:
    from parfit.mdl.compiled.section import Section

__all__ = ["TABLES", "Knots", "Table"]

#: The name of a table's own axis, by the kind of PySD's object.
_AXES = ("lookup_dim", "time")


@dataclass(frozen=True, eq=False)
class Knots:
    """A table as numbers.

    Attributes
    ----------
    x : array, shape (K,)
        Increasing.
    y : array, shape (K, *shape of the variable)
    coords, dims
        The axes of the variable.
    """

    x: Any
    y: Any
    coords: Coords
    dims: tuple[str, ...]

    @classmethod
    def of(cls, data: Any) -> Knots | Named:
        """What PySD's object holds: an xarray array with an axis of knots first; or a constant that took its place."""
        if not hasattr(data, "dims"):
            return named(data)
        coords = {str(dim): [str(label) for label in data.coords[dim].values] for dim in data.dims[1:]}
        if not data.dims or data.dims[0] not in _AXES:
            whole = {str(dim): [str(label) for label in data.coords[dim].values] for dim in data.dims}
            return Named(np.asarray(data.values, float), whole, list(whole))
        x = np.asarray(data.coords[data.dims[0]].values, float)
        return cls(x, np.asarray(data.values, float), coords, tuple(coords))


class Table:
    """What is called with an argument, or with the time; named as PySD's object of the same kind.

    Attributes
    ----------
    knots
        Set once the texts have been read; a `Named` where a constant stands in the place of the table.
    """

    section: Section
    key: str
    kind = "interpolate"
    py_name: str
    knots: Knots | Named | None = None

    def held(self, data: Mapping[str, Any] | None) -> None:
        """Take the numbers: from what was read from files (`Source.data`)."""
        if data is not None and data.get("data") is not None:
            self.knots = Knots.of(data["data"])

    def __call__(self, x: Any = None, final_subs: Coords | None = None) -> Named:
        knots = self.section.simulation.tables.get(self.key, self.knots)
        if knots is None:
            raise Unsupported("data that have not been read")
        if isinstance(knots, Named):
            if not final_subs:
                return knots
            return Named(0.0, final_subs, list(final_subs)) + knots
        x = named(x)
        if not x.dims:
            return Named(interpolated(x.data, knots.x, knots.y, self.kind), knots.coords, knots.dims)
        return self._at_each(x, knots, final_subs or {})

    def _at_each(self, x: Named, knots: Knots, final_subs: Coords) -> Named:
        """The value at an array of arguments, each in its own table where there is one for each."""
        coords: dict[str, Sequence[str]] = {**knots.coords, **x.coords}
        dims = [*(dim for dim in final_subs if dim in coords), *(dim for dim in coords if dim not in final_subs)]
        spread = Named(0.0, coords, dims)
        arguments = (spread + x).data
        ys = knots.y
        if knots.dims:
            order = [0, *(1 + knots.dims.index(dim) for dim in dims if dim in knots.dims)]
            laid = (np if is_known(ys) else jnp).transpose(ys, order)
            shape = [laid.shape[0], *(len(coords[dim]) if dim in knots.dims else 1 for dim in dims)]
            ys = jnp.broadcast_to(laid.reshape(shape), (laid.shape[0], *spread.shape))
        return Named(interpolated(arguments, knots.x, ys, self.kind), coords, dims)


class HardcodedLookups(Table):
    """A lookup that stands in the model."""

    def __init__(self, x: Any, y: Any, coords: Any, kind: str, final_coords: Any, py_name: str) -> None:
        # PySD's own puts tables together that stand in several equations, with knots at different places.
        self._theirs = pysd_module("pysd.py_backend.lookups").HardcodedLookups(
            x, y, coords, kind, final_coords, py_name
        )
        self.kind, self.py_name = kind, py_name

    def add(self, x: Any, y: Any, coords: Any) -> None:
        self._theirs.add(x, y, coords)

    def held(self, data: Mapping[str, Any] | None) -> None:  # noqa: ARG002
        self._theirs.initialize()
        self.knots = Knots.of(self._theirs.data)


class ExtLookup(Table):
    """GET DIRECT LOOKUPS."""

    def __init__(self, *given: Any) -> None:
        self.py_name = given[-1]

    def add(self, *given: Any) -> None:
        """What more equations add is among what was read."""


class ExtConstant(ExtLookup):
    """GET DIRECT CONSTANTS."""


class ExtData(ExtLookup):
    """GET DIRECT DATA."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.kind = (given[4] or "interpolate").replace(" ", "_")


class TabData(Table):
    """A data variable, read from the user's files."""

    def __init__(self, real_name: str, py_name: str, coords: Any, interp: str | None = "interpolate") -> None:  # noqa: ARG002
        self.py_name = py_name
        self.kind = (interp or "interpolate").replace(" ", "_")


TABLES = {cls.__name__: cls for cls in (HardcodedLookups, ExtLookup, ExtConstant, ExtData, TabData)}
