"""What an executor is asked for as: names and their typos, classes, and what becomes of it inside a worker."""

from __future__ import annotations

import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import parfit
from parfit.core.errors import InvalidInputError, InvalidTypeError, UnknownNameError
from parfit.executors import resolve
from parfit.executors.processes import ProcessesExecutor
from parfit.executors.producer_consumer import ProducerConsumerExecutor


@pytest.mark.parametrize("kind", [ProcessesExecutor, ThreadPoolExecutor])
def test_a_class_is_told_from_an_instance(kind):
    says = rf"executor is the class {kind.__name__}: give an instance, {kind.__name__}\(…\)"
    with pytest.raises(InvalidTypeError, match=says):
        resolve(kind, None)
    with pytest.raises(InvalidTypeError, match="not type"):
        resolve(int, None)


def test_a_recipe_is_checked_as_it_is_made():
    with pytest.raises(InvalidTypeError, match="load must be callable or None, not str"):
        ProducerConsumerExecutor(load="abc")
    with pytest.raises(InvalidTypeError, match="load_timeout must be a number of seconds or None, not 'abc'"):
        ProducerConsumerExecutor(load_timeout="abc")
    assert ProducerConsumerExecutor(load_timeout=3).load_timeout == 3.0


def test_a_typo_gets_the_nearest_match():
    with pytest.raises(UnknownNameError, match=r"unknown executor 'proceses'\. Did you mean 'processes'?"):
        resolve("proceses", None)


def fit_inside(folder):
    """A fit with `load` in a worker, where no workers may be started."""
    paths = sorted(str(path) for path in Path(folder).glob("*.txt"))
    recipe = ProducerConsumerExecutor(2, load=lambda path: np.loadtxt(path))
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        fits = parfit.fit(paths, lambda p, data: p[0] - data, [0.0], executor=recipe)
    return fits.params["x0"].tolist(), [str(w.message) for w in told]


def test_inside_a_worker_the_data_is_still_loaded(tmp_path):
    for i in range(3):
        np.savetxt(tmp_path / f"{i}.txt", np.full(4, float(i)))
    ((values, told),) = parfit.async_map(fit_inside, [tmp_path])
    np.testing.assert_allclose(values, [0.0, 1.0, 2.0], atol=1e-6)
    assert len(told) == 1
    assert "running serially there" in told[0]


def test_inside_a_worker_what_has_no_datasets_is_refused():
    def inside(_):
        recipe = ProducerConsumerExecutor(2, load=float)
        return parfit.sweep(lambda x: abs(x), {"x": [1]}, executor=recipe)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(InvalidInputError, match="was given `load`, but these tasks"):
            parfit.async_map(inside, [1])


def test_a_dataset_that_cannot_be_loaded_inside_a_worker_is_an_error_of_its_own(tmp_path):
    def inside(_):
        recipe = ProducerConsumerExecutor(2, load=lambda text: 1.0 / float(text))
        fits = parfit.fit(["1", "0", "2"], lambda p, x: (p[0] - x) ** 2, [0.0], executor=recipe)
        return fits.status.tolist(), fits.errors["message"].tolist()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ((status, messages),) = parfit.async_map(inside, [1])
    assert status == ["converged", "error", "converged"]
    assert messages == ["float division by zero"]
