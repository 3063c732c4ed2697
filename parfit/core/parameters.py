"""Start values, bounds and fixed entries, in all the forms that users write them, as flat vectors.

`Parameters` is what the rest of parfit sees: names, and arrays of shape (n,) that hold for every dataset, or
(B, n) where each dataset has its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from parfit.core.bounds import (
    align,
    column_of_numbers,
    read_bounds,
    refuse_near_columns,
    refuse_repeated,
    side_of_table,
)
from parfit.core.errors import (
    InvalidInputError,
    InvalidTypeError,
    ParfitError,
    UnknownNameError,
    listed,
    nearest,
    refuse_unknown,
)
from parfit.core.nodes import shown_kind
from parfit.core.structure import Structure
from parfit.core.values import is_single

__all__ = [
    "Frame",
    "Parameters",
    "frame_of",
    "made_start",
    "moved_inside",
    "problem_with_bounds",
    "read_parameters",
    "settled",
]

FloatArray = NDArray[np.float64]

#: The columns of a table of parameters; it may have any others.
_TABLE = ("value", "lower_bound", "upper_bound", "fixed")

#: All parameters; the positions of the free ones (None for all); and their start, lower and upper bounds.
Frame = tuple[FloatArray, NDArray[np.intp] | None, FloatArray, FloatArray, FloatArray]


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

    def part(self, start: int, stop: int) -> Parameters:
        """Those of the datasets from `start` to `stop` (exclusive)."""
        x0, lower, upper = (v[start:stop] if v.ndim == 2 else v for v in (self.start, self.lower, self.upper))
        return replace(self, start=x0, lower=lower, upper=upper)

    @property
    def starts_alone(self) -> bool:
        """Whether datasets have starts of their own."""
        return self.start_of is not None or self.start.ndim == 2

    def common(self) -> Parameters:
        """The same without the arrays that belong to single datasets; this is what travels to workers."""
        blank = np.full(len(self.names), np.nan)
        start, lower, upper = (blank if v.ndim == 2 else v for v in (self.start, self.lower, self.upper))
        return replace(self, start=start, lower=lower, upper=upper)


def read_parameters(
    x0: Any,
    bounds: Any,
    fixed: Any,
    labels: pd.Index[Any],
    first: Callable[[Callable[[Any], Any]], Any],
    *,
    like: Structure | None = None,
    inside: bool = False,
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
    like
        The structure of an earlier call, which starts under its names (a row or a column each) come back in.
    inside
        Whether starts outside their bounds will be moved inside.

    Raises
    ------
    InvalidInputError, InvalidTypeError, UnknownNameError
        For what cannot be used by any dataset.
    """
    start_of = x0 if callable(x0) else None
    table: pd.DataFrame | None = None
    if start_of is not None and not len(labels):
        return _unknown(start_of)
    if start_of is not None:
        example = first(start_of)
        structure = Structure(example, "x0(dataset)")
        start = structure.flatten(example)
    elif isinstance(x0, pd.DataFrame) and not _is_table(x0, labels):
        structure, start = _aligned_start(x0, labels, like)
    elif like is not None and isinstance(x0, pd.Series) and _has_names(x0.index, like):
        structure, start = like, Structure(x0).flatten(x0)[x0.index.get_indexer(pd.Index(like.names))]
    else:
        structure = Structure(x0)
        start = structure.flatten(x0)
        table = x0 if isinstance(x0, pd.DataFrame) else None
    if table is not None and bounds is None:
        lower, upper = (side_of_table(structure, table.get(side), k) for k, side in enumerate(_TABLE[1:3]))
        bounds_of = None
    else:
        lower, upper, bounds_of = read_bounds(structure, bounds, labels)
    if table is not None and fixed is None and "fixed" in table:
        fixed = table["fixed"].astype(object).where(table["fixed"].notna(), False)
    made = Parameters(structure, start, lower, upper, _read_fixed(structure, fixed), start_of, bounds_of, inside)
    _check(made)
    return made


def _unknown(start_of: Callable[[Any], Any]) -> Parameters:
    """No parameters: there is no dataset to ask for its start."""
    none = np.empty(0)
    return Parameters(Structure({}, may_be_empty=True), none, none, none, np.zeros(0, dtype=bool), start_of)


