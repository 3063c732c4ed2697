"""What stands for a pandas object in an objective that is being traced: it looks up labels, and computes with JAX.

Row       a row of a table, or a Series of parameters
Table     a frame of parameters
Run       the frame of a model's run
Group     the frame of a group, made of `Column`s; `Padded` is the array of one that has padding
    Located, Frame    how labels are looked up (labels.py)
    Opaque    what is no number, such as text
"""

from __future__ import annotations

from typing import Any

from parfit.batched.tracing.standins.column import Column
from parfit.batched.tracing.standins.group import Group
from parfit.batched.tracing.standins.opaque import Opaque
from parfit.batched.tracing.standins.padded import Padded
from parfit.batched.tracing.standins.row import Row
from parfit.batched.tracing.standins.run import Run
from parfit.batched.tracing.standins.table import Table
from parfit.batched.tracing.standins.vector import Array, Vector

__all__ = ["Column", "Group", "Opaque", "Padded", "Row", "Run", "Table", "unwrap"]


def unwrap(value: Any) -> tuple[Any, Array | None]:
    """What an objective gave, without the stand-in around it.

    Returns
    -------
    values
        The bare array of a stand-in; anything else as it is.
    mask : jax.Array of bool, or None
        Which of its entries are there, and not padding.
    """
    if isinstance(value, Vector):
        return value.numbers(), value.mask
    return value, None
