"""A model that writes into its input works alike in serial and in parallel; read-only arrays are no trouble."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

import parfit
from tests.situations.lines import START, T, lines, table

ELSEWHERE = ["threads", "processes", "multiprocessing", "loky", "joblib", "producer_consumer"]


def given(form: str) -> tuple[Any, pd.DataFrame]:
    """The data in some form, and the frame that it is made from."""
    frame = lines(10)
    array = frame.to_numpy(copy=True)
    if form == "mixed_frame":
        return frame.astype({"t0": int}), frame
    if form == "read_only_array":
        array.flags.writeable = False
    if form == "read_only_views":
        array.flags.writeable = False
        return list(array), frame
    if form in ("array", "read_only_array"):
        return array, frame
    if form == "groups":
        return frame.melt(ignore_index=False, value_name="y").groupby(level=0, sort=False), frame
    return frame, frame


def overwriting(p: Any, dataset: Any, form: str) -> Any:
    y = np.array(dataset["y"] if form == "groups" else dataset, dtype=float).ravel()[: len(T)]
    r = p["height"] + p["slope"] * T - y
    if form == "groups":
        dataset.loc[:, "y"] = 7.0
    elif form == "frame":
        dataset.iloc[:] = 7.0
    elif form == "values":
        values = dataset.to_numpy()
        if values.flags.writeable:
            values[:] = 7.0
    elif form == "mixed_frame":
        dataset["t0"] = 7.0
    else:
        dataset[:] = 7.0
    p["height"] = 7.0
    return r


FORMS = ["frame", "values", "mixed_frame", "array", "read_only_array", "read_only_views", "groups"]


@pytest.mark.parametrize("form", FORMS)
def test_a_model_that_writes_into_its_input_works_alike_in_serial_and_in_parallel(form):
    """joblib#513, pandarallel#277, scikit-learn#5956: workers were handed read-only memory."""
    data, frame = given(form)
    before = frame.copy()
    wanted = parfit.fit(data, overwriting, dict(START), args=(form,), executor="serial", method="lm")
    for executor in ("processes", "threads", "producer_consumer"):
        made = parfit.fit(data, overwriting, dict(START), args=(form,), executor=executor, workers=2, method="lm")
        pd.testing.assert_frame_equal(table(made), table(wanted), check_exact=True)
    pd.testing.assert_frame_equal(frame, before)
    pd.testing.assert_frame_equal(frame, lines(10))


@pytest.mark.parametrize("executor", ELSEWHERE)
def test_large_rows_that_others_would_map_are_written_into_all_the_same(executor):
    """scikit-learn#5956: arrays of more than a megabyte were handed to workers as read-only maps."""
    data = np.tile(np.arange(4.0)[:, None], (1, 200_000))
    data.flags.writeable = False

    def scaled(p: Any, y: Any) -> Any:
        r = p[0] - y[[0, -1]]
        y *= 2.0
        return r

    fits = parfit.fit(data, scaled, [1.0], executor=executor, workers=2, method="trf", options={"max_nfev": 3})
    alone = parfit.fit(data, scaled, [1.0], executor="serial", method="trf", options={"max_nfev": 3})
    pd.testing.assert_frame_equal(table(fits), table(alone), check_exact=True)
    assert (data == np.arange(4.0)[:, None]).all()


@pytest.mark.parametrize("executor", [*ELSEWHERE, "serial"])
def test_read_only_arguments_stay_so_everywhere(executor):
    shared = np.arange(200_000.0)
    shared.flags.writeable = False

    def greedy(p: Any, row: Any, shared: Any) -> Any:
        shared[0] = 7.0
        return p["height"] * row.to_numpy()

    with pytest.warns(parfit.ParfitWarning, match="every dataset raised ValueError.*read-only"):
        fits = parfit.fit(lines(4), greedy, START, args=(shared,), executor=executor)
    assert set(fits.errors["type"]) == {"ValueError"}
    assert shared[0] == 0.0
