"""Rows of columns as bytes that say what they hold, and back: numbers and text, no pickles."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from parfit.core.columns import STATUSES, Columns
from parfit.core.solution import TaskError, WarningText

__all__ = ["Rows", "packed", "unpacked"]

#: The numbers in a body, one after another: name and type, each with a leading axis of rows.
_LAYOUT = (
    ("positions", "<i8"),
    ("fingerprints", "<u8"),
    ("params", "<f8"),
    ("starts", "<f8"),
    ("floats", "<f8"),
    ("ints", "<i4"),
    ("messages", "<i4"),
    ("at_bound", "|i1"),
    ("status", "|i1"),
    ("cov", "<f8"),
)


def _rest(name: str, n: int) -> tuple[int, ...]:
    """The other axes, for n parameters."""
    sizes = {
        "fingerprints": 2,
        "params": n,
        "starts": n,
        "floats": 4,
        "ints": 6,
        "at_bound": n,
        "cov": n * (n + 1) // 2,
    }
    return (sizes[name],) if name in sizes else ()


class Rows(NamedTuple):
    """Some rows of a table.

    Attributes
    ----------
    positions : ndarray of int, shape (k,)
        Which datasets.
    fingerprints : ndarray of uint64, shape (k, 2)
        Of their data.
    starts : ndarray, shape (k, n)
        Where they started; NaN where that is not known.
    columns
        What became of them.
    """

    positions: NDArray[np.intp]
    fingerprints: NDArray[np.uint64]
    starts: NDArray[np.float64]
    columns: Columns


def packed(rows: Rows) -> bytes:
    """Rows as bytes: a line of JSON, then the numbers."""
    columns = rows.columns
    n = columns.params.shape[1]
    message_of, messages = columns.coded_messages()
    history = {str(i): [*map(int, steps.shape)] for i, steps in columns.history.items()}
    head = {
        "rows": len(columns),
        "parameters": n,
        "cov": columns.cov is not None,
        "statuses": [str(status) for status in STATUSES],
        "messages": messages,
        "errors": {str(i): [e.type, e.message, e.traceback] for i, e in columns.errors.items()},
        "warnings": {str(i): [[w.category, w.message, w.count] for w in ws] for i, ws in columns.warnings.items()},
        "history": history,
    }
    held = {
        "positions": rows.positions,
        "fingerprints": rows.fingerprints,
        "params": columns.params,
        "starts": rows.starts,
        "floats": columns.floats,
        "ints": columns.ints,
        "messages": message_of,
        "at_bound": columns.at_bound,
        "status": columns.status,
        "cov": columns.cov,
    }
    parts: list[Any] = [json.dumps(head).encode() + b"\n"]
    for name, dtype in _LAYOUT:
        if (array := held[name]) is not None:
            parts.append(np.ascontiguousarray(array, dtype=dtype).data)
    parts += [np.ascontiguousarray(columns.history[int(i)], dtype="<f8").data for i in history]
    return b"".join(parts)


def unpacked(body: bytes) -> Rows:
    """The rows that were packed.

    Raises
    ------
    ValueError
        For bytes that hold none.
    """
    end = body.index(b"\n") + 1
    head = json.loads(body[:end])
    rows, n = head["rows"], head["parameters"]
    at = end
    found: dict[str, Any] = {}

    def numbers(dtype: str, shape: tuple[int, ...]) -> NDArray[Any]:
        nonlocal at
        count = int(np.prod(shape))
        made = np.frombuffer(body, dtype, count, at).reshape(shape)
        at += made.nbytes
        return made.astype(made.dtype.newbyteorder("="))

    for name, dtype in _LAYOUT:
        if name != "cov" or head["cov"]:
            found[name] = numbers(dtype, (rows, *_rest(name, n)))
    columns = Columns(rows, n)
    columns.params, columns.at_bound, columns.floats, columns.ints = (
        found[name] for name in ("params", "at_bound", "floats", "ints")
    )
    codes = np.array([STATUSES.index(name) for name in head["statuses"]], dtype=np.int8)
    columns.status, columns.cov = codes[found["status"]], found.get("cov")
    columns.code_messages(found["messages"], head["messages"])
    columns.errors = {int(i): TaskError(*texts) for i, texts in head["errors"].items()}
    columns.warnings = {int(i): tuple(WarningText(*w) for w in ws) for i, ws in head["warnings"].items()}
    columns.history = {int(i): numbers("<f8", tuple(shape)) for i, shape in head["history"].items()}
    return Rows(found["positions"].astype(np.intp), found["fingerprints"], found["starts"], columns)
