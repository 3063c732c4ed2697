"""`_parfit.json`: of what a folder of Parquet files is, and the checksums of the parts.

It has a checksum of itself, under ``"crc"``: of the object without it, with sorted keys. Each part has the manifest in
its footer as well, from which a lost `_parfit.json` is made again.
"""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any, NamedTuple

from parfit.core.errors import StoreError
from parfit.stores.reading import Argument, Identity

__all__ = ["FORMAT", "MANIFEST", "Listing", "Manifest", "as_text", "manifest_of", "read_listing", "said_of", "sealed"]
__all__ += ["unsealed"]

FORMAT = 3
MANIFEST = "_parfit.json"


class Manifest(NamedTuple):
    """What a folder is of.

    Attributes
    ----------
    identity
        As of a SQLite store.
    total
        The number of datasets.
    rows
        How many of them there are to a part.
    """

    identity: Identity
    total: int
    rows: int


class Listing(NamedTuple):
    """What `_parfit.json` says.

    Attributes
    ----------
    manifest
        Of what the folder is.
    sums
        The checksum of each part's file, by its number; two where the one was to take the place of the other, and
        whoever wrote it may have been killed before or after.
    writing
        The parts whose files come or go at the moment: they may be missing, or there without a checksum.
    """

    manifest: Manifest
    sums: dict[int, list[int]]
    writing: list[int]


def sealed(said: dict[str, Any]) -> dict[str, Any]:
    """An object with its checksum."""
    return {**said, "crc": _crc(said)}


def unsealed(said: dict[str, Any]) -> dict[str, Any]:
    """An object without its checksum.

    Raises
    ------
    ValueError, LookupError, TypeError
        Where that is not the one.
    """
    rest = {name: value for name, value in said.items() if name != "crc"}
    if said["crc"] != _crc(rest):
        raise ValueError("its checksum is wrong")
    return rest


def _crc(said: dict[str, Any]) -> int:
    there = json.loads(json.dumps(said))  # as a reader has it: text for keys, lists for tuples
    return zlib.crc32(json.dumps(there, sort_keys=True).encode())


def said_of(manifest: Manifest) -> dict[str, Any]:
    """A manifest as JSON has it."""
    identity, total, rows = manifest
    return {"format": FORMAT, "total": total, "rows": rows, "call": identity.call, "facts": identity.facts}


def manifest_of(said: dict[str, Any]) -> Manifest:
    """A manifest from what `said_of` made of it."""
    call = {name: Argument(*argument) for name, argument in said["call"].items()}
    return Manifest(Identity(call, said["facts"]), int(said["total"]), int(said["rows"]))


def as_text(listing: Listing) -> str:
    """What to write into `_parfit.json`."""
    said = {**said_of(listing.manifest), "parts": listing.sums, "writing": listing.writing}
    return json.dumps(sealed(said), indent=1)


def read_listing(folder: Path) -> Listing:
    """What `_parfit.json` says.

    Raises
    ------
    StoreError
        Where it is of another version, or cannot be read.
    FileNotFoundError, ValueError, LookupError, TypeError
        Where it is not there, or damaged.
    """
    path = folder / MANIFEST
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise
    except OSError as exc:
        raise StoreError(f"{path} cannot be read: {exc.strerror}") from exc
    try:
        said = unsealed(said)
    except LookupError:  # of a version that had none
        if said.get("format", FORMAT) == FORMAT:
            raise
    if said["format"] != FORMAT:
        raise StoreError(f"{folder} has format {said['format']}, and this version of parfit reads format {FORMAT}")
    sums = {int(number): list(of_part) for number, of_part in said["parts"].items()}
    return Listing(manifest_of(said), sums, list(said["writing"]))
