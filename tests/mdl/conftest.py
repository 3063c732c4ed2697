"""Models to test with, and PySD itself as the referee."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path

import pandas as pd
import pytest

from parfit.mdl import load_model
from parfit.mdl.source import pysd_module

HERE = Path(__file__).parent
AGING_CHAIN = HERE.parents[1] / "models" / "Aging_Chain.mdl"

WEATHER = "day,dew,scale,table\n0,1,2,0.5\n2,3,,1.5\n4,2,,1.0\n"
RAIN = "Time,rain\n0,4\n1,6\n4,0\n"


@pytest.fixture
def models() -> Path:
    return HERE / "models"


@pytest.fixture(scope="session")
def aging_file():
    return AGING_CHAIN


@pytest.fixture(scope="session", params=["compiled", "pysd"])
def engine(request) -> str:
    """What does the runs."""
    if request.param == "compiled":
        pytest.importorskip("jax")
    return request.param


@pytest.fixture(scope="session")
def aging(engine):
    return load_model(AGING_CHAIN, compile=engine == "compiled")


@pytest.fixture(scope="session")
def regions(engine):
    return load_model(HERE / "models" / "Regions.mdl", compile=engine == "compiled")


@pytest.fixture
def weather_folder(tmp_path) -> Path:
    """A folder with the model that reads data, and its data."""
    folder = tmp_path / "weather"
    folder.mkdir()
    shutil.copy(HERE / "models" / "Data.mdl", folder)
    (folder / "weather.csv").write_text(WEATHER)
    (folder / "rain.csv").write_text(RAIN)
    return folder


class Referee:
    """PySD's own runtime, on a copy of the model and freshly loaded for each run."""

    def __init__(self, file: Path, folder: Path, **options) -> None:
        self._pysd = pysd_module()
        copy = Path(shutil.copy(file, folder))
        self._options = options
        read = self._pysd.read_vensim if copy.suffix == ".mdl" else self._pysd.read_xmile
        self.model = self.quietly(read, copy, **options)
        self.translated = copy.with_suffix(".py")

    @staticmethod
    def quietly(function, *args, **kwargs):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return function(*args, **kwargs)

    def run(self, **arguments) -> pd.DataFrame:
        self.model = self.quietly(self._pysd.load, str(self.translated), **self._options)
        return self.quietly(self.model.run, **arguments)


@pytest.fixture(scope="session")
def referee(tmp_path_factory):
    """Referees by file, each translated once."""
    known: dict[Path, Referee] = {}

    def find(file: Path) -> Referee:
        if file not in known:
            known[file] = Referee(file, tmp_path_factory.mktemp("referee"))
        return known[file]

    return find


@pytest.fixture(scope="session")
def counties() -> pd.DataFrame:
    """Males by age bracket in five counties of Alabama, 2000 and 2010 (US Census Bureau)."""
    rows = {
        (1, 1): "3375 3630 2461 3407 3283 2319 1637 825 284 3867 4384 3082 3598 4148 3390 2293 1353 454",
        (1, 3): "9323 10094 7600 9725 10379 8519 6675 4711 1822 11446 12006 9976 11042 12517 12368 10623 6307 2911",
        (1, 5): "2002 2198 2412 2465 2178 1699 1026 689 301 1673 1739 2260 2208 2233 1910 1490 739 324",
        (1, 7): "1546 1460 1680 1762 1624 1237 774 475 187 1471 1577 1798 2016 1928 1581 1140 579 211",
        (1, 9): "3741 3615 3393 3901 3773 3007 2227 1269 550 3741 4252 3312 3719 4129 3782 3052 1723 652",
    }
    names = [f"dec_{i}" for i in range(1, 10)]
    return pd.DataFrame(
        [[float(number) for number in row.split()] for row in rows.values()],
        index=pd.MultiIndex.from_tuples(rows, names=["state", "county"]),
        columns=pd.MultiIndex.from_product([["2000", "2010"], names]),
    )
