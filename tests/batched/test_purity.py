"""What an objective does besides giving a value is found in its code, and ordinary objectives pass."""

from __future__ import annotations

import dataclasses
import datetime
import functools
import itertools
import logging
import math
import os
import random
import sys
import time
import types
import warnings
from collections import Counter, defaultdict, deque
from pathlib import Path
from time import perf_counter

import numpy as np
import pandas as pd
import pytest
from scipy import integrate, optimize, special, stats

pytest.importorskip("jax", reason="the batched engine needs jax, which a plain install has not")

import jax
import jax.numpy as jnp

from parfit.batched.tracing.purity import is_suspicious

CALLS: list[float] = []
CACHE: dict[str, float] = {}
SEEN: set[float] = set()
QUEUE: deque[float] = deque()
COUNTS = Counter()
NESTED = {"log": [1.0], "by name": {}}
DATA = np.arange(5.0)
FRAME = pd.DataFrame({"x": [1.0, 2.0]})
KEEP, REFILL, LOOK_UP = CALLS.append, DATA.fill, CACHE.get
SERIES = pd.Series([1.0, 2.0])
RNG = np.random.default_rng(0)
LOG = logging.getLogger("a_user")
FOLDER = Path("data")
START = datetime.date(2000, 1, 1)
COUNTER = itertools.count()
CONFIG = types.SimpleNamespace(rate=0.5, calls=[])
TOTAL = 0.0


@functools.cache
def cached(x):
    return np.exp(x)


def helper(x):
    return np.exp(x) + special.expit(x)


def noisy_helper(x):
    print(x)
    return x


def two_deep(x):
    return noisy_helper(x)


@dataclasses.dataclass
class Model:
    rate: float
    kept: list[float] = dataclasses.field(default_factory=list)

    def __post_init__(self):
        self.double = 2 * self.rate

    def curve(self, x):
        values = []
        values.append(np.exp(-self.rate * x))
        return values[0]

    def counting(self, x):
        self.calls = 1
        return x

    def keeping(self, x):
        self.kept.append(x)
        return x

    def __call__(self, p, row):
        return self.curve(row["x"]) * p


class Counting(Model):
    def __call__(self, p, row):
        self.double += 1
        return super().__call__(p, row)


class Indirect(Model):
    def __call__(self, p, row):
        return self.counting(p)


class Inherited(Indirect):
    def __call__(self, p, row):
        return super().__call__(p, row)


class Local:
    def __init__(self, p):
        self.p = p

    def step(self):
        self.p = self.p * 2
        return self


MODEL = Model(0.5)
CURVES = {"exp": helper, "noisy": [noisy_helper]}
HARMLESS = {"exp": helper, "sin": np.sin, "data": [1.0, 2.0]}


def ordinary(p, row):
    values = []
    for i in range(3):
        values.append(p * row["x"] ** i)
    parts = {"a": 1.0}
    parts["b"] = parts["a"] + helper(row["x"])
    parts.update(c=2.0)
    names = {label for label in row.index}
    names.add("z")
    out = np.zeros(3)
    out[0] = p
    out += 1
    frame = FRAME.copy()
    frame["y"] = 1.0
    total = sum(v for v in values) + out.sum() + math.sqrt(2) + DATA[1:].sum()
    if total is None:
        raise ValueError("no total")
    with np.errstate(all="ignore"):
        total = total / parts["b"]
    try:
        total = total + 1
    finally:
        values = []

    def inner(y):
        nonlocal total
        total = total + y
        return y * CONFIG.rate

    return inner(1.0) + total


def on_frames(p, group):
    local = group.assign(z=lambda g: g["x"] * p)
    local.loc[0, "x"] = 1.0
    return (local["z"] - FRAME["x"].mean()).pow(2).sum() + SERIES.add(1.0).sum() + SERIES.loc[0]


def simulated(p, row):
    solution = integrate.solve_ivp(lambda t, y: -p * y, (0, 1), [row["x"]])
    return optimize.brentq(lambda v: v - p, -1, 1) + solution.y[0, -1] + stats.norm.logpdf(p)


def with_locals(p, row):
    model = Model(p)
    model.rate = 3.0
    return model.curve(row["x"]) + Local(p).step().p + MODEL.curve(p) + HARMLESS["exp"](p) + START.year


def conditional(p, row):
    log = [] if p > 1 else list(CALLS)
    log.append(p)
    return log[0] if log else CALLS


def in_jax(p, row):
    return jnp.sum(jax.vmap(lambda v: v * p)(row["x"])) + jax.random.normal(jax.random.PRNGKey(0))


