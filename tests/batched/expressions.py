"""Expressions that are run on pandas' objects and, traced, on their stand-ins."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from parfit.batched.tracing.jaxify import jaxify
from parfit.batched.tracing.standins import Group, Row, Table, unwrap

#: What stands for NumPy in a function that `jaxify` has made.
NUMPY = jaxify(lambda: np)()

FULL = pd.Series([3.0, -1.5, 2.25, 4.0, 0.5], index=list("abcde"))
OTHER = pd.Series([1.0, 2.0, 4.0, 8.0, 16.0], index=list("edcba"))
NAMES = {"np": np, "pd": pd, "other": OTHER, "rest": FULL.drop("a")}


def lines(text: str) -> list[str]:
    """The expressions of a text, which are parted by semicolons and line ends."""
    return [part.strip() for line in text.splitlines() for part in line.split(" ; ") if part.strip()]


def evaluate(expression: str, **names: Any) -> Any:
    """What an expression gives."""
    return eval(expression, {**NAMES, **names})


def traced(expression: str, name: str, make: Callable[..., Any], *arrays: Any, numpy: Any = NUMPY) -> Any:
    """What an expression gives on a stand-in that is made of traced arrays, and the labels that it has as a `Row`."""
    labels = []

    def function(*values: Any) -> Any:
        got = evaluate(expression, **{name: make(*values), "np": numpy})
        if isinstance(got, Row):
            labels.append(got.index)
        assert not isinstance(got, (Group, Table))
        values, mask = unwrap(got)
        return values if mask is None else (values, mask)

    with jax.enable_x64(True):
        got = jax.vmap(function)(*(jnp.asarray(array)[None] for array in arrays))
        return jax.tree.map(lambda array: np.asarray(array)[0], got), *labels
