"""What a writer finds at its path: nothing, a table of the same call, one of another, something else, or damage."""

from __future__ import annotations

import itertools
import os
import shutil
import warnings
from pathlib import Path

from parfit.core.errors import ParfitWarning, StoreError, StoreMismatchError, unlike
from parfit.stores.log import damage_of_log
from parfit.stores.reading import PAGE, Argument, Identity, Stored, UnreadableError, is_empty, is_ours, read_store
from parfit.stores.salvage import salvaged

__all__ = ["gives_way", "put_aside", "refuse_another", "refused_data", "what_is_there"]


def gives_way(path: Path) -> bool:
    """Whether what is there may be begun anew; raises `StoreError` for what is not a store."""
    if not is_empty(path) and not is_ours(path):
        raise StoreError(f"{path} is no store of parfit's, and is left as it is")
    return True


def what_is_there(path: Path, identity: Identity) -> Stored | None:
    """What is there, from sound tables or without; None for nothing."""
    stored, error, call = None, None, identity.fingerprint()
    try:
        if not is_empty(path) or damage_of_log(path, PAGE):
            stored = read_store(path)
    except UnreadableError as exc:
        error = exc
    if error is None and (stored is None or not stored.damage or stored.identity.fingerprint() != call):
        return stored
    blocks = salvaged(path, call)
    if len(blocks) > (0 if stored is None else len(stored.rows)):
        engine = blocks[-1].engine
        rows = [block.rows for block in blocks if block.engine == engine]
        mine = identity._replace(facts={**identity.facts, "engine": engine})
        return Stored(mine, rows, f"{len(rows)} of its blocks of rows are sound, and the tables around them are not")
    if error is not None:
        again = "overwrite=True starts anew" if is_ours(path) else "without the file, it starts anew"
        raise UnreadableError(path, error.why, f"no row of this call can be recovered from it; {again}")
    return stored


def put_aside(path: Path, new: Path, damage: str) -> None:
    """Keep a damaged file under another name, and put one in its place that has what is sound.

    The damaged one is there under both names until then: who is killed meanwhile has lost nothing.
    """
    names = (f"{path.name}.damaged{number or ''}" for number in itertools.count())
    aside = next(other for other in map(path.with_name, names) if not other.exists())
    for ending in ("", "-wal"):
        one, other = (where.with_name(where.name + ending) for where in (path, aside))
        if one.exists():
            try:
                os.link(one, other)
            except OSError:  # not on every file system
                shutil.copy2(one, other)
    for ending in ("-wal", "-shm"):
        path.with_name(path.name + ending).unlink(missing_ok=True)
    os.replace(new, path)
    warnings.warn(
        f"{path} is damaged: {damage}; the rows that are lost are fitted again. "
        f"The damaged file is kept as {aside.name}",
        ParfitWarning,
        stacklevel=4,
    )


def refuse_another(path: Path, identity: Identity, other: Identity) -> None:
    """Raise `StoreMismatchError` for a table of another call."""
    mine, theirs = identity.call, other.call
    if [*identity.facts["names"]] != [*other.facts["names"]]:
        raise StoreMismatchError(
            f"{path} holds fits of other parameters: in these {unlike(other.facts['names'], identity.facts['names'])}; "
            "overwrite=True starts anew, another path keeps both"
        )
    wrong = []
    for name in dict.fromkeys((*theirs, *mine)):
        a, b = theirs.get(name), mine.get(name)
        if a is None or b is None or a.fingerprint != b.fingerprint:
            wrong.append(_difference(name, a, b))
    if wrong:
        text = "; ".join(wrong)
        raise StoreMismatchError(
            f"{path} holds fits of another call: {text}. overwrite=True starts anew, another path keeps both"
        )


def refused_data(path: Path, rows: int, same: int) -> StoreMismatchError:
    """The error for data none of whose rows is there as it is now, though some of the labels may be."""
    one = f"holds fits of other data: none of its {rows:,} rows is in these"
    if not same:
        return StoreMismatchError(f"{path} {one}; overwrite=True starts anew, another path keeps both")
    return StoreMismatchError(
        f"{path} {one} as it was. {'One has a label' if same == 1 else f'{same:,} have labels'} of these, with other "
        "data, another start or other bounds: warm_start=True fits these again from the old solutions, "
        "overwrite=True starts anew, another path keeps both"
    )


def _difference(name: str, was: Argument | None, now: Argument | None) -> str:
    if was is None or now is None or was.shown != now.shown:
        return f"{name} was {was.shown if was else 'not there'} and is {now.shown if now else 'not there'}"
    parts = [part for part in (was.parts.keys() & now.parts.keys()) if was.parts[part] != now.parts[part]]
    return f"{name} is another" + (f" ({', '.join(sorted(parts))} is)" if parts else "")
