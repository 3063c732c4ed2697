"""One exception tree, and the sentence that a mistyped name gets.

Every exception that parfit raises on purpose is a `ParfitError`, and also the built-in exception that a
user of SciPy or pandas would expect (`ValueError`, `TypeError`, `ImportError`, `TimeoutError`).
"""

from __future__ import annotations

import difflib
from collections.abc import Hashable, Iterable, Sequence
from typing import Any, NoReturn

__all__ = [
    "DownloadError",
    "FitError",
    "FitInterrupted",
    "InvalidInputError",
    "InvalidTypeError",
    "MethodMismatchError",
    "MissingPackageError",
    "ModelError",
    "ParfitError",
    "ParfitWarning",
    "RemoteError",
    "SetupError",
    "StoreError",
    "StoreMismatchError",
    "TaskTimeoutError",
    "UnknownNameError",
    "WorkerLostError",
    "listed",
    "missing_package",
    "nearest",
    "refuse_unknown",
    "shown",
    "unlike",
]


class ParfitError(Exception):
    """The root of the tree."""


class ParfitWarning(UserWarning):
    """A warning from parfit itself."""


class InvalidInputError(ParfitError, ValueError):
    """An argument has a value that cannot be used; nothing has been started."""


class InvalidTypeError(ParfitError, TypeError):
    """An argument is of a kind that cannot be used; nothing has been started."""


class UnknownNameError(InvalidInputError):
    """A name (of a method, bound, column, parameter, ...) that does not exist."""


class MethodMismatchError(InvalidInputError):
    """The method cannot work with the kind of value that the objective gives."""


class MissingPackageError(ParfitError, ImportError):
    """An optional package is needed and not installed."""


class ModelError(ParfitError, ValueError):
    """A model file could not be translated or loaded."""


class StoreError(ParfitError, OSError):
    """A store cannot be written or read; `fits`, where there is one, holds what was fitted all the same.

    Attributes
    ----------
    fits : Fits, optional
        All results, from memory.
    """

    fits: Any = None


class StoreMismatchError(InvalidInputError):
    """A store holds fits of something else: of other data, another objective, or with other options."""


class DownloadError(ParfitError, OSError):
    """A file could not be fetched, or is not the file that was asked for."""


class RemoteError(ParfitError, RuntimeError):
    """A task raised an exception in a worker that cannot be rebuilt here; its traceback is in the text."""


class SetupError(ParfitError, RuntimeError):
    """The setup of the workers failed, so that no task could run."""


class WorkerLostError(ParfitError, RuntimeError):
    """The process that ran a task died."""


class TaskTimeoutError(ParfitError, TimeoutError):
    """A task ran for longer than its time limit and was stopped."""


class FitError(ParfitError, RuntimeError):
    """A dataset could not be fitted, and ``on_error="raise"`` was asked for.

    Attributes
    ----------
    label
        The label of the dataset.
    """

    def __init__(self, message: str, label: Hashable = None) -> None:
        super().__init__(message)
        self.label = label


class FitInterrupted(KeyboardInterrupt):
    """A Ctrl-C during `parfit.fit`.

    Attributes
    ----------
    fits
        The `Fits`, with what was finished; the other rows have the status ``not_run``.
    """

    def __init__(self, message: str, fits: Any = None) -> None:
        super().__init__(message)
        self.fits = fits


def shown(label: Any) -> str:
    """A label as the user wrote it: ``3``, not ``np.int64(3)``."""
    if isinstance(label, tuple):
        return f"({', '.join(map(shown, label))}{',' if len(label) == 1 else ''})"
    return repr(label.item() if type(label).__module__ == "numpy" and hasattr(label, "item") else label)


def listed(names: Sequence[str], limit: int = 12) -> str:
    """How many parameters, and which: ``2 parameters ('a', 'b')``."""
    more = ", …" if len(names) > limit else ""
    return f"{len(names)} parameter{'' if len(names) == 1 else 's'} ({', '.join(map(repr, names[:limit]))}{more})"


def unlike(was: Sequence[str], now: Sequence[str], limit: int = 4) -> str:
    """How names differ from what they were: ``'a' is missing, 'b', 'c' are new``, the first of each."""
    parts = []
    for these, others, what in ((was, now, "missing"), (now, was, "new")):
        gone = set(others)
        if found := [name for name in these if name not in gone]:
            more = f", … ({len(found)} in all)" if len(found) > limit else ""
            parts.append(f"{', '.join(map(repr, found[:limit]))}{more} {'is' if len(found) == 1 else 'are'} {what}")
    if not parts:
        old, new = next(pair for pair in zip(was, now, strict=True) if pair[0] != pair[1])
        parts.append(f"the order is another: {new!r} is where {old!r} was")
    return ", ".join(parts)


def nearest(name: object, known: Iterable[object]) -> str | None:
    """The known name that is closest to `name`, or None where none is close."""
    by_lower = {str(k).lower(): str(k) for k in known}
    found = difflib.get_close_matches(str(name).lower(), list(by_lower), n=1, cutoff=0.6)
    return by_lower[found[0]] if found else None


def refuse_unknown(what: str, name: object, known: Iterable[object], *, limit: int = 12) -> NoReturn:
    """Raise `UnknownNameError`: what, the name, the nearest match, and the known names where they are few."""
    names = [str(k) for k in known]
    text = f"unknown {what} {shown(name)}."
    if (close := nearest(name, names)) is not None:
        text += f" Did you mean {close!r}?"
    if names:
        more = f", … ({len(names)} in all)" if len(names) > limit else ""
        text += f" Known: {', '.join(map(repr, names[:limit]))}{more}."
    raise UnknownNameError(text)


def missing_package(package: str, purpose: str, extra: str) -> MissingPackageError:
    """Build the error for a missing optional package, with the command that installs it."""
    return MissingPackageError(
        f"{purpose} needs {package}, which is not installed: pip install 'parfit[{extra}]'", name=package
    )
