"""A function written with NumPy gives the same when it is rebound and traced, and stays what it was."""

from __future__ import annotations

import abc
import dataclasses
import functools
import math
import random
import sys
import types

import numpy
import numpy as np
import numpy.linalg as la
import pandas as pd
import pytest
import scipy
import scipy.special as sc
from numpy import exp
from scipy import stats
from scipy.special import expit, gammaln
from scipy.stats import norm

jax = pytest.importorskip("jax", reason="the batched engine needs jax, which a plain install has not")

import jax.numpy as jnp  # noqa: E402
from jax.numpy import tanh  # noqa: E402

from parfit.batched.tracing.jaxify import jaxified, jaxify  # noqa: E402
from parfit.batched.tracing.untraceable import Untraceable  # noqa: E402
from parfit.core.errors import InvalidTypeError  # noqa: E402

X = np.array([0.5, 1.5, 2.5])
GRID = np.linspace(0.0, 1.0, 5)
WEIGHTS = [1.0, 2.0, 4.0]


def same(function, *args):
    """That the function gives the same plainly, and rebound in a jit; returns what it gives."""
    with jax.enable_x64(True):
        want = function(*args)
        got = jax.jit(jaxify(function))(*args)
        np.testing.assert_allclose(np.asarray(got), np.asarray(want, float), rtol=1e-10)
    return want


FUNCTIONS = {
    "numpy": lambda x: np.sum(np.exp(-x) * numpy.sqrt(x)),
    "from numpy": lambda x: exp(x) + numpy.pi + np.inf * 0 if False else exp(x) + numpy.pi,
    "linalg": lambda x: la.norm(np.linalg.solve(np.diag(x), x)),
    "fft": lambda x: np.abs(np.fft.fft(x)),
    "math": lambda x: math.exp(x[0]) + math.log(x[1], 2) + math.hypot(x[0], x[1], x[2]) + math.atan2(x[0], x[1]),
    "math of constants": lambda x: x * math.factorial(3) + math.floor(2.5) + math.pi,
    "math of many": lambda x: math.fsum(x) + math.prod(x) + math.gamma(x[0]) + math.lgamma(x[1]) + math.erf(x[2]),
    "special": lambda x: expit(x) + sc.erf(x) + gammaln(x) + scipy.special.xlogy(x, x) + sc.logsumexp(x),
    "stats": lambda x: norm.logpdf(x, 1.0, 2.0) + stats.norm.cdf(x) + scipy.stats.gamma.logpdf(x, 2.0),
    "arrays of scalars": lambda x: np.array([x[0], 2.0, x[1]]) + np.asarray([x[0], x[1], 1], dtype=np.float64),
    "lists": lambda x: np.sum([x[0], x[1]]) + np.maximum(x, [1, 2, 3]) + np.interp(x, [0, 1, 2], [x[0], 5.0, 6.0]),
    "polynomials": lambda x: np.polyval([x[0], 2.0, 1.0], x) + np.polyval([1.0, 2.0], x),
    "average": lambda x: np.average(x, weights=WEIGHTS) + np.dot(WEIGHTS, x),
    "constants decide": lambda x: sum(x[i % 3] for i in range(int(np.ceil(np.max(GRID) * 4)))),
    "grids": lambda x: np.interp(GRID, np.arange(3), x) if np.all(np.diff(GRID) > 0) else x,
    "types": lambda x: np.float64(x[0]) + float(x[1]) + np.int64(2) * np.float32(1.0) + float("2"),
    "instances": lambda x: x * (isinstance(x, np.ndarray) + 2 * isinstance(x[0], float) + 4 * isinstance(3.0, float)),
    "dtypes": lambda x: x.astype(np.float64) + np.zeros(3, dtype=np.float64) + X.astype(np.float64).astype(float),
    "dtype of": lambda x: x * (x.dtype == np.float64) + np.dtype(np.float64).itemsize,
    "extremes": lambda x: max(x[0], x[1]) + min(x[0], 1.0) + max([x[0], x[2], 0.0]) + max(1, 2) + min([3, 4]),
    "makers": lambda x: np.zeros(3) + np.ones_like(x) + np.full(3, x[0]) + np.zeros_like(GRID[:3]),
    "in place": lambda x: functools.reduce(lambda total, y: total + y, x, np.zeros(2)),
    "errstate": lambda x: errstate(x),
    "ufunc methods": lambda x: np.add.reduce(x) + np.multiply.outer(x, x) + np.maximum.accumulate(x),
    "clip and where": lambda x: np.where(x > 1, np.clip(x, 0, 2), np.nan_to_num(x)) + np.heaviside(x, 0.5),
    "reductions": lambda x: np.std(x, ddof=1) + np.var(x) + np.median(x) + np.percentile(x, 30) + np.trapezoid(x),
    "joining": lambda x: np.concatenate([x, [x[0]], np.stack([x, x])[0]]).sum() + np.hstack([x[0], 1.0]).sum(),
    "einsum": lambda x: np.einsum("i,j->ij", x, x),
    "jax": lambda x: tanh(jnp.sin(x)) + jax.nn.relu(x) + jax.scipy.special.erf(x) + jax.vmap(jnp.cos)(x),
    "late import": lambda x: late_import(x),
}


