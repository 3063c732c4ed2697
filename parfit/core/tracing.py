"""What a trace offers to what is called inside it: a stand-in for a frame of values that do not exist yet."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import pandas as pd

__all__ = ["frame_of", "offering"]

#: Values of shape (len(index), len(columns)), index, columns -> what computes as the frame does.
Maker = Callable[[Any, "pd.Index[Any]", "pd.Index[Any]"], Any]

_maker: ContextVar[Maker | None] = ContextVar("parfit_frames", default=None)


@contextmanager
def offering(maker: Maker) -> Iterator[None]:
    """Let frames be made by `maker` while an objective is traced."""
    token = _maker.set(maker)
    try:
        yield
    finally:
        _maker.reset(token)


def frame_of(values: Any, index: pd.Index[Any], columns: pd.Index[Any]) -> Any:
    """A stand-in for the frame of these values; None where nobody traces an objective."""
    maker = _maker.get()
    return None if maker is None else maker(values, index, columns)