@pytest.mark.parametrize(
    "function",
    [
        ordinary,
        on_frames,
        simulated,
        with_locals,
        conditional,
        in_jax,
        lambda p, row: np.sum((row.to_numpy() - p["a"]) ** 2),
        lambda p, row: cached(p) + len(CALLS) + CACHE.get("x", 0) + NESTED["log"][0] + max(CALLS, default=0),
        lambda p, row: [v * p for v in row] + [x for x in DATA if x > 1],
        lambda p, row, weights=(1.0, 2.0), start=DATA: np.dot(weights, row) + start[0],
        functools.partial(helper),
        MODEL,
        MODEL.curve,
        jax.jit(helper),
        cached,
        np.vectorize(helper),
        lambda p, row: LOOK_UP("p", p),
    ],
)
def test_ordinary_objectives_pass(function):
    assert is_suspicious(function) is None


def sets_global(p, row):
    global TOTAL
    TOTAL += p
    return p


def makes_counting():
    calls = 0
    log = []

    def count(p, row):
        nonlocal calls
        calls += 1
        return p

    def keep(p, row):
        log.append(p)
        return p

    def deep(p, row):
        return sum((lambda v: (log.append(v), v)[1])(v) for v in row)

    def recursive(p, row):
        return p if p < 1 else recursive(p - 1, row)

    return count, keep, deep, recursive


COUNTING, KEEPING, DEEP, RECURSIVE = makes_counting()


def default(p, row, memory=[]):  # noqa: B006
    memory.append(p)
    return p


def after_a_branch(p, row):
    x = p if row["x"] > 0 else -p
    CALLS.append(x if x > 0 else -x)
    return x


def in_a_try(p, row):
    try:
        return helper(p)
    except ValueError:
        return 0.0


def in_a_bare_try(p, row):
    try:
        return helper(p)
    except:  # noqa: E722
        return 0.0


def test_a_print_that_has_been_replaced_is_one(monkeypatch):
    monkeypatch.setattr("builtins.print", lambda *args, **options: None)
    assert is_suspicious(lambda p, row: print(p)) == "it calls print()"


@pytest.mark.parametrize(
    ("function", "sentence"),
    [
        (lambda p, row: print(p), "it calls print()"),
        (lambda p, row: open("file").read(), "it calls open()"),
        (lambda p, row: eval("p"), "it calls eval()"),
        (lambda p, row: p + time.time(), "it uses the module `time`"),
        (lambda p, row: p + perf_counter(), "it uses time.perf_counter"),
        (lambda p, row: os.path.join("a", p), "it uses the module `os`"),
        (lambda p, row: random.random(), "it uses the module `random`"),
        (lambda p, row: warnings.warn("x", stacklevel=1), "it uses the module `warnings`"),
        (lambda p, row: sys.exit(), "it uses the module `sys`"),
        (lambda p, row: datetime.datetime.now(), "it uses the module `datetime`"),
        (lambda p, row: Path("x").read_text(), "it uses pathlib"),
        (lambda p, row: pd.read_csv(FOLDER / "x"), "it uses a PosixPath"),
        (lambda p, row: LOG.info(p), "it uses a Logger"),
        (lambda p, row: RNG.normal(), "it draws random numbers"),
        (lambda p, row: np.random.normal(), "it uses the module `numpy.random`"),  # noqa: NPY002
        (lambda p, row: next(COUNTER), "it draws from an iterator (count)"),
        (lambda p, row: np.save("file", p), "it uses numpy.save"),
        (lambda p, row: row.to_csv("file"), "it calls .to_csv()"),
        (lambda p, row: CALLS.append(p), "it changes the list `CALLS` of its module"),
        (lambda p, row: CACHE.update(p=p), "it changes the dict `CACHE` of its module"),
        (lambda p, row: SEEN.add(p), "it changes the set `SEEN` of its module"),
        (lambda p, row: QUEUE.popleft(), "it changes the deque `QUEUE` of its module"),
        (lambda p, row: COUNTS.update("a"), "it changes the Counter `COUNTS` of its module"),
        (lambda p, row: NESTED["log"].append(p), "it changes the dict `NESTED` of its module"),
        (lambda p, row: NESTED[row["name"]].append(p), "it changes the dict `NESTED` of its module"),
        (lambda p, row: [CALLS.append(v) for v in row], "it changes the list `CALLS` of its module"),
        (lambda p, row: (lambda v: CALLS.append(v))(p), "it changes the list `CALLS` of its module"),
        (lambda p, row: KEEP(p), "it changes a list, by its method `append`"),
        (lambda p, row: REFILL(0.0), "it changes a ndarray, by its method `fill`"),
        (lambda p, row: DATA.sort(), "it changes the ndarray `DATA` of its module"),
        (lambda p, row: FRAME.insert(0, "z", 1), "it changes the DataFrame `FRAME` of its module"),
        (sets_global, "it changes the variable `TOTAL` of its module"),
        (COUNTING, "it changes the variable `calls` of the function around it"),
        (KEEPING, "it changes the list `log` of the function around it"),
        (DEEP, "it changes the list `log` of the function around it"),
        (default, "it changes the default of its argument `memory`"),
        (after_a_branch, "it changes the list `CALLS` of its module"),
        (in_a_try, "it catches exceptions, and a compiled function raises none"),
        (in_a_bare_try, "it catches exceptions, and a compiled function raises none"),
        (lambda p, row: noisy_helper(p), "`noisy_helper` calls print()"),
        (lambda p, row: two_deep(p), "`noisy_helper` calls print()"),
        (lambda p, row: CURVES["exp"](p), "`noisy_helper` calls print()"),
        (functools.partial(lambda curve, p, row: curve(p), noisy_helper), "`noisy_helper` calls print()"),
        (lambda p, row, curve=noisy_helper: curve(p), "`noisy_helper` calls print()"),
        (lambda p, row: MODEL.counting(p), "`counting` changes the object that it is a method of"),
        (lambda p, row: MODEL.keeping(p), "`keeping` changes the object that it is a method of"),
        (MODEL.counting, "it changes the object that it is a method of"),
        (Counting(0.5), "it changes the object that it is a method of"),
        (Indirect(0.5), "`counting` changes the object that it is a method of"),
        (jax.jit(noisy_helper), "it calls print()"),
        (math.exp, "it is not written in Python, so what it does cannot be seen"),
        (np.exp, "it is not written in Python, so what it does cannot be seen"),
    ],
)
def test_what_cannot_be_repeated(function, sentence):
    assert (is_suspicious(function) or "").startswith(sentence)


