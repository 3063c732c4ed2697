"""What the tests of the batched engine share."""

from __future__ import annotations

import importlib.util
from collections import OrderedDict
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="module")
def quickly_compiled() -> Iterator[None]:
    """Programs that run for milliseconds, and would be compiled for seconds, are compiled without much ado."""
    from parfit.batched import compiled
    from parfit.batched.tracing import recorded

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recorded, "_made", OrderedDict())  # their loops keep them, and others are not to meet them
        patch.setattr(compiled, "_CPU_OPTIONS", {**compiled._CPU_OPTIONS, "xla_backend_optimization_level": 0})
        yield


#: Support modules that are looked through for doctests, and cannot be imported without jax.
collect_ignore = [] if importlib.util.find_spec("jax") else ["expressions.py", "grouped.py", "solving.py"]
