"""What a fit and a task come back as: `Status`, `Solution`, `Outcome`."""

from __future__ import annotations

import pickle
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Self

import cloudpickle
import numpy as np
from numpy.typing import NDArray

from parfit.core.errors import ParfitError, RemoteError, TaskTimeoutError, WorkerLostError

__all__ = ["Outcome", "OutcomeKind", "Solution", "Solutions", "Status", "TaskError", "WarningText"]

FloatArray = NDArray[np.float64]

_MAX_PICKLED_EXCEPTION = 1 << 16


class Status(StrEnum):
    """How the fit of one dataset ended; ``Status("converged").sentence`` says it in words."""

    sentence: str

    CONVERGED = ("converged", "converged")
    MAX_STEPS = ("max_steps", "stopped at the limit of iterations or evaluations")
    STALLED = ("stalled", "stopped short of a minimum: no descent was found, or the cost still falls")
    UNMOVED = ("unmoved", "the solver claims success but never left its start")
    NONFINITE = ("nonfinite", "the objective is NaN or infinite")
    INVALID = ("invalid", "the start, the bounds or the size of this dataset cannot be fitted")
    ERROR = ("error", "the objective raised an exception")
    TIMEOUT = ("timeout", "the fit exceeded its time limit and was stopped")
    WORKER_LOST = ("worker_lost", "the worker process died during the fit")
    NOT_RUN = ("not_run", "the fit was not run")

    def __new__(cls, value: str, sentence: str) -> Self:
        member = str.__new__(cls, value)
        member._value_ = value
        member.sentence = sentence
        return member

    def __str__(self) -> str:
        return str(self.value)


@dataclass(frozen=True, slots=True)
class WarningText:
    """A warning that a task gave: category name, message, and how many times."""

    category: str
    message: str
    count: int = 1


@dataclass(frozen=True, slots=True)
class TaskError:
    """An exception as text, so that it crosses process borders whatever it is.

    `pickled` holds the exception itself where a round trip succeeded in the worker; it is only opened by
    `to_exception`.
    """

    type: str
    message: str
    traceback: str
    pickled: bytes | None = None

    @classmethod
    def from_exception(cls, exc: BaseException, *, skip_frames: int = 0) -> TaskError:
        """Describe `exc`, its notes included; never raises, whatever the exception's own methods do."""
        try:
            message = str(exc) + "".join(f" ({note})" for note in getattr(exc, "__notes__", ()))
        except Exception as broken:  # noqa: BLE001 - a __str__ of the user's
            message = f"<{type(exc).__name__}; its text cannot be shown: {type(broken).__name__}>"
        tb = exc.__traceback__
        for _ in range(skip_frames):
            if tb is not None and tb.tb_next is not None:
                tb = tb.tb_next
        try:
            text = "".join(traceback.format_exception(type(exc), exc, tb))
        except Exception:  # noqa: BLE001
            text = "".join(traceback.format_tb(tb)) + f"{type(exc).__name__}: {message}\n"
        kind = type(exc)
        name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
        return cls(name, message, text, _pickled(exc))

    def to_exception(self) -> BaseException:
        """The exception itself where it can be rebuilt, else a `RemoteError`; its cause is the traceback."""
        exc: BaseException
        try:
            exc = pickle.loads(self.pickled) if self.pickled is not None else self._described()
        except Exception:  # noqa: BLE001 - a class that is not importable here
            exc = self._described()
        exc.__cause__ = RemoteError(f"\n\n{self.traceback}")
        return exc

    def _described(self) -> ParfitError:
        return RemoteError(f"{self.type}: {self.message}")


def _pickled(exc: BaseException) -> bytes | None:
    """The exception as bytes, where a round trip gives the same type (a custom __init__ often breaks it).

    A class of the caller's ``__main__`` came here by value, and so goes back; there, cloudpickle finds the very
    class that it came from.
    """
    for dumps in (pickle.dumps, cloudpickle.dumps):
        try:
            data: bytes = dumps(exc)
            if len(data) <= _MAX_PICKLED_EXCEPTION and type(pickle.loads(data)) is type(exc):
                return data
        except Exception:  # noqa: BLE001 - pickling raises what it likes
            continue
    return None


class OutcomeKind(StrEnum):
    """How a task ended."""

    DONE = "done"
    ERROR = "error"
    TIMEOUT = "timeout"
    WORKER_LOST = "worker_lost"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one task.

    Attributes
    ----------
    key
        The task's key.
    kind
        How it ended.
    value
        What the function returned, where `kind` is ``done``.
    error
        The exception, else.
    seconds
        The time that it took in the worker, s.
    attempts
        How often it was started.
    warnings
        The warnings that it gave.
    left
        Whether it was left undone, since the executor that ran it was gone: a later call may have it.
    """

    key: Any
    kind: OutcomeKind
    value: Any = None
    error: TaskError | None = None
    seconds: float = 0.0
    attempts: int = 1
    warnings: tuple[WarningText, ...] = ()
    left: bool = False

    def result(self) -> Any:
        """The value; raises the task's exception where it has none."""
        if self.kind is OutcomeKind.DONE:
            return self.value
        assert self.error is not None
        raise self.error.to_exception()

    @classmethod
    def lost(cls, key: Any, seconds: float, attempts: int, how: str) -> Outcome:
        """The outcome of a task whose worker died; `how` says what is known ("killed by signal 9")."""
        hint = "; the kernel does that where memory has run out: see memory_limit" if "SIGKILL" in how else ""
        exc = WorkerLostError(f"the worker process that ran this task died ({how}), {attempts} time(s){hint}")
        return cls(key, OutcomeKind.WORKER_LOST, None, TaskError.from_exception(exc), seconds, attempts)

    @classmethod
    def outgrown(cls, key: Any, seconds: float, attempts: int, limit: str, size: str) -> Outcome:
        """The outcome of a task whose worker had become too large; `limit` and `size` in words ("500 MB")."""
        exc = WorkerLostError(f"over memory_limit={limit}: its worker had reached {size}, and was stopped")
        return cls(key, OutcomeKind.WORKER_LOST, None, TaskError.from_exception(exc), seconds, attempts)

    @classmethod
    def timed_out(cls, key: Any, seconds: float, attempts: int, limit_s: float) -> Outcome:
        """The outcome of a task that exceeded `limit_s` seconds."""
        exc = TaskTimeoutError(f"the task ran for longer than timeout={limit_s:g} s and was stopped")
        return cls(key, OutcomeKind.TIMEOUT, None, TaskError.from_exception(exc), seconds, attempts)