@pytest.mark.parametrize(
    ("statement", "sentence"),
    [
        ("CACHE['p'] = p", "it changes the dict `CACHE` of its module"),
        ("CACHE['p'] += p", "it changes the dict `CACHE` of its module"),
        ("del CACHE['p']", "it changes the dict `CACHE` of its module"),
        ("CACHE[row['a'] if p else f'{p}'] = [v for v in row]", "it changes the dict `CACHE` of its module"),
        ("DATA[0] = p", "it changes the ndarray `DATA` of its module"),
        ("DATA[1:3] = p", "it changes the ndarray `DATA` of its module"),
        ("DATA[:, None][0] -= p", "it changes the ndarray `DATA` of its module"),
        ("data = DATA; data += p", "it changes the ndarray `DATA` of its module"),
        ("log = NESTED['log']; log.append(p)", "it changes the dict `NESTED` of its module"),
        ("CONFIG.rate = p", "it changes the SimpleNamespace `CONFIG` of its module"),
        ("CONFIG.calls.append(p)", "it changes the SimpleNamespace `CONFIG` of its module"),
        ("FRAME['y'] = p", "it changes the DataFrame `FRAME` of its module"),
        ("FRAME.loc[0, 'x'] = p", "it changes the DataFrame `FRAME` of its module"),
        ("import time as t; p = t.time()", "it imports the module `time`"),
        ("import numpy as n; p = n.random.normal()", "it uses the module `numpy.random`"),
        ("from numpy import random as draws; p = draws.normal()", "it uses the module `numpy.random`"),
        ("from time import perf_counter as clock", "it imports the module `time`"),
        ("x = [1]; y = x; y.append(p); x[0] = 2; CALLS[:] = y", "it changes the list `CALLS` of its module"),
        ("x = DATA + 1; x += p; x[0] = p; y = DATA.copy(); y[1] = p; z = dict(CACHE); z['a'] = p", None),
        ("out = {}; out['a'] = CALLS; out.setdefault('b', []).append(p)", None),
    ],
)
def test_statements(statement, sentence):
    names = dict(globals())
    exec(f"def function(p, row):\n    {statement}\n    return p", names)
    assert is_suspicious(names["function"]) == sentence


def test_super():
    assert is_suspicious(Inherited(0.5)) == "`counting` changes the object that it is a method of"


def test_recursion_ends():
    assert is_suspicious(RECURSIVE) is None


def test_nothing_is_run():
    class Loud:
        @property
        def value(self):
            raise AssertionError("a property was run")

        def __getattr__(self, name):
            raise AssertionError("an attribute was looked up")

    loud = Loud()
    assert is_suspicious(lambda p, row: loud.value + loud.other + p) is None


def test_functions_made_by_exec():
    names = {"LOG": defaultdict(list)}
    exec("def function(p, row):\n    LOG['x'].append(p)\n    return p", names)
    assert is_suspicious(names["function"]) == "it changes the defaultdict `LOG` of its module"
