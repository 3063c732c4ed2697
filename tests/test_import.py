"""What `import parfit` costs: the modules that it loads, not the time that it takes."""

from __future__ import annotations

import functools
import importlib.util
import json
import subprocess
import sys

import pytest

import parfit

#: Heavy, optional, or another room's own.
HEAVY = ("jax", "jaxlib", "pysd", "xarray", "matplotlib", "dask", "ray", "pooch", "pyarrow", "IPython", "sqlite3")


@functools.cache
def loaded_by(code: str) -> frozenset[str]:
    """The modules that a fresh interpreter has after `code`, parfit's by their full names and others by their roots."""
    script = f"{code}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60)
    assert ran.returncode == 0, ran.stderr
    modules = json.loads(ran.stdout.splitlines()[-1])
    return frozenset(m if m.startswith("parfit") else m.partition(".")[0] for m in modules)


def heavy(code: str) -> frozenset[str]:
    """The heavy packages that `code` loads and pandas does not (which loads pyarrow where that is installed)."""
    return (loaded_by(code) & set(HEAVY)) - loaded_by("import pandas")


def test_import_loads_nothing_but_itself() -> None:
    found = loaded_by("import parfit")
    assert {m for m in found if m.startswith("parfit")} == {"parfit"}
    assert not found & {*HEAVY, "numpy", "pandas", "scipy", "loky", "joblib"}


@pytest.mark.parametrize("name", ["fit", "apply_by_multiprocessing", "sweep", "async_map", "ProducerConsumer", "SPSA"])
def test_names_that_fit_load_no_heavy_package(name: str) -> None:
    assert not heavy(f"from parfit import {name}")


def test_a_fit_loads_no_heavy_package() -> None:
    code = (
        "import parfit\n"
        "fits = parfit.fit([1.0, 2.0], lambda x, data: (x - data) ** 2, [0.0], executor='serial')\n"
        "assert fits.success.all()\n"
    )
    assert not heavy(code)


def test_a_fit_in_workers_leaves_the_optimisers_to_them() -> None:
    code = (
        "import sys, parfit\n"
        "fits = parfit.fit([1.0, 2.0], lambda x, data: x - data, [0.0], bounds=[(-9, 9)], workers=1)\n"
        "assert fits.success.all() and fits.stderr.size and fits.summary.size and repr(fits)\n"
        "assert 'scipy.optimize' not in sys.modules and 'scipy.linalg' not in sys.modules\n"
        "assert fits[0].success and 'scipy.optimize' in sys.modules\n"
    )
    loaded_by(code)


def test_load_model_itself_loads_no_pysd() -> None:
    assert not heavy("from parfit import Model, load_model")


def test_plots_load_no_matplotlib() -> None:
    assert "matplotlib" not in loaded_by("import parfit.plots")


@pytest.mark.parametrize("name", parfit.__all__)
def test_each_public_name_is_there(name: str) -> None:
    if name == "jaxify" and importlib.util.find_spec("jax") is None:
        with pytest.raises(ImportError, match="pip install"):
            _ = parfit.jaxify
    else:
        assert getattr(parfit, name) is not None
    assert name in dir(parfit)


def test_a_name_that_does_not_exist() -> None:
    with pytest.raises(AttributeError, match="no attribute 'fitt'"):
        _ = parfit.fitt  # type: ignore[attr-defined]


def test_the_public_names_are_those_of_the_lazy_table() -> None:
    assert sorted(parfit.__all__) == sorted({*parfit._HOME, "datasets", "__version__"})


def test_what_keeps_data_in_a_worker_leaves_pandas_out() -> None:
    assert "pandas" not in loaded_by("import parfit.executors.keeping.shelf, parfit.executors.keeping.resident")
