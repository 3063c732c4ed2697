"""One call of `fit`: tasks to an executor, outcomes to a store, and the store to a `Fits`."""

from __future__ import annotations

import dataclasses
import functools
import logging
import os
import time
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
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
)
from parfit.core.origin import Origin
from parfit.core.problem import Problem
from parfit.core.protocols import Executor, Solver, Store
from parfit.core.solution import Outcome, Solution, Status
from parfit.core.tasks import FitTasks
from parfit.fitting.batch import solutions_of
from parfit.fitting.derivatives import with_derivatives
from parfit.fitting.engines import choose
from parfit.fitting.kinds import MismatchWatch, reconcile
from parfit.fitting.sensitivity import sensitivity_of
from parfit.fitting.worker import fit_one, random_state, ready
from parfit.progress import Progress, reporting
from parfit.results import Fits
from parfit.stores import MemoryStore

if TYPE_CHECKING:
    from parfit.batched import Plan

__all__ = ["Call"]

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
        n = len(self.problem.parameters.names)
        store: Store
        if isinstance(self.store, (str, os.PathLike)):
            from parfit.fitting.stored import store_for  # SQLite, for those who want it

            store = store_for(self.store, self.datasets, self.problem, self.solver, self.given)
        else:
            store = self.store if self.store is not None else MemoryStore(len(self.datasets), n)
        fits = None
        try:
            with store:
                call = self
                if self.given["warm_start"] and (old := store.old_solutions()) is not None:
                    p = self.problem.parameters
                    call = self._starting(np.clip(old, p.lower, p.upper))
                missing = np.ones(len(self.datasets), dtype=bool)
                missing[np.fromiter(store.done(), dtype=np.intp)] = False
                positions = np.flatnonzero(missing)
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
            raise InvalidInputError(
                f"refit keeps the parameters' names {known}, and the new x0 has {call.problem.parameters.names}"
            )
        columns = old.columns_copy() if known else None
        store = MemoryStore(len(old), len(call.problem.parameters.names), columns)
        return call._fill(store, positions)

    def _from_solution(self, old: Fits) -> Call:
        """The same call, each dataset starting where it ended; anew where that is nowhere."""
        return self._starting(old.params.to_numpy())

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

        def result() -> Fits:
            columns: Columns = store.columns()
            seconds = time.perf_counter() - begin
            engine, where = self._engine(plan)
            if not len(positions) and store.engine is not None:
                engine = store.engine
            if engine == "rows":
                columns = reconcile(columns)
            hooks = (self.refit, self._debug, self._sensitivity)
            origin = Origin(engine, reason, seconds, where, self.problem.maximize, *hooks)
            return Fits(columns, self.datasets.labels, self.problem.parameters.structure, origin)

        try:
            plan, reason = choose(self.problem, self.solver, self.datasets, positions, self.given)
            engine, where = self._engine(plan)
            _log.info("engine %s: %s; %d datasets, %s", engine, reason, len(positions), where)
            if len(positions):
                store.settle(engine)
            if plan is None:
                self._stream(store, positions, already)
            else:
                self._at_once(plan, store, positions, already)
        except KeyboardInterrupt:
            fits = result()
            done = len(fits) - int((fits.status == Status.NOT_RUN.value).sum())
            raise FitInterrupted(f"interrupted with {done} of {len(fits)} datasets done; see .fits", fits) from None
        fits = result()
        _warn_in_sum(fits, positions, self.datasets.hint)
        return fits

    def _engine(self, plan: Plan | None) -> tuple[str, str]:
        """Which engine runs, and on what, in words."""
        return ("rows", f"executor {self.executor.name}") if plan is None else ("batch", plan.where)

    def _stream(self, store: Store, positions: Positions, already: int) -> None:
        if not len(positions):
            return
        problem, solver = with_derivatives(self.problem, self.solver, self.datasets, positions)
        problem = dataclasses.replace(problem, parameters=problem.parameters.common(), noted=store.noted)
        tasks = FitTasks(self.datasets, self.problem.parameters, positions, self.chunk_size)
        setup = functools.partial(ready, problem, solver)
        total = already + len(positions)
        watch = MismatchWatch(positions, len(self.datasets))
        with (
            random_state(kept=not self.executor.capabilities.own_process),
            reporting(self.progress, total, "fits", already) as count,
            self.executor.open(setup, retries=self.retries) as pool,
        ):
            for outcome in pool.imap_unordered(fit_one, tasks, self.timeout):
                watch.see(outcome)
                self._take(store, outcome)
                count(1)

    def _at_once(self, plan: Plan, store: Store, positions: Positions, already: int) -> None:
        """All rows through compiled programs."""
        with reporting(self.progress, already + len(positions), "fits", already) as count:
            for solutions in solutions_of(plan, self.given["workers"]):
                store.put_many(solutions)
                if self.on_error == "raise":
                    for outcome in solutions.outcomes():
                        self._raise_if_failed(outcome)
                count(len(solutions))

    def _take(self, store: Store, outcome: Outcome) -> None:
        store.put(outcome.key, outcome)
        if self.on_error == "raise":
            self._raise_if_failed(outcome)

    def _raise_if_failed(self, outcome: Outcome) -> None:
        label = self.datasets.labels[outcome.key]
        if outcome.error is not None:
            error = outcome.error
            raise FitError(f"dataset {shown(label)}: {error.type}: {error.message}", label) from error.to_exception()
        solution: Solution = outcome.value
        if solution.status in (Status.INVALID, Status.NONFINITE):
            raise FitError(f"dataset {shown(label)}: {solution.status}: {solution.message}", label)

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


def _refuse_if_all_invalid(fits: Fits, columns: Columns) -> None:
    """What is wrong with every dataset is wrong with the call."""
    at_start = columns.has(Status.INVALID) | (columns.has(Status.NONFINITE) & (columns.ints_of("nfev") <= 1))
    if len(fits) and at_start.all():
        summary = fits.summary
        first, label = summary["message"].iloc[0], fits.labels[0]
        others = "all others likewise" if summary["message"].nunique() == 1 else "no other can be fitted either"
        where = f"dataset {shown(label)}" + (f", and {others}" if len(fits) > 1 else "")
        exc = InvalidInputError(f"no dataset can be fitted: {first} ({where})")
        exc.add_note("the attribute `fits` of this exception has the reason for each dataset")
        exc.fits = fits  # type: ignore[attr-defined]
        raise exc


def _warn_in_sum(fits: Fits, positions: Positions, hint: str) -> None:
    """One warning for an objective that raises everywhere, and one for all that the objective itself warned of."""
    errors = fits.errors
    if len(positions) > 1 and len(errors) == len(fits) and errors["type"].nunique() == 1:
        first = errors.iloc[0]
        text = f"every dataset raised {first['type']}, the first of them: {first['message']}; see fits.errors"
        text += f" ({hint})" if hint else ""
        warnings.warn(text, ParfitWarning, stacklevel=5)
    found = fits.warnings
    found = found[found.index.isin(positions)]
    if len(found):
        counts = Counter(f"{c}: {m}" for c, m in zip(found["category"], found["message"], strict=True))
        shown = "; ".join(f"{text} ({n})" for text, n in counts.most_common(3))
        more = f"; and {len(counts) - 3} others" if len(counts) > 3 else ""
        n = found.index.nunique()
        text = f"{n} of {len(positions)} datasets gave warnings (see fits.warnings): {shown}{more}"
        warnings.warn(text, ParfitWarning, stacklevel=5)
