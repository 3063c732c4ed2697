"""Equal things have equal fingerprints, in every process; others have others."""

from __future__ import annotations

import functools
import subprocess
import sys
import threading
from collections import namedtuple

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from parfit import InvalidInputError
from parfit.core.data import read_data
from parfit.core.fingerprint import digest, of_columns
from tests.scripts import parfit_path


def made(text: str, **names):
    """What the last name of a text stands for."""
    space = dict(names)
    exec(compile(text, "<test>", "exec"), space)
    return space["f"]


class One:
    def m(self):
        return 1


class Two:
    def m(self):
        return 2


FRAME = pd.DataFrame({"a": [1.0, 2.0], "b": ["x", None]}, index=pd.Index(["u", "v"], name="key"))
DIFFERENT = [
    None, True, 1, 1.0, "1", b"1", (1,), [1], {1}, {1: 1}, {1: 2}, np.float32(1), np.array([1]), np.array([1.0]),
    np.array([[1.0]]), np.array([1.0, np.nan]), np.ma.masked_array([1.0], [True]), pd.Timestamp("2020-01-01"),
    pd.Series([1.0]), pd.Series([1.0], index=["a"]), pd.Series([1.0], name="a"), pd.DataFrame({"a": [1.0]}), FRAME,
    FRAME.rename(columns={"a": "c"}), FRAME.assign(a=[1.0, 3.0]), pd.Categorical(["a", "b"]), float("nan"), -0.0, 0.0,
    np.random.default_rng(0), np.random.default_rng(1), functools.partial(pow, 2), functools.partial(pow, 3), pow, np,
    made("def f(x): return x + 1"), made("def f(x): return x + 2"), made("def f(x, y=1): return x + 1"),
    made("def f(x, y=2): return x + 1"), made("def f(x): return x + k", k=1), made("def f(x): return x + k", k=2),
    made("def g(x): return x\ndef f(x): return g(x)"), made("def g(x): return -x\ndef f(x): return g(x)"),
    made("def f(x): return f(x - 1) if x else 0"), made("f = [i for i in range(3)].append"),
    One(), Two(), One.m, Two.m, One().m,
]  # fmt: skip


def test_what_is_different_has_another():
    found = [digest(thing) for thing in DIFFERENT]
    assert len(set(found)) == len(DIFFERENT)


@pytest.mark.parametrize("i", range(len(DIFFERENT)))
def test_it_is_the_same_each_time(i):
    assert digest(DIFFERENT[i]) == digest(DIFFERENT[i])


def test_equal_things_are_the_same_whether_they_are_one_or_two():
    a = np.arange(3.0)
    assert digest([a, a]) == digest([a, a.copy()])
    assert digest({"x": FRAME}) == digest({"x": FRAME.copy(deep=True)})
    assert digest({"a", "b", "c"}) == digest({"c", "b", "a"})


def test_a_class_is_what_its_methods_do():
    renamed = type("One", (), {"m": Two.m, "__module__": One.__module__, "__qualname__": "One"})
    assert digest(renamed) != digest(One)


def test_a_function_is_what_it_computes_wherever_it_stands():
    plain = made("def f(x): return x + 1")
    moved = made("\n\n\n# said elsewhere\ndef f(x):\n    'It says what it does.'\n    return x + 1")
    assert digest(plain) == digest(moved)


def test_a_lambda_of_another_process_is_the_same():
    text = (
        "from parfit.core.fingerprint import digest\nk = {'b', 'a'}\nprint(digest(lambda x, y=(1, 'z'): (x, k)).hex())"
    )
    found = set()
    for seed in ("1", "2"):
        environment = {"PYTHONPATH": parfit_path(), "PYTHONHASHSEED": seed, "PATH": ""}
        ran = subprocess.run([sys.executable, "-c", text], env=environment, capture_output=True, text=True, check=True)
        found.add(ran.stdout)
    assert len(found) == 1


def wrapped(function):
    """As a library's decorator does it, from a file that is installed."""
    return np.errstate(all="ignore")(function)


def test_what_a_librarys_wrapper_holds_counts():
    texts = ("def f(x): return x + 1", "def f(x): return x + 2")
    assert len({digest(wrapped(made(text))) for text in texts}) == 2
    jax = pytest.importorskip("jax")
    for change in (jax.vmap, jax.grad, jax.jit, lambda f: jax.jit(jax.vmap(f)), lambda f: jax.vmap(jax.grad(f))):
        assert len({digest(change(made(text))) for text in texts}) == 2


def test_methods_of_builtin_things_and_properties_count():
    assert digest(np.array([1, 2]).dot) != digest(np.array([1, 3]).dot)
    assert digest({"a": 1}.get) != digest({"a": 2}.get)
    assert digest(property(One.m)) != digest(property(Two.m))


def test_distributions_are_the_same_after_a_draw():
    stats = pytest.importorskip("scipy.stats")
    before = digest(stats.norm)
    np.random.mtrand._rand.uniform()  # another state of NumPy's global generator
    assert digest(stats.norm) == before


def test_an_attribute_is_no_global():
    function = made("def f(x): return x.norm", norm=1)
    assert digest(function) == digest(made("def f(x): return x.norm", norm=2))


def test_circles_end():
    ring = [1]
    ring.append(ring)
    other = [2]
    other.append(other)
    assert digest(ring) != digest(other)


def test_what_cannot_be_looked_into_counts_by_its_type():
    assert digest(threading.Lock()) == digest(threading.Lock())


# ---- rows


NUMBERS = arrays(np.float64, (3, 4), elements=st.floats(allow_nan=True, width=64))


