"""What is in a folder of Parquet files, read without changing it: while it is written, and where it is damaged.

Every byte of a part is read: its checksum is in `_parfit.json` (`parfit.stores.manifest`). Where that is lost, there is
another in the part's own footer, of the file as it is with zeros in that place.
"""

from __future__ import annotations

import enum
import json
import os
import re
import sys
import zlib
from collections import Counter
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import pandas as pd

from parfit.core.errors import StoreError
from parfit.stores.manifest import FORMAT, MANIFEST, Listing, Manifest, manifest_of, read_listing

__all__ = [
    "KEY",
    "UNSIGNED",
    "Folder",
    "checksum",
    "is_part",
    "is_parts",
    "part_path",
    "part_paths",
    "read_folder",
    "read_part",
    "rows_files",
    "sign",
]

_PART = re.compile(r"part-(\d+)\.parquet")
_UNDER_WAY = re.compile(r"_rows-(\d+)\.db")
#: Under which a footer has what is to know of a part.
KEY = b"parfit"
#: What is in a footer before its file has a checksum.
UNSIGNED = {"whole": "00000000"}
#: So much of a file is in memory, bytes; and where its footer is.
_PIECE, _TAIL = 1 << 22, 1 << 16


class _Amiss(enum.Enum):
    """What a part is that has no footer."""

    DAMAGED = "damaged, or lost"
    LEFT = "to be removed"


_DAMAGED, _LEFT = _Amiss.DAMAGED, _Amiss.LEFT


class Folder(NamedTuple):
    """What is in a folder.

    Attributes
    ----------
    manifest
        Of what it is.
    footers
        What is to know of each part that is sound, by its number.
    sums
        The checksums of the parts that are there: of a sound one its own, of another those of a `Listing`.
    damage
        What is not as it was written, in words; none for nothing.
    leftover
        The parts that were to be removed when somebody was killed.
    """

    manifest: Manifest
    footers: dict[int, dict[str, Any]]
    sums: dict[int, list[int]]
    damage: str
    leftover: list[int]


def part_path(folder: Path, number: int) -> Path:
    """Where a part is."""
    return folder / f"part-{number:05d}.parquet"


def part_paths(folder: Path) -> dict[int, Path]:
    """The files that are there and are called as parts are, by their numbers."""
    return {int(found[1]): p for p in sorted(folder.iterdir()) if (found := _PART.fullmatch(p.name))}


def rows_files(folder: Path) -> dict[int, Path]:
    """The files of parts that are not finished, by their numbers."""
    if not folder.is_dir():
        return {}
    return {int(found[1]): p for p in sorted(folder.iterdir()) if (found := _UNDER_WAY.fullmatch(p.name))}


def is_parts(path: str | os.PathLike[str]) -> bool:
    """Whether there is such a folder, be it without its `_parfit.json`."""
    if not os.path.isdir(path):
        return False
    return os.path.isfile(os.path.join(path, MANIFEST)) or any(map(is_part, part_paths(Path(path)).values()))


def is_part(path: Path) -> bool:
    """Whether a file is of parfit's, sound or not; not for one whose end is lost."""
    try:
        with open(path, "rb") as file:
            if _footer(file) is not None:
                return True
            file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL))
            tail = file.read()
            return KEY in tail and b'"first_kind"' in tail
    except OSError:
        return False


def read_folder(path: Path) -> Folder:
    """What is in a folder.

    Where `_parfit.json` is lost or damaged, what the parts say of themselves counts.

    Raises
    ------
    StoreError
        Where neither says anything, and for a folder of another version.
    """
    try:
        listing = read_listing(path)
    except FileNotFoundError:
        return _from_parts(path, "it is not there")
    except (ValueError, LookupError, TypeError, AttributeError) as exc:
        return _from_parts(path, str(exc))
    footers: dict[int, dict[str, Any]] = {}
    sums: dict[int, list[int]] = {}
    damaged, leftover = [], []
    for number in sorted({*part_paths(path), *listing.sums}):
        found = _looked_at(path, number, listing)
        if found is _DAMAGED:  # or another has come into its place, by another process, since the listing was read
            found = _looked_at(path, number, _again(path, listing))
        if isinstance(found, tuple):
            footers[number], sums[number] = found[0], [found[1]]
        elif found is _DAMAGED:
            damaged.append(number)
            sums[number] = listing.sums.get(number, [])
        elif found is _LEFT:
            leftover.append(number)
    sums = {number: of_part for number, of_part in sums.items() if part_path(path, number).exists()}
    return Folder(listing.manifest, footers, sums, _in_words(path, damaged), leftover)


def _again(path: Path, listing: Listing) -> Listing:
    try:
        return read_listing(path)
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return listing


def _looked_at(path: Path, number: int, listing: Listing) -> tuple[dict[str, Any], int] | _Amiss | None:
    """The footer of a part and its checksum; None for one that has not come yet."""
    sums, on_its_way = listing.sums.get(number, []), number in listing.writing
    try:
        with open(part_path(path, number), "rb") as file:
            crc, footer = _checksum(file), _footer(file)
    except FileNotFoundError:
        return None if on_its_way or not sums else _DAMAGED
    except OSError:
        return _DAMAGED
    if crc in sums and footer is not None:
        return footer, crc
    return _LEFT if on_its_way and not sums else _DAMAGED


