"""Rows of columns as bytes that say what they hold, and back: numbers and text, no pickles."""

from __future__ import annotations

import json
import math
from typing import Any, NamedTuple, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from parfit.core.columns import STATUSES, Columns
from parfit.core.solution import TaskError, WarningText

__all__ = ["Block", "Packer", "Rows", "unpacked"]

_T = TypeVar("_T")
#: The numbers in a body, one after another: name and type, each with a leading axis of rows.
_LAYOUT = (
    ("positions", "<i8"),
    ("labels", "<u8"),
    ("fingerprints", "<u8"),
    ("seeded", "<i8"),
    ("params", "<f8"),
    ("starts", "<f8"),
    *((f"float {i}", "<f8") for i in range(4)),
    ("cov", "<f8"),
    *((f"int {i}", "<i4") for i in range(6)),
    ("messages", "<i4"),
    ("at_bound", "|i1"),
    ("status", "|i1"),
)
#: What often counts up by one from row to row, with gaps: what is above the count, or above the positions, is small.
_COUNTING = ("positions", "labels")
#: Whole numbers are often small: the types that they may have instead, the narrowest first.
_NARROW = ("|i1", "<i2", "<i4")
#: Each column begins at a multiple of so many bytes.
_ALIGNED = 8
#: For fewer rows it takes longer to look than to write.
_MANY = 64
#: The bytes at the end that say how long the text before them is.
_TAIL = 8


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


class Packer:
    """Makes bytes of rows, in memory that is used again.

    They are the numbers, those that are the same in all rows once; a text in JSON; and how long that is.
    """

    def __init__(self) -> None:
        self._buffer = np.empty(0, dtype=np.uint8)

    def packed(self, call: str, engine: str | None, rows: Rows, chosen: NDArray[np.intp]) -> memoryview:
        """Some rows of a call, one at least; good until the next."""
        columns = rows.columns
        k, n = len(chosen), columns.params.shape[1]
        counts = _counts(rows.positions[chosen])
        message_of, messages = columns.coded_messages()
        held: dict[str, NDArray[Any] | None] = {
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
        widths = (np.dtype(dtype).itemsize * math.prod(_rest(name, n)) for name, dtype in _LAYOUT)
        self._grow(0, sum(k * width + _ALIGNED for width in widths))
        once: list[str] = []
        narrow: dict[str, str] = {}
        at = 0
        for name, dtype in _LAYOUT:
            if (array := held[name]) is None:
                continue
            at = _aligned(at)
            taken = np.ndarray((k, *array.shape[1:]), dtype, self._buffer.data, at)
            if array.dtype == taken.dtype and array.flags.c_contiguous:
                np.take(array, chosen, axis=0, out=taken, mode="clip")
            else:
                taken[:] = array[chosen]
            if name in _COUNTING:
                taken -= counts[name].astype(dtype)
            if name == "messages":
                used = np.flatnonzero(np.bincount(taken))
                code_of = np.empty(len(messages), dtype=taken.dtype)
                code_of[used] = np.arange(len(used))
                taken[:], messages = code_of[taken], [messages[code] for code in used]
            if k >= _MANY and _is_constant(taken):
                once.append(name)
                taken = taken[:1]
            elif k >= _MANY and (name in _COUNTING or dtype == "<i4") and (smaller := _narrowest(taken)) is not None:
                narrow[name] = smaller
                wide, taken = taken.copy(), np.ndarray(taken.shape, smaller, self._buffer.data, at)
                taken[:] = wide.view(f"<i{wide.itemsize}")
            at += taken.nbytes
        errors = _of_those(chosen, columns.errors)
        warned = _of_those(chosen, columns.warnings)
        histories = _of_those(chosen, columns.history)
        head = {
            "call": call,
            "engine": engine,
            "rows": k,
            "first": int(counts["positions"][0]),
            "parameters": n,
            "cov": columns.cov is not None,
            "once": once,
            "narrow": narrow,
            "statuses": [str(status) for status in STATUSES],
            "messages": messages,
            "errors": {i: [e.type, e.message, e.traceback] for i, e in errors.items()},
            "warnings": {i: [[w.category, w.message, w.count] for w in ws] for i, ws in warned.items()},
            "history": {i: [*map(int, steps.shape)] for i, steps in histories.items()},
        }
        text = json.dumps(head).encode()
        steps = [np.ascontiguousarray(steps, dtype="<f8").tobytes() for steps in histories.values()]
        at = _aligned(at)
        for part in (*steps, text, len(text).to_bytes(_TAIL, "little")):
            self._grow(at, at + len(part))
            self._buffer[at : at + len(part)] = np.frombuffer(part, dtype=np.uint8)
            at += len(part)
        return self._buffer.data[:at]

    def _grow(self, kept: int, size: int) -> None:
        """Make room; others may still look at what there was."""
        if len(self._buffer) < size:
            grown = np.empty(size + size // 4, dtype=np.uint8)
            grown[:kept] = self._buffer[:kept]
            self._buffer = grown


def _of_those(chosen: NDArray[np.intp], kept: dict[int, _T]) -> dict[int, _T]:
    """What some rows have, by their places among them."""
    return {i: kept[p] for i, p in enumerate(chosen.tolist()) if p in kept} if kept else {}


def _aligned(at: int) -> int:
    return -(-at // _ALIGNED) * _ALIGNED


def _counts(positions: NDArray[np.intp]) -> dict[str, NDArray[np.intp]]:
    """What numbers that count up are compared with: positions with a count, and labels with the positions."""
    return {"positions": positions[0] + np.arange(len(positions)), "labels": positions}


def _narrowest(array: NDArray[Any]) -> str | None:
    """The narrowest type that holds some whole numbers, those without a sign as if they had one; None for their own."""
    signed = array.view(f"<i{array.itemsize}")
    least, most = int(signed.min()), int(signed.max())
    for dtype in _NARROW:
        info = np.iinfo(dtype)
        if info.min <= least and most <= info.max and info.bits < 8 * array.itemsize:
            return dtype
    return None


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
    ValueError, LookupError, TypeError, AttributeError
        For bytes that hold none.
    """
    end = len(body) - _TAIL - int.from_bytes(body[-_TAIL:], "little")
    if end < 0:
        raise ValueError("too short")
    head = json.loads(body[end:-_TAIL])
    k, n, once, at = head["rows"], head["parameters"], head["once"], 0

    def numbers(dtype: str, shape: tuple[int, ...]) -> NDArray[Any]:
        nonlocal at
        made = np.frombuffer(body, dtype, math.prod(shape), at).reshape(shape)
        at += made.nbytes
        return made.astype(made.dtype.newbyteorder("="))

    found: dict[str, Any] = {}
    for name, dtype in _LAYOUT:
        if name != "cov" or head["cov"]:
            shape, at = (k, *_rest(name, n)), _aligned(at)
            stored = numbers(head["narrow"].get(name, dtype), shape if name not in once else (1, *shape[1:]))
            found[name] = stored.astype(np.dtype(dtype).newbyteorder("="), copy=False)
            if name in once:
                found[name] = np.broadcast_to(found[name], shape).copy()
            if name in _COUNTING:
                count = np.arange(head["first"], head["first"] + k) if name == "positions" else found["positions"]
                found[name] += count.astype(found[name].dtype)
    at = _aligned(at)
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
    if at != end:
        raise ValueError("the numbers do not end where they should")
    positions, seeded = found["positions"].astype(np.intp), found["seeded"].astype(np.intp)
    rows = Rows(positions, found["labels"], found["fingerprints"], seeded, found["starts"], columns)
    return Block(head["call"], head["engine"], rows)
