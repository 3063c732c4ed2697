"""Pictures of what was fitted. Needs matplotlib: ``pip install 'parfit[plot]'``."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from parfit.core.errors import InvalidInputError, InvalidTypeError, missing_package

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["LOSS_RATE_BINS", "loss_histogram"]

Path = str | os.PathLike[str]

#: 0.01 a year wide, from -0.15 to 0.4: where the loss rates of the US counties lie.
LOSS_RATE_BINS: NDArray[np.float64] = np.linspace(-0.15, 0.4, 56).round(2)
LOSS_RATE_BINS.flags.writeable = False


def loss_histogram(
    rates: pd.DataFrame,
    path: Path | Sequence[Path] | None = None,
    *,
    ax: Axes | None = None,
    bins: ArrayLike | None = None,
    xlabel: str = "loss rate per year",
    ylabel: str = "counties",
    title: str | None = None,
) -> Figure:
    """Draw the histograms of several columns over each other, as steps.

    Parameters
    ----------
    rates : DataFrame, shape (B, n)
        A histogram per column, in the order of the columns. NaN and infinity are left out.
    path
        Where to save the picture, or several such paths; the suffix says the format (``.png``, ``.svg``,
        ``.pdf``). Folders are made where missing.
    ax
        Where to draw; by default in a new figure.
    bins
        The edges of the bins; by default `LOSS_RATE_BINS`.
    xlabel, ylabel, title
        What stands on the axes, and above.

    Returns
    -------
    Figure
        It belongs to no window: nothing is shown, and nothing has to be closed.

    Raises
    ------
    InvalidInputError, InvalidTypeError
        Where there is no column, a column that is not of numbers, or fewer than two rising edges.
    MissingPackageError
        matplotlib is not installed.

    Notes
    -----
    Values beyond the bins are not drawn; the legend says how many they are.

    Examples
    --------
    >>> import pandas as pd
    >>> from parfit.plots import loss_histogram
    >>> rates = pd.DataFrame({"young": [0.01, 0.02, 0.02], "old": [0.18, 0.21, 0.9]})
    >>> figure = loss_histogram(rates)  # doctest: +SKIP
    >>> figure.savefig("rates.png")  # doctest: +SKIP
    """
    edges = _edges(bins)
    columns = _columns(rates)
    try:
        from matplotlib import colormaps
        from matplotlib.figure import Figure
        from matplotlib.ticker import MaxNLocator
    except ImportError as error:
        raise missing_package("matplotlib", "a histogram", "plot") from error
    if ax is None:
        figure = Figure(figsize=(8.0, 4.5), layout="constrained")
        ax = figure.subplots()
    else:
        figure = ax.figure.figure  # also where `ax` lies in a subfigure
    distinct = colormaps["tab10"]
    n = len(columns)
    colours = distinct(range(n)) if n <= distinct.N else colormaps["turbo"](np.linspace(0.05, 0.95, n))
    highest = 0
    for (name, values), colour in zip(columns, colours, strict=True):
        counts, _ = np.histogram(values, edges)
        beyond = len(values) - int(counts.sum())
        label = f"{name} ({beyond:,} beyond)" if beyond else name
        ax.stairs(counts, edges, color=colour, linewidth=1.4, label=label)
        highest = max(highest, int(counts.max()))
    ax.set(xlabel=xlabel, ylabel=ylabel, xlim=(edges[0], edges[-1]), ylim=(0, max(highest, 1) * 1.05))
    ax.yaxis.set_major_locator(MaxNLocator(integer=True))
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False, fontsize="small")
    if title is not None:
        ax.set_title(title, loc="left", fontsize="medium")
    for one in [path] if isinstance(path, (str, os.PathLike)) else path or ():
        os.makedirs(os.path.dirname(os.fspath(one)) or ".", exist_ok=True)
        figure.savefig(one, dpi=150)
    return figure


def _edges(bins: ArrayLike | None) -> NDArray[np.float64]:
    if bins is None:
        return LOSS_RATE_BINS
    try:
        edges = np.asarray(bins, dtype=float)
    except (TypeError, ValueError):
        raise InvalidTypeError(f"bins must be the edges of the bins, not {bins!r}") from None
    if edges.ndim != 1 or len(edges) < 2 or not np.isfinite(edges).all() or not (np.diff(edges) > 0).all():
        raise InvalidInputError(f"bins must be two or more edges that rise, not {bins!r}")
    return edges


def _columns(rates: Any) -> list[tuple[str, NDArray[np.float64]]]:
    """Name and finite values of each column."""
    if not isinstance(rates, pd.DataFrame):
        raise InvalidTypeError(f"rates must be a DataFrame, not {type(rates).__name__}")
    if not rates.shape[1]:
        raise InvalidInputError("rates has no column to draw")
    found = []
    for position, name in enumerate(rates.columns):
        try:
            values = rates.iloc[:, position].to_numpy(dtype=float, na_value=np.nan)
        except (TypeError, ValueError):
            raise InvalidTypeError(f"the column {name!r} of rates does not hold numbers") from None
        found.append((str(name), values[np.isfinite(values)]))
    return found
