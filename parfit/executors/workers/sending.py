"""Outcomes as a payload, whatever the values in them are."""

from __future__ import annotations

from typing import Any

from parfit.core.solution import Outcome, OutcomeKind, TaskError
from parfit.executors import payload as pl
from parfit.executors.baggage import result_error

__all__ = ["dumps_outcomes"]


def dumps_outcomes(outcomes: list[Outcome], *head: Any) -> pl.Payload:
    """Pickle ``(*head, outcomes)``; a value that cannot be pickled makes its own outcome an error, no other."""
    try:
        return pl.dumps((*head, outcomes), by_value=False)
    except Exception:  # noqa: BLE001 - pickling raises what it likes
        return pl.dumps((*head, [_sendable(outcome) for outcome in outcomes]), by_value=True)


def _sendable(outcome: Outcome) -> Outcome:
    error = None
    try:
        payload = pl.dumps(outcome)
    except Exception as exc:  # noqa: BLE001
        error = result_error(outcome.value, exc)
    else:
        try:
            pl.loads(payload)
        except Exception as exc:  # noqa: BLE001
            error = TaskError.from_exception(exc, skip_frames=1)
    if error is not None:
        return Outcome(outcome.key, OutcomeKind.ERROR, None, error, outcome.seconds, 1, outcome.warnings)
    return outcome
