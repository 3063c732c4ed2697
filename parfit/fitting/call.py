"""One call of `fit`: tasks to an executor, outcomes to a store, and the store to a `Fits`."""

from __future__ import annotations

import dataclasses
import functools
import logging
import os
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from parfit.core.columns import Columns
from parfit.core.data import Datasets
from parfit.core.errors import (
    FitError,
    FitInterrupted,
    InvalidInputError,
    ParfitWarning,
    StoreError,
    refuse_unknown,
    shown,
    unlike,
)
from parfit.core.origin import Origin
from parfit.core.problem import Problem
from parfit.core.protocols import Executor, Sink, Solver, Store, Tasks
from parfit.core.solution import Outcome, OutcomeKind, Solution, Solutions, Status
from parfit.core.tasks import FitTasks, TasksInTurn
from parfit.core.windows import Windows
from parfit.executors.interrupts import one_ctrl_c
from parfit.fitting.batch import solutions_of
from parfit.fitting.derivatives import with_derivatives
from parfit.fitting.engines import choose
from parfit.fitting.kinds import MismatchWatch, reconcile
from parfit.fitting.sayings import every_raised, none_can_be_fitted, some_warned
from parfit.fitting.sensitivity import sensitivity_of
from parfit.fitting.spread import rows_of_a_window, spread
from parfit.fitting.worker import fit_one, random_state, ready
from parfit.progress import Progress, reporting
from parfit.results import Fits
from parfit.stores import MemoryStore

if TYPE_CHECKING:
    from parfit.batched import Plan

__all__ = ["Call", "is_in_parts"]

