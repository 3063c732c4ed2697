"""What is said of something that cannot be pickled: which part of it, and how to do without."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import shutil
import sys
import threading
import time
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest

import parfit
from parfit.core.errors import InvalidTypeError, SetupError
from parfit.executors import resolve
from parfit.executors.baggage import packed, unsendable

DF = pd.DataFrame({"a": [1.0, 2.0]})
LOCK = threading.Lock()


class Model:
    """Nothing of it can be pickled by itself but its name."""

    shared: Any = None

    def __init__(self) -> None:
        self.name = "m"
        self.cache = {"x": [1, threading.Lock()]}

    def error(self, p: Any, row: Any) -> float:
        return 1.0

    __call__ = error


class Slotted:
    __slots__ = ("lock", "unset")

    def __init__(self) -> None:
        self.lock = threading.Lock()

    def __call__(self, p: Any, row: Any) -> float:
        return 1.0


class Refuses:
    def __reduce__(self) -> Any:
        raise RuntimeError("not with me")

    def __call__(self, p: Any, row: Any) -> float:
        return 1.0


class Point(NamedTuple):
    x: int
    lock: Any


def capturing(thing: Any) -> Any:
    def error(p: Any, row: Any) -> float:
        return 1.0 if thing else 2.0

    return error


def by_value(function: Any) -> Any:
    """As a function of a notebook or script, which travels with the globals that it uses."""
    function.__module__ = "__main__"
    return function


def uses_a_global(p: Any, row: Any) -> float:
    def inner() -> Any:
        return LOCK

    return float(inner() is None)


def with_default(p: Any, row: Any, lock: Any = LOCK, *, other: int = 3) -> float:
    return 1.0


def with_attribute(p: Any, row: Any) -> float:
    return 1.0


with_attribute.lock = LOCK  # type: ignore[attr-defined]


def three(p: Any, row: Any, lock: Any) -> float:
    return 1.0


model = Model()
CASES = {
    "captured": (capturing(LOCK), "objective 'error' cannot be sent to workers: it captures 'thing' (_thread.lock), "
                 "which cannot be pickled; create it inside the function, or use executor='threads'"),
    "global": (by_value(uses_a_global), "objective 'uses_a_global' {}: it uses the global 'LOCK' (_thread.lock)"),
    "default": (by_value(with_default), "{}: it has the default 'lock' (_thread.lock), which"),
    "attribute": (by_value(with_attribute), "{}: it has the attribute 'lock' (_thread.lock), which"),
    "instance": (model, "objective (tests.executors.test_baggage.Model) {}: it holds \"cache['x'][1]\" (_thr"),
    "method": (model.error, "'Model.error' {}: it belongs to a Model, which holds \"cache['x'][1]\" ("),
    "deep": (capturing(capturing({"m": model})), "it captures 'thing', which captures \"thing['m'].cache['x'][1]\""),
    "slots": (Slotted(), "it holds 'lock' (_thread.lock)"),
    "tuple": (capturing(Point(1, LOCK)), "it captures 'thing.lock' (_thread.lock)"),
    "partial": (functools.partial(three, lock=LOCK), "objective 'three' {}: it is given argument 'lock' (_thread"),
    "refusing": (Refuses(), "it cannot be pickled (RuntimeError: not with me); create it where it is used"),
    "captured_refusing": (capturing(Refuses()), "which cannot be pickled (RuntimeError: not with me); create it"),
    "generator": (capturing(n for n in range(3)), "captures 'thing' (generator), which cannot be pickled; give a list"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_an_objective_that_cannot_be_sent_says_what_in_it(case):
    objective, says = CASES[case]
    with pytest.raises(SetupError) as caught:
        parfit.fit(DF, objective, [1.0], engine="rows")
    assert says.replace("{}", "cannot be sent to workers") in str(caught.value)
    assert caught.value.__cause__ is not None


@pytest.mark.parametrize("name", ["loky", "joblib", "producer_consumer"])
def test_every_executor_says_so(name):
    with pytest.raises(SetupError, match="objective 'error' cannot be sent to workers: it captures 'thing'"):
        parfit.fit(DF, capturing(LOCK), [1.0], executor=name, workers=2)
    assert parfit.fit(DF, capturing(LOCK), [1.0], executor="threads").status.ne("error").all()


def test_other_arguments_of_fit():
    with pytest.raises(SetupError, match=r"^args\[1\]\['k'\] \(_thread.lock\) cannot be sent"):
        parfit.fit(DF, lambda p, row, *_: 1.0, [1.0], args=(1, {"k": LOCK}), engine="rows")
    with pytest.raises(SetupError, match=r"^jac 'error' cannot be sent to workers: it captures 'thing'"):
        parfit.fit(DF, lambda p, row: 1.0, [1.0], jac=capturing(LOCK))


def test_a_dataset_is_an_error_of_its_own():
    data = [{"a": 1.0, "lock": None}, {"a": 1.0, "lock": LOCK}]
    fits = parfit.fit(data, lambda p, d: (p[0] - d["a"]) ** 2, [0.0])
    assert fits.status.tolist() == ["converged", "error"]
    assert fits.errors["message"].iloc[0].startswith("dataset['lock'] (_thread.lock) cannot be sent to workers: ")
    assert "cannot pickle" in fits.errors["traceback"].iloc[0]
    found = parfit.sweep(lambda a: 1, [{"a": 1}, {"a": LOCK}], executor="loky", workers=2)
    assert "item['a'] (_thread.lock) cannot be sent" in found["message"][1]


def test_the_primitives():
    bad, sent = capturing(LOCK), "'error' cannot be sent to workers: it captures 'thing' (_thread.lock)"
    ends = "which cannot be pickled; create it inside the function"
    with pytest.raises(SetupError) as caught:
        parfit.async_map(bad, [1])
    assert str(caught.value) == f"fun {sent}, {ends}"  # there is no executor to choose
    with pytest.raises(SetupError, match=r"function 'error' cannot be sent .* or use executor='threads'"):
        parfit.sweep(bad, {"p": [1], "row": [1]})
    with pytest.raises(InvalidTypeError, match=r"item \(_thread.lock\) cannot be sent"):
        parfit.async_map(len, [LOCK])
    with parfit.Pool(1) as pool:
        with pytest.raises(InvalidTypeError) as refused:
            pool.apply(bad, (1, 2))
        assert str(refused.value) == f"fun {sent}, {ends}"
        with pytest.raises(InvalidTypeError, match=r"^args\[1\] \(_thread.lock\) cannot be sent"):
            pool.apply(max, (1, LOCK))
        with pytest.raises(InvalidTypeError, match=r"captures 'pool' .*in the closure of the function"):
            pool.apply(lambda: pool)
    for functions, role in (((bad, max), "the loading function"), ((int, bad), "process_function")):
        with (
            parfit.ProducerConsumer(functions[0], [1], functions[1], 1) as scores,
            pytest.raises(SetupError, match=f"^{role} 'error' cannot be sent to workers: it captures"),
        ):
            scores.run(1)
    with parfit.ProducerConsumer(int, [LOCK], max, 1) as scores, pytest.raises(TypeError, match=r"dataset .*cannot be"):
        scores.run(1)


@pytest.mark.parametrize("executor", ["processes", "loky"])
def test_a_result_that_cannot_be_sent_back(executor):
    def sweep_of(function: Any, executor: str) -> str:
        table = parfit.sweep(function, {"a": [1]}, executor=executor, workers=1)
        return str(table["message"][0])

    assert sweep_of(lambda a: threading.Lock(), executor) == (
        "InvalidTypeError: the result (_thread.lock) cannot be sent back: it cannot be pickled"
    )
    assert "the result['x'] (generator) cannot be sent back" in sweep_of(lambda a: {"x": (n for n in "a")}, executor)
    with pytest.raises(TypeError, match=r"the result.* cannot be sent back") as caught:
        parfit.apply_by_multiprocessing(DF, lambda row: threading.Lock(), 2, executor=executor)
    assert caught.value.__notes__
    with parfit.Pool(1) as pool, pytest.raises(TypeError, match=r"the result \(_thread.lock\) cannot be sent back"):
        pool.apply(threading.Lock)


@pytest.mark.parametrize("executor", ["processes", "loky"])
def test_a_module_that_workers_cannot_import_or_that_has_lost_the_function(executor, tmp_path, monkeypatch):
    (tmp_path / "parfit_test_module.py").write_text("def double(a): return 2 * a\n")
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module("parfit_test_module")
    monkeypatch.setitem(sys.modules, "parfit_test_module", module)
    assert parfit.sweep(module.double, {"a": [1]}, executor=executor, workers=1)["value"].tolist() == [2]
    (tmp_path / "parfit_test_module.py").write_text("other = 3\n")
    with pytest.raises(SetupError, match=r"cannot unpack .*Can't get attribute 'double'.* as it is on disk now"):
        parfit.sweep(module.double, {"a": [1]}, executor=executor, workers=1)
    (tmp_path / "parfit_test_module.py").unlink()
    shutil.rmtree(tmp_path / "__pycache__", ignore_errors=True)
    with pytest.raises(SetupError, match=r"cannot unpack .*No module named 'parfit_test_module'.* is it on sys.path"):
        parfit.sweep(module.double, {"a": [1]}, executor=executor, workers=1)


def importing_nothing(_: Any) -> None:
    import parfit_no_such_module  # noqa: F401


def test_a_setup_that_misses_a_module_of_its_own_is_told_as_before():
    with pytest.raises(
        SetupError, match=r"^the setup failed in a worker: ModuleNotFoundError: No module named 'parfit_no"
    ):
        with resolve("processes", 1).open(functools.partial(importing_nothing, 1)) as pool:
            list(pool.imap_unordered(max, [(1, 1)]))


class Counted:
    pickled = 0

    def __getstate__(self) -> Any:
        type(self).pickled += 1
        return None


def test_what_can_be_pickled_is_pickled_once():
    packed("setup", [Counted(), {"a": Counted()}])
    assert Counted.pickled == 2


def test_looking_for_the_culprit_ends():
    loop: list[Any] = [LOCK]
    loop.insert(0, loop)
    assert "setup[1] (_thread.lock)" in unsendable("setup", loop, TypeError("cannot pickle '_thread.lock' object"))
    begin = time.monotonic()
    many = [np.zeros(10) for _ in range(100_000)]
    assert "setup" in unsendable("setup", [*many, LOCK], TypeError("cannot pickle '_thread.lock' object"))
    assert time.monotonic() - begin < 30


@dataclasses.dataclass
class Strange:
    value: int

    def __repr__(self) -> str:
        raise ValueError("no repr")

    def __hash__(self) -> int:
        return 1


def test_names_that_cannot_be_shown():
    text = unsendable("setup", {Strange(1): LOCK}, TypeError("cannot pickle '_thread.lock' object"))
    assert "(_thread.lock)" in text