def _is_table(x0: pd.DataFrame, labels: pd.Index[Any]) -> bool:
    """Whether a frame is a table of parameters, and not one start per dataset."""
    if "value" in x0.columns:
        refuse_near_columns(x0, _TABLE[1:], "x0")
        return True
    columns = [column for column in x0.columns if isinstance(column, str)]
    meant = next((column for column in columns if nearest(column, ("value",)) is not None), None)
    if set(columns) & set(_TABLE[1:3]) or (meant is not None and not set(labels) <= set(x0.index)):
        if meant is not None:
            refuse_unknown("column of x0", meant, _TABLE)
        raise InvalidInputError(f"x0: a table of parameters has a column 'value', and this one has {columns}")
    return False


def _has_names(index: pd.Index[Any], structure: Structure) -> bool:
    return len(index) == len(structure) and set(index) == set(structure.names)


def _aligned_start(frame: pd.DataFrame, labels: pd.Index[Any], like: Structure | None) -> tuple[Structure, FloatArray]:
    """One start per dataset, shape (B, n)."""
    refuse_repeated(frame, "x0")
    structure = Structure(pd.Series(0.0, index=frame.columns), "x0")
    if like is not None and _has_names(frame.columns, like):
        structure, frame = like, frame[list(like.names)]
    values = align(frame, labels, "x0")
    columns = [column_of_numbers(values.iloc[:, k], "x0", name) for k, name in enumerate(values.columns)]
    return structure, np.stack(columns, axis=1)


def _read_fixed(structure: Structure, fixed: Any) -> NDArray[np.bool_]:
    mask = np.zeros(len(structure), dtype=bool)
    if fixed is None:
        return mask
    if isinstance(fixed, str):
        fixed = [fixed]
    if isinstance(fixed, (list, tuple, range, Set, pd.Index, np.ndarray)):
        fixed = list(fixed)
        if all(isinstance(name, str) for name in fixed):
            for name in fixed:
                mask[_named(structure, name)] = True
            return mask
        if all(isinstance(entry, str) or is_single(entry) for entry in fixed):
            if not all(isinstance(flag, (bool, np.bool_)) for flag in fixed) or len(fixed) != len(structure):
                raise _no_form_of_fixed(structure, fixed)
            return np.array(fixed, dtype=bool)
    elif is_single(fixed):
        raise _no_form_of_fixed(structure, fixed)
    try:
        flags = structure.partial(fixed)
    except UnknownNameError:
        raise
    except (InvalidInputError, InvalidTypeError) as exc:
        raise type(exc)(f"fixed: {exc}") from None
    for i, value in flags.items():
        if not isinstance(value, (bool, np.bool_)):
            raise InvalidTypeError(
                f"fixed: {structure.names[i]} must be True or False, not {value!r}; "
                "a fixed parameter stays at its start value"
            )
        mask[i] = value
    return mask


def _named(structure: Structure, name: str) -> list[int]:
    """The positions of a scalar, or of all that are in what has a name."""
    hits = [i for i, n in enumerate(structure.names) if n == name or n.startswith((f"{name}[", f"{name}."))]
    if not hits:
        groups = (n.partition("[")[0].partition(".")[0] for n in structure.names)
        refuse_unknown("parameter in `fixed`", name, dict.fromkeys((*structure.names, *groups)))
    return hits


def _no_form_of_fixed(structure: Structure, fixed: Any) -> InvalidTypeError:
    return InvalidTypeError(
        f"fixed must be names, [{structure.names[0]!r}], or True and False in the structure of x0 "
        f"(one for each of {listed(structure.names)}), not {shown_kind(fixed)}"
    )


def problem_with_start(
    names: Sequence[str], start: FloatArray, lower: FloatArray, upper: FloatArray, fixed: NDArray[np.bool_]
) -> str | None:
    """What is wrong with one dataset's start and bounds, shape (n,) each, in a sentence; None where nothing is."""
    start = settled(start, lower, upper, fixed)
    bad = ~np.isfinite(start)
    if bad.any():
        i = int(np.argmax(bad))
        return f"the start of {names[i]} is {start[i]:g}"
    return problem_with_bounds(names, lower, upper) or _outside(names, start, lower, upper, fixed)


def _outside(
    names: Sequence[str], start: FloatArray, lower: FloatArray, upper: FloatArray, fixed: NDArray[np.bool_]
) -> str | None:
    bad = (start < lower) | (start > upper)
    if not bad.any():
        return None
    i = int(np.argmax(bad))
    what = f"the {'value' if fixed[i] else 'start'} of {'the fixed parameter ' if fixed[i] else ''}{names[i]}"
    return f"{what}, {start[i]:g}, is outside its bounds [{lower[i]:g}, {upper[i]:g}]"


