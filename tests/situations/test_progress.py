"""A bar that hangs, lies, or ends the run: progress is counted in the parent, row by row, and decides nothing.

On a terminal the bar reaches its end whatever the rows did; where nobody watches, not a word is written.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
import threading
import warnings

import pandas as pd
import pytest

import parfit
from parfit import ParfitWarning
from parfit.stores import MemoryStore
from tests.programs import environment, written
from tests.situations.lines import START, assert_equal_but_for, lines, residuals

EVERYWHERE = ["serial", "threads", "processes", "multiprocessing", "loky", "joblib", "producer_consumer"]
ROWS = 30


def some_fail(p, row):
    if row.name == "r3":
        raise ValueError("no data")
    return residuals(p, row)


@pytest.fixture(scope="module")
def wanted():
    return parfit.fit(lines(ROWS), some_fail, START, executor="serial")


def workers_of(executor):
    return None if executor == "serial" else 2


# ---- counted here, row by row


@pytest.mark.parametrize("executor", EVERYWHERE)
def test_rows_are_counted_in_the_callers_thread_and_a_count_that_raises_ends_nothing(executor, wanted):
    seen = []

    def progress(done, total):
        seen.append((done, total, os.getpid(), threading.get_ident()))
        if done == 20:
            raise OSError("the display is gone")

    with pytest.warns(ParfitWarning, match="progress raised OSError: the display is gone") as told:
        fits = parfit.fit(
            lines(ROWS), some_fail, START, executor=executor, workers=workers_of(executor), progress=progress
        )
    assert seen == [(done, ROWS, os.getpid(), threading.get_ident()) for done in range(1, 21)]
    assert len(told) == 1
    assert_equal_but_for(fits, wanted, [])


@pytest.mark.parametrize("executor", ["serial", "processes"])
def test_what_is_counted_is_kept(executor, wanted):
    """A Ctrl-C that comes while the count is shown: as many rows are there as were counted, and none besides."""

    def progress(done, total):
        if done == 7:
            raise KeyboardInterrupt

    with pytest.raises(parfit.FitInterrupted, match="7 of 30 datasets done") as caught:
        parfit.fit(lines(ROWS), some_fail, START, executor=executor, workers=workers_of(executor), progress=progress)
    kept = caught.value.fits
    finished = kept.labels[kept.status != "not_run"]
    assert len(finished) == 7
    assert_equal_but_for(kept, wanted, [label for label in kept.labels if label not in finished])


def test_rows_that_are_there_already_are_counted_from_the_start():
    seen = []

    def progress(done, total):
        seen.append((done, total))
        if len(seen) == 12:
            raise KeyboardInterrupt

    given = {"executor": "serial", "progress": progress}
    with pytest.raises(parfit.FitInterrupted) as caught:
        parfit.fit(lines(ROWS), residuals, START, **given)
    store = MemoryStore(ROWS, 2, caught.value.fits.columns_copy())
    fits = parfit.fit(lines(ROWS), residuals, START, store=store, **given)
    assert seen == [(done, ROWS) for done in range(1, ROWS + 1)]
    assert fits.success.all()


def test_nobody_asks_the_bar_whether_the_run_is_done(monkeypatch):
    """A bar that counts nothing, or everything twice."""
    import tqdm

    for wrong in (0, 2):
        update = tqdm.tqdm.update
        with monkeypatch.context() as patch:
            patch.setattr(tqdm.tqdm, "update", lambda self, n=1, update=update, wrong=wrong: update(self, wrong * n))
            patch.setattr(sys, "stderr", io.StringIO())
            fits = parfit.fit(lines(6), residuals, START, executor="serial", progress=True)
        assert fits.success.all()


# ---- streams of every kind


class GoneTerminal(io.StringIO):
    """A terminal that was closed, as when a connection is lost."""

    def isatty(self):
        return True

    def write(self, text):
        raise OSError("Input/output error")


class BarelyAStream:
    """What editors and loggers put in place of standard error."""

    def write(self, text):
        return len(text)

    def flush(self):
        pass


class UnwillingStream(io.StringIO):
    def isatty(self):
        raise ValueError("I/O operation on closed file")


def closed():
    stream = io.StringIO()
    stream.close()
    return stream


STREAMS = {
    "gone": GoneTerminal,
    "barely": BarelyAStream,
    "unwilling": UnwillingStream,
    "closed": closed,
    "none": lambda: None,
}


@pytest.mark.parametrize("progress", [None, True])
@pytest.mark.parametrize("stream", STREAMS)
def test_a_standard_error_that_cannot_be_drawn_on_ends_nothing(stream, progress, monkeypatch):
    seen = []

    def slow_at_first(p, row):
        if not seen:
            seen.append(threading.Event().wait(0.6))  # beyond the delay after which a bar appears by itself
        return residuals(p, row)

    with warnings.catch_warnings(record=True) as told, monkeypatch.context() as patch:
        warnings.simplefilter("always")
        patch.setattr(sys, "stderr", STREAMS[stream]())
        fits = parfit.fit(lines(6), slow_at_first, START, executor="serial", progress=progress)
        found = parfit.apply_by_multiprocessing(
            pd.DataFrame({"a": range(3)}), lambda row: row["a"] + 1, executor="serial", progress=progress
        )
    assert fits.success.all()
    assert found.tolist() == [1, 2, 3]
    assert {w.category for w in told} <= {ParfitWarning}
    assert all("the run goes on without it" in str(w.message) for w in told)


@pytest.mark.parametrize("executor", ["serial", "processes"])
def test_not_a_word_where_nobody_watches(executor, capfd):
    def slow(p, row):
        if p["height"] == START["height"] and row.name in ("r0", "r1"):
            threading.Event().wait(0.4)
        return residuals(p, row)

    parfit.fit(lines(6), slow, START, executor=executor, workers=workers_of(executor))
    assert capfd.readouterr() == ("", "")


# ---- where somebody watches

WATCHED = """
    import os, sys, time, numpy as np, pandas as pd, parfit
    assert sys.stderr.isatty()
    executor = sys.argv[1]
    df = pd.DataFrame({"a": np.arange(8.0)})
    def objective(p, row):
        time.sleep(0.05)
        if row.name == 2 and executor == "processes":
            os._exit(3)
        if row.name == 3:
            raise ValueError("no data")
        return p - row.to_numpy()
    fits = parfit.fit(df, objective, [0.0], executor=executor, retries=0)
    print("done", int(fits.success.sum()), file=sys.stderr)
"""


@pytest.mark.parametrize(("executor", "fitted"), [("serial", 7), ("processes", 6)])
def test_a_bar_on_a_terminal_ends_at_the_last_row_whatever_the_rows_did(executor, fitted, tmp_path):
    pty, termios = pytest.importorskip("pty"), pytest.importorskip("termios")
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 100))
    process = subprocess.Popen(
        [sys.executable, str(written(tmp_path, WATCHED)), executor],
        env=environment(TERM="xterm"),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        cwd=tmp_path,
    )
    os.close(theirs)
    try:
        shown = read_to_the_end(ours)
    finally:
        os.close(ours)
        process.wait(100)
    assert process.returncode == 0, shown
    assert "8/8" in shown
    assert "100%" in shown
    assert shown.rstrip().endswith(f"done {fitted}")


def read_to_the_end(descriptor):
    shown = b""
    while True:
        try:
            got = os.read(descriptor, 4096)
        except OSError:  # the other side is closed
            got = b""
        if not got:
            return shown.decode()
        shown += got
