"""The steps of a run: Euler's, as Vensim and PySD have them, or Runge and Kutta's.

An outer scan goes over the times that are returned, an inner one over the steps between them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from parfit.mdl.compiled.clock import Ticks
from parfit.mdl.compiled.named import Named, is_known

if TYPE_CHECKING:
    from parfit.mdl.compiled.dependencies import Node
    from parfit.mdl.compiled.simulation import Simulation
    from parfit.mdl.compiled.statefuls import Stateful

__all__ = ["Integration"]


class Integration:
    """The steps of a run.

    Parameters
    ----------
    simulation
        Started.
    statefuls
        What moves, by key.
    order
        The variables that change over time, each after what it needs.
    columns
        What is read.
    clock
        The times.
    integrator
        ``"euler"`` or ``"rk4"``.
    """

    def __init__(
        self,
        simulation: Simulation,
        statefuls: Mapping[str, Stateful],
        order: Sequence[Node],
        columns: Sequence[str],
        clock: Ticks,
        integrator: str,
    ) -> None:
        self._simulation, self._statefuls, self._order = simulation, statefuls, order
        self._clock, self._integrator = clock, integrator
        main = simulation.main
        fixed = [name for name in columns if not simulation.dependencies.changes((main, name))]
        self._constant = {name: simulation.value(main, name) for name in fixed}
        self._columns = [name for name in columns if name not in self._constant]
        self._axes: dict[str, Named] = {}
        simulation.moment.values.clear()
        self._read_order = simulation.direct([(main, name) for name in self._columns])

    def run(self) -> dict[str, tuple[Any, Named]]:
        clock, saved = self._clock, self._clock.saved
        found: dict[str, Any] = {}
        if len(saved) and self._columns:
            states = self._entangled({key: self._simulation.states[key] for key in self._statefuls})
            states = self._advanced(states, 0, int(saved[0]))
            first = self._read(states, clock.times[saved[0]], clock.steps[saved[0]], int(saved[0]))
            found = jax.tree.map(lambda a: a[None], first)
            if len(saved) > 1:
                rest = self._rest(states)
                found = jax.tree.map(lambda a, b: jnp.concatenate([a, b.astype(a.dtype)]), found, rest)
        for name, value in self._constant.items():
            self._axes[name] = value
            data = jnp.asarray(value.data)
            found[name] = jnp.broadcast_to(data, (len(saved), *data.shape))
        return {name: (data, self._axes[name]) for name, data in found.items()}

    def _rest(self, states: Any) -> Any:
        """What is read at all saved times but the first."""
        saved = self._clock.saved
        gaps = np.diff(saved)
        unit = int(np.gcd.reduce(gaps))
        first, last = int(saved[0]), int(saved[-1])

        def stretch(states: Any, ticks: Any) -> Any:
            states = self._scanned(states, jax.tree.map(lambda a: a[:-1], ticks)) if unit > 1 else states
            time, step, number = jax.tree.map(lambda a: a[-1], ticks)
            return self._stepped(states, time, step, number)

        def body(states: Any, ticks: Any) -> Any:
            inner, (time, step, number) = ticks
            states = stretch(states, inner)
            return states, self._read(states, time, step, number)

        shaped = jax.tree.map(lambda a: a.reshape(-1, unit), self._ticks(first, last))
        ends = self._ticks(first + unit, last + 1, unit)
        _, read = jax.lax.scan(body, states, (shaped, ends))
        wanted = (np.cumsum(gaps) // unit) - 1
        if len(wanted) < (last - first) // unit:
            read = jax.tree.map(lambda a: a[wanted], read)
        return read

    def _ticks(self, first: int, last: int, every: int = 1) -> tuple[Any, Any, Any]:
        clock = self._clock
        chosen = slice(first, last, every)
        return (
            jnp.asarray(clock.times[chosen], self._dtype),
            jnp.asarray(clock.steps[chosen], self._dtype),
            jnp.arange(first, last, every),
        )

    def _advanced(self, states: Any, first: int, last: int) -> Any:
        return self._scanned(states, self._ticks(first, last)) if last > first else states

    def _scanned(self, states: Any, ticks: Any) -> Any:
        return jax.lax.scan(lambda states, tick: (self._stepped(states, *tick), None), states, ticks)[0]

    def _entangled(self, states: Any) -> Any:
        """The states, each of which depends on all that is given.

        Under `vmap` and `jvp` a scan is traced again for each part of its state that turns out to depend on what is
        mapped, one after another along a chain of stocks. What is never selected makes each part, and its derivatives,
        depend on everything; it is safe for NaN and infinity, and XLA leaves it out.
        """
        given = [array for array in self._simulation.inputs.arrays() if not is_known(array)]
        floats = [array for array in given if jnp.issubdtype(array.dtype, jnp.floating)]
        self._dtype = jnp.result_type(*floats) if floats else jnp.result_type(float)
        states = jax.tree.map(lambda a: jnp.asarray(a, self._dtype), states)
        if not given:
            return states
        everything: Any = sum(jnp.sum(array) for array in given)
        everything = jnp.asarray(everything, self._dtype)
        return jax.tree.map(
            lambda a: jax.lax.select(jnp.zeros(a.shape, bool), jnp.broadcast_to(everything, a.shape), a), states
        )

    def _compute(self) -> None:
        for node in self._order:
            self._simulation.value(*node)

    def _flows(self, states: Any, time: Any, number: Any) -> Any:
        with self._simulation.at(time, number, states):
            self._compute()
            flows = {}
            for key, stateful in self._statefuls.items():
                if stateful.flows:
                    with self._simulation.within(stateful):
                        flows[key] = stateful.flow(states[key])
            return flows

    def _stepped(self, states: Any, time: Any, step: Any, number: Any) -> Any:
        """The states a step later."""
        simulation = self._simulation
        with simulation.at(time, number, states):
            self._compute()
            new = {}
            begun = {}
            for key, stateful in self._statefuls.items():
                with simulation.within(stateful):
                    if stateful.flows:
                        begun[key] = stateful.begun(states[key])
                        new[key] = stateful.flow(begun[key])
                    else:
                        new[key] = stateful.updated(states[key])
        flows = {key: new[key] for key in begun}
        if self._integrator == "rk4":
            flows = self._fourth_order(begun, flows, states, time, step, number)
        for key, flow in flows.items():
            moved = jax.tree.map(lambda a, b: a + jnp.asarray(b, a.dtype) * step, begun[key], flow)
            new[key] = self._statefuls[key].settled(moved)
        return jax.tree.map(lambda a, b: jnp.asarray(b, a.dtype), states, new)

    def _fourth_order(self, begun: Any, first: Any, states: Any, time: Any, step: Any, number: Any) -> Any:
        """The mean flow of a step by Runge and Kutta's method of fourth order; what does not flow is held."""

        def at(flows: Any, part: float) -> Any:
            moved = jax.tree.map(lambda a, b: a + jnp.asarray(b, a.dtype) * (step * part), begun, flows)
            return self._flows({**states, **moved}, time + step * part, number)

        second = at(first, 0.5)
        third = at(second, 0.5)
        fourth = at(third, 1.0)
        return jax.tree.map(lambda a, b, c, d: (a + 2 * b + 2 * c + d) / 6, first, second, third, fourth)

    def _read(self, states: Any, time: Any, step: Any, number: Any) -> Any:  # noqa: ARG002
        simulation = self._simulation
        with simulation.at(jnp.asarray(time, self._dtype), number, states):
            found = {}
            for node in self._read_order:
                simulation.value(*node)
            for name in self._columns:
                value = self._axes[name] = simulation.value(simulation.main, name)
                found[name] = jnp.asarray(value.data, self._dtype)
            return found
