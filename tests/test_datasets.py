import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from parfit import datasets
from parfit.core.errors import InvalidInputError, ParfitError

ROOT = Path(__file__).resolve().parents[1]
COHORTS = [f"dec_{i}" for i in range(1, 10)]
ALABAMA = {
    (1, 1): (
        [3375, 3630, 2461, 3407, 3283, 2319, 1637, 825, 284],
        [3867, 4384, 3082, 3598, 4148, 3390, 2293, 1353, 454],
    ),
    (1, 3): (
        [9323, 10094, 7600, 9725, 10379, 8519, 6675, 4711, 1822],
        [11446, 12006, 9976, 11042, 12517, 12368, 10623, 6307, 2911],
    ),
    (1, 5): (
        [2002, 2198, 2412, 2465, 2178, 1699, 1026, 689, 301],
        [1673, 1739, 2260, 2208, 2233, 1910, 1490, 739, 324],
    ),
    (1, 7): (
        [1546, 1460, 1680, 1762, 1624, 1237, 774, 475, 187],
        [1471, 1577, 1798, 2016, 1928, 1581, 1140, 579, 211],
    ),
    (1, 9): (
        [3741, 3615, 3393, 3901, 3773, 3007, 2227, 1269, 550],
        [3741, 4252, 3312, 3719, 4129, 3782, 3052, 1723, 652],
    ),
}
CENSUS = os.environ.get(datasets.CENSUS_VARIABLE)
needs_census = [
    pytest.mark.census,
    pytest.mark.skipif(not CENSUS, reason=f"{datasets.CENSUS_VARIABLE} does not name the real census file"),
]


