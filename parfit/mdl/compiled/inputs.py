"""What a run is given: its times, parameters, and stocks at the start."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from parfit.mdl.compiled.named import Named
from parfit.mdl.compiled.tables import Knots

__all__ = ["CONTROLS", "Inputs", "Settings"]

#: The variables of a model that set its times.
CONTROLS = ("initial_time", "final_time", "time_step", "saveper")


@dataclass(frozen=True)
class Settings:
    """The times of a run, where they are not the model's own.

    Attributes
    ----------
    start, final_time, time_step, saveper
        In the model's unit of time; None for the model's own.
    stamps
        Increasing: the times that are returned, the last of them the end unless `final_time` says otherwise; None for
        every `saveper`.
    """

    start: float | None = None
    final_time: float | None = None
    time_step: float | None = None
    saveper: float | None = None
    stamps: tuple[float, ...] | None = None

    @property
    def end(self) -> float | None:
        """The end; None for the model's own."""
        if self.final_time is not None or self.stamps is None:
            return self.final_time
        return self.stamps[-1]


@dataclass(frozen=True, eq=False)
class Inputs:
    """What a run is given.

    Attributes
    ----------
    params
        Python identifier to a `Named`, or to `Knots` over time (or over a lookup's argument).
    initial
        Python identifier of a stock to a `Named`; None where the run starts as the model says.
    key
        Of random numbers.
    """

    params: Mapping[str, Named | Knots] = field(default_factory=dict)
    initial: Mapping[str, Named] | None = None
    key: Any = None

    def arrays(self) -> Iterator[Any]:
        """All numbers."""
        for value in (*self.params.values(), *(self.initial or {}).values()):
            yield from (value.x, value.y) if isinstance(value, Knots) else (value.data,)
