"""The parts of a parameter structure: each knows its names, and how to get into a flat vector and out of it.

`read_node` reads them off an example; `parfit.core.structure` is what the rest of parfit uses.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from parfit.core.errors import InvalidInputError, InvalidTypeError, refuse_unknown
from parfit.core.values import is_array, is_single

__all__ = [
    "ArrayNode",
    "DictNode",
    "FrameNode",
    "Node",
    "ScalarNode",
    "SequenceNode",
    "SeriesNode",
    "name_of",
    "number",
    "read_node",
    "shown_kind",
]

FloatArray = NDArray[np.float64]
#: Puts one entry into the vector: its position, and the value.
Put = Callable[[int, Any], None]


def number(value: Any, where: str, what: str) -> float:
    """A leaf as a float; `where` and `what` name it in the error."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (Real, np.number)):
        raise InvalidTypeError(f"{what}: {where or 'the value'} must be a number, not {shown_kind(value)}")
    if isinstance(value, np.complexfloating):
        raise InvalidTypeError(f"{what}: {where} is complex")
    return float(value)


def shown_kind(value: Any) -> str:
    """The type of a value, and the value where it is short, for error messages."""
    text = repr(value)
    return f"{type(value).__name__} {text}" if len(text) <= 40 and "\n" not in text else type(value).__name__


class Node(ABC):
    """A part of a structure; `size` entries of the vector from wherever it stands."""

    size: int

    @abstractmethod
    def names(self, path: str) -> Iterator[str]: ...

    @abstractmethod
    def unflatten(self, v: FloatArray, at: int) -> Any: ...

    @abstractmethod
    def flatten(self, tree: Any, at: int, put: Put, path: str, partial: bool) -> None:
        """Put the entries of `tree`; where `partial`, keys may be missing and a scalar counts for all."""


@dataclass(frozen=True)
class ScalarNode(Node):
    """A number."""

    size = 1

    def names(self, path: str) -> Iterator[str]:
        yield path

    def unflatten(self, v: FloatArray, at: int) -> Any:
        return v[at]

    def flatten(self, tree: Any, at: int, put: Put, path: str, partial: bool) -> None:  # noqa: ARG002
        if is_array(tree) and tree.ndim == 0:
            tree = np.asarray(tree)[()]
        put(at, tree)


@dataclass(frozen=True)
class ArrayNode(Node):
    """An array; at the top, a list or tuple of numbers too."""

    shape: tuple[int, ...]
    top: bool = False

    @property
    def size(self) -> int:  # type: ignore[override]
        return math.prod(self.shape)

    def names(self, path: str) -> Iterator[str]:
        for index in np.ndindex(*self.shape):
            if self.top and len(self.shape) == 1:
                yield f"x{index[0]}"
            else:
                yield f"{path or 'x'}[{', '.join(map(str, index))}]"

    def unflatten(self, v: FloatArray, at: int) -> Any:
        return v[at : at + self.size].reshape(self.shape)

    def flatten(self, tree: Any, at: int, put: Put, path: str, partial: bool) -> None:
        if isinstance(tree, Mapping):
            raise InvalidTypeError(f"{path or 'the value'} must be an array of shape {self.shape}, not a mapping")
        values = np.asarray(tree, dtype=object)
        if values.shape != self.shape:
            if not (partial and values.ndim == 0):
                where = path or "the value"
                raise InvalidInputError(f"{where} must have shape {self.shape}, not {values.shape}")
            values = np.full(self.shape, tree, dtype=object)
        for i, value in enumerate(values.flat):
            put(at + i, value)


@dataclass(frozen=True)
class DictNode(Node):
    """A mapping."""

    keys: tuple[Any, ...]
    children: tuple[Node, ...]

    @property
    def size(self) -> int:  # type: ignore[override]
        return sum(child.size for child in self.children)

    def names(self, path: str) -> Iterator[str]:
        for key, child in zip(self.keys, self.children, strict=True):
            yield from child.names(f"{path}.{key}" if path else str(key))

    def unflatten(self, v: FloatArray, at: int) -> Any:
        made = {}
        for key, child in zip(self.keys, self.children, strict=True):
            made[key] = child.unflatten(v, at)
            at += child.size
        return made

    def flatten(self, tree: Any, at: int, put: Put, path: str, partial: bool) -> None:
        if isinstance(tree, pd.Series):
            tree = tree.to_dict()
        if not isinstance(tree, Mapping):
            raise InvalidTypeError(f"{path or 'the value'} must be a mapping, not {shown_kind(tree)}")
        for key in tree:
            if key not in self.keys:
                refuse_unknown("parameter", f"{path}.{key}" if path else key, self.keys)
        for key, child in zip(self.keys, self.children, strict=True):
            inner = f"{path}.{key}" if path else str(key)
            if key in tree:
                child.flatten(tree[key], at, put, inner, partial)
            elif not partial:
                raise InvalidInputError(f"parameter {inner!r} is missing")
            at += child.size


