"""Frames over a socket: a message and its payload, received straight into the memory they will live in.

    +--------+--------+--------------+-----------------------+---------------------------+
    | mark   | count  | n_stream     | count lengths (u64)   | segments …                |
    | (u64)  | (u32)  | (u32)        |                       |                           |
    +--------+--------+--------------+-----------------------+---------------------------+

Both sides are on one machine and trust each other: the socket pair is made by the parent and inherited by
one worker, so that nobody else can connect. What runs in the worker can write to any descriptor by its number,
though: a frame that does not begin with the mark is none, and ends the connection.
"""

from __future__ import annotations

import socket
import struct
from collections import deque
from collections.abc import Iterator
from typing import Any

from parfit.executors import payload as pl

__all__ = ["Reader", "Writer", "receive", "send"]

_HEAD = struct.Struct("!8sII")
_MARK = b"\x93parfit\n"


def _pieces(payload: pl.Payload) -> list[pl.Buffer]:
    """One frame, as what is to be sent one after the other."""
    n_stream, segments = payload
    head = _HEAD.pack(_MARK, len(segments), n_stream) + struct.pack(f"!{len(segments)}Q", *map(len, segments))
    return [b"".join([head, *segments])] if sum(map(len, segments)) < 1 << 16 else [head, *segments]


def send(sock: socket.socket, payload: pl.Payload) -> None:
    """Send one frame; blocks until it is out. Raises `OSError` where the other side is gone."""
    for piece in _pieces(payload):
        sock.sendall(piece)


class Writer:
    """Frames on their way to somebody who may be busy: takes them at once, and sends what the socket has room for."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._pieces: deque[memoryview] = deque()

    @property
    def pending(self) -> bool:
        """Whether there is something left to send."""
        return bool(self._pieces)

    def put(self, payload: pl.Payload) -> None:
        """Take a frame, whose memory must stay as it is until it is out, and send what can be sent."""
        self._pieces.extend(memoryview(piece).cast("B") for piece in _pieces(payload) if len(piece))
        self.flush()

    def flush(self) -> None:
        """Send what can be sent without waiting. Raises `OSError` where the other side is gone."""
        while self._pieces:
            try:
                n = self._sock.send(self._pieces[0], socket.MSG_DONTWAIT)
            except (BlockingIOError, InterruptedError):
                return
            if n == len(self._pieces[0]):
                self._pieces.popleft()
            else:
                self._pieces[0] = self._pieces[0][n:]


class Reader:
    """Puts frames together from whatever has arrived; never waits for the rest of one.

    Attributes
    ----------
    closed
        There will be no more frames.
    garbled
        Something has arrived that is no frame.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self.closed = self.garbled = False
        self._frame = self._frames()
        self._want: memoryview = next(self._frame)

    def _frames(self) -> Iterator[Any]:
        """Yield the memory that is to be filled next, or a finished frame (a tuple); None for ever after garbage."""
        while True:
            head = bytearray(_HEAD.size)
            yield memoryview(head)
            mark, count, n_stream = _HEAD.unpack(head)
            while mark != _MARK:
                yield None
            sizes = bytearray(8 * count)
            yield memoryview(sizes)
            segments: list[pl.Buffer] = []
            for size in struct.unpack(f"!{count}Q", sizes):
                segment = bytearray(size)
                if size:
                    yield memoryview(segment)
                segments.append(segment)
            yield n_stream, segments

    def read(self, flags: int = 0) -> pl.Payload | None:
        """One frame, or None where not all of one is there; sets `closed` at the end of the stream."""
        while not self.closed:
            try:
                n = self._sock.recv_into(self._want, 0, flags)
            except (BlockingIOError, InterruptedError):
                return None
            except OSError:
                n = 0
            if n == 0:
                self.closed = True
                return None
            self._want = self._want[n:]
            if not len(self._want):
                made = next(self._frame)
                if isinstance(made, tuple):
                    self._want = next(self._frame)
                    return made
                if made is None:
                    self.closed = self.garbled = True
                    return None
                self._want = made
        return None


def receive(reader: Reader) -> pl.Payload | None:
    """Wait for one frame on a blocking socket; None at the end of the stream."""
    while not reader.closed:
        frame = reader.read()
        if frame is not None:
            return frame
    return None
