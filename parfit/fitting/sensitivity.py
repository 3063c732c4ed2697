"""`Fits.sensitivity`: what `parfit.batched.sensitivity` computes, in the user's own labels and structures."""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Iterator, Mapping
from numbers import Real
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from parfit.core.blocks import FrameBlock, GroupBlock, ItemBlock, TreeBlock, mapped
from parfit.core.data import Datasets
from parfit.core.errors import InvalidInputError, InvalidTypeError, missing_package
from parfit.core.parameters import Parameters
from parfit.core.problem import Problem
from parfit.core.protocols import Solver
from parfit.fitting.worker import random_state
from parfit.results import Fits

__all__ = ["sensitivity_of"]

FloatArray = NDArray[np.float64]


def sensitivity_of(fits: Fits, wrt: Any, problem: Problem, solver: Solver, datasets: Datasets) -> Any:
    """As `Fits.sensitivity`.

    Raises
    ------
    InvalidInputError, InvalidTypeError, MissingPackageError
        As there.
    """
    k = _which(wrt, problem)
    if importlib.util.find_spec("jax") is None:
        raise missing_package("jax", "sensitivity", "jax")
    if problem.constraints:
        raise InvalidInputError("the sensitivity of a fit with constraints is not known: they may hold it where it is")
    options: Mapping[str, Any] = getattr(solver, "options", {})
    loss = options.get("loss") or "linear"
    if not isinstance(loss, str):
        raise InvalidInputError("the sensitivity of a fit with a loss function of one's own is not known")
    from parfit.batched.sensitivity import Question, Solved, sensitivities
    from parfit.batched.tracing.untraceable import Untraceable

    positions = np.flatnonzero(fits.success.to_numpy())
    out = _Out(datasets, len(problem.parameters.names), None if k is None else np.shape(problem.args[k]))
    if len(positions):
        question = Question(problem, datasets, k, loss, float(options.get("f_scale") or 1.0))
        try:
            with random_state(kept=True):
                x = fits.params.to_numpy()
                lower, upper = _bounds(problem.parameters, x, datasets, positions)
                held = (fits.at_bound.to_numpy()[positions] != 0) | problem.parameters.fixed | ~(lower < upper)
                for found in sensitivities(question, Solved(positions, x[positions], lower, upper, held)):
                    out.put(found.positions, found.parts)
        except Untraceable as exc:
            raise InvalidInputError(f"there is no sensitivity without a compiled objective: {exc}") from exc
    return out.made(list(problem.parameters.names))


def _which(wrt: Any, problem: Problem) -> int | None:
    """None for the data, or the position of a further argument that is a number or an array."""
    if isinstance(wrt, str) and wrt == "data":
        return None
    if isinstance(wrt, bool) or not isinstance(wrt, (int, np.integer)):
        raise InvalidTypeError(f"wrt is 'data', or k for args[k], and not {wrt!r}")
    if not 0 <= wrt < len(problem.args):
        n = len(problem.args)
        raise InvalidInputError(f"wrt={wrt}: this fit has {n} further argument{'s' * (n != 1)} `args`")
    value = problem.args[wrt]
    if not (isinstance(value, Real) or hasattr(value, "__array__")) or isinstance(value, (pd.Series, pd.DataFrame)):
        raise InvalidTypeError(f"wrt={wrt}: args[{wrt}] is to be a number or an array, not {type(value).__name__}")
    if np.asarray(value).dtype.kind not in "fiu":
        raise InvalidTypeError(f"wrt={wrt}: args[{wrt}] holds {np.asarray(value).dtype}, and not real numbers")
    return int(wrt)


def _bounds(
    parameters: Parameters, x: FloatArray, datasets: Datasets, positions: NDArray[np.intp]
) -> tuple[FloatArray, FloatArray]:
    """The bounds of some rows, shape (k, n) each; their starts, which may be dear to make, are not asked for."""
    from parfit.batched.starts import read_starts

    found = read_starts(dataclasses.replace(parameters, start=x, start_of=None), datasets, positions)
    return found.lower, found.upper


# ---- in the user's structures


