"""A call with a store on disk: what is done is not done again, and what is something else is refused."""

from __future__ import annotations

import contextlib
import datetime
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pandas.testing import assert_frame_equal, assert_index_equal

import parfit
from parfit import InvalidInputError, InvalidTypeError, StoreError, StoreMismatchError
from parfit.solvers import LeastSquares
from parfit.stores import sqlite
from parfit.stores.reading import PAGE

T = np.linspace(0, 4, 15)
START = {"height": 1.0, "rate": 1.0}


def decays(n: int = 12) -> pd.DataFrame:
    rng = np.random.default_rng(3)
    height, rate = rng.uniform(1, 3, (200, 1)), rng.uniform(0.3, 1, (200, 1))
    clean = height * np.exp(-rate * T)
    made = pd.DataFrame(clean + 0.01 * rng.normal(size=clean.shape), index=[f"r{i}" for i in range(200)])
    return made.iloc[:n].copy()


def residuals(p, row):
    return p["height"] * np.exp(-p["rate"] * T) - row.to_numpy()


def with_trouble(p, row):
    if row.name == "r2":
        raise ValueError("no data")
    if row.name == "r4":
        warnings.warn("odd", RuntimeWarning, stacklevel=1)
    return residuals(p, row)


class Counting:
    """How many datasets a call fits, by its progress."""

    def __init__(self):
        self.done = []

    def __call__(self, done, total):
        self.done.append(done)

    @property
    def fitted(self):
        return len(self.done)


def assert_same_fits(a, b, *, seconds=True):
    drop = [] if seconds else ["seconds"]
    assert_index_equal(a.labels, b.labels)
    assert_frame_equal(a.params, b.params, check_exact=True)
    assert_frame_equal(a.stderr, b.stderr, check_exact=True)
    assert_frame_equal(a.summary.drop(columns=drop), b.summary.drop(columns=drop), check_exact=True)
    assert_frame_equal(a.errors, b.errors)
    assert_frame_equal(a.warnings, b.warnings)


@pytest.fixture(params=["rows", "batch"])
def engine(request):
    if request.param == "batch":
        pytest.importorskip("jax")
    return request.param


@pytest.fixture
def file(tmp_path):
    return tmp_path / "fits.db"


def fit(data, file, objective=residuals, x0=START, **more):
    more.setdefault("engine", "rows")
    if more["engine"] == "rows":
        more.setdefault("executor", "serial")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*gave warnings")
        return parfit.fit(data, objective, x0, store=file, **more)


def test_the_same_call_again_fits_nothing(engine, file):
    count = Counting()
    first = fit(decays(), file, engine=engine)
    again = fit(decays(), file, engine=engine, progress=count)
    assert_same_fits(again, first)
    assert again.engine == engine
    assert count.fitted <= 1


def test_only_what_is_missing_is_fitted_and_the_table_is_that_of_one_call(engine, file, tmp_path):
    whole = fit(decays(40), tmp_path / "other.db", engine=engine)
    fit(decays(40).iloc[:25], file, engine=engine)
    found = fit(decays(40), file, engine=engine)
    assert_same_fits(found, whole, seconds=False)


def test_groups_of_unequal_length_have_the_same_bits_whatever_is_missing(engine, file, tmp_path):
    rng = np.random.default_rng(0)
    lengths = [3, 40, 5, 9, 70, 4]
    frame = pd.concat(
        [pd.DataFrame({"g": i, "t": rng.uniform(0, 4, m), "y": rng.uniform(1, 2, m)}) for i, m in enumerate(lengths)]
    )

    def objective(p, group):
        return p["height"] * np.exp(-p["rate"] * group["t"].to_numpy()) - group["y"].to_numpy()

    whole = fit(frame.groupby("g"), tmp_path / "whole.db", objective, engine=engine)
    store = tmp_path / "part.db"
    fit(frame.groupby("g"), store, objective, engine=engine)
    changed = frame.assign(y=frame["y"].where(frame["g"] != 0, 1.5))
    fit(changed.groupby("g"), store, objective, engine=engine)
    assert_same_fits(fit(frame.groupby("g"), store, objective, engine=engine), whole, seconds=False)


def test_errors_warnings_and_histories_are_kept(file):
    first = fit(decays(), file, with_trouble, history=True)
    again = fit(decays(), file, with_trouble, history=True)
    assert_same_fits(again, first)
    assert "ValueError: no data" in again.errors["traceback"].iloc[0]
    assert_frame_equal(again.history, first.history)


