"""Pickles that copy nothing large: a list of segments, big buffers as they lie in memory.

A payload is the pickle stream, cut where the pickler hands over something large, followed by the
out-of-band buffers of pickle protocol 5 (PEP 574). NumPy arrays and pandas blocks travel as such buffers, and
large `bytes` as segments of the stream, so that 500 MB of data are pickled without a second copy of them.
The receiver unpickles into writable memory of its own.
"""

from __future__ import annotations

import functools
import io
import mmap
import pickle
import struct
import sys
from collections.abc import Sequence
from typing import Any

import cloudpickle

__all__ = ["Payload", "Pickler", "Sealed", "dumps", "in_one", "load_file", "loads", "save_file"]

Buffer = bytes | bytearray | memoryview
#: The segments of one pickled object: the number of stream segments, and stream and buffers in order.
Payload = tuple[int, list[Buffer]]

#: In a file: the number of segments, the number of stream segments, and then the length of each segment.
_HEAD = struct.Struct("=QQ")
#: Segments begin at multiples of this in a file, so that arrays mapped from it are aligned.
_ALIGNMENT = 64


class _Segments:
    """A file to pickle into that keeps what it is given, uncopied."""

    def __init__(self) -> None:
        self.parts: list[Buffer] = []

    def write(self, data: Buffer) -> int:
        self.parts.append(data)
        return len(data)


class Pickler(cloudpickle.Pickler):  # type: ignore[misc]
    """Also takes functions of ``__main__`` under `functools.cache`, as a notebook's loaders are; empty on arrival."""

    def reducer_override(self, obj: Any) -> Any:
        if type(obj) is _Cached and not _is_importable(obj):
            given = obj.cache_parameters()
            return _cached, (obj.__wrapped__, given["maxsize"], given["typed"])
        return super().reducer_override(obj)


_Cached = type(functools.lru_cache(len))


def _cached(function: Any, maxsize: int | None, typed: bool) -> Any:
    return functools.lru_cache(maxsize, typed)(function)


def _is_importable(function: Any) -> bool:
    """Whether a worker finds the function under its name."""
    module = function.__module__
    if module == "__main__" or module in cloudpickle.list_registry_pickle_by_value():
        return False
    found: Any = sys.modules.get(module)
    for name in function.__qualname__.split("."):
        found = getattr(found, name, None)
    return found is function


def dumps(obj: Any, *, by_value: bool = True) -> Payload:
    """Pickle `obj`, functions and classes of ``__main__`` by value (unless `by_value` is False).

    Raises
    ------
    Exception
        Whatever pickling raises; what cannot be pickled has no one type of exception.
    """
    stream = _Segments()
    buffers: list[pickle.PickleBuffer] = []
    kind = Pickler if by_value else pickle.Pickler
    try:
        kind(stream, protocol=5, buffer_callback=buffers.append).dump(obj)
    except BaseException:
        # The traceback keeps this frame. Collected in one cycle with the memory that they export, in an order that is
        # not ours, they crash CPython 3.11 ("Exception ignored in tp_clear of memoryview", then a segmentation fault).
        for buffer in buffers:
            buffer.release()
        raise
    segments = stream.parts
    if sum(map(len, segments[:8])) < 1 << 16 and len(segments) > 1:
        segments = [b"".join(segments)] if len(segments) <= 8 else segments
    return len(segments), [*segments, *(b.raw() for b in buffers)]


def in_one(obj: Any) -> bytes:
    """Pickle `obj` by value into one piece, for what is small."""
    stream = io.BytesIO()
    Pickler(stream, protocol=5).dump(obj)
    return stream.getvalue()


class _Joined(io.RawIOBase):
    """The stream segments as one file to unpickle from."""

    def __init__(self, parts: Sequence[Buffer]) -> None:
        self._parts = [memoryview(p) for p in parts]
        self._at = 0

    def readable(self) -> bool:
        return True

    def readinto(self, target: Any) -> int:
        view = memoryview(target).cast("B")
        while self._at < len(self._parts):
            part = self._parts[self._at]
            if len(part):
                n = min(len(part), len(view))
                view[:n] = part[:n]
                self._parts[self._at] = part[n:]
                return n
            self._at += 1
        return 0


def loads(payload: Payload) -> Any:
    """Unpickle; the out-of-band buffers of `payload` become the memory of the arrays."""
    n_stream, segments = payload
    buffers = segments[n_stream:]
    if n_stream == 1:
        return pickle.loads(segments[0], buffers=buffers)
    return pickle.load(io.BufferedReader(_Joined(segments[:n_stream])), buffers=buffers)


class Sealed:
    """A payload that crosses the wires of others unopened, and without copies where they know how (PEP 574)."""

    __slots__ = ("payload",)

    def __init__(self, payload: Payload) -> None:
        self.payload = payload

    def __reduce_ex__(self, protocol: Any) -> Any:
        n_stream, segments = self.payload
        kind = pickle.PickleBuffer if protocol >= 5 else bytes
        return _sealed, (n_stream, [kind(segment) for segment in segments])

    @property
    def size(self) -> int:
        """The number of bytes."""
        return sum(map(len, self.payload[1]))

    def open(self) -> Any:
        """What is in it; its arrays can be written to, wherever the bytes lay."""
        n_stream, segments = self.payload
        mine = [bytearray(s) if i >= n_stream and memoryview(s).readonly else s for i, s in enumerate(segments)]
        return loads((n_stream, mine))


def _sealed(n_stream: int, segments: list[Buffer]) -> Sealed:
    return Sealed((n_stream, segments))


def save_file(path: str, payload: Payload) -> None:
    """Write a payload to a file."""
    n_stream, segments = payload
    head = _HEAD.pack(len(segments), n_stream) + struct.pack(f"={len(segments)}Q", *map(len, segments))
    with open(path, "wb") as file:
        file.write(head)
        for segment in segments:
            file.write(bytes(-file.tell() % _ALIGNMENT))
            file.write(segment)


def load_file(path: str, *, mapped: bool = False) -> Payload:
    """Read a payload from a file, into writable memory.

    Parameters
    ----------
    path
        The file.
    mapped
        Map it: processes that read the same file share its memory until they write to it. Holds a file
        descriptor for as long as the payload or an array made from it lives.
    """
    with open(path, "rb") as file:
        memory: Any
        if mapped:
            memory = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        else:
            memory = bytearray(file.seek(0, io.SEEK_END))
            file.seek(0)
            file.readinto(memory)
    view = memoryview(memory)
    count, n_stream = _HEAD.unpack_from(view)
    sizes = struct.unpack_from(f"={count}Q", view, _HEAD.size)
    at = _HEAD.size + 8 * count
    segments: list[Buffer] = []
    for size in sizes:
        at += -at % _ALIGNMENT
        segments.append(view[at : at + size])
        at += size
    return n_stream, segments
