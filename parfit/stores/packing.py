"""Rows of columns as bytes that say what they hold, and back: numbers and text, no pickles."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from parfit.core.columns import STATUSES, Columns
from parfit.core.solution import TaskError, WarningText

__all__ = ["Block", "Rows", "packed", "unpacked"]

#: The numbers in a body, one after another: name and type, each with a leading axis of rows.
_LAYOUT = (
    ("positions", "<i8"),
    ("labels", "<u8"),
    ("fingerprints", "<u8"),
    ("seeded", "<i8"),
    ("params", "<f8"),
    ("starts", "<f8"),
    *((f"float {i}", "<f8") for i in range(4)),
    *((f"int {i}", "<i4") for i in range(6)),
    ("messages", "<i4"),
    ("at_bound", "|i1"),
    ("status", "|i1"),
    ("cov", "<f8"),
)
#: What often counts up by one from row to row, so that what is above the count is often the same for all.
_COUNTING = ("positions", "labels")
#: For fewer rows it takes longer to look than to write.
_MANY = 64


def _rest(name: str, n: int) -> tuple[int, ...]:
    """The other axes, for n parameters."""
    sizes = {"fingerprints": 2, "params": n, "starts": n, "at_bound": n, "cov": n * (n + 1) // 2}
    return (sizes[name],) if name in sizes else ()


class Rows(NamedTuple):
    """Some rows of a table.

    Attributes
    ----------
    positions : ndarray of int, shape (k,)
        Where they are.
    labels : ndarray of uint64, shape (k,)
        A number for each label, the same for equal ones.
    fingerprints : ndarray of uint64, shape (k, 2)
        Of what was fitted.
    seeded : ndarray of int, shape (k,)
        The position that their random numbers came from; -1 where none were used, and any will do.
    starts : ndarray, shape (k, n)
        Where they started; NaN where that is not known.
    columns
        What became of them.
    """

    positions: NDArray[np.intp]
    labels: NDArray[np.uint64]
    fingerprints: NDArray[np.uint64]
    seeded: NDArray[np.intp]
    starts: NDArray[np.float64]
    columns: Columns

    @classmethod
    def blank(cls, positions: NDArray[np.intp], n: int) -> Self:
        """Rows of n parameters that were not run."""
        k = len(positions)
        labels, seeded = np.zeros(k, np.uint64), np.full(k, -1)
        return cls(positions, labels, np.zeros((k, 2), np.uint64), seeded, np.full((k, n), np.nan), Columns(k, n))

    def taken(self, chosen: NDArray[np.intp]) -> Rows:
        """Some of them, a copy."""
        positions, labels, fingerprints, seeded, starts, columns = self
        parts = (positions[chosen], labels[chosen], fingerprints[chosen], seeded[chosen], starts[chosen])
        return Rows(*parts, columns.taken(chosen))


class Block(NamedTuple):
    """Rows, and what they are of: fingerprints of the call, and the engine."""

    call: str
    engine: str | None
    rows: Rows


def packed(block: Block) -> bytes:
    """Rows as bytes: a line of JSON, then the numbers, those that are the same in all rows once."""
    call, engine, rows = block
    columns = rows.columns
    k, n = columns.params.shape
    message_of, messages = columns.coded_messages()
    held = {
        "positions": rows.positions,
        "labels": rows.labels,
        "fingerprints": rows.fingerprints,
        "seeded": rows.seeded,
        "params": columns.params,
        "starts": rows.starts,
        **{f"float {i}": columns.floats[:, i] for i in range(columns.floats.shape[1])},
        **{f"int {i}": columns.ints[:, i] for i in range(columns.ints.shape[1])},
        "messages": message_of,
        "at_bound": columns.at_bound,
        "status": columns.status,
        "cov": columns.cov,
    }
    once, numbers = [], []
    for name, dtype in _LAYOUT:
        if (array := held[name]) is not None:
            if name in _COUNTING:
                array = array - np.arange(k, dtype=array.dtype)
            if k >= _MANY and _is_constant(array):
                once.append(name)
                array = array[:1]
            numbers.append(np.ascontiguousarray(array, dtype=dtype).data)
    head = {
        "call": call,
        "engine": engine,
        "rows": k,
        "parameters": n,
        "cov": columns.cov is not None,
        "once": once,
        "statuses": [str(status) for status in STATUSES],
        "messages": messages,
        "errors": {str(i): [e.type, e.message, e.traceback] for i, e in columns.errors.items()},
        "warnings": {str(i): [[w.category, w.message, w.count] for w in ws] for i, ws in columns.warnings.items()},
        "history": {str(i): [*map(int, steps.shape)] for i, steps in columns.history.items()},
    }
    steps = [np.ascontiguousarray(steps, dtype="<f8").data for steps in columns.history.values()]
    return b"".join([json.dumps(head).encode() + b"\n", *numbers, *steps])


def _is_constant(array: NDArray[Any]) -> bool:
    """Whether all rows are the same, to the bit."""
    bits = array.view(np.int64) if array.dtype.kind == "f" else array
    if (bits[-1] != bits[0]).any() or (bits[len(bits) // 2] != bits[0]).any():
        return False
    return bool((bits == bits[0]).all())


def unpacked(body: bytes) -> Block:
    """The rows that were packed.

    Raises
    ------
    ValueError, LookupError, TypeError
        For bytes that hold none.
    """
    at = body.index(b"\n") + 1
    head = json.loads(body[:at])
    k, n, once = head["rows"], head["parameters"], head["once"]

    def numbers(dtype: str, shape: tuple[int, ...]) -> NDArray[Any]:
        nonlocal at
        made = np.frombuffer(body, dtype, int(np.prod(shape)), at).reshape(shape)
        at += made.nbytes
        return made.astype(made.dtype.newbyteorder("="))

    def columns_in_order() -> Iterator[tuple[str, NDArray[Any]]]:
        for name, dtype in _LAYOUT:
            if name == "cov" and not head["cov"]:
                continue
            rest = _rest(name, n)
            found = numbers(dtype, (1 if name in once else k, *rest))
            found = np.broadcast_to(found, (k, *rest)).copy() if name in once else found
            yield name, found + np.arange(k, dtype=found.dtype) if name in _COUNTING else found

    found = dict(columns_in_order())
    columns = Columns(k, n)
    columns.params, columns.at_bound = found["params"], found["at_bound"]
    columns.floats = np.stack([found[f"float {i}"] for i in range(columns.floats.shape[1])], axis=1)
    columns.ints = np.stack([found[f"int {i}"] for i in range(columns.ints.shape[1])], axis=1)
    codes = np.array([STATUSES.index(name) for name in head["statuses"]], dtype=np.int8)
    columns.status, columns.cov = codes[found["status"]], found.get("cov")
    columns.code_messages(found["messages"], head["messages"])
    columns.errors = {int(i): TaskError(*texts) for i, texts in head["errors"].items()}
    columns.warnings = {int(i): tuple(WarningText(*w) for w in ws) for i, ws in head["warnings"].items()}
    columns.history = {int(i): numbers("<f8", tuple(shape)) for i, shape in head["history"].items()}
    if at != len(body):
        raise ValueError(f"{len(body) - at} bytes are left over")
    positions, seeded = found["positions"].astype(np.intp), found["seeded"].astype(np.intp)
    rows = Rows(positions, found["labels"], found["fingerprints"], seeded, found["starts"], columns)
    return Block(head["call"], head["engine"], rows)
