"""The same table, bit for bit, whatever the executor, the number of workers and the size of a chunk."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pandas as pd
import pytest

import parfit

#: An odd number of columns: rows of a block begin at every alignment that there is.
T = np.linspace(0.0, 4.0, 37)
BASIS = np.random.default_rng(8).standard_normal((37, 37))


def data(rows: int = 11) -> pd.DataFrame:
    rng = np.random.default_rng(6)
    values = rng.uniform(1, 3, (rows, 1)) * np.exp(-rng.uniform(0.3, 1, (rows, 1)) * T)
    return pd.DataFrame(values + 0.05 * rng.standard_normal(values.shape))


def dots(p: Any, row: Any) -> Any:
    """Sums, dots and products of matrices, whose last bits depend on blocking, alignment and threads."""
    y = row.to_numpy()
    scale = np.sqrt(y @ y) + np.sum(y) / len(y) + np.linalg.norm(BASIS @ y) * 1e-3 + np.mean(y) + y.std()
    return (p[0] * np.exp(-p[1] * T) - y) / scale + 1e-9 * (BASIS @ (y * p[0])) + 1e-12 * np.add.reduce(y * p[1])


def draws(p: Any, row: Any) -> Any:
    """Random numbers from both of the global generators."""
    noise = np.random.standard_normal(T.size) + random.random()  # noqa: NPY002
    return p[0] * np.exp(-p[1] * T) - row.to_numpy() + 1e-6 * noise


def scalar(p: Any, row: Any) -> float:
    r = dots(p, row)
    return float(r @ r)


def noisy(p: Any, row: Any) -> float:
    r = draws(p, row)
    return float(r.dot(r))


OBJECTIVES = {"dots": dots, "draws": draws, "scalar": scalar, "noisy": noisy}
METHODS: dict[str, dict[str, Any]] = {
    "dots": {"method": "lm"},
    "draws": {"method": "trf", "options": {"max_nfev": 15, "diff_step": 1e-3}},
    "scalar": {"method": "L-BFGS-B"},
    "noisy": {"method": "spsa", "options": {"maxiter": 40}},
}


def table(name: str, frame: Any = None, **given: Any) -> pd.DataFrame:
    frame = data() if frame is None else frame
    fits = parfit.fit(frame, OBJECTIVES[name], [1.0, 1.0], history=True, **METHODS[name], **given)
    assert len(fits.errors) == 0
    made = fits.to_frame().drop(columns="seconds")
    trace = fits.history.groupby("label", sort=False)["cost"].agg(lambda costs: tuple(costs.tolist()))
    return made.assign(history=trace)


@pytest.fixture(scope="module")
def wanted() -> dict[str, pd.DataFrame]:
    return {name: table(name, executor="serial") for name in OBJECTIVES}


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize(
    ("executor", "workers", "chunk_size"),
    [
        ("serial", None, 1),
        ("serial", None, 3),
        ("processes", 1, None),
        ("processes", 2, None),
        ("processes", 2, 1),
        ("processes", 3, 3),
        ("producer_consumer", 2, None),
    ],
)
def test_the_same_bits(wanted: Any, name: str, executor: str, workers: int | None, chunk_size: int | None) -> None:
    got = table(name, executor=executor, workers=workers, chunk_size=chunk_size)
    pd.testing.assert_frame_equal(got, wanted[name], check_exact=True)


@pytest.mark.parametrize("name", ["dots", "scalar"])
def test_a_row_alone_has_the_same_bits(wanted: Any, name: str) -> None:
    for i in (0, 3, 10):
        alone = table(name, data().iloc[[i]], executor="serial")
        pd.testing.assert_frame_equal(alone, wanted[name].iloc[[i]], check_exact=True)


@pytest.mark.parametrize("form", [np.asarray, np.asfortranarray, lambda d: list(d), lambda d: d[::-1][::-1]])
def test_the_same_bits_from_arrays(wanted: Any, form: Any) -> None:
    def objective(p: Any, y: Any) -> Any:
        return dots(p, pd.Series(y, copy=False))

    array = form(data().to_numpy())
    for given in ({"executor": "serial"}, {"executor": "processes", "workers": 2, "chunk_size": 4}):
        fits = parfit.fit(array, objective, [1.0, 1.0], method="lm", **given)
        assert np.array_equal(fits.params, wanted["dots"][["x0", "x1"]])


def test_random_numbers_follow_the_seed_and_the_position(wanted: Any) -> None:
    pd.testing.assert_frame_equal(table("noisy", executor="serial", seed=0), wanted["noisy"], check_exact=True)
    other = table("noisy", executor="serial", seed=1)
    assert (other["x0"] != wanted["noisy"]["x0"]).all()
    again = table("noisy", executor="processes", workers=2, seed=1)
    pd.testing.assert_frame_equal(again, other, check_exact=True)
    same = pd.concat([data().iloc[[0]]] * 3, ignore_index=True)
    assert table("noisy", same, executor="serial")["x0"].nunique() == 3
    free = table("noisy", executor="serial", seed=None)
    assert (free["x0"] != wanted["noisy"]["x0"]).all()


@pytest.mark.parametrize("method", ["differential_evolution", "dual_annealing"])
def test_global_searches_follow_the_seed(method: str) -> None:
    options = {
        "differential_evolution": {"maxiter": 3, "popsize": 4, "polish": False},
        "dual_annealing": {"maxiter": 3, "no_local_search": True},
    }[method]
    given: dict[str, Any] = {"method": method, "options": options, "bounds": [(0, 5), (0, 5)]}
    frame = data(4)
    one, two, three = (
        parfit.fit(frame, scalar, [4.0, 4.0], seed=seed, executor=executor, workers=workers, **given).params
        for seed, executor, workers in ((1, "serial", None), (1, "processes", 2), (2, "serial", None))
    )
    pd.testing.assert_frame_equal(one, two, check_exact=True)
    assert (one != three).any(axis=None)


def test_large_seeds_and_many_positions() -> None:
    for seed in (0, 2**31, 2**63, 2**100):
        assert len(table("noisy", data(2), executor="serial", seed=seed)) == 2
