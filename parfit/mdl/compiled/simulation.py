"""One run of a model inside a trace: its start, its steps, and what is read off at the times that are returned.

    texts ──Section──▶ functions of variables ─┐
    params, initial ──────────────────────────▶ Simulation ──▶ column -> array over time
    Ticks (known while compiling) ────────────┘

What does not change over time is computed once, before the first step. The values of one moment are computed in the
order of what they need, each once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from parfit.mdl.compiled.clock import Ticks, ticks
from parfit.mdl.compiled.dependencies import Dependencies, Node, nodes_in
from parfit.mdl.compiled.inputs import Inputs, Settings
from parfit.mdl.compiled.integration import Integration
from parfit.mdl.compiled.interpolation import interpolated
from parfit.mdl.compiled.named import Named, exactly, known, named
from parfit.mdl.compiled.section import Section
from parfit.mdl.compiled.statefuls import Initial, Stateful
from parfit.mdl.compiled.tables import ExtConstant, Knots, Table
from parfit.mdl.compiled.unsupported import StructuralError, Unsupported
from parfit.mdl.source import Source

__all__ = ["ModelTime", "Simulation"]


#: What goes wrong while a text is evaluated.
_PYTHONS = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
#: More variables than this that need each other are computed in their order, each by itself, rather than when asked
#: for: Python's stack is not long.
_DEEP = 50


class ModelTime:
    """What PySD's translation takes for the model's clock."""

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation

    def __call__(self) -> Named:
        return Named(self._simulation.moment.time)

    @property
    def stage(self) -> str:
        return self._simulation.moment.stage

    def _control(self, name: str) -> Any:
        return self._simulation.control(name)

    def initial_time(self) -> Any:
        return self._simulation.begin

    def final_time(self) -> Any:
        return self._control("final_time")

    def time_step(self) -> Any:
        return self._control("time_step")

    def saveper(self) -> Any:
        return self._control("saveper")


@dataclass(eq=False)
class Moment:
    """A time and what has been computed of it."""

    time: Any
    stage: str
    number: Any = 0
    values: dict[str, Any] = field(default_factory=dict)
    #: How many random numbers each variable has drawn.
    draws: dict[str, int] = field(default_factory=dict)


class Simulation:
    """A run.

    Parameters
    ----------
    source
        The texts and the data, complete.
    settings
        The times.
    inputs
        Parameters and stocks at the start.
    """

    def __init__(self, source: Source, settings: Settings, inputs: Inputs) -> None:
        self.settings, self.inputs = settings, inputs
        self.time = ModelTime(self)
        self.states: dict[str, Any] = {}
        self.constants: dict[str, Any] = {}
        self.steps = 0
        #: Variables that are whole numbers as Python has them, or truths throughout.
        self.kinds: dict[str, type] = {}
        self._running: dict[str, None] = {}
        self._exact: frozenset[str] = frozenset()
        self.moment = Moment(math.nan, "Load")
        self.start: Any = math.nan
        self.main = Section(self, source, source.main)
        self.tables: dict[str, Knots | Named] = {}
        for depth, part in enumerate(self.main.parts()):
            for table in part.tables():
                table.held(source.data.get(f"{depth}/{table.key.removeprefix(part.key)}"))
        self.dependencies = Dependencies()
        self._own_start: Any = math.nan
        self._origin = self.moment
        self._own_start = self._model_start({})
        self._take(inputs.params)
        self.start = settings.start
        if self.start is None:
            self.start = self._model_start(inputs.params)
        if inputs.initial is None:
            self._own_start = self.start
        self.moment.time = float(self.start)

    def _model_start(self, params: Mapping[str, Any]) -> int | float:
        """The model's own initial time, with some parameters."""
        if params:
            self.dependencies.forget_changes()
        start = self.main.namespace["_control_vars"]["initial_time"]()
        return start if type(start) is int else float(known(start, "the initial time"))

    def _take(self, params: Mapping[str, Named | Knots]) -> None:
        """Put parameters into the place of variables; lookups and data hold theirs in tables."""
        self.constants.clear()
        self.kinds.clear()
        self.moment.values.clear()
        overrides: dict[str, Named | Knots] = {}
        for name, value in params.items():
            table = self._table_of(name)
            if table is None:
                overrides[name] = value
            else:
                self.tables[table] = value
        self.dependencies.overrides = overrides

    def _table_of(self, name: str) -> str | None:
        function = self.main.elements[name].function
        held = [self.main.namespace.get(called) for called in function.__code__.co_names]
        tables = [value.key for value in held if isinstance(value, Table) and not isinstance(value, ExtConstant)]
        return tables[0] if tables else None

    # The values of variables.

    def value(self, section: Section, name: str, *arguments: Any) -> Any:
        """The value of a variable at this moment, computed once; or of a lookup at its argument."""
        key = section.key + name
        if arguments:
            return section.elements[name].function(*arguments)
        for held in (self.constants, self.moment.values):
            if key in held:
                return held[key]
        if key in self._running:
            raise Unsupported("a circle of variables that need each other at one time", name)
        self._running[key] = None
        try:
            with exactly(key in self._exact):
                value = self._computed(section, name, key)
        except StructuralError as error:
            if not error.names:
                raise StructuralError(error.what, tuple(self._running)) from None
            raise
        except Unsupported as error:
            raise error if error.where else Unsupported(error.what, key) from None
        except _PYTHONS as error:  # of numbers in the text, for example; PySD may never come to them
            raise Unsupported(f"{type(error).__name__}: {error}", key) from error
        finally:
            del self._running[key]
        apart = self._starts_twice and self.moment.stage == "Initialization"  # each with an initial time of its own
        (self.moment.values if apart or self.dependencies.changes((section, name)) else self.constants)[key] = value
        return value

    @property
    def begin(self) -> Any:
        """The initial time, at this moment."""
        return self._own_start if self._starts_twice and self.moment is self._origin else self.start

    @property
    def _starts_twice(self) -> bool:
        """Whether the run starts at another time than the model."""
        return self.inputs.initial is not None and self._own_start != self.start

    def _computed(self, section: Section, name: str, key: str) -> Named:
        override = self.dependencies.overrides.get(key)
        if isinstance(override, Named):
            return override
        if override is not None:
            value = interpolated(named(self.time()).data, override.x, override.y, "interpolate")
            return Named(value, override.coords, override.dims)
        value = section.elements[name].function()
        found = named(value)
        self.kinds.pop(key, None)  # at the start it may have been another
        if type(value) is int and not self.dependencies.changes((section, name)):
            self.kinds[key] = int
        elif jnp.result_type(found.data) == np.bool_:
            self.kinds[key] = bool
        return found

    def direct(self, nodes: Iterable[Node]) -> list[Node]:
        """What is computed at this moment, each after what it needs, where that is much; nothing where it is little."""
        within: dict[str, Node] = {}
        waiting = list(nodes)
        while waiting:
            section, name = waiting.pop()
            key = section.key + name
            known = key in within or key in self.constants or key in self.moment.values
            if name in section.elements and not known and not section.elements[name].takes_argument:
                within[key] = (section, name)
                waiting += self.dependencies.needs((section, name))
        return self.dependencies.closure(within.values(), only=within) if len(within) > _DEEP else []

    def control(self, name: str) -> Any:
        """A setting of the run: as given, or the model's own."""
        given = self.settings.end if name == "final_time" else getattr(self.settings, name)
        if given is not None:
            return given
        return self.main.namespace["_control_vars"][name]()

    def draw(self) -> Any:
        """A key of its own for each random function at each step."""
        if self.inputs.key is None:
            raise Unsupported("random numbers")
        stage = 0 if self.moment.stage == "Run" else 1
        key = jax.random.fold_in(jax.random.fold_in(self.inputs.key, stage), self.moment.number)
        # By the place where it stands, which is the same however often the program is traced.
        where = next(reversed(self._running), "")
        place = sum(ord(c) * 31**i for i, c in enumerate(where)) % 2**31
        self.moment.draws[where] = count = self.moment.draws.get(where, 0) + 1
        return jax.random.fold_in(jax.random.fold_in(key, place), count)

    @property
    def step_number(self) -> Any:
        """How many steps have been taken."""
        return self.moment.number

    # The start.

    def state_of(self, stateful: Stateful) -> Any:
        """The state of a stock or delay at this moment; at the start it is worked out when it is asked for."""
        if stateful.key not in self.states:
            if self.moment.stage != "Initialization":
                raise Unsupported("a setting of the run that depends on a stock", stateful.key)
            self.states[stateful.key] = self._started(stateful)
        return self.states[stateful.key]

    def _started(self, stateful: Stateful) -> Any:
        if stateful.key in self._running:
            raise Unsupported("stocks that need each other's start", stateful.key)
        before = self.moment
        self.moment = self._begun if stateful.key in self._restarted else self._origin
        try:
            with self.within(stateful):
                given = self._given(stateful)
                self._compute_first(stateful)
                return stateful.initial() if given is None else stateful.initial(given)
        finally:
            self.moment = before

    def _compute_first(self, stateful: Stateful) -> None:
        """What the start of a stock is computed from."""
        if (node := self._nodes_of.get(stateful.key)) is not None:
            section, name = node
            for needed in self.direct(nodes_in(section, section.needs[name].initial)):
                self.value(*needed)

    def _given(self, stateful: Stateful) -> Named | None:
        """What the caller starts a stock with; of one that has several equations, the part of this one."""
        name = self._givers.get(stateful.key)
        if name is None:
            return None
        whole = (self.inputs.initial or {})[name]
        if len(self.main.elements[name].needs) == 1:
            return whole
        stateful.initial()
        coords, dims = stateful._coords, stateful._dims
        part = whole.loc[tuple(list(labels) for labels in coords.values())]
        return Named(part.data, coords, dims)

    def _prepare_start(self, needed: Sequence[Node]) -> None:
        """As PySD does: all at the model's own start; then, at the one asked for, what is given and depends on that."""
        self._givers = {
            held.key: name
            for name in self.inputs.initial or {}
            for need in self.main.elements[name].needs
            if isinstance(held := self.main.namespace.get(need), Stateful)
        }
        self._origin = Moment(float(self._own_start), "Initialization")
        self._begun = Moment(float(self.start), "Initialization")
        self._restarted = set(self._givers)
        for section, name in needed:
            held = section.namespace.get(name)
            if isinstance(held, Stateful) and self._givers and held.key not in self._restarted:
                reached = self.dependencies.closure(nodes_in(section, section.needs[name].initial), initial=True)
                if any(part.key + other in self._givers for part, other in reached):
                    self._restarted.add(held.key)

    # The run.

    def ticks(self) -> Ticks:
        """The times of the run."""

        def at(name: str) -> Callable[[int | float], int | float]:
            def read(t: int | float) -> int | float:
                self.moment = Moment(t, "Run")
                value = self.control(name)
                return value if type(value) is int else float(known(value, name.replace("_", " ")))

            if any(self.dependencies.changes(node) for node in nodes_in(self.main, (name,))) and self._own(name):
                return read
            value = read(float(self.start))
            return lambda _: value

        return ticks(self.start, at("time_step"), at("final_time"), at("saveper"), self.settings.stamps)

    def _own(self, name: str) -> bool:
        given = self.settings.end if name == "final_time" else getattr(self.settings, name)
        return given is None

    def run(self, columns: Sequence[str], clock: Ticks, integrator: str = "euler") -> dict[str, tuple[Any, Named]]:
        """Column -> its values, with an axis of times first, of the length of `Ticks.saved`; and its other axes."""
        roots = [(self.main, column) for column in columns]
        needed = self.dependencies.closure(roots)
        cutting = [node for node in needed if node[1] in node[0].elements and node[0].elements[node[1]].cuts]
        self._exact = frozenset(section.key + name for section, name in self.dependencies.closure(cutting))
        remembered = [n for n in needed if isinstance(n[0].namespace.get(n[1]), Stateful)]
        self._nodes_of = {section.namespace[name].key: (section, name) for section, name in remembered}
        held = {s.namespace[name].key: s.namespace[name] for s, name in remembered if name not in s.elements}
        self.steps = int(clock.saved[-1]) if len(clock.saved) else 0
        self._prepare_start(needed)
        self.moment = self._begun
        for stateful in held.values():
            self.state_of(stateful)
        fixed = {key: self.states.pop(key) for key, stateful in held.items() if isinstance(stateful, Initial)}
        self._fixed = fixed
        moving = {key: stateful for key, stateful in held.items() if key not in fixed}
        self.moment = Moment(float(self.start), "Run")
        self.states = {**self.states, **fixed}
        variables = [(s, n) for s, n in needed if n in s.elements and not s.elements[n].takes_argument]
        for node in variables:
            if not self.dependencies.changes(node):
                self.value(*node)
        order = [node for node in variables if self.dependencies.changes(node)]
        return Integration(self, moving, order, columns, clock, integrator).run()

    @contextmanager
    def at(self, time: Any, number: Any, states: Mapping[str, Any]) -> Iterator[None]:
        """A moment of the run, with the states of it."""
        before = self.moment, self.states
        self.moment, self.states = Moment(time, "Run", number), {**self._fixed, **states}
        try:
            yield
        finally:
            self.moment, self.states = before

    @property
    def cuts(self) -> bool:
        """Whether numbers are cut to whole ones, by `exactly` computed quotients."""
        return bool(self._exact)

    @contextmanager
    def within(self, stateful: Stateful) -> Iterator[None]:
        """While a stock is computed: divisions as they have to be there, and its name in what is raised."""
        self._running[stateful.key] = None
        try:
            with exactly(stateful.key in self._exact):
                yield
        except StructuralError as error:
            if not error.names:
                raise StructuralError(error.what, tuple(self._running)) from None
            raise
        except Unsupported as error:
            raise error if error.where else Unsupported(error.what, stateful.key) from None
        finally:
            del self._running[stateful.key]
