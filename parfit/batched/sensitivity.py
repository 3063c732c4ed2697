"""How solutions move with the data or a hyperparameter, by the implicit function theorem.

At a solution the gradient of the cost ``C(x, θ)`` is zero in the parameters that are free to move, and stays so as θ
changes: ``H dx/dθ = -d(grad_x C)/dθ`` with the exact Hessian ``H``, the curvature of the residuals included. Nothing
is differentiated through the iterations of a solver (M. Blondel et al., Efficient and modular implicit
differentiation, 2022, arXiv:2105.15183; A. V. Fiacco, Introduction to Sensitivity and Stability Analysis in Nonlinear
Programming, Academic Press, 1983, theorem 2.2.1).

    rows ─ by length ─▶ chunks ─▶ one program: H, shape (k, n, n), and d(grad)/dθ, shape (k, n, …) ─▶ solve, in NumPy
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import NDArray

from parfit.batched.calculus import all_used, candidates, cost_of, differs, gradient, hessian, reason
from parfit.batched.compiled import compiled, precision
from parfit.batched.tracing.feeds import Feed, read_feed
from parfit.batched.tracing.traced import Traced
from parfit.batched.tracing.untraceable import Untraceable
from parfit.core.blocks import mapped
from parfit.core.data import Datasets
from parfit.core.errors import shown
from parfit.core.problem import Problem

__all__ = ["LOSSES", "Question", "Sensitivities", "Solved", "sensitivities"]

FloatArray = NDArray[np.float64]
Positions = NDArray[np.intp]

#: The most that the mixed derivatives of one chunk may take, bytes.
_CHUNK_BYTES = 1 << 25
_MOST_ROWS = 1024
_LEAST_LENGTH = 8
#: A Hessian, scaled to a diagonal of 1, whose eigenvalues differ by more than this leaves few digits to a solution.
_SINGULAR = 1e-13
#: A parameter takes part in an undetermined direction where its squared share is above this, as in `inference`.
_SHARE = 1e-8

#: The robust losses of `scipy.optimize.least_squares`, of the squared residuals.
LOSSES: dict[str, Callable[[Array], Array]] = {
    "linear": lambda s: s,
    "soft_l1": lambda s: 2 * (jnp.sqrt(1 + s) - 1),
    "huber": lambda s: jnp.where(s <= 1, s, 2 * jnp.sqrt(jnp.maximum(s, 1)) - 1),
    "cauchy": jnp.log1p,
    "arctan": jnp.arctan,
}


@dataclass(frozen=True, eq=False)
class Question:
    """What is to be differentiated.

    Attributes
    ----------
    problem, datasets
        What was fitted.
    wrt
        None for the data, or which of the further arguments.
    loss, f_scale
        What became of residuals, as in `scipy.optimize.least_squares`.
    """

    problem: Problem
    datasets: Datasets
    wrt: int | None = None
    loss: str = "linear"
    f_scale: float = 1.0

    def cost(self, value: Array) -> Array:
        """What was minimised, from what the objective gives."""
        if value.ndim == 0 or self.loss == "linear":
            return cost_of(value)
        return 0.5 * self.f_scale**2 * jnp.sum(LOSSES[self.loss]((value / self.f_scale) ** 2))


class Solved(NamedTuple):
    """Rows and their solutions.

    Attributes
    ----------
    positions : ndarray, shape (k,)
        Theirs in the input.
    x, lower, upper : ndarray, shape (k, n)
        The solutions, and the bounds.
    held : ndarray of bool, shape (k, n)
        Which parameters do not move: at a bound, or fixed.
    """

    positions: Positions
    x: FloatArray
    lower: FloatArray
    upper: FloatArray
    held: NDArray[np.bool_]

    def at(self, chosen: NDArray[Any]) -> Solved:
        """Some of the rows."""
        return Solved(*(array[chosen] for array in self))


class Sensitivities(NamedTuple):
    """Of some rows.

    Attributes
    ----------
    positions : ndarray, shape (k,)
        Theirs in the input.
    parts : list of ndarray, shapes (k, n, *shape)
        ``dx/dθ`` for each array of a dataset, in its order, padded to a common length where lengths differ; or for the
        one argument. None for an array of whole numbers that the objective needs as such.
    """

    positions: Positions
    parts: list[FloatArray | None]


def sensitivities(question: Question, solved: Solved) -> Iterator[Sensitivities]:
    """The derivatives of solutions.

    Yields
    ------
    Sensitivities
        Of all the rows, some at a time.

    Raises
    ------
    Untraceable
        Where the objective cannot be traced, or gives another value then.
    """
    feed = read_feed(question.datasets)
    failures: list[Exception] = []
    for candidate in candidates(question.problem.objective, question.problem.args):
        for padded, as_floats in _ways(feed, solved):
            try:
                function, args = candidate()
                traced = Traced(function, question.problem.parameters.structure.root, feed, args)
                parts = _by_length(feed.lengths, solved.positions, padded)
                batches = [_Batch(question, traced, as_floats, solved.at(rows), length) for length, rows in parts]
                for batch in batches:
                    batch.prepare()
                    batch.compare()
            except Exception as exc:  # noqa: BLE001 - whatever tracing the user's function raises
                failures.append(exc)
                continue
            for batch in batches:
                yield from batch.run()
            return
    raise Untraceable(reason(failures)) from failures[-1]


def _ways(feed: Feed, solved: Solved) -> Iterator[tuple[bool, bool]]:
    """Whether lengths are padded, and whether whole numbers are taken for real ones; the best way first."""
    lengths, first = feed.lengths, solved.positions[:1]
    leaves = feed.leaves(first, 0 if lengths is None else int(lengths[first[0]]))
    last = -1 if lengths is not None else None
    whole = any(np.asarray(leaf).dtype.kind in "iu" for leaf in jax.tree.leaves(leaves)[:last])
    for padded in (True, False) if lengths is not None else (True,):
        for as_floats in (True, False) if whole else (True,):
            yield padded, as_floats


def _by_length(lengths: Positions | None, positions: Positions, padded: bool) -> list[tuple[int, Positions]]:
    """What rows are padded to, and which of the positions they are."""
    if lengths is None:
        return [(0, np.arange(len(positions)))]
    wanted = own = lengths[positions]
    if padded:
        wanted = np.maximum(_LEAST_LENGTH, 2 ** np.ceil(np.log2(np.maximum(own, 1))).astype(int))
    return [(int(length), np.flatnonzero(wanted == length)) for length in np.unique(wanted)]


class _Batch:
    """Rows that share a program."""

    def __init__(self, question: Question, traced: Traced, as_floats: bool, rows: Solved, length: int) -> None:
        self._question, self._traced, self._as_floats = question, traced, as_floats
        self._rows, self._length = rows, length

    # ---- data as a list of arrays, of which some are what is differentiated by

    def _flat(self, positions: Positions) -> list[NDArray[Any]]:
        """The arrays of some rows, with a leading axis."""
        found: list[NDArray[Any]] = []
        self._tree = self._traced.feed.leaves(positions, self._length)
        mapped(self._tree, lambda leaf: found.append(np.asarray(leaf)))
        last = len(found) - (self._traced.feed.lengths is not None)
        return [self._converted(leaf) if k < last else leaf for k, leaf in enumerate(found)]

    def _converted(self, leaf: NDArray[Any]) -> NDArray[Any]:
        return leaf.astype(np.float64) if leaf.dtype.kind in "iu" and self._as_floats else leaf

    def _value(self, x: Array, flat: list[Array], theta: Array | None) -> Array:
        wrt, traced = self._question.wrt, self._traced
        if wrt is not None:
            traced = replace(traced, args=(*traced.args[:wrt], theta, *traced.args[wrt + 1 :]))
        leaves = iter(flat)
        return traced(x, None, mapped(self._tree, lambda _: next(leaves)))

    def _one(self, x: Array, flat: list[Array], theta: Array | None) -> tuple[Array, Array, list[Array]]:
        """The value of one row, its Hessian, and the derivatives of the gradient."""

        def cost(x: Array, moving: list[Array]) -> Array:
            if self._question.wrt is not None:
                return self._question.cost(self._value(x, flat, moving[0]))
            arrays = iter(moving)
            return self._question.cost(
                self._value(x, [next(arrays) if k in self._moving else leaf for k, leaf in enumerate(flat)], None)
            )

        moving = [flat[k] for k in self._moving] if theta is None else [theta]
        return self._value(x, flat, theta), hessian(lambda z: cost(z, moving))(x), _mixed(cost, x, moving)

    # ---- the steps

    def prepare(self) -> None:
        """Trace and compile."""
        flat = self._flat(self._rows.positions[:1])
        last = len(flat) - (self._traced.feed.lengths is not None)
        self._moving = [k for k, leaf in enumerate(flat[:last]) if leaf.dtype.kind == "f"]
        wrt = self._question.wrt
        self._theta = None if wrt is None else _as_real(self._question.problem.args[wrt])
        moving = [leaf for leaf in (*flat, self._theta) if leaf is not None and leaf.dtype.kind == "f"]
        self._single = any(leaf.dtype.itemsize < 8 for leaf in moving)
        n = self._rows.x.shape[1]
        with precision(True):
            one = [jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype) for leaf in flat]
            value = jax.eval_shape(self._value, jax.ShapeDtypeStruct((n,), np.float64), one, self._theta)
            sizes = [value.size, *(math.prod(leaf.shape) for leaf in one)]
            numbers = max(sizes) if self._theta is None else max(*sizes, self._theta.size)
            self._width = _width(8 * n * numbers, len(self._rows.positions))
            k = self._width
            rows = [jax.ShapeDtypeStruct((k, *leaf.shape[1:]), leaf.dtype) for leaf in flat]
            x = jax.ShapeDtypeStruct((k, n), np.float64)
            self._program = compiled(all_used(jax.vmap(self._one, in_axes=(0, 0, None))), x, rows, self._theta)

    def compare(self) -> None:
        """Refuse an objective whose traced value is not its plain one, on a few rows, beside their solutions."""
        chosen = np.unique(np.linspace(0, len(self._rows.positions) - 1, min(3, self._width)).astype(int))
        rows = self._rows.at(chosen)
        beside = np.where(rows.held, rows.x, np.clip(rows.x * 1.001 + 1e-4, rows.lower, rows.upper))
        problem, datasets = self._question.problem, self._question.datasets
        lengths = self._traced.feed.lengths
        with precision(True):
            found = self._asked(chosen, beside)[0]
            for value, i, x in zip(found, chosen, beside, strict=True):
                position = int(self._rows.positions[i])
                params = problem.parameters.structure.unflatten(x.copy())
                plain = problem.objective(params, datasets.one(position), *problem.args)
                if lengths is not None and value.ndim and self._length and not len(value) % self._length:
                    parts = value.reshape(-1, self._length)[:, : lengths[position]]  # what is no padding
                    value = parts.reshape(-1) if np.size(plain) == parts.size else value
                if (what := differs(value, plain, single=self._single)) is not None:
                    label = shown(datasets.labels[position])
                    raise Untraceable(f"compiled, the objective gives another value for dataset {label}: {what}")

    def _asked(self, chosen: Positions, x: FloatArray) -> list[NDArray[Any]]:
        """What the program gives for as many rows as it takes, or fewer."""
        assert len(chosen) <= self._width
        fill = np.concatenate([chosen, np.repeat(chosen[:1], self._width - len(chosen))])
        points = np.concatenate([x, np.repeat(x[:1], self._width - len(chosen), axis=0)])
        made = self._program(points, self._flat(self._rows.positions[fill]), self._theta)
        return [np.asarray(part)[: len(chosen)] for part in jax.tree.leaves(made)]

    def run(self) -> Iterator[Sensitivities]:
        """Of all rows."""
        flat = self._flat(self._rows.positions[:1])
        last = len(flat) - (self._traced.feed.lengths is not None)
        for begin in range(0, len(self._rows.positions), self._width):
            chosen = np.arange(begin, min(begin + self._width, len(self._rows.positions)))
            with precision(True):
                _, H, *mixed = self._asked(chosen, self._rows.x[chosen])
            solved = iter(_solved(H, mixed, self._rows.held[chosen]))
            known = range(last) if self._theta is None else [None]
            parts = [next(solved) if k is None or k in self._moving else None for k in known]
            yield Sensitivities(self._rows.positions[chosen], parts)


def _as_real(value: Any) -> NDArray[Any]:
    """A number or an array, whole numbers as floats."""
    array = np.asarray(value)
    return array if array.dtype.kind == "f" else array.astype(np.float64)


def _width(bytes_of_one: int, rows: int) -> int:
    """How many rows go through the program together, a power of two."""
    width = 1
    while width < min(rows, _MOST_ROWS) and 2 * width * bytes_of_one <= _CHUNK_BYTES:
        width *= 2
    return width


def _mixed(cost: Callable[[Array, list[Array]], Array], x: Array, moving: list[Array]) -> list[Array]:
    """The derivatives of the gradient by each array, shapes (n, *shape); reverse mode over forward where that works."""

    def along(e: Array) -> list[Array]:
        slope = lambda arrays: jax.jvp(lambda z: cost(z, arrays), (x,), (e,))[1]  # noqa: E731
        made: list[Array] = jax.grad(slope)(moving)
        return made

    try:
        return jax.vmap(along)(jnp.eye(len(x), dtype=x.dtype))
    except ValueError:  # a loop of unknown length, which only forward mode goes through
        made: list[Array] = jax.jacfwd(lambda arrays: gradient(lambda z: cost(z, arrays))(x))(moving)
        return made


def _solved(H: FloatArray, mixed: list[NDArray[Any]], held: NDArray[np.bool_]) -> list[FloatArray]:
    """``-H⁻¹ M`` in the parameters that are not held, 0 in the others, and NaN where a parameter is not determined.

    Parameters
    ----------
    H : ndarray, shape (k, n, n)
    mixed : list of ndarray, shapes (k, n, *shape)
    held : ndarray of bool, shape (k, n)
    """
    moves = ~held
    H = np.where(moves[:, :, None] & moves[:, None, :], (H + H.swapaxes(1, 2)) / 2, 0.0)
    finite: NDArray[np.bool_] = np.isfinite(H).all(axis=(1, 2))  # type: ignore[assignment]
    size = np.abs(np.diagonal(H, axis1=1, axis2=2))
    scale = np.sqrt(np.where(finite[:, None] & (size > 0), size, 1.0))
    scaled = np.where(finite[:, None, None], H, 0.0) / scale[:, :, None] / scale[:, None, :]
    values, V = np.linalg.eigh(scaled)
    largest = np.abs(values).max(axis=1, keepdims=True, initial=0.0)
    kept = np.abs(values) > _SINGULAR * H.shape[1] * largest
    W = np.where(kept[:, None, :], V, 0.0)
    inverse = (W / np.where(kept, values, 1.0)[:, None, :]) @ W.swapaxes(1, 2) / scale[:, :, None] / scale[:, None, :]
    lost = moves & (~finite[:, None] | (1.0 - (W * W).sum(axis=2) > _SHARE))
    made = []
    for M in mixed:
        k, n, shape = M.shape[0], M.shape[1], M.shape[2:]
        moved = np.where(held[:, :, None], 0.0, 0.0 - inverse @ M.reshape(k, n, -1))
        moved[lost] = np.nan
        made.append(moved.reshape(k, n, *shape))
    return made
