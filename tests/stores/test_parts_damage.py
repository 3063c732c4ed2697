"""A store that is a folder of Parquet files: bytes that flip or are lost, and a process that ends at any moment."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import warnings

import numpy as np
import pytest
from pandas.testing import assert_frame_equal

import parfit
from parfit import FitInterrupted, ParfitWarning, StoreError
from parfit.stores import folder as reading
from parfit.stores.manifest import sealed
from tests.stores.in_parts import Interrupting, assert_same_table, fit, names, table, whole
from tests.stores.test_resume import Counting, decays

pq = pytest.importorskip("pyarrow.parquet")
pytestmark = pytest.mark.usefixtures("small_parts")

PART = "part-00002.parquet"


def quiet(function, *args, **more):
    """What is returned, where nothing is warned of."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return function(*args, **more)


def flipped(content, at):
    changed = bytearray(content)
    changed[at] ^= 1 << (at % 8)
    return bytes(changed)


def within_a_page(file):
    """Where one of the rates is, as it was computed."""
    value = pq.read_table(file)["rate"][3].as_py()
    at = file.read_bytes().find(np.float64(value).tobytes())
    assert at > 0
    return at + 2


# ---- parts


def test_a_flipped_byte_anywhere_in_a_part_is_noticed(folder):
    fit(decays(33), folder)
    file, first = folder / PART, table(folder)
    sound = file.read_bytes()
    places = [0, 40, len(sound) - 1, *np.random.default_rng(0).integers(0, len(sound), 60).tolist()]
    for at in places:
        file.write_bytes(flipped(sound, at))
        with pytest.warns(ParfitWarning, match=f"{PART} is damaged, or of something else; its datasets are fitted"):
            found = parfit.open_store(folder)
        assert found.counts.to_dict() == {"converged": 23, "not_run": 10}
        assert len(found.files) == 3
    before = {path.name: path.stat().st_mtime_ns for path in folder.glob("part*")}
    count = Counting()
    with pytest.warns(ParfitWarning, match=f"{PART} is damaged.*fitted again"):
        fit(decays(33), folder, progress=count)
    after = {path.name: path.stat().st_mtime_ns for path in folder.glob("part*")}
    assert count.fitted == 10
    assert [name for name in before if before[name] != after[name]] == [PART]
    assert_same_table(table(folder), first)
    assert quiet(parfit.open_store, folder).counts.to_dict() == {"converged": 33}


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda file: os.truncate(file, 500), "is damaged, or of something else"),
        (lambda file: file.write_bytes(b""), "is damaged, or of something else"),
        (lambda file: shutil.copy(file.with_name("part-00001.parquet"), file), "is damaged, or of something else"),
        (lambda file: file.unlink(), "is lost"),
    ],
    ids=["truncated", "emptied", "another part", "removed"],
)
def test_what_is_lost_of_a_part_is_told_and_fitted_again(engine, folder, change, text):
    fit(decays(33), folder, engine=engine)
    first = table(folder)
    change(folder / PART)
    with pytest.warns(ParfitWarning, match=f"{PART} {text}; its datasets are fitted again"):
        assert parfit.open_store(folder).counts.to_dict() == {"converged": 23, "not_run": 10}
    with pytest.warns(ParfitWarning, match=f"{PART} {text}; its datasets are fitted again"):
        fit(decays(33), folder, engine=engine)
    assert_same_table(table(folder), first)
    assert quiet(parfit.open_store, folder).counts.to_dict() == {"converged": 33}


def test_pages_have_checksums_for_other_readers(folder):
    found = fit(decays(33), folder)
    file = folder / PART
    file.write_bytes(flipped(file.read_bytes(), within_a_page(file)))
    with pytest.raises(OSError, match=r"checksum|CRC"):
        pq.ParquetFile(file, page_checksum_verification=True).read()
    with pytest.raises(StoreError, match=f"{PART} cannot be read: .*CRC"):
        list(found.frames())


