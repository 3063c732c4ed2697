"""What a worker of `parfit.executors.keeping.shards` keeps, and the functions that use it there.

    parent                                          worker
    Fill(datasets, load, setup) ── first call ────▶ Shelf, State(shelf, setup())
    Keep(setup) ───────────────── later calls ────▶ the same Shelf, State(shelf, setup())

The shelf is a global of the worker's, so that it outlives the call: a worker belongs to one set of shards.
"""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from parfit.core.errors import InvalidTypeError
from parfit.core.group_names import name_of, named
from parfit.core.protocols import TaskFunction
from parfit.core.solution import TaskError
from parfit.executors import payload as pl
from parfit.executors.baggage import unsendable

__all__ = ["Apart", "Fill", "Keep", "OnKept", "Packed", "Score", "Scorer", "Shelf", "State", "greet", "load"]


class _Broken(NamedTuple):
    """In the place of what could not be pickled or unpickled."""

    error: TaskError


def _unpack(n_stream: int, segments: list[pl.Buffer], *name: Any) -> Any:
    try:
        return named(pl.loads((n_stream, segments)), *name)
    except Exception as exc:  # noqa: BLE001 - unpickling raises what it likes
        return _Broken(TaskError.from_exception(exc, skip_frames=1))


class Packed:
    """Something that is pickled by itself, without a copy: it arrives unpickled, or as what went wrong with it."""

    def __init__(self, obj: Any) -> None:
        self._payload = pl.dumps(obj)
        self._name = name_of(obj)

    def __reduce_ex__(self, protocol: Any) -> Any:
        n_stream, segments = self._payload
        return _unpack, (n_stream, [pickle.PickleBuffer(segment) for segment in segments], *self._name)


class Apart:
    """As `Packed`; what cannot be pickled arrives as the error that it gives."""

    def __init__(self, obj: Any) -> None:
        self._item: Packed | _Broken
        try:
            self._item = Packed(obj)
        except Exception as exc:  # noqa: BLE001
            self._item = _Broken(TaskError.from_exception(InvalidTypeError(unsendable("dataset", obj, exc))))

    def __reduce_ex__(self, protocol: Any) -> Any:
        if isinstance(self._item, Packed):
            return self._item.__reduce_ex__(protocol)
        return _Broken, tuple(self._item)


class Shelf:
    """Datasets by their position, and what `load` made of them.

    Parameters
    ----------
    share
        Pairs of a first position and the datasets from there on; or what went wrong with them.
    load
        Called once for each dataset. None: the datasets are handed out as they are, a copy each time, so that a task
        that writes into its dataset leaves the next one the same data, as it does where nothing is kept.
    """

    def __init__(self, share: list[tuple[int, Sequence[Any]]] | _Broken, load: Callable[[Any], Any] | None) -> None:
        self.broken = share.error if isinstance(share, _Broken) else None
        blocks = [] if isinstance(share, _Broken) else share
        self._load = load
        self._where = {start + i: (items, i) for start, items in blocks for i in range(len(items))}
        self._loaded: dict[int, Any] = {}

    def get(self, position: int) -> Any:
        """The dataset; raises what loading it raised."""
        if self._load is None:
            raw = self._raw(position)
            return named(copy.deepcopy(raw), *name_of(raw))
        self.load(position)
        found = self._loaded[position]
        if isinstance(found, _Broken):
            raise found.error.to_exception()
        return found

    def load(self, position: int) -> None:
        """Load a dataset that is not loaded; what that raises is kept in its place."""
        assert self._load is not None
        if position in self._loaded:
            return
        try:
            found = self._load(self._raw(position))
        except Exception as exc:  # noqa: BLE001 - each use of this dataset will raise it
            found = _Broken(TaskError.from_exception(exc, skip_frames=1))
        self._loaded[position] = found
        del self._where[position]

    def _raw(self, position: int) -> Any:
        items, i = self._where[position]
        item = items[i]
        if isinstance(item, _Broken):
            raise item.error.to_exception()
        return item


class State(NamedTuple):
    """What the tasks of a call are handed: the shelf, and what the call's own setup returned."""

    shelf: Shelf
    own: Any


_shelf: Shelf | None = None


class Fill:
    """The setup of a new worker: brings the datasets."""

    def __init__(self, share: Any, load: Callable[[Any], Any] | None, setup: pl.Sealed | None) -> None:
        self._share = share
        self._load = load
        self._setup = setup

    def __call__(self) -> State:
        global _shelf
        _shelf = Shelf(self._share, self._load)
        return State(_shelf, _own(self._setup))


class Keep:
    """The setup of a worker that has its datasets."""

    def __init__(self, setup: pl.Sealed | None) -> None:
        self._setup = setup

    def __call__(self) -> State:
        assert _shelf is not None
        return State(_shelf, _own(self._setup))


def _own(setup: pl.Sealed | None) -> Any:
    """What a call's own setup returns here."""
    return None if setup is None else setup.open()()


def greet(state: State, _: Any) -> TaskError | None:
    """Whether the datasets have arrived: what went wrong, or None."""
    return state.shelf.broken


def load(state: State, position: int) -> None:
    """Load a dataset, ahead of its use and of the time limit of that."""
    state.shelf.load(position)


class OnKept:
    """A task's function that expects its dataset in the payload, given the one that is kept here."""

    def __init__(self, function: TaskFunction) -> None:
        self._function = function

    def __call__(self, state: State, payload: Any) -> Any:
        return self._function(state.own, payload._replace(dataset=state.shelf.get(payload.position)))


class Scorer:
    """A setup that returns the function that it was made with."""

    def __init__(self, process_function: Any) -> None:
        self._process_function = process_function

    def __call__(self) -> Any:
        return self._process_function


class Score:
    """Calls ``state.own(params, dataset)``; each call has a copy of the parameters of its own.

    Parameters
    ----------
    params
        The parameters, pickled.
    """

    def __init__(self, params: bytes) -> None:
        self._params = params

    def __call__(self, state: State, position: int) -> Any:
        return state.own(pickle.loads(self._params), state.shelf.get(position))