def _in_words(path: Path, damaged: list[int]) -> str:
    lost = [part_path(path, k).name for k in damaged if not part_path(path, k).exists()]
    bad = [part_path(path, k).name for k in damaged if part_path(path, k).name not in lost]
    said = [f"{', '.join(bad)} is damaged, or of something else"] if bad else []
    said += [f"{', '.join(lost)} is lost"] if lost else []
    again = ["its datasets are fitted again by the call of fit that wrote it"] if said else []
    return "; ".join(said + again)


def checksum(path: Path) -> int:
    """That of a whole file."""
    with open(path, "rb") as file:
        return _checksum(file)


def _checksum(file: BinaryIO, size: int = sys.maxsize) -> int:
    """That of so many bytes, or of all that there are from where the file stands."""
    crc = 0
    while piece := file.read(min(_PIECE, size)):
        crc, size = zlib.crc32(piece, crc), size - len(piece)
    return crc


def _footer(file: BinaryIO) -> dict[str, Any] | None:
    """What a part says of itself; None for a file that is damaged, or somebody else's."""
    said = _whole_footer(file)
    return said and {name: value for name, value in said.items() if name not in ("table", "whole")}


def _whole_footer(file: BinaryIO) -> dict[str, Any] | None:
    import pyarrow
    import pyarrow.parquet

    try:
        file.seek(0)
        metadata = pyarrow.parquet.read_metadata(file)
        said = json.loads(metadata.metadata[KEY])
        return said if said["rows"] == metadata.num_rows and said["table"]["format"] == FORMAT else None
    except (OSError, ValueError, LookupError, TypeError, AttributeError, pyarrow.ArrowException):
        return None


def read_part(path: Path) -> pd.DataFrame:
    """The rows of a part.

    Raises
    ------
    StoreError
        Where it has been damaged since it was looked at.
    """
    import pyarrow

    try:
        return pd.read_parquet(path, engine="pyarrow", page_checksum_verification=True)
    except (OSError, ValueError, LookupError, TypeError, pyarrow.ArrowException) as exc:
        text = f"{path} cannot be read: {exc} (the call of fit that wrote it fits its datasets again)"
        raise StoreError(text) from exc


def _from_parts(path: Path, why: str) -> Folder:
    """A folder without what was in `_parfit.json`."""
    found, damaged = {}, []
    for number, file in part_paths(path).items():
        said = _verified(file)
        if said is None:
            damaged.append(number)
        else:
            found[number] = manifest_of(said.pop("table")), said, checksum(file)
    if not found:
        raise StoreError(f"{path / MANIFEST} is damaged: {why} (overwrite=True starts anew)")
    kinds = {number: (manifest.identity.fingerprint(), manifest.rows) for number, (manifest, _, _) in found.items()}
    kind = Counter(kinds.values()).most_common(1)[0][0]
    mine = {number: of_part for number, of_part in found.items() if kinds[number] == kind}
    damaged = sorted(damaged + [number for number in found if number not in mine])
    manifest = max((manifest for manifest, _, _ in mine.values()), key=lambda manifest: manifest.total)
    text = f"{MANIFEST} is damaged ({why}), and is made again from what the sound parts say ({len(mine)} of them)"
    return Folder(
        manifest,
        {number: footer for number, (_, footer, _) in mine.items()},
        {number: [crc] for number, (_, _, crc) in mine.items()},
        "; ".join(filter(None, [text, _in_words(path, damaged)])),
        [],
    )


def _verified(path: Path) -> dict[str, Any] | None:
    """What a part says of itself, where its own checksum is right."""
    try:
        with open(path, "rb") as file:
            said = _whole_footer(file)
            return said if said is not None and said["whole"] == _own_checksum(file, said["whole"])[0] else None
    except (OSError, ValueError, LookupError):
        return None


def sign(path: Path) -> None:
    """Write the checksum of a part, whose footer has `UNSIGNED`, into it."""
    with open(path, "rb+") as file:
        whole, at = _own_checksum(file, UNSIGNED["whole"])
        file.seek(at)
        file.write(whole.encode())


def _own_checksum(file: BinaryIO, whole: str) -> tuple[str, int]:
    """The checksum of a part with zeros where it has that itself, `whole`; and where that is."""
    size = file.seek(0, os.SEEK_END)
    file.seek(size - 8)  # the length of the footer, and four letters
    begin = max(0, size - 8 - int.from_bytes(file.read(4), "little"))
    file.seek(begin)
    tail = file.read()
    at = tail.rindex(f'"whole": "{whole}"'.encode()) + len('"whole": "')
    file.seek(0)
    zeros = UNSIGNED["whole"].encode()
    return f"{zlib.crc32(tail[:at] + zeros + tail[at + len(zeros) :], _checksum(file, begin)):08x}", begin + at
