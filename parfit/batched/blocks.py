"""Rows on their way through the loop, many at a time: trees of arrays with a leading axis."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import numpy as np
from numpy.typing import NDArray

__all__ = ["Block", "Ended", "Finished", "at", "merged", "padded", "together"]

Tree = Any


class Block(NamedTuple):
    """Rows on their way.

    Attributes
    ----------
    positions : ndarray, shape (k,)
        Their positions in the input.
    rows
        Data, start and bounds; leading axis k.
    state
        Where their solver is, leading axis k; None before the first step.
    """

    positions: NDArray[np.intp]
    rows: Tree
    state: Tree | None

    def __len__(self) -> int:
        return len(self.positions)


class Ended(NamedTuple):
    """What the solver's states say of rows that have ended, as NumPy arrays with a leading axis (`BatchedSolver`)."""

    x: NDArray[Any]
    cost: NDArray[Any]
    start_cost: NDArray[Any]
    g: NDArray[Any]
    nfev: NDArray[Any]
    njev: NDArray[Any]
    nit: NDArray[Any]
    nonfinite: NDArray[Any]
    end: NDArray[Any]
    A: NDArray[Any] | None = None


class Finished(NamedTuple):
    """Rows that have ended; arrays with a leading axis.

    Attributes
    ----------
    positions : ndarray, shape (k,)
        Their positions in the input.
    block, own
        The block that they were in, and their places there.
    state
        What the solver says.
    extra
        What `Loop.extra` gave for them.
    seconds
        The time that each took, s: its share of the time of its block, by its evaluations.
    """

    positions: NDArray[np.intp]
    block: Block
    own: NDArray[np.int32]
    state: Ended
    extra: Any
    seconds: NDArray[np.float64]

    def read(self, name: str) -> Tree:
        """What the programs read of them by one name: ``start``, ``lower``, ``upper``."""
        return at(self.block.rows[name], self.own)

    def rows(self, chosen: NDArray[Any]) -> Tree:
        """All that the programs read of some of them."""
        return at(self.block.rows, self.own[chosen])


def merged(blocks: list[Block]) -> Block:
    """Several blocks as one."""
    if len(blocks) == 1:
        return blocks[0]
    positions = np.concatenate([b.positions for b in blocks])
    rows, state = (
        jax.tree.map(lambda *parts: np.concatenate(parts), *trees)
        for trees in ([b.rows for b in blocks], [b.state for b in blocks])
    )
    return Block(positions, rows, state)


def at(tree: Tree, chosen: NDArray[Any]) -> Tree:
    """The entries `chosen` of each array; memory is shared where they follow each other."""
    index = together(chosen)
    return jax.tree.map(lambda a: a[index], tree)


def together(chosen: NDArray[Any]) -> NDArray[Any] | slice:
    """An index as a slice where its entries follow each other."""
    run = slice(int(chosen[0]), int(chosen[-1]) + 1) if len(chosen) else slice(0, 0)
    return run if run.stop - run.start == len(chosen) and bool((np.diff(chosen) == 1).all()) else chosen


def padded(array: NDArray[Any], size: int) -> NDArray[Any]:
    """`array` with as many entries as `size`; what is added is never looked at, but must be there."""
    if len(array) == size:
        return array
    made = np.zeros((size, *array.shape[1:]), array.dtype)
    made[: len(array)] = array
    return made
