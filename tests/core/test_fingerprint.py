"""Equal things have equal fingerprints, in every process; others have others."""

from __future__ import annotations

import abc
import copy
import enum
import functools
import re
import subprocess
import sys
import sysconfig
import threading
import types
from collections import defaultdict, namedtuple
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import parfit
from parfit import InvalidInputError
from parfit.core.data import read_data
from parfit.core.fingerprint import digest, digest_and_parts
from parfit.core.rowprints import of_columns, of_datasets
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


def printed_by_others(text):
    """What two processes print that begin with other hashes of text."""
    found = set()
    for seed in ("1", "2"):
        environment = {"PYTHONPATH": parfit_path(), "PYTHONHASHSEED": seed, "PATH": ""}
        ran = subprocess.run([sys.executable, "-c", text], env=environment, capture_output=True, text=True, check=True)
        found.add(ran.stdout)
    return found


def test_a_lambda_of_another_process_is_the_same():
    text = (
        "from parfit.core.fingerprint import digest\nk = {'b', 'a'}\nprint(digest(lambda x, y=(1, 'z'): (x, k)).hex())"
    )
    assert len(printed_by_others(text)) == 1


def wrapped(function):
    """As a library's decorator does it, from a file that is installed."""
    return np.errstate(all="ignore")(function)


def test_what_a_librarys_wrapper_holds_counts():
    texts = ("def f(x): return x + 1", "def f(x): return x + 2")
    assert len({digest(wrapped(made(text))) for text in texts}) == 2
    jax = pytest.importorskip("jax")
    for change in (jax.vmap, jax.grad, jax.jit, lambda f: jax.jit(jax.vmap(f)), lambda f: jax.vmap(jax.grad(f))):
        assert len({digest(change(made(text))) for text in texts}) == 2


def test_a_global_of_a_function_that_was_made_traceable_counts():
    pytest.importorskip("jax")
    functions = [parfit.jaxify(made("import math\ndef f(x): return math.exp(x) * k", k=k)) for k in (1, 2)]
    assert digest(functions[0]) != digest(functions[1])


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


# ---- what else a thing is


def column(name: str, text: str):
    return made(text.replace("NAME", name))


@pytest.mark.parametrize(
    "text",
    [
        "def f(p, row): return sum(row['NAME'] for _ in range(1))",
        "def f(p, row): return [row['NAME'] for _ in range(1)]",
        "def f(p, row): return {row['NAME'] for _ in range(1)}",
        "f = lambda p, row: row['NAME']",
        "def f(p, row):\n    'NAME'\n    return row['NAME']",
        "def f(p, row):\n    def g():\n        return row['NAME']\n    return g()",
        "def f(p, row):\n    class C:\n        'NAME'\n    return C.__doc__",
    ],
)
def test_a_text_that_a_function_works_with_is_no_documentation(text):
    assert digest(column("a", text)) != digest(column("b", text))


def test_the_documentation_of_inner_functions_does_not_count():
    text = "def f(x):\n    def g():\n        'NAME'\n        return [x for _ in range(2)]\n    return g()"
    assert digest(column("It says so.", text)) == digest(column("It says more.", text))


def test_where_exceptions_are_caught_counts():
    code = made("def f(x):\n    try:\n        return 1 / x\n    except ZeroDivisionError:\n        return 0").__code__
    one, other = (types.FunctionType(c, {}) for c in (code, code.replace(co_exceptiontable=b"")))
    assert digest(one) != digest(other)


class Pickled:
    def __init__(self, k):
        self.k = k


class LeavesOut(Pickled):
    def __getstate__(self):
        return {}


class IsNotPickled(Pickled):
    def __reduce_ex__(self, protocol):
        raise TypeError("no")


class Slots:
    __slots__ = ("k",)
    __init__ = IsNotPickled.__init__
    __reduce_ex__ = IsNotPickled.__reduce_ex__


class Number(float):
    pass


class Values(np.ndarray):
    pass


class Frame(pd.DataFrame):
    _metadata: ClassVar[list[str]] = ["k"]


class Size(enum.IntEnum):
    ONE = 1
    TWO = 2


def having(thing, k):
    thing.k = k
    return thing


def frame_with(k):
    frame = pd.DataFrame({"a": [1.0]})
    frame.attrs["k"] = k
    return frame


def with_metaclass(k):
    kind = type("Kind", (type,), {"scale": lambda cls: k, "__module__": __name__})
    return kind("C", (), {"__module__": __name__})