def test_failed_datasets_are_fitted_again_only_where_that_is_asked(file, tmp_path):
    mended = tmp_path / "mended"

    def objective(p, row):
        if row.name == "r2" and not os.path.exists(mended):
            raise ValueError("no data")
        return residuals(p, row)

    first = fit(decays(), file, objective)
    mended.touch()
    assert_same_fits(fit(decays(), file, objective), first)
    found = fit(decays(), file, objective, retry_failed=True)
    assert found.success.all()
    assert not len(found.errors)
    assert_same_fits(fit(decays(), file, objective), found)


@pytest.mark.parametrize("warm", [False, True])
def test_changed_datasets_are_fitted_again(engine, file, tmp_path, warm):
    old = fit(decays(), file, engine=engine)
    data = decays()
    data.loc["r3"] *= 1.001
    found = fit(data, file, engine=engine, warm_start=warm)
    assert (found.params != old.params).any(axis=1).to_numpy().nonzero()[0].tolist() == [3]
    anew = fit(data, tmp_path / "anew.db", engine=engine)
    np.testing.assert_allclose(found.params, anew.params, rtol=1e-5)
    fewer = found.summary.loc["r3", "nfev"] < anew.summary.loc["r3", "nfev"]
    assert fewer == warm


def test_data_may_grow_and_shrink(file):
    fit(decays(12), file)
    assert len(fit(decays(20), file)) == 20
    assert len(fit(decays(5), file)) == 5
    count = Counting()
    assert fit(decays(20), file, progress=count).success.all()
    assert count.fitted <= 1


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"objective": lambda p, row: 2 * residuals(p, row)}, "objective was residuals and is .*<lambda>"),
        ({"x0": {"height": 2.0, "rate": 1.0}}, r"x0 was \{'height': 1.0, 'rate': 1.0\} and is \{'height': 2.0"),
        ({"x0": {"height": 2.0, "k": 1.0}}, "other parameters: in these 'rate' is missing, 'k' is new;"),
        ({"bounds": {"rate": (0, 5)}}, r"bounds was None and is \{'rate': \(0, 5\)\}"),
        ({"fixed": ["rate"]}, "fixed was .* and is "),
        ({"method": "trf"}, "method was None and is 'trf'"),
        ({"options": {"ftol": 1e-4}}, r"options was None and is \{'ftol': 0.0001\}"),
        ({"seed": 7}, "seed was 0 and is 7"),
        ({"args": (np.zeros(500),)}, "args was none and is ndarray"),
        ({"seed": 7, "method": "trf"}, "method was None and is 'trf'; seed was 0 and is 7"),
    ],
)
def test_another_call_is_refused_by_what_differs(file, change, text):
    first = fit(decays(), file)
    objective = lambda p, row, extra: residuals(p, row)  # noqa: E731
    if "args" in change:
        change = {**change, "objective": objective}
    with pytest.raises(StoreMismatchError, match=text):
        fit(decays(), file, **change)
    assert_same_fits(parfit.open_store(file), first)  # nothing was lost


def test_neither_the_file_nor_the_message_shows_args(file):
    def objective(p, row, times, patient):
        return residuals(p, row)

    fit(decays(), file, objective, args=(np.array([123.25]), "patient 4711"))
    with pytest.raises(StoreMismatchError, match="args is another") as caught:
        fit(decays(), file, objective, args=(np.array([123.25]), "patient 4712"))
    for text in (str(caught.value), file.read_bytes().decode("latin-1")):
        assert "123.25" not in text
        assert "patient 471" not in text


def test_a_constant_of_the_objective_counts(file):
    scale = 1.0

    def objective(p, row):
        return scale * residuals(p, row)

    fit(decays(), file, objective)
    fit(decays(), file, objective)
    scale = 2.0
    with pytest.raises(StoreMismatchError, match="objective is another"):
        fit(decays(), file, objective)


def test_no_options_are_none(file):
    fit(decays(), file)
    count = Counting()
    fit(decays(), file, options={}, progress=count)
    assert count.fitted <= 1


def test_the_options_of_a_solver_count(file):
    fit(decays(), file, method=LeastSquares("trf", {"ftol": 1e-8}))
    fit(decays(), file, method=LeastSquares("trf", {"ftol": 1e-8}))
    with pytest.raises(StoreMismatchError, match="options is another"):
        fit(decays(), file, method=LeastSquares("trf", {"ftol": 1e-3}))


