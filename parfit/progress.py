"""Progress, counted in the parent as results come in; it never decides when a run is done."""

from __future__ import annotations

import contextlib
import importlib
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any

from parfit.core.errors import InvalidTypeError, ParfitWarning

__all__ = ["Progress", "reporting"]

#: ``True``, ``False``, None for "where somebody watches", or ``callable(done, total)``.
Progress = bool | Callable[[int, int | None], Any] | None


def _in_notebook() -> bool:
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell is not None and "IPKernelApp" in getattr(shell, "config", {})


@contextlib.contextmanager
def reporting(progress: Progress, total: int | None, unit: str, already: int = 0) -> Iterator[Callable[[int], None]]:
    """A function to call with the number of items that have just finished.

    By default a bar is drawn on a terminal and in a notebook, when the run takes longer than half a second; else
    nothing is written. Where a callable raises an `Exception`, or the bar cannot be drawn, one warning says so and
    the run goes on without it.
    """
    if callable(progress):
        done = already

        def count(n: int) -> None:
            nonlocal done
            done += n
            progress(done, total)

        yield _harmless(count)
        return
    if progress not in (None, True, False):
        raise InvalidTypeError(f"progress must be True, False, None or a callable(done, total), not {progress!r}")
    notebook = _in_notebook()
    if progress is False or (progress is None and not notebook and not _on_terminal()):
        yield lambda _: None
        return
    from tqdm import tqdm

    kind: Any = tqdm
    if notebook:
        with contextlib.suppress(ImportError):
            importlib.import_module("ipywidgets")
            from tqdm.notebook import tqdm as kind
    delay = 0.0 if progress else 0.5
    try:
        bar = kind(total=total, unit=f" {unit}", initial=already, delay=delay, dynamic_ncols=True, smoothing=0.1)
    except Exception as exc:  # noqa: BLE001 - no standard error, a terminal that is gone, widgets that fail
        _say_broken(exc, stacklevel=5)
        yield lambda _: None
        return
    try:
        yield _harmless(bar.update)
    finally:
        with contextlib.suppress(Exception):  # as above, since
            bar.close()


def _harmless(show: Callable[[int], Any]) -> Callable[[int], None]:
    """`show`, until it raises: what only watches must not end a run of hours."""
    broken = False

    def count(n: int) -> None:
        nonlocal broken
        if broken:
            return
        try:
            show(n)
        except Exception as exc:  # noqa: BLE001 - the user's own function
            broken = True
            _say_broken(exc, stacklevel=5)

    return count


def _say_broken(exc: Exception, *, stacklevel: int) -> None:
    text = f"progress raised {type(exc).__name__}: {exc}; the run goes on without it"
    warnings.warn(text, ParfitWarning, stacklevel=stacklevel)


def _on_terminal() -> bool:
    try:
        return bool(sys.stderr.isatty())
    except (AttributeError, OSError, ValueError):  # None, not quite a file, closed
        return False
