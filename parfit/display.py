"""How a `Fits` shows itself: counts by status, the worst rows, the time taken."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from parfit.results import Fits

__all__ = ["as_html", "as_text"]

_WORST = 5


def _worst(fits: Fits) -> pd.DataFrame:
    """The failed rows, then those of the highest cost; a handful."""
    summary = fits.summary
    order = np.lexsort((-summary["cost"].fillna(-np.inf).to_numpy(), summary["success"].to_numpy()))
    chosen = order[:_WORST]
    shown = summary.iloc[chosen][["status", "cost", "message"]]
    message = shown["message"].map(lambda text: text if len(text) <= 70 else text[:69] + "…")
    return shown.assign(message=message)


def _head(fits: Fits, origin: Any) -> str:
    n, names = len(fits), list(fits.params.columns)
    shown = ", ".join(names[:6]) + (", …" if len(names) > 6 else "")
    rate = f", {1e3 * origin.seconds / n:.3g} ms each" if n else ""
    plural = "" if n == 1 else "s"
    return (
        f"{n:,} fit{plural} of {len(names)} parameter{'' if len(names) == 1 else 's'} ({shown}) "
        f"in {origin.seconds:.3g} s{rate}; engine {origin.engine}, {origin.executor}"
    )


def _notes(fits: Fits) -> list[str]:
    made = []
    summary = fits.summary
    if bound := int((summary["at_bound"] & summary["success"]).sum()):
        made.append(f"{bound:,} converged with a parameter at its bound")
    if undetermined := int(np.isinf(fits.stderr.to_numpy()).any(axis=1).sum()):
        made.append(f"{undetermined:,} have a parameter that the data do not determine (infinite standard error)")
    if len(fits.errors):
        made.append(f"{len(fits.errors):,} with an exception: see .errors")
    if len(warned := fits.warnings):
        made.append(f"{warned.index.nunique():,} with warnings: see .warnings")
    return made


def as_text(fits: Fits, origin: Any) -> str:
    """For a terminal."""
    counts = fits.status.value_counts()
    lines = [_head(fits, origin)]
    lines += [f"  {name:<12} {count:>9,}" for name, count in counts.items() if count]
    lines += [f"  ({note})" for note in _notes(fits)]
    if len(fits):
        lines += ["worst rows:", _worst(fits).to_string()]
    return "\n".join(lines)


def as_html(fits: Fits, origin: Any) -> str:
    """For a notebook."""
    counts = fits.status.value_counts()
    cells = "".join(
        f"<tr><td style='text-align:left'>{html.escape(str(name))}</td><td>{count:,}</td></tr>"
        for name, count in counts.items()
        if count
    )
    notes = "".join(f"<li>{html.escape(note)}</li>" for note in _notes(fits))
    worst = _worst(fits).to_html(border=0) if len(fits) else ""
    return (
        f"<div><p><b>{html.escape(_head(fits, origin))}</b></p>"
        f"<table><thead><tr><th style='text-align:left'>status</th><th>rows</th></tr></thead>"
        f"<tbody>{cells}</tbody></table>" + (f"<ul>{notes}</ul>" if notes else "") + f"<p>worst rows</p>{worst}</div>"
    )