class _Out:
    """Derivatives as they come, and at the end in the form of the data."""

    def __init__(self, datasets: Datasets, n: int, shape: tuple[int, ...] | None) -> None:
        """`shape` is that of the argument, where it is not the data."""
        self._datasets, self._n, self._shape = datasets, n, shape
        self._block = datasets.block(np.arange(len(datasets)))
        self._parts: list[FloatArray | None] | None = None
        self._ragged: dict[int, list[FloatArray | None]] = {}

    def put(self, positions: NDArray[np.intp], parts: list[FloatArray | None]) -> None:
        """Take in some rows, shapes (k, n, *shape)."""
        if self._shape is None and isinstance(self._block, (ItemBlock, GroupBlock)):
            for i, position in enumerate(positions.tolist()):
                self._ragged[position] = [None if part is None else part[i] for part in parts]
            return
        if self._parts is None:
            rows = len(self._datasets)
            self._parts = [None if part is None else np.full((rows, *part.shape[1:]), np.nan) for part in parts]
        for whole, part in zip(self._parts, parts, strict=True):
            if whole is not None and part is not None:
                whole[positions] = part

    def made(self, names: list[str]) -> Any:
        """All of it."""
        rows = len(self._datasets)
        if self._shape is not None:
            empty: FloatArray = np.full((rows, self._n, *self._shape), np.nan)
            return empty if self._parts is None else self._parts[0]
        block = self._block
        if isinstance(block, FrameBlock):
            return self._table(names)
        if isinstance(block, TreeBlock):
            parts = iter(self._parts or [])
            return mapped(block.tree, lambda leaf: self._array(next(parts, None), leaf))
        assert isinstance(block, (ItemBlock, GroupBlock))
        return [_like(item, iter(self._ragged.get(i, [])), names) for i, item in enumerate(block.items)]

    def _array(self, part: FloatArray | None, leaf: NDArray[Any]) -> FloatArray:
        return np.full((len(leaf), self._n, *leaf.shape[1:]), np.nan) if part is None else part

    def _table(self, names: list[str]) -> pd.DataFrame:
        form, rows = self._datasets.form, len(self._datasets)
        assert form is not None
        numeric = form.columns[_numeric(form)]
        found = self._parts[0] if self._parts else None
        values = np.full((rows, self._n, len(numeric)), np.nan) if found is None else found
        values = values.reshape(rows, self._n * len(numeric))
        return pd.DataFrame(values, index=self._datasets.labels.copy(), columns=_columns(names, numeric))


def _numeric(frame: pd.DataFrame) -> NDArray[np.bool_]:
    from parfit.batched.tracing.feeds import is_number

    return np.array([is_number(frame.iloc[:, k]) for k in range(frame.shape[1])], dtype=bool)


def _columns(names: list[str], inner: pd.Index[Any]) -> pd.MultiIndex:
    """(parameter, data column), with the levels of the data's columns."""
    pairs = [(name, *(label if inner.nlevels > 1 else (label,))) for name in names for label in inner]
    levels = ["parameter", *inner.names]
    return pd.MultiIndex.from_tuples(pairs, names=levels) if pairs else pd.MultiIndex.from_arrays([[]] * len(levels))


def _like(item: Any, parts: Iterator[FloatArray | None], names: list[str]) -> Any:
    """The derivatives of one dataset's solution, in the form of the dataset; NaN where there are none.

    Takes a dataset apart in the order of `parfit.batched.tracing.feeds`; where lengths differ, parts are longer than
    it.
    """
    n = len(names)
    if isinstance(item, pd.DataFrame):
        columns = item.columns[_numeric(item)]
        values = [_cut(next(parts, None), (n, len(item))) for _ in columns]
        stacked = np.stack(values, axis=2) if values else np.empty((n, len(item), 0))
        flat = stacked.swapaxes(0, 1).reshape(len(item), n * len(columns))
        return pd.DataFrame(flat, index=item.index, columns=_columns(names, columns))
    if isinstance(item, pd.Series):
        return pd.DataFrame(_cut(next(parts, None), (n, len(item))), index=names, columns=item.index)
    if isinstance(item, Mapping):
        return {key: _like(value, parts, names) for key, value in item.items()}
    if isinstance(item, (list, tuple)):
        made = [_like(value, parts, names) for value in item]
        return type(item)(*made) if hasattr(item, "_fields") else type(item)(made)
    if isinstance(item, (Real, np.ndarray)):
        return _cut(next(parts, None), (n, *np.asarray(item).shape))
    return None


def _cut(part: FloatArray | None, shape: tuple[int, ...]) -> FloatArray:
    """A part without its padding, or NaN."""
    return np.full(shape, np.nan) if part is None else part[tuple(map(slice, shape))]
