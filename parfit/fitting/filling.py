"""The parts of a folder, as solutions come: which are lacking, what is kept of each, and when one is written."""

from __future__ import annotations

import contextlib
import dataclasses
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from parfit.core.data import Datasets
from parfit.core.errors import StoreError, StoreMismatchError
from parfit.core.fingerprint import digest
from parfit.core.problem import Problem
from parfit.core.protocols import Sink, Store
from parfit.core.solution import Outcome, Solutions, Status
from parfit.core.tasks import FitTasks, TasksInTurn
from parfit.core.windows import Windows, cut
from parfit.fitting.kinds import MismatchWatch
from parfit.fitting.part import column, first_kind, known_rows
from parfit.fitting.stored import fingerprints_of, store_for
from parfit.stores import MemoryStore
from parfit.stores.parts import Parts
from parfit.stores.reading import UnreadableError

if TYPE_CHECKING:
    from parfit.fitting.call import Call

__all__ = ["Filling"]

Positions = NDArray[np.intp]

#: So many different warnings are counted.
_TEXTS = 1000
#: A part tells of so many rows what they are.
_SAMPLED = 64


@dataclass
class Begun:
    """A part on its way.

    Attributes
    ----------
    labels, problem
        Its own.
    data, same
        The fingerprint of all of it, and whether the file that is there is of these data.
    sample
        Of the fingerprints of some rows, as text.
    kept : ndarray of bool
        Which rows stay as they are in the file that is there.
    store
        Of the others, and of those that failed in that file and have been fitted since.
    left
        How many are still to come.
    undone
        Whether some of them came back undone, for the next call to have.
    opened
        What is to be closed.
    """

    labels: pd.Index[Any]
    problem: Problem
    data: str
    sample: str
    same: bool
    kept: NDArray[np.bool_]
    store: Store
    left: int
    undone: bool = False
    opened: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)


