"""Compiled runs of one model, kept by what they are compiled for.

A program is compiled for names, shapes and times; the numbers are its arguments. A parameter on which the structure
depends, such as the order of a delay, is part of what a program is compiled for.
"""

from __future__ import annotations

import functools
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from parfit.mdl.compiled.clock import Ticks
from parfit.mdl.compiled.inputs import CONTROLS, Inputs, Settings
from parfit.mdl.compiled.named import Named
from parfit.mdl.compiled.simulation import Simulation
from parfit.mdl.compiled.statefuls import Integ
from parfit.mdl.compiled.tables import Knots
from parfit.mdl.compiled.unsupported import StructuralError, Unsupported
from parfit.mdl.source import Source

__all__ = ["Asked", "Programs", "Result"]

_KEPT = 32
_CLOCKS = 1024
#: Where a run has more numbers than this, only those are read that are returned.
_MOST_READ = 1_000_000
#: A model that uses more constructs than this which are not compiled is not looked through further.
_NAMED = 50
#: The older code generator takes half the time to compile a long run of scalar equations, and its code is as fast
#: (`benchmarks/simulate.py`). It passes over barriers, so that models in which a quotient decides go without it.
_CPU_OPTIONS: dict[str, str | bool] = {"xla_cpu_use_fusion_emitters": False}


@dataclass(frozen=True, eq=False)
class Asked:
    """A run.

    Attributes
    ----------
    settings, inputs
        As `Simulation` takes them.
    columns
        Python identifiers.
    integrator
        ``"euler"`` or ``"rk4"``.
    seed
        Of random functions; None where there are to be none.
    """

    settings: Settings
    inputs: Inputs
    columns: tuple[str, ...]
    integrator: str = "euler"
    seed: Any = None


@dataclass(frozen=True, eq=False)
class Result:
    """What a run gave.

    Attributes
    ----------
    clock
        The times.
    values
        Column to an array, the first axis that of `Ticks.saved`.
    coords
        Column to the labels of its other axes.
    kinds
        Columns that are whole numbers, or truths, throughout, with `int` or `bool`.
    """

    clock: Ticks
    values: Mapping[str, Any]
    coords: Mapping[str, Mapping[str, Sequence[str]]]
    kinds: frozenset[tuple[str, type]] = frozenset()


@dataclass(frozen=True, eq=False)
class _Program:
    run: Callable[..., Any]
    coords: Mapping[str, Mapping[str, Sequence[str]]]
    kinds: frozenset[tuple[str, type]]


