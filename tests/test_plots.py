"""`parfit.plots`."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from parfit import InvalidInputError, InvalidTypeError, MissingPackageError
from parfit.datasets import load_synthetic_rates
from parfit.plots import LOSS_RATE_BINS, loss_histogram


def rates() -> pd.DataFrame:
    return load_synthetic_rates().iloc[:50, 1:]


def test_bins_are_a_hundredth_wide() -> None:
    assert LOSS_RATE_BINS[0] == -0.15
    assert LOSS_RATE_BINS[-1] == 0.4
    np.testing.assert_allclose(np.diff(LOSS_RATE_BINS), 0.01)


def test_a_histogram_per_column() -> None:
    pytest.importorskip("matplotlib", reason="needs the extra 'plot'")
    (axes,) = loss_histogram(rates(), title="Fifty").axes
    assert [text.get_text() for text in axes.get_legend().get_texts()] == list(rates().columns)
    assert len(axes.patches) == 8
    for patch, (_, column) in zip(axes.patches, rates().items(), strict=True):
        values, edges, _ = patch.get_data()
        np.testing.assert_array_equal(values, np.histogram(column, LOSS_RATE_BINS)[0])
        np.testing.assert_array_equal(edges, LOSS_RATE_BINS)
    assert (axes.get_xlabel(), axes.get_title(loc="left")) == ("loss rate per year", "Fifty")


def test_files_of_each_kind_in_a_new_folder(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="needs the extra 'plot'")
    paths = [tmp_path / "new" / "folder" / name for name in ("a.png", "a.svg", "a.pdf")]
    loss_histogram(rates(), paths)
    starts = [path.read_bytes()[:5] for path in paths]
    assert starts == [b"\x89PNG\r", b"<?xml", b"%PDF-"]


def test_one_path_as_text_in_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib", reason="needs the extra 'plot'")
    monkeypatch.chdir(tmp_path)
    loss_histogram(rates(), "h.png")
    assert (tmp_path / "h.png").stat().st_size > 10_000


def test_into_axes_that_are_there() -> None:
    figures = pytest.importorskip("matplotlib.figure", reason="needs the extra 'plot'")
    figure = figures.Figure()
    left, right = figure.subplots(1, 2)
    assert loss_histogram(rates(), ax=right) is figure
    assert not left.patches
    assert len(right.patches) == 8
    nested = figures.Figure()
    inner = nested.subfigures(1, 2)[1]
    assert loss_histogram(rates(), ax=inner.subplots()) is nested


def test_values_beyond_the_bins_are_counted_and_gaps_left_out() -> None:
    pytest.importorskip("matplotlib", reason="needs the extra 'plot'")
    frame = pd.DataFrame({"a": [0.0, 0.1, np.nan, np.inf, 0.9, -1.0], "b": [np.nan] * 6, "c": [1] * 6})
    (axes,) = loss_histogram(frame, bins=[0.0, 0.5, 1.0]).axes
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["a (1 beyond)", "b", "c"]
    assert [patch.get_data().values.tolist() for patch in axes.patches] == [[2, 1], [0, 0], [0, 6]]


def test_more_columns_than_named_colours() -> None:
    pytest.importorskip("matplotlib", reason="needs the extra 'plot'")
    frame = pd.DataFrame(np.random.default_rng(0).normal(0, 0.1, (30, 14)))
    (axes,) = loss_histogram(frame).axes
    assert len({patch.get_edgecolor() for patch in axes.patches}) == 14


def test_pyplot_is_left_alone() -> None:
    pytest.importorskip("matplotlib", reason="needs the extra 'plot'")
    before = "matplotlib.pyplot" in sys.modules
    loss_histogram(rates())
    assert ("matplotlib.pyplot" in sys.modules) == before


@pytest.mark.parametrize(
    ("frame", "bins", "error", "says"),
    [
        ([1, 2], None, InvalidTypeError, "DataFrame, not list"),
        (pd.DataFrame(index=range(3)), None, InvalidInputError, "no column"),
        (pd.DataFrame({"a": ["x"]}), None, InvalidTypeError, "column 'a' of rates does not hold numbers"),
        (pd.DataFrame({"a": [1.0]}), [1.0], InvalidInputError, "two or more edges"),
        (pd.DataFrame({"a": [1.0]}), [1.0, 0.0], InvalidInputError, "edges that rise"),
        (pd.DataFrame({"a": [1.0]}), "auto", InvalidTypeError, "edges of the bins"),
    ],
)
def test_bad_input(frame: object, bins: object, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        loss_histogram(frame, bins=bins)  # type: ignore[arg-type]


def test_without_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingPackageError, match=r"pip install 'parfit\[plot\]'"):
        loss_histogram(rates())