CALLS = 0


def counting(p, row):
    global CALLS
    CALLS += 1
    return residuals(p, row)


def test_what_makes_an_objective_another_is_named(file, tmp_path):
    fit(decays(), file, counting)
    with pytest.raises(StoreMismatchError, match=r"objective is another \(its global `CALLS` is\)"):
        fit(decays(), file, counting)
    scale, other = 1.0, np.ones(3)

    def objective(p, row, power=1):
        return scale * residuals(p, row) ** power * other.sum()

    store = tmp_path / "closure.db"
    fit(decays(), store, objective)
    scale = 2.0
    with pytest.raises(StoreMismatchError, match=r"objective is another \(`scale` of its closure is\)"):
        fit(decays(), store, objective)


def test_what_cannot_be_known_again_is_refused_by_name(file):
    nested = []
    for _ in range(5000):
        nested = [nested]
    with pytest.raises(InvalidInputError, match="args: a tuple is nested too deeply to be known again"):
        fit(decays(), file, lambda p, row, extra: residuals(p, row), args=(nested,))


def test_where_and_how_fast_it_runs_does_not_count(file):
    first = fit(decays(), file)
    again = fit(decays(), file, executor="threads", workers=2, chunk_size=3, retries=0, timeout=None)
    assert_same_fits(again, first)


def test_the_other_engine_does_not_go_on(file):
    pytest.importorskip("jax")
    fit(decays(10), file, engine="batch")
    for n in (12, 10):  # also where nothing is left to fit
        with pytest.raises(StoreMismatchError, match="holds fits of engine 'batch', and this call would go on with 'r"):
            fit(decays(n), file, engine="rows")


def test_other_data_are_refused(file):
    fit(decays(), file)
    with pytest.raises(StoreMismatchError, match="other data: none of its 12 rows"):
        fit(decays() * 2, file)


def test_overwriting_begins_anew(file):
    fit(decays(), file)
    found = fit(decays() * 2, file, overwrite=True, method="trf")
    assert found.success.all()
    assert_same_fits(parfit.open_store(file), found)


def test_a_file_that_is_something_else_is_left_as_it_is(file):
    content = b"a,b\n1,2\n" * 100
    file.write_bytes(content)
    for overwrite in (False, True):
        with pytest.raises(StoreError, match=r"no store of parfit's|is a SQLite file"):
            fit(decays(), file, overwrite=overwrite)
    assert file.read_bytes() == content


def test_a_database_of_something_else_is_left_as_it_is(file):
    with contextlib.closing(sqlite3.connect(file)) as other:
        other.execute("create table mine (a)")
    content = file.read_bytes()
    for overwrite in (False, True):
        with pytest.raises(StoreError, match="no store of parfit's"):
            fit(decays(), file, overwrite=overwrite)
    with pytest.raises(StoreError, match="no store of parfit's"):
        parfit.open_store(file)
    assert file.read_bytes() == content


def test_an_empty_file_becomes_a_store(file):
    file.touch()
    fit(decays(), file)
    assert parfit.open_store(file).success.all()


def test_what_a_process_had_just_made_when_it_died_becomes_a_store(file):
    with contextlib.closing(sqlite3.connect(file)) as other:
        other.execute(f"pragma page_size = {PAGE}")
        other.execute("pragma journal_mode = wal")
    assert file.stat().st_size
    fit(decays(), file)
    assert parfit.open_store(file).success.all()


def test_a_store_of_each_argument_needs_a_path():
    for name in ("retry_failed", "warm_start", "overwrite"):
        with pytest.raises(InvalidInputError, match=f"{name}=True is for a store on disk"):
            parfit.fit(decays(), residuals, START, **{name: True})
    with pytest.raises(InvalidTypeError, match="store must be a path"):
        parfit.fit(decays(), residuals, START, store=3)


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(StoreError, match="cannot be written"):
        fit(decays(), tmp_path / "nowhere" / "fits.db")


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_where_nothing_can_be_written(tmp_path, file):
    first = fit(decays(), file)
    tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    try:
        with pytest.raises(StoreError, match="cannot be written"):
            fit(decays(), tmp_path / "more.db")
        assert_same_fits(parfit.open_store(file), first)
    finally:
        tmp_path.chmod(stat.S_IRWXU)


# ---- what a store holds, without the call