class Programs:
    """The compiled runs of a model.

    Parameters
    ----------
    source
        The model, complete.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._made: OrderedDict[Any, _Program | Unsupported] = OrderedDict()
        self._structural: set[str] = set()
        self._clocks: OrderedDict[Hashable, Ticks] = OrderedDict()
        self._timeless: dict[tuple[str, ...], bool] = {}
        self._free_of: dict[tuple[str, ...], frozenset[str]] = {}
        self._lock = threading.RLock()

    def unsupported(self, columns: Sequence[str], shapes: Mapping[str, Mapping[str, Sequence[str]]]) -> list[str]:
        """What keeps the model from being compiled: each construct with the variable that uses it.

        Parameters
        ----------
        columns
            All variables that have a value over time.
        shapes
            Their axes.
        """
        found: list[str] = []
        skipped: dict[str, Named | Knots] = {}
        while len(found) < _NAMED:
            try:
                with jax.enable_x64(True):
                    jax.eval_shape(lambda seed: self._probe(columns, skipped, seed), jnp.uint32(0))
                return found
            except Unsupported as error:
                name = error.where if error.where in shapes else self._user_of(error.where)
                found.append(str(Unsupported(error.what, name or error.where)))
                if name is None or name in skipped:
                    return found
                skipped[name] = Named(0.0, shapes[name], list(shapes[name]))
            except Exception as error:  # noqa: BLE001 - whatever it is, PySD runs the model
                return [*found, f"{type(error).__name__}: {error}"]
        return found

    def _probe(self, columns: Sequence[str], skipped: Mapping[str, Any], seed: Any) -> Any:
        simulation = Simulation(self._source, Settings(), Inputs(skipped, None, jax.random.key(seed)))
        clock = simulation.ticks()
        short = replace(clock, times=clock.times[:2], steps=clock.steps[:2], saved=np.arange(len(clock.times[:2])))
        return {name: data for name, (data, _) in simulation.run(columns, short).items()}

    def changing(self, columns: Sequence[str], params: Mapping[str, bool]) -> frozenset[str]:
        """Those variables that change over time, where some are given: True for those that are given over time."""
        with jax.enable_x64(True):
            given = {name: Knots(0, 0, {}, ()) if varies else Named(0.0) for name, varies in params.items()}
            simulation = Simulation(self._source, Settings(), Inputs(given))
            return frozenset(name for name in columns if simulation.dependencies.changes((simulation.main, name)))

    def _user_of(self, where: str) -> str | None:
        """The variable that uses a stock or delay."""
        with jax.enable_x64(True):
            main = Simulation(self._source, Settings(), Inputs()).main
        return next((name for name, element in main.elements.items() if where.split("/")[0] in element.needs), None)

    def traced(self, asked: Asked) -> Result:
        """A run inside the caller's own trace."""
        simulation = Simulation(self._source, asked.settings, _keyed(asked))
        clock = simulation.ticks()
        found = simulation.run(asked.columns, clock, asked.integrator)
        return Result(clock, {n: data for n, (data, _) in found.items()}, {n: a.coords for n, (_, a) in found.items()})

    def run(self, asked: Asked) -> Result:
        """A run, compiled the first time that one of its kind is asked for.

        Raises
        ------
        Unsupported
            Where this run cannot be compiled.
        """
        # At once, also where the caller is being traced: nothing of this run is.
        with jax.enable_x64(True), jax.ensure_compile_time_eval(), _on_the_processor():
            clock_key = self._clock_key(asked)
            clock = self._clock(asked, clock_key)
            if clock.skipped or not len(clock.saved):
                return Result(clock, {}, {})
            general = self._is_general(asked, clock)
            program, numbers = self._program(asked, clock, None if general else clock_key)
            seed = asked.seed if asked.seed is not None else 0
            flat = program.run(numbers, seed, *(_stretched(clock) if general else ()))
        values = {name: np.asarray(data) for name, data in flat.items()}
        if general:
            values = {name: data[clock.saved] for name, data in values.items()}
        return Result(clock, values, program.coords, program.kinds)

    # Times. A program that reads all steps serves runs of other ends and other times, too, with as many steps or a few
    # less: each row of a table may have times of its own.

    def _clock_key(self, asked: Asked) -> Hashable:
        params = asked.inputs.params
        own = sorted(self._clock_names & set(params))
        return asked.settings, tuple((name, *(a.tobytes() for a in _arrays(params[name]))) for name in own)

    @functools.cached_property
    def _clock_names(self) -> frozenset[str]:
        """The variables on which the times of a run depend."""
        simulation = Simulation(self._source, Settings(), Inputs())
        reached = simulation.dependencies.closure((simulation.main, name) for name in CONTROLS)
        return frozenset(name for section, name in reached if section is simulation.main)

    def _clock(self, asked: Asked, key: Hashable) -> Ticks:
        with self._lock:
            if key not in self._clocks:
                self._clocks[key] = Simulation(self._source, asked.settings, asked.inputs).ticks()
                while len(self._clocks) > _CLOCKS:
                    self._clocks.popitem(last=False)
            return self._clocks[key]

    def _free(self, columns: tuple[str, ...]) -> frozenset[str]:
        """The settings that no program knows, but for the times and steps, which are its arguments."""
        if columns not in self._free_of:
            simulation = Simulation(self._source, Settings(), Inputs())
            reached = simulation.dependencies.closure((simulation.main, name) for name in columns)
            names = {name for _, name in reached}.union(*(s.elements[n].needs for s, n in reached if n in s.elements))
            held = [section.namespace.get(name) for section, name in reached if name not in section.elements]
            free = set() if {"time", "initial_time"} & names else {"start"}
            if "time_step" not in names and all(type(one) is Integ for one in held):
                free.add("time_step")
            self._free_of[columns] = frozenset(free)
        return self._free_of[columns]

    def _is_general(self, asked: Asked, clock: Ticks) -> bool:
        """Whether the program is one that reads all steps."""
        if asked.columns not in self._timeless:
            simulation = Simulation(self._source, Settings(), Inputs())
            reached = simulation.dependencies.closure((simulation.main, name) for name in asked.columns)
            self._timeless[asked.columns] = not {"final_time", "saveper"} & {name for _, name in reached}
        return self._timeless[asked.columns] and _room_for(len(clock.times)) * len(asked.columns) <= _MOST_READ

    def _program(self, asked: Asked, clock: Ticks, clock_key: Hashable) -> tuple[_Program, Any]:
        while True:
            params = sorted(asked.inputs.params.items())
            moving = {n: v for n, v in params if n not in self._structural}
            fixed = {n: v for n, v in params if n in self._structural}
            initial = None if asked.inputs.initial is None else dict(sorted(asked.inputs.initial.items()))
            numbers, rebuild = _flattened(moving, initial)
            free = self._free(asked.columns)
            own = [None if name in free else getattr(asked.settings, name) for name in ("start", "time_step")]
            room = _room_for(len(clock.times))
            key = (
                (*own, room) if clock_key is None else clock_key,
                asked.columns,
                asked.integrator,
                asked.seed is None,
                tuple((n, *_signature(v)) for n, v in moving.items()),
                None if initial is None else tuple((n, v.shape) for n, v in initial.items()),
                tuple((n, *_signature(v), *(a.tobytes() for a in _arrays(v))) for n, v in fixed.items()),
            )
            with self._lock:
                if key not in self._made:
                    try:
                        known = None if clock_key is None else clock
                        self._made[key] = self._compiled(asked, fixed, numbers, rebuild, known, room)
                    except StructuralError as error:
                        culprits = self._culprits(error, moving)
                        if culprits:
                            self._structural |= culprits
                            continue
                        self._made[key] = error
                    except Unsupported as error:
                        self._made[key] = error
                    except Exception as error:  # noqa: BLE001 - whatever it is, PySD runs the model
                        self._made[key] = Unsupported(f"{type(error).__name__}: {error}")
                    while len(self._made) > _KEPT:
                        self._made.popitem(last=False)
                self._made.move_to_end(key)
                program = self._made[key]
            if isinstance(program, Unsupported):
                raise program
            return program, numbers

    def _culprits(self, error: StructuralError, moving: Mapping[str, Any]) -> set[str]:
        """The parameters on which something depends that has to be known."""
        main = Simulation(self._source, Settings(), Inputs()).main
        names = [name for name in error.names if name in main.elements or name in main.needs]
        needed = main.simulation.dependencies.closure((main, name) for name in names)
        reached = {name for section, name in needed if section is main}
        return reached & set(moving) or set(moving)

    def _compiled(
        self,
        asked: Asked,
        fixed: Mapping[str, Any],
        numbers: Any,
        rebuild: Callable[[Any], tuple[Any, Any]],
        clock: Ticks | None,
        room: int,
    ) -> _Program:
        """A program: for the times of `clock`, or for any times in so much room."""
        made: dict[str, Any] = {}
        settings = asked.settings if clock is not None else replace(asked.settings, final_time=None, stamps=None)

        def function(numbers: Any, seed: Any, *ticks: Any) -> Any:
            params, initial = rebuild(numbers)
            inputs = Inputs({**fixed, **params}, initial, None if asked.seed is None else jax.random.key(seed))
            simulation = Simulation(self._source, settings, inputs)
            every = clock or Ticks(ticks[0], ticks[1], np.arange(room), np.zeros(room), ())
            found = simulation.run(asked.columns, every, asked.integrator)
            made["kinds"] = frozenset(simulation.kinds.items())
            made["cuts"] = simulation.cuts
            made["coords"] = {name: axes.coords for name, (_, axes) in found.items()}
            return {name: data for name, (data, _) in found.items()}

        with_barriers = jax.jit(function)
        ticks = () if clock is not None else (np.zeros(room), np.ones(room))
        with_barriers.trace(numbers, 0, *ticks)  # for what it makes known, and refuses
        run = with_barriers if made["cuts"] else jax.jit(function, compiler_options=_CPU_OPTIONS)
        return _Program(run, made["coords"], made["kinds"])


