"""Where an SPSA run keeps its state, so that a run that was stopped goes on as if it had not been.

The state is JSON text: in a file that is replaced as a whole, so that a crash leaves the old or the new state and
never half of one, or under the key ``"spsa"`` of a mapping. Python writes a float as the shortest decimal
that reads back as the same float, so that nothing is lost.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, fields
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from parfit.core.errors import InvalidInputError, InvalidTypeError
from parfit.solvers.spsa_gains import AutoGain
from parfit.solvers.spsa_steps import SPSAState

__all__ = ["Keeper", "load", "refuse_other"]

FORMAT = "parfit SPSA state, version 1"
KEY = "spsa"
#: Between two multiples of `save_iters`, the state is also saved when this time has passed, s.
SAVE_INTERVAL_S = 5.0


class Keeper:
    """Saves the states it is called with: the first, every `every` iterations, every few seconds, the last.

    Leaving the ``with`` saves the last one, also on the way of an exception.
    """

    def __init__(self, target: Any, settings: dict[str, Any], every: int) -> None:
        self.target = target
        self.settings = settings
        self.every = every
        self.latest: SPSAState | None = None
        self.saved: SPSAState | None = None
        self.saved_at = -float("inf")

    def __call__(self, state: SPSAState) -> None:
        self.latest = state
        if self.saved is None or state.nit % self.every == 0 or time.monotonic() - self.saved_at > SAVE_INTERVAL_S:
            self.save()

    def save(self) -> None:
        """Write the latest state, where it is not written yet."""
        if self.latest is not None and self.latest is not self.saved:
            write(self.target, to_text(self.settings, self.latest))
            self.saved, self.saved_at = self.latest, time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self.save()


def load(target: Any) -> tuple[dict[str, Any], SPSAState] | None:
    """The settings and the state kept at `target`, or None where there is nothing yet.

    Raises
    ------
    InvalidTypeError
        Where `target` is neither a path nor a mapping.
    InvalidInputError
        Where what is there is damaged, or not a state of SPSA.
    """
    text = read(target)
    return None if text is None else from_text(text, name_of(target))


def refuse_other(saved: dict[str, Any], wanted: dict[str, Any], target: Any) -> None:
    """Raise `InvalidInputError` where a run with the settings `wanted` cannot go on from `saved`."""
    wanted = decoded(json.loads(json.dumps(encoded(wanted))))
    different = [name for name in wanted if name not in saved or not np.array_equal(saved[name], wanted[name])]
    if different:
        what = "; ".join(
            f"{name} is {shown(saved.get(name))} there and {shown(wanted[name])} here" for name in different
        )
        raise InvalidInputError(
            f"the state in {name_of(target)} is of another run: {what}. Give the same settings to go on with "
            "it, or another savestate to start anew."
        )


def to_text(settings: dict[str, Any], state: SPSAState) -> str:
    """The settings and the state as JSON, with a checksum."""
    content = {"settings": encoded(settings), "state": encoded(asdict(state))}
    return json.dumps({"format": FORMAT, "checksum": checksum(content), **content})


def from_text(text: str, name: str) -> tuple[dict[str, Any], SPSAState]:
    """What `to_text` was given; `name` is for the error where that cannot be told."""
    advice = "Name another savestate, or remove this one to start anew."
    try:
        document = json.loads(text)
    except ValueError as exc:
        kind = "is empty" if not text.strip() else f"is damaged or not a state of SPSA ({exc})"
        raise InvalidInputError(f"{name} {kind}. {advice}") from exc
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise InvalidInputError(f"{name} is not a state of SPSA that this version reads. {advice}")
    content = {key: document.get(key) for key in ("settings", "state")}
    if document.get("checksum") != checksum(content):
        raise InvalidInputError(f"{name} is damaged: its checksum does not match. {advice}")
    values = decoded(content["state"])
    if values["auto"] is not None:
        values["auto"] = AutoGain(**values["auto"])
    return decoded(content["settings"]), SPSAState(
        **{f.name: values[f.name] for f in fields(SPSAState) if f.name in values}
    )


def checksum(content: dict[str, Any]) -> str:
    """A digest of `content`."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def encoded(value: Any) -> Any:
    """`value` in what JSON knows."""
    if isinstance(value, np.ndarray):
        return {"array": value.ravel().tolist(), "shape": value.shape, "dtype": value.dtype.name}
    if isinstance(value, dict):
        return {str(key): encoded(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [encoded(item) for item in value]
    return value.item() if isinstance(value, np.generic) else value


def decoded(value: Any) -> Any:
    """The inverse of `encoded`, with tuples for lists."""
    if isinstance(value, dict):
        if value.keys() == {"array", "shape", "dtype"}:
            return np.array(value["array"], dtype=value["dtype"]).reshape(value["shape"])
        return {key: decoded(item) for key, item in value.items()}
    return tuple(decoded(item) for item in value) if isinstance(value, list) else value


def is_path(target: Any) -> bool:
    """Whether `target` is a path; where it is not a mapping either, it is refused."""
    if isinstance(target, (str, os.PathLike)):
        return True
    if not (hasattr(target, "__getitem__") and hasattr(target, "__setitem__") and hasattr(target, "keys")):
        raise InvalidTypeError(f"savestate must be the path of a file or a mapping such as a dict, not {target!r}")
    return False


def name_of(target: Any) -> str:
    """How to call `target` in a message."""
    return repr(os.fspath(target)) if is_path(target) else f"the mapping given as savestate (key {KEY!r})"


def read(target: Any) -> str | None:
    """The text at `target`, or None."""
    if not is_path(target):
        return str(target[KEY]) if KEY in target.keys() else None
    path = Path(target)
    if not path.parent.is_dir():
        raise InvalidInputError(f"savestate {str(path)!r}: the folder {str(path.parent)!r} does not exist")
    if path.is_dir():
        raise InvalidInputError(f"savestate {str(path)!r} is a folder; name a file in it")
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except UnicodeDecodeError as exc:
        raise InvalidInputError(f"savestate {str(path)!r} is not a state of SPSA: it is not text") from exc


def write(target: Any, text: str) -> None:
    """Replace what is at `target`, all at once; a link stays one."""
    if not is_path(target):
        target[KEY] = text
        return
    path = os.path.realpath(target)
    temporary = f"{path}.{os.getpid()}.tmp"
    try:
        with open(temporary, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise


def shown(value: Any) -> str:
    """`value` in a message, shortened."""
    if isinstance(value, np.ndarray):
        return np.array2string(value, threshold=6, edgeitems=3)
    if isinstance(value, Iterable) and not isinstance(value, str):
        value = list(value)
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