@dataclass(frozen=True)
class SequenceNode(Node):
    """A list, tuple or named tuple."""

    kind: type
    children: tuple[Node, ...]

    @property
    def size(self) -> int:  # type: ignore[override]
        return sum(child.size for child in self.children)

    def names(self, path: str) -> Iterator[str]:
        for i, child in enumerate(self.children):
            yield from child.names(f"{path}[{i}]" if path else f"x{i}")

    def unflatten(self, v: FloatArray, at: int) -> Any:
        made = []
        for child in self.children:
            made.append(child.unflatten(v, at))
            at += child.size
        if self.kind is list:
            return made
        return self.kind(*made) if hasattr(self.kind, "_fields") else tuple(made)

    def flatten(self, tree: Any, at: int, put: Put, path: str, partial: bool) -> None:
        if isinstance(tree, (str, Mapping)) or not isinstance(tree, (Sequence, np.ndarray, pd.Series)):
            if partial and not isinstance(tree, (str, Mapping)):
                tree = [tree] * len(self.children)
            else:
                raise InvalidTypeError(f"{path or 'the value'} must be a sequence, not {shown_kind(tree)}")
        if len(tree) != len(self.children):
            where = path or "the value"
            raise InvalidInputError(f"{where} must have {len(self.children)} entries, not {len(tree)}")
        for i, (item, child) in enumerate(zip(tree, self.children, strict=True)):
            child.flatten(item, at, put, f"{path}[{i}]" if path else f"x{i}", partial)
            at += child.size


@dataclass(frozen=True, eq=False)
class SeriesNode(Node):
    """A Series."""

    index: pd.Index[Any]

    @property
    def size(self) -> int:  # type: ignore[override]
        return len(self.index)

    def names(self, path: str) -> Iterator[str]:
        for label in self.index:
            yield f"{path}.{name_of(label)}" if path else name_of(label)

    def unflatten(self, v: FloatArray, at: int) -> Any:
        return pd.Series(v[at : at + self.size], index=self.index, copy=False)

    def flatten(self, tree: Any, at: int, put: Put, path: str, partial: bool) -> None:
        if isinstance(tree, Mapping):
            tree = pd.Series(dict(tree), dtype=object)
        if not isinstance(tree, pd.Series):
            if isinstance(tree, str) or is_single(tree):
                if not partial or isinstance(tree, str):
                    raise InvalidTypeError(f"{path or 'the value'} must be a Series, not {shown_kind(tree)}")
                tree = [tree] * self.size
            if len(tree) != self.size:
                raise InvalidInputError(f"{path or 'the value'} must have {self.size} entries, not {len(tree)}")
            tree = pd.Series(list(tree), index=self.index, dtype=object)
        for label in tree.index:
            if label not in self.index:
                refuse_unknown("parameter", label, self.index)
        for i, label in enumerate(self.index):
            if label in tree.index:
                put(at + i, tree[label])
            elif not partial:
                raise InvalidInputError(f"parameter {name_of(label)!r} is missing")


@dataclass(frozen=True, eq=False)
class FrameNode(SeriesNode):
    """A frame of parameters, one a row, with a column ``value``."""

    frame: pd.DataFrame

    def unflatten(self, v: FloatArray, at: int) -> Any:
        return self.frame.assign(value=v[at : at + self.size])

    def flatten(self, tree: Any, at: int, put: Put, path: str, partial: bool) -> None:
        super().flatten(tree["value"] if isinstance(tree, pd.DataFrame) else tree, at, put, path, partial)


def name_of(label: Any) -> str:
    """The name of a parameter that an index holds."""
    return ", ".join(map(str, label)) if isinstance(label, tuple) else str(label)


def read_node(tree: Any, path: str, what: str) -> Node:
    """The part that an example at `path` makes."""
    if isinstance(tree, pd.DataFrame):
        if "value" not in tree.columns:
            raise InvalidInputError(f"{what}: a frame of parameters has a column 'value', and this one does not")
        return FrameNode(tree.index, tree)
    if isinstance(tree, pd.Series):
        return SeriesNode(tree.index)
    if isinstance(tree, Mapping):
        keys = tuple(tree)
        return DictNode(keys, tuple(read_node(tree[k], f"{path}.{k}" if path else str(k), what) for k in keys))
    if is_array(tree):
        tree = np.asarray(tree)
        if tree.dtype.kind not in "fiu":
            raise InvalidTypeError(f"{what}: {path or 'the array'} has dtype {tree.dtype}; numbers are wanted")
        return ArrayNode(tree.shape, top=not path) if tree.ndim else ScalarNode()
    if isinstance(tree, (list, tuple)):
        if not path and tree and all(isinstance(v, Real) and not isinstance(v, bool) for v in tree):
            return ArrayNode((len(tree),), top=True)
        children = tuple(read_node(v, f"{path}[{i}]" if path else f"x{i}", what) for i, v in enumerate(tree))
        return SequenceNode(type(tree), children)
    number(tree, path, what)
    return ScalarNode()