@pytest.mark.parametrize(
    "labels",
    [
        pd.RangeIndex(3, 12, 3, name="row"),
        pd.Index([1.5, np.nan, np.inf]),
        pd.Index([1, "a", None], dtype=object),
        pd.Index(["a", "a", "ü"], name="dup"),
        pd.Index([("a", 1), ("b", 2), "c"], dtype=object, tupleize_cols=False),
        pd.MultiIndex.from_tuples([("a", 1), ("b", 2), ("b", 3)], names=["g", None]),
        pd.date_range("2020-03-28", periods=3, tz="Europe/Berlin"),
        pd.DatetimeIndex(["2020-01-01", None, "2021-01-01"], name="day"),
        pd.to_timedelta([1, 2, 3], unit="h"),
        pd.CategoricalIndex(["x", "y", "x"], categories=["y", "x", "z"], ordered=True),
        pd.Index([True, False, True]),
        pd.period_range("2020-01", periods=3, freq="M", name="month"),
        pd.IntervalIndex.from_breaks([0.0, 1.5, 3.0, np.inf], closed="left"),
        pd.cut([0.5, 2.0, 0.7], [0, 1, 3]),
        pd.Index([datetime.date(2020, 1, 1), datetime.datetime(2020, 1, 1, 12), datetime.time(8, 30)], dtype=object),
        pd.Index([b"a", b"\xff", "a"], dtype=object),
        pd.Index([pd.Period("2020", "Y"), pd.Interval(0, 1), pd.NaT], dtype=object),
    ],
    ids=lambda labels: f"{type(labels).__name__}-{labels.dtype}",
)
def test_labels_come_back(file, labels):
    data = decays(3).set_axis(pd.Index(labels))
    fit(data, file)
    found = parfit.open_store(file).labels
    assert_index_equal(found, data.index, exact="equiv", check_names=True)
    assert list(map(type, found)) == list(map(type, data.index))


@pytest.mark.parametrize(
    "x0",
    [
        [1.0, 1.0],
        {"a": [1.0, 2.0], "b": {"c": 1.0}},
        (1.0, np.ones((2, 2))),
        pd.Series([1.0, 2.0], index=["a", "b"]),
        pd.DataFrame({"value": [1.0, 2.0]}, index=["a", "b"]),
    ],
    ids=lambda x0: type(x0).__name__,
)
def test_parameters_come_back_in_their_structure(file, x0):
    jax_free = lambda p, row: np.ones(6) * sum(np.sum(np.ravel(v)) for v in _leaves(p)) - row.to_numpy()[:6]  # noqa: E731
    first = fit(decays(3), file, jax_free, x0)
    found = parfit.open_store(file)
    assert_frame_equal(found.params, first.params)
    if not isinstance(x0, pd.DataFrame):
        assert type(found["r0"].x) is type(first["r0"].x)
        assert str(found["r0"].x) == str(first["r0"].x)


def _leaves(p):
    if isinstance(p, pd.DataFrame):
        return [p["value"].to_numpy()]
    if isinstance(p, dict):
        return [leaf for value in p.values() for leaf in _leaves(value)]
    return [leaf for value in p for leaf in _leaves(value)] if isinstance(p, (tuple, list)) else [np.asarray(p)]


def test_what_an_open_store_cannot_do_it_says(file):
    fit(decays(), file)
    found = parfit.open_store(file)
    with pytest.raises(InvalidInputError):
        found.refit()
    assert "12 fits of 2 parameters" in repr(found)


def test_no_store_is_there(tmp_path):
    with pytest.raises(StoreError, match="there is no store"):
        parfit.open_store(tmp_path / "fits.db")


def test_a_store_holds_no_data_and_no_pickles(file):
    data = decays()
    data.iloc[0, 3] = secret = 1234567.8901234
    fit(data, file)
    content = file.read_bytes()
    assert np.float64(secret).tobytes() not in content
    assert b"1234567" not in content
    assert b"\x80\x04\x95" not in content  # how pickles begin
    assert b"\x80\x05\x95" not in content


# ---- two at a time


def test_a_store_is_read_while_it_is_written(file):
    seen = []

    def look(done, total):
        if done == 8:
            import time

            time.sleep(0.5)
            seen.append(parfit.open_store(file))

    first = fit(decays(), file, progress=look)
    (found,) = seen
    assert 1 <= int(found.success.sum()) <= 12
    assert (found.status == "not_run").sum() == 12 - found.success.sum()
    done = found.success.to_numpy()
    assert_frame_equal(found.params[done], first.params[done])


