"""A store whose tables are damaged: the same call finds the rows that are sound, and no others."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import warnings

import numpy as np
import pandas as pd
import pytest
from pandas.testing import assert_frame_equal

import parfit
from parfit import StoreError, StoreMismatchError
from parfit.stores.reading import FORMAT, PAGE, read_store
from parfit.stores.salvage import salvaged

ROWS = 300
T = np.linspace(0, 4, 15)
rng = np.random.default_rng(3)
DATA = pd.DataFrame(rng.uniform(1, 3, (ROWS, 1)) * np.exp(-rng.uniform(0.3, 1, (ROWS, 1)) * T))


def residuals(p, row):
    return p["height"] * np.exp(-p["rate"] * T) - row.to_numpy()


def fit(file, **more):
    """The fits, how many datasets were fitted, and what was warned of."""
    told = []
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        fits = parfit.fit(
            DATA, residuals, {"height": 1.0, "rate": 1.0}, store=file, engine="rows", executor="serial",
            progress=lambda done, total: told.append(done), **more,
        )  # fmt: skip
    return fits, told[-1] - (told[0] - 1) if told else 0, [str(one.message) for one in warned]


def written(file, copy, **settings):
    """A store, whose thread has other settings; and a copy of it and its log from before it is whole."""

    def look(done, total):
        if done == ROWS - 20:
            for ending in ("", "-wal"):
                shutil.copy(f"{file}{ending}", f"{copy}{ending}")

    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"_BURST_S": 0, "_LONGEST_REST_S": 0, **settings}.items():
            patch.setattr(f"parfit.stores.sqlite.{name}", value)
        start = {"height": 1.0, "rate": 1.0}
        parfit.fit(DATA, residuals, start, store=file, engine="rows", executor="serial", progress=look)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A store of many blocks, and of a few that run over many pages; and its log, before it was taken in."""
    folder = tmp_path_factory.mktemp("made")
    written(folder / "fits.db", folder / "early.db", _BLOCKS=10_000, _SYNCHRONISED_S=0.02)
    return folder


def pages_of(file, *tables):
    """The pages that tables stand on, from their roots."""
    with contextlib.closing(sqlite3.connect(file)) as db:
        return [
            db.execute("select rootpage from sqlite_master where name = ?", (name,)).fetchone()[0] for name in tables
        ]


@pytest.mark.parametrize("table", ["schema", "facts", "call", "sqlite_sequence", "blocks"])
@pytest.mark.parametrize("how", ["zeros", "noise", "one bit"])
def test_damaged_tables_cost_no_sound_row(made, tmp_path, table, how):
    file = tmp_path / "fits.db"
    shutil.copy(made / "fits.db", file)
    whole = parfit.open_store(file)
    held = read_store(file)
    (page,) = [1] if table == "schema" else pages_of(file, table)
    content = bytearray(file.read_bytes())
    begin, end = (page - 1) * PAGE, page * PAGE
    if how == "zeros":
        content[begin:end] = bytes(PAGE)
    elif how == "noise":
        content[begin:end] = np.random.default_rng(0).bytes(PAGE)
    else:
        content[begin + 3 + 100 * (page == 1)] ^= 2  # how many cells there are
    file.write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with contextlib.suppress(StoreError):
            parfit.open_store(file)
        with pytest.raises((StoreError, StoreMismatchError)):
            fit(file, seed=7)
    assert file.read_bytes() == bytes(content)
    found, fresh, told = fit(file)
    assert any("is damaged" in text and "kept as fits.db.damaged" in text for text in told)
    assert (tmp_path / "fits.db.damaged").read_bytes() == bytes(content)
    assert fresh <= (0 if table != "blocks" else max(len(rows.positions) for rows in held.rows))
    assert_frame_equal(found.params, whole.params, check_exact=True)
    drop = ["seconds", "attempts"]
    assert_frame_equal(found.summary.drop(columns=drop), whole.summary.drop(columns=drop), check_exact=True)
    assert fit(file)[1:] == (0, [])


def test_what_is_in_the_log_only_is_found_too(made, tmp_path):
    """As after a kill: the log is not taken in yet, and the file is damaged."""
    for ending in ("", "-wal"):
        shutil.copy(made / f"early.db{ending}", tmp_path / f"fits.db{ending}")
    file = tmp_path / "fits.db"
    assert (tmp_path / "fits.db-wal").stat().st_size > 0
    shutil.copytree(tmp_path, copy := tmp_path / "copy")
    before = int(parfit.open_store(copy / "fits.db").success.sum())
    assert before > ROWS // 2
    content = bytearray(file.read_bytes())
    content[:PAGE] = np.random.default_rng(0).bytes(PAGE)
    file.write_bytes(content)
    log = bytearray((tmp_path / "fits.db-wal").read_bytes())
    log[33:100] = bytes(67)  # with the first page of the log, which SQLite would go on from
    (tmp_path / "fits.db-wal").write_bytes(log)
    found, fresh, told = fit(file)
    assert fresh <= ROWS - before
    assert found.success.all()
    assert told


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """A store as a kill leaves it, whose rows are all in the log; the log, and what is in each row."""
    folder = tmp_path_factory.mktemp("killed")
    written(folder / "made.db", folder / "fits.db", _SYNCHRONISED_S=60)
    return folder


