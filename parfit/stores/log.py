"""Whether SQLite reads all of a write-ahead log: at the first frame whose checksum is wrong, it stops.

After a crash that is the end of what was committed. Where whole transactions stand behind it, something has damaged the
log, and they would be lost without a word. The format is that of https://sqlite.org/fileformat2.html, section 4.
"""

from __future__ import annotations

import contextlib
import functools
import os
import time

import numpy as np
from numpy.typing import NDArray

__all__ = ["damage_of_log"]

_HEAD, _FRAME = 32, 24
Words = NDArray[np.uint32]


def damage_of_log(path: str | os.PathLike[str], page: int) -> str:
    """What is wrong with the log of a file with pages of so many bytes, in words; nothing where SQLite reads all of it.

    A process that writes meanwhile may be in the middle of a frame, but not again and again in the same. Takes 1 ms a
    megabyte.
    """
    log = f"{os.path.realpath(path)}-wal"
    with contextlib.suppress(OSError):
        if os.path.getsize(log) > _HEAD:
            found = _first_bad(log, page)
            if found is not None and all(_once_more(log, page) == found for _ in range(2)):
                return f"{os.path.basename(log)} is damaged behind frame {found}, and SQLite reads no further"
    return ""


def _once_more(log: str, page: int) -> int | None:
    time.sleep(0.01)
    return _first_bad(log, page)


def _first_bad(log: str, page: int) -> int | None:
    """How many frames are sound, where a whole transaction stands behind the next; None for a log as it should be."""
    sound, bad = 0, False
    with open(log, "rb") as file:
        head = file.read(_HEAD)
        salts, order = head[16:24], np.dtype(">u4" if head[3] & 1 else "<u4")
        sums = _summed(np.zeros(2, np.uint32), head[:24], order)
        bad = not _says(head[24:], sums)
        while len(frame := file.read(_FRAME + page)) == _FRAME + page:
            own = frame[8:16] == salts  # others are of an earlier round
            if bad:
                if own and any(frame[4:8]):  # the last of its transaction
                    return sound
                continue
            sums = _summed(_summed(sums, frame[:8], order), frame[_FRAME:], order)
            bad = not (own and _says(frame[16:_FRAME], sums))
            sound += not bad
    return None


def _says(said: bytes, sums: Words) -> bool:
    return said == sums.astype(">u4").tobytes()


def _summed(sums: Words, content: bytes, order: np.dtype[np.uint32]) -> Words:
    """The two running sums, s and t, after more words, of which for each two: s += first + t, t += second + s.

    A word counts in them as often as the Fibonacci number of how many words follow it says.
    """
    words = np.frombuffer(content, order).astype(np.uint32)
    words[:1] += sums[:1]
    words = np.concatenate([sums[1:], words])
    counts = _fibonacci(len(words) + 1)
    return np.array([words @ counts[1:], words @ counts[:-1]], dtype=np.uint32)


@functools.cache
def _fibonacci(length: int) -> Words:
    """The first Fibonacci numbers modulo 2**32, from 0 on, the last one first."""
    found = [0, 1]
    for _ in range(length - 2):
        found.append((found[-1] + found[-2]) % 2**32)
    return np.array(found[length - 1 :: -1], dtype=np.uint32)
