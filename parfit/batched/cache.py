"""Executables in the user's cache folder, so that the next process need not compile them again.

A file is named after the text of the program, the versions of JAX, the device and the kind of processor. It is written
under another name and moved, so that processes may share the folder; what cannot be read is compiled again. The folder
is the user's own (mode 700): reading an executable runs it.

`PARFIT_CACHE_DIR` names another folder; where it is empty, nothing is kept.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.metadata
import os
import platform
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
from jax.experimental import serialize_executable

__all__ = ["folder", "key_of", "load", "save"]

#: Files beyond this, the longest unused first, are deleted.
_MOST_FILES = 256
_SUFFIX = ".xla"


def folder() -> Path | None:
    """Where executables are kept; None for nowhere."""
    given = os.environ.get("PARFIT_CACHE_DIR")
    if given is not None:
        return Path(given).expanduser() / "compiled" if given else None
    base = os.environ.get("XDG_CACHE_HOME")
    if base:
        return Path(base) / "parfit" / "compiled"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local")) / "parfit" / "compiled"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "parfit" / "compiled"
    return Path.home() / ".cache" / "parfit" / "compiled"


def key_of(text: str, options: Mapping[str, Any]) -> str:
    """The name of a program: what it says, and what it was compiled for."""
    said = hashlib.sha256(text.encode())
    said.update(repr((sorted(options.items()), _machine())).encode())
    return said.hexdigest()[:40]


@functools.cache
def _machine() -> tuple[str, ...]:
    device = jax.devices()[0]
    return (
        jax.__version__,
        importlib.metadata.version("jaxlib"),
        device.platform,
        device.device_kind,
        str(jax.local_device_count()),
        platform.machine(),
        _cpu_features(),
        os.environ.get("XLA_FLAGS", ""),
    )


def _cpu_features() -> str:
    """What the processor can do, as far as the system tells: executables hold instructions for it."""
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
        for line in file:
            if line.startswith(("flags", "Features")):
                return hashlib.sha256(line.encode()).hexdigest()[:16]
    return platform.processor()


def load(key: str, lowered: Any) -> Any:
    """The executable of a lowered function; None where there is none that can be used."""
    where = folder()
    if where is None:
        return None
    file = where / (key + _SUFFIX)
    try:
        content = file.read_bytes()
        if len(content) < 32 or hashlib.sha256(content[32:]).digest() != content[:32]:
            return None
        program = serialize_executable.deserialize_and_load(content[32:], lowered.in_tree, lowered.out_tree)
        os.utime(file)
    except Exception:  # noqa: BLE001 - absent, of another version, of another machine: it is compiled again
        return None
    return program


def save(key: str, program: Any) -> None:
    """Keep an executable where that is possible."""
    where = folder()
    if where is None:
        return
    try:
        content = serialize_executable.serialize(program)[0]
        where.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle, temporary = tempfile.mkstemp(dir=where, prefix=".writing-")
        with os.fdopen(handle, "wb") as file:
            file.write(hashlib.sha256(content).digest() + content)
        os.replace(temporary, where / (key + _SUFFIX))
        _forget_old(where)
    except Exception:  # noqa: BLE001 - a full or read-only folder, a program that cannot be written: it is not kept
        return


def _forget_old(where: Path) -> None:
    files = [file for file in where.iterdir() if file.suffix == _SUFFIX]
    if len(files) > _MOST_FILES:
        for file in sorted(files, key=lambda f: f.stat().st_mtime)[: len(files) - _MOST_FILES]:
            file.unlink(missing_ok=True)
