"""`apply_by_multiprocessing` when something goes wrong, and what it tells while it runs."""

from __future__ import annotations

import os
import signal
import threading
import time
import traceback
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest

import parfit
from parfit import ParfitWarning, SetupError, WorkerLostError, apply_by_multiprocessing
from parfit.executors.serial import SerialExecutor
from tests.apply_referee import check, set_size
from tests.workers import executors_here

LONG = pd.DataFrame({"a": np.arange(300), "b": 0.5}, index=[f"r{i}" for i in range(300)])


class NoCountyError(LookupError):
    """An exception as users define them: with arguments that do not fit its own text."""

    def __init__(self, county, year):
        super().__init__(f"{county} has no data for {year}")


def raise_in(*labels, exception=ValueError):
    def func(row):
        if row.name in labels:
            raise exception(f"no data in {row.name}")
        return row["a"]

    return func


# ---- exceptions


@pytest.mark.parametrize("executor", ["processes", "serial", "threads"])
def test_an_exception_is_of_its_own_type_with_the_rows_label_and_the_workers_traceback(executor):
    with pytest.raises(KeyError, match="no data in r150") as caught:
        apply_by_multiprocessing(LONG, raise_in("r150", exception=KeyError), 2, executor=executor)
    assert caught.value.__notes__ == ["in the row 'r150'"]
    told = "".join(traceback.format_exception(caught.value))
    assert 'raise exception(f"no data in {row.name}")' in told
    assert "pandas" not in str(caught.value.__cause__)  # the traceback begins with the user's own function


@pytest.mark.parametrize(
    ("options", "note"),
    [({"axis": 0}, "in the column 'b'"), ({"raw": True}, "in the row 'r7'")],
    ids=["column", "raw"],
)
def test_the_label_is_told_also_where_pandas_does_not_hand_it_out(options, note):
    def func(values):
        if values[0] in (0.5, 7):
            raise ValueError("this one")
        return 1

    frame = LONG.reset_index(drop=True) if "axis" in options else LONG
    with pytest.raises(ValueError, match="this one") as caught:
        apply_by_multiprocessing(frame.iloc[:20], func, 2, **options)
    assert caught.value.__notes__ == [note]


