"""Bounds, in all the forms that users write them, as two vectors."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from parfit.core.errors import InvalidInputError, InvalidTypeError, ParfitError, nearest, refuse_unknown, shown
from parfit.core.structure import Structure
from parfit.core.values import is_single

__all__ = ["align", "one_side", "read_bounds", "refuse_near_columns", "row_bounds"]

FloatArray = NDArray[np.float64]


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


def refuse_near_columns(frame: pd.DataFrame, known: Sequence[str], what: str) -> None:
    """Refuse a column that is meant to be one of `known`; a table of parameters may have any others."""
    missing = [name for name in known if name not in frame.columns]
    for column in frame.columns:
        if isinstance(column, str) and column not in known and nearest(column, missing) is not None:
            refuse_unknown(f"column of {what}", column, missing)


def one_side(structure: Structure, side: Any, fill: float) -> FloatArray:
    """One side of the bounds, in whole or in part."""
    n = len(structure)
    v = np.full(n, fill)
    if side is None:
        return v
    if is_single(side):  # one number for all, as SciPy has it
        return np.full(n, _bound(side, fill, "each parameter"))
    flat = isinstance(side, (list, tuple, np.ndarray)) and len(side) == n and all(map(is_single, side))
    for i, value in enumerate(side) if flat else structure.partial(side).items():
        v[i] = _bound(value, fill, structure.names[i])
    return v


def _bound(value: Any, fill: float, name: str) -> float:
    if value is None or value is pd.NA:
        return fill
    try:
        if isinstance(value, str):
            raise TypeError
        number = float(value)
    except (TypeError, ValueError):
        raise InvalidTypeError(f"bounds: {name} has the bound {value!r}, which is no number") from None
    return fill if np.isnan(number) else number


def _is_pair(value: Any) -> bool:
    return (isinstance(value, (tuple, list)) and len(value) == 2) or (
        isinstance(value, np.ndarray) and value.shape == (2,)
    )


def read_bounds(
    structure: Structure, bounds: Any, labels: pd.Index[Any] | None
) -> tuple[FloatArray, FloatArray, Callable[[Any], Any] | None]:
    """Lower and upper bounds, shapes (n,) or (B, n)."""
    none = one_side(structure, None, -np.inf), one_side(structure, None, np.inf)
    if bounds is None:
        return *none, None
    if callable(bounds) and not hasattr(bounds, "lb"):
        return *none, bounds
    if hasattr(bounds, "lb") and hasattr(bounds, "ub"):
        lower, upper = (side[0] if np.shape(side) == (1,) else side for side in (bounds.lb, bounds.ub))
        return *_sides(structure, lower, upper, labels), None
    if isinstance(bounds, pd.DataFrame):
        return *_bounds_frame(structure, bounds, labels), None
    if isinstance(bounds, (Mapping, pd.Series)):
        return *_bounds_by_key(structure, bounds), None
    if not isinstance(bounds, (Sequence, np.ndarray)) or isinstance(bounds, str):
        raise InvalidTypeError(f"bounds of type {type(bounds).__name__} are not understood")
    if structure.is_nested and (made := _nested(structure, bounds)) is not None:
        return *made, None
    if _is_lower_upper(structure, bounds):
        return *_sides(structure, bounds[0], bounds[1], labels), None
    return *_pairs(structure, list(bounds)), None


def _pairs(structure: Structure, pairs: list[Any]) -> tuple[FloatArray, FloatArray]:
    """A list of pairs, one for each scalar."""
    if len(pairs) != len(structure):
        raise InvalidInputError(f"bounds has {len(pairs)} pairs for {len(structure)} parameters")
    lower, upper = one_side(structure, None, -np.inf), one_side(structure, None, np.inf)
    for i, pair in enumerate(pairs):
        if pair is None:
            continue
        if not _is_pair(pair):
            raise InvalidTypeError(f"bounds: entry {i} must be a pair (lower, upper), not {pair!r}")
        lower[i] = _bound(pair[0], -np.inf, structure.names[i])
        upper[i] = _bound(pair[1], np.inf, structure.names[i])
    return lower, upper


def _is_lower_upper(structure: Structure, bounds: Any) -> bool:
    """Whether a sequence is ``(lower, upper)``, as in `least_squares`, and not a list of pairs."""
    if len(bounds) != 2 or isinstance(bounds, np.ndarray):
        return False
    if any(isinstance(side, (Mapping, pd.Series, pd.DataFrame)) for side in bounds):
        return True
    if len(structure) != 2 or all(side is None for side in bounds):
        return True
    if any(side is not None and is_single(side) for side in bounds):
        return True
    return isinstance(bounds, tuple) and all(isinstance(side, (list, np.ndarray)) for side in bounds)


def _nested(structure: Structure, bounds: Any) -> tuple[FloatArray, FloatArray] | None:
    """Bounds for a list of lists: a list holds pairs, nested likewise or not; a tuple is ``(lower, upper)``."""
    pairs = (_nested_pairs, _pairs)
    for reading in (_two_sides, *pairs) if isinstance(bounds, tuple) else (*pairs, _two_sides):
        with contextlib.suppress(ParfitError):
            return reading(structure, list(bounds))
    return None


def _nested_pairs(structure: Structure, bounds: list[Any]) -> tuple[FloatArray, FloatArray]:
    low, high = ([None if b is None else _split_pairs(b, side) for b in bounds] for side in (0, 1))
    return one_side(structure, low, -np.inf), one_side(structure, high, np.inf)


def _two_sides(structure: Structure, bounds: list[Any]) -> tuple[FloatArray, FloatArray]:
    if len(bounds) != 2 or any(isinstance(side, pd.DataFrame) for side in bounds):
        raise InvalidInputError("not lower and upper bounds in the structure of the parameters")
    return one_side(structure, bounds[0], -np.inf), one_side(structure, bounds[1], np.inf)


def _sides(structure: Structure, lower: Any, upper: Any, labels: pd.Index[Any] | None) -> tuple[FloatArray, FloatArray]:
    made = []
    for side, fill in ((lower, -np.inf), (upper, np.inf)):
        if isinstance(side, pd.DataFrame) and labels is not None and "value" not in side.columns:
            made.append(_side_by_row(structure, side, labels, fill))
        else:
            made.append(one_side(structure, side, fill))
    return made[0], made[1]


def _side_by_row(structure: Structure, frame: pd.DataFrame, labels: pd.Index[Any], fill: float) -> FloatArray:
    for column in frame.columns:
        if str(column) not in structure.names:
            refuse_unknown("parameter in the bounds", column, structure.names)
    values = np.full((len(labels), len(structure)), fill)
    aligned = align(frame, labels, "bounds")
    for column in frame.columns:
        values[:, structure.names.index(str(column))] = aligned[column].to_numpy(dtype=np.float64)
    values[np.isnan(values)] = fill
    return values


def _bounds_frame(
    structure: Structure, frame: pd.DataFrame, labels: pd.Index[Any] | None
) -> tuple[FloatArray, FloatArray]:
    """A frame of parameters × (lower_bound, upper_bound), or of datasets × (parameter, side)."""
    sides = ("lower_bound", "upper_bound")
    if frame.columns.nlevels == 1 and set(frame.columns) & set(sides):
        refuse_near_columns(frame, sides, "bounds")
        for label in frame.index:
            if str(label) not in structure.names:
                refuse_unknown("parameter in the bounds", label, structure.names)
        made = []
        for side, fill in zip(sides, (-np.inf, np.inf), strict=True):
            v = np.full(len(structure), fill)
            if side in frame.columns:
                for label, value in frame[side].items():
                    v[structure.names.index(str(label))] = _bound(value, fill, str(label))
            made.append(v)
        return made[0], made[1]
    if frame.columns.nlevels == 2 and labels is not None:
        level = next((k for k in (0, 1) if set(frame.columns.get_level_values(k)) <= set(sides)), None)
        if level is not None:
            present = set(frame.columns.get_level_values(level))
            frames = [
                _side_by_row(structure, frame.xs(side, axis=1, level=level), labels, fill)  # type: ignore[arg-type]
                if side in present
                else np.full(len(structure), fill)
                for side, fill in zip(sides, (-np.inf, np.inf), strict=True)
            ]
            return frames[0], frames[1]
    raise InvalidInputError(
        "bounds as a frame: one row per parameter with the columns 'lower_bound' and 'upper_bound', or one row "
        "per dataset with two-level columns (parameter, 'lower_bound' or 'upper_bound')"
    )


def _bounds_by_key(structure: Structure, bounds: Any) -> tuple[FloatArray, FloatArray]:
    """``{name: (lower, upper)}``, in whole or in part, nested like the parameters."""
    lower, upper = one_side(structure, None, -np.inf), one_side(structure, None, np.inf)
    low, high = _split_pairs(bounds, 0), _split_pairs(bounds, 1)
    for v, side, fill in ((lower, low, -np.inf), (upper, high, np.inf)):
        for i, value in structure.partial(side).items():
            v[i] = _bound(value, fill, structure.names[i])
    return lower, upper


def _split_pairs(tree: Any, side: int) -> Any:
    """The lower (0) or upper (1) half of a tree of pairs."""
    if isinstance(tree, (Mapping, pd.Series)):
        return {key: _split_pairs(value, side) for key, value in tree.items() if value is not None}
    if hasattr(tree, "lb") and hasattr(tree, "ub"):
        return (tree.lb, tree.ub)[side]
    if isinstance(tree, np.ndarray) and tree.ndim > 1 and tree.shape[-1] == 2:
        return tree[..., side]
    sides = isinstance(tree, tuple) and all(isinstance(v, (list, np.ndarray)) for v in tree)
    if isinstance(tree, (list, tuple)) and not (_is_pair(tree) and (sides or not all(_is_pair(v) for v in tree))):
        return [None if v is None else _split_pairs(v, side) for v in tree]
    if not _is_pair(tree):
        raise InvalidTypeError(f"bounds: {tree!r} is not a pair (lower, upper)")
    return tree[side]


def row_bounds(structure: Structure, bounds: Any) -> tuple[FloatArray, FloatArray]:
    """The bounds that a callable gave for one dataset, shape (n,) each."""
    if callable(bounds) and not hasattr(bounds, "lb"):
        raise InvalidInputError("bounds(dataset) must give the bounds of one dataset")
    try:
        lower, upper, _ = read_bounds(structure, bounds, None)
    except ParfitError as exc:
        raise InvalidInputError(f"the bounds of this dataset cannot be used: {exc}") from exc
    return lower, upper
