"""Bounds in the structure of the parameters -> two vectors.

At every place of the structure, in this order, the first that fits:

1. a tuple of two lists or arrays, each as long as what is there: ``(lower, upper)``, as in `least_squares`;
2. one entry for each part, as the start has it: None, a pair ``(lower, upper)``, or a structure again;
3. a list with None or a pair for each scalar, as in `minimize`;
4. ``(lower, upper)``, each a number for all, None, or in the structure, in whole or in part.

What SciPy's own functions read in two ways is refused: an array of shape (2, 2) for two parameters is a list of
pairs to `minimize`, and ``(lower, upper)`` to `least_squares`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from parfit.core.errors import (
    InvalidInputError,
    InvalidTypeError,
    ParfitError,
    UnknownNameError,
    listed,
    refuse_unknown,
)
from parfit.core.nodes import ArrayNode, DictNode, Node, ScalarNode, SequenceNode, SeriesNode, shown_kind
from parfit.core.structure import Structure
from parfit.core.values import is_single

__all__ = ["as_bound", "one_side", "read_pairs"]

FloatArray = NDArray[np.float64]
#: Lower and upper bounds as they were written, shape (n,) each: numbers, None, or what is wrong there.
Raw = tuple[NDArray[Any], NDArray[Any]]

_FILLS = (-np.inf, np.inf)
_WORDS = ("lower", "upper")
_BY_ROW = (
    " of two numbers; a bound that varies by row comes as a frame: (lower, upper), one of them a DataFrame with a row "
    "for each dataset and a column for each parameter that it bounds"
)


class _MisfitError(ParfitError):
    """Bounds do not have the form of the place where they stand; `kind` is what the caller gets."""

    def __init__(self, text: str, kind: type[ParfitError] = InvalidTypeError) -> None:
        super().__init__(text)
        self.kind = kind


def as_bound(value: Any, side: int, name: str) -> float:
    """One bound (side 0 is lower, 1 is upper) as a number; None is no bound.

    Raises
    ------
    InvalidInputError, InvalidTypeError
        For NaN, and for what is no number.
    """
    if value is None or value is pd.NA:
        return _FILLS[side]
    try:
        if isinstance(value, (str, bool, np.bool_)):
            raise TypeError
        number = float(value)
    except (TypeError, ValueError):
        raise InvalidTypeError(f"bounds: {name} has the bound {value!r}, which is no number") from None
    if np.isnan(number):
        raise InvalidInputError(f"bounds: the {_WORDS[side]} bound of {name} is NaN; None or infinity is no bound")
    return number


def read_pairs(structure: Structure, bounds: Any) -> tuple[FloatArray, FloatArray]:
    """Lower and upper bounds, shape (n,) each, from anything with pairs or sides in the parameters' structure."""
    try:
        lower, upper = _read(_root(structure), bounds)
    except _MisfitError as exc:
        raise exc.kind(str(exc)) from None
    return _numbers(structure, lower, 0), _numbers(structure, upper, 1)


def one_side(structure: Structure, side: Any, which: int) -> FloatArray:
    """The lower (0) or upper (1) bounds, shape (n,): None, a number for all, or in the structure, also in part."""
    try:
        raw = _side(_root(structure), side, which)
    except _MisfitError as exc:
        raise exc.kind(str(exc)) from None
    return _numbers(structure, raw, which)


def _numbers(structure: Structure, raw: NDArray[Any], side: int) -> FloatArray:
    found = (as_bound(value, side, name) for value, name in zip(raw, structure.names, strict=True))
    return np.fromiter(found, dtype=np.float64, count=len(raw))


# ---- places


