"""What the caller of a primitive gets of an `Outcome`: the value, or the exception, and the warnings."""

from __future__ import annotations

import builtins
import reprlib
import warnings
from collections.abc import Iterable

from parfit.core.errors import ParfitWarning, RemoteError, TaskTimeoutError, WorkerLostError
from parfit.core.solution import Outcome, OutcomeKind, TaskError, WarningText

__all__ = ["exception", "shown", "warn_again"]


def exception(outcome: Outcome, what: str) -> BaseException:
    """The exception of a task that has no value, the worker's traceback as its cause.

    Parameters
    ----------
    outcome
        Not ``done``.
    what
        What the task was, for the message: "item 3 (…)".

    Returns
    -------
    BaseException
        Of the type that was raised in the worker, where that can be rebuilt here, with a note that says on what. An
        exception that would end this process if it went unnoticed (SystemExit, KeyboardInterrupt) is a `RemoteError`.
    """
    error = outcome.error or TaskError("RuntimeError", "no exception is known", "")
    if outcome.kind is OutcomeKind.TIMEOUT:
        return TaskTimeoutError(f"{what}: {error.message}")
    if outcome.kind is OutcomeKind.WORKER_LOST:
        return WorkerLostError(f"{what}: {error.message}")
    found = error.to_exception()
    if not isinstance(found, Exception):
        cause = found.__cause__
        found = RemoteError(f"{error.type}: {error.message}")
        found.__cause__ = cause
    found.add_note(f"(raised in a worker of parfit's, on {what})")
    return found


def shown(index: int, item: object) -> str:
    """An item as messages name it."""
    try:
        text = reprlib.repr(item)
    except Exception:  # noqa: BLE001 - a __repr__ of the user's
        text = f"a {type(item).__name__}"
    return f"item {index} ({text})"


def warn_again(texts: Iterable[WarningText], stacklevel: int) -> None:
    """Give the warnings of tasks once more, here, each distinct one once."""
    for category, message in dict.fromkeys((text.category, text.message) for text in texts):
        kind = getattr(builtins, category, None)
        if isinstance(kind, type) and issubclass(kind, Warning):
            warnings.warn(message, kind, stacklevel=stacklevel + 1)
        else:
            warnings.warn(f"{category}: {message}", ParfitWarning, stacklevel=stacklevel + 1)