HELD = {
    "an attribute of a function": lambda k: having(made("def f(x): return f.k * x"), k),
    "a pattern": lambda k: re.compile(f"a{k}"),
    "flags of a pattern": lambda k: re.compile("a", re.IGNORECASE if k == 1 else 0),
    "a view of a mapping": lambda k: types.MappingProxyType({"k": k}),
    "a view of memory": lambda k: memoryview(np.array([float(k)])),
    "keys": lambda k: {k: 0}.keys(),
    "values": lambda k: {0: k}.values(),
    "items": lambda k: {0: k}.items(),
    "what makes defaults": lambda k: defaultdict(made("def f(): return k", k=k)),
    "an attribute of a number": lambda k: having(Number(1), k),
    "an attribute of an array": lambda k: having(np.ones(2).view(Values), k),
    "an attribute of a frame": lambda k: having(Frame({"a": [1.0]}), k),
    "attrs of a frame": frame_with,
    "attrs of a Series": lambda k: frame_with(k)["a"],
    "a member of an enumeration": Size,
    "a method of a metaclass": with_metaclass,
    "what is not pickled": IsNotPickled,
    "what is in slots and not pickled": Slots,
    "what pickling leaves out": LeavesOut,
    "the closure of an installed function": lambda k: installed().make(k),
    "that of one that is called": lambda k: made("def f(x): return g(x)", g=installed().make(k)),
    "a partial of one": lambda k: functools.partial(installed().make(k), 1),
    "a method of an installed class": lambda k: installed().Fit(k).method,
    "a global of an installed package": lambda k: installed(k).plain,
    "a helper of an installed package": lambda k: installed(1, f"return {k} * x").calling,
    "a class": lambda k: type("Dict", (dict,), {"__module__": "collections" if k == 1 else "types"})({1: 2}),
}  # fmt: skip


def installed(rate=1.0, helper="return x"):
    """A package as if it were installed."""
    text = f"""
RATE = {rate}

def make(scale):
    def objective(x):
        return scale * x
    return objective

def plain(x):
    return RATE * x

def helper(x):
    {helper}

def calling(x):
    return helper(x)

class Fit:
    def __init__(self, scale):
        self.scale = scale

    def method(self, x):
        return self.scale * x
"""
    module = types.ModuleType("own_installed_package")
    module.__file__ = str(Path(sysconfig.get_paths()["purelib"], "own_installed_package.py"))
    exec(compile(text, module.__file__, "exec"), vars(module))
    return module


@pytest.mark.parametrize("make", HELD.values(), ids=HELD)
def test_what_a_thing_holds_counts(make):
    one, other = digest(make(1)), digest(make(2))
    assert one != other
    assert digest(make(1)) == one


def test_a_library_that_is_merely_called_is_known_by_name():
    functions = [made("def f(x): return g(x)", g=installed(rate).plain) for rate in (1, 2)]
    assert digest(functions[0]) == digest(functions[1])


def test_the_package_that_the_objective_comes_from_counts_in_other_arguments_too():
    starts = [functools.partial(installed(rate).plain) for rate in (1, 2)]
    found = {digest_and_parts([start], home)[0] for start in starts for home in (None, "own_installed_package")}
    assert len(found) == 3  # by its name alone, where it is a library


def test_what_gives_its_values_once_is_refused():
    with pytest.raises(InvalidInputError, match="a generator gives its values once, and cannot be known again"):
        digest(made("def f(x): return next(g)", g=(i for i in range(3))))


def test_what_cannot_be_looked_into_is_refused_where_it_is_data():
    with pytest.raises(InvalidInputError, match=r"a _thread.lock cannot be looked into, and a change in it would go"):
        digest({"y": 1.0, "lock": threading.Lock()}, strict=True)
    abstract = abc.ABCMeta("Data", (), {"__module__": __name__, "made_of": functools.cached_property(len)})
    assert digest(abstract(), strict=True) == digest(abstract(), strict=True)


def test_a_memo_that_is_not_pickled_does_not_count():
    one = LeavesOut(1)
    before = digest(one)
    one.memo = {"found": 2.0}
    assert digest(one) == before


def test_all_of_it_is_the_same_in_another_process_and_after_a_call():
    text = """
import abc, enum, re, types, functools
from collections import OrderedDict
import numpy as np
from parfit.core.fingerprint import digest

class Kind(enum.Flag):
    A = 1
    B = 2

class Model(abc.ABC):
    names = {"a", "b", "c"}
    def __call__(self, p, row):
        return ~Kind.A & Kind.B, re.compile("x", re.I) , types.MappingProxyType({1: 2})

@np.errstate(all="ignore")
def f(p, row):
    return np.log(row), Kind.A | Kind.B, pattern, memory

pattern = re.compile("x", re.I)
memory = memoryview(b"abc")
things = [Model(), f, functools.partial(f, 1), OrderedDict(a=1), Kind.A, frozenset({"x", "y"})]
try:
    import jax
    things += [jax.vmap(lambda x: x + 1), jax.jit(jax.grad(lambda x: x * 2))]
except ImportError:
    pass
before = [digest(thing).hex() for thing in things]
Model()(1, 2), f(1, 1.0)
assert before == [digest(thing).hex() for thing in things]
print(before)
"""
    assert len(printed_by_others(text)) == 1


# ---- many datasets


def texts_and_numbers(n):
    return pd.DataFrame(
        {"g": np.repeat(np.arange(n), 3), "y": np.arange(3.0 * n), "t": [f"c {i % 4}" for i in range(3 * n)]}
    )