class Filling(Sink):
    """The parts of a folder, as solutions come."""

    noted = True  # for the part that is on its way, which is in a file of SQLite

    def __init__(self, call: Call, parts: Parts) -> None:
        self._call, self._parts = call, parts
        self._begun: dict[int, Begun] = {}
        #: The number of each part that is not done, and the positions that it lacks.
        self._lacking: list[tuple[int, Positions | range]] = []
        self._texts: Counter[str] = Counter()
        self._warned = 0
        #: The sampled fingerprints of all parts that are there, and whether anything of these is in the data.
        self._samples = np.empty(0, dtype=np.uint64)
        self._known = False
        self.engine = parts.engine

    @property
    def warned(self) -> tuple[Counter[str], int]:
        """What the objective warned of, and for how many datasets."""
        return self._texts, self._warned

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        for begun in self._begun.values():
            with contextlib.suppress(StoreError):  # what is not written is fitted again
                begun.opened.close()

    # ---- what there is to do

    def survey(self) -> Windows:
        """The positions that are not done.

        Raises
        ------
        StoreMismatchError
            Where nothing that is there is of these data. A part says of the whole of its data whether it is the same,
            and of `_SAMPLED` of its rows what they are, those whose fingerprints are smallest: as good as drawn by
            lot, whichever rows change, and the same wherever they stand. Where a tenth of the rows are as they were,
            a part is taken for one of other data once in a thousand times; where half are, never.
        """
        parts = self._parts
        sampled = [np.frombuffer(bytes.fromhex(footer["sample"]), dtype=">u8") for footer in parts.footers.values()]
        self._samples = np.unique(np.concatenate([np.empty(0, dtype=">u8"), *sampled])).astype(np.uint64)
        self._known = not parts.footers
        begun = {k for k in range(len(parts)) if parts.rows_file(k).exists()}
        spans: dict[int, Positions | range] = {}
        for k in sorted(parts.footers.keys() - begun) + sorted(begun):  # who is known is known before a file gives way
            spans[k] = self._lacking_of(self._begin(k, "rows" if k in begun else None), k)
            if k not in begun:
                done = self._begun.pop(k).kept.all()
                if done:
                    spans[k] = range(0)
        if not self._known:
            raise self._of_other_data()
        each = ((k, spans.get(k, parts.range_of(k))) for k in range(len(parts)))
        self._lacking = [(k, span) for k, span in each if len(span) or k in begun or k not in parts.footers]
        return Windows([span for _, span in self._lacking], self._call.datasets.window)

    def _of_other_data(self) -> StoreMismatchError:
        count = len(self._parts.footers)
        return StoreMismatchError(
            f"{self._parts.path} holds fits of other data: none of its {count} part{'' if count == 1 else 's'} is of "
            "these; overwrite=True starts anew, another path keeps both"
        )

    def _lacking_of(self, begun: Begun, k: int) -> Positions:
        done = begun.kept | _done(begun.store, len(begun.kept))
        found: Positions = self._parts.range_of(k).start + np.flatnonzero(~done)
        return found

    def _begin(self, k: int, engine: str | None) -> Begun:
        """Open a part: what is kept of it, and where the rest goes."""
        call, parts = self._call, self._parts
        span, given = parts.range_of(k), call.given
        datasets = call.datasets.part(span.start, span.stop)
        problem = dataclasses.replace(call.problem, parameters=call.problem.parameters.part(span.start, span.stop))
        parts.refuse_labels(datasets.labels, k)
        prints = fingerprints_of(datasets, problem.parameters)
        kept = np.zeros(len(span), dtype=bool)
        footer = parts.footers.get(k)
        same = footer is not None and footer["data"] == _as_one(prints[: footer["rows"]])
        store: Store = MemoryStore(len(span), len(problem.parameters.names))
        begun = Begun(datasets.labels, problem, _as_one(prints), _sampled(prints), same, kept, store, 0)
        self._known = self._known or same or bool(np.isin(self._samples, prints[:, 0]).any())
        if engine == "rows":
            begun.store = self._on_disk(k, begun, datasets)
            self._known |= bool(_done(begun.store, len(span)).any())
        if footer is not None and same:
            inside = slice(footer["rows"])
            kept[inside] = True
            came = _done(begun.store, len(span))[inside]
            if footer["counts"].get(Status.CONVERGED.value, 0) < footer["rows"] and (
                given["retry_failed"] or came.any()
            ):
                success = column(parts.read(k), "success", problem.parameters.structure).astype(bool)
                kept[inside] = success if given["retry_failed"] else success | ~came
        self._begun[k] = begun
        return begun

    def _on_disk(self, k: int, begun: Begun, datasets: Datasets) -> Store:
        """The solutions of a part that another call may go on from; what is there of other data gives way."""
        facts = {"part": self._parts.footers[k]["data"] if begun.same else None}
        for overwrite in (False, True):
            given = {**self._call.given, "overwrite": overwrite}
            made = store_for(self._parts.rows_file(k), datasets, begun.problem, self._call.solver, given, facts)
            try:
                begun.opened.enter_context(made)
                made.settle("rows")
                return made
            except (StoreMismatchError, UnreadableError):
                if overwrite:
                    raise
                if not self._known:
                    raise self._of_other_data() from None
        raise AssertionError("a file that is to give way does not")

    # ---- the work, a part after another

    def windows(self) -> Iterator[Positions]:
        """The positions to be fitted; each part is begun when its turn comes."""
        for k, span in self._lacking:
            if k not in self._begun:
                self._begin(k, self.engine)
            begun = self._begun[k]
            begun.left = len(span)
            if not len(span):
                self._finish(k)
                continue
            yield from cut(span, self._call.datasets.window)

    def tasks(self) -> TasksInTurn:
        """The same as tasks."""
        call = self._call
        chosen = (FitTasks(call.datasets, call.problem.parameters, p, call.chunk_size) for p in self.windows())
        return TasksInTurn(chosen, sum(len(span) for _, span in self._lacking))

    def watch(self, work: Windows) -> MismatchWatch | None:
        """Who looks at the first datasets; nobody where the parts that are there tell of what kind the objective is."""
        return None if first_kind(self._parts.footers) is not None else MismatchWatch(work, len(self._call.datasets))

    def finish(self) -> None:
        """Write the parts of which everything is there."""
        for _ in self.windows():
            raise AssertionError("there is something left to fit")

    # ---- the protocol

    def settle(self, engine: str) -> None:
        parts = self._parts
        if self.engine not in (None, engine) and (parts.footers or self._begun):
            raise StoreMismatchError(
                f"{parts.path} holds fits of engine {self.engine!r}, and this call would go on with {engine!r}, whose "
                f"last digits are others: engine={self.engine!r} goes on, overwrite=True starts anew"
            )
        self.engine = engine
        parts.note(engine=engine)

    def put(self, position: int, outcome: Outcome) -> None:
        k, at = divmod(position, self._parts.manifest.rows)
        begun = self._begun[k]
        begun.store.put(at, dataclasses.replace(outcome, key=at))
        if outcome.warnings:
            self._warned += 1
            self._texts.update(f"{w.category}: {w.message}" for w in outcome.warnings)
            if len(self._texts) > 2 * _TEXTS:
                self._texts = Counter(dict(self._texts.most_common(_TEXTS)))
        begun.undone |= outcome.left
        self._less(k, 1)

    def put_many(self, solutions: Solutions) -> None:
        k = int(solutions.positions[0]) // self._parts.manifest.rows
        at = solutions.positions - self._parts.range_of(k).start
        self._begun[k].store.put_many(dataclasses.replace(solutions, positions=at))
        self._less(k, len(solutions))

    def _less(self, k: int, count: int) -> None:
        begun = self._begun[k]
        begun.left -= count
        if not begun.left and begun.undone:
            self._leave(k)
        elif not begun.left:
            self._finish(k)

    def _leave(self, k: int) -> None:
        """Let go of a part that is for the next call to finish."""
        begun = self._begun[k]
        begun.opened.close()
        del self._begun[k]
        if begun.store.columns().has(Status.NOT_RUN, Status.WORKER_LOST).all():
            self._parts.drop_rows(k)

    def _finish(self, k: int) -> None:
        """Write a part that is whole, and let go of it."""
        begun, parts = self._begun[k], self._parts
        found = self._known_of(k, begun)
        if found is not None:
            frame, footer = found
            parts.write(k, frame, {**footer, "data": begun.data, "sample": begun.sample})
        with contextlib.suppress(StoreError):  # what it could not write is in the part
            begun.opened.close()
        parts.drop_rows(k)
        del self._begun[k]

    # ---- what there is of parts that are not finished

    def under_way(self) -> dict[int, tuple[pd.DataFrame, dict[str, Any]]]:
        """The rows of parts that are begun, by their numbers, and what would be in their footers."""
        found = {}
        for k, begun in self._begun.items():
            with contextlib.suppress(StoreError):  # the file in whose place it comes is damaged
                known = self._known_of(k, begun)
                if known is not None and known[1]["rows"]:
                    found[k] = known
        return found

    def begun(self, k: int) -> NDArray[np.bool_] | None:
        """Which rows stay as they are in the file that is there of a part that is begun; None for another."""
        return self._begun[k].kept if k in self._begun else None

    def _known_of(self, k: int, begun: Begun) -> tuple[pd.DataFrame, dict[str, Any]] | None:
        columns, parts = begun.store.columns(), self._parts
        lacking = (Status.NOT_RUN, Status.WORKER_LOST) if begun.undone else (Status.NOT_RUN,)
        old = (parts.read(k), parts.footers[k]) if begun.same else None
        return known_rows(columns, ~columns.has(*lacking), begun.labels, begun.problem.parameters.structure, old)


def _done(store: Store, rows: int) -> NDArray[np.bool_]:
    """What a store has, shape (rows,)."""
    found = np.zeros(rows, dtype=bool)
    found[np.fromiter(store.done(), dtype=np.intp)] = True
    return found


def _sampled(fingerprints: NDArray[np.uint64]) -> str:
    """The smallest of some fingerprints, shape (rows, 2), as text: of each the first number."""
    first = fingerprints[:, 0]
    few = np.partition(first, _SAMPLED)[:_SAMPLED] if len(first) > _SAMPLED else first
    return np.sort(few).astype(">u8").tobytes().hex()


def _as_one(fingerprints: NDArray[np.uint64]) -> str:
    return digest(fingerprints).hex()
