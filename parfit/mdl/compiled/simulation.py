"""One run of a model inside a trace: its start, its steps, and what is read off at the times that are returned.

    texts ──Section──▶ functions of variables ─┐
    params, initial ──────────────────────────▶ Simulation ──▶ column -> array over time
    Ticks (known while compiling) ────────────┘

What does not change over time is computed once, before the first step. The values of one moment are computed in the
order of what they need, each once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from parfit.mdl.compiled.clock import Ticks, ticks
from parfit.mdl.compiled.inputs import Inputs, Settings
from parfit.mdl.compiled.integration import Integration
from parfit.mdl.compiled.interpolation import interpolated
from parfit.mdl.compiled.named import Named, exactly, known, named
from parfit.mdl.compiled.section import Macro, Section
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

#: A variable, stock, delay or macro: its section and its name there.
Node = tuple[Section, str]


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
        self._changing: dict[str, bool] = {}
        self._exact: frozenset[str] = frozenset()
        self.moment = Moment(math.nan, "Load")
        self.start: Any = math.nan
        self.main = Section(self, source, source.main)
        self.tables: dict[str, Knots | Named] = {}
        for depth, part in enumerate(self.main.parts()):
            for table in part.tables():
                table.held(source.data.get(f"{depth}/{table.key.removeprefix(part.key)}"))
        self._overrides: dict[str, Named | Knots] = {}
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
            self._changing.clear()
        start = self.main.namespace["_control_vars"]["initial_time"]()
        return start if type(start) is int else float(known(start, "the initial time"))

    def _take(self, params: Mapping[str, Named | Knots]) -> None:
        """Put parameters into the place of variables; lookups and data hold theirs in tables."""
        self.constants.clear()
        self.kinds.clear()
        self.moment.values.clear()
        self._overrides = {}
        for name, value in params.items():
            table = self._table_of(name)
            if table is None:
                self._overrides[name] = value
            else:
                self.tables[table] = value

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
        (self.moment.values if apart or self.changes((section, name)) else self.constants)[key] = value
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
        override = self._overrides.get(key)
        if isinstance(override, Named):
            return override
        if override is not None:
            value = interpolated(named(self.time()).data, override.x, override.y, "interpolate")
            return Named(value, override.coords, override.dims)
        value = section.elements[name].function()
        found = named(value)
        self.kinds.pop(key, None)  # at the start it may have been another
        if type(value) is int and not self.changes((section, name)):
            self.kinds[key] = int
        elif jnp.result_type(found.data) == np.bool_:
            self.kinds[key] = bool
        return found

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

    # What needs what.

    def _nodes(self, section: Section, names: Iterable[str]) -> Iterator[Node]:
        # In an order that is the same in every process, so that the program is the same text, and is found again.
        for name in sorted(names):
            if name in section.elements or name in section.needs:
                yield section, name

    def needs(self, node: Node, *, initial: bool | None = None) -> Iterator[Node]:
        """What a node is computed from; of what is remembered: at the start, at each step, or (None) both."""
        section, name = node
        if name in section.elements:
            if section.key + name not in self._overrides:
                yield from self._nodes(section, section.elements[name].needs)
            return
        needs = section.needs[name]
        held = section.namespace.get(name)
        if isinstance(held, Macro):
            yield held.inner, held.result
        if initial is not False:
            yield from self._nodes(section, needs.initial)
        if initial is not True or isinstance(held, Macro):
            yield from self._nodes(section, needs.step)

    def closure(
        self, nodes: Iterable[Node], *, initial: bool | None = None, only: Collection[str] | None = None
    ) -> list[Node]:
        """Nodes and all (or only some) that they are computed from, each after what it needs, where no circle is."""
        found: dict[str, Node] = {}
        seen: set[str] = set()
        stack: list[tuple[Node, Iterator[Node]]] = []

        def push(node: Node) -> None:
            key = node[0].key + node[1]
            if key not in seen and (only is None or key in only):
                seen.add(key)
                stack.append((node, self.needs(node, initial=initial)))

        for root in nodes:
            push(root)
            while stack:
                node, waiting = stack[-1]
                following = next(waiting, None)
                if following is None:
                    stack.pop()
                    found[node[0].key + node[1]] = node
                else:
                    push(following)
        return list(found.values())

    def direct(self, nodes: Iterable[Node]) -> list[Node]:
        """What is computed at this moment, each after what it needs, where that is much; nothing where it is little."""
        within: dict[str, Node] = {}
        waiting = list(nodes)
        while waiting:
            section, name = waiting.pop()
            key = section.key + name
            known = key in within or key in self.constants or key in self.moment.values
            if name in section.elements and not known and not self._called_with((section, name)):
                within[key] = (section, name)
                waiting += self.needs((section, name))
        return self.closure(within.values(), only=within) if len(within) > _DEEP else []

    def changes(self, node: Node) -> bool:
        """Whether a variable changes over time."""
        key = node[0].key + node[1]
        if key not in self._changing:
            for part, name in self.closure([node], initial=True):
                inner = part.key + name
                if inner not in self._changing:
                    self._changing[inner] = self._changes_itself(part, name) or any(
                        self._changing.get(other[0].key + other[1], False)
                        for other in self.needs((part, name), initial=True)
                        if not isinstance(part.namespace.get(name), Initial)
                    )
        return self._changing[key]

    def _changes_itself(self, section: Section, name: str) -> bool:
        element = section.elements.get(name)
        if element is None:
            return not isinstance(section.namespace.get(name), Initial)
        override = self._overrides.get(section.key + name)
        if override is not None:
            return isinstance(override, Knots)
        return name == "time" or element.draws or "time" in element.needs

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
            for needed in self.direct(self._nodes(section, section.needs[name].initial)):
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
                reached = self.closure(self._nodes(section, section.needs[name].initial), initial=True)
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

            if any(self.changes(node) for node in self._nodes(self.main, (name,))) and self._own(name):
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
        needed = self.closure(roots)
        cutting = [node for node in needed if node[1] in node[0].elements and node[0].elements[node[1]].cuts]
        self._exact = frozenset(section.key + name for section, name in self.closure(cutting))
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
        for node in needed:
            if node[1] in node[0].elements and not self.changes(node) and not self._called_with(node):
                self.value(*node)
        order = [n for n in needed if n[1] in n[0].elements and self.changes(n) and not self._called_with(n)]
        return Integration(self, moving, order, columns, clock, integrator).run()

    def _called_with(self, node: Node) -> bool:
        """Whether a variable takes an argument."""
        return bool(node[0].elements[node[1]].function.__code__.co_argcount)

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
