"""Tasks whose data may be kept, as `parfit.fit` offers them, for the tests of what keeps it."""

from __future__ import annotations

import os
import uuid
from typing import Any, NamedTuple

import pandas as pd

from parfit.core.solution import OutcomeKind
from parfit.executors.chunking import PairBlock
from parfit.executors.producer_consumer import ProducerConsumerExecutor


class Payload(NamedTuple):
    dataset: Any
    position: int
    start: float = 0.0


class Plain:
    """Tasks on some positions, with their data or without."""

    def __init__(self, data, positions, with_data):
        self._left = list(positions)
        self._data = data
        self._with_data = with_data

    def take(self, n):
        now, self._left = self._left[:n], self._left[n:]
        rows = [(f"row {p}", Payload(self._data.item(p) if self._with_data else None, p)) for p in now]
        return PairBlock(rows) if rows else None


class Data(Plain):
    """Tasks on the items of a list, an array or a DataFrame, as `parfit.fit` offers them."""

    def __init__(self, token, positions=None, n=None):
        self.token = token
        self._n = len(token) if n is None else n
        self._positions = list(range(self._n)) if positions is None else positions
        super().__init__(self, self._positions, True)

    def item(self, p):
        return self.token.iloc[p] if isinstance(self.token, pd.DataFrame) else self.token[p]

    def __len__(self):
        return self._n

    def datasets(self, start, stop):
        return [self.item(p) for p in range(start, stop)]

    def without_data(self):
        return Plain(self, self._positions, False)


def run(tasks, function, recipe=None, *, setup=None, timeout=None, retries=1):
    recipe = recipe or ProducerConsumerExecutor(2)
    with recipe.open(setup, retries=retries) as pool:
        return {outcome.key: outcome for outcome in pool.imap_unordered(function, tasks, timeout)}


def values(outcomes):
    assert {o.kind for o in outcomes.values()} <= {OutcomeKind.DONE}, [o.error for o in outcomes.values()]
    return [outcomes[f"row {p}"].value for p in sorted(int(key[4:]) for key in outcomes)]


def pids(tasks, recipe=None):
    """The worker of each dataset."""
    return values(run(tasks, lambda _, payload: os.getpid(), recipe))


def counted_loads(tmp_path):
    """A folder for a fixture: in which each loading leaves a file, and what reads it: item -> how often."""
    folder = tmp_path / "loads"
    folder.mkdir()

    def counts():
        names = [name.split("-")[0] for name in os.listdir(folder)]
        return {name: names.count(name) for name in sorted(names, key=int)}

    def load(item):
        (folder / f"{item}-{uuid.uuid4()}").touch()
        return item * 10

    return load, counts


def once(n):
    return {str(i): 1 for i in range(n)}