def test_a_part_that_is_replaced_while_the_folder_is_read_is_no_damage(folder, monkeypatch):
    fit(decays(33), folder)
    data, plain = decays(43), reading.part_paths
    data.loc["r24"] *= 1.01

    def meanwhile(path):
        monkeypatch.setattr(reading, "part_paths", plain)
        fit(data, folder)
        return plain(path)

    monkeypatch.setattr(reading, "part_paths", meanwhile)
    found = quiet(parfit.open_store, folder)
    assert len(found.files) == 5
    assert_same_table(table(folder), whole(data))


@pytest.mark.slow
@pytest.mark.parametrize(("overwrite", "rows"), [(False, 43), (True, 43), (True, 13)])
def test_a_process_may_end_before_and_after_every_change_of_a_name(folder, tmp_path, monkeypatch, overwrite, rows):
    fit(decays(33), folder)
    data, states = decays(43).iloc[:rows], []
    data.loc["r7"] *= 1.01

    def watched(function):
        def call(*args, **more):
            for after in (False, True):
                states.append(tmp_path / f"state-{len(states)}" / "fits.parquet")
                shutil.copytree(folder, states[-1])
                if not after:
                    function(*args, **more)

        return call

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", watched(os.replace))
        patched.setattr("pathlib.Path.unlink", watched(type(folder).unlink))
        fit(data, folder, overwrite=overwrite)
    wanted = whole(data)
    assert len(states) > 10
    for state in states:
        found = quiet(parfit.open_store, state)
        assert sum(map(len, found.frames())) == found.counts.get("converged", 0)
        if len(found) > rows:  # it was before anything was removed
            with pytest.raises(parfit.StoreMismatchError, match="holds fits of 33 datasets, and data has 13"):
                quiet(fit, data, state)
            continue
        with contextlib.suppress(FitInterrupted):
            quiet(fit, data, state, progress=Interrupting(0))
        quiet(parfit.open_store, state)
        quiet(fit, data, state)
        assert_same_table(table(state), wanted)
        assert names(state) == ["_parfit.json", *(f"part-{i:05d}.parquet" for i in range(-(-rows // 10)))]
        assert quiet(parfit.open_store, state).counts.to_dict() == {"converged": rows}


# ---- _parfit.json


def changed_number(text):
    return text.replace('"total": 33', '"total": 93')


MANIFESTS = {
    "truncated": lambda text: text[:100],
    "a number": changed_number,
    "a checksum of a part": lambda text: text.replace('"1": [\n   ', '"1": [\n   1'),
    "its own checksum": lambda text: text.replace('"crc": ', '"crc": 1'),
    "its format": lambda text: text.replace('"format": 3', '"format": 7'),
    "no checksum": lambda text: text.replace('"crc": ', '"drc": '),
    "another object": lambda text: "[]",
    "not text": lambda text: b"\xff\xfe",
    "empty": lambda text: "",
    "removed": lambda text: None,
}


@pytest.mark.parametrize("name", MANIFESTS)
def test_a_manifest_that_is_damaged_is_made_again(folder, name):
    fit(decays(33), folder)
    path, first = folder / "_parfit.json", table(folder)
    text = path.read_text()
    changed = MANIFESTS[name](text)
    assert changed != text
    path.unlink()
    if changed is not None:
        path.write_bytes(changed if isinstance(changed, bytes) else changed.encode())
    with pytest.warns(ParfitWarning, match=r"_parfit.json is damaged \(.*\), and is made again from what the sound"):
        assert parfit.open_store(folder).counts.to_dict() == {"converged": 33}
    count = Counting()
    with pytest.warns(ParfitWarning, match=r"_parfit.json is damaged"):
        fit(decays(43), folder, progress=count)
    assert count.fitted == 43 - 33
    assert_frame_equal(table(folder).iloc[:33], first)
    assert_same_table(table(folder), whole(decays(43)))
    assert quiet(parfit.open_store, folder).counts.to_dict() == {"converged": 43}
    assert quiet(fit, decays(43), folder).counts.to_dict() == {"converged": 43}


def test_another_call_is_refused_without_a_manifest_too(folder):
    fit(decays(33), folder)
    (folder / "_parfit.json").unlink()
    with pytest.raises(parfit.StoreMismatchError, match="seed was 0 and is 7"):
        fit(decays(33), folder, seed=7)
    assert fit(decays(13), folder, seed=7, overwrite=True).counts.to_dict() == {"converged": 13}
    assert names(folder) == ["_parfit.json", "part-00000.parquet", "part-00001.parquet"]


def test_of_a_folder_without_a_manifest_only_what_is_parfits_is_removed(folder):
    fit(decays(33), folder)
    (folder / "_parfit.json").unlink()
    (folder / "notes.txt").write_text("mine")
    before = names(folder)
    with pytest.raises(StoreError, match="has files that are not parfit's, and is left as it is"):
        fit(decays(33), folder, overwrite=True)
    assert names(folder) == before


def test_a_flipped_byte_anywhere_is_known_without_a_manifest_too(folder):
    fit(decays(33), folder)
    first, file = table(folder), folder / PART
    (folder / "_parfit.json").write_text("{")
    sound, said = file.read_bytes(), rf"_parfit.json is damaged .*; {PART} is damaged.*fitted again"
    places = [
        0,
        40,
        len(sound) - 1,
        within_a_page(file),
        *np.random.default_rng(0).integers(0, len(sound), 60).tolist(),
    ]
    for at in places:
        file.write_bytes(flipped(sound, at))
        with pytest.warns(ParfitWarning, match=said):
            assert parfit.open_store(folder).counts.to_dict() == {"converged": 23, "not_run": 10}
    with pytest.warns(ParfitWarning, match=said):
        fit(decays(33), folder)
    assert_same_table(table(folder), first)


@pytest.mark.parametrize("manifest", ["{", None])
def test_where_nothing_is_sound_one_begins_anew(folder, manifest):
    fit(decays(13), folder)
    for file in folder.glob("part*"):
        file.write_bytes(flipped(file.read_bytes(), 40))
    (folder / "_parfit.json").unlink() if manifest is None else (folder / "_parfit.json").write_text(manifest)
    for call in (parfit.open_store, lambda path: fit(decays(13), path)):
        with pytest.raises(StoreError, match=r"_parfit.json is damaged: .* \(overwrite=True starts anew\)"):
            call(folder)
    assert fit(decays(13), folder, overwrite=True).counts.to_dict() == {"converged": 13}


def test_rows_under_way_outlive_the_manifest(folder):
    with pytest.raises(FitInterrupted):
        fit(decays(33), folder, progress=Interrupting(24))
    (folder / "_parfit.json").unlink()
    with pytest.warns(ParfitWarning, match="is made again"):
        assert parfit.open_store(folder).counts.to_dict() == {"converged": 24, "not_run": 9}
    count = Counting()
    with pytest.warns(ParfitWarning, match="is made again"):
        fit(decays(33), folder, progress=count)
    assert count.fitted == 33 - 24


def test_data_that_had_grown_when_the_manifest_was_lost(folder):
    fit(decays(13), folder)
    with pytest.raises(FitInterrupted):
        fit(decays(33), folder, progress=Interrupting(24))
    for file in (folder / "_parfit.json", folder / "part-00001.parquet"):
        file.unlink()
    with pytest.warns(ParfitWarning, match="is made again"):
        found = parfit.open_store(folder)
    assert found.counts.to_dict() == {"converged": 14, "not_run": 16}
    with pytest.warns(ParfitWarning, match="is made again"):
        fit(decays(33), folder)
    assert_same_table(table(folder), whole(decays(33)))


@pytest.mark.parametrize("seal", [sealed, dict])
def test_a_folder_of_another_format(folder, seal):
    fit(decays(13), folder)
    said = json.loads((folder / "_parfit.json").read_text())
    del said["crc"]
    (folder / "_parfit.json").write_text(json.dumps(seal({**said, "format": 2})))
    for call in (parfit.open_store, lambda path: fit(decays(13), path)):
        with pytest.raises(StoreError, match="has format 2, and this version of parfit reads format 3"):
            call(folder)
