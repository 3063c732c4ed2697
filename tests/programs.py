"""Run a program as users do: a script, standard input, or one that is interrupted."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).parents[1]
#: For programs that hang, s.
PATIENCE_S = 100


def environment(**more: str) -> dict[str, str]:
    """The variables of a program that finds parfit, and nothing of pytest's."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "COV", "PARFIT"))}
    return {**kept, "PYTHONPATH": str(ROOT), **more}


def written(folder: Path, text: str, name: str = "script.py") -> Path:
    """A script in a folder."""
    path = folder / name
    path.write_text(textwrap.dedent(text))
    return path


def run_program(folder: Path, text: str, *arguments: str, prefix: tuple[str, ...] = (), **env: str) -> str:
    """Run a script in its folder; what it prints, where it ends well and says nothing on standard error."""
    return checked([*prefix, sys.executable, str(written(folder, text)), *arguments], folder, **env)


def run_stdin(folder: Path, text: str, **env: str) -> str:
    """The same from standard input."""
    return checked([sys.executable, "-"], folder, textwrap.dedent(text), **env)


def checked(command: list[str], folder: Path, text: str | None = None, *, quiet: bool = True, **env: str) -> str:
    """What a program prints, where it ends well and (if `quiet`) says nothing on standard error."""
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment(**env),
        input=text,
        stdin=subprocess.DEVNULL if text is None else None,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not quiet or done.stderr == "", done.stderr
    return done.stdout


@contextlib.contextmanager
def started(folder: Path, text: str, *arguments: str, **env: str) -> Iterator[subprocess.Popen[str]]:
    """A script that runs in a process group of its own; nothing of it is left afterwards."""
    process = subprocess.Popen(
        [sys.executable, str(written(folder, text)), *arguments],
        cwd=folder,
        env=environment(**env),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
    )
    family: list[psutil.Process] = []
    try:
        yield process
        with contextlib.suppress(psutil.NoSuchProcess):
            family = psutil.Process(process.pid).children(recursive=True)
    finally:
        if process.poll() is None:
            process.kill()
        for one in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
        process.communicate()


def wait_for(condition: Callable[[], bool], what: str, patience_s: float = PATIENCE_S) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {patience_s} s"
        time.sleep(0.02)


def run_notebook(cells, folder):
    """Run the cells in a kernel of their own; the notebook as it is then."""
    nbformat = pytest.importorskip("nbformat")
    pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    path = folder / "notebook.ipynb"
    nbformat.write(notebook, path)
    run = (
        "import sys, nbformat, nbclient; nb = nbformat.read(sys.argv[1], 4); "
        "nbclient.NotebookClient(nb, timeout=90, kernel_name='python3').execute(); nbformat.write(nb, sys.argv[1])"
    )
    checked([sys.executable, "-W", "ignore", "-c", run, str(path)], folder, quiet=False)
    return json.loads(path.read_text())