def test_a_second_call_on_one_store_is_refused(file):
    told = []

    def other(done, total):
        if not told:
            try:
                fit(decays(), file)
            except StoreError as exc:
                told.append(str(exc))

    fit(decays(), file, progress=other)
    assert "is being written by another call in this process" in told[0]
    fit(decays(), file)


# ---- damage


def spread(file: Path) -> None:
    """A store of many blocks, so that one can be lost."""
    import parfit.stores.sqlite as sqlite

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sqlite, "_BLOCKS", 10_000)
        patch.setattr(sqlite, "_BURST_S", 0)
        patch.setattr(sqlite, "_LONGEST_REST_S", 0)
        fit(decays(200), file)


def test_a_flipped_byte_costs_a_block(file):
    spread(file)
    whole = parfit.open_store(file)
    content = bytearray(file.read_bytes())
    at = content.index(np.float64(whole.params.iloc[100, 0]).tobytes())
    content[at] ^= 1
    file.write_bytes(content)
    text = r"fits\.db is damaged: of its blocks of rows \d+ can be read, and 1 or more cannot"
    with pytest.warns(parfit.ParfitWarning, match=text):
        left = parfit.open_store(file)
    assert 0 < int(left.success.sum()) < 200
    with pytest.raises(StoreMismatchError, match="seed"):
        fit(decays(200), file, seed=3)
    assert file.read_bytes() == bytes(content)  # a refusal leaves it as it is
    with pytest.warns(parfit.ParfitWarning, match=text):
        found = fit(decays(200), file)
    assert_same_fits(found, whole, seconds=False)
    assert file.with_name("fits.db.damaged").read_bytes() == bytes(content)
    assert_same_fits(fit(decays(200), file), found)


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9, 0.999])
def test_a_truncated_file_keeps_what_is_sound(file, share):
    spread(file)
    whole = parfit.open_store(file)
    content = file.read_bytes()
    file.write_bytes(content[: int(share * len(content))])
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", parfit.ParfitWarning)
            found = fit(decays(200), file)
    except StoreError as exc:
        assert "is damaged" in str(exc)  # noqa: PT017
        found = fit(decays(200), file, overwrite=True)
    assert_same_fits(found, whole, seconds=False)


def test_any_flipped_bit_is_harmless_reported_or_refused(file):
    spread(file)
    whole = parfit.open_store(file)
    content = file.read_bytes()
    rng = np.random.default_rng(0)
    page = PAGE
    places = [*rng.integers(0, len(content), 60), *range(page - 40, page, 3), *range(page, len(content), page)]
    for at in map(int, places):
        changed = bytearray(content)
        changed[at] ^= 1 << int(rng.integers(8))
        file.write_bytes(changed)
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            try:
                found = parfit.open_store(file)
            except StoreError:
                continue
        if not found.params.equals(whole.params):
            assert told, at
            done = found.success.to_numpy()
            assert_frame_equal(found.params[done], whole.params[done], check_exact=True)


def test_rows_beyond_the_data_stay(file):
    spread(file)
    whole = parfit.open_store(file)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("parfit.stores.sqlite._BLOCKS", 1)
        fit(decays(10), file)
    count = Counting()
    assert_same_fits(fit(decays(200), file, progress=count), whole)
    assert count.fitted <= 1


def test_a_link_is_the_file(file, tmp_path):
    fit(decays(), file)
    link = tmp_path / "link.db"
    link.symlink_to(file)
    told = []

    def other(done, total):
        if not told:
            with pytest.raises(StoreError, match="is being written") as caught:
                fit(decays(20), link)
            told.append(caught)

    fit(decays(20), file, progress=other)
    assert told
    fit(decays(), link, overwrite=True)
    assert link.is_symlink()


def test_a_file_that_is_removed_meanwhile(file):
    with pytest.raises(StoreError, match="was removed while it was written") as caught:
        fit(
            decays(), file, progress=lambda done, total: [f.unlink() for f in file.parent.glob("fits.db*") if done == 5]
        )
    assert caught.value.fits.success.all()


def test_no_datasets(file):
    for _ in range(2):
        assert len(fit(decays(0), file)) == 0


@pytest.mark.parametrize("name", ["", ".", "a\0b"])
def test_a_name_that_is_none(name):
    with pytest.raises(InvalidInputError, match="is no name of a file"):
        fit(decays(), name)


