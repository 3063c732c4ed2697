"""What a model remembers from one step to the next: stocks, delays, smooths, trends, samples.

Each takes the arguments that PySD's translation gives its counterpart in `pysd.py_backend.statefuls`, and keeps to its
arithmetic. A state is an array or a dict of arrays, and is held by the simulation; the object itself knows only the
axes. ``flow`` is the derivative, ``updated`` what a step makes of a state that does not flow.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from parfit.mdl.compiled.functions import FUNCTIONS
from parfit.mdl.compiled.named import Named, is_known, known, named, where

if TYPE_CHECKING:
    from parfit.mdl.compiled.section import Section

__all__ = ["STATEFULS", "Stateful"]

State = Any
Thunk = Callable[[], Any]

_zidz: Callable[..., Named] = FUNCTIONS["zidz"]


class Stateful:
    """What has a state.

    Attributes
    ----------
    section
        The text that it belongs to; set when that has been read.
    key
        Its place among the states of the simulation.
    """

    #: Whether the state has a derivative; else a step makes a new one of it.
    flows: ClassVar[bool] = True
    section: Section
    key: str

    def __call__(self) -> Named:
        return self.value(self.section.simulation.state_of(self))

    def initial(self, given: Any = None) -> State:
        """The state at the start; `given` takes the place of the initial value."""
        raise NotImplementedError

    def value(self, state: State) -> Named:
        """What it says, in a state."""
        raise NotImplementedError

    def flow(self, state: State) -> State:
        """The derivative of the state."""
        raise NotImplementedError

    def updated(self, state: State) -> State:
        """The state after a step, where it does not flow."""
        raise NotImplementedError

    def begun(self, state: State) -> State:
        """The state as a step begins with it."""
        return state

    def settled(self, state: State) -> State:
        """The state that a step has led to, within its limits."""
        return state

    # What they have in common.

    def _start(self, value: Any) -> Any:
        """Take the axes of the value at the start; its numbers."""
        value = named(value)
        self._coords, self._dims = value.coords, value.dims
        return value.data

    def _named(self, data: Any) -> Named:
        return Named(data, self._coords, self._dims)

    def _laid(self, value: Any) -> Any:
        """The numbers of a value over the axes of the state."""
        value = named(value)
        if value.dims != self._dims:
            value = self._named(0.0) + value
        return value.data


class Integ(Stateful):
    """A stock."""

    def __init__(self, flow: Thunk, initial: Thunk, py_name: str) -> None:
        self._flow, self._initial, self.py_name = flow, initial, py_name

    def initial(self, given: Any = None) -> State:
        return self._start(self._initial() if given is None else given)

    def value(self, state: State) -> Named:
        return self._named(state)

    def flow(self, state: State) -> State:  # noqa: ARG002
        return self._laid(self._flow())


class NonNegativeInteg(Integ):
    """A stock that is not drawn below zero (XMILE)."""

    def settled(self, state: State) -> State:
        return jnp.maximum(state, 0)


def _shifted(array: Any, first: Any) -> Any:
    """The stages of a delay moved on by one, with something new in the first."""
    first = jnp.broadcast_to(first, array.shape[1:])[None]
    return jnp.concatenate([first.astype(array.dtype), array[:-1]])


class _Stages(Stateful):
    """What passes through a number of stages, one after another; its state has an axis of stages first."""

    #: What the order is called in messages.
    name: ClassVar[str]
    _order: int
    #: How many of the stages are passed, where that depends on traced values.
    _passed: Any = None

    def _known_order(self, order: Any) -> int:
        return int(known(order, f"the order of a {self.name}"))

    def _limit(self, order: Any, delay: Any, step: Any) -> None:
        """The order; lower where stages would be shorter than a time step."""
        self._order = self._known_order(order)
        dt = float(known(step, "the time step"))
        shortest = named(delay).data
        if is_known(shortest):
            while self._order * dt > np.min(shortest):
                self._order -= 1
            return
        fit = jnp.sum(jnp.arange(1, self._order + 1) * dt <= jnp.min(shortest))
        self._passed = jnp.maximum(fit, 1)

    @property
    def _count(self) -> Any:
        return self._order if self._passed is None else self._passed

    def _last(self, stages: Any) -> Any:
        if self._passed is None:
            return stages[-1]
        return jax.lax.dynamic_index_in_dim(stages, self._passed - 1, keepdims=False)

    def _repeated(self, data: Any) -> Any:
        return jnp.broadcast_to(jnp.asarray(data), (self._order, *jnp.shape(data)))


class Delay(_Stages):
    """DELAY1, DELAY3: material in transit, its state the material times the delay."""

    name = "delay"

    def __init__(
        self, given: Thunk, delay_time: Thunk, initial: Thunk, order: Thunk, step: Thunk, py_name: str
    ) -> None:
        self._input, self._time, self._initial = given, delay_time, initial
        self._asked, self._step, self.py_name = order, step, py_name

    def initial(self, given: Any = None) -> State:
        delay = named(self._time())
        self._limit(self._asked(), delay, self._step())
        return self._repeated(self._start(named(self._initial() if given is None else given) * delay))

    def value(self, state: State) -> Named:
        left: Named = self._named(self._last(state)) / self._time()
        return left

    def flow(self, state: State) -> State:
        out = state / self._laid(self._time())
        return (_shifted(out, self._laid(self._input())) - out) * self._count


class DelayN(Delay):
    """DELAY N: as `Delay`, but each stage keeps the delay that it was entered with."""

    name = "DELAY N"

    def initial(self, given: Any = None) -> State:
        stages = super().initial(given)
        return {"stages": stages, "times": self._repeated(self._laid(self._time()))}

    def value(self, state: State) -> Named:
        return self._named(self._last(state["stages"]) / state["times"][0])

    def begun(self, state: State) -> State:
        return {"stages": state["stages"], "times": _shifted(state["times"], self._laid(self._time()))}

    def flow(self, state: State) -> State:
        out = state["stages"] / state["times"]
        flow = (_shifted(out, self._laid(self._input())) - out) * self._count
        return {"stages": flow, "times": jnp.zeros_like(state["times"])}


class DelayFixed(Stateful):
    """DELAY FIXED: a pipe whose length is the delay; what leaves it entered it that many steps before."""

    flows = False

    def __init__(self, given: Thunk, delay_time: Thunk, initial: Thunk, step: Thunk, py_name: str) -> None:
        self._input, self._time, self._initial, self._step, self.py_name = given, delay_time, initial, step, py_name

    def initial(self, given: Any = None) -> State:
        start = self._start(self._initial() if given is None else given)
        delay, dt = named(self._time()).data, float(known(self._step(), "the time step"))
        if is_known(delay):
            # As PySD rounds it: half a step counts as one.
            self._length: Any = round(max(float(delay) / dt, 1) + 1e-6)
            slots, self._ring = self._length, True
        else:
            self._length = jnp.maximum(jnp.round(jnp.maximum(delay / dt, 1) + 1e-6), 1).astype(int)
            slots, self._ring = self.section.simulation.steps + 1, False
        pipe = jnp.broadcast_to(jnp.asarray(start), (slots, *jnp.shape(start)))
        return {"pipe": pipe, "start": jnp.asarray(start)}

    def value(self, state: State) -> Named:
        k = self.section.simulation.step_number
        if self._ring:
            return self._named(jax.lax.dynamic_index_in_dim(state["pipe"], k % self._length, keepdims=False))
        entered = k - self._length
        found = jax.lax.dynamic_index_in_dim(state["pipe"], jnp.maximum(entered, 0), keepdims=False)
        return self._named(jnp.where(entered < 0, state["start"], found))

    def updated(self, state: State) -> State:
        k = self.section.simulation.step_number
        value = jnp.asarray(self._laid(self._input()), state["pipe"].dtype)
        slot = k % self._length if self._ring else k
        return {**state, "pipe": jax.lax.dynamic_update_index_in_dim(state["pipe"], value, slot, 0)}


class Forecast(Stateful):
    """FORECAST: a trend carried on."""

    def __init__(self, given: Thunk, average_time: Thunk, horizon: Thunk, initial_trend: Thunk, py_name: str) -> None:
        self._input, self._average, self._horizon = given, average_time, horizon
        self._trend, self.py_name = initial_trend, py_name

    def initial(self, given: Any = None) -> State:
        trend = self._trend() if given is None else given
        return self._start(named(self._input()) / (1 + named(trend)))

    def value(self, state: State) -> Named:
        now, average = named(self._input()), self._named(state)
        ahead: Named = now * (1 + _zidz(now - average, self._average() * average) * self._horizon())
        return ahead

    def flow(self, state: State) -> State:
        return self._laid((named(self._input()) - self._named(state)) / self._average())


class Trend(Stateful):
    """TREND: the fractional rate of change."""

    def __init__(self, given: Thunk, average_time: Thunk, initial_trend: Thunk, py_name: str) -> None:
        self._input, self._average, self._trend, self.py_name = given, average_time, initial_trend, py_name

    def initial(self, given: Any = None) -> State:
        trend = named(self._trend() if given is None else given)
        return self._start(named(self._input()) / (1 + trend * self._average()))

    def value(self, state: State) -> Named:
        average = self._named(state)
        return _zidz(named(self._input()) - average, self._average() * abs(average))

    def flow(self, state: State) -> State:
        return self._laid((named(self._input()) - self._named(state)) / self._average())


class Smooth(_Stages):
    """SMOOTH, SMOOTH3, SMOOTH N: exponential smoothing in stages."""

    name = "smooth"

    def __init__(self, given: Thunk, smooth_time: Thunk, initial: Thunk, order: Thunk, py_name: str) -> None:
        self._input, self._time, self._initial = given, smooth_time, initial
        self._asked, self.py_name = order, py_name

    def initial(self, given: Any = None) -> State:
        self._order = self._known_order(self._asked())
        return self._repeated(self._start(self._initial() if given is None else given))

    def value(self, state: State) -> Named:
        return self._named(state[-1])

    def flow(self, state: State) -> State:
        targets = _shifted(state, self._laid(self._input()))
        return (targets - state) * self._order / self._laid(self._time())


class SampleIfTrue(Stateful):
    """SAMPLE IF TRUE: the last value at which a condition held."""

    flows = False

    def __init__(self, condition: Thunk, actual: Thunk, initial: Thunk, py_name: str) -> None:
        self._condition, self._actual, self._initial, self.py_name = condition, actual, initial, py_name

    def initial(self, given: Any = None) -> State:
        return self._start(self._initial() if given is None else given)

    def value(self, state: State) -> Named:
        return where(self._condition(), self._actual, lambda: self._named(state))

    def updated(self, state: State) -> State:
        return self._laid(self.value(state))


class Initial(Stateful):
    """INITIAL: a value kept from the start."""

    flows = False

    def __init__(self, initial: Thunk, py_name: str) -> None:
        self._initial, self.py_name = initial, py_name

    def initial(self, given: Any = None) -> State:
        return self._start(self._initial() if given is None else given)

    def value(self, state: State) -> Named:
        return self._named(state)

    def updated(self, state: State) -> State:
        return state


STATEFULS = {
    cls.__name__: cls
    for cls in (Integ, NonNegativeInteg, Delay, DelayN, DelayFixed, Forecast, Trend, Smooth, SampleIfTrue, Initial)
}
