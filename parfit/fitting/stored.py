"""The file that a call of `fit` keeps its solutions in, and a `Fits` of what such a file holds."""

from __future__ import annotations

import functools
import os
import platform
import warnings
from dataclasses import fields, is_dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from parfit.core.columns import Columns
from parfit.core.data import Datasets
from parfit.core.errors import InvalidInputError, ParfitError, ParfitWarning
from parfit.core.fingerprint import digest, digest_and_parts
from parfit.core.origin import Origin
from parfit.core.parameters import Parameters, settled
from parfit.core.problem import Problem
from parfit.core.protocols import Solver
from parfit.core.rowprints import of_columns
from parfit.core.scope import scope_of
from parfit.core.structure import Structure
from parfit.fitting.kinds import reconcile
from parfit.results import Fits
from parfit.stores.folder import is_parts
from parfit.stores.matching import merged
from parfit.stores.reading import Argument, Identity, read_store
from parfit.stores.sqlite import SqliteStore, Wanted
from parfit.stores.texts import index_as_json, index_from_json, tree_as_json, tree_from_json

__all__ = ["fingerprints_of", "held_by", "identity_of", "open_store", "store_for", "structure_of"]

#: Whose versions are noted.
_PACKAGES = ("parfit", "numpy", "scipy", "pandas", "jax", "jaxlib", "pysd")
#: Labels whose `repr` says all of them; that of others may have an address in it, or the order of a set.
_SAYS_ALL = (str, int, float, bool, type(None), bytes, pd.Timestamp, pd.Timedelta, pd.Period, type(pd.NaT), type(pd.NA))


def open_store(path: str | os.PathLike[str]) -> Fits:
    """The fits that a store holds, also while another process writes it, and after a crash.

    Parameters
    ----------
    path
        The file or folder that was given to `fit` as ``store``. Nothing in it is executed.

    Returns
    -------
    Fits
        As `fit` returns it, a `PartedFits` for a folder of Parquet files; datasets that are not done yet are
        ``not_run``. It has neither data nor objective: `refit`, `debug` and `sensitivity` are for what `fit` itself
        returns, which takes no time where the store is full.
    """
    if is_parts(path):
        from parfit.fitting.parted import open_parts

        return open_parts(Path(path))  # type: ignore[return-value]
    return held_by(path)[0]


def held_by(path: str | os.PathLike[str]) -> tuple[Fits, dict[str, Any]]:
    """The fits in a file of SQLite, and what else it says of itself."""
    stored = read_store(path)
    if stored.damage:
        warnings.warn(f"{path} is damaged: {stored.damage}", ParfitWarning, stacklevel=3)
    facts = stored.identity.facts
    labels = index_from_json(facts["labels"])
    columns = Columns(len(labels), len(facts["names"]))
    held = merged(stored.rows, len(facts["names"]))
    inside = np.flatnonzero(held.positions < len(labels))
    columns.place(held.positions[inside], held.columns.taken(inside))
    engine = facts.get("engine") or "rows"
    if engine == "rows":
        columns = reconcile(columns)
    made = f"written by parfit {facts['versions'].get('parfit')}"
    seconds = float(np.nansum(columns.floats_of("seconds")))
    origin = Origin(engine, made, seconds, f"store {path}", facts["maximize"])
    return Fits(columns, labels, structure_of(facts), origin), facts


def store_for(
    path: str | os.PathLike[str],
    datasets: Datasets,
    problem: Problem,
    solver: Solver,
    given: dict[str, Any],
    facts: dict[str, Any] | None = None,
) -> SqliteStore:
    """The store at a path, for one call of `fit`, which notes some more facts; not opened yet."""
    identity = identity_of(datasets, problem, solver, given)
    return SqliteStore(
        path,
        identity._replace(facts={**identity.facts, **(facts or {})}),
        _wanted(datasets, problem),
        retry_failed=given["retry_failed"],
        warm_start=given["warm_start"],
        overwrite=given["overwrite"],
    )


def identity_of(datasets: Datasets, problem: Problem, solver: Solver, given: dict[str, Any]) -> Identity:
    """Of what the table of a call is."""
    if not problem.parameters.names:
        raise InvalidInputError("a store needs to know the parameters' names, and without data x0(dataset) has none")
    return Identity(_call(problem, solver, given), _facts(datasets, problem))


def fingerprints_of(datasets: Datasets, p: Parameters) -> NDArray[np.uint64]:
    """What each dataset is, its label, its own start and bounds included, shape (B, 2)."""
    return _fingerprints(datasets, p, _numbers_of(datasets.labels))


def _wanted(datasets: Datasets, problem: Problem) -> Wanted:
    """What the datasets are. A label counts where the objective can see it."""
    p = problem.parameters
    shape = (len(datasets), len(p.names))
    labels = _numbers_of(datasets.labels)
    fingerprints = _fingerprints(datasets, p, labels if datasets.shows_labels else None)
    start = np.full(shape, np.nan)
    if p.start_of is None and p.bounds_of is None:
        start[:] = settled(p.start, p.lower, p.upper, p.fixed)
    return Wanted(fingerprints, labels, start)


