"""Frames over a socket: whole ones only, in order, however they arrive."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator

import numpy as np
import pytest

from parfit.executors import payload as pl
from parfit.executors.workers import wire

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def on_the_wire(payload: pl.Payload) -> bytes:
    n_stream, segments = payload
    head = struct.pack("!8sII", b"\x93parfit\n", len(segments), n_stream) + struct.pack(
        f"!{len(segments)}Q", *map(len, segments)
    )
    return head + b"".join(segments)


def test_a_frame_is_read_only_when_all_of_it_is_there(pair: Pair) -> None:
    ours, theirs = pair
    reader = wire.Reader(theirs)
    data = on_the_wire(pl.dumps({"array": np.arange(5), "word": "done"}))
    for i in range(len(data) - 1):
        ours.sendall(data[i : i + 1])
        assert reader.read(socket.MSG_DONTWAIT) is None
        assert not reader.closed
    ours.sendall(data[-1:])
    frame = reader.read(socket.MSG_DONTWAIT)
    assert frame is not None
    assert pl.loads(frame)["word"] == "done"
    assert reader.read(socket.MSG_DONTWAIT) is None


def test_frames_keep_their_order(pair: Pair) -> None:
    ours, theirs = pair
    for i in range(5):
        wire.send(ours, pl.dumps(("n", i, b"x" * i)))
    reader = wire.Reader(theirs)
    frames = [reader.read(socket.MSG_DONTWAIT) for _ in range(5)]
    assert [pl.loads(frame)[1] for frame in frames if frame is not None] == list(range(5))


def test_a_large_frame_is_received_into_its_own_memory(pair: Pair) -> None:
    ours, theirs = pair
    array = np.arange(500_000.0)
    sender = threading.Thread(target=wire.send, args=(ours, pl.dumps(array)))
    sender.start()
    frame = wire.receive(wire.Reader(theirs))
    sender.join()
    assert frame is not None
    received = pl.loads(frame)
    np.testing.assert_array_equal(received, array)
    received[0] = 1.0


def test_empty_segments_do_not_hold_up_a_frame(pair: Pair) -> None:
    ours, theirs = pair
    wire.send(ours, (1, [b"stream", b"", bytearray()]))
    assert wire.Reader(theirs).read(socket.MSG_DONTWAIT) == (1, [b"stream", b"", b""])


def test_the_end_of_the_stream_is_told(pair: Pair) -> None:
    ours, theirs = pair
    reader = wire.Reader(theirs)
    ours.sendall(on_the_wire(pl.dumps("half"))[:-1])
    ours.close()
    assert wire.receive(reader) is None
    assert reader.closed
    assert wire.receive(reader) is None


def test_sending_to_nobody_is_an_os_error(pair: Pair) -> None:
    ours, theirs = pair
    theirs.close()
    with pytest.raises(OSError, match=r"."):
        wire.send(ours, pl.dumps(b"x" * 10_000_000))


@pytest.mark.parametrize("garbage", [b"a word\n", b"\0" * 100, b"\xff" * 100_000], ids=["short", "zeros", "long"])
def test_what_is_no_frame_ends_the_connection(pair: Pair, garbage: bytes) -> None:
    """Taken for a frame, it would be the length of one that never comes, or that no memory holds."""
    ours, theirs = pair
    reader = wire.Reader(theirs)
    wire.send(ours, pl.dumps("before"))
    ours.sendall(garbage)
    wire.send(ours, pl.dumps("after"))
    frame = reader.read(socket.MSG_DONTWAIT)
    assert frame is not None
    assert pl.loads(frame) == "before"
    assert not reader.garbled
    assert [reader.read(socket.MSG_DONTWAIT) for _ in range(3)] == [None] * 3
    assert reader.garbled
    assert reader.closed