def _on_the_processor() -> AbstractContextManager[Any]:
    """A single run is a long chain of small steps, for which an accelerator is slow."""
    if jax.default_backend() == "cpu":
        return nullcontext()
    device: AbstractContextManager[Any] = jax.default_device(jax.local_devices(backend="cpu")[0])
    return device


def _room_for(times: int) -> int:
    """So many times, or up to a fourth more: four sizes for each doubling."""
    unit = max(4, 1 << max(0, (times - 1).bit_length() - 3))
    return -(-times // unit) * unit


def _stretched(clock: Ticks) -> tuple[Any, Any]:
    """The times and the steps, with more of the last until the room is filled."""
    more = _room_for(len(clock.times)) - len(clock.times)
    return np.pad(clock.times, (0, more), mode="edge"), np.pad(clock.steps, (0, more), mode="edge")


def _keyed(asked: Asked) -> Inputs:
    if asked.seed is None:
        return asked.inputs
    return replace(asked.inputs, key=jax.random.key(asked.seed))


def _arrays(value: Named | Knots) -> list[Any]:
    return [np.asarray(value.x), np.asarray(value.y)] if isinstance(value, Knots) else [np.asarray(value.data)]


def _signature(value: Named | Knots) -> tuple[Any, ...]:
    return (type(value).__name__, *(array.shape for array in _arrays(value)))


def _flattened(
    params: Mapping[str, Named | Knots], initial: Mapping[str, Named] | None
) -> tuple[Any, Callable[[Any], tuple[Any, Any]]]:
    """All numbers in one vector, which is passed in a microsecond, and what puts them back into their places."""
    values: list[Any] = [*params.values(), *(initial or {}).values()]
    arrays = [array for value in values for array in _arrays(value)]
    shapes = [array.shape for array in arrays]
    numbers = np.concatenate([array.reshape(-1) for array in arrays]) if arrays else np.zeros(0)

    def rebuild(numbers: Any) -> tuple[Any, Any]:
        ends = np.cumsum([0, *(int(np.prod(shape)) for shape in shapes)])
        pieces = iter(
            jax.lax.slice_in_dim(numbers, int(a), int(b)).reshape(shape)
            for a, b, shape in zip(ends, ends[1:], shapes, strict=False)
        )

        def again(value: Named | Knots) -> Named | Knots:
            if isinstance(value, Knots):
                return replace(value, x=next(pieces), y=next(pieces))
            return Named(next(pieces), value.coords, value.dims)

        made = {name: again(value) for name, value in params.items()}
        return made, None if initial is None else {name: again(value) for name, value in initial.items()}

    return numbers.astype(float), rebuild
