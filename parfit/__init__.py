"""parfit: fit one model to thousands of independent datasets, in parallel, in one call."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # what the lazy names below are, for type checkers and editors
    from parfit import datasets
    from parfit.apply import apply_by_multiprocessing
    from parfit.batched.tracing.jaxify import jaxify
    from parfit.core.errors import (
        DownloadError,
        FitError,
        FitInterrupted,
        InvalidInputError,
        InvalidTypeError,
        MethodMismatchError,
        MissingPackageError,
        ModelError,
        ParfitError,
        ParfitWarning,
        RemoteError,
        SetupError,
        StoreError,
        StoreMismatchError,
        TaskTimeoutError,
        UnknownNameError,
        WorkerLostError,
    )
    from parfit.core.protocols import Executor, Solver, Store
    from parfit.core.solution import Solution, Status
    from parfit.curves import curve_fit
    from parfit.executors.cpus import cpu_count
    from parfit.executors.workers.idle import shutdown_workers
    from parfit.fitting import fit
    from parfit.fitting.stored import open_store
    from parfit.mdl import Model, load_model
    from parfit.optimtools import SPSA, Pool, ProducerConsumer, async_apply, async_map
    from parfit.parted import PartedFits
    from parfit.results import Fits
    from parfit.sweeping import sweep

__version__ = "0.1.0"

#: public name -> module; a module is imported when its first name is asked for
_HOME = {
    "fit": "parfit.fitting",
    "open_store": "parfit.fitting.stored",
    "Fits": "parfit.results",
    "PartedFits": "parfit.parted",
    "curve_fit": "parfit.curves",
    "jaxify": "parfit.batched.tracing.jaxify",
    "apply_by_multiprocessing": "parfit.apply",
    "sweep": "parfit.sweeping",
    "load_model": "parfit.mdl",
    "Model": "parfit.mdl",
    "async_map": "parfit.optimtools",
    "async_apply": "parfit.optimtools",
    "Pool": "parfit.optimtools",
    "ProducerConsumer": "parfit.optimtools",
    "SPSA": "parfit.optimtools",
    "cpu_count": "parfit.executors.cpus",
    "shutdown_workers": "parfit.executors.workers.idle",
    "Status": "parfit.core.solution",
    "Solution": "parfit.core.solution",
    "Solver": "parfit.core.protocols",
    "Executor": "parfit.core.protocols",
    "Store": "parfit.core.protocols",
    **dict.fromkeys(
        (
            "DownloadError",
            "FitError",
            "FitInterrupted",
            "InvalidInputError",
            "InvalidTypeError",
            "MethodMismatchError",
            "MissingPackageError",
            "ModelError",
            "ParfitError",
            "ParfitWarning",
            "RemoteError",
            "SetupError",
            "StoreError",
            "StoreMismatchError",
            "TaskTimeoutError",
            "UnknownNameError",
            "WorkerLostError",
        ),
        "parfit.core.errors",
    ),
}

__all__ = [
    "SPSA",
    "DownloadError",
    "Executor",
    "FitError",
    "FitInterrupted",
    "Fits",
    "InvalidInputError",
    "InvalidTypeError",
    "MethodMismatchError",
    "MissingPackageError",
    "Model",
    "ModelError",
    "ParfitError",
    "ParfitWarning",
    "PartedFits",
    "Pool",
    "ProducerConsumer",
    "RemoteError",
    "SetupError",
    "Solution",
    "Solver",
    "Status",
    "Store",
    "StoreError",
    "StoreMismatchError",
    "TaskTimeoutError",
    "UnknownNameError",
    "WorkerLostError",
    "__version__",
    "apply_by_multiprocessing",
    "async_apply",
    "async_map",
    "cpu_count",
    "curve_fit",
    "datasets",
    "fit",
    "jaxify",
    "load_model",
    "open_store",
    "shutdown_workers",
    "sweep",
]


def __getattr__(name: str) -> Any:
    if name == "datasets":
        return importlib.import_module("parfit.datasets")
    if name not in _HOME:
        raise AttributeError(f"module 'parfit' has no attribute {name!r}")
    found = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted(__all__)