@pytest.mark.parametrize("label", [("x", 3), 3, 2.5, pd.Timestamp("2020")])
def test_labels_of_any_kind(label):
    index = pd.Index([label, "other"], tupleize_cols=False)
    with pytest.raises(ZeroDivisionError) as caught:
        apply_by_multiprocessing(LONG.iloc[:2].set_axis(index), lambda row: 1 // 0, 2)
    assert caught.value.__notes__ == [f"in the row {label!r}"]


def test_of_several_exceptions_the_one_that_pandas_meets_first_is_raised():
    def func(row):
        time.sleep(0.2 if row.name == "r10" else 0)
        if row.name in ("r10", "r11", "r200"):
            raise ValueError(f"no data in {row.name}")
        return 1

    for _ in range(3):
        with pytest.raises(ValueError, match=r"no data in r10\b"):
            apply_by_multiprocessing(LONG, func, 2)


def test_an_exception_that_cannot_be_unpickled_is_told_in_words():
    def func(row):
        raise NoCountyError(row.name, 2010)

    with pytest.raises(parfit.RemoteError, match="NoCountyError: r0 has no data for 2010") as caught:
        apply_by_multiprocessing(LONG, func, 2)
    assert caught.value.__notes__ == ["in the row 'r0'"]


def test_a_value_that_cannot_be_pickled_is_told_with_its_row(monkeypatch):
    set_size(monkeypatch, 1)
    with pytest.raises(TypeError, match="pickle") as caught:
        apply_by_multiprocessing(LONG.iloc[3:5], lambda row: threading.Lock(), 2)
    assert caught.value.__notes__ == ["in the row 'r3'"]
    set_size(monkeypatch, 4)
    with pytest.raises(TypeError, match="pickle") as caught:
        apply_by_multiprocessing(LONG, lambda row: threading.Lock(), 2)
    assert caught.value.__notes__ == ["in the row 'r0' or one of the 3 after it"]


def test_a_function_that_cannot_be_pickled_is_told_at_once():
    lock = threading.Lock()
    with pytest.raises(SetupError, match="func '<lambda>' cannot be sent to workers: it captures 'lock'"):
        apply_by_multiprocessing(LONG, lambda row: lock, 2)


def test_exit_in_a_row_does_not_end_the_caller_silently():
    def func(row):
        raise SystemExit(f"leaving at {row.name}")

    with pytest.raises(SystemExit, match="leaving at r0"):
        apply_by_multiprocessing(LONG, func, 2)


# ---- workers that die


@pytest.mark.parametrize("executor", ["processes", "loky"])
def test_a_row_that_kills_its_worker_is_named(executor):
    def func(row):
        if row.name == "r150":
            os.kill(os.getpid(), signal.SIGKILL)
        return row["a"]

    with pytest.raises(WorkerLostError, match=r"in the row 'r150'.*killed by SIGKILL.*2 time"):
        apply_by_multiprocessing(LONG, func, 2, executor=executor)
    assert apply_by_multiprocessing(LONG, lambda row: row["a"], 2).tolist() == list(range(300))


def test_a_row_that_kills_its_worker_once_costs_nothing(tmp_path):
    """Out of memory beside a heavy neighbour, say: alone, the row goes through."""

    def func(row, folder):
        mark = Path(folder) / "been_here"
        if row.name == "r150" and len(list(mark.parent.iterdir())) < 2:
            mark.with_name(f"been_here_{time.monotonic_ns()}").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return row["a"]

    found = apply_by_multiprocessing(LONG, func, 2, args=(str(tmp_path),))
    assert found.tolist() == LONG["a"].tolist()
    assert len(list(tmp_path.iterdir())) == 2


def test_an_exception_before_a_row_that_kills_is_what_is_raised(monkeypatch):
    set_size(monkeypatch, 50)

    def func(row):
        if row.name == "r60":
            raise ValueError("this one")
        if row.name == "r70":
            os.kill(os.getpid(), signal.SIGKILL)
        return row["a"]

    with pytest.raises(ValueError, match="this one"):
        apply_by_multiprocessing(LONG, func, 2)

    def other(row):
        if row.name == "r70":
            raise ValueError("this one")
        if row.name == "r60":
            os.kill(os.getpid(), signal.SIGKILL)
        return row["a"]

    with pytest.raises(WorkerLostError, match="'r60'"):
        apply_by_multiprocessing(LONG, other, 2)


# ---- executors


@pytest.mark.slow
@pytest.mark.parametrize("executor", executors_here())
def test_every_executor_by_name(executor):
    by = 10
    check(LONG.iloc[:40], lambda row: row["a"] * by, executor=executor)


def test_executors_of_other_kinds():
    expected = LONG["a"].tolist()
    with ThreadPoolExecutor(2) as threads:
        assert apply_by_multiprocessing(LONG, lambda row: row["a"], executor=threads).tolist() == expected
    assert apply_by_multiprocessing(LONG, lambda row: row["a"], executor=SerialExecutor()).tolist() == expected


def test_inside_a_worker_it_runs_serially_with_one_warning():
    def outer(row):
        inner = pd.DataFrame({"x": range(3)})
        found = apply_by_multiprocessing(inner, lambda one: (one["x"] * 2, os.getpid()), 2)
        assert {pid for _, pid in found} == {os.getpid()}
        return sum(x for x, _ in found)

    with pytest.warns(ParfitWarning) as told:
        found = apply_by_multiprocessing(LONG.iloc[:5], outer, 2)
    assert found.tolist() == [6] * 5
    assert len(told) == 1
    assert "running serially" in str(told[0].message)


# ---- warnings and progress


def test_warnings_are_told_in_one():
    def func(row):
        warnings.warn(f"odd number {row['a'] % 5:g}", RuntimeWarning, stacklevel=1)
        return 1

    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        apply_by_multiprocessing(LONG, func, 2)
    assert [w.category for w in told] == [ParfitWarning]
    assert str(told[0].message).startswith("func gave warnings: RuntimeWarning: odd number ")
    assert str(told[0].message).count("(60)") == 3
    assert str(told[0].message).endswith("and 2 others")
    assert told[0].filename == __file__


def test_the_callers_filters_hold_in_the_workers():
    def func(row):
        warnings.warn("odd number", RuntimeWarning, stacklevel=1)
        return 1

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        apply_by_multiprocessing(LONG, func, 2)
    with pytest.raises(RuntimeWarning, match="odd number"):  # pytest's own filter: every warning is an error
        apply_by_multiprocessing(LONG, func, 2)


@pytest.mark.parametrize("executor", ["processes", "serial"])
def test_progress_counts_rows_to_the_last(executor):
    seen = []
    apply_by_multiprocessing(
        LONG, lambda row: 1, executor=executor, progress=lambda done, total: seen.append((done, total))
    )
    assert seen == sorted(seen)
    assert seen[-1] == (300, 300)
    seen.clear()
    apply_by_multiprocessing(LONG, lambda column: 1, axis=0, executor=executor, progress=lambda *at: seen.append(at))
    assert seen[-1] == (2, 2)


def test_progress_that_raises_does_not_end_the_run():
    def broken(done, total):
        raise OSError("the display is gone")

    with pytest.warns(ParfitWarning, match="progress raised OSError: the display is gone; the run goes on"):
        found = apply_by_multiprocessing(LONG, lambda row: row["a"], 2, progress=broken)
    assert found.tolist() == LONG["a"].tolist()


def test_nothing_is_written_where_nobody_watches(capfd):
    apply_by_multiprocessing(LONG.iloc[:4], lambda row: time.sleep(0.2), 2)
    assert capfd.readouterr() == ("", "")


def test_ctrl_c_stops_the_workers_and_the_next_call_works(tmp_path):
    """Sent to this process alone, as a notebook does."""

    def slow(row):
        (Path(tmp_path) / str(os.getpid())).touch()
        time.sleep(60)

    def interrupt():
        deadline = time.monotonic() + 30
        while len(list(tmp_path.iterdir())) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    waiting = threading.Thread(target=interrupt)
    waiting.start()
    with pytest.raises(KeyboardInterrupt):
        apply_by_multiprocessing(LONG, slow, 2)
    waiting.join()
    workers = [int(path.name) for path in tmp_path.iterdir()]
    assert len(workers) == 2
    assert not any(psutil.pid_exists(pid) for pid in workers)
    assert apply_by_multiprocessing(LONG, lambda row: row["a"], 2).tolist() == list(range(300))
