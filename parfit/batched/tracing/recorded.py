"""An objective as JAX records it, and the programs made of it, kept for the next call that records the same.

Recording takes milliseconds, lowering and compiling much longer. The record holds all that the objective read, so two
that are equal, their constants included, are one objective, whatever happened to the user's variables in between.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, jaxpr_as_fun

__all__ = ["Recorded", "equations", "kept", "looks_for_nan", "record"]

#: Primitives that hold a program of their own which runs often.
_LOOPS = frozenset({"scan", "while"})
_KEPT = 32


@dataclass(frozen=True, eq=False)
class Recorded:
    """What an objective does with the arrays of one row.

    Attributes
    ----------
    function
        The arrays, in the order of the leaves of the example -> value.
    shape
        Of the value.
    loops
        Whether it holds a loop (an integration over time, for example).
    skips
        Whether it looks for NaN: what it passes over then is NaN in derivatives by reverse mode, and nothing by
        forward mode.
    operations
        How many operations it has, those inside loops counted once.
    key
        Equal for equal records.
    """

    function: Callable[..., Any]
    shape: tuple[int, ...]
    loops: bool
    skips: bool
    operations: int
    key: str


def record(objective: Callable[[Any], Any], example: Any) -> Recorded:
    """Record an objective of a tree of arrays with the shapes and types of `example`."""
    closed, shape = jax.make_jaxpr(objective, return_shape=True)(example)
    # In the precision of the trace, and copies: JAX keeps what it made of an array of NumPy's as long as that is alive,
    # and takes it again in the other precision.
    constants = [jax.device_put(np.array(constant)) for constant in closed.consts]
    run: Callable[..., Any] = jaxpr_as_fun(ClosedJaxpr(closed.jaxpr, constants))
    said = hashlib.sha256(str(closed.jaxpr).encode())
    for constant in closed.consts:
        array = np.asarray(constant)
        said.update(f"{array.dtype}{array.shape}".encode())
        said.update(np.ascontiguousarray(array).tobytes())
    return Recorded(
        lambda tree: run(*jax.tree.leaves(tree))[0],
        tuple(shape.shape),
        any(equation.primitive.name in _LOOPS for equation in equations(closed.jaxpr)),
        looks_for_nan(closed.jaxpr),
        sum(1 for _ in equations(closed.jaxpr)),
        said.hexdigest(),
    )


def equations(jaxpr: Any) -> Iterator[Any]:
    """The operations of a program, and of those inside it, each once."""
    for equation in jaxpr.eqns:
        yield equation
        for value in equation.params.values():
            for inner in value if isinstance(value, (tuple, list)) else (value,):
                inner = getattr(inner, "jaxpr", inner)
                if hasattr(inner, "eqns"):
                    yield from equations(inner)


def looks_for_nan(jaxpr: Any) -> bool:
    """Whether a program asks if numbers are NaN, which is that they are not equal to themselves, or finite."""
    return any(
        equation.primitive.name == "is_finite"
        or (equation.primitive.name == "ne" and equation.invars[0] is equation.invars[1])
        for equation in equations(jaxpr)
    )


_made: OrderedDict[Any, Any] = OrderedDict()
_lock = threading.Lock()


def kept(key: Any, make: Callable[[], Any]) -> Any:
    """What `make` gives, made once for each key, as long as it is among the last that were asked for."""
    with _lock:
        if key in _made:
            _made.move_to_end(key)
        else:
            _made[key] = make()
            while len(_made) > _KEPT:
                _made.popitem(last=False)
        return _made[key]