def run_python(code, **environment):
    done = subprocess.run(
        [sys.executable, "-P", "-W", "error", "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


# --- what ships with parfit


@pytest.mark.parametrize("load", [datasets.load_alabama, datasets.load_synthetic])
def test_layout(load):
    counties = load()
    assert counties.columns.tolist() == [(year, c) for year in ("2000", "2010") for c in COHORTS]
    assert counties.columns.names == [None, None]
    assert counties.index.names == ["state", "county"]
    assert counties.index.is_unique
    assert counties.index.is_monotonic_increasing
    assert [level.dtype for level in counties.index.levels] == [np.float64, np.float64]
    assert (counties.dtypes == np.float64).all()
    assert ((counties >= 0) & (counties % 1 == 0)).to_numpy().all()


def test_alabama():
    counties = datasets.load_alabama()
    assert counties.index.tolist() == list(ALABAMA)
    assert counties["2000"].to_numpy().tolist() == [a for a, _ in ALABAMA.values()]
    assert counties["2010"].to_numpy().tolist() == [b for _, b in ALABAMA.values()]


@pytest.mark.parametrize("name", ["alabama_counties.csv", "synthetic_counties.csv"])
def test_pandas_alone_reads_the_same(name):
    path = ROOT / "data" / name
    plain = pd.read_csv(path, header=[0, 1], index_col=[0, 1])
    pd.testing.assert_frame_equal(plain, datasets.read_counties(path))


def test_synthetic_files_come_from_the_generator_bit_for_bit():
    counties, rates = datasets.make_synthetic()
    for frame, name in ((counties, "synthetic_counties.csv"), (rates, "synthetic_loss_rates.csv")):
        written = (ROOT / "data" / name).read_bytes()
        assert frame.to_csv(lineterminator="\n").encode() == written
        assert len(written) < 500_000
    pd.testing.assert_frame_equal(datasets.load_synthetic(), counties, check_exact=True)
    pd.testing.assert_frame_equal(datasets.load_synthetic_rates(), rates, check_exact=True)


def test_generator_obeys_its_arguments():
    a, rates = datasets.make_synthetic(5, seed=1)
    b, _ = datasets.make_synthetic(5, seed=1)
    c, _ = datasets.make_synthetic(5, seed=2)
    pd.testing.assert_frame_equal(a, b)
    assert not a.equals(c)
    assert a.shape == (5, 18)
    assert rates.shape == (5, 9)
    none, no_rates = datasets.make_synthetic(0)
    assert (len(none), len(no_rates)) == (0, 0)


def test_synthetic_counties_are_plausible_and_not_real():
    counties, rates = datasets.load_synthetic(), datasets.load_synthetic_rates()
    assert len(counties) == 3137
    assert counties.index.equals(rates.index)
    assert rates.columns.tolist() == [f"{c}_loss_rate" for c in COHORTS]
    assert rates.to_numpy().min() >= -0.1
    assert rates.to_numpy().max() <= 0.3
    assert rates.iloc[:, 7:].mean().min() > rates.iloc[:, :7].mean().max()
    assert 100e6 < counties["2000"].to_numpy().sum() < 180e6
    # FIPS state codes end at 78.
    assert counties.index.get_level_values("state").min() > 100


def test_true_rates_give_the_counts_of_2010_to_within_the_noise():
    """The chain as one 9 × 9 matrix a county, to the 80th power: not the generator's own loop."""
    counties, rates = datasets.load_synthetic(), datasets.load_synthetic_rates().to_numpy()
    change = np.zeros((len(rates), 9, 9))
    for i in range(9):
        change[:, i, i] = -rates[:, i] - (0.1 if i < 8 else 0.0)
        if i > 0:
            change[:, i, i - 1] = 0.1
    decade = np.linalg.matrix_power(np.eye(9) + 0.125 * change, 80)
    expected = (decade @ counties["2000"].to_numpy()[:, :, None])[:, 1:, 0]
    z = (counties["2010"].to_numpy()[:, 1:] - expected) / np.sqrt(expected)
    assert abs(z.mean()) < 0.02
    assert z.std() == pytest.approx(1.0, abs=0.02)
    assert np.abs(z).max() < 6.0
    # Births, which the chain above lacks, hold the first cohort near its old level.
    ratio = counties["2010"]["dec_1"].sum() / counties["2000"]["dec_1"].sum()
    assert ratio == pytest.approx(1.0, abs=0.05)


def test_model_file():
    path = datasets.aging_chain_path()
    assert path.name == "Aging_Chain.mdl"
    assert "dec 9 loss rate" in path.read_text(encoding="utf-8").lower()


def test_files_are_found_in_an_installed_package(tmp_path):
    package = tmp_path / "parfit"
    shutil.copytree(ROOT / "parfit" / "core", package / "core")
    shutil.copytree(ROOT / "data", package / "_data")
    (package / "__init__.py").touch()
    shutil.copy(ROOT / "parfit" / "datasets.py", package)
    code = "from parfit import datasets as d; print(d.__file__); print(len(d.load_alabama()))"
    where, n_counties = run_python(code, PYTHONPATH=str(tmp_path)).splitlines()
    assert Path(where).is_relative_to(tmp_path)
    assert n_counties == "5"
    shutil.rmtree(package / "_data")
    code = "from parfit import datasets as d\ntry: d.load_alabama()\nexcept d.MissingFileError as error: print(error)\n"
    assert "install parfit again" in run_python(code, PYTHONPATH=str(tmp_path))


def test_import_is_light():
    code = (
        "import sys, parfit.datasets\n"
        "print(sorted({'pooch', 'requests', 'pysd', 'scipy', 'jax', 'matplotlib'} & set(sys.modules)))"
    )
    assert run_python(code, PYTHONPATH=str(ROOT)).strip() == "[]"


# --- read_counties


def test_integers_and_gaps_read_as_floats(tmp_path):
    text = (ROOT / "data" / "alabama_counties.csv").read_text(encoding="utf-8").replace(".0", "")
    path = tmp_path / "counties.csv"
    path.write_text(text, encoding="utf-8")
    pd.testing.assert_frame_equal(datasets.read_counties(path), datasets.load_alabama())
    path.write_text(text.replace("3375", ""), encoding="utf-8")
    counties = datasets.read_counties(str(path))
    assert np.isnan(counties.iloc[0, 0])
    assert counties.isna().to_numpy().sum() == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: "", "layout"),
        (lambda text: "<html><body>404</body></html>\n", "layout"),
        (lambda text: "\n".join(text.splitlines()[1:]), "layout"),
        (lambda text: "a,b,c\n1,2,3\n4,5,6\n", "layout"),
        (lambda text: text.replace("dec_3", "dec_x"), "2000 dec_3, 2010 dec_3"),
        (lambda text: text.replace("state,county", "fips,name"), "'fips', 'name'"),
        (lambda text: text.replace("9323.0", "many"), "many"),
        (lambda text: text.replace("1.0,9.0,", "AL,9.0,"), "AL"),
        (lambda text: "\0\x01\x02" * 100, "layout"),
    ],
)
def test_other_files_are_refused(tmp_path, change, message):
    path = tmp_path / "counties.csv"
    text = (ROOT / "data" / "alabama_counties.csv").read_text(encoding="utf-8")
    path.write_text(change(text), encoding="utf-8")
    with pytest.raises(InvalidInputError, match=message) as caught:
        datasets.read_counties(path)
    assert "counties.csv" in str(caught.value)


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.csv") as caught:
        datasets.read_counties(tmp_path / "nowhere.csv")
    assert isinstance(caught.value, ParfitError)


