"""Blocks of rows out of a file that SQLite itself cannot read any more, page by page.

A block says which call it is of, and its checksum stands beside it, so that none of the tables that lead to it is
needed. What is read here is SQLite's file format (https://sqlite.org/fileformat2.html): table leaf pages, their
cells, the overflow pages of a long cell, and the frames of a write-ahead log.
"""

from __future__ import annotations

import contextlib
import io
import mmap
import os
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from parfit.stores.packing import Block, unpacked
from parfit.stores.reading import DAMAGE, PAGE

__all__ = ["salvaged"]

#: The first byte of a leaf page of a table.
_LEAF = 0x0D
_FRAME, _LOG = struct.Struct(">6I"), struct.Struct(">8I")
#: The bytes of whole numbers in a record, by their types.
_WIDTHS = {1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8, 8: 0, 9: 0}

#: The content of a page, by its number from 1; too little where there is none.
_Pages = Callable[[int], bytes]


def salvaged(path: Path, call: str) -> list[Block]:
    """The sound blocks of a call in a file and in its log, in the order in which they were written."""
    log = path.with_name(path.name + "-wal")
    if not (_holds(path, call) or _holds(log, call)):
        return []
    found: dict[int, Block] = {}
    with contextlib.ExitStack() as opened:
        main = opened.enter_context(open(path, "rb"))
        frames = opened.enter_context(open(log, "rb")) if log.exists() else io.BytesIO()
        places = _places(frames)

        def written(number: int) -> bytes:
            return _at(main, (number - 1) * PAGE, PAGE)

        def last(number: int) -> bytes:
            return _at(frames, places[number], PAGE) if number in places else written(number)

        numbers = range(1, max([main.seek(0, os.SEEK_END) // PAGE, *places]) + 1)
        for pages in (written, last) if places else (written,):
            for number in numbers:
                found.update(_blocks(pages, number, call))
    return [found[key] for key in sorted(found)]


def _holds(path: Path, text: str) -> bool:
    """Whether a text is anywhere in a file."""
    if not path.exists() or not path.stat().st_size:
        return False
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return content.find(text.encode()) >= 0


def _at(file: BinaryIO, place: int, size: int) -> bytes:
    file.seek(place)
    return file.read(size)


def _places(log: BinaryIO) -> dict[int, int]:
    """Where in a log the last content of each page is."""
    found: dict[int, int] = {}
    head = _at(log, 0, _LOG.size)
    at = _LOG.size
    while len(frame := _at(log, at, _FRAME.size)) == _FRAME.size:
        if frame[8:16] == head[16:24]:  # the salts: others are of an earlier round
            found[int.from_bytes(frame[:4], "big")] = at + _FRAME.size
        at += _FRAME.size + PAGE
    return found


def _blocks(pages: _Pages, number: int, call: str) -> Iterator[tuple[int, Block]]:
    """The sound blocks whose cells are on a page, by their keys."""
    page = pages(number)
    if len(page) < PAGE or page[0] != _LEAF:
        return
    for i in range(min(int.from_bytes(page[3:5], "big"), (PAGE - 8) // 2)):
        try:
            key, body, crc = _record(pages, page, int.from_bytes(page[8 + 2 * i : 10 + 2 * i], "big"))
            if zlib.crc32(body) == crc and (block := unpacked(body)).call == call:
                yield key, block
        except DAMAGE:
            continue


def _record(pages: _Pages, page: bytes, at: int) -> tuple[int, bytes, int]:
    """The key, the body and the checksum of a block, whose cell begins at a place of a page."""
    size, at = _number(page, at)
    key, at = _number(page, at)
    payload = _payload(pages, page, at, size)
    end, at = _number(payload, 0)
    kinds = []
    while at < end:
        kind, at = _number(payload, at)
        kinds.append(kind)
    null, blob, whole = kinds
    length = (blob - 12) // 2
    if null or blob < 12 or blob % 2 or end + length + _WIDTHS[whole] != size:
        raise ValueError("no block")
    crc = int.from_bytes(payload[end + length :], "big") if whole < 8 else whole - 8
    return key, payload[end : end + length], crc


def _payload(pages: _Pages, page: bytes, at: int, size: int) -> bytes:
    """What a cell holds, from its page and those that it runs on to."""
    most, least = PAGE - 35, (PAGE - 12) * 32 // 255 - 23
    if size <= most:
        return page[at : at + size]
    here = least + (size - least) % (PAGE - 4)
    here = here if here <= most else least
    parts, left = [page[at : at + here]], size - here
    following = int.from_bytes(page[at + here : at + here + 4], "big")
    while left > 0:
        over = pages(following)
        if len(over) < PAGE:
            raise ValueError("a page is missing")
        parts.append(over[4 : 4 + min(left, PAGE - 4)])
        left -= PAGE - 4
        following = int.from_bytes(over[:4], "big")
    return b"".join(parts)


def _number(data: bytes, at: int) -> tuple[int, int]:
    """A whole number of one to nine bytes, and where it ends."""
    value = 0
    for i in range(9):
        byte = data[at + i]
        if i == 8:
            return value << 8 | byte, at + 9
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, at + i + 1
    raise AssertionError("nine bytes at most")
