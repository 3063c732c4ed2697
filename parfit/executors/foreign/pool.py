"""What all executors have in common whose workers somebody else's library runs: `ForeignPool`.

               tasks ──▶ jobs.JobQueue ──▶ carriers.Carrier ──▶ the foreign executor
                              ▲                                     │
         again, singly, apart │             outcomes ◀── reply ─────┤
                              └──── _settle ◀────── it broke ◀──────┘

A foreign executor that loses one worker is broken as a whole: it ends the others, and with them what they were
on. `_settle` finds out from the boards who was on what, blames the one that is known to have died by itself (or
whose watchdog has ended it), and has everything else run again. Where it is not known who died first, each task
that was running is run again with nothing beside it, until the culprit has shown itself.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Hashable, Iterable, Iterator
from concurrent.futures import BrokenExecutor
from dataclasses import dataclass, field
from typing import Any

from parfit.core.errors import InvalidInputError, SetupError, WorkerLostError
from parfit.core.protocols import Capabilities, Pool, TaskFunction, Tasks
from parfit.core.solution import Outcome, OutcomeKind, TaskError
from parfit.executors.baggage import setup_failed, task_error
from parfit.executors.foreign.carriers import Carrier, Parcel, RemoteCarrier
from parfit.executors.foreign.guard import GUARD
from parfit.executors.foreign.jobs import Job, JobQueue
from parfit.executors.foreign.spool import BETWEEN, IDLE, SETUP, Whereabouts

__all__ = ["ForeignPool", "Run"]

#: Workers may die this often in a row outside of any task.
_BLAMELESS = 2


@dataclass
class Run:
    """One call of `imap_unordered`.

    Attributes
    ----------
    jobs
        What is to be run.
    timeout
        The limit for each task, s.
    flight
        What is on its way, by number.
    started
        The foreign executor has taken a job.
    over
        Nobody wants the rest.
    """

    jobs: JobQueue
    timeout: float | None
    flight: dict[int, Job] = field(default_factory=dict)
    started: bool = False
    over: bool = False


class ForeignPool(Pool):
    """Hands blocks to a foreign executor, reads the replies, and settles what is left when it breaks.

    Parameters
    ----------
    name, capabilities
        Of the executor.
    carrier
        How blocks get there.
    workers
        How many there are.
    retries
        How often a task whose worker died is started again.
    """

    def __init__(self, name: str, capabilities: Capabilities, carrier: Carrier, workers: int, retries: int) -> None:
        self._name = name
        self._capabilities = capabilities
        self._carrier = carrier
        self._workers = workers
        self._retries = retries
        self._numbers = itertools.count(1)
        self._blameless = 0
        self._run: Run | None = None

    def _begin(
        self, function: TaskFunction, tasks: Tasks | Iterable[tuple[Hashable, Any]], timeout: float | None
    ) -> Run:
        if timeout is not None and not self._capabilities.enforces_timeout:
            raise InvalidInputError(
                f"executor {self._name!r} cannot stop a running task: use 'processes', or no timeout"
            )
        if timeout is not None and not timeout > 0:
            raise InvalidInputError(f"timeout must be positive, not {timeout!r}")
        if self._run is not None:
            self._abandon(self._run)
        timeout = None if timeout is None or math.isinf(timeout) else timeout
        self._carrier.learn(function, timeout)
        self._run = Run(JobQueue(tasks, self._workers), timeout)
        return self._run

    def _abandon(self, run: Run) -> None:
        """End a run; what is on its way is not wanted any more."""
        if run is self._run and not run.over:  # else it is another run's blocks that would be stopped
            self._carrier.stop()
        run.over = True

    def _parcel(self, run: Run, job: Job) -> tuple[int, Parcel | None, list[Outcome]]:
        """Make a job ready to go: its number and its parcel, or the outcome where it cannot be pickled."""
        number = next(self._numbers)
        try:
            return number, self._carrier.parcel(number, job), []
        except Exception as exc:  # noqa: BLE001 - pickling raises what it likes
            return number, None, self._unreadable(run, job, task_error(job.block, exc))

    def _unreadable(self, run: Run, job: Job, error: TaskError) -> list[Outcome]:
        if len(job.block) == 1:
            return [Outcome(job.block.keys()[0], OutcomeKind.ERROR, None, error, 0.0, job.attempts)]
        run.jobs.singly(job)
        return []

    def _hear(self, run: Run, job: Job, reply: Any) -> list[Outcome]:
        """Take in what came back for a job."""
        try:
            word, value = self._carrier.open(reply)
        except Exception as exc:  # noqa: BLE001 - a value of the user's that cannot be rebuilt here
            return self._unreadable(run, job, TaskError.from_exception(exc, skip_frames=1))
        if word == "outcomes":
            self._blameless = 0
            return self._taken(run, job, value)
        if word == "unreadable":
            return self._unreadable(run, job, value)
        if word == "missing" and not job.by_hand:
            job.by_hand = True
            run.jobs.put_back(job)
            return []
        if word == "failed":
            raise setup_failed(value) from value.to_exception()
        raise SetupError(
            f"executor {self._name!r} runs tasks in the calling process here, where none could be stopped; "
            "use 'threads' or 'serial'"
            if word == "here"
            else f"the workers of executor {self._name!r} cannot read what they are sent"
        )

    def _taken(self, run: Run, job: Job, outcomes: list[Outcome]) -> list[Outcome]:
        """Note what a job has cost, and how often it was started."""
        run.jobs.took(len(outcomes), sum(outcome.seconds for outcome in outcomes))
        if job.attempts > 1:
            return [dataclasses.replace(outcome, attempts=job.attempts) for outcome in outcomes]
        return outcomes

    # ---- losing

    def _settle(self, run: Run, dead: dict[int, str]) -> Iterator[Outcome]:
        """All workers have ended: say what became of the tasks that were on their way.

        `dead` has the workers that are known to have died by themselves, and how they ended.
        """
        assert isinstance(self._carrier, RemoteCarrier)
        spool = self._carrier.spool
        where, late = spool.whereabouts(), spool.late()
        spool.wipe()
        flight, run.flight = run.flight, {}
        by_block = {at.block: (pid, at) for pid, at in where.items()}
        culprits = late | dead.keys()
        suspects = [pid for pid, at in where.items() if at.block in flight or at.block == SETUP]
        if not culprits and len(suspects) == 1:
            culprits = set(suspects)
        self._count_blameless(where, culprits, dead)
        for number, job in flight.items():
            pid, at = by_block.get(number, (0, None))
            if at is None or (culprits and pid not in culprits):
                run.jobs.put_back(job)
            elif at.task == BETWEEN and len(job.block) > 1:
                run.jobs.singly(job)
            else:
                index = max(at.task, 0)
                run.jobs.again(job, 0, index)
                run.jobs.again(job, index + 1, len(job.block))
                if pid in late and run.timeout is not None:
                    key = job.block.keys()[index]
                    yield Outcome.timed_out(key, at.seconds, job.attempts, run.timeout)
                elif not culprits or job.attempts <= self._retries:
                    run.jobs.retry(job, index, apart=not dead)
                else:
                    how = dead.get(pid, "how is not known")
                    yield Outcome.lost(job.block.keys()[index], at.seconds, job.attempts, how)

    def _count_blameless(self, where: dict[int, Whereabouts], culprits: set[int], dead: dict[int, str]) -> None:
        """Raise `SetupError` where workers die again and again without being on a task."""
        on_task = [pid for pid, at in where.items() if at.block not in (SETUP, IDLE)]
        if any(pid in culprits or not culprits for pid in on_task):
            return
        self._blameless += 1
        if self._blameless <= _BLAMELESS:
            return
        hint = ""
        if not where and self._capabilities.needs_main_guard:
            hint = f"; is the call under {GUARD}? The default executor, 'processes', needs no guard"
        how = ", ".join(sorted(set(dead.values()))) or "how is not known"
        raise SetupError(
            f"workers of executor {self._name!r} died {self._blameless} times before they were ready ({how}){hint}"
        )

    def _give_up(self, run: Run, why: BaseException) -> Iterator[Outcome]:
        """The executor is the user's and takes no more tasks: say so for each that is left."""
        how, again = f"{type(why).__name__}: {why}", "the executor that was given cannot be started again from here"
        error = TaskError.from_exception(WorkerLostError(f"this task was not finished ({how}); {again}"))
        flight, run.flight = run.flight, {}
        for job in flight.values():
            for key in job.block.keys():
                if isinstance(why, BrokenExecutor):
                    yield Outcome.lost(key, 0.0, job.attempts, f"{how}; {again}")
                else:
                    yield Outcome(key, OutcomeKind.WORKER_LOST, None, error, 0.0, job.attempts, left=True)
        while not run.over and (left := run.jobs.next()) is not None:
            for key in left.block.keys():
                yield Outcome(key, OutcomeKind.WORKER_LOST, None, error, 0.0, left.attempts - 1, left=True)
