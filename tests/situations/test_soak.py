"""Five hundred cheap rows through each local executor, some of which raise, hang or kill their worker."""

from __future__ import annotations

import warnings

import pytest

pytestmark = pytest.mark.slow

soaking = pytest.importorskip("benchmarks.soak", reason="the benchmarks are not here")
LOCAL = ["processes", "serial", "threads", "multiprocessing", "loky", "joblib", "producer_consumer"]


@pytest.mark.parametrize("executor", LOCAL)
def test_every_row_is_accounted_for_and_nothing_grows(executor):
    """`benchmarks/soak.py` does it for 200,000 rows."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        done = soaking.soak(executor, 500)
    assert done.wrong == 0, done.found
    assert done.found.total() == 500
    assert done.left == []
    assert done.sizes[-1] - done.sizes[1] < 30e6
    assert max(done.descriptors[1:]) - done.descriptors[1] <= 12  # two workers, one of which was being replaced then
