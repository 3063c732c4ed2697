"""Warnings that vanish in workers: each is kept with its row, and one summary is given, whatever runs the rows."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

import parfit
from parfit import ParfitWarning
from tests.programs import started
from tests.situations.lines import START, lines, residuals

EVERYWHERE = ["serial", "threads", "processes", "multiprocessing", "loky", "joblib", "producer_consumer"]
ODD = ["r1", "r3", "r5", "r7", "r9"]


def warns(p: Any, row: Any) -> Any:
    if row.name in ODD:
        warnings.warn("an odd row", UserWarning, stacklevel=1)  # the same text, from the same line, each time
    if row.name == "r4":
        np.log(-1.0)
    return residuals(p, row)


@pytest.mark.parametrize("executor", EVERYWHERE)
def test_warnings_are_kept_by_row_and_told_in_one(executor):
    """joblib#1591, sktime#10883: the default filters show a warning once, and then for the first row only."""
    workers = None if executor == "serial" else 2
    with warnings.catch_warnings(record=True) as told:
        warnings.resetwarnings()
        warnings.simplefilter("default")
        fits = parfit.fit(lines(10), warns, START, executor=executor, workers=workers, chunk_size=3)
    assert [w.category for w in told] == [ParfitWarning]
    text = str(told[0].message)
    assert "6 of 10 datasets gave warnings" in text
    assert "UserWarning: an odd row (5)" in text
    assert "RuntimeWarning: invalid value encountered in log (1)" in text
    kept = fits.warnings
    assert sorted(kept["label"]) == sorted([*ODD, "r4"])
    assert set(kept["message"][kept["category"] == "UserWarning"]) == {"an odd row"}
    assert (kept["count"].to_numpy() == fits.summary.loc[kept["label"], "nfev"].to_numpy()).all()
    assert fits.success.all()


@pytest.mark.parametrize("executor", ["serial", "processes", "loky"])
def test_warnings_that_nobody_wants_are_not_kept(executor):
    workers = None if executor == "serial" else 2
    with warnings.catch_warnings(record=True) as told:
        warnings.resetwarnings()
        warnings.filterwarnings("ignore", message="an odd row")
        warnings.filterwarnings("ignore", category=RuntimeWarning)
        fits = parfit.fit(lines(10), warns, START, executor=executor, workers=workers)
    assert told == []
    assert len(fits.warnings) == 0


def test_a_refit_tells_of_its_own_rows_only():
    with pytest.warns(ParfitWarning, match="6 of 10 datasets"):
        fits = parfit.fit(lines(10), warns_quietly, START, executor="serial")
    with pytest.warns(ParfitWarning, match="1 of 2 datasets gave warnings .* an odd row"):
        again = fits.refit(["r1", "r2"])
    assert sorted(set(again.warnings["label"])) == sorted([*ODD, "r4"])
    assert (again.warnings["label"] == "r1").sum() == 1


def warns_quietly(p: Any, row: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        return warns(p, row)


SCRIPT = """
    import warnings
    import numpy as np, pandas as pd, parfit
    df = pd.DataFrame({"a": np.arange(6.0)})
    def objective(p, row):
        warnings.warn("thin data", RuntimeWarning, stacklevel=1)
        return p - row.to_numpy()
    fits = parfit.fit(df, objective, [0.0], workers=2)
    print(len(fits.warnings), fits.success.all())
"""


def test_what_is_printed_is_one_warning(tmp_path):
    with started(tmp_path, SCRIPT) as process:
        printed, complaints = process.communicate(timeout=100)
    assert printed == "6 True\n"
    assert complaints.count("thin data (6)") == 1
    assert complaints.count("Warning: ") == 2  # of parfit's own kind, and within it the one that was given
    assert complaints.startswith(f"{tmp_path / 'script.py'}:8: ParfitWarning: 6 of 6 datasets gave warnings")
