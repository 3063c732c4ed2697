"""Start values, bounds and fixed entries, in all the forms that users write them, as flat vectors.

`Parameters` is what the rest of parfit sees: names, and arrays of shape (n,) that hold for every dataset, or
(B, n) where each dataset has its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from parfit.core.bounds import align, one_side, read_bounds, refuse_near_columns
from parfit.core.errors import InvalidInputError, InvalidTypeError, ParfitError, refuse_unknown
from parfit.core.structure import Structure

__all__ = ["Parameters", "problem_with_start", "read_parameters", "row_start"]

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Parameters:
    """The parameters of a fit.

    Attributes
    ----------
    structure
        How the objective wants them.
    start : ndarray, shape (n,) or (B, n)
        The start values; a callable of the dataset where each start is made in the worker.
    lower, upper : ndarray, shape (n,) or (B, n)
        The bounds, infinite where there is none; `bounds_of` takes their place where it is given.
    fixed : ndarray of bool, shape (n,)
        True where a parameter stays at its start.
    start_of, bounds_of
        Callables of a dataset that give its own start or bounds, in the user's forms. A start that is not NaN
        takes the place of what `start_of` gives.
    inside
        Whether a start outside its bounds is moved to the nearest one, in place of being refused.
    """

    structure: Structure
    start: FloatArray
    lower: FloatArray
    upper: FloatArray
    fixed: NDArray[np.bool_]
    start_of: Callable[[Any], Any] | None = None
    bounds_of: Callable[[Any], Any] | None = None
    inside: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """The name of each scalar."""
        return self.structure.names

    @property
    def bounded(self) -> bool:
        """Whether any dataset has any finite bound on a free parameter."""
        free = ~self.fixed
        return self.bounds_of is not None or bool(
            np.isfinite(self.lower[..., free]).any() or np.isfinite(self.upper[..., free]).any()
        )

    def common(self) -> Parameters:
        """The same without the arrays that belong to single datasets; this is what travels to workers."""
        blank = np.full(len(self.names), np.nan)
        start, lower, upper = (blank if v.ndim == 2 else v for v in (self.start, self.lower, self.upper))
        return replace(self, start=start, lower=lower, upper=upper)


def read_parameters(
    x0: Any, bounds: Any, fixed: Any, labels: pd.Index[Any], first: Callable[[Callable[[Any], Any]], Any]
) -> Parameters:
    """Convert what the user wrote, once.

    Parameters
    ----------
    x0, bounds, fixed
        In any of the forms that `parfit.fit` documents.
    labels
        The labels of the datasets, to align frames with.
    first
        Calls a function with the first dataset on which it does not raise, and returns what it returned.

    Raises
    ------
    InvalidInputError, InvalidTypeError, UnknownNameError
        For what cannot be used by any dataset.
    """
    start_of = x0 if callable(x0) else None
    columns: dict[str, Any] = {}
    if start_of is not None:
        example = first(start_of)
        structure = Structure(example, "x0(dataset)")
        start = structure.flatten(example)
    elif isinstance(x0, pd.DataFrame) and "value" not in x0.columns:
        structure, start = _aligned_start(x0, labels)
    else:
        if isinstance(x0, pd.DataFrame):
            refuse_near_columns(x0, ("lower_bound", "upper_bound", "fixed"), "x0")
            columns = {c: x0[c] for c in ("lower_bound", "upper_bound", "fixed") if c in x0.columns}
        structure = Structure(x0)
        start = structure.flatten(x0)
    lower, upper, bounds_of = read_bounds(structure, bounds, labels)
    if columns:
        lower = one_side(structure, columns.get("lower_bound"), -np.inf) if bounds is None else lower
        upper = one_side(structure, columns.get("upper_bound"), np.inf) if bounds is None else upper
        fixed = columns.get("fixed") if fixed is None else fixed
    made = Parameters(structure, start, lower, upper, _read_fixed(structure, fixed), start_of, bounds_of)
    _check(made)
    return made


def _aligned_start(frame: pd.DataFrame, labels: pd.Index[Any]) -> tuple[Structure, FloatArray]:
    values = align(frame, labels, "x0")
    if not all(dtype.kind in "fiu" for dtype in values.dtypes):
        raise InvalidTypeError("x0: every column of a frame with one start per dataset must be numeric")
    structure = Structure(pd.Series(0.0, index=frame.columns), "x0")
    return structure, values.to_numpy(dtype=np.float64)


def _read_fixed(structure: Structure, fixed: Any) -> NDArray[np.bool_]:
    mask = np.zeros(len(structure), dtype=bool)
    if fixed is None:
        return mask
    if isinstance(fixed, str):
        fixed = [fixed]
    kinds = (list, tuple, set, frozenset, pd.Index, np.ndarray)
    if isinstance(fixed, kinds) and all(isinstance(name, str) for name in fixed):
        for name in fixed:
            hits = [i for i, n in enumerate(structure.names) if n == name or n.startswith((f"{name}[", f"{name}."))]
            if not hits:
                groups = (n.partition("[")[0].partition(".")[0] for n in structure.names)
                refuse_unknown("parameter in `fixed`", name, dict.fromkeys((*structure.names, *groups)))
            mask[hits] = True
        return mask
    for i, value in structure.partial(fixed).items():
        if not isinstance(value, (bool, np.bool_)):
            raise InvalidTypeError(
                f"fixed: {structure.names[i]} must be True or False, not {value!r}; "
                "a fixed parameter stays at its start value"
            )
        mask[i] = value
    return mask


def problem_with_start(
    names: Sequence[str], start: FloatArray, lower: FloatArray, upper: FloatArray, fixed: NDArray[np.bool_]
) -> str | None:
    """What is wrong with one dataset's start and bounds, shape (n,) each, in a sentence; None where nothing is."""
    bad = np.isnan(start) | np.isinf(start)
    if bad.any():
        i = int(np.argmax(bad))
        return f"the start of {names[i]} is {start[i]:g}"
    bad = ((lower > upper) | (np.isinf(lower) & (lower == upper))) & ~fixed
    if bad.any():
        i = int(np.argmax(bad))
        how = "are the wrong way round" if lower[i] > upper[i] else "leave no room"
        return f"the bounds of {names[i]} {how}: lower {lower[i]:g}, upper {upper[i]:g}"
    bad = ((start < lower) | (start > upper)) & ~fixed & (lower != upper)
    if bad.any():
        i = int(np.argmax(bad))
        return f"the start of {names[i]}, {start[i]:g}, is outside its bounds [{lower[i]:g}, {upper[i]:g}]"
    return None


def _check(p: Parameters) -> None:
    """Refuse what no dataset can use; a part of the datasets is a matter of their status."""
    if p.fixed.all():
        raise InvalidInputError("all parameters are fixed: there is nothing to fit")
    if p.start_of is not None or p.bounds_of is not None:
        return
    start, lower, upper = np.atleast_2d(p.start), np.atleast_2d(p.lower), np.atleast_2d(p.upper)
    rows = max(len(start), len(lower), len(upper))
    if min(len(start), len(lower), len(upper)) == 0:
        return
    first: str | None = None
    for i in range(rows):
        one = (start[i % len(start)], lower[i % len(lower)], upper[i % len(upper)])
        wrong = problem_with_start(p.names, *one, p.fixed)
        if wrong is None:
            return
        first = first or wrong
    where = "" if rows == 1 else ", and no other dataset has a start that can be used"
    raise InvalidInputError(f"{first}{where}")


def row_start(structure: Structure, start: Any) -> FloatArray:
    """The start that a callable gave for one dataset, shape (n,)."""
    try:
        return structure.flatten(start, "x0(dataset)")
    except ParfitError as exc:
        raise InvalidInputError(f"the start of this dataset cannot be used: {exc}") from exc
