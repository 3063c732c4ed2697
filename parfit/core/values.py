"""What the user's functions gave, as numbers: the value of an objective, and derivatives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from parfit.core.errors import InvalidTypeError

__all__ = ["as_floats", "checked", "is_array", "is_single"]


def checked(value: Any) -> Any:
    """A float or a 1-D array of floats from whatever an objective gave."""
    try:
        array = np.asarray(value)
    except ValueError:  # a ragged list or tuple
        raise InvalidTypeError(_wanted(type(value).__name__) + _hint(value)) from None
    if array.dtype.kind not in "fiub":
        wrong = f"dtype {array.dtype}" if array.ndim else type(value).__name__
        if array.dtype.kind != "O" or not array.size or array.ndim > 1:
            raise InvalidTypeError(_wanted(wrong))
        try:
            if any(item is None for item in array.flat):  # which NumPy would take for NaN
                raise TypeError
            array = array.astype(np.float64)
        except (TypeError, ValueError, OverflowError):
            raise InvalidTypeError(_wanted(wrong) + _hint(value)) from None
    if array.ndim == 0:
        return float(array)
    if array.ndim != 1:
        raise InvalidTypeError(_wanted(f"an array of shape {array.shape}") + " (`.ravel()` makes one)")
    return array.astype(np.float64, copy=False)


def is_array(value: Any) -> bool:
    """Whether `value` is an array of NumPy's, JAX's or another library's, and not a number or a pandas object."""
    if isinstance(value, (np.generic, pd.Series, pd.DataFrame, pd.Index, Mapping)):
        return False
    return isinstance(value, np.ndarray) or all(hasattr(value, name) for name in ("__array__", "ndim", "shape"))


def is_single(value: Any) -> bool:
    """Whether `value` is one thing, and not an array, a sequence or a mapping of several."""
    return not isinstance(value, (Sequence, Mapping)) and np.ndim(value) == 0


def _hint(value: Any) -> str:
    if value is None:
        return ": is a `return` missing?"
    return " (jac=True where it gives the value and its gradient)" if isinstance(value, tuple) else ""


def as_floats(value: Any, what: str) -> NDArray[np.float64]:
    """What a derivative gave, as an array."""
    try:
        dense = value.toarray() if hasattr(value, "toarray") else value
        return np.asarray(dense, dtype=np.float64)
    except (TypeError, ValueError):
        raise InvalidTypeError(f"the {what} must hold real numbers, and this is {type(value).__name__}") from None


def _wanted(got: str) -> str:
    return f"the objective gave {got}; a real number or a 1-D array of residuals is wanted"