# --- load_census


def test_load_census_takes_the_file_it_is_given(monkeypatch, tmp_path):
    path = ROOT / "data" / "alabama_counties.csv"
    monkeypatch.setenv(datasets.CENSUS_VARIABLE, str(tmp_path / "unused.csv"))
    pd.testing.assert_frame_equal(datasets.load_census(path), datasets.load_alabama())
    monkeypatch.setenv(datasets.CENSUS_VARIABLE, str(path))
    pd.testing.assert_frame_equal(datasets.load_census(), datasets.load_alabama())


def test_load_census_refuses_a_variable_that_points_nowhere(monkeypatch, tmp_path):
    monkeypatch.setenv(datasets.CENSUS_VARIABLE, str(tmp_path / "nowhere.csv"))
    with pytest.raises(datasets.MissingFileError, match=r"PARFIT_CENSUS_CSV.*nowhere\.csv.*unset it"):
        datasets.load_census()


@pytest.mark.parametrize("value", [None, ""])
def test_load_census_fetches_where_nothing_is_set(monkeypatch, value):
    monkeypatch.delenv(datasets.CENSUS_VARIABLE, raising=False)
    if value is not None:
        monkeypatch.setenv(datasets.CENSUS_VARIABLE, value)
    monkeypatch.setattr(datasets, "fetch_census", datasets.load_alabama)
    pd.testing.assert_frame_equal(datasets.load_census(), datasets.load_alabama())


class TestRealFile:
    pytestmark = needs_census

    def test_hash(self):
        assert hashlib.sha256(Path(CENSUS).read_bytes()).hexdigest() == datasets.CENSUS_SHA256

    def test_layout_is_that_of_the_synthetic_counties(self):
        real, synthetic = datasets.load_census(), datasets.load_synthetic()
        plain = pd.read_csv(CENSUS, header=[0, 1], index_col=[0, 1])
        pd.testing.assert_frame_equal(real, plain)
        assert real.shape == synthetic.shape
        pd.testing.assert_index_equal(real.columns, synthetic.columns, exact=True)
        assert real.index.names == synthetic.index.names
        assert [x.dtype for x in real.index.levels] == [x.dtype for x in synthetic.index.levels]
        pd.testing.assert_series_equal(real.dtypes, synthetic.dtypes)
        with open(CENSUS) as a, open(ROOT / "data" / "synthetic_counties.csv") as b:
            assert [next(a) for _ in range(3)] == [next(b) for _ in range(3)]

    def test_alabama_is_its_beginning_and_no_synthetic_county_is_in_it(self):
        real = datasets.load_census()
        pd.testing.assert_frame_equal(real.iloc[:5], datasets.load_alabama())
        assert real.index.intersection(datasets.load_synthetic().index).empty
