"""The global random numbers of one dataset: seeded before it is fitted; and whether it used them.

Both of NumPy's and of `random`. To ask is cheap, which reading out their whole states is not: a Mersenne twister that
has just been seeded begins with its seed, and gives the same next number as another one.
"""

from __future__ import annotations

import ctypes
import random

import numpy as np

__all__ = ["seed_globals", "seeds_are_unused"]

#: The length of a Mersenne twister's state; behind it is the position in it.
_LENGTH = 624


def seed_globals(seed: int, position: int) -> int:
    """Seed the global generators for the dataset at a position; the seed that they got."""
    mixed = (seed * 0x9E3779B1 + position * 0x85EBCA77) & 0xFFFFFFFF
    np.random.seed(mixed)  # noqa: NPY002 - it is the global state that user code draws from
    random.seed(mixed)
    return mixed


def seeds_are_unused(mixed: int) -> bool:
    """Whether nothing was drawn since; False where that cannot be known. May be asked once: it draws itself."""
    generator = np.random.get_bit_generator()  # type: ignore[attr-defined]
    if not isinstance(generator, np.random.MT19937):
        return False
    words = (ctypes.c_uint32 * (_LENGTH + 1)).from_address(generator.ctypes.state_address)
    if words[0] != mixed or words[_LENGTH] != _LENGTH:
        return False
    probe = random.getrandbits(64)
    random.seed(mixed)
    return random.getrandbits(64) == probe