@dataclass(frozen=True)
class _Place:
    """A part of the structure, with the full names of its scalars, and its own."""

    node: Node
    names: tuple[str, ...]
    path: str = ""

    @property
    def where(self) -> str:
        return f"bounds: {self.path}" if self.path else "bounds"

    def parts(self) -> list[_Place] | None:
        """What an entry of a sequence stands for, each; None where the parts go by keys alone."""
        node = self.node
        if isinstance(node, SequenceNode):
            return self._cut([(child, f"[{i}]" if self.path else f"x{i}") for i, child in enumerate(node.children)])
        if isinstance(node, SeriesNode):
            return self._cut([(ScalarNode(), "")] * node.size)
        if isinstance(node, ArrayNode):
            inner = ArrayNode(node.shape[1:]) if len(node.shape) > 1 else ScalarNode()
            return self._cut([(inner, f"[{i}]" if self.path else f"x[{i}]") for i in range(node.shape[0])])
        return None

    def by_key(self) -> dict[Any, tuple[slice, _Place]]:
        """The parts that have keys, and where they are."""
        node = self.node
        if isinstance(node, DictNode):
            keys: Any = node.keys
            steps = [f".{key}" if self.path else str(key) for key in keys]
            places = self._cut(list(zip(node.children, steps, strict=True)))
        elif isinstance(node, SeriesNode):
            keys, places = node.index, self.parts() or []
        else:
            return {}
        ends = np.cumsum([0, *(place.node.size for place in places)]).tolist()
        chosen = (slice(at, end) for at, end in itertools.pairwise(ends))
        return dict(zip(keys, zip(chosen, places, strict=True), strict=True))

    def by_name(self) -> dict[str, tuple[slice, _Place]]:
        """Its scalars by their full names, and where they are."""
        return {name: (slice(i, i + 1), _Place(ScalarNode(), (name,), name)) for i, name in enumerate(self.names)}

    def _cut(self, children: list[tuple[Node, str]]) -> list[_Place]:
        made, at = [], 0
        for child, step in children:
            names = self.names[at : at + child.size]
            path = names[0] if isinstance(child, ScalarNode) else f"{self.path}{step}" if self.path else step
            made.append(_Place(child, names, path))
            at += child.size
        return made


def _root(structure: Structure) -> _Place:
    node = ArrayNode((1,)) if isinstance(structure.root, ScalarNode) else structure.root
    return _Place(node, structure.names)


# ---- pairs


def _read(place: _Place, tree: Any) -> Raw:
    if tree is None:
        return _empty(place), _empty(place)
    if hasattr(tree, "lb") and hasattr(tree, "ub"):
        lower, upper = (side[0] if np.shape(side) == (1,) else side for side in (tree.lb, tree.ub))
        return _side(place, lower, 0), _side(place, upper, 1)
    if isinstance(tree, (Mapping, pd.Series)) and not isinstance(place.node, ScalarNode):
        return _by_key(place, tree)
    if isinstance(tree, str) or not isinstance(tree, (Sequence, np.ndarray)) or _is_one(tree):
        raise _MisfitError(f"{place.where}: {shown_kind(tree)} is not a pair (lower, upper)")
    if isinstance(place.node, ScalarNode):
        if len(tree) != 2 or not all(map(_is_one, tree)):
            by_row = len(tree) == 2 and any(isinstance(entry, (pd.Series, np.ndarray)) for entry in tree)
            raise _MisfitError(f"{place.where}: {shown_kind(tree)} is not a pair (lower, upper){_BY_ROW * by_row}")
        return _full(place, tree[0]), _full(place, tree[1])
    return _sequence(place, tree)


def _is_one(value: Any) -> bool:
    return isinstance(value, str) or is_single(value)


def _empty(place: _Place) -> NDArray[Any]:
    return _full(place, None)


def _full(place: _Place, value: Any) -> NDArray[Any]:
    return np.full(place.node.size, value, dtype=object)


def _entries(place: _Place, tree: Any) -> Iterator[tuple[slice, _Place, Any]]:
    """Of a mapping, in whole or in part: where an entry goes, its place, and the entry; names of scalars come last."""
    keyed, named = place.by_key(), place.by_name()
    for key in tree.keys():
        if key not in keyed and key not in named:
            refuse_unknown("parameter", f"{place.path}.{key}" if place.path else key, dict.fromkeys((*keyed, *named)))
    for key in sorted(tree.keys(), key=lambda key: key not in keyed):
        yield (*(keyed[key] if key in keyed else named[key]), tree[key])


def _by_key(place: _Place, tree: Any) -> Raw:
    lower, upper = _empty(place), _empty(place)
    for chosen, part, entry in _entries(place, tree):
        lower[chosen], upper[chosen] = _read(part, entry)
    return lower, upper


def _sequence(place: _Place, tree: Any) -> Raw:
    """A list, tuple or array at a place that holds several; the module's docstring has the order."""
    is_array = isinstance(tree, np.ndarray)
    entries = tree.tolist() if is_array else list(tree)  # its shape is looked at here, and not again further in

    def in_structure() -> Raw:
        return _in_structure(place, entries)

    def flat() -> Raw:
        return _flat(place, entries)

    lists = [isinstance(entry, (list, np.ndarray)) for entry in entries]
    if len(entries) == 2 and (is_array or isinstance(tree, tuple)) and any(lists):
        sides = _tried(lambda: _two_sides(place, entries, whole=True))
        pairs = _tried(in_structure) or _tried(flat)
        if sides and pairs and (is_array or not all(lists)) and repr(sides) != repr(pairs):
            raise InvalidInputError(
                f"{place.where} can be read in two ways: give a list of pairs, one for each parameter, or "
                "scipy.optimize.Bounds(lower, upper)"
            )
        if sides and not (pairs and is_array):
            return sides
    errors: list[ParfitError] = []
    for reading in (in_structure, flat, lambda: _two_sides(place, entries, whole=False)):
        try:
            return reading()
        except (_MisfitError, UnknownNameError) as exc:
            errors.append(exc)
    raise _closest(place, tree, entries, errors)