@given(NUMBERS, st.integers(0, 2), st.integers(0, 3), st.integers(1, 2**64 - 1))
def test_a_change_of_one_bit_or_many_shows_in_its_row_alone(values, row, column, bits):
    changed = values.copy()
    changed.view(np.uint64)[row, column] ^= np.uint64(bits)
    before, after = of_columns([values], 3), of_columns([changed], 3)
    differs = (before != after).any(axis=1)
    assert differs.tolist() == [i == row for i in range(3)]


def test_rows_of_zeros_and_ones_do_not_collide():
    every = ((np.arange(1 << 12)[:, None] >> np.arange(12)) & 1).astype(float)
    assert len(np.unique(of_columns([every], len(every)), axis=0)) == len(every)


@pytest.mark.parametrize(
    "data",
    [
        pd.DataFrame({"a": [1.0, 2.0, 2.0], "b": [1, 2, 2]}),
        pd.DataFrame(np.arange(6.0).reshape(3, 2)[[0, 1, 1]]),
        pd.DataFrame({"a": ["x", "y", "y"], "b": [1.0, 2.0, 2.0]}),
        pd.DataFrame({"t": pd.to_datetime(["2020-01-01", "2021-01-01", "2021-01-01"])}),
        pd.DataFrame({"c": [np.arange(3), np.arange(4), np.arange(4)]}),
        [{"y": np.zeros(2)}, {"y": np.ones(2)}, {"y": np.ones(2)}],
        {"x": np.array([[0, 1], [1, 1], [1, 1]]), "y": np.array([3.0, 4.0, 4.0])},
        np.array([["a", "b"], ["c", "d"], ["c", "d"]]),
        np.ma.masked_array(np.ones((3, 2)), [[True, False], [False, False], [False, False]]),
    ],
    ids=lambda data: type(data).__name__,
)
def test_datasets_that_are_equal_have_equal_ones(data):
    first, second, third = read_data(data).fingerprints()
    assert (second == third).all()
    assert (first != second).any()
    np.testing.assert_array_equal(read_data(data).fingerprints(), [first, second, third])


def test_the_names_of_columns_count():
    a, b = (read_data(pd.DataFrame({name: [1.0]})).fingerprints() for name in "ab")
    assert (a != b).any()


def test_groups():
    frame = pd.DataFrame({"g": [1, 1, 2, 3], "y": [0.0, 1.0, 2.0, 2.0]})
    found = read_data(frame.groupby("g")).fingerprints()
    assert len(np.unique(found, axis=0)) == 3


def test_they_do_not_depend_on_the_layout_in_memory():
    values = np.random.default_rng(0).normal(size=(5000, 3))
    expected = of_columns([values], len(values))
    for other in (np.asfortranarray(values), np.repeat(values, 2, axis=1)[:, ::2], values[::-1].copy()[::-1]):
        np.testing.assert_array_equal(of_columns([other], len(values)), expected)


def test_the_function_inside_a_ufunc_counts():
    texts = ("def f(x): return x + 1", "def f(x): return x + 2")
    assert len({digest(np.frompyfunc(made(text), 1, 1)) for text in texts}) == 2
    assert len({digest(np.vectorize(made(text))) for text in texts}) == 2
    assert digest(np.frompyfunc(made(texts[0]), 1, 1)) == digest(np.frompyfunc(made(texts[0]), 1, 1))
    assert digest(np.sin) != digest(np.cos)


def test_the_order_of_the_fields_of_a_namedtuple_counts():
    one, other = (namedtuple("Point", fields, module="numpy")(1, 2) for fields in ("x y", "y x"))
    assert digest(one) != digest(other)
    assert digest(one) == digest(type(one)(1, 2))


@pytest.mark.parametrize("nested", [lambda: deep([]), lambda: [deep({})]], ids=["list", "dict"])
def test_what_is_nested_too_deeply_is_refused(nested):
    with pytest.raises(InvalidInputError, match="is nested too deeply to be known again"):
        digest(nested())


def deep(value):
    for _ in range(5000):
        value = [value] if isinstance(value, list) else {"a": value}
    return value


def test_what_a_function_imports_while_it_runs_counts(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "own_package").mkdir()
    texts = {
        "own_helper.py": "from own_package import part\ndef g(x): return x + 1",
        "own_package/__init__.py": "raise RuntimeError('it is not imported for this')",
        "own_package/part.py": "from .other import k",
        "own_package/other.py": "k = 1",
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    functions = [
        made("def f(x):\n    import own_helper\n    return own_helper.g(x)"),
        made("def f(x):\n    from own_helper import g\n    return g(x)"),
        made("def f(x):\n    def inner():\n        import own_helper as h\n        return h.g(x)\n    return inner()"),
    ]
    before = [digest(f) for f in functions]
    (tmp_path / "own_helper.py").write_text("# said\n" + texts["own_helper.py"])
    assert [digest(f) for f in functions] == before
    for name, text in (
        ("own_helper.py", texts["own_helper.py"].replace("+ 1", "+ 2")),
        ("own_package/other.py", "k = 2"),
    ):
        (tmp_path / name).write_text(text)
        after = [digest(f) for f in functions]
        assert all(a != b for a, b in zip(before, after, strict=True)), name
        before = after
    assert "own_helper" not in sys.modules
    (tmp_path / "own_helper.py").unlink()
    assert digest(functions[0]) == digest(functions[0])
    assert digest(made("def f(x):\n    import scipy.stats\n    return x")) != before[0]


def test_an_exception_is_the_same_after_somebody_has_looked_at_its_attributes() -> None:
    error = ValueError(4)
    before = digest(error)
    assert vars(error) == {}
    assert digest(error) == before
