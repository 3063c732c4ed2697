"""Compiled programs: in double precision without touching the caller's settings, each compiled once.

A function is traced anew in every call of `fit`, since the user's objective may read what has changed meanwhile; what
is kept is the executable of a program text, in this process and in the user's cache folder
(`parfit.batched.cache`), so that the second run of a script does not compile.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import jax

from parfit.batched import cache

__all__ = ["Counts", "compiled", "counts", "precision"]

#: Sums may be taken in any order, which lets XLA use vectors for them: 8 times faster for normal equations
#: (`benchmarks/normal_equations.py`). NaN, infinity, division and functions stay as they are written.
_CPU_OPTIONS: dict[str, str | bool | int] = {
    "xla_cpu_enable_fast_math": True,
    "xla_cpu_fast_math_honor_nans": True,
    "xla_cpu_fast_math_honor_infs": True,
    "xla_cpu_fast_math_honor_division": True,
    "xla_cpu_fast_math_honor_functions": True,
    # where the processor has registers of 512 bits: half as long again for the normal equations of 2-D Gaussians
    "xla_cpu_prefer_vector_width": 512,
}
_KEPT = 64


@dataclass
class Counts:
    """How often programs were compiled, read from the cache folder, and found in this process."""

    compiled: int = 0
    loaded: int = 0
    reused: int = 0


_counts = Counts()
_programs: OrderedDict[str, Any] = OrderedDict()
_lock = threading.Lock()


def counts() -> Counts:
    """The counts so far, a copy."""
    return Counts(_counts.compiled, _counts.loaded, _counts.reused)


@contextmanager
def precision(double: bool) -> Iterator[None]:
    """Trace, compile and run with 64-bit numbers, or without, in this thread and this block only."""
    with jax.enable_x64(double):
        yield


def compiled(function: Callable[..., Any], *examples: Any, donate: tuple[int, ...] = ()) -> Callable[..., Any]:
    """The executable of a function for arguments of the shapes and types of `examples`.

    Called under `precision`, as the executable has to be.
    """
    lowered = jax.jit(function, donate_argnums=donate, keep_unused=True).lower(*examples)
    options: dict[str, str | bool | int] = _CPU_OPTIONS if jax.default_backend() == "cpu" else {}
    key = cache.key_of(f"{lowered.in_tree} {lowered.out_tree} {lowered.as_text()}", options)
    with _lock:
        if key in _programs:
            _programs.move_to_end(key)
            _counts.reused += 1
            found: Callable[..., Any] = _programs[key]
            return found
    program: Callable[..., Any] | None = cache.load(key, lowered)
    if program is None:
        program = lowered.compile(compiler_options=options)
        _counts.compiled += 1
        cache.save(key, program)
    else:
        _counts.loaded += 1
    with _lock:
        _programs[key] = program
        while len(_programs) > _KEPT:
            _programs.popitem(last=False)
    return program
