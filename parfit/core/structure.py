"""Any nesting of dicts, lists, tuples, arrays, Series and frames <-> a flat vector with named entries.

A `Structure` is read off an example once; then `flatten` and `unflatten` go back and forth. A plain list or
tuple of numbers is handed to the objective as a 1-D array, as SciPy does; everything else comes back as it
was given.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from parfit.core.errors import InvalidInputError, InvalidTypeError, refuse_unknown
from parfit.core.nodes import ArrayNode, DictNode, FrameNode, ScalarNode, SeriesNode, number, read_node

__all__ = ["Structure"]

FloatArray = NDArray[np.float64]


def _to_dict(keys: tuple[Any, ...], v: FloatArray) -> dict[Any, Any]:
    return dict(zip(keys, v, strict=True))


class Structure:
    """How a parameter structure maps to a vector.

    Parameters
    ----------
    example
        The structure, with numbers at its leaves.
    what
        What it is, for error messages.
    may_be_empty
        Whether there may be nothing in it.

    Attributes
    ----------
    names : tuple of str
        The name of each scalar.
    root : Node
        Its parts.
    """

    def __init__(self, example: Any, what: str = "x0", *, may_be_empty: bool = False) -> None:
        self.root = read_node(example, "", what)
        self.names: tuple[str, ...] = tuple(self.root.names("")) if self.root.size else ()
        if isinstance(self.root, ScalarNode):
            self.names = ("x0",)
        if not self.names and not may_be_empty:
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
        if type(self.root) is ArrayNode and isinstance(tree, np.ndarray) and tree.dtype == np.float64:
            if tree.shape == self.root.shape:
                return np.array(tree.reshape(-1))
        v = np.empty(len(self.names))

        def put(i: int, value: Any) -> None:
            v[i] = number(value, self.names[i], what)

        try:
            self.root.flatten(tree, 0, put, "", partial=False)
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
            root, own, named = self.root, {}, {}
            keys = root.keys if isinstance(root, DictNode) else root.index if isinstance(root, SeriesNode) else None
            by_name = {name: i for i, name in enumerate(self.names)}
            for key, value in tree.items():
                if keys is not None and key in keys:
                    own[key] = value
                elif key in by_name:
                    named[by_name[key]] = value
                else:
                    refuse_unknown("parameter", key, dict.fromkeys((*(keys if keys is not None else ()), *self.names)))
            if keys is not None:
                root.flatten(own, 0, found.__setitem__, "", partial=True)
            return {**found, **named}  # a scalar's name goes before the key of what holds it
        self.root.flatten(tree, 0, found.__setitem__, "", partial=True)
        return found

    @cached_property
    def unflattener(self) -> Callable[[FloatArray], Any]:
        """`unflatten` as a function, without a detour for the structures that are used most."""
        root = self.root
        if isinstance(root, DictNode) and all(type(child) is ScalarNode for child in root.children):
            return functools.partial(_to_dict, root.keys)
        return self.unflatten

    def unflatten(self, v: FloatArray) -> Any:
        """The structure whose entries are `v`, shape (n,)."""
        return self.root.unflatten(v, 0)

    @property
    def is_table(self) -> bool:
        """Whether the structure is a frame of parameters."""
        return isinstance(self.root, FrameNode)

    @property
    def is_vector(self) -> bool:
        """Whether the structure is a 1-D array, so that `unflatten` does nothing."""
        return isinstance(self.root, ArrayNode) and len(self.root.shape) == 1
