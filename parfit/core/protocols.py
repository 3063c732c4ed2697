"""The protocols that the rooms keep: `Solver`, `Executor`, `Pool`, `Tasks`, `Keepable`, `Block`, `Sink`, `Store`.

Each is documented here once; an implementation adds text only where it differs. An `Executor`, a `Solver`
is a frozen, picklable recipe; what is alive (a worker, a file) exists only inside a ``with``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self, runtime_checkable

if TYPE_CHECKING:
    from parfit.core.problem import BoundProblem
    from parfit.core.solution import Outcome, Solution, Solutions

__all__ = [
    "BatchedSolver",
    "Block",
    "Capabilities",
    "Executor",
    "Keepable",
    "Pool",
    "Sink",
    "Solver",
    "Store",
    "TaskFunction",
    "Tasks",
    "Visitor",
]

#: A task's function: what `setup` returned in this worker, and the task's payload.
TaskFunction = Callable[[Any, Any], Any]
#: What a `Block` calls with each task's key and payload.
Visitor = Callable[[Any, Any], None]


class Block(Protocol):
    """Some consecutive tasks that travel together. Picklable."""

    def __len__(self) -> int: ...

    def part(self, start: int, stop: int) -> Block:
        """The tasks `start` to `stop` (exclusive) of this block."""

    def keys(self) -> list[Any]:
        """The keys of the tasks, in order."""

    def visit(self, call: Visitor) -> None:
        """Call `call(key, payload)` for each task in order. `call` does not raise an `Exception`."""


@runtime_checkable
class Tasks(Protocol):
    """Tasks that are cut into blocks as they are wanted, so that no more than what is under way exists."""

    def take(self, n: int) -> Block | None:
        """The next block, of `n` tasks or fewer; None when there are no more."""


@runtime_checkable
class Keepable(Tasks, Protocol):
    """Tasks on datasets that workers may keep from one call to the next (`Capabilities.keeps_data`).

    A position counts the datasets of the data, 0 to ``len(self) - 1``, and means the same dataset in every call
    with the same `token`. The tasks may be fewer than the datasets, and in any order: a refit of some of them.
    """

    @property
    def token(self) -> object:
        """The data as the user holds it: what is kept is let go of when this is garbage collected or has changed."""

    def __len__(self) -> int:
        """The number of datasets in the data."""

    def datasets(self, start: int, stop: int) -> Sequence[Any]:
        """The datasets at the positions `start` to `stop` (exclusive), picklable."""

    def without_data(self) -> Tasks:
        """The same tasks; each payload is a `NamedTuple` whose `dataset` is None and whose `position` says which."""


@dataclass(frozen=True)
class Capabilities:
    """What an executor can promise beyond running tasks; the contract suite and the docs' table read it.

    Attributes
    ----------
    survives_worker_death
        A worker that dies costs only the task that it was on.
    enforces_timeout
        A task over its limit is stopped.
    own_process
        Tasks run in other processes.
    needs_main_guard
        A script must guard its top level with ``if __name__ == "__main__":``.
    keeps_data
        Each worker keeps its share of the data for later calls.
    limits_memory
        A worker that becomes too large is stopped; the recipe has a field `memory_limit`.
    other_machines
        Workers may be on other machines: a cluster.
    """

    survives_worker_death: bool
    enforces_timeout: bool
    own_process: bool
    needs_main_guard: bool = False
    keeps_data: bool = False
    limits_memory: bool = False
    other_machines: bool = False


class Pool(ABC):
    """Live workers; exists only inside the ``with`` of `Executor.open`."""

    @abstractmethod
    def imap_unordered(
        self,
        function: TaskFunction,
        tasks: Tasks | Iterable[tuple[Hashable, Any]],
        timeout: float | None = None,
    ) -> Iterator[Outcome]:
        """Run ``function(state, payload)`` for each task and yield one `Outcome` per task, in any order.

        Parameters
        ----------
        function
            Called in the workers with what `setup` returned there and the task's payload.
        tasks
            Pairs ``(key, payload)``, or a `Tasks`; pulled lazily.
        timeout
            The limit for each task, s.

        Notes
        -----
        A task's exception is an `Outcome`, never raised here. A task whose payload cannot be pickled, or
        whose value cannot, is an error as well. What is raised: `SetupError` once where setup fails, what
        the iteration of `tasks` itself raises, and `KeyboardInterrupt`.
        """


class Executor(ABC):
    """A frozen, picklable recipe for running tasks somewhere. It knows nothing of fitting.

    Attributes
    ----------
    name
        The name by which users ask for it.
    capabilities
        What it can promise.
    """

    name: ClassVar[str]
    capabilities: ClassVar[Capabilities]

    @abstractmethod
    def open(self, setup: Callable[[], Any] | None = None, *, retries: int = 1) -> AbstractContextManager[Pool]:
        """Start (or find) the workers.

        Parameters
        ----------
        setup
            Called once in each worker; what it returns is handed to every task there. It travels once per
            worker, so that heavy things belong into it.
        retries
            How often a task whose worker died is started again, alone.
        """


class Solver(ABC):
    """A frozen, picklable recipe that fits one dataset.

    Attributes
    ----------
    name
        The name by which users ask for it.
    residuals
        True where it needs a residual vector; a solver for scalars is handed ``0.5 * sum(r**2)`` instead.
    accepts_bounds, needs_bounds, accepts_constraints
        What it can be given, and what it cannot do without.
    """

    name: str
    residuals: ClassVar[bool] = False

    @property
    @abstractmethod
    def accepts_bounds(self) -> bool: ...

    @property
    def needs_bounds(self) -> bool:
        return False

    @property
    def accepts_constraints(self) -> bool:
        return False

    @abstractmethod
    def solve(self, problem: BoundProblem) -> Solution:
        """Fit one dataset; `problem` has the start, the bounds and the functions of the free parameters.

        Exceptions of the objective pass through. All else that can go wrong is a `Status`.
        """


class BatchedSolver(ABC):
    """A frozen, picklable recipe: the mathematics of fitting one row, for a program that runs it on all at once.

    Each method is a pure function of what it is given, and is traced by JAX; a loop that knows of many rows maps it
    over them and calls `init` once, then `step` and `terminate` until every row has ended. One `step` evaluates the
    objective once, so that no row waits for another's line search.

    A state is a NamedTuple of arrays with at least the attributes ``x`` (n,), ``cost``, ``start_cost``, ``g``,
    ``nfev``, ``njev``, ``nit``, ``nonfinite`` (evaluations that gave NaN or infinity since the last step that was
    taken) and ``end``.

    Attributes
    ----------
    name
        The name by which users ask for it.
    residuals
        True where it needs a residual vector.
    """

    name: ClassVar[str]
    residuals: ClassVar[bool]

    @abstractmethod
    def init(self, lane: Any) -> Any:
        """The state before the first evaluation; `lane` has start, bounds and objective of the row."""

    @abstractmethod
    def step(self, lane: Any, state: Any) -> Any:
        """Evaluate the objective where `state` wants it, take in what came of it, and choose the next point."""

    @abstractmethod
    def terminate(self, lane: Any, state: Any) -> Any:
        """Why the row has ended (`parfit.batched.ends.End`), an integer; 0 where it has not."""


class Sink(AbstractContextManager["Sink"]):
    """Takes solutions as they come, by the position of their dataset.

    Attributes
    ----------
    engine
        Which engine fitted what is here, where that is known.
    noted
        Whether it wants `Solution.start` and `Solution.drew`.
    """

    engine: str | None = None
    noted: ClassVar[bool] = False

    @abstractmethod
    def put(self, position: int, outcome: Outcome) -> None:
        """Keep what became of the dataset at `position`; ``outcome.value`` is a `Solution` or None."""

    def put_many(self, solutions: Solutions) -> None:
        """Keep what became of many datasets at once."""
        for outcome in solutions.outcomes():
            self.put(outcome.key, outcome)

    def settle(self, engine: str) -> None:
        """Note which engine fits what is not done; may raise where what is here came from another."""
        self.engine = engine

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        return None


class Store(Sink):
    """Where solutions are kept, to be read again; one writer, the parent."""

    @abstractmethod
    def done(self) -> Iterable[int]:
        """The positions that are already here and need not be fitted again."""

    @abstractmethod
    def columns(self) -> Any:
        """All that is here, as the columns that `Fits` is made of."""

    def old_solutions(self) -> Any:
        """What was found for datasets that have changed since, shape (B, n), NaN for the others; None for nothing."""
        return None
