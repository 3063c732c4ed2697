"""What is said of a whole call, once: what is wrong with every dataset, and what the objective warned of."""

from __future__ import annotations

from collections import Counter
from typing import Any

from parfit.core.errors import InvalidInputError

__all__ = ["every_raised", "none_can_be_fitted", "some_warned"]


def none_can_be_fitted(fits: Any, reason: str, label: str, alike: bool) -> InvalidInputError:
    """What is wrong with every dataset is wrong with the call.

    Parameters
    ----------
    fits
        What came of them.
    reason, label
        Of the first.
    alike
        Whether the reason is that of all.
    """
    others = "all others likewise" if alike else "no other can be fitted either"
    where = f"dataset {label}" + (f", and {others}" if len(fits) > 1 else "")
    exc = InvalidInputError(f"no dataset can be fitted: {reason} ({where})")
    exc.add_note("the attribute `fits` of this exception has the reason for each dataset")
    exc.fits = fits  # type: ignore[attr-defined]
    return exc


def every_raised(kind: str, first: str, hint: str) -> str:
    """Of an objective that raises everywhere."""
    text = f"every dataset raised {kind}, the first of them: {first}; see fits.errors"
    return text + (f" ({hint})" if hint else "")


def some_warned(texts: Counter[str], n: int, of: int, where: str = "see fits.warnings") -> str:
    """Of all that the objective itself warned of, for `n` of so many datasets."""
    shown = "; ".join(f"{text} ({count})" for text, count in texts.most_common(3))
    more = f"; and {len(texts) - 3} others" if len(texts) > 3 else ""
    return f"{n} of {of} datasets gave warnings{where and f' ({where})'}: {shown}{more}"
