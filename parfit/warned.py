"""The warnings that a function gave in workers, told in one."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterable

from parfit.core.errors import ParfitWarning
from parfit.core.solution import WarningText

__all__ = ["Warned"]

_SHOWN = 3


class Warned:
    """Counts warnings by their text, and gives one `ParfitWarning` that says which there were."""

    def __init__(self) -> None:
        self._seen: Counter[str] = Counter()

    def note(self, found: Iterable[WarningText]) -> None:
        """Count the warnings of a task."""
        for w in found:
            self._seen[f"{w.category}: {w.message}"] += w.count

    def tell(self, who: str, *, stacklevel: int) -> None:
        """Give the one warning, if there is anything to tell; `stacklevel` as in `warnings.warn`."""
        if not self._seen:
            return
        shown = "; ".join(f"{text} ({n})" for text, n in self._seen.most_common(_SHOWN))
        more = f"; and {len(self._seen) - _SHOWN} others" if len(self._seen) > _SHOWN else ""
        warnings.warn(f"{who} gave warnings: {shown}{more}", ParfitWarning, stacklevel=stacklevel + 1)
