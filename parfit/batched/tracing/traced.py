"""The user's objective as a function of arrays: parameters and dataset rebuilt inside the trace, the value checked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import NDArray

from parfit.batched.tracing.feeds import Feed
from parfit.batched.tracing.standins import Row, Run, Table, unwrap
from parfit.batched.tracing.untraceable import Untraceable
from parfit.core.nodes import ArrayNode, DictNode, FrameNode, Node, ScalarNode, SequenceNode, SeriesNode
from parfit.core.tracing import offering

__all__ = ["Traced", "parameters_from"]


def parameters_from(node: Node, v: Array, at: int = 0) -> Any:
    """The parameters in the user's structure, from a traced vector."""
    if isinstance(node, ScalarNode):
        return v[at]
    if isinstance(node, ArrayNode):
        return v[at : at + node.size].reshape(node.shape)
    if isinstance(node, FrameNode):
        return Table(node.frame, v[at : at + node.size])
    if isinstance(node, SeriesNode):
        return Row(node.index, v[at : at + node.size])
    assert isinstance(node, (DictNode, SequenceNode))
    made = []
    for child in node.children:
        made.append(parameters_from(child, v, at))
        at += child.size
    if isinstance(node, DictNode):
        return dict(zip(node.keys, made, strict=True))
    if node.kind is list:
        return made
    return node.kind(*made) if hasattr(node.kind, "_fields") else tuple(made)


@dataclass(frozen=True, eq=False)
class Traced:
    """An objective of arrays.

    Attributes
    ----------
    function
        The user's objective, or what `jaxify` made of it.
    root
        The structure of the parameters.
    feed
        What rebuilds a dataset.
    args
        More arguments of the objective.
    free : ndarray of int, optional
        The positions of the free parameters; None for all.
    sign
        -1 where the objective is maximised.
    """

    function: Callable[..., Any]
    root: Node
    feed: Feed
    args: tuple[Any, ...] = ()
    free: NDArray[np.intp] | None = None
    sign: float = 1.0

    def params(self, z: Array, full: Array | None) -> Any:
        """The parameters as the objective wants them; `full` holds the values of those that are not free."""
        if self.free is None or full is None:
            return parameters_from(self.root, z)
        return parameters_from(self.root, full.at[self.free].set(z))

    def __call__(self, z: Array, full: Array | None, leaves: Any) -> Array:
        """The residuals, shape (m,), 0 where they are padding; or the scalar to be minimised."""
        with offering(Run):
            value = as_array(self.function(self.params(z, full), self.feed.rebuilt(leaves), *self.args))
        value = value.astype(jnp.promote_types(value.dtype, z.dtype))
        if value.ndim == 0:
            return self.sign * value
        mask = self.feed.mask(leaves)
        if mask is not None and len(value) and len(value) % len(mask) == 0:
            value = jnp.where(jnp.tile(mask, len(value) // len(mask)), value, 0)
        found: Array = value
        return found


def as_array(value: Any) -> Array:
    """What an objective gave, as an array of real numbers with at most one axis.

    Raises
    ------
    Untraceable
        For what is no such thing.
    """
    value, _ = unwrap(value)
    if isinstance(value, (list, tuple)):
        value = [unwrap(v)[0] for v in value]
        if not all(jnp.ndim(v) == 0 for v in value):
            raise Untraceable("the objective gives a list of arrays")
        value = jnp.stack([jnp.asarray(v) for v in value]) if value else jnp.zeros(0)
    if value is None or isinstance(value, (str, dict)):
        raise Untraceable(f"the objective gives {type(value).__name__}")
    array = jnp.asarray(value)
    if array.ndim > 1 or array.dtype.kind not in "fiub":
        raise Untraceable(f"the objective gives an array of shape {array.shape} and dtype {array.dtype}")
    return array if jnp.issubdtype(array.dtype, jnp.floating) else array.astype(float)
