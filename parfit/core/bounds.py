"""Bounds, in all the forms that users write them, as two vectors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from numbers import Real
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from parfit.core.errors import InvalidInputError, InvalidTypeError, ParfitError, nearest, refuse_unknown, shown
from parfit.core.nodes import name_of, shown_kind
from parfit.core.pairs import one_side, read_pairs
from parfit.core.structure import Structure

__all__ = [
    "align",
    "at_bound",
    "column_of_numbers",
    "read_bounds",
    "refuse_near_columns",
    "refuse_repeated",
    "row_bounds",
    "side_of_table",
]

FloatArray = NDArray[np.float64]
#: A parameter within this of its bound, relative to the bound's size, is at the bound (as SciPy's `trf`).
_BOUND_RTOL = 1e-8
_KINDS = (type(None), Mapping, pd.Series, Sequence, np.ndarray)


def align(frame: pd.DataFrame, labels: pd.Index[Any], what: str) -> pd.DataFrame:
    """The rows of `frame` in the order of `labels`."""
    if frame.index.equals(labels):
        return frame
    if not frame.index.is_unique or not labels.is_unique:
        raise InvalidInputError(
            f"{what}: a frame with one row per dataset must have the same index as the data "
            f"({len(frame)} rows for {len(labels)} datasets; it can only be reordered where labels are unique)"
        )
    missing = labels.difference(frame.index)
    if len(missing):
        hint = " (a frame of parameters has a column 'value')" if what == "x0" else ""
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise InvalidInputError(f"{what} has no row for the dataset {shown(missing[0])}{more}{hint}")
    return frame.reindex(labels)


def refuse_repeated(frame: pd.DataFrame, what: str) -> None:
    """Refuse two columns of one name."""
    if not frame.columns.is_unique:
        twice = frame.columns[frame.columns.duplicated()][0]
        raise InvalidInputError(f"{what}: the frame has two columns {shown(twice)}")


def column_of_numbers(column: pd.Series[Any], what: str, name: Any) -> FloatArray:
    """A column as floats, shape (B,); what is missing is NaN."""
    given = column[column.notna()]
    wrong = [] if column.dtype.kind in "fiu" else [v for v in given if isinstance(v, bool) or not isinstance(v, Real)]
    if wrong:
        raise InvalidTypeError(f"{what}: the column {shown(name)} must be numeric, and holds {shown_kind(wrong[0])}")
    return column.to_numpy(dtype=np.float64, na_value=np.nan)


def side_of_table(structure: Structure, column: pd.Series[Any] | None, which: int) -> FloatArray:
    """A column of bounds from a table of parameters, where an empty cell, which pandas makes NaN, is no bound."""
    return one_side(structure, None if column is None else column.astype(object).where(column.notna(), None), which)


def refuse_near_columns(frame: pd.DataFrame, known: Sequence[str], what: str) -> None:
    """Refuse a column that is meant to be one of `known`; a table of parameters may have any others."""
    missing = [name for name in known if name not in frame.columns]
    for column in frame.columns:
        if isinstance(column, str) and column not in known and nearest(column, missing) is not None:
            refuse_unknown(f"column of {what}", column, missing)


def read_bounds(
    structure: Structure, bounds: Any, labels: pd.Index[Any] | None
) -> tuple[FloatArray, FloatArray, Callable[[Any], Any] | None]:
    """Lower and upper bounds, shapes (n,) or (B, n)."""
    is_bounds = hasattr(bounds, "lb") and hasattr(bounds, "ub")
    if callable(bounds) and not is_bounds:
        return *read_pairs(structure, None), bounds
    if isinstance(bounds, pd.DataFrame):
        return *_bounds_frame(structure, bounds, labels), None
    if isinstance(bounds, (tuple, list)) and any(isinstance(side, pd.DataFrame) for side in bounds):
        if len(bounds) != 2:
            raise InvalidInputError(f"bounds as frames: (lower, upper) are two, and these are {len(bounds)}")
        return *_sides(structure, bounds[0], bounds[1], labels), None
    if not is_bounds and (isinstance(bounds, str) or not isinstance(bounds, _KINDS)):
        raise InvalidTypeError(f"bounds of type {type(bounds).__name__} are not understood")
    return *read_pairs(structure, bounds), None


def _sides(structure: Structure, lower: Any, upper: Any, labels: pd.Index[Any] | None) -> tuple[FloatArray, FloatArray]:
    made = []
    for which, side in enumerate((lower, upper)):
        if isinstance(side, pd.DataFrame) and labels is not None and "value" not in side.columns:
            made.append(_side_by_row(structure, side, labels, which))
        else:
            made.append(one_side(structure, side, which))
    return made[0], made[1]


def _position(structure: Structure, label: Any) -> int:
    for name in (name_of(label), str(label)):
        if name in structure.names:
            return structure.names.index(name)
    refuse_unknown("parameter in the bounds", label, structure.names)


def _side_by_row(structure: Structure, frame: pd.DataFrame, labels: pd.Index[Any], which: int) -> FloatArray:
    """Shape (B, n). NaN stays, and is the matter of the row that it stands in."""
    refuse_repeated(frame, "bounds")
    at = [_position(structure, column) for column in frame.columns]
    values = np.full((len(labels), len(structure)), (-np.inf, np.inf)[which])
    aligned = align(frame, labels, "bounds")
    for k, column in enumerate(aligned.columns):
        values[:, at[k]] = column_of_numbers(aligned.iloc[:, k], "bounds", column)
    return values


def _bounds_frame(
    structure: Structure, frame: pd.DataFrame, labels: pd.Index[Any] | None
) -> tuple[FloatArray, FloatArray]:
    """A frame of parameters × (lower_bound, upper_bound), or of datasets × (parameter, side)."""
    sides = ("lower_bound", "upper_bound")
    if frame.columns.nlevels == 1 and set(frame.columns) & set(sides):
        refuse_near_columns(frame, sides, "bounds")
        at = [_position(structure, label) for label in frame.index]
        if not frame.index.is_unique:
            twice = frame.index[frame.index.duplicated()][0]
            raise InvalidInputError(f"bounds: the frame has two rows for the parameter {shown(twice)}")
        named = frame.set_axis([structure.names[i] for i in at])
        lower, upper = (side_of_table(structure, named.get(side), which) for which, side in enumerate(sides))
        return lower, upper
    if frame.columns.nlevels == 2 and labels is not None:
        for found in (set(frame.columns.get_level_values(k)) for k in (0, 1)):
            if found & set(sides) and found - set(sides):
                refuse_unknown("column of bounds", min(found - set(sides), key=str), sides)
        level = next((k for k in (0, 1) if set(frame.columns.get_level_values(k)) <= set(sides)), None)
        if level is not None:
            present = set(frame.columns.get_level_values(level))
            frames = [
                _side_by_row(structure, frame.xs(side, axis=1, level=level), labels, which)  # type: ignore[arg-type]
                if side in present
                else one_side(structure, None, which)
                for which, side in enumerate(sides)
            ]
            return frames[0], frames[1]
    raise InvalidInputError(
        "bounds as a frame: one row per parameter with the columns 'lower_bound' and 'upper_bound', or one row "
        "per dataset with two-level columns (parameter, 'lower_bound' or 'upper_bound')"
    )


def row_bounds(structure: Structure, bounds: Any) -> tuple[FloatArray, FloatArray]:
    """The bounds that a callable gave for one dataset, shape (n,) each."""
    if callable(bounds) and not hasattr(bounds, "lb"):
        raise InvalidInputError("bounds(dataset) must give the bounds of one dataset")
    try:
        lower, upper, _ = read_bounds(structure, bounds, None)
    except ParfitError as exc:
        raise InvalidInputError(f"the bounds of this dataset cannot be used: {exc}") from exc
    return lower, upper


def at_bound(
    z: FloatArray, lower: FloatArray, upper: FloatArray, known: NDArray[np.int8] | None = None
) -> NDArray[np.int8]:
    """-1, 0 or 1 for each parameter, in arrays of any shape: at its lower bound, free, at its upper bound."""
    mask = np.zeros(z.shape, dtype=np.int8) if known is None else known.astype(np.int8)
    if not np.isfinite(lower).any() and not np.isfinite(upper).any():
        return mask
    with np.errstate(invalid="ignore"):
        mask[np.isfinite(lower) & (z - lower <= _BOUND_RTOL * np.maximum(1.0, np.abs(lower)))] = -1
        mask[np.isfinite(upper) & (upper - z <= _BOUND_RTOL * np.maximum(1.0, np.abs(upper)))] = 1
    return mask
