"""Labels and parameter structures as JSON, and back: a store holds text and numbers, no pickles."""

from __future__ import annotations

import base64
import contextlib
import datetime
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

__all__ = ["index_as_json", "index_from_json", "tree_as_json", "tree_from_json"]


def index_as_json(index: pd.Index[Any]) -> Any:
    """An index; labels that are neither numbers, text, times nor tuples of these become text."""
    if isinstance(index, pd.MultiIndex):
        levels = [index_as_json(index.get_level_values(i)) for i in range(index.nlevels)]
        return {"levels": levels, "names": [tree_as_json(name) for name in index.names]}
    name = tree_as_json(index.name)
    if isinstance(index, pd.RangeIndex):
        return {"range": [index.start, index.stop, index.step], "name": name}
    if isinstance(index, pd.CategoricalIndex):
        codes = _numbers(np.asarray(index.codes))
        return {"categories": index_as_json(index.categories), "codes": codes, "ordered": index.ordered, "name": name}
    if isinstance(index.dtype, (np.dtype, pd.DatetimeTZDtype)) and index.dtype.kind in "iufbmM":
        zone = str(index.dtype.tz) if isinstance(index.dtype, pd.DatetimeTZDtype) else None
        values = index.tz_convert("UTC").tz_localize(None) if zone else index  # type: ignore[attr-defined]
        freq = getattr(index, "freqstr", None)
        return {"numbers": _numbers(values.to_numpy()), "zone": zone, "freq": freq, "name": name}
    return {"labels": [tree_as_json(label) for label in index], "dtype": str(index.dtype), "name": name}


def index_from_json(said: Any) -> pd.Index[Any]:
    """The index that was written."""
    if "levels" in said:
        levels = [index_from_json(level) for level in said["levels"]]
        return pd.MultiIndex.from_arrays(levels, names=[tree_from_json(name) for name in said["names"]])
    name = tree_from_json(said["name"])
    if "range" in said:
        start, stop, step = said["range"]
        return pd.RangeIndex(start, stop, step, name=name)
    if "codes" in said:
        categories = index_from_json(said["categories"])
        values = pd.Categorical.from_codes(_array(said["codes"]), categories, ordered=said["ordered"])
        return pd.CategoricalIndex(values, name=name)
    if "numbers" in said:
        made: Any = pd.Index(_array(said["numbers"]), name=name)
        if said["zone"]:
            made = made.tz_localize("UTC")
            with contextlib.suppress(LookupError, ValueError):  # a zone that only the caller's own object knows
                made = made.tz_convert(said["zone"])
        if said["freq"]:
            with contextlib.suppress(ValueError):  # an offset with parameters of its own
                made.freq = said["freq"]
        return made  # type: ignore[no-any-return]
    labels: Any = [tree_from_json(label) for label in said["labels"]]
    dtype = said["dtype"] if said["dtype"] in ("object", "str", "string") else None
    found: pd.Index[Any] = pd.Index(labels, dtype=dtype, name=name, tupleize_cols=False)
    return found


def _numbers(array: np.ndarray[Any, Any]) -> list[str]:
    return [array.dtype.str, base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()]


def _array(said: list[str]) -> np.ndarray[Any, Any]:
    return np.frombuffer(base64.b64decode(said[1]), dtype=said[0]).copy()


def tree_as_json(tree: Any) -> Any:
    """Numbers, text, times, and dicts, lists, tuples, arrays and Series of these; anything else as its text."""
    if isinstance(tree, np.generic):
        tree = tree.item()
    if tree is None or isinstance(tree, (bool, int, str)):
        return tree
    if isinstance(tree, float):
        return tree if math.isfinite(tree) else {"float": repr(tree)}
    if isinstance(tree, (pd.Timestamp, pd.Timedelta)) or type(tree) in (
        datetime.datetime,
        datetime.date,
        datetime.time,
    ):
        return {type(tree).__name__: tree.isoformat()}
    if isinstance(tree, pd.Period):
        return {"Period": [tree.freqstr, str(tree)]}
    if isinstance(tree, pd.Interval):
        return {"Interval": [tree.closed, tree_as_json(tree.left), tree_as_json(tree.right)]}
    if isinstance(tree, bytes):
        return {"bytes": base64.b64encode(tree).decode()}
    if tree is pd.NaT or tree is pd.NA:
        return {"missing": str(tree)}
    if isinstance(tree, dict):
        return {"dict": [[tree_as_json(key), tree_as_json(value)] for key, value in tree.items()]}
    if isinstance(tree, np.ndarray) and tree.dtype.kind in "iufb":
        return {"array": _numbers(tree), "shape": list(tree.shape)}
    if isinstance(tree, pd.Series):
        return {"series": [tree_as_json(value) for value in tree], "index": index_as_json(tree.index)}
    if type(tree) in (list, tuple):
        return {type(tree).__name__: [tree_as_json(item) for item in tree]}
    return {"text": str(tree)}


def tree_from_json(said: Any) -> Any:
    """What was written."""
    if not isinstance(said, dict):
        return said
    if "index" in said:
        return pd.Series([tree_from_json(value) for value in said["series"]], index=index_from_json(said["index"]))
    if "array" in said:
        return _array(said["array"]).reshape(said["shape"])
    ((kind, held),) = said.items()
    if kind == "dict":
        return {tree_from_json(key): tree_from_json(value) for key, value in held}
    if kind in ("list", "tuple"):
        items = [tree_from_json(item) for item in held]
        return items if kind == "list" else tuple(items)
    if kind == "text":
        return held
    return _KINDS[kind](held)


_KINDS: dict[str, Callable[[Any], Any]] = {
    "float": float,
    "Timestamp": pd.Timestamp,
    "Timedelta": pd.Timedelta,
    "datetime": datetime.datetime.fromisoformat,
    "date": datetime.date.fromisoformat,
    "time": datetime.time.fromisoformat,
    "Period": lambda held: pd.Period(held[1], freq=held[0]),
    "Interval": lambda held: pd.Interval(tree_from_json(held[1]), tree_from_json(held[2]), closed=held[0]),
    "bytes": base64.b64decode,
    "missing": {"NaT": pd.NaT, "<NA>": pd.NA}.get,
}
