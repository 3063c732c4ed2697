"""The functions of Vensim and XMILE that PySD has of its own: one table, from its name to what computes it here.

Each takes what PySD's counterpart in `pysd.py_backend.functions` takes, and gives the same values. Both sides of a
condition are computed where the condition is not known, so that what would divide by zero on the side that is not
taken divides by one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import jax.numpy as jnp
import numpy as np

from parfit.mdl.compiled.named import Named, elementwise, exactly, known, named, where
from parfit.mdl.compiled.unsupported import Unsupported

__all__ = ["FUNCTIONS"]

#: What Vensim takes for zero (its help on ZIDZ).
_SMALL = 1e-6


class Time(Protocol):
    """The model's clock (`parfit.mdl.compiled.simulation.ModelTime`)."""

    def __call__(self) -> Named:
        """Now."""
        ...

    def time_step(self) -> Any:
        """The length of the step that begins now."""
        ...


def _if_then_else(condition: Any, chosen: Callable[[], Any], other: Callable[[], Any]) -> Named:
    return where(condition, chosen, other)


def _step(time: Time, height: Any, start: Any) -> Named:
    begun: Named = time() + named(time.time_step()) / 2 > start
    return begun * named(height)


def _ramp(time: Time, slope: Any, start: Any, finish: Any = None) -> Named:
    t = time()
    end = t if finish is None else _smaller(finish, t)
    grown: Named = (t + _SMALL > start) * named(slope) * (end - named(start))
    return grown


def _smaller(a: Any, b: Any) -> Named:
    return elementwise(np.minimum, jnp.minimum, a, b)


def _both(a: Any, b: Any) -> Named:
    return elementwise(np.logical_and, jnp.logical_and, a, b)


def _pulse(
    time: Time, start: Any, repeat_time: Any = 0, width: Any = None, magnitude: Any = None, end: Any = None
) -> Named:
    t = time()
    width = named(time.time_step()) * 0.5 if width is None else width
    height = named(1.0) if magnitude is None else named(magnitude) / time.time_step()
    start, repeat_time = named(start), named(repeat_time)

    def once() -> Named:
        return _both(start - _SMALL <= t, t < start + width)

    def again() -> Named:
        interval = where(repeat_time == 0, lambda: 1.0, lambda: repeat_time)
        on = (t - start + _SMALL) % interval < width
        on = _both(on, start <= t)
        return on if end is None else _both(on, t < end)

    on = where(repeat_time == 0, once, again)
    return where(on, lambda: height, lambda: named(0.0))


def _xidz(numerator: Any, denominator: Any, x: Any) -> Named:
    denominator = named(denominator)
    small = abs(denominator) < _SMALL
    safe = where(small, lambda: 1.0, lambda: denominator)
    return where(small, lambda: x, lambda: named(numerator) / safe)


def _zidz(numerator: Any, denominator: Any) -> Named:
    numerator = named(numerator)
    return _xidz(numerator, denominator, Named(0.0, numerator.coords, numerator.dims))


def _active_initial(stage: str, running: Callable[[], Any], initial: Any) -> Any:
    return initial if stage == "Initialization" else running()


def _integer(x: Any) -> Named:
    return elementwise(np.trunc, jnp.trunc, x)


def _quantum(a: Any, b: Any) -> Named:
    b = named(b)
    with exactly():
        small = b < _SMALL
        safe = where(small, lambda: 1.0, lambda: b)
        return where(small, lambda: a, lambda: b * _integer(named(a) / safe))


def _modulo(x: Any, m: Any) -> Named:
    return named(x) - _quantum(x, m)


def _reduction(on_known: Callable[..., Any], on_traced: Callable[..., Any]) -> Callable[..., Named]:
    def reduce(x: Any, dim: list[str] | None = None) -> Named:
        x = named(x)
        axes = tuple(i for i, name in enumerate(x.dims) if dim is None or name in dim)
        dims = [name for i, name in enumerate(x.dims) if i not in axes]
        data = (on_known if isinstance(x.data, np.ndarray) else on_traced)(x.data, axis=axes)
        return Named(data, x.coords, dims)

    return reduce


_sum, _prod = _reduction(np.sum, jnp.sum), _reduction(np.prod, jnp.prod)
_vmin, _vmax = _reduction(np.min, jnp.min), _reduction(np.max, jnp.max)

#: What VECTOR SELECT does with what is selected, by its numerical action: what each entry is, and what is made of
#: them.
_WEIGHTED, _RAISED, _PLAIN = range(3)
_ACTIONS = {
    **{0: (_WEIGHTED, "sum"), 1: (_WEIGHTED, "prod"), 2: (_WEIGHTED, "min"), 3: (_WEIGHTED, "max")},
    **{4: (_WEIGHTED, "mean"), 5: (_RAISED, "prod"), 6: (_PLAIN, "sum"), 7: (_PLAIN, "prod")},
    **{8: (_PLAIN, "min"), 9: (_PLAIN, "max"), 10: (_PLAIN, "mean")},
}