def _fingerprints(datasets: Datasets, p: Parameters, labels: NDArray[np.uint64] | None) -> NDArray[np.uint64]:
    own = [v for v in (labels, p.start, p.lower, p.upper) if v is not None and (v.ndim == 2 or v is labels)]
    fingerprints = datasets.fingerprints()
    # Mixed once more, all together: a start that is equal to the data must not take them out again.
    return of_columns([fingerprints, *own], len(datasets)) if own else fingerprints


def _numbers_of(labels: pd.Index[Any]) -> NDArray[np.uint64]:
    """A number for each label, shape (B,): a whole number is its own, whatever index it stands in."""
    if isinstance(labels.dtype, np.dtype) and labels.dtype.kind in "iu":
        return labels.to_numpy().astype(np.int64).view(np.uint64)
    cells = list(labels)
    made: NDArray[np.uint64] = pd.util.hash_array(np.array(list(map(_said, cells)), dtype=object), categorize=False)
    for i, cell in enumerate(cells if labels.dtype.kind in "Oiu" else ()):
        if isinstance(cell, (int, np.integer)) and not isinstance(cell, bool) and -(2**63) <= cell < 2**64:
            made[i] = int(cell) & (2**64 - 1)
    return made


def _said(label: Any) -> str:
    """A label as text, the same in every process."""
    if isinstance(label, tuple):
        return f"({', '.join(map(_said, label))})"
    if isinstance(label, (np.integer, np.floating)):
        return repr(label.item())
    return repr(label) if type(label) in _SAYS_ALL else digest(label).hex()


def _call(problem: Problem, solver: Solver, given: dict[str, Any]) -> dict[str, Argument]:
    """What decides the table, by the name of the argument of `fit` that says it."""
    p = problem.parameters
    parts: dict[str, tuple[Any, str]] = {
        "objective": (problem.objective, _named(problem.objective)),
        "args": (problem.args, ", ".join(type(value).__name__ for value in problem.args) or "none"),
        "x0": ((_common(p), _handed(p)), _short(given["x0"])),
        "bounds": (_bounds(p), _short(given["bounds"])),
        "fixed": (p.fixed, _short([name for name, is_fixed in zip(p.names, p.fixed, strict=True) if is_fixed])),
        "constraints": (problem.constraints, f"{len(problem.constraints)} of them"),
        "method": (_settings(solver), _short(given["method"])),
        "options": (_options(solver, given), _short(given["options"] or None)),
        "jac": (problem.jac, _named(problem.jac)),
        "maximize": (problem.maximize, str(problem.maximize)),
        "seed": (problem.seed, str(problem.seed)),
        "history": (problem.history, str(problem.history)),
    }
    found, home = {}, scope_of(problem.objective).home
    for name, (what, shown) in parts.items():
        try:
            whole, of_parts = digest_and_parts(what, home)
            found[name] = Argument(whole.hex(), shown, {part: mark.hex() for part, mark in of_parts.items()})
        except InvalidInputError as exc:
            raise InvalidInputError(f"{name}: {exc}") from None
    return found


def _common(p: Parameters) -> Any:
    """The start, as far as it is the same for all datasets."""
    return p.start_of if p.start_of is not None else p.start if p.start.ndim == 1 else "one for each dataset"


def _handed(p: Parameters) -> Any:
    """What the objective is handed, but for the numbers in it: the structure, and other columns of a table."""
    return p.structure.unflatten(np.zeros(len(p.names)))


def _bounds(p: Parameters) -> Any:
    return p.bounds_of, *(v if v.ndim == 1 else "one for each dataset" for v in (p.lower, p.upper))


def _settings(solver: Solver) -> Any:
    """A solver's type and parameters, without its options, which are compared by themselves."""
    if not is_dataclass(solver):
        return solver
    return type(solver), {f.name: getattr(solver, f.name) for f in fields(solver) if f.name != "options"}


def _options(solver: Solver, given: dict[str, Any]) -> Any:
    """The options, be they given by themselves or with a solver; none is as good as no others than the usual."""
    own = getattr(solver, "options", None)
    return (dict(given["options"]) if given["options"] else None), (dict(own) if own else None)


def _named(thing: Any) -> str:
    return getattr(thing, "__qualname__", None) or (_short(thing) if not callable(thing) else type(thing).__qualname__)


def _short(value: Any) -> str:
    """A value where it is short and says something; data are not shown."""
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001 - the user's own, or nested too deeply
        text = "\n"
    return text if len(text) <= 60 and "\n" not in text and " at 0x" not in text else f"a {type(value).__name__}"


def _facts(datasets: Datasets, problem: Problem) -> dict[str, Any]:
    structure = problem.parameters.structure
    return {
        "names": list(structure.names),
        "structure": tree_as_json(structure.unflatten(np.zeros(len(structure)))),
        "labels": index_as_json(datasets.labels),
        "maximize": problem.maximize,
        "versions": _versions(),
    }


@functools.cache
def _versions() -> dict[str, str | None]:
    found: dict[str, str | None] = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    return found


def structure_of(facts: dict[str, Any]) -> Structure:
    """The parameters' own structure; a dict of their names where it cannot be had."""
    names = facts["names"]
    try:
        found = Structure(tree_from_json(facts["structure"]))
        if list(found.names) == names:
            return found
    except ParfitError:
        pass
    return Structure(dict.fromkeys(names, 0.0))