@dataclass(slots=True)
class Solution:
    """The fit of one dataset.

    Attributes
    ----------
    x : ndarray, shape (n,)
        The parameters: the free ones as a solver returns it, all of them once it leaves the worker.
    status, message
        How it ended, and in words.
    cost
        What was minimised: the objective, or ``0.5 * sum(r**2)``. NaN where there is none.
    n_residuals
        The number of residuals, -1 for a scalar objective.
    nfev, njev, nit
        Counts of evaluations and iterations; -1 where the solver does not count them.
    optimality
        The first-order optimality as the solver measures it (infinity norm of the projected gradient); NaN
        where it is unknown.
    at_bound : ndarray of int8, shape (n,)
        -1 where the parameter is at its lower bound, 1 at its upper one, else 0.
    jac : ndarray, shape (m, n_free), optional
        The Jacobian of the residuals at the solution; stays in the worker.
    cov : ndarray, shape (n, n), optional
        The covariance of the parameters.
    rank, condition
        The numerical rank of the Jacobian, and its condition number; -1 and NaN where there is none, and NaN where
        the covariance tells (`parfit.inference.conditions`).
    history : ndarray, shape (k, 1 + n), optional
        The cost and the parameters of each evaluation.
    start : ndarray, shape (n,), optional
        All parameters at the start, where a store wants to know and only the worker does.
    drew
        Whether its random numbers were used, so that it is the solution at its position only; likewise.
    """

    x: FloatArray
    status: Status
    message: str
    cost: float = float("nan")
    n_residuals: int = -1
    nfev: int = -1
    njev: int = -1
    nit: int = -1
    optimality: float = float("nan")
    at_bound: NDArray[np.int8] | None = None
    jac: FloatArray | None = None
    cov: FloatArray | None = None
    rank: int = -1
    condition: float = float("nan")
    history: FloatArray | None = None
    start: FloatArray | None = None
    drew: bool = False


@dataclass(slots=True)
class Solutions:
    """The fits of many datasets, as columns; each as in `Solution`.

    Attributes
    ----------
    positions : ndarray, shape (k,)
        Which datasets.
    x : ndarray, shape (k, n)
        All parameters.
    status : ndarray of int8, shape (k,)
        How each ended, as a position in ``tuple(Status)``.
    message : ndarray of int, shape (k,)
        And in words, as a position in `messages`.
    messages : list of str
        The different messages.
    cost, optimality, condition, seconds : ndarray, shape (k,)
        `seconds` is the share of each in the time of all, s.
    n_residuals, nfev, njev, nit, rank : ndarray of int, shape (k,)
        Counts.
    at_bound : ndarray of int8, shape (k, n)
        Which parameters are at a bound.
    cov : ndarray, shape (k, n (n + 1) / 2), optional
        Upper triangles of the covariances.
    start : ndarray, shape (k, n), optional
        All parameters at the start, where they are the datasets' own.
    """

    positions: NDArray[np.intp]
    x: FloatArray
    status: NDArray[np.int8]
    message: NDArray[np.intp]
    messages: list[str]
    cost: FloatArray
    optimality: FloatArray
    condition: FloatArray
    seconds: FloatArray
    n_residuals: NDArray[Any]
    nfev: NDArray[Any]
    njev: NDArray[Any]
    nit: NDArray[Any]
    rank: NDArray[Any]
    at_bound: NDArray[np.int8]
    cov: FloatArray | None = None
    start: FloatArray | None = None

    def __len__(self) -> int:
        return len(self.positions)

    def outcomes(self) -> Iterator[Outcome]:
        """One by one."""
        n = self.x.shape[1]
        rows, columns = np.triu_indices(n)
        for i, position in enumerate(self.positions.tolist()):
            cov = None
            if self.cov is not None:
                cov = np.empty((n, n))
                cov[rows, columns] = cov[columns, rows] = self.cov[i]
            status, text = tuple(Status)[self.status[i]], self.messages[self.message[i]]
            found = Solution(self.x[i], status, text, at_bound=self.at_bound[i], cov=cov)
            for name in ("n_residuals", "nfev", "njev", "nit", "rank"):
                setattr(found, name, int(getattr(self, name)[i]))
            for name in ("cost", "optimality", "condition"):
                setattr(found, name, float(getattr(self, name)[i]))
            found.start = None if self.start is None else self.start[i]
            yield Outcome(position, OutcomeKind.DONE, found, seconds=float(self.seconds[i]))
