"""Memory for the rows of a block, used again by the next: new pages cost more than what is written into them.

An array that is aligned as XLA wants it becomes a buffer of a program without another copy, so that nothing may be
written into it before the programs that read it have ended.
"""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Staging"]

_ALIGNMENT = 64
#: The most that is kept for later, bytes.
_MOST = 1 << 26


class Staging:
    """Arrays by shape and type, that are lent and given back."""

    def __init__(self, most: int = _MOST) -> None:
        self._most = most
        self._free: dict[tuple[tuple[int, ...], str], list[NDArray[Any]]] = {}
        self._bytes = 0
        self._lock = threading.Lock()

    def take(self, array: NDArray[Any], size: int) -> NDArray[Any]:
        """An array with as many entries as `size`, the first of which are those of `array`; the others are any."""
        shape, dtype = (size, *array.shape[1:]), array.dtype
        with self._lock:
            free = self._free.get((shape, dtype.str))
            made = free.pop() if free else None
            if made is not None:
                self._bytes -= made.nbytes
        if made is None:
            made = _aligned(shape, dtype)
        made[: len(array)] = array
        return made

    def give_back(self, arrays: list[NDArray[Any]]) -> None:
        """What was taken, and is no longer read by any program."""
        with self._lock:
            for array in arrays:
                if self._bytes + array.nbytes <= self._most:
                    self._bytes += array.nbytes
                    self._free.setdefault((array.shape, array.dtype.str), []).append(array)


def _aligned(shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Zeros that begin at a multiple of `_ALIGNMENT`."""
    count = int(np.prod(shape)) * dtype.itemsize
    whole = np.zeros(count + _ALIGNMENT, dtype=np.uint8)
    begin = -whole.ctypes.data % _ALIGNMENT
    return whole[begin : begin + count].view(dtype).reshape(shape)
