"""What compiled programs compute: each operation that may use the widest registers, beside NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

jax = pytest.importorskip("jax")

import jax.numpy as jnp  # noqa: E402
from jax import lax  # noqa: E402

from parfit.batched.compiled import VERIFIED, compiled, options_for, precision  # noqa: E402

#: Name in StableHLO -> the function of JAX and that of NumPy, and where arguments are taken from.
ANY, POSITIVE = (-6.0, 6.0), (1e-3, 30.0)
OPERATIONS: dict[str, tuple[Any, Any, tuple[float, float]]] = {
    "abs": (jnp.abs, np.abs, ANY),
    "add": (jnp.add, np.add, ANY),
    "cbrt": (jnp.cbrt, np.cbrt, ANY),
    "ceil": (jnp.ceil, np.ceil, ANY),
    "cosine": (jnp.cos, np.cos, (-100.0, 100.0)),
    "divide": (jnp.divide, np.divide, ANY),
    "exponential": (jnp.exp, np.exp, (-50.0, 50.0)),
    "exponential_minus_one": (jnp.expm1, np.expm1, ANY),
    "floor": (jnp.floor, np.floor, ANY),
    "log": (jnp.log, np.log, POSITIVE),
    "log_plus_one": (jnp.log1p, np.log1p, POSITIVE),
    "maximum": (jnp.maximum, np.maximum, ANY),
    "minimum": (jnp.minimum, np.minimum, ANY),
    "multiply": (jnp.multiply, np.multiply, ANY),
    "negate": (jnp.negative, np.negative, ANY),
    "power": (lax.pow, np.power, (0.1, 10.0)),
    "remainder": (lax.rem, np.fmod, POSITIVE),
    "round_nearest_even": (jnp.rint, np.rint, ANY),
    "rsqrt": (lax.rsqrt, lambda x: 1 / np.sqrt(x), POSITIVE),
    "sign": (jnp.sign, np.sign, ANY),
    "sine": (jnp.sin, np.sin, (-100.0, 100.0)),
    "sqrt": (jnp.sqrt, np.sqrt, POSITIVE),
    "square": (lax.square, np.square, ANY),
    "subtract": (jnp.subtract, np.subtract, ANY),
    "tan": (jnp.tan, np.tan, ANY),
    "tanh": (jnp.tanh, np.tanh, ANY),
}
TWO = {"add", "divide", "maximum", "minimum", "multiply", "power", "remainder", "subtract"}


def arguments(name: str, dtype: Any) -> list[Any]:
    """More than a turn of an unrolled loop of the widest registers holds, and some over."""
    rng = np.random.default_rng(0)
    low, high = OPERATIONS[name][2]
    return [rng.uniform(low, high, 1003).astype(dtype) for _ in range(2 if name in TWO else 1)]


def test_all_that_are_verified_are_here() -> None:
    assert set(OPERATIONS) == VERIFIED


@pytest.mark.parametrize("dtype", [np.float64, np.float32], ids=["double", "single"])
@pytest.mark.parametrize("name", sorted(VERIFIED))
def test_an_operation_alone_and_with_constants(name: str, dtype: Any) -> None:
    ours, numpys, _ = OPERATIONS[name]
    given = arguments(name, dtype)
    wanted = numpys(*(a.astype(float) for a in given))
    with precision(dtype == np.float64):
        text = jax.jit(ours).lower(*given).as_text()
        assert f".{name}" in text
        assert jax.default_backend() != "cpu" or "xla_cpu_prefer_vector_width" in options_for(text)
        found = [np.asarray(compiled(ours, *given)(*given))]
        found += [np.asarray(compiled(lambda x: ours(x, dtype(1.5)), *given[:1])(given[0]))] if name in TWO else []
    wanted = [wanted] + ([numpys(given[0].astype(float), 1.5)] if name in TWO else [])
    eps = np.finfo(dtype).eps
    for a, b in zip(found, wanted, strict=True):
        assert a.dtype == dtype
        np.testing.assert_allclose(a, b, rtol=32 * eps, atol=32 * eps)


@pytest.mark.parametrize("function", ["arctan", "arctan2", "arcsin", "arccos"])
def test_what_is_not_verified_keeps_its_values(function: str) -> None:
    x = np.linspace(-0.99, 0.99, 1003)
    more = (1.0,) if function == "arctan2" else ()
    with precision(double=True):
        made = compiled(lambda x: getattr(jnp, function)(x, *more), x)
        np.testing.assert_allclose(np.asarray(made(x)), getattr(np, function)(x, *more), rtol=1e-14)
