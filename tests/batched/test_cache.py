"""Compiled programs are kept on disk for the next process, and nothing that is wrong with the folder is an error."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

import pytest

from tests.programs import run_program

pytest.importorskip("jax", reason="the batched engine needs jax")
from parfit.batched import cache

PROGRAM = """
    import os, numpy as np, pandas as pd, parfit
    from parfit import batched

    if __name__ == "__main__":
        t = np.linspace(0, 4, 7)
        frame = pd.DataFrame([2 * np.exp(-0.5 * t), 3 * np.exp(-0.7 * t)])
        fits = parfit.fit(frame, lambda p, row: p[0] * np.exp(-p[1] * t) - row.to_numpy(), [1.0, 1.0], engine="batch")
        assert fits.success.all()
        print(batched.counts().compiled, batched.counts().loaded, fits.params.to_numpy().tobytes().hex())
"""


def run(folder: Path, cache_dir: Path | str) -> tuple[int, int, str]:
    """How many programs a process compiled and loaded, and its fits."""
    compiled, loaded, params = run_program(
        folder, PROGRAM, PARFIT_CACHE_DIR=str(cache_dir), JAX_PLATFORMS="cpu"
    ).split()
    return int(compiled), int(loaded), params


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, tuple[int, int, str]]:
    """A folder that one process has filled, and what that process said."""
    folder = tmp_path_factory.mktemp("kept")
    return folder / "cache", run(folder, folder / "cache")


def files(folder: Path) -> list[Path]:
    return sorted((folder / "compiled").iterdir())


@pytest.mark.slow
def test_the_next_process_compiles_nothing(kept: tuple[Path, tuple[int, int, str]], tmp_path: Path) -> None:
    folder, (compiled, loaded, params) = kept
    assert compiled > 0
    assert loaded == 0
    assert len(files(folder)) == compiled
    assert run(tmp_path, folder) == (0, compiled, params)
    assert all(file.suffix == ".xla" for file in files(folder))


@pytest.mark.skipif(sys.platform == "win32", reason="modes are POSIX's")
def test_the_folder_is_the_users_own(kept: tuple[Path, tuple[int, int, str]]) -> None:
    folder, _ = kept
    assert stat.S_IMODE((folder / "compiled").stat().st_mode) == 0o700
    assert all(stat.S_IMODE(file.stat().st_mode) & 0o077 == 0 for file in files(folder))


@pytest.mark.slow
def test_a_damaged_file_is_compiled_again(kept: tuple[Path, tuple[int, int, str]], tmp_path: Path) -> None:
    folder, (compiled, _, params) = kept
    contents = [file.read_bytes() for file in files(folder)]
    damages = [lambda b: b[: len(b) // 2], lambda b: b[:100] + bytes([b[100] ^ 1]) + b[101:], lambda b: b""]
    for k, file in enumerate(files(folder)):
        file.write_bytes(damages[k % len(damages)](contents[k]))
    assert run(tmp_path, folder) == (compiled, 0, params)
    assert run(tmp_path, folder) == (0, compiled, params)


@pytest.mark.parametrize("damage", [b"", b"short", b"\0" * 1000])
def test_what_is_no_program_is_not_loaded(damage: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARFIT_CACHE_DIR", str(tmp_path))
    (tmp_path / "compiled").mkdir()
    (tmp_path / "compiled" / "key.xla").write_bytes(damage)
    assert cache.load("key", None) is None
    assert cache.load("other", None) is None


@pytest.mark.slow
def test_a_folder_that_cannot_be_written_or_is_none_is_no_error(tmp_path: Path) -> None:
    taken = tmp_path / "taken"
    taken.write_text("a file where a folder should be")
    compiled, loaded, _ = run(tmp_path, taken)
    assert compiled > 0
    assert loaded == 0
    assert taken.read_text() == "a file where a folder should be"


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_is_no_error(tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    (folder / "compiled").mkdir(parents=True)
    (folder / "compiled").chmod(0o500)
    compiled, loaded, _ = run(tmp_path, folder)
    assert (compiled > 0, loaded) == (True, 0)
    assert files(folder) == []


def test_a_program_that_cannot_be_written_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARFIT_CACHE_DIR", str(tmp_path))
    cache.save("key", "no executable")
    assert not (tmp_path / "compiled").exists() or files(tmp_path) == []


def test_an_empty_name_keeps_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARFIT_CACHE_DIR", "")
    assert cache.folder() is None
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    cache.save("key", "anything")
    assert cache.load("key", None) is None
    assert list(tmp_path.iterdir()) == []


def test_where_programs_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/elsewhere")
    monkeypatch.setenv("PARFIT_CACHE_DIR", str(tmp_path))
    assert cache.folder() == tmp_path / "compiled"
    monkeypatch.delenv("PARFIT_CACHE_DIR")
    assert cache.folder() == Path("/elsewhere/parfit/compiled")


def test_the_longest_unused_are_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "_MOST_FILES", 3)
    for age in range(5):
        file = tmp_path / f"{age}.xla"
        file.touch()
        os.utime(file, (1000 - age, 1000 - age))
    (tmp_path / "note.txt").touch()
    cache._forget_old(tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["0.xla", "1.xla", "2.xla", "note.txt"]


def test_programs_differ_by_their_text_and_by_what_they_were_compiled_for() -> None:
    key = cache.key_of("text", {"option": True})
    assert key == cache.key_of("text", {"option": True})
    assert len({key, cache.key_of("text ", {"option": True}), cache.key_of("text", {"option": False})}) == 3
