"""What all tests share: compiled programs, in a folder of this run's own."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session", autouse=True)
def compiled_programs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep compiled programs where all tests of a run find them; the user's own cache is not touched."""
    if "PARFIT_CACHE_DIR" in os.environ:
        yield
        return
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "parfit-cache"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PARFIT_CACHE_DIR", str(folder))
        yield
