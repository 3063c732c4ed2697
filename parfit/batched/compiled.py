"""Compiled programs: in double precision without touching the caller's settings, each compiled once.

A function is traced anew in every call of `fit`, since the user's objective may read what has changed meanwhile; what
is kept is the executable of a program text, in this process and in the user's cache folder
(`parfit.batched.cache`), so that the second run of a script does not compile.
"""

from __future__ import annotations

import re
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
_CPU_OPTIONS: dict[str, str | bool] = {
    "xla_cpu_enable_fast_math": True,
    "xla_cpu_fast_math_honor_nans": True,
    "xla_cpu_fast_math_honor_infs": True,
    "xla_cpu_fast_math_honor_division": True,
    "xla_cpu_fast_math_honor_functions": True,
}
#: Registers of 512 bits make the normal equations of 2-D Gaussians half as fast again, on processors that have them.
#: XLA gives wrong values of arctan there (its vector function and the call disagree on how arguments are passed), and
#: its authors test 256, so that only programs get them all of whose operations are compared with NumPy in
#: tests/batched/test_compiled.py, or only move and compare.
_WIDE: dict[str, str | bool] = {"xla_cpu_prefer_vector_width": "512"}
VERIFIED = frozenset(
    "abs add cbrt ceil cosine divide exponential exponential_minus_one floor log log_plus_one maximum minimum "
    "multiply negate power remainder round_nearest_even rsqrt sign sine sqrt square subtract tan tanh".split()
)
_MOVING = frozenset(
    "and broadcast broadcast_in_dim case compare concatenate constant convert custom_call dot_general dynamic_slice "
    "dynamic_update_slice gather iota is_finite next_after not optimization_barrier or pad reduce reshape return "
    "reverse scatter select slice sort transpose while xor".split()
)
#: The older code generator compiles a long program in half the time (of the counties: 2.5 s for 4.9 s); its code is
#: as fast, or up to a tenth slower, so that short ones go without it. It passes over the barriers that keep a quotient
#: exact where it is cut to a whole number, so that programs that do this go without it, too.
_QUICK: dict[str, str | bool] = {"xla_cpu_use_fusion_emitters": False}
_LONG = 2000
_CUTTING = frozenset("ceil floor round_nearest_afz round_nearest_even".split())
_OPERATION = re.compile(r"\b(?:stablehlo|chlo)\.(\w+)")

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


def options_for(text: str) -> dict[str, str | bool]:
    """What XLA is told for a program, given as text."""
    if jax.default_backend() != "cpu":
        return {}
    found = _OPERATION.findall(text)
    operations = set(found)
    wide = operations <= VERIFIED | _MOVING
    quick = len(found) > _LONG and not operations & _CUTTING
    return _CPU_OPTIONS | (_WIDE if wide else {}) | (_QUICK if quick else {})


def compiled(function: Callable[..., Any], *examples: Any, donate: tuple[int, ...] = ()) -> Callable[..., Any]:
    """The executable of a function for arguments of the shapes and types of `examples`.

    Called under `precision`, as the executable has to be.
    """
    lowered = jax.jit(function, donate_argnums=donate, keep_unused=True).lower(*examples)
    text = lowered.as_text()
    options = options_for(text)
    key = cache.key_of(f"{lowered.in_tree} {lowered.out_tree} {text}", options)
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