TABLES = {
    "numbers": [group for _, group in texts_and_numbers(5)[["g", "y"]].groupby("g")],
    "texts": [group for _, group in texts_and_numbers(5).groupby("g")],
    "lengths": [pd.DataFrame({"y": np.arange(float(n))}) for n in (3, 0, 1, 2)],
    "types": [pd.DataFrame({"y": np.ones(2, dtype=kind)}) for kind in ("f8", "f4", "i8", "i1", "?", "M8[s]", "O")],
    "names": [pd.DataFrame({name: [1.0]}) for name in ("a", 1, True, 1.0, ("a", 1), None)],
    "columns": [pd.DataFrame({"a": [1.0], "b": [2.0]}), pd.DataFrame({"b": [2.0], "a": [1.0]})],
    "order": [pd.DataFrame({"y": y}, index) for y, index in (([1, 2], [0, 1]), ([2, 1], [0, 1]), ([1, 2], [1, 0]))],
    "index": [
        pd.DataFrame({"y": [1.0]}, index=index)
        for index in ([0], [1], [1.0], ["a"], pd.Index([0], name="a"), pd.MultiIndex.from_tuples([(0, 1)]))
    ],
    "kinds": [pd.DataFrame({"c": pd.Categorical(["a"])}), pd.DataFrame({"c": ["a"]}), frame_with(1), frame_with(2)],
    "series": [pd.Series([1.0]), pd.Series([1]), pd.Series([1.0], name="a"), pd.Series([1.0], [3]), pd.Series(["a"])],
    "mixed": [np.ones(3), pd.Series(np.ones(3)), pd.DataFrame({0: np.ones(3)}), {"y": 1}, "a", b"a", None],
}  # fmt: skip


@pytest.mark.parametrize("items", TABLES.values(), ids=TABLES)
def test_the_fingerprint_of_a_dataset_is_its_own(items):
    found = of_datasets(items)
    assert len(np.unique(found, axis=0)) == len(items)
    np.testing.assert_array_equal(of_datasets([*items[::-1], *items]), [*found[::-1], *found])
    for item, own in zip(items, found, strict=True):
        np.testing.assert_array_equal(of_datasets([copy.deepcopy(item)]), [own])


@pytest.mark.parametrize("kind", ["numbers", "texts"])
def test_groups_have_those_of_their_frames(kind):
    frame = pd.concat(TABLES[kind])
    found = read_data(frame.groupby("g")).fingerprints()
    np.testing.assert_array_equal(found, of_datasets(TABLES[kind]))
    np.testing.assert_array_equal(read_data(frame.groupby("g")).part(1, 3).fingerprints(), found[1:3])
    np.testing.assert_array_equal(read_data(frame[frame["g"] != 1].groupby("g")).fingerprints(), np.delete(found, 1, 0))


@pytest.mark.parametrize("kind", ["f4", "i8", "i4", "?", ">f8", "g", "O"])
@pytest.mark.parametrize("both", [True, False])
def test_data_of_another_type_are_others(kind, both):
    one = pd.DataFrame({"a": [1.0, 0.0], "b": [1.0, 1.0]})
    other = one.astype(kind if both else {"a": kind})
    assert (read_data(one).fingerprints() != read_data(other).fingerprints()).any(axis=1).all()
    arrays = [np.ones((2, 2)), np.ones((2, 2), dtype=kind)]
    assert (read_data(arrays[0]).fingerprints() != read_data(arrays[1]).fingerprints()).any(axis=1).all()


def test_long_numbers_count_to_the_last_digit():
    long = np.ones((2, 1), dtype=np.longdouble)
    long[1] += np.finfo(np.longdouble).eps
    if np.finfo(np.longdouble).eps == np.finfo(float).eps:
        pytest.skip("there are none here")
    assert len(np.unique(of_columns([long], 2), axis=0)) == 2


@pytest.mark.parametrize(
    "make",
    [
        lambda bad: pd.Series({"a": 1.0, "b": bad}, dtype=object),
        lambda bad: pd.DataFrame({"y": [1.0, bad]}, index=["a", "b"]),
        lambda bad: pd.DataFrame({"y": [1.0, bad], "g": ["a", "b"]}).groupby("g"),
        lambda bad: {"a": [1.0], "b": [bad]},
    ],
    ids=["Series", "frame", "groups", "mapping"],
)
def test_a_dataset_that_cannot_be_looked_into_is_named(make):
    data = read_data(make(threading.Lock()))
    with pytest.raises(InvalidInputError, match=r"dataset 'b': a _thread.lock cannot be looked into"):
        data.fingerprints()


@pytest.mark.parametrize("view", [lambda y: types.MappingProxyType({"y": y}), lambda y: memoryview(np.array([y]))])
def test_a_change_in_a_view_is_seen(view):
    one, other = (read_data([view(1.0), view(y)]).fingerprints() for y in (2.0, 3.0))
    assert (one != other).any(axis=1).tolist() == [False, True]
