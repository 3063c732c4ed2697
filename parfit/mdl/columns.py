"""What a run returns: which variables, under which names, and where in the caller's order of times."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from parfit.core.errors import InvalidInputError
from parfit.mdl.catalog import Catalog
from parfit.mdl.request import Request

__all__ = ["Column", "Layout", "columns_of", "places"]


@dataclass(frozen=True, eq=False)
class Column:
    """A column that was asked for.

    Attributes
    ----------
    name
        The variable, as a Python identifier.
    label
        As the result is to have it; an address in it is left out of the names of flattened columns.
    address
        The labels of one element, in the order of its axes; None for all of it.
    """

    name: str
    label: str
    address: tuple[str, ...] | None = None

    def of(self, values: Any, coords: Mapping[str, Sequence[str]]) -> Any:
        """The column, of a variable's values over time."""
        for label, labels in zip(self.address or (), coords.values(), strict=False):
            values = values[:, list(labels).index(label)]
        return values

    def flat_names(self, coords: Mapping[str, Sequence[str]]) -> list[str]:
        """As PySD names columns: an element for each, unless there is but one."""
        sizes = [len(labels) for labels in coords.values()]
        if self.address is not None or int(np.prod(sizes)) == 1:
            return [self.label]
        stem = re.sub(r"\[.*\]", "", self.label)
        return [f"{stem}[{','.join(labels)}]" for labels in pd.MultiIndex.from_product(list(coords.values()))]


def columns_of(catalog: Catalog, request: Request, changing: Collection[str]) -> list[Column]:
    """The columns of a request.

    Parameters
    ----------
    changing
        What ``"step"`` stands for: the variables that change over time.
    """
    if request.columns is None or isinstance(request.columns, str):
        variables = [v for v in catalog.variables.values() if v.kind != "Lookup" and v.name != "time"]
        wanted = [v for v in variables if request.columns is None or v.name in changing]
        return [Column(v.name, v.real_name) for v in wanted]
    found = []
    for asked, label in zip(request.columns, request.labels or request.columns, strict=True):
        whole = catalog.find(asked)
        base, _, address = asked.rstrip("]").partition("[")
        variable = whole or catalog.find(base)
        assert variable is not None  # the request has been checked
        parts = None if whole is not None else tuple(part.strip() for part in address.split(","))
        found.append(Column(variable.name, label, parts))
    return found


class Layout:
    """How the columns of a frame lie side by side.

    Parameters
    ----------
    columns
        Each with the labels of its axes.
    coords
        By variable.
    kinds
        The variables that are whole numbers, or truths, throughout, with `int` or `bool`.
    """

    def __init__(
        self, columns: Sequence[Column], coords: Mapping[str, Mapping[str, Sequence[str]]], kinds: Mapping[str, type]
    ) -> None:
        self._parts: list[tuple[Column, Mapping[str, Sequence[str]], list[int] | None]] = []
        names: dict[str, None] = {}
        for column in columns:
            own = column.flat_names(coords[column.name])
            # One that is asked for twice stands once.
            new = [i for i, name in enumerate(own) if name not in names]
            self._parts.append((column, coords[column.name], None if len(new) == len(own) else new))
            names.update(dict.fromkeys(own))
        self.names = pd.Index(list(names))
        known = [column for column in columns if column.name in kinds]
        self._kinds = {name: kinds[c.name] for c in known for name in c.flat_names(coords[c.name]) if name in names}

    def matrices(self, values: Mapping[str, Any]) -> list[Any]:
        """The values of each column as a matrix, times by elements."""
        found = []
        for column, coords, chosen in self._parts:
            own = column.of(values[column.name], coords)
            own = own.reshape(len(own), -1)
            found.append(own if chosen is None else own[:, chosen])
        return found

    def frame(self, values: Mapping[str, Any], index: pd.Index[Any]) -> pd.DataFrame:
        """The frame of these values."""
        parts = self.matrices(values)
        matrix = np.concatenate(parts, axis=1) if parts else np.zeros((len(index), 0))
        frame = pd.DataFrame(matrix, index=index, columns=self.names)
        return frame.astype(self._kinds) if self._kinds else frame


def places(request: Request, labels: Any) -> Any:
    """Where in a run the times are that were asked for, in the caller's order."""
    if request.timestamps is None:
        return slice(None)
    stamps = request.timestamps
    if len(labels) != len(stamps):
        between = [f"{t:g}" for t in stamps if not np.isclose(t, labels, rtol=1e-5, atol=1e-8).any()]
        raise InvalidInputError(f"times {', '.join(between[:5])} fall on no step of the run.")
    found = np.searchsorted(stamps, np.asarray(request.times))
    return int(found) if not np.ndim(request.times) else found