_log = logging.getLogger("parfit")
Positions = NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class Call:
    """One call of `fit`, checked and ready to run, whole or in part."""

    datasets: Datasets
    problem: Problem
    solver: Solver
    executor: Executor
    chunk_size: int | None
    timeout: float | None
    retries: int
    on_error: str
    store: str | os.PathLike[str] | Store | None
    progress: Progress
    given: dict[str, Any]
    prepare: Callable[..., Call]

    def run(self) -> Fits:
        """Fit every dataset that the store does not have."""
        if is_in_parts(self.store):
            from parfit.fitting.parted import fit_in_parts  # Parquet, for those who want it

            return fit_in_parts(self)  # type: ignore[return-value]  # which `fit` tells of
        n = len(self.problem.parameters.names)
        store: Store
        if isinstance(self.store, (str, os.PathLike)):
            from parfit.fitting.stored import store_for  # SQLite, for those who want it

            store = store_for(self.store, self.datasets, self.problem, self.solver, self.given)
        else:
            store = self.store if self.store is not None else MemoryStore(len(self.datasets), n)
        fits = None
        try:
            with one_ctrl_c(), store:
                call = self
                if self.given["warm_start"] and (old := store.old_solutions()) is not None:
                    call = self._starting_again(old)
                missing = np.ones(len(self.datasets), dtype=bool)
                missing[np.fromiter(store.done(), dtype=np.intp)] = False
                positions = np.flatnonzero(missing)
                if self.on_error == "raise":
                    self._raise_if_failed_before(store.columns(), np.flatnonzero(~missing))
                fits = call._fill(store, positions, already=len(missing) - len(positions))
        except StoreError as exc:
            exc.fits = fits
            raise
        _refuse_if_all_invalid(fits, store.columns())
        return fits

    def refit(self, old: Fits, positions: Positions, changes: dict[str, Any]) -> Fits:
        """Fit some datasets again, with changed arguments."""
        given = {**self.given, "store": None}
        for name in changes:
            if name not in given or name in ("data", "store"):
                refuse_unknown("argument of fit", name, [k for k in given if k not in ("data", "store")], limit=30)
        again = isinstance(changes.get("x0"), str)
        if again and changes["x0"] != "solution":
            refuse_unknown("x0", changes["x0"], ("solution",))
        asked = {**given, **changes, **({"x0": self.given["x0"]} if again else {})}
        call = self.prepare(asked, self.problem.parameters.structure, inside=again)
        call = call._from_solution(old) if again else call
        known = self.problem.parameters.names  # none, where x0 is a callable and there are no data
        if known and call.problem.parameters.names != known:
            new = unlike(known, call.problem.parameters.names)
            raise InvalidInputError(f"refit keeps the parameters' names, and in the new x0 {new}")
        columns = old.columns_copy() if known else None
        store = MemoryStore(len(old), len(call.problem.parameters.names), columns)
        with one_ctrl_c():
            return call._fill(store, positions)

    def _from_solution(self, old: Fits) -> Call:
        """The same call, each dataset starting where it ended; anew where that is nowhere."""
        return self._starting(old.params.to_numpy())

    def _starting_again(self, old: NDArray[np.float64]) -> Call:
        """The same call, datasets that have changed starting from their old solution, as far as their bounds allow."""
        p = self.problem.parameters
        found = np.where(p.fixed, np.nan, np.clip(old, p.lower, p.upper))
        call = self._starting(found)
        if p.bounds_of is None:
            return call
        inside = dataclasses.replace(call.problem.parameters, inside=True)  # only workers know the bounds
        return dataclasses.replace(call, problem=dataclasses.replace(call.problem, parameters=inside))

    def _starting(self, found: NDArray[np.float64]) -> Call:
        """The same call with a start for each dataset; where it is NaN, the one that it had."""
        p = self.problem.parameters
        if p.start_of is None:
            found = np.where(np.isfinite(found), found, np.broadcast_to(p.start, found.shape))
        parameters = dataclasses.replace(p, start=found)
        return dataclasses.replace(self, problem=dataclasses.replace(self.problem, parameters=parameters))

    def _fill(self, store: Store, positions: Positions, already: int = 0) -> Fits:
        """Run the datasets at `positions` into the store, and read it out."""
        begin = time.perf_counter()
        plan: Plan | None = None
        reason = "interrupted before another was chosen"
        every, work = np.arange(len(self.datasets)), Windows([positions], self.datasets.window)
        known = store.engine if already and not len(positions) else None  # of fits all of which are there

        def ran() -> tuple[str, str]:
            return self.engine_of(plan) if known is None else (known, f"store {_named(self.store)}")

        def result() -> Fits:
            columns: Columns = store.columns()
            seconds = time.perf_counter() - begin
            engine, where = ran()
            if engine == "rows":
                columns = reconcile(columns)
            hooks = (self.refit, self._debug, self._sensitivity)
            origin = Origin(engine, reason, seconds, where, self.problem.maximize, *hooks)
            return Fits(columns, self.datasets.labels, self.problem.parameters.structure, origin)

        try:
            if known is not None and self.given["engine"] not in ("auto", known):
                store.settle(self.given["engine"])  # refused as where one is missing
            resumed = already > 0 and len(positions) > 0  # as when none were there, the others are looked at, too
            plan, reason = self.choose(Windows([every], self.datasets.window) if resumed else work, store)
            reason = reason if known is None else "all fits were in the store"
            engine, where = ran()
            said = reason.partition(" for dataset ")[0].partition(": ")[0]  # others read a log: no label, no value
            _log.info("engine %s: %s; %d datasets, %s", engine, said, len(positions), where)
            if len(positions):
                store.settle(engine)
                total = already + len(positions)
                if plan is not None:
                    self.at_once(plan, store, work, total, already)
                else:
                    tasks: Tasks = FitTasks(self.datasets, self.problem.parameters, positions, self.chunk_size)
                    if work.size is not None:  # workers that keep data would keep all of them
                        tasks = TasksInTurn([tasks], len(positions))
                    watch = MismatchWatch(positions, len(self.datasets))
                    self.stream(store, tasks, positions, watch, total, already)
        except KeyboardInterrupt:
            fits = result()
            done = len(fits) - int((fits.status == Status.NOT_RUN.value).sum())
            raise FitInterrupted(f"interrupted with {done} of {len(fits)} datasets done; see .fits", fits) from None
        finally:
            self.datasets.let_go()
        fits = result()
        _warn_in_sum(fits, positions, self.datasets.hint)
        return fits

    def engine_of(self, plan: Plan | None) -> tuple[str, str]:
        """Which engine runs, and on what, in words."""
        if plan is None:
            return "rows", f"executor {self.executor.name}"
        return "batch", f"{plan.where}, executor {self.executor.name}" if self._on_cluster else plan.where

    @property
    def _on_cluster(self) -> bool:
        return self.executor.capabilities.other_machines

    def choose(self, work: Windows, sink: Sink) -> tuple[Plan | None, str]:
        """The plan of the batched engine, or None; and the reason."""
        plan, reason = choose(self.problem, self.solver, self.datasets, work, self.given, spread=self._on_cluster)
        if plan is not None and self.given["engine"] == "auto" and sink.engine == "rows":
            return None, "the fits that are there are of engine 'rows'"
        return plan, reason

    def stream(
        self, sink: Sink, tasks: Tasks, first: Positions, watch: MismatchWatch | None, total: int, already: int
    ) -> None:
        """Tasks through the executor; `first` are the positions of some that come first."""
        problem, solver = with_derivatives(self.problem, self.solver, self.datasets, first)
        problem = dataclasses.replace(problem, parameters=problem.parameters.common(), noted=sink.noted)
        setup = functools.partial(ready, problem, solver)
        with (
            random_state(kept=not self.executor.capabilities.own_process),
            reporting(self.progress, total, "fits", already) as count,
            self.executor.open(setup, retries=self.retries) as pool,
        ):
            for outcome in pool.imap_unordered(fit_one, tasks, self.timeout):
                if watch is not None:
                    watch.see(outcome)
                self._take(sink, outcome)
                count(1)

    def at_once(self, plan: Plan, sink: Sink, work: Iterable[Positions], total: int, already: int) -> None:
        """Rows through compiled programs, those of a window at a time: here, or on the workers of a cluster."""
        with reporting(self.progress, total, "fits", already) as count:
            if self._on_cluster:
                rows = self.chunk_size or rows_of_a_window(total - already)
                how = self.executor, rows, self.retries, self.given["dtype"]
                for one in spread(plan, self.datasets, self.solver, work, *how):
                    if isinstance(one, Outcome):
                        self._take(sink, one)
                        count(1)
                    else:
                        self._take_many(sink, one)
                        count(len(one))
                return
            for positions in work:
                for solutions in solutions_of(plan.at(positions, self.datasets), self.given["workers"]):
                    self._take_many(sink, solutions)
                    count(len(solutions))

    def _take_many(self, sink: Sink, solutions: Solutions) -> None:
        sink.put_many(solutions)
        if self.on_error == "raise":
            for outcome in solutions.outcomes():
                self._raise_if_failed(outcome)

    def _take(self, sink: Sink, outcome: Outcome) -> None:
        sink.put(outcome.key, outcome)
        if self.on_error == "raise":
            self._raise_if_failed(outcome)

    def _raise_if_failed(self, outcome: Outcome) -> None:
        label = self.datasets.part(outcome.key, outcome.key + 1).labels[0]
        if outcome.error is not None:
            error = outcome.error
            raise FitError(f"dataset {shown(label)}: {error.type}: {error.message}", label) from error.to_exception()
        solution: Solution = outcome.value
        if solution.status in (Status.INVALID, Status.NONFINITE):
            raise FitError(f"dataset {shown(label)}: {solution.status}: {solution.message}", label)

    def _raise_if_failed_before(self, columns: Columns, positions: Positions) -> None:
        """The same for the first dataset that has failed in an earlier call."""
        failed = columns.has(Status.INVALID, Status.NONFINITE)
        failed[list(columns.errors)] = True
        for position in positions[failed[positions]][:1].tolist():
            status, message = columns.status_of(position), columns.message(position)
            solution = Solution(columns.params[position], status, message, nfev=0, nit=0)
            error = columns.errors.get(position)
            self._raise_if_failed(Outcome(position, OutcomeKind.DONE, solution, error))

    def _debug(self, position: int) -> Solution:
        """Fit one dataset in this process, and let its exception pass as it is."""
        if not -len(self.datasets) <= position < len(self.datasets):
            raise IndexError(f"position {position} in {len(self.datasets)} fits")
        position %= len(self.datasets)
        p = self.problem.parameters
        block = FitTasks(self.datasets, p, np.array([position])).take(1)
        assert block is not None
        found: list[Solution] = []
        problem, solver = with_derivatives(self.problem, self.solver, self.datasets, np.array([position]))
        problem = dataclasses.replace(problem, parameters=p.common())
        with random_state(kept=True):
            block.visit(lambda _, task: found.append(fit_one((problem, solver), task)))
        return found[0]

    def _sensitivity(self, fits: Fits, wrt: Any) -> Any:
        return sensitivity_of(fits, wrt, self.problem, self.solver, self.datasets)


