"""Any nesting of dicts, lists, tuples, arrays, Series and frames <-> a flat vector with named entries.

A `Structure` is read off an example once; then `flatten` and `unflatten` go back and forth. A plain list or
tuple of numbers is handed to the objective as a 1-D array, as SciPy does; everything else comes back as it
was given.
"""

from __future__ import annotations

import functools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from numbers import Real
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from parfit.core.errors import InvalidInputError, InvalidTypeError, refuse_unknown
from parfit.core.values import is_single

__all__ = ["Structure"]

FloatArray = NDArray[np.float64]
#: Puts one entry into the vector: its position, and the value.
Put = Callable[[int, Any], None]


def _number(value: Any, where: str, what: str) -> float:
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (Real, np.number)):
        raise InvalidTypeError(f"{what}: {where or 'the value'} must be a number, not {_shown(value)}")
    if isinstance(value, np.complexfloating):
        raise InvalidTypeError(f"{what}: {where} is complex")
    return float(value)


def _shown(value: Any) -> str:
    text = repr(value)
    return f"{type(value).__name__} {text}" if len(text) <= 40 else type(value).__name__


class _Node(ABC):
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
class _Scalar(_Node):
    size = 1

    def names(self, path: str) -> Iterator[str]:
        yield path

    def unflatten(self, v: FloatArray, at: int) -> Any:
        return v[at]

    def flatten(self, tree: Any, at: int, put: Put, path: str, partial: bool) -> None:  # noqa: ARG002
        if isinstance(tree, np.ndarray) and tree.ndim == 0:
            tree = tree[()]
        put(at, tree)


@dataclass(frozen=True)
class _Array(_Node):
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
class _Dict(_Node):
    keys: tuple[Any, ...]
    children: tuple[_Node, ...]

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
            raise InvalidTypeError(f"{path or 'the value'} must be a mapping, not {_shown(tree)}")
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
class _Sequence(_Node):
    kind: type
    children: tuple[_Node, ...]

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
                raise InvalidTypeError(f"{path or 'the value'} must be a sequence, not {_shown(tree)}")
        if len(tree) != len(self.children):
            where = path or "the value"
            raise InvalidInputError(f"{where} must have {len(self.children)} entries, not {len(tree)}")
        for i, (item, child) in enumerate(zip(tree, self.children, strict=True)):
            child.flatten(item, at, put, f"{path}[{i}]" if path else f"x{i}", partial)
            at += child.size


@dataclass(frozen=True, eq=False)
class _Series(_Node):
    index: pd.Index[Any]

    @property
    def size(self) -> int:  # type: ignore[override]
        return len(self.index)

    def names(self, path: str) -> Iterator[str]:
        for label in self.index:
            yield f"{path}.{_label(label)}" if path else _label(label)

    def unflatten(self, v: FloatArray, at: int) -> Any:
        return pd.Series(v[at : at + self.size], index=self.index, copy=False)

    def flatten(self, tree: Any, at: int, put: Put, path: str, partial: bool) -> None:
        if isinstance(tree, Mapping):
            tree = pd.Series(dict(tree), dtype=object)
        if not isinstance(tree, pd.Series):
            if isinstance(tree, str) or is_single(tree):
                if not partial or isinstance(tree, str):
                    raise InvalidTypeError(f"{path or 'the value'} must be a Series, not {_shown(tree)}")
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
                raise InvalidInputError(f"parameter {_label(label)!r} is missing")


@dataclass(frozen=True, eq=False)
class _Frame(_Series):
    """A frame of parameters, one a row, with a column ``value``."""

    frame: pd.DataFrame

    def unflatten(self, v: FloatArray, at: int) -> Any:
        return self.frame.assign(value=v[at : at + self.size])

    def flatten(self, tree: Any, at: int, put: Put, path: str, partial: bool) -> None:
        super().flatten(tree["value"] if isinstance(tree, pd.DataFrame) else tree, at, put, path, partial)


def _to_dict(keys: tuple[Any, ...], v: FloatArray) -> dict[Any, Any]:
    return dict(zip(keys, v, strict=True))


def _label(label: Any) -> str:
    return ", ".join(map(str, label)) if isinstance(label, tuple) else str(label)


