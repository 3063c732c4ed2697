"""The times of a run: its steps, and which of them are returned. PySD's arithmetic, number by number.

All of it is known while compiling; a run with another number of steps is another program.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

__all__ = ["Ticks", "ticks"]

#: Relative to the time step: what PySD takes for the same time.
_PRECISION = 1e-5


@dataclass(frozen=True, eq=False)
class Ticks:
    """The steps of a run.

    Attributes
    ----------
    times, steps : ndarray, shape (n + 1,)
        The time at the beginning of each step, and after the last; and the length of the step that follows.
    saved : ndarray of int, shape (k,)
        The positions in `times` that are returned.
    labels : ndarray, shape (k,)
        Their times, rounded as PySD rounds them; whole numbers where all of the model's own are.
    skipped
        Times that were asked for and fall between steps.
    """

    times: np.ndarray[Any, Any]
    steps: np.ndarray[Any, Any]
    saved: np.ndarray[Any, Any]
    labels: np.ndarray[Any, Any]
    skipped: tuple[float, ...]

    @functools.cached_property
    def index(self) -> pd.Index[Any]:
        """The labels as an index of a frame."""
        index: pd.Index[Any] = pd.Index(self.labels, name="time")
        return index


def ticks(
    start: int | float,
    step_at: Callable[[int | float], int | float],
    end_at: Callable[[int | float], int | float],
    interval_at: Callable[[int | float], int | float],
    stamps: Sequence[float] | None,
) -> Ticks:
    """Step through a run.

    Parameters
    ----------
    start
        The time it starts at.
    step_at, end_at, interval_at
        The time step, the end, and the interval of what is saved, by the time.
    stamps
        Increasing: what is returned; None for every interval.
    """
    times, steps, saved, labels, skipped = [], [], [], [], []
    waiting = list(stamps or [])[::-1]
    t = start
    while True:
        dt = step_at(t)
        precision = dt * _PRECISION
        times.append(t)
        steps.append(dt)
        if stamps is None:
            since, every = t - start, interval_at(t)
            due = since % every < precision or -since % every < precision
        else:
            due = bool(waiting) and abs(t - waiting[-1]) <= 1e-8 + precision * abs(waiting[-1])
            if due:
                waiting.pop()
            while not due and waiting and t > waiting[-1]:
                skipped.append(waiting.pop())
        if due:
            saved.append(len(times) - 1)
            labels.append(np.round(t, -int(np.log10(precision))))
        if not t + precision < end_at(t):
            break
        t += dt
    found = np.array(times, float), np.array(steps, float), np.array(saved, int), np.array(labels)
    return Ticks(*found, (*skipped, *waiting[::-1]))