def _tried(reading: Callable[[], Raw]) -> Raw | None:
    try:
        return reading()
    except (_MisfitError, UnknownNameError):
        return None


def _closest(place: _Place, tree: Any, entries: list[Any], errors: list[ParfitError]) -> ParfitError:
    """What is wrong in the reading that was meant, of those in the structure, flat, and as two sides."""
    unknown = [exc for exc in errors if isinstance(exc, UnknownNameError)]
    if unknown:
        return unknown[0]
    parts = place.parts()
    count = place.node.size if parts is None else len(parts)
    pairs = all(entry is None or _has_two(entry) for entry in entries)
    if len(entries) == 2 and (not pairs or (count != 2 and isinstance(tree, tuple))):
        return errors[2]
    return errors[1 if parts is None else 0]


def _has_two(entry: Any) -> bool:
    return isinstance(entry, (list, tuple, np.ndarray)) and len(entry) == 2


def _wrong_count(place: _Place, got: int, wanted: int) -> _MisfitError:
    if place.path:
        return _MisfitError(f"{place.where} must have {wanted} entries, not {got}", InvalidInputError)
    text = f"bounds has {got} pairs for {listed(place.names)}"
    return _MisfitError(text, InvalidInputError)


def _in_structure(place: _Place, entries: list[Any]) -> Raw:
    """An entry for each part."""
    parts = place.parts()
    if parts is None or len(parts) != len(entries):
        raise _wrong_count(place, len(entries), place.node.size if parts is None else len(parts))
    made = [_read(part, entry) for part, entry in zip(parts, entries, strict=True)]
    return np.concatenate([lower for lower, _ in made]), np.concatenate([upper for _, upper in made])


def _flat(place: _Place, entries: list[Any]) -> Raw:
    """None or a pair for each scalar."""
    if len(entries) != place.node.size:
        raise _wrong_count(place, len(entries), place.node.size)
    scalars = [part for _, part in place.by_name().values()]
    made = [_read(part, entry) for part, entry in zip(scalars, entries, strict=True)]
    return np.concatenate([lower for lower, _ in made]), np.concatenate([upper for _, upper in made])


# ---- sides


def _two_sides(place: _Place, entries: list[Any], *, whole: bool) -> Raw:
    if len(entries) != 2:
        raise _MisfitError(f"{place.where}: {shown_kind(entries)} is not (lower, upper)")
    return _side(place, entries[0], 0, whole=whole), _side(place, entries[1], 1, whole=whole)


def _side(place: _Place, side: Any, which: int, *, whole: bool = False) -> NDArray[Any]:
    """One side: None, one number for all, or in the structure, in whole or (but for `whole`) in part."""
    if side is None or _is_one(side):
        if whole and side is not None:
            raise _MisfitError(f"{place.where}: {side!r} is one number, for several parameters")
        return _full(place, side)
    made, n = _empty(place), place.node.size
    if isinstance(side, (Mapping, pd.Series)) and not whole and not isinstance(place.node, ScalarNode):
        for chosen, part, entry in _entries(place, side):
            made[chosen] = _side(part, entry, which)
        return made
    flat = isinstance(side, (list, tuple, np.ndarray)) and all(map(_is_one, side))
    if flat and len(side) == n:
        made[:] = list(side)
        return made
    try:
        place.node.flatten(side, 0, made.__setitem__, place.path, partial=not whole)
    except UnknownNameError:
        raise
    except (InvalidInputError, InvalidTypeError) as exc:
        if flat:
            got = f"the {_WORDS[which]} side has {len(side)} {'entry' if len(side) == 1 else 'entries'}"
            raise _MisfitError(f"{place.where}: {got} for {listed(place.names)}", InvalidInputError) from None
        raise _MisfitError(f"{place.where}: {exc}" if not place.path else f"bounds: {exc}", type(exc)) from None
    if not all(map(_is_one, made)):
        raise _MisfitError(f"{place.where}: {shown_kind(side)} holds more than numbers")
    return made
