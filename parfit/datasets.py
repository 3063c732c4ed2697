"""The data of the worked example: males by ten-year age bracket, US counties, 2000 and 2010.

One layout for all of it, the census file's own: two header rows (year over ``dec_1`` … ``dec_9``) and a
``state, county`` index. Three sources share it: five real counties that ship with parfit, 3,137 synthetic
ones drawn from known loss rates, and the whole real file, which is fetched on request.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import logging
import os
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from parfit.core.errors import DownloadError, InvalidInputError, missing_package

__all__ = [
    "CENSUS_SHA256",
    "CENSUS_URL",
    "CENSUS_VARIABLE",
    "MissingFileError",
    "aging_chain_path",
    "fetch_census",
    "load_alabama",
    "load_census",
    "load_synthetic",
    "load_synthetic_rates",
    "make_synthetic",
    "read_counties",
]

CENSUS_URL = (
    "https://raw.githubusercontent.com/JamesPHoughton/PySD-Cookbook/master/"
    "source/data/Census/Males%20by%20decade%20and%20county.csv"
)
CENSUS_SHA256 = "6ae09c9f4795a14a7f1981ea5cd7d6a534fe140d9056f77de38505cd8daea670"
CENSUS_VARIABLE = "PARFIT_CENSUS_CSV"

_YEARS = ("2000", "2010")
_COHORTS = tuple(f"dec_{i}" for i in range(1, 10))
_COLUMNS = pd.MultiIndex.from_product([_YEARS, _COHORTS])

# Sizes and age profile: the median size, the spread of log size and the national shares of the 2000 census
# counts, rounded. Loss rates: centred on what those counts and the 2010 ones give for the country as a
# whole under the chain of `_age`. They are not mortalities: a chain of nine stocks lets some of each cohort
# through early, and the rates make up for it.
_MEDIAN_SIZE = 12_200.0
_SPREAD_SIZE = 1.6
_SHARES = np.array([0.147, 0.152, 0.141, 0.157, 0.152, 0.109, 0.069, 0.050, 0.023])
_SPREAD_SHARES = np.array([0.15, 0.12, 0.22, 0.13, 0.10, 0.13, 0.20, 0.26, 0.34])
_RATES = np.array([0.005, -0.040, 0.010, 0.005, -0.005, -0.010, 0.010, 0.060, 0.190])
_SPREAD_RATES = np.array([0.010, 0.020, 0.030, 0.020, 0.015, 0.012, 0.020, 0.025, 0.030])
_SPREAD_MIGRATION = 0.015
_RATE_LIMITS = (-0.1, 0.3)
_SPREAD_BIRTHS = 0.1
_COUNTIES_PER_STATE = 63

_TIME_STEP = 0.125  # years
_N_STEPS = 80  # 2000 to 2010


class MissingFileError(InvalidInputError, FileNotFoundError):
    """A file that was named, or that ships with parfit, is not there."""


def load_alabama() -> pd.DataFrame:
    """Read the males of five Alabama counties, as counted in 2000 and 2010.

    Returns
    -------
    DataFrame, shape (5, 18)
        Persons, as floats. Columns: year (``"2000"``, ``"2010"``) over cohort (``"dec_1"`` … ``"dec_9"``,
        ages 0-9 … 80 and over). Index: ``state`` and ``county``, their FIPS codes as floats.

    Notes
    -----
    Source: US Census Bureau, by way of the PySD-Cookbook; the first five rows of what `load_census` returns.

    Examples
    --------
    >>> float(load_alabama().loc[(1, 3), ("2010", "dec_9")])
    2911.0
    """
    return read_counties(_shipped("data", "alabama_counties.csv"))


def load_synthetic() -> pd.DataFrame:
    """Read the 3,137 synthetic counties: what `make_synthetic` draws, from the file that ships with parfit.

    Returns
    -------
    DataFrame, shape (3137, 18)
        Persons, as floats, in the layout of `load_alabama`. State codes begin at 101, where no real one is.
    """
    return read_counties(_shipped("data", "synthetic_counties.csv"))


def load_synthetic_rates() -> pd.DataFrame:
    """Read the true loss rates from which the counties of `load_synthetic` were drawn.

    Returns
    -------
    DataFrame, shape (3137, 9)
        Per year. Columns ``dec_1_loss_rate`` … ``dec_9_loss_rate``; the index is that of `load_synthetic`.
    """
    path = _shipped("data", "synthetic_loss_rates.csv")
    rates = pd.read_csv(path, index_col=[0, 1]).astype(float)
    return rates.set_axis(_float_labels(rates.index), axis="index")


def make_synthetic(n_counties: int = 3137, seed: int = 2010) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Draw synthetic counties and their true loss rates.

    Parameters
    ----------
    n_counties
        How many.
    seed
        Of the random numbers. The defaults give what `load_synthetic` and `load_synthetic_rates` read.

    Returns
    -------
    counties : DataFrame, shape (n_counties, 18)
        Persons, in the layout of `load_alabama`.
    rates : DataFrame, shape (n_counties, 9)
        The true loss rates per year, in the layout of `load_synthetic_rates`: multiples of 0.001 from -0.1
        to 0.3.

    Notes
    -----
    The counts of 2010 are Poisson draws around the ageing chain at the true rates: nine stocks, each losing
    a tenth a year to the next (the last, to none) and its loss rate to death and migration, by Euler's
    method at a step of 0.125 years. ``dec_2`` … ``dec_9`` are those of a chain without births; ``dec_1``
    alone has births, which hold it near its level of 2000. Without it, eight counts are left, which do not
    determine nine rates: a fit can match them as well as the true rates do, and differ from those.

    Examples
    --------
    >>> counties, rates = make_synthetic(4, seed=1)
    >>> counties.shape, rates.shape
    ((4, 18), (4, 9))
    """
    # RandomState is the one numpy generator whose stream never changes between versions (NEP 19).
    random = np.random.RandomState(seed)
    shape = (n_counties, len(_COHORTS))
    size = _MEDIAN_SIZE * np.exp(_SPREAD_SIZE * random.standard_normal((n_counties, 1)))
    profile = _SHARES * np.exp(_SPREAD_SHARES * random.standard_normal(shape))
    start = np.maximum(np.round(size * profile / profile.sum(axis=1, keepdims=True)), 1.0)

    migration = _SPREAD_MIGRATION * random.standard_normal((n_counties, 1))
    rates = _RATES + migration + _SPREAD_RATES * random.standard_normal(shape)
    rates = np.clip(np.round(rates, 3), *_RATE_LIMITS) + 0.0  # + 0.0: no negative zero in the file

    expected = _age(start, rates, 0.0)
    births = start[:, 0] * (0.1 + rates[:, 0]) * np.exp(_SPREAD_BIRTHS * random.standard_normal(n_counties))
    expected[:, 0] = _age(start, rates, births)[:, 0]
    end = random.poisson(expected).astype(float)

    position = np.arange(n_counties)
    index = pd.MultiIndex.from_arrays(
        [101.0 + position // _COUNTIES_PER_STATE, 1.0 + 2.0 * (position % _COUNTIES_PER_STATE)],
        names=["state", "county"],
    )
    counties = pd.DataFrame(np.hstack([start, end]), index=index, columns=_COLUMNS)
    return counties, pd.DataFrame(rates, index=index, columns=[f"{c}_loss_rate" for c in _COHORTS])


def load_census(path: str | os.PathLike[str] | None = None) -> pd.DataFrame:
    """Read the real counties: from a file where there is one, else by `fetch_census`.

    Parameters
    ----------
    path
        The census file. By default the one that the environment variable ``PARFIT_CENSUS_CSV`` names, and
        where that is not set, the one that `fetch_census` fetches and keeps.

    Returns
    -------
    DataFrame, shape (3137, 18)
        Persons, as floats, in the layout of `load_alabama`.

    Raises
    ------
    MissingFileError, InvalidInputError
        As for `read_counties`; also where the variable names a file that is not there.
    DownloadError, MissingPackageError
        As for `fetch_census`.
    """
    if path is not None:
        return read_counties(path)
    named = os.environ.get(CENSUS_VARIABLE)
    if not named:
        return fetch_census()
    if not Path(named).expanduser().is_file():
        raise MissingFileError(
            f"the environment variable {CENSUS_VARIABLE} names {named!r}, and there is no such file: "
            "correct it, or unset it to have the census file fetched"
        )
    return read_counties(named)


def fetch_census(
    cache_dir: str | os.PathLike[str] | None = None,
    url: str = CENSUS_URL,
    known_hash: str | None = CENSUS_SHA256,
    *,
    timeout_s: float = 30.0,
) -> pd.DataFrame:
    """Fetch the census file of the PySD-Cookbook, once, and read it from the cache from then on.

    Needs pooch: ``pip install 'parfit[data]'``.

    Parameters
    ----------
    cache_dir
        Folder to keep the file in, made where missing. By default parfit's own in the user's cache folder.
    url
        Where to fetch it from (http or https).
    known_hash
        Its SHA-256, or ``"algorithm:digest"``. A cached file that differs is fetched again, a fetched one
        that differs is refused. None checks nothing but the layout.
    timeout_s
        Seconds without an answer from the server after which to give up.

    Returns
    -------
    DataFrame, shape (3137, 18)
        Persons, as floats, in the layout of `load_alabama`.

    Raises
    ------
    DownloadError
        No connection, an error from the server, a transfer that broke off, a file that is not the one asked
        for, or a cache folder that cannot be written. No bad file is left in the cache.
    MissingPackageError
        pooch is not installed.
    """
    try:
        import pooch
    except ImportError as error:
        raise missing_package("pooch", "fetching the census file", "data") from error

    folder = Path(cache_dir).expanduser() if cache_dir is not None else Path(pooch.os_cache("parfit"))
    # Named after what it must hold, so that no call can take another's file for its own.
    key = hashlib.sha256((known_hash or url).encode()).hexdigest()[:12]
    cached = folder / f"males_by_decade_and_county-{key}.csv"
    try:
        with _quiet(pooch.get_logger()):
            pooch.retrieve(url, known_hash, cached.name, folder, downloader=partial(_download, timeout_s))
        return read_counties(cached)
    except (OSError, ValueError) as error:
        # Were what lies under this name now the right file, it would have been returned.
        with contextlib.suppress(OSError):
            cached.unlink()
        what, remedy = _explain(error, timeout_s)
        raise DownloadError(
            f"could not fetch the census file: {what} ({error}). From: {url}. Into: {folder}. {remedy}; or "
            f"get the file by other means and set {CENSUS_VARIABLE} to its path for load_census()."
        ) from error


def read_counties(path: str | os.PathLike[str]) -> pd.DataFrame:
    """Read a file in the layout of the census file.

    Parameters
    ----------
    path
        A CSV file: two header rows, year (``2000``, ``2010``) over cohort (``dec_1`` … ``dec_9``), then a
        row that names the index (``state,county``), then a row per county.

    Returns
    -------
    DataFrame, shape (B, 18)
        Persons, as floats (NaN where a field is empty), in the layout of `load_alabama`; further columns are
        kept. Labels are as they stand in the file, duplicates included.

    Raises
    ------
    MissingFileError
        There is no such file.
    InvalidInputError
        The file is not in this layout, or a field is not a number.
    """
    source = Path(path).expanduser()
    if not source.is_file():
        raise MissingFileError(f"there is no file {str(path)!r} (current folder: {str(Path.cwd())!r})")
    layout = (
        "expected two header rows (2000 and 2010 over dec_1 … dec_9), a row 'state,county', "
        "then one row of 2 + 18 numbers per county"
    )
    try:
        counties = pd.read_csv(source, header=[0, 1], index_col=[0, 1], low_memory=False)
    except (ValueError, IndexError) as error:
        raise InvalidInputError(f"{str(path)!r} is not in the census file's layout: {error}; {layout}") from error
    missing = [" ".join(c) for c in _COLUMNS if c not in counties.columns]
    if missing or list(counties.index.names) != ["state", "county"]:
        found = f"index {list(counties.index.names)}, {len(missing)} columns missing: {', '.join(missing[:4])}"
        raise InvalidInputError(f"{str(path)!r} is not in the census file's layout: {found}; {layout}")
    try:
        return counties.astype(float).set_axis(_float_labels(counties.index), axis="index")
    except (ValueError, TypeError) as error:
        raise InvalidInputError(f"{str(path)!r} has a field that is not a number: {error}") from error


def aging_chain_path() -> Path:
    """Give the path of the Vensim model of the worked example, in the checkout or the installed package."""
    return _shipped("models", "Aging_Chain.mdl")


def _shipped(folder: str, name: str) -> Path:
    """Find a file of the top-level `folder`, which an installed parfit has inside the package, as _folder."""
    package = Path(__file__).resolve().parent
    places = (package / f"_{folder}" / name, package.parent / folder / name)
    for place in places:
        if place.is_file():
            return place
    raise MissingFileError(
        f"{name} ships with parfit and is at neither {places[0]} nor {places[1]}: install parfit again"
    )


def _float_labels(index: pd.Index) -> pd.MultiIndex:
    """Make a state, county index of floats, as the census file's own labels read."""
    levels = [index.get_level_values(i).astype(float) for i in (0, 1)]
    return pd.MultiIndex.from_arrays(levels, names=["state", "county"])


def _age(
    start: npt.NDArray[np.float64], rates: npt.NDArray[np.float64], births: npt.NDArray[np.float64] | float
) -> npt.NDArray[np.float64]:
    """Run the ageing chain from 2000 to 2010; `start`, `rates` and the result are (B, 9), `births` (B,)."""
    persons = start
    for _ in range(_N_STEPS):
        birthdays = persons / 10.0
        change = -persons * rates
        change[:, :-1] -= birthdays[:, :-1]
        change[:, 1:] += birthdays[:, :-1]
        change[:, 0] += births
        persons = persons + _TIME_STEP * change
    return persons


@contextlib.contextmanager
def _quiet(logger: logging.Logger) -> Iterator[None]:
    """Hold back what `logger` says below a warning from this thread; its level is the user's to set."""
    thread = threading.get_ident()

    def keep(record: logging.LogRecord) -> bool:
        return record.thread != thread or record.levelno >= logging.WARNING

    logger.addFilter(keep)
    try:
        yield
    finally:
        logger.removeFilter(keep)


def _download(timeout_s: float, url: str, output_file: str, _: object) -> None:
    """Fetch as `pooch.HTTPDownloader` does, and close the connection where that fails, as it does not."""
    requests: Any = importlib.import_module("requests")
    with requests.get(url, timeout=timeout_s, stream=True) as response, open(output_file, "wb") as file:
        response.raise_for_status()
        for chunk in response.iter_content(chunk_size=65536):
            file.write(chunk)


def _explain(error: Exception, timeout_s: float) -> tuple[str, str]:
    """What went wrong in a download, and what to do about it."""
    requests: Any = importlib.import_module("requests.exceptions")
    if isinstance(error, requests.HTTPError):
        return "the server refused", "See whether the address is right"
    if isinstance(error, (requests.ChunkedEncodingError, requests.ContentDecodingError)):
        return "the transfer broke off", "Try again"
    # requests reports a time-out within the body as a ConnectionError.
    if isinstance(error, requests.Timeout) or "timed out" in str(error):
        return f"no answer within {timeout_s:g} s", "Try again, or with a larger timeout_s"
    if isinstance(error, requests.ConnectionError):
        return "no connection", "See whether this machine reaches the network"
    if isinstance(error, requests.RequestException):
        return "the request failed", "See whether the address is right"
    if isinstance(error, OSError):
        return "the cache folder cannot be used", "Give a cache_dir that can be written"
    if isinstance(error, InvalidInputError):
        return "what came is not the census file", "See whether the address is right"
    return "what came is not the file asked for", "Try again, and see whether known_hash is that of this file"
