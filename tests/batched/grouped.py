"""Least-squares problems as rows of a few batches, so that few programs are compiled.

A row says which problem it is. The residuals of a batch are padded with zeros to one length, and the parameters with
such as cannot move.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from parfit.batched.blocks import Block, Finished, at
from parfit.batched.lane import Lane
from parfit.batched.lm import LM
from parfit.batched.loop import Loop
from tests.mgh import MGH
from tests.nist import NIST_ALL

Array = np.ndarray
TOLERANCE = 1e-12
SOLVER = LM(ftol=TOLERANCE, xtol=TOLERANCE, gtol=TOLERANCE)


@dataclass(frozen=True, eq=False)
class Case:
    """Residuals of `n` parameters, `m` of them, from one or more starts."""

    name: str
    residuals: Callable[[Any, Any], Any]
    starts: tuple[tuple[float, ...], ...]
    m: int

    @property
    def n(self) -> int:
        return len(self.starts[0])

    def __repr__(self) -> str:
        return self.name


def _case(name: str, residuals: Callable[[Any, Any], Any], starts: Sequence[tuple[float, ...]]) -> Case:
    return Case(name, residuals, tuple(starts), len(residuals(np.array(starts[0]), np)))


CASES = (
    *(_case(p.name, p.residuals, [p.start]) for p in MGH),
    *(_case(r.name, r.residuals, r.starts) for r in NIST_ALL),
)
#: What the numbers of parameters are padded to; up to 9 the normal equations are written out, beyond by LAPACK.
SIZES = (4, 6, 9, 12)


@functools.cache
def group(size: int) -> Group:
    """The problems that are padded to `size` parameters."""
    least = max((other for other in SIZES if other < size), default=0)
    return Group(size, tuple(case for case in CASES if least < case.n <= size))


class Group:
    """Problems that share a program.

    Attributes
    ----------
    cases
        The problems.
    """

    def __init__(self, size: int, cases: tuple[Case, ...]) -> None:
        self.cases = cases
        self._size = size
        self._m = max(case.m for case in cases)
        self._values = jax.jit(self.residuals)
        self._jacobian = jax.jit(jax.jacfwd(self.residuals))

    def residuals(self, z: Any, which: Any) -> Any:
        """The residuals of the problem with the number `which`, padded with zeros."""
        padded = [lambda z, c=c: jnp.pad(c.residuals(z[: c.n], jnp), (0, self._m - c.m)) for c in self.cases]
        return jax.lax.switch(which, padded, z)

    def of(self, case: Case) -> tuple[Callable[[Array], Array], Callable[[Array], Array]]:
        """Residuals and their exact Jacobian for SciPy, without padding."""
        which = np.int32(self.cases.index(case))

        def values(z: Array) -> Array:
            with jax.enable_x64(True):
                return np.asarray(self._values(self._padded(z), which))[: case.m]

        def jacobian(z: Array) -> Array:
            with jax.enable_x64(True):
                return np.asarray(self._jacobian(self._padded(z), which))[: case.m, : case.n]

        return values, jacobian

    def _padded(self, z: Any) -> Array:
        z = np.asarray(z, dtype=float)
        return np.pad(z, (0, self._size - len(z)))

    @functools.cached_property
    def loop(self) -> Loop:
        def lane(row: Any) -> Lane:
            return Lane(
                row["start"], row["lower"], row["upper"], lambda z: self.residuals(z, row["which"]), together=True
            )

        vector = jax.ShapeDtypeStruct((self._size,), np.float64)
        example = dict.fromkeys(("start", "lower", "upper"), vector) | {"which": jax.ShapeDtypeStruct((), np.int32)}
        return Loop(SOLVER, lane, None, example, 64, True)

    def solved(self, rows: Sequence[tuple[Case, Any, Any, Any]]) -> Any:
        """The states in which rows (problem, start, lower, upper) end."""
        stacked = {
            name: np.array([self._padded(np.broadcast_to(row[k], (row[0].n,))) for row in rows])
            for k, name in enumerate(("start", "lower", "upper"), 1)
        }
        stacked["which"] = np.array([self.cases.index(row[0]) for row in rows], dtype=np.int32)
        parts = self.loop.run(Block(np.arange(len(rows)), stacked, None), lambda: False, lambda left: False)
        return _joined([part for part in parts if isinstance(part, Finished)])


def _joined(parts: list[Finished]) -> Any:
    order = np.argsort(np.concatenate([part.positions for part in parts]))
    state = jax.tree.map(lambda *each: np.concatenate(each), *[part.state for part in parts])
    return at(state, order)