def problem_with_bounds(names: Sequence[str], lower: FloatArray, upper: FloatArray) -> str | None:
    """What is wrong with one dataset's bounds, whatever its start, in a sentence; None where nothing is."""
    for side, v in (("lower", lower), ("upper", upper)):
        if np.isnan(v).any():
            return f"the {side} bound of {names[int(np.argmax(np.isnan(v)))]} is NaN; infinity is no bound"
    bad = (lower > upper) | (np.isinf(lower) & (lower == upper))
    if bad.any():
        i = int(np.argmax(bad))
        how = "are the wrong way round" if lower[i] > upper[i] else "leave no room"
        return f"the bounds of {names[i]} {how}: lower {lower[i]:g}, upper {upper[i]:g}"
    return None


def settled(start: FloatArray, lower: FloatArray, upper: FloatArray, fixed: NDArray[np.bool_]) -> FloatArray:
    """A start in which what equal bounds fix is there; what `fixed` names is where its start says."""
    return np.where(~fixed & (lower == upper) & np.isfinite(lower), lower, start)


def moved_inside(start: FloatArray, lower: FloatArray, upper: FloatArray, fixed: NDArray[np.bool_]) -> FloatArray:
    """A start in its bounds; of a fixed value only what a solver's rounding has put outside."""
    inside = np.clip(start, lower, upper)
    rounding = 1e-8 * (1 + np.abs(inside))
    kept = (lower > upper) | (fixed & ~(np.abs(start - inside) <= rounding))
    return np.where(kept, start, inside)


def _check(p: Parameters) -> None:
    """Refuse what no dataset can use; a part of the datasets is a matter of their status."""
    if p.fixed.all():
        raise InvalidInputError("all parameters are fixed: there is nothing to fit")
    if p.bounds_of is not None:
        return
    start = None if p.start_of is not None or p.inside else p.start
    given = [np.atleast_2d(v) for v in (p.lower, p.upper, *(() if start is None else (start,)))]
    first: str | None = None
    held = 0
    rows = max(map(len, given))
    if min(map(len, given)) == 0:
        return
    for i in range(rows):
        lower, upper, *starts = (v[i % len(v)] for v in given)
        if starts:
            wrong = problem_with_start(p.names, starts[0], lower, upper, p.fixed)
        else:
            wrong = problem_with_bounds(p.names, lower, upper)
        if wrong is None and not (p.fixed | (lower == upper)).all():
            return
        held += wrong is None
        first = first or wrong
    if held == rows:
        raise InvalidInputError("all parameters are fixed, by `fixed` or by equal bounds: there is nothing to fit")
    if held:  # these have a cost to tell
        return
    needed = "bounds" if start is None else "a start"
    raise InvalidInputError(f"{first}" if rows == 1 else f"{first}, and no other dataset has {needed} that can be used")


def made_start(p: Parameters, dataset: Any, given: FloatArray | None) -> FloatArray:
    """The start that `start_of` makes for a dataset, but for what is given and not NaN; shape (n,)."""
    assert p.start_of is not None
    if given is not None and not np.isnan(given).any():
        return given
    made = _row_start(p.structure, p.start_of(dataset))
    return made if given is None else np.where(np.isnan(given), made, given)


def _row_start(structure: Structure, start: Any) -> FloatArray:
    """The start that a callable gave for one dataset, shape (n,)."""
    try:
        return structure.flatten(start, "x0(dataset)")
    except ParfitError as exc:
        raise InvalidInputError(f"the start of this dataset cannot be used: {exc}") from exc


def frame_of(p: Parameters, start: FloatArray, lower: FloatArray, upper: FloatArray) -> Frame:
    """Check a start and its bounds, and cut them to the free parameters."""
    if p.inside:
        start = moved_inside(start, lower, upper, p.fixed)
    wrong = problem_with_start(p.names, start, lower, upper, p.fixed)
    if wrong is not None:
        raise InvalidInputError(wrong)
    start = settled(start, lower, upper, p.fixed)
    free = ~p.fixed & (lower < upper)
    if free.all():
        return start, None, start, lower, upper
    at = np.flatnonzero(free)
    return start, at, start[at], lower[at], upper[at]