@pytest.mark.parametrize(
    "freq", [pd.offsets.DateOffset(months=1), pd.offsets.CustomBusinessDay(holidays=["2020-04-01"])]
)
def test_labels_of_odd_frequencies(file, freq):
    index = pd.date_range("2020-03-30", periods=3, freq=freq)
    fit(decays(3).set_axis(index), file)
    assert list(parfit.open_store(file).labels) == list(index)


def test_a_copy_is_a_store(file, tmp_path):
    first = fit(decays(), file)
    copy = tmp_path / "copy.db"
    shutil.copy(file, copy)
    assert_same_fits(parfit.open_store(copy), first)
    assert_same_fits(fit(decays(), copy), first)


# ---- a full disk


def full_at(patch, pages: int) -> None:
    """Files that cannot grow beyond so many pages, as on a full disk."""
    plain = sqlite.connected

    def small(path, *, anew):
        file = plain(path, anew=anew)
        file.execute(f"pragma max_page_count = {pages}")
        return file

    patch.setattr(sqlite, "connected", small)


@pytest.mark.slow
def test_a_full_disk_costs_no_fit(engine, file, tmp_path):
    many = pd.concat([decays(200)] * 20)
    whole = fit(many, tmp_path / "whole.db", engine=engine)
    with pytest.MonkeyPatch.context() as patch:
        full_at(patch, 12)
        executor = "serial" if engine == "rows" else None
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            with pytest.raises(
                StoreError, match=r"rows could not be written to .*: database or disk is full"
            ) as caught:
                parfit.fit(many, residuals, START, store=file, engine=engine, executor=executor)
    if engine == "rows" or told:  # a batch may be through before
        (text,) = (str(one.message) for one in told)
        assert "cannot be written (database or disk is full): fitting goes on" in text
    assert_same_fits(caught.value.fits, whole, seconds=False)
    left = parfit.open_store(file)
    assert not left.success.all()
    assert_same_fits(fit(many, file, engine=engine), whole, seconds=False)  # with room again


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="needs to mount a small disk")
def test_a_small_disk(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=384k", "tmpfs", str(disk)], check=False).returncode:
        pytest.skip("may not mount a small disk")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", parfit.ParfitWarning)
            with pytest.raises(StoreError) as caught:
                fit(pd.concat([decays(200)] * 10), disk / "fits.db", executor="serial")
        if caught.value.fits is not None:  # there was room to begin
            assert caught.value.fits.success.all()
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_all_that_the_objective_is_handed_with_the_parameters_counts(file, tmp_path):
    data = pd.DataFrame({"y": [4.0, 8.0]})

    def table(prior):
        return pd.DataFrame({"value": [1.0], "prior": [prior]}, index=["m"])

    def penalty(p, row):
        return np.array([p.loc["m", "value"] - row["y"], p.loc["m", "value"] - p.loc["m", "prior"]])

    fit(data, file, penalty, x0=table(0.0))
    assert_same_fits(fit(data, file, penalty, x0=table(0.0)), parfit.open_store(file))
    with pytest.raises(StoreMismatchError, match="x0 is another"):
        fit(data, file, penalty, x0=table(10.0))

    def by_kind(p, row):
        return p["m"] * (2 if isinstance(p, pd.Series) else 1) - row["y"]

    other = tmp_path / "other.db"
    fit(data, other, by_kind, x0={"m": 1.0})
    with pytest.raises(StoreMismatchError, match=r"x0 was \{'m': 1.0\} and is a Series"):
        fit(data, other, by_kind, x0=pd.Series({"m": 1.0}))


def test_other_parameters_are_named_the_first_of_them(file):
    def many(p, row):
        return sum((value - k) ** 2 for k, value in enumerate(p.values()))

    def call(names):
        return fit(decays(1), file, many, dict.fromkeys(names, 0.0), method="L-BFGS-B")

    names = [f"a{i}" for i in range(30)]
    call(names)
    for others, said in (
        (["b", *names[10:]], r"in these 'a0', 'a1', 'a2', 'a3', … \(10 in all\) are missing, 'b' is new; overwrite"),
        ([*names[:5], *names[6:]], "in these 'a5' is missing; overwrite"),
        ([*names[:5], "a6", "a5", *names[7:]], "in these the order is another: 'a6' is where 'a5' was; overwrite"),
    ):
        with pytest.raises(StoreMismatchError, match=f"holds fits of other parameters: {said}"):
            call(others)
