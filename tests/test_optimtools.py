"""The parallel map, and the primitives in programs: order, errors, and that nothing is left behind."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
import traceback
import warnings
from pathlib import Path

import pandas as pd
import psutil
import pytest

import parfit.optimtools as ot
from parfit.core.errors import (
    InvalidInputError,
    InvalidTypeError,
    ParfitWarning,
    RemoteError,
    SetupError,
    WorkerLostError,
)
from tests.workers import children, kill_self, nobody_is_there, nothing_is_left

ROOT = Path(__file__).resolve().parents[1]

_nothing_is_left = pytest.fixture(autouse=True)(nothing_is_left)
cold = pytest.fixture(nobody_is_there)


class CustomError(Exception):
    def __init__(self, county, value):
        super().__init__(f"{county}: {value}")


# ---- async_map


def test_map_keeps_the_order_and_takes_a_lambda():
    offset = 10
    assert ot.async_map(lambda x: x + offset, range(200), 2) == [x + 10 for x in range(200)]


@pytest.mark.parametrize("args", [[], (), iter([]), pd.Series([], dtype=float)])
def test_map_of_nothing(args):
    assert ot.async_map(abs, args) == []


def test_map_of_a_generator():
    assert ot.async_map(lambda s: s.upper(), (c for c in "abc"), ncpu=2) == ["A", "B", "C"]


def test_a_generator_that_raises():
    def broken():
        yield 1
        raise LookupError("no more counties")

    with pytest.raises(LookupError, match="no more counties"):
        ot.async_map(abs, broken(), 2)


def test_more_workers_than_arguments():
    assert ot.async_map(abs, [-1], ncpu=8) == [1]


def test_map_passes_one_argument_as_it_is():
    assert ot.async_map(lambda pair: pair, [(1, 2), [3]], 2) == [(1, 2), [3]]


def test_map_raises_what_the_function_raised():
    def half(x):
        if x in (3, 7):
            raise ZeroDivisionError(f"no half of {x}")
        return x / 2

    with pytest.raises(ZeroDivisionError, match="no half of 3") as info:
        ot.async_map(half, range(50), 2)
    assert isinstance(info.value.__cause__, RemoteError)
    assert 'raise ZeroDivisionError(f"no half of {x}")' in str(info.value.__cause__)
    assert "item 3" in "".join(traceback.format_exception(info.value))


def test_workers_live_on_after_an_exception(cold):
    ot.async_map(abs, range(8), 2)
    before = {child.pid for child in children()}

    def fail(x):
        raise ValueError(x)

    with pytest.raises(ValueError, match="0"):
        ot.async_map(fail, range(20), 2)
    assert {child.pid for child in children()} == before


def test_an_exception_that_cannot_be_rebuilt_says_what_it_was():
    def fail(_):
        raise CustomError("Autauga", 3)

    with pytest.raises(RemoteError, match="Autauga: 3"):
        ot.async_map(fail, [1], 1)


def test_an_exit_in_a_worker_does_not_end_the_caller():
    with pytest.raises(RemoteError, match="SystemExit"):
        ot.async_map(lambda _: sys.exit(3), [1], 1)


def test_map_over_an_argument_that_kills():
    with pytest.raises(WorkerLostError, match=r"item 1.*SIGKILL"):
        ot.async_map(lambda x: kill_self() if x == 1 else x, range(5), 2)


def test_a_function_that_cannot_be_sent():
    lock = threading.Lock()
    with pytest.raises(SetupError, match="lock"):
        ot.async_map(lambda x: lock, [1])


@pytest.mark.parametrize(("ncpu", "kind"), [(0, InvalidInputError), (1.5, InvalidTypeError)])
def test_a_number_of_workers_that_is_none(ncpu, kind):
    with pytest.raises(kind, match="ncpu must be"):
        ot.async_map(abs, [1], ncpu)
    with pytest.raises(kind, match="ncpu must be"):
        ot.Pool(ncpu)
    with pytest.raises(kind, match="n_cores must be"):
        ot.ProducerConsumer(abs, [1], max, ncpu)


def test_warnings_in_workers_are_given_here_once_each():
    def warn(x):
        warnings.warn("far out", RuntimeWarning, stacklevel=1)
        return x

    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        assert ot.async_map(warn, range(5), 2) == list(range(5))
    assert [(w.category, str(w.message), w.filename) for w in seen] == [(RuntimeWarning, "far out", __file__)]


def test_the_defaults_are_documented():
    assert ot.cpu_count() >= 1
    for public in (ot.async_map, ot.Pool, ot.ProducerConsumer):
        assert "cpu_count()" in public.__doc__


def test_nested_use_is_serial_with_one_warning():
    def outer(x):
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            inner = ot.async_map(lambda y: (y, os.getpid()), range(3))
        return os.getpid(), inner, [w.category.__name__ for w in seen]

    for pid, inner, seen in ot.async_map(outer, range(2), 2):
        assert inner == [(y, pid) for y in range(3)]
        assert seen == ["ParfitWarning"]


# ---- in programs


def program(text, tmp_path, *, signal_at=None, stdin=False):
    """Run a script without a main guard; what it prints."""
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(text))
    command = [sys.executable, "-W", "error", "-"] if stdin else [sys.executable, "-W", "error", str(script)]
    done = subprocess.run(
        command,
        input=script.read_text() if stdin else None,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


@pytest.mark.parametrize("stdin", [False, True])
def test_an_unguarded_script(tmp_path, stdin):
    out = program(
        """
        from parfit.optimtools import Pool, ProducerConsumer, async_apply, async_map

        class Scale:
            def __init__(self, by):
                self.by = by

        def score(p, x):
            return p.by * x

        print(async_map(lambda x: x + 1, range(3)))
        pool = Pool(2)
        print(async_apply(pool, score, (Scale(2), 4)).get())
        pc = ProducerConsumer(lambda x: x, range(3), score, 2)
        print(pc.run(Scale(3)))
        print(*(child.pid for child in __import__("psutil").Process().children()))
        unread = async_apply(pool, __import__("time").sleep, (60,))
        """,
        tmp_path,
        stdin=stdin,
    )
    first, second, third, pids = out.splitlines()
    assert (first, second, third) == ("[1, 2, 3]", "8", "[0, 3, 6]")
    assert pids
    assert not any(psutil.pid_exists(int(pid)) for pid in pids.split())


def test_the_import_is_cheap(tmp_path):
    out = program(
        """
        import sys
        import parfit.optimtools
        print([name for name in ("scipy", "pandas", "jax", "multiprocessing", "loky", "joblib") if name in sys.modules])
        """,
        tmp_path,
    )
    assert out.strip() == "[]"


def test_an_unknown_name():
    with pytest.raises(AttributeError, match="no_such_name"):
        ot.no_such_name  # noqa: B018
    assert set(ot.__all__) <= {*dir(ot), "SPSA"}


def test_a_parfit_warning_is_a_user_warning():
    assert issubclass(ParfitWarning, UserWarning)