def _vector_select(
    selection: Any, expression: Any, dim: list[str], missing: Any, numerical_action: Any, error_action: Any
) -> Named:
    action = int(known(numerical_action, "the numerical action of VECTOR SELECT"))
    refusals = int(known(error_action, "the error action of VECTOR SELECT"))
    if action not in _ACTIONS:
        raise Unsupported(f"VECTOR SELECT with the numerical action {action}")
    selection, expression = named(selection), named(expression)
    entry, what = _ACTIONS[action]
    chosen = selection != 0
    values = {_WEIGHTED: selection * expression, _RAISED: expression**selection, _PLAIN: expression + 0 * selection}
    counted = _sum(where(chosen, lambda: 1.0, lambda: 0.0) + 0 * selection, dim)
    neutral = {"sum": 0.0, "mean": 0.0, "prod": 1.0, "min": np.inf, "max": -np.inf}[what]
    kept = where(chosen, lambda: values[entry], lambda: neutral) + 0 * selection
    if what in ("sum", "mean"):
        found = _sum(kept, dim)
        if what == "mean":
            found = found / where(counted == 0, lambda: 1.0, lambda: counted)
    else:
        found = {"prod": _prod, "min": _vmin, "max": _vmax}[what](kept, dim)
    found = where(counted == 0, lambda: missing, lambda: found) + 0 * counted
    if refusals in (1, 3):  # PySD raises, and so will its run, which NaN asks for
        found = where(counted == 0, lambda: np.nan, lambda: found)
    if refusals in (2, 3):
        found = where(counted > 1, lambda: np.nan, lambda: found)
    return found


def _on_last_axis(function: Callable[..., Any]) -> Callable[[Named], Named]:
    def apply(x: Named) -> Named:
        if isinstance(x.data, np.ndarray):
            return x.like(function(np, x.data))
        return x.like(function(jnp, x.data).astype(x.data.dtype))

    return apply


_order = _on_last_axis(lambda xp, data: xp.argsort(data, axis=-1, stable=True))
_flip = _on_last_axis(lambda xp, data: xp.flip(data, axis=-1))


def _vector_sort_order(vector: Any, direction: Any) -> Named:
    order = _order(named(vector))
    return where(named(direction) > 0, lambda: order, lambda: _flip(order))


def _vector_rank(vector: Any, direction: Any) -> Named:
    return _order(_vector_sort_order(vector, direction)) + 1


def _vector_reorder(vector: Any, order: Any) -> Named:
    values, order = named(vector), named(order)
    if len(order.dims) > 1:
        return elementwise(
            lambda v, o: np.take_along_axis(v, o.astype(int), axis=-1),
            lambda v, o: jnp.take_along_axis(v, o.astype(int), axis=-1),
            values,
            order,
        )
    return values.like(jnp.asarray(values.data)[jnp.asarray(order.data).astype(int)])


def _invert_matrix(matrix: Any) -> Named:
    array = named(matrix)
    return array.like((np if isinstance(array.data, np.ndarray) else jnp).linalg.inv(array.data))


def _get_time_value(time: Time, relative_to: Any, offset: Any, measure: Any) -> Named:
    if int(known(relative_to, "what GET TIME VALUE is relative to")) or int(known(measure, "a measure of time")):
        raise Unsupported("GET TIME VALUE of anything but the model's own time")
    then: Named = time() + offset
    return then


def _not_implemented(name: str, *_: Any) -> Named:
    raise Unsupported(f"{name.upper().replace('_', ' ')}, which PySD does not run either")


def _incomplete(*_: Any) -> Named:
    raise Unsupported("a variable without an equation (A FUNCTION OF)")


FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "active_initial": _active_initial,
    "get_time_value": _get_time_value,
    "if_then_else": _if_then_else,
    "incomplete": _incomplete,
    "integer": _integer,
    "invert_matrix": _invert_matrix,
    "modulo": _modulo,
    "not_implemented_function": _not_implemented,
    "prod": _prod,
    "pulse": _pulse,
    "quantum": _quantum,
    "ramp": _ramp,
    "step": _step,
    "sum": _sum,
    "vector_rank": _vector_rank,
    "vector_reorder": _vector_reorder,
    "vector_select": _vector_select,
    "vector_sort_order": _vector_sort_order,
    "vmax": _vmax,
    "vmin": _vmin,
    "xidz": _xidz,
    "zidz": _zidz,
}
