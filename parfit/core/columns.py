"""The solutions of all datasets as columns: compact, and flat in memory whatever the number of rows.

One row costs about 90 bytes and 17 for each parameter, and 4 n (n + 1) for the covariance where there is one;
messages are kept once each, and only failed rows have an error.
"""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parfit.core.solution import Outcome, OutcomeKind, Solution, Solutions, Status, TaskError, WarningText

__all__ = ["Columns"]

STATUSES = tuple(Status)
_CODE = {status: code for code, status in enumerate(STATUSES)}
_OF_KIND = {
    OutcomeKind.ERROR: Status.ERROR,
    OutcomeKind.TIMEOUT: Status.TIMEOUT,
    OutcomeKind.WORKER_LOST: Status.WORKER_LOST,
}
_FLOATS = ("cost", "optimality", "condition", "seconds")
_INTS = ("n_residuals", "nfev", "njev", "nit", "rank", "attempts")


class Columns:
    """Columns of length B for n parameters; a row is ``not_run`` until it is put in.

    Attributes
    ----------
    params, at_bound : ndarray, shape (B, n)
        The parameters; -1, 0, 1 for at the lower bound, free, at the upper bound.
    status : ndarray of int8, shape (B,)
        Positions in `STATUSES`.
    floats : ndarray, shape (B, 4)
        ``cost``, ``optimality``, ``condition``, ``seconds``.
    ints : ndarray, shape (B, 6)
        ``n_residuals``, ``nfev``, ``njev``, ``nit``, ``rank``, ``attempts``; -1 where unknown.
    cov : ndarray, shape (B, n (n + 1) / 2), optional
        Upper triangles.
    errors, warnings, history
        By position, for the rows that have them.
    """

    def __init__(self, rows: int, n: int) -> None:
        self.params = np.full((rows, n), np.nan)
        self.at_bound = np.zeros((rows, n), dtype=np.int8)
        self.status = np.full(rows, _CODE[Status.NOT_RUN], dtype=np.int8)
        self.floats = np.full((rows, len(_FLOATS)), np.nan, order="F")  # many rows at once come column by column
        self.ints = np.full((rows, len(_INTS)), -1, dtype=np.int32, order="F")
        self.ints[:, -1] = 0
        self.cov: NDArray[np.float64] | None = None
        self._triangle = np.triu_indices(n)
        self._message_of = np.zeros(rows, dtype=np.int32)
        self._messages: dict[str, int] = {Status.NOT_RUN.sentence: 0}
        self.errors: dict[int, TaskError] = {}
        self.warnings: dict[int, tuple[WarningText, ...]] = {}
        self.history: dict[int, NDArray[np.float64]] = {}

    def __len__(self) -> int:
        return len(self.status)

    def put(self, position: int, outcome: Outcome) -> None:
        """Put in what became of a dataset, in place of what was there."""
        self.errors.pop(position, None)
        self.warnings.pop(position, None)
        self.history.pop(position, None)
        if outcome.warnings:
            self.warnings[position] = outcome.warnings
        solution = outcome.value
        if isinstance(solution, Solution):
            self._put_solution(position, solution, outcome)
            return
        assert outcome.error is not None
        self.errors[position] = outcome.error
        self.status[position] = _CODE[_OF_KIND[outcome.kind]]
        self.params[position] = np.nan
        self.at_bound[position] = 0
        self.floats[position] = (math.nan, math.nan, math.nan, outcome.seconds)
        self.ints[position] = (-1, -1, -1, -1, -1, outcome.attempts)
        if self.cov is not None:
            self.cov[position] = np.nan
        self._say(position, f"{outcome.error.type.rsplit('.', 1)[-1]}: {outcome.error.message}")

    def _put_solution(self, position: int, s: Solution, outcome: Outcome) -> None:
        self.status[position] = _CODE[s.status]
        self.params[position] = s.x
        self.at_bound[position] = 0 if s.at_bound is None else s.at_bound
        self.floats[position] = (s.cost, s.optimality, s.condition, outcome.seconds)
        self.ints[position] = (s.n_residuals, s.nfev, s.njev, s.nit, s.rank, outcome.attempts)
        if s.cov is not None:
            if self.cov is None:
                self.cov = np.full((len(self), len(self._triangle[0])), np.nan)
            self.cov[position] = s.cov[self._triangle]
        elif self.cov is not None:
            self.cov[position] = np.nan
        if s.history is not None:
            self.history[position] = s.history
        self._say(position, s.message)

    def put_many(self, found: Solutions) -> None:
        """Put in what became of many datasets, in place of what was there."""
        at = found.positions
        for kept in (self.errors, self.warnings, self.history):
            if kept:
                for position in at.tolist():
                    kept.pop(position, None)
        self.status[at] = found.status
        self.params[at] = found.x
        self.at_bound[at] = found.at_bound
        for name in _FLOATS:
            self.floats_of(name)[at] = getattr(found, name)
        for name in _INTS[:-1]:
            self.ints_of(name)[at] = getattr(found, name)
        self.ints_of("attempts")[at] = 1
        if found.cov is not None:
            if self.cov is None:
                self.cov = np.full((len(self), len(self._triangle[0])), np.nan)
            self.cov[at] = found.cov
        elif self.cov is not None:
            self.cov[at] = np.nan
        codes = [self._messages.setdefault(message, len(self._messages)) for message in found.messages]
        self._message_of[at] = np.array(codes, dtype=np.int32)[found.message]

    def _say(self, position: int, message: str) -> None:
        self._message_of[position] = self._messages.setdefault(message, len(self._messages))

    def fail(self, position: int, status: Status, message: str) -> None:
        """Give a row another status, where it can only be known once others are there."""
        self.status[position] = _CODE[status]
        self._say(position, message)

    def messages(self) -> list[str]:
        """The message of each row."""
        texts = list(self._messages)
        return [texts[code] for code in self._message_of]

    def message(self, position: int) -> str:
        """The message of one row."""
        return list(self._messages)[int(self._message_of[position])]

    def status_of(self, position: int) -> Status:
        """The status of one row."""
        return STATUSES[int(self.status[position])]

    def floats_of(self, name: str) -> NDArray[np.float64]:
        """A column of floats by its name, shape (B,)."""
        return self.floats[:, _FLOATS.index(name)]

    def ints_of(self, name: str) -> NDArray[np.int32]:
        """A column of whole numbers by its name, shape (B,)."""
        return self.ints[:, _INTS.index(name)]

    def cov_of(self, position: int) -> NDArray[np.float64]:
        """The covariance of one row, shape (n, n); NaN where there is none."""
        n = self.params.shape[1]
        made = np.full((n, n), np.nan)
        if self.cov is not None:
            made[self._triangle] = self.cov[position]
            made.T[self._triangle] = self.cov[position]
        return made

    def covariances(self) -> NDArray[np.float64]:
        """The covariances of all rows, shape (B, n, n), as `cov_of` gives one."""
        n = self.params.shape[1]
        made = np.full((len(self), n, n), np.nan)
        if self.cov is not None:
            rows, columns = self._triangle
            made[:, rows, columns] = made[:, columns, rows] = self.cov
        return made

    def variances(self) -> NDArray[np.float64]:
        """The diagonals of the covariances, shape (B, n)."""
        if self.cov is None:
            return np.full_like(self.params, np.nan)
        rows, columns = self._triangle
        return self.cov[:, rows == columns]

    def taken(self, positions: NDArray[np.intp]) -> Columns:
        """Some rows, a copy."""
        made = Columns(0, self.params.shape[1])
        for name in ("params", "at_bound", "status", "floats", "ints"):
            setattr(made, name, getattr(self, name)[positions])
        made.cov = None if self.cov is None else self.cov[positions]
        texts = list(self._messages)
        codes, message_of = np.unique(self._message_of[positions], return_inverse=True)
        made._message_of = message_of.astype(np.int32)
        made._messages = {texts[code]: i for i, code in enumerate(codes)}
        for name in ("errors", "warnings", "history"):
            if kept := getattr(self, name):
                setattr(made, name, {i: kept[p] for i, p in enumerate(positions.tolist()) if p in kept})
        return made

    def place(self, positions: NDArray[np.intp], rows: Columns) -> None:
        """Put in the rows of others, in place of what was there."""
        for name in ("params", "at_bound", "status", "floats", "ints"):
            getattr(self, name)[positions] = getattr(rows, name)
        if rows.cov is not None and self.cov is None:
            self.cov = np.full((len(self), len(self._triangle[0])), np.nan)
        if self.cov is not None:
            self.cov[positions] = np.nan if rows.cov is None else rows.cov
        codes = [self._messages.setdefault(message, len(self._messages)) for message in rows._messages]
        self._message_of[positions] = np.array(codes, dtype=np.int32)[rows._message_of]
        for name in ("errors", "warnings", "history"):
            mine, others = getattr(self, name), getattr(rows, name)
            for i, position in enumerate(positions.tolist()) if mine or others else ():
                mine.pop(position, None)
                if i in others:
                    mine[position] = others[i]

    def coded_messages(self) -> tuple[NDArray[np.int32], list[str]]:
        """The message of each row as a position in a list, and the list."""
        return self._message_of, list(self._messages)

    def code_messages(self, codes: NDArray[np.int32], messages: list[str]) -> None:
        """Give each row a message, as `coded_messages` has them."""
        self._message_of, self._messages = codes, {text: i for i, text in enumerate(messages)}

    def copy(self) -> Columns:
        """A copy that shares nothing."""
        return copy.deepcopy(self)

    def has(self, *statuses: Status) -> NDArray[np.bool_]:
        """Where the status is one of `statuses`, shape (B,)."""
        return np.isin(self.status, [_CODE[s] for s in statuses])

    def where(self, *statuses: Status) -> NDArray[Any]:
        """The positions with one of `statuses`."""
        return np.flatnonzero(self.has(*statuses))