def frames_of(log):
    return (len(log) - 32) // (24 + PAGE)


@pytest.mark.parametrize("place", ["head", 0, 1, 4, 0.3, 0.7])
@pytest.mark.parametrize("how", ["one bit", "salt", "zeros"])
def test_damage_in_the_middle_of_the_log_is_told_and_mended(killed, tmp_path, place, how):
    file, log = tmp_path / "fits.db", tmp_path / "fits.db-wal"
    shutil.copy(killed / "fits.db", file)
    content = bytearray((killed / "fits.db-wal").read_bytes())
    shutil.copytree(killed, tmp_path / "copy")
    whole = parfit.open_store(tmp_path / "copy" / "fits.db")
    assert whole.success.sum() > ROWS // 2
    frame = place if isinstance(place, int) else 0 if place == "head" else int(place * frames_of(content))
    begin = 32 + frame * (24 + PAGE)
    if place == "head":
        content[24 if how == "one bit" else 5] ^= 1  # not the salts, which tell which frames are the log's
    elif how == "zeros":
        content[begin + 24 : begin + 24 + PAGE] = bytes(PAGE)
    else:
        content[begin + (9 if how == "salt" else 1000)] ^= 1
    log.write_bytes(content)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        with contextlib.suppress(StoreError):  # where what SQLite reads is not a store yet
            parfit.open_store(file)
            assert "fits.db-wal is damaged behind frame" in str(told[-1].message)
    found, fresh, said = fit(file)
    assert any("is damaged" in text and "kept as fits.db.damaged" in text for text in said)
    done = whole.success.to_numpy()
    assert fresh < ROWS - done.sum() + ROWS // 10
    assert found.success.all()
    assert_frame_equal(found.params[done], whole.params[done], check_exact=True)
    assert fit(file)[1:] == (0, [])


@pytest.mark.parametrize("how", ["cut", "cut in a frame", "zeros", "last frame", "nothing"])
def test_what_a_kill_tears_at_the_end_of_the_log_is_no_damage(killed, tmp_path, how):
    shutil.copy(killed / "fits.db", file := tmp_path / "fits.db")
    content = bytearray((killed / "fits.db-wal").read_bytes())
    last = 32 + (frames_of(content) - 1) * (24 + PAGE)
    if how == "last frame":
        content[last + 1000] ^= 1
    elif how == "zeros":
        content[last:] = bytes(len(content) - last)
    elif how != "nothing":
        del content[last + (100 if how == "cut in a frame" else 0) :]
    (tmp_path / "fits.db-wal").write_bytes(content)
    assert parfit.open_store(file).success.sum() > ROWS // 2
    found, _, told = fit(file)
    assert told == []
    assert found.success.all()


def test_blocks_of_another_call_are_none(made):
    with contextlib.closing(sqlite3.connect(made / "fits.db")) as db:
        count = db.execute("select count(*) from blocks").fetchone()[0]
    call = read_store(made / "fits.db").identity.fingerprint()
    assert len(salvaged(made / "fits.db", call)) == count
    assert salvaged(made / "fits.db", "0" * 32) == []


def test_long_blocks_are_put_together_from_their_pages(tmp_path):
    from parfit.core.columns import Columns
    from parfit.stores.packing import Rows
    from parfit.stores.reading import Argument, Identity
    from parfit.stores.sqlite import SqliteStore, Wanted
    from tests.contracts.test_store_contract import many

    k = 20_000
    identity = Identity({"objective": Argument("00", "f", {})}, {"names": ["a", "b"]})
    hashes = np.random.default_rng(0).integers(0, 1 << 62, (k, 2)).astype(np.uint64)
    wanted = Wanted(hashes, np.arange(k, dtype=np.uint64), np.zeros((k, 2)))
    with SqliteStore(tmp_path / "fits.db", identity, wanted) as store:
        store.put_many(many(np.arange(k), 7.0))
    (block,) = salvaged(tmp_path / "fits.db", identity.fingerprint())
    assert isinstance(block.rows, Rows)
    assert isinstance(block.rows.columns, Columns)
    np.testing.assert_array_equal(block.rows.fingerprints, hashes)


def test_a_file_of_another_format_is_refused(made, tmp_path):
    file = tmp_path / "fits.db"
    shutil.copy(made / "fits.db", file)
    with contextlib.closing(sqlite3.connect(file)) as db:
        db.execute("pragma user_version = 1")
        db.commit()
    content = file.read_bytes()
    for read in (lambda: fit(file), lambda: parfit.open_store(file)):
        with pytest.raises(StoreError, match=f"has format 1, and this version of parfit reads format {FORMAT}"):
            read()
    assert file.read_bytes() == content