def is_in_parts(store: Any) -> bool:
    """Whether a store is a folder of Parquet files."""
    return isinstance(store, (str, os.PathLike)) and Path(store).suffix.lower() in (".parquet", ".pq")


def _named(store: Any) -> str:
    return str(store) if isinstance(store, (str, os.PathLike)) else type(store).__name__


def _refuse_if_all_invalid(fits: Fits, columns: Columns) -> None:
    """What is wrong with every dataset is wrong with the call."""
    at_start = columns.has(Status.INVALID) | (columns.has(Status.NONFINITE) & (columns.ints_of("nfev") <= 1))
    if len(fits) and at_start.all():
        messages = fits.summary["message"]
        raise none_can_be_fitted(fits, messages.iloc[0], shown(fits.labels[0]), messages.nunique() == 1)


def _warn_in_sum(fits: Fits, positions: Positions, hint: str) -> None:
    """One warning for an objective that raises everywhere, and one for all that the objective itself warned of."""
    errors = fits.errors
    if len(positions) > 1 and len(errors) == len(fits) and errors["type"].nunique() == 1:
        first = errors.iloc[0]
        warnings.warn(every_raised(first["type"], first["message"], hint), ParfitWarning, stacklevel=5)
    found = fits.warnings
    found = found[found.index.isin(positions)]
    if len(found):
        counts = Counter(f"{c}: {m}" for c, m in zip(found["category"], found["message"], strict=True))
        warnings.warn(some_warned(counts, found.index.nunique(), len(positions)), ParfitWarning, stacklevel=5)
