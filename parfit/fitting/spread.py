"""The batched engine over a cluster: windows of rows to its workers, each of which compiles once.

    caller: a plan of all rows ─▶ WindowTasks ─▶ executor ─▶ worker: fit_window ─▶ Solutions ─▶ caller's store

A window is padded as the whole was, so that its rows have the bits that they have at home.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from parfit.core.blocks import DataBlock
from parfit.core.data import Datasets, datasets_of
from parfit.core.problem import Problem
from parfit.core.protocols import Block, Executor, Solver, Visitor
from parfit.core.solution import Outcome, OutcomeKind, Solutions
from parfit.core.windows import Windows
from parfit.fitting.batch import invalid_of, solutions_of
from parfit.fitting.engines import planned

if TYPE_CHECKING:
    from parfit.batched import Plan

__all__ = ["rows_of_a_window", "spread"]

FloatArray = NDArray[np.float64]
Positions = NDArray[np.intp]
#: Rows of a window: enough to be worth a trip, and few enough that a lost one costs little; by how many windows there
#: are to be, so that many workers have something to do.
_LEAST, _MOST, _WINDOWS = 2_000, 20_000, 64


@dataclass(frozen=True)
class Window:
    """Some rows, one task.

    Attributes
    ----------
    positions
        Theirs in the input.
    data
        Their datasets.
    length
        What they are padded to; 0 where nothing is.
    start, lower, upper
        Of shape (k, n) where rows have their own, else None.
    """

    positions: Positions
    data: DataBlock
    length: int
    start: FloatArray | None
    lower: FloatArray | None
    upper: FloatArray | None

    def __len__(self) -> int:
        return 1

    def part(self, start: int, stop: int) -> Block:  # noqa: ARG002 - there is one task
        return self

    def keys(self) -> list[Any]:
        return [int(self.positions[0])]

    def visit(self, call: Visitor) -> None:
        call(int(self.positions[0]), self)


class WindowTasks:
    """The rows of a plan in windows, made as they are wanted. Keeps to `parfit.core.protocols.Tasks`.

    Parameters
    ----------
    work
        The positions of those whose data are in memory together.
    rows
        Of a window, at most.

    Attributes
    ----------
    positions
        Of the windows that are on their way, by their keys.
    invalid
        Rows that are in no window, since their start cannot be used.
    """

    def __init__(self, plan: Plan, datasets: Datasets, work: Iterable[Positions], rows: int) -> None:
        self._plan, self._datasets, self._rows = plan, datasets, rows
        self._windows = self._made(work)
        self.positions: dict[int, Positions] = {}
        self.invalid: list[Solutions] = []

    def _made(self, work: Iterable[Positions]) -> Iterator[Window]:
        p = self._plan.problem.parameters
        for together in work:
            here = self._plan.at(together, self._datasets)
            self.invalid.extend(invalid_of(here))
            for bucket in here.buckets:
                for positions in np.array_split(bucket.positions, math.ceil(len(bucket.positions) / self._rows)):
                    own = (v[positions] if v.ndim == 2 else None for v in (p.start, p.lower, p.upper))
                    yield Window(positions, self._datasets.block(positions), bucket.length, *own)

    def take(self, n: int) -> Block | None:  # noqa: ARG002 - a window is large enough
        window = next(self._windows, None)
        if window is not None:
            self.positions[window.keys()[0]] = window.positions
        return window


def rows_of_a_window(count: int) -> int:
    """How many rows travel together, of `count` in all."""
    return max(_LEAST, min(_MOST, count // _WINDOWS))


def spread(
    plan: Plan,
    datasets: Datasets,
    solver: Solver,
    work: Iterable[Positions],
    executor: Executor,
    rows: int,
    retries: int,
    dtype: Any,
) -> Iterator[Solutions | Outcome]:
    """The solutions of all rows of a plan, a window at a time; and for a window that was lost, an outcome for each row.

    Parameters
    ----------
    work
        The positions of those whose data are in memory together.
    rows
        Of a window, at most.
    """
    problem, p = plan.problem, plan.problem.parameters
    tasks = WindowTasks(plan, datasets, work, rows)
    setup = functools.partial(_ready, replace(problem, parameters=p.common()), solver, dtype, p.bounded)
    with executor.open(setup, retries=retries) as pool:
        for outcome in pool.imap_unordered(fit_window, tasks):
            while tasks.invalid:
                yield tasks.invalid.pop()
            positions = tasks.positions.pop(outcome.key)
            if outcome.kind is OutcomeKind.DONE:
                yield from outcome.value
            else:
                for position in positions.tolist():
                    yield replace(outcome, key=position)
    yield from tasks.invalid


class _State(NamedTuple):
    """What each worker is set up with."""

    problem: Problem
    solver: Solver
    dtype: Any
    bounded: bool


def _ready(*state: Any) -> _State:
    import_module("parfit.batched")  # on nobody's time
    return _State(*state)


def fit_window(state: _State, window: Window) -> list[Solutions]:
    """Fit the rows of a window; their positions are those in the whole."""
    given = {"start": window.start, "lower": window.lower, "upper": window.upper}
    own: dict[str, Any] = {name: array for name, array in given.items() if array is not None}
    problem = replace(state.problem, parameters=replace(state.problem.parameters, **own))
    from parfit.batched import Shape

    here = Windows([np.arange(len(window.positions))])
    shape = Shape(window.length, state.bounded)
    plan = planned(problem, state.solver, datasets_of(window.data), here, state.dtype, shape=shape)
    return [replace(found, positions=window.positions[found.positions]) for found in solutions_of(plan, 1)]
