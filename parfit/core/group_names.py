"""The name of a group, which pandas leaves out where it copies or pickles; works without importing pandas."""

from __future__ import annotations

import sys
from typing import Any

__all__ = ["name_of", "named"]


def name_of(item: Any) -> tuple[Any, ...]:
    """The key that a group has as its name, in a tuple; an empty one for anything else."""
    frame: Any = getattr(sys.modules.get("pandas"), "DataFrame", ())  # nobody has one before pandas is imported
    return (vars(item)["name"],) if isinstance(item, frame) and "name" in vars(item) else ()


def named(item: Any, *name: Any) -> Any:
    """`item`, with what `name_of` has given."""
    if name:
        object.__setattr__(item, "name", name[0])  # past pandas' warning that this is no new column
    return item
