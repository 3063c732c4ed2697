"""How labels are looked up: by pandas itself, in an object of positions with the same labels."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import pandas as pd

from parfit.batched.tracing.standins.vector import StandIn, is_traced
from parfit.batched.tracing.untraceable import Untraceable

__all__ = ["Frame", "Located", "by_labels", "column_named", "resolved_key"]


def resolved_key(key: Any, owner: Any) -> Any:
    """A key as pandas takes it, refused where it depends on values."""
    if callable(key):
        key = key(owner)
    if is_traced(key):
        raise Untraceable("entries are selected by computed values: how many there are is not known while compiling")
    return key


def column_named(frame: Any, name: str) -> Any:
    """What ``frame.name`` is: a column, where pandas has nothing of that name."""
    if hasattr(pd.DataFrame, name):
        raise Untraceable(f"DataFrame.{name} is used: it cannot be compiled")
    if name in frame.columns:
        return frame[name]
    raise AttributeError(f"'DataFrame' object has no attribute {name!r}")


class _Locator:
    """``loc``, ``iloc``, ``at`` and ``iat``."""

    def __init__(self, owner: Any, name: str) -> None:
        self._owner, self._name = owner, name

    def __getitem__(self, key: Any) -> Any:
        return self._owner.picked(getattr(self._owner.positions, self._name)[resolved_key(key, self._owner)])

    def __setitem__(self, key: Any, value: Any) -> None:
        self._owner[key] = value


def by_labels(name: str, of: str) -> Callable[..., Any]:
    """A method of pandas that picks or renames entries, whatever the values are; `of` a Series or a DataFrame."""

    def method(self: Any, *args: Any, **options: Any) -> Any:
        if is_traced((args, options)) or options.get("inplace"):
            raise Untraceable(f"{of}.{name} is used in a way that cannot be compiled")
        return self.picked(getattr(self.positions, name)(*args, **options))

    return method


class Located:
    """What has ``positions``, a pandas object with the same labels, and ``picked``, what stands at those found."""

    @property
    def loc(self) -> _Locator:
        return _Locator(self, "loc")

    @property
    def iloc(self) -> _Locator:
        return _Locator(self, "iloc")

    @property
    def at(self) -> _Locator:
        return _Locator(self, "at")

    @property
    def iat(self) -> _Locator:
        return _Locator(self, "iat")


class Frame(Located, StandIn):
    """What the stand-ins of frames have in common.

    Attributes
    ----------
    positions : pandas.DataFrame
        The labels, and positions in place of values.
    """

    ndim: ClassVar[int] = 2
    positions: pd.DataFrame

    def picked(self, found: Any) -> Any:
        """What stands at positions that pandas found."""
        raise NotImplementedError

    def __getitem__(self, key: Any) -> Any:
        return self.picked(self.positions[resolved_key(key, self)])

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name == "positions":
            raise AttributeError(name)
        return column_named(self, name)

    @property
    def index(self) -> pd.Index[Any]:
        return self.positions.index

    @property
    def columns(self) -> pd.Index[Any]:
        return self.positions.columns

    @property
    def shape(self) -> tuple[int, int]:
        return self.positions.shape

    @property
    def size(self) -> int:
        return self.positions.size

    @property
    def empty(self) -> bool:
        return self.positions.empty

    def keys(self) -> pd.Index[Any]:
        return self.columns

    def items(self) -> Iterator[tuple[Any, Any]]:
        return ((label, self[label]) for label in self.columns)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.columns)

    def __contains__(self, label: Any) -> bool:
        return label in self.columns

    def __len__(self) -> int:
        return len(self.positions)

    def __bool__(self) -> bool:
        raise ValueError("The truth value of a DataFrame is ambiguous. Use a.empty, a.any() or a.all().")

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise Untraceable("NumPy cannot read the values of a function that is being compiled")