def _read(tree: Any, path: str, what: str) -> _Node:
    if isinstance(tree, pd.DataFrame):
        if "value" not in tree.columns:
            raise InvalidInputError(f"{what}: a frame of parameters has a column 'value', and this one does not")
        return _Frame(tree.index, tree)
    if isinstance(tree, pd.Series):
        return _Series(tree.index)
    if isinstance(tree, Mapping):
        keys = tuple(tree)
        return _Dict(keys, tuple(_read(tree[k], f"{path}.{k}" if path else str(k), what) for k in keys))
    if isinstance(tree, np.ndarray):
        if tree.dtype.kind not in "fiu":
            raise InvalidTypeError(f"{what}: {path or 'the array'} has dtype {tree.dtype}; numbers are wanted")
        return _Array(tree.shape, top=not path) if tree.ndim else _Scalar()
    if isinstance(tree, (list, tuple)):
        if not path and tree and all(isinstance(v, Real) and not isinstance(v, bool) for v in tree):
            return _Array((len(tree),), top=True)
        children = tuple(_read(v, f"{path}[{i}]" if path else f"x{i}", what) for i, v in enumerate(tree))
        return _Sequence(type(tree), children)
    _number(tree, path, what)
    return _Scalar()


class Structure:
    """How a parameter structure maps to a vector.

    Parameters
    ----------
    example
        The structure, with numbers at its leaves.
    what
        What it is, for error messages.

    Attributes
    ----------
    names : tuple of str
        The name of each scalar.
    """

    def __init__(self, example: Any, what: str = "x0") -> None:
        self._root = _read(example, "", what)
        self.names: tuple[str, ...] = tuple(self._root.names("")) if self._root.size else ()
        if isinstance(self._root, _Scalar):
            self.names = ("x0",)
        if not self.names:
            raise InvalidInputError(f"{what} is empty: there is nothing to fit")
        if len(set(self.names)) < len(self.names):
            twice = next(name for name in self.names if self.names.count(name) > 1)
            raise InvalidInputError(f"{what} has two entries named {twice!r}")

    def __len__(self) -> int:
        return len(self.names)

    def flatten(self, tree: Any, what: str = "x0") -> FloatArray:
        """The vector of a structure of the same form.

        Raises
        ------
        InvalidInputError, InvalidTypeError
            Where the form differs, or a leaf is no number.
        """
        if type(self._root) is _Array and isinstance(tree, np.ndarray) and tree.dtype == np.float64:
            if tree.shape == self._root.shape:
                return np.array(tree.reshape(-1))
        v = np.empty(len(self.names))

        def put(i: int, value: Any) -> None:
            v[i] = _number(value, self.names[i], what)

        try:
            self._root.flatten(tree, 0, put, "", partial=False)
        except (InvalidInputError, InvalidTypeError) as exc:
            if str(exc).startswith(f"{what}: "):
                raise
            raise type(exc)(f"{what}: {exc}") from None
        return v

    def partial(self, tree: Any) -> dict[int, Any]:
        """The entries that a structure of the same form gives, where it may leave some out, or go by the names.

        Returns
        -------
        dict
            Position in the vector -> value, of whatever kind it is.
        """
        found: dict[int, Any] = {}
        if isinstance(tree, (Mapping, pd.Series)):
            root, own = self._root, {}
            keys = root.keys if isinstance(root, _Dict) else root.index if isinstance(root, _Series) else None
            by_name = {name: i for i, name in enumerate(self.names)}
            for key, value in tree.items():
                if keys is not None and key in keys:
                    own[key] = value
                elif key in by_name:
                    found[by_name[str(key)]] = value
                else:
                    refuse_unknown("parameter", key, dict.fromkeys((*(keys if keys is not None else ()), *self.names)))
            tree = own
            if keys is None:
                return found
        self._root.flatten(tree, 0, found.__setitem__, "", partial=True)
        return found

    @cached_property
    def unflattener(self) -> Callable[[FloatArray], Any]:
        """`unflatten` as a function, without a detour for the structures that are used most."""
        root = self._root
        if isinstance(root, _Dict) and all(type(child) is _Scalar for child in root.children):
            return functools.partial(_to_dict, root.keys)
        return self.unflatten

    def unflatten(self, v: FloatArray) -> Any:
        """The structure whose entries are `v`, shape (n,)."""
        return self._root.unflatten(v, 0)

    @property
    def is_nested(self) -> bool:
        """Whether the structure is a list or tuple that holds others."""
        return isinstance(self._root, _Sequence)

    @property
    def is_vector(self) -> bool:
        """Whether the structure is a 1-D array, so that `unflatten` does nothing."""
        return isinstance(self._root, _Array) and len(self._root.shape) == 1