def errstate(x):
    with np.errstate(all="ignore"):
        return np.log(x)


def late_import(x):
    import math as m

    import numpy as numbers
    import numpy.linalg as algebra
    from numpy import cosh, linalg
    from scipy import special

    return cosh(x) + numbers.sin(x) + m.cos(x[0]) + special.erf(x) + algebra.norm(x) + linalg.norm(x)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions(name):
    same(FUNCTIONS[name], X)


def test_in_place_addition():
    def function(x):
        total = np.zeros(3)
        for i in range(3):
            total += np.exp(x) * i
        return total

    same(function, X)


# Everything that a function may reach.


def helper(x):
    return np.exp(x)


def rising(x, n):
    return 1.0 if n == 0 else np.sqrt(x) * rising(x, n - 1)


def even(x, n):
    return np.sin(x) if n == 0 else odd(x, n - 1)


def odd(x, n):
    return np.cos(x) if n == 0 else even(x, n - 1)


def doubled(function):
    @functools.wraps(function)
    def wrapper(*args):
        return 2 * function(*args)

    return wrapper


@doubled
def decorated(x):
    return np.exp(x)


@functools.cache
def cached(x):
    return np.exp(x)


def with_defaults(x, transform=np.exp, *, other=helper):
    return transform(x) + other(x)


def nested(x):
    scale = np.exp(x[0])

    def inner(y):
        return np.sin(y) * scale

    return inner(x) + np.array([np.cos(value) for value in x]) + (lambda z: np.tanh(z))(x)


def make_closure():
    import numpy as inside

    def recursive(x, n=3):
        return inside.exp(-x) if n == 0 else recursive(x, n - 1) * 2

    return recursive


class Base:
    def curve(self, x):
        return np.exp(-x)

    def __call__(self, x):
        return self.curve(x) + self.shift


class Model(Base):
    def __init__(self, rate):
        self.rate = rate
        self.shift = math.sqrt(2.0)

    def curve(self, x):
        return super().curve(x) * self.rate + self.half(x) + type(self).twice(x) + self.size

    @staticmethod
    def half(x):
        return np.sin(x) / 2

    @classmethod
    def twice(cls, x):
        return np.cos(x) * 2

    @property
    def size(self):
        return np.abs(self.rate)

    @functools.cached_property
    def kept(self):
        return np.exp(self.rate)


@dataclasses.dataclass(frozen=True)
class Frozen:
    rate: float
    inner: Model
    transform: object = np.exp

    def __call__(self, x):
        return self.transform(x) * self.rate + self.inner(x) + self.inner.kept


class Slotted(abc.ABC):
    __slots__ = ("rate",)

    def __init__(self, rate):
        self.rate = rate

    @abc.abstractmethod
    def curve(self, x): ...


class Concrete(Slotted):
    __slots__ = ()

    def curve(self, x):
        return np.exp(self.rate * x)


MODEL = Model(0.5)
SLOTTED = Concrete(0.25)
CURVES = {"exp": helper, "sin": np.sin, "both": [helper, np.cos]}
CONFIG = types.SimpleNamespace(rate=0.5)

module = types.ModuleType("a_users_module")
exec("import numpy as np\nRATE = 3.0\ndef curve(x):\n    return np.exp(x) * RATE", vars(module))


@pytest.mark.parametrize(
    "function",
    [
        lambda x: helper(x) + rising(x, 3) + even(x, 3),
        decorated,
        lambda x: decorated(x),
        with_defaults,
        nested,
        make_closure(),
        functools.partial(with_defaults, transform=np.sin),
        functools.partial(lambda a, x: np.exp(a * x), 2.0),
        MODEL,
        MODEL.curve,
        Model.half,
        Model.twice,
        Frozen(0.5, MODEL),
        lambda x: (
            MODEL(x) + Model(0.25)(x) + SLOTTED.curve(x) + isinstance(MODEL, Model) + isinstance(SLOTTED, Slotted)
        ),
        lambda x: CURVES["exp"](x) + CURVES["sin"](x) + sum(curve(x) for curve in CURVES["both"]),
        lambda x: np.exp(x) * CONFIG.rate,
        np.exp,
        sc.expit,
        jax.jit(lambda x: jnp.exp(x)),
    ],
)
def test_whatever_a_function_reaches(function):
    same(function, X)


def test_module_of_the_users(monkeypatch):
    monkeypatch.setitem(sys.modules, "a_users_module", module)
    monkeypatch.setattr(module, "__file__", "a_users_module.py", raising=False)
    same(lambda x: module.curve(x) * module.RATE, X)


