"""An array put together from pieces, as equations for parts of a variable do."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

__all__ = ["Pieces", "is_known"]

Data = Any  # a NumPy array or number, or a jax.Array


def is_known(data: Data) -> bool:
    """Whether numbers are known while compiling."""
    return not isinstance(data, jax.Array)


class Pieces:
    """An array that is being put together from pieces, each with the places in it that they fill."""

    def __init__(self, shape: tuple[int, ...], base: Data) -> None:
        self.shape = shape
        # What is put in is of the kind that is there, as in NumPy.
        self.kind = bool if base.dtype == bool else float
        self.places = np.arange(math.prod(shape)).reshape(shape)
        # For each entry the piece that it comes from, counted through all pieces.
        self.sources = np.zeros(shape, int)
        self.pieces: list[Data] = []
        self.count = 0
        self.put(self.places, base)

    def put(self, places: np.ndarray[Any, Any], data: Data) -> None:
        if is_known(data):
            piece: Data = np.broadcast_to(np.asarray(data, self.kind), places.shape).reshape(-1)
        else:
            alike = jnp.issubdtype(data.dtype, jnp.floating if self.kind is float else bool)
            data = data if alike else data.astype(self.kind)
            piece = jnp.broadcast_to(data, places.shape).reshape(-1)
        self.sources.reshape(-1)[places.reshape(-1)] = self.count + np.arange(places.size)
        self.pieces.append(piece)
        self.count += places.size

    def data(self) -> Data:
        """All of it, as one array: a concatenation where the pieces fill it one after another."""
        sources = self.sources.reshape(-1)
        starts = np.cumsum([0, *(piece.shape[0] for piece in self.pieces)])
        used = [i for i in range(len(self.pieces)) if np.any((sources >= starts[i]) & (sources < starts[i + 1]))]
        moved, at = np.zeros(self.count, int), 0
        for i in used:
            size = starts[i + 1] - starts[i]
            moved[starts[i] : starts[i + 1]] = at + np.arange(size)
            at += size
        pieces = [self.pieces[i] for i in used]
        order = moved[sources]
        if all(map(is_known, pieces)):
            flat: Data = np.concatenate(pieces) if pieces else np.zeros(0)
        else:
            dtype = jnp.result_type(*(piece.dtype for piece in pieces if not is_known(piece)))
            flat = jnp.concatenate([jnp.asarray(piece, dtype) for piece in pieces])
        if not np.array_equal(order, np.arange(at)):
            flat = flat[order]
        return flat.reshape(self.shape)
