"""What the tests of stores in parts have in common."""

from __future__ import annotations

import pytest

from tests.stores.in_parts import PART


@pytest.fixture
def small_parts(monkeypatch):
    monkeypatch.setattr("parfit.fitting.parted.PART_ROWS", PART)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "fits.parquet"


@pytest.fixture(params=["rows", "batch"])
def engine(request):
    if request.param == "batch":
        pytest.importorskip("jax")
    return request.param
