"""Runs a script in an interpreter of its own, with the parfit that is under test and warnings as errors."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import parfit

ROOT = Path(__file__).parent.parent


def parfit_path() -> str:
    """The PYTHONPATH with which another interpreter finds the parfit that is under test."""
    return os.pathsep.join(filter(None, [str(Path(parfit.__file__).parent.parent), os.environ.get("PYTHONPATH")]))


def run_script(script: Path, *arguments: str, cwd: Path, timeout_s: float = 240, **variables: str) -> str:
    """What the script prints to standard output; fails with its standard error where it fails."""
    ran = subprocess.run(
        [sys.executable, "-W", "error", str(script), *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": parfit_path(), "PYTHONIOENCODING": "utf-8", **variables},
        capture_output=True,
        encoding="utf-8",
        check=False,
        timeout=timeout_s,
    )
    assert ran.returncode == 0, f"{script.name} ended with {ran.returncode}:\n{ran.stdout}\n{ran.stderr}"
    return ran.stdout
