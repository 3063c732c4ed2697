"""Whether the objective gives a scalar or residuals: the first dataset that can be evaluated decides for all.

A value that is NaN or infinite decides nothing: many objectives give a plain NaN for a dataset without data.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from parfit.core.columns import STATUSES, Columns
from parfit.core.errors import InvalidTypeError, MethodMismatchError
from parfit.core.solution import Outcome, OutcomeKind, Solution, Status, TaskError
from parfit.core.windows import Windows

__all__ = ["MismatchWatch", "mismatch", "reconcile"]


class MismatchWatch:
    """Raises as soon as it is known that the method cannot work with what the objective gives.

    That is where the first dataset, in the data's order, that says anything was refused by the method; what comes
    after one that was not is a matter of that dataset alone. So the answer does not depend on who is faster.
    """

    def __init__(self, positions: NDArray[np.intp] | Windows, rows: int) -> None:
        self._order = positions
        self._next = 0
        self._seen = np.zeros(rows, dtype=bool)
        self._refused: dict[int, str] = {}
        self._suited: set[int] = set()
        self._settled = False

    def see(self, outcome: Outcome) -> None:
        """Take note of an outcome; raises `MethodMismatchError`."""
        if self._settled:
            return
        key = int(outcome.key)
        self._seen[key] = True
        error, solution = outcome.error, outcome.value
        if error is not None and error.type.endswith(".MethodMismatchError"):
            self._refused[key] = error.message
        elif isinstance(solution, Solution) and _says(solution.nfev, solution.n_residuals, solution.status):
            self._suited.add(key)
        while self._next < len(self._order) and self._seen[first := int(self._order[self._next])]:
            if first in self._refused:
                raise MethodMismatchError(self._refused[first])
            if first in self._suited:
                self._settled = True
                break
            self._next += 1


def _says(nfev: Any, n_residuals: Any, status: Status) -> bool:
    return bool(nfev > 0 and (n_residuals > 0 or (n_residuals == -1 and status is not Status.NONFINITE)))


def reconcile(columns: Columns) -> Columns:
    """With an error for each dataset whose objective is of another kind than the first one's.

    What is given stays as it is: a store keeps what was found, and which dataset is the first may change.
    """
    m = columns.ints_of("n_residuals")
    nonfinite = columns.status == STATUSES.index(Status.NONFINITE)
    known = np.flatnonzero((columns.ints_of("nfev") > 0) & ((m > 0) | ((m == -1) & ~nonfinite)))
    if not len(known) or not ((m[known] > 0) != (m[known[0]] > 0)).any():
        return columns
    columns = columns.copy()
    first = bool(m[known[0]] > 0)
    for i in known[(m[known] > 0) != first]:
        columns.put(int(i), Outcome(int(i), OutcomeKind.ERROR, None, mismatch(first)))
    return columns


def mismatch(first: bool) -> TaskError:
    """The error of a dataset whose objective gave another kind than that of the first: residuals (True) or a scalar."""
    kinds = ("a scalar", "a vector of residuals")
    text = f"the objective gave {kinds[not first]} for this dataset, and {kinds[first]} for the first"
    return TaskError.from_exception(InvalidTypeError(text))
