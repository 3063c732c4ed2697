"""A call with a store that is a folder of Parquet files, of small parts, and the table that it is to have."""

from __future__ import annotations

import warnings

import pandas as pd
from pandas.testing import assert_frame_equal

import parfit
from tests.stores.test_resume import START, residuals

#: Rows to a part.
PART = 10


class Interrupting:
    """A Ctrl-C after so many datasets."""

    def __init__(self, after):
        self.after = after

    def __call__(self, done, total):
        if done >= self.after:
            raise KeyboardInterrupt


def fit(data, store, objective=residuals, x0=START, **more):
    more.setdefault("engine", "rows")
    if more["engine"] == "rows":
        more.setdefault("executor", "serial")
    return parfit.fit(data, objective, x0, store=store, **more)


def whole(data, objective=residuals, x0=START, **more):
    """The table of a call that keeps all in memory."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", parfit.ParfitWarning)
        return fit(data, None, objective, x0, **more).to_frame()


def table(folder):
    return pd.read_parquet(folder)


def assert_same_table(a, b):
    drop = ["seconds", "attempts"]
    assert_frame_equal(a.drop(columns=drop), b.drop(columns=drop), check_exact=True)


def names(folder):
    return sorted(path.name for path in folder.iterdir())
