"""A part of a table as it is written: its rows as a frame, and what its footer says of them."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from parfit.core.columns import Columns
from parfit.core.errors import shown
from parfit.core.origin import Origin
from parfit.core.solution import Outcome, OutcomeKind, Status
from parfit.core.structure import Structure
from parfit.fitting.kinds import mismatch
from parfit.results import Fits

__all__ = ["TRACEBACKS", "column", "first_kind", "footer_of", "known_rows", "reconciled"]

#: So many tracebacks of a part are kept.
TRACEBACKS = 20
_RAISED = tuple(status.value for status in (Status.ERROR, Status.TIMEOUT, Status.WORKER_LOST))


def _as_part(columns: Columns, labels: pd.Index[Any], structure: Structure) -> tuple[pd.DataFrame, dict[str, Any]]:
    """The rows of a part as a frame, and its footer."""
    frame = Fits(columns, labels, structure, Origin("", "", 0.0, "")).to_frame()
    footer = footer_of(frame, structure)
    footer["tracebacks"] = [
        [i, shown(labels[i]), columns.errors[i].type, columns.errors[i].message, columns.errors[i].traceback]
        for i in sorted(columns.errors)[:TRACEBACKS]
    ]
    return frame, footer


def known_rows(
    columns: Columns,
    done: NDArray[np.bool_],
    labels: pd.Index[Any],
    structure: Structure,
    old: tuple[pd.DataFrame, dict[str, Any]] | None,
) -> tuple[pd.DataFrame, dict[str, Any]] | None:
    """What is known of a part: its rows, in order, and its footer.

    Parameters
    ----------
    columns, done
        What came of its datasets, and of which anything did, shape (rows,).
    labels, structure
        Of the whole part.
    old
        The rows and the footer of the file that is there, where that is of the same data, and may be shorter: of a
        dataset that failed in it, what has come since counts.

    Returns
    -------
    tuple or None
        None where nothing has come that is not in the file.
    """
    frame, footer = _as_part(columns, labels, structure)
    new, kept = done.copy(), np.zeros(len(labels), dtype=bool)
    if old is not None:
        before, said = old
        new[: len(before)] &= ~column(before, "success", structure).astype(bool)
        if not new.any():
            return None
        kept[: len(before)] = ~new[: len(before)]
        frame = _with_kept(frame, before, kept)
        tracebacks = [one for one in said["tracebacks"] if kept[one[0]]]
        tracebacks += [one for one in footer["tracebacks"] if new[one[0]]]
        footer = {**footer_of(frame, structure), "tracebacks": sorted(tracebacks)[:TRACEBACKS]}
    known = new | kept
    if not known.all():
        frame = frame[known]
        tracebacks = [one for one in footer["tracebacks"] if known[one[0]]]
        footer = {**footer_of(frame, structure), "tracebacks": tracebacks}
    return frame, footer


def column(frame: pd.DataFrame, name: str, structure: Structure) -> NDArray[Any]:
    """A column of the summary, by whatever name `Fits.to_frame` has it."""
    own = {*structure.names, *(f"{parameter}_stderr" for parameter in structure.names)}
    found: NDArray[Any] = frame[f"fit_{name}" if name in own else name].to_numpy()
    return found


def footer_of(frame: pd.DataFrame, structure: Structure) -> dict[str, Any]:
    """What is to know of a part without reading it; all but its tracebacks, and of which data it is."""
    status, message, nfev = (column(frame, name, structure) for name in ("status", "message", "nfev"))
    unusable = (status == Status.INVALID.value) | ((status == Status.NONFINITE.value) & (nfev <= 1))
    raised = Counter(str(text).partition(":")[0] for text in message[np.isin(status, _RAISED)])
    kinds = _kinds_of(frame, structure)
    known = np.flatnonzero(kinds >= 0)
    return {
        "rows": len(frame),
        "counts": dict(Counter(map(str, status))),
        "unusable": int(unusable.sum()),
        "reasons": list(dict.fromkeys(map(str, message[unusable])))[:2],
        "label": shown(frame.index[0]) if len(frame) else "",
        "raised": dict(raised),
        "kinds": [int((kinds == 0).sum()), int((kinds == 1).sum())],
        "first_kind": int(kinds[known[0]]) if len(known) else None,
        "seconds": float(np.nansum(column(frame, "seconds", structure))),
    }


def _kinds_of(frame: pd.DataFrame, structure: Structure) -> NDArray[np.int8]:
    """What the objective gave for each row: 0 for a scalar, 1 for residuals, -1 where that is not known."""
    m, nfev = (column(frame, name, structure) for name in ("n_residuals", "nfev"))
    nonfinite = column(frame, "status", structure) == Status.NONFINITE.value
    known = (nfev > 0) & ((m > 0) | ((m == -1) & ~nonfinite))
    return np.where(known, m > 0, -1).astype(np.int8)


def first_kind(footers: dict[int, dict[str, Any]]) -> int | None:
    """What the objective gave for the first dataset that tells."""
    return next((kind for k in sorted(footers) if (kind := footers[k]["first_kind"]) is not None), None)


def reconciled(frame: pd.DataFrame, kind: int, structure: Structure) -> tuple[pd.DataFrame, list[Any]]:
    """The rows of a part, an error each where the objective is of another kind than the first one's; and tracebacks."""
    columns = Columns(len(frame), len(structure))
    other = _kinds_of(frame, structure) == 1 - kind
    for i in np.flatnonzero(other).tolist():
        columns.put(i, Outcome(i, OutcomeKind.ERROR, None, mismatch(bool(kind))))
    made, footer = _as_part(columns, frame.index, structure)
    return _with_kept(made, frame, ~other), footer["tracebacks"]


def _with_kept(frame: pd.DataFrame, old: pd.DataFrame, kept: NDArray[np.bool_]) -> pd.DataFrame:
    """A frame with some rows as they are in another, which may be shorter."""
    places = np.concatenate([np.flatnonzero(~kept), np.flatnonzero(kept)])
    made = pd.concat([frame[~kept], old[kept[: len(old)]]])
    made = made.iloc[np.argsort(places)]
    return made.set_axis(frame.index)
