"""Check and convert every argument of `fit`, once, before anything runs."""

from __future__ import annotations

import functools
import importlib.util
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from parfit import executors, solvers
from parfit.core.data import Datasets, read_data
from parfit.core.errors import InvalidInputError, InvalidTypeError, missing_package, refuse_unknown
from parfit.core.parameters import read_parameters
from parfit.core.problem import Problem
from parfit.core.protocols import Store
from parfit.core.structure import Structure
from parfit.fitting.call import Call, is_in_parts
from parfit.fitting.engines import ENGINES
from parfit.fitting.worker import random_state
from parfit.parquet import ParquetRows, is_parquet

__all__ = ["prepare"]

_DERIVATIVES = ("2-point", "3-point", "cs", "jax")


def prepare(given: dict[str, Any], like: Structure | None = None, *, inside: bool = False) -> Call:
    """The call that the arguments of `fit` ask for.

    `like` and `inside` are those of `read_parameters`, for a call that is made again.

    Raises
    ------
    InvalidInputError, InvalidTypeError, UnknownNameError
        For what no dataset can be fitted with.
    """
    objective, store = given["objective"], given["store"]
    if not callable(objective):
        raise InvalidTypeError(f"objective must be callable, not {type(objective).__name__}")
    for name, choices in (("engine", ENGINES), ("on_error", ("record", "raise"))):
        if given[name] not in choices:
            refuse_unknown(f"value of `{name}`", given[name], choices)
    if store is not None and not isinstance(store, (str, os.PathLike, Store)):
        raise InvalidTypeError(f"store must be a path, a parfit Store or None, not {type(store).__name__}")
    if not isinstance(store, (str, os.PathLike)):
        _refuse_without_path(given)
    elif "\0" in str(store) or not Path(store).name or (os.path.isdir(store) and not is_in_parts(store)):
        raise InvalidInputError(f"store={str(store)!r} is no name of a file")
    elif is_in_parts(store):
        for name in ("warm_start", "history"):
            if given[name]:
                raise InvalidInputError(f"{name}=True is for a store in a SQLite file, such as store='fits.db'")
    seed = given["seed"]
    if seed is not None and (isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0):
        raise InvalidInputError(f"seed must be a whole number from 0 on, or None, not {seed!r}")
    _check_number("timeout", given["timeout"], above=0)
    chunk_size = _whole("chunk_size", given["chunk_size"], least=1)
    retries = _whole("retries", given["retries"], least=0)
    if retries is None:
        raise InvalidTypeError("retries must be a number, not None")
    constraints = solvers.read_constraints(given["constraints"])
    options = given["options"]
    if options is not None and not isinstance(options, Mapping):
        raise InvalidTypeError(f"options must be a dict of the method's options, not {type(options).__name__}")
    options, dtype = _precision(options)
    datasets = ParquetRows(given["data"]) if is_parquet(given["data"]) else read_data(given["data"])
    given = {**given, "dtype": dtype, "data": datasets}
    first = functools.partial(_first, datasets)
    with random_state(kept=True):  # x0(dataset) may draw from it
        start = (given["x0"], given["bounds"], given["fixed"])
        labels = _labels_for(datasets, given["x0"], given["bounds"])
        parameters = read_parameters(*start, labels, first, like=like, inside=inside)
    solver = solvers.resolve(given["method"], options, constrained=bool(constraints))
    if parameters.names:  # which are unknown where x0 is a callable and there are no data
        with random_state(kept=True):  # and so may a constraint
            solvers.refuse_unsuited(solver, parameters, constraints)
    problem = Problem(
        objective=objective,
        parameters=parameters,
        args=given["args"] if isinstance(given["args"], tuple) else (given["args"],),
        maximize=bool(given["maximize"]),
        jac=_derivative(given["jac"]),
        constraints=constraints,
        seed=None if seed is None else int(seed),
        history=bool(given["history"]),
    )
    return Call(
        datasets=datasets,
        problem=problem,
        solver=solver,
        executor=executors.resolve(given["executor"], given["workers"], given["timeout"], given["memory_limit"]),
        chunk_size=chunk_size,
        timeout=given["timeout"],
        retries=retries,
        on_error=given["on_error"],
        store=store,
        progress=given["progress"],
        given=given,
        prepare=prepare,
    )


def _refuse_without_path(given: Mapping[str, Any]) -> None:
    for name in ("retry_failed", "warm_start", "overwrite"):
        if given[name]:
            raise InvalidInputError(f"{name}=True is for a store on disk, such as store='fits.db'")


def _precision(options: Mapping[str, Any] | None) -> tuple[Mapping[str, Any] | None, Any]:
    """The options without ``dtype``, which is the batched engine's own: float64 unless float32 is asked for."""
    if not options or "dtype" not in options:
        return options, np.float64
    try:
        dtype = np.dtype(options["dtype"])
    except TypeError:
        dtype = np.dtype(object)
    if dtype not in (np.float32, np.float64):
        raise InvalidInputError(f"option 'dtype' must be 'float64' or 'float32', not {options['dtype']!r}")
    return {name: value for name, value in options.items() if name != "dtype"}, dtype.type


def _check_number(name: str, value: Any, *, above: int) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)):
        raise InvalidTypeError(f"{name} must be a number, not {value!r}")
    if not value > above:
        raise InvalidInputError(f"{name} must be above {above}, not {value!r}")


def _whole(name: str, value: Any, *, least: int) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)):
        raise InvalidTypeError(f"{name} must be a number, not {value!r}")
    if not np.isfinite(value) or value < least or value != int(value):
        raise InvalidInputError(f"{name} must be a whole number, at least {least}, not {value!r}")
    return int(value)


def _derivative(jac: Any) -> Any:
    if jac is None or jac is False:
        return None
    if callable(jac) or jac is True:
        return jac
    if not isinstance(jac, str):
        raise InvalidTypeError(f"jac must be a function, True, or one of {_DERIVATIVES}, not {type(jac).__name__}")
    if jac not in _DERIVATIVES:
        refuse_unknown("value of `jac`", jac, _DERIVATIVES)
    if jac == "jax" and importlib.util.find_spec("jax") is None:
        raise missing_package("jax", "jac='jax'", "jax")
    return jac


def _labels_for(datasets: Datasets, *given: Any) -> pd.Index[Any]:
    """The labels, to align frames with; where there are no frames they need not be read."""
    parts = (part for one in given for part in ((one, *one) if isinstance(one, (tuple, list)) else (one,)))
    if datasets.window is None or any(isinstance(part, pd.DataFrame) for part in parts):
        return datasets.labels
    return pd.RangeIndex(len(datasets))


def _first(datasets: Datasets, function: Callable[[Any], Any]) -> Any:
    """`function` of the first dataset that it does not raise on."""
    error: Exception | None = None
    for position in range(len(datasets)):
        try:
            return function(datasets.one(position))
        except Exception as exc:  # noqa: BLE001 - the user's own function, on a dataset that may be bad
            error = error or exc
    assert error is not None, "there is a dataset to call it with"
    raise InvalidInputError(f"x0(dataset) raises for every dataset: {type(error).__name__}: {error}") from error