def test_cached_functions_are_called():
    with jax.enable_x64(True):
        np.testing.assert_allclose(jax.jit(jaxify(cached))(X), np.exp(X))


def test_names_are_read_when_they_are_used(monkeypatch):
    here = sys.modules[__name__]
    function = jaxify(lambda x: LATER(x))  # noqa: F821
    monkeypatch.setattr(here, "LATER", helper, raising=False)
    with jax.enable_x64(True):
        np.testing.assert_allclose(jax.jit(function)(X), np.exp(X))
        monkeypatch.setattr(here, "LATER", lambda x: np.sin(x), raising=False)
        np.testing.assert_allclose(jax.jit(lambda x: function(x))(X), np.sin(X))


def test_unknown_names_stay_unknown():
    with pytest.raises(NameError, match="nowhere"):
        jaxify(lambda: nowhere)()  # noqa: F821


def test_the_function_stays_what_it_was():
    before = dict(globals())
    made = jaxify(with_defaults)
    made(jnp.asarray(1.0))
    assert made is not with_defaults
    assert (made.__name__, made.__qualname__, made.__module__) == ("with_defaults", "with_defaults", __name__)
    assert with_defaults.__defaults__ == (np.exp,)
    assert with_defaults.__globals__ is globals()
    assert {name for name, value in globals().items() if before.get(name) is not value} <= {"before"}
    assert type(with_defaults(2.0)) is np.float64


def test_it_can_be_done_twice():
    same(jaxify(jaxify(nested)), X)


def test_a_global_that_is_set_stays_inside(monkeypatch):
    monkeypatch.setitem(globals(), "COUNT", 0)
    exec("def counting(x):\n    global COUNT\n    COUNT = COUNT + 1\n    return COUNT * x", globals())
    function = jaxify(globals().pop("counting"))
    assert [float(function(1.0)), float(function(1.0))] == [1.0, 2.0]
    assert globals()["COUNT"] == 0


def test_arguments_may_be_functions():
    def objective(x, curve, scale):
        return curve(x) * scale

    with jax.enable_x64(True):
        function, args = jaxified(objective, (helper, 2.0))
        np.testing.assert_allclose(jax.jit(lambda x: function(x, *args))(X), 2 * np.exp(X))


# What cannot be.

GENERATOR = np.random.default_rng(0)


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (lambda x: np.random.normal() * x, "numpy.random: drawn numbers would be frozen"),  # noqa: NPY002
        (lambda x: GENERATOR.normal() * x, "numpy.random: drawn numbers would be frozen"),
        (lambda x: random.random() * x, "random: drawn numbers would be frozen"),
        (lambda x: norm.rvs() * x, "norm.rvs: drawn numbers would be frozen"),
        (lambda x: np.busday_count(x, x), r"numpy\.busday_count has no counterpart in jax\.numpy"),
        (lambda x: np.vander(x) + np.emath.sqrt(x), "sqrt has no counterpart"),
        (lambda x: sc.jv(1, x), r"scipy\.special\.jv has no counterpart in jax\.scipy"),
        (lambda x: math.factorial(x), r"math\.factorial has no counterpart"),
        (lambda x: norm(x[0]).logpdf(x), "frozen with traced parameters"),
        (lambda x: float(x), "array of shape"),
    ],
)
def test_what_has_no_counterpart(function, words):
    with pytest.raises(Untraceable, match=words):
        jax.jit(jaxify(function))(X)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x if x[0] > 1 else -x,
        lambda x: max(x, 2 * x),
        lambda x: int(x[0]),
        lambda x: GRID[x.astype(int)],
        lambda x: pd.Series([1.0, 2.0, 3.0]) * x,
        lambda x: scipy.optimize.brentq(lambda y: y - x[0], -9, 9),
        lambda x: np.zeros(3).__setitem__(0, x[0]),
    ],
)
def test_what_jax_refuses(function):
    with pytest.raises((TypeError, ValueError, IndexError)):
        jax.jit(jaxify(function))(X)


def test_numpy_functions_under_transformations():
    with jax.enable_x64(True):
        np.testing.assert_allclose(jax.jit(jaxify(lambda x: jax.vmap(np.cos)(x)))(X), np.cos(X))
        np.testing.assert_allclose(jax.jit(jaxify(lambda x: jax.grad(lambda y: np.sin(y))(x[0])))(X), np.cos(X[0]))


def test_nothing_is_frozen_when_nothing_is_traced():
    # Plain numbers in, NumPy's own functions: what the plain function gives.
    assert type(jaxify(lambda x: np.exp(x))(2.0)) is np.float64
    assert jaxify(lambda: np.arange(3).tolist())() == [0, 1, 2]


@pytest.mark.parametrize("wrong", [3.0, "np.exp", None, [np.exp]])
def test_not_a_function(wrong):
    with pytest.raises(InvalidTypeError, match="jaxify takes a function"):
        jaxify(wrong)
