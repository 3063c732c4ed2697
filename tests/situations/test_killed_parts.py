"""A store in parts: ``kill -9`` of the process that fits, again and again; the next one goes on from what is there."""

from __future__ import annotations

import functools
import random
from collections import Counter

import pandas as pd
import pytest
from pandas.testing import assert_frame_equal

import parfit
from parfit import StoreError
from tests.programs import written
from tests.situations.test_killed import CHUNK, SCRIPT, WORKERS, run, whole_s

pytestmark = pytest.mark.slow

pytest.importorskip("pyarrow")

KILLS, PARTS = 10, 12


def parts(store):
    return list(store.glob("part-*.parquet"))


@pytest.mark.parametrize(("engine", "rows"), [("rows", 600), ("batch", 60_000)])
def test_a_killed_run_goes_on_where_it_was(tmp_path, engine, rows):
    if engine == "batch":
        pytest.importorskip("jax")
    small = f"import parfit\n    import parfit.fitting.parted as parted\n    parted.PART_ROWS = {rows // PARTS}\n"
    script = SCRIPT.replace("import parfit\n", small).replace("int(fits.success.sum())", "len(fits)")
    written(tmp_path, script)
    takes_s = whole_s(tmp_path, "parquet", engine, rows)
    store, draw = tmp_path / "fits.parquet", random.Random(1)
    done, killed = -1, 0
    for number in range(KILLS):
        after_s = draw.uniform(0, 0.12 if engine == "rows" else takes_s / PARTS)
        many = len(parts(store)) + (number % 3 > 0 and engine == "batch")
        come = functools.partial(lambda many: len(parts(store)) >= many, many)
        killed += run(tmp_path, store, engine, rows, number, after_s, come) is None
        try:
            fits = parfit.open_store(store)
        except StoreError:
            continue  # before there was one
        before, done = done, int(fits.counts.get("converged", 0))
        assert done >= before  # nothing that was there is lost
        assert sum(map(len, fits.frames())) == done
    assert killed >= KILLS // 3
    assert run(tmp_path, store, engine, rows, "last") is not None
    found, whole = pd.read_parquet(store), pd.read_parquet(tmp_path / "whole.parquet")
    drop = ["seconds", "attempts"]
    assert_frame_equal(found.drop(columns=drop), whole.drop(columns=drop), check_exact=True)
    assert [path.name for path in sorted(store.iterdir())] == [
        "_parfit.json",
        *(f"part-{i:05d}.parquet" for i in range(PARTS)),
    ]
    if engine == "rows":
        lines = (tmp_path / "seen").read_text().split("\n")[:-1]
        runs_of = Counter(line.split()[1] for line in set(lines))
        # What a worker had under way, and what it had sent since the last transaction: no whole parts.
        assert sum(count - 1 for count in runs_of.values()) <= killed * WORKERS * 2 * CHUNK
        assert len(runs_of) == rows
