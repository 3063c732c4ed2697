"""A call of `fit` whose store is a folder of Parquet files: a part of the table at a time, and none of it kept.

    parts that are whole and of these data ─▶ skipped
    the others ─▶ begun, one after another ─▶ engine ─▶ their solutions, in memory; for the rows engine, which may take
                  long, in a SQLite file too ─▶ once all are there: written, and let go of

What is said for a whole call is said from what the footers of the parts know, once, when all are there.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from parfit.core.data import Datasets
from parfit.core.errors import FitError, FitInterrupted, ParfitWarning, StoreError, StoreMismatchError, shown
from parfit.core.fingerprint import digest
from parfit.core.origin import Origin
from parfit.core.problem import Problem
from parfit.core.protocols import Sink, Store
from parfit.core.solution import Outcome, Solutions, Status
from parfit.core.structure import Structure
from parfit.core.tasks import FitTasks, TasksInTurn
from parfit.core.windows import Windows, cut
from parfit.fitting.kinds import MismatchWatch
from parfit.fitting.part import TRACEBACKS, as_part, column, first_kind, footer_of, reconciled, with_kept
from parfit.fitting.sayings import every_raised, none_can_be_fitted, some_warned
from parfit.fitting.stored import fingerprints_of, identity_of, open_store, store_for, structure_of
from parfit.parted import PartedFits
from parfit.stores import MemoryStore
from parfit.stores.parts import Manifest, Parts, read_footers, read_manifest, rows_files
from parfit.stores.reading import UnreadableError

if TYPE_CHECKING:
    from parfit.batched import Plan
    from parfit.fitting.call import Call

__all__ = ["fit_in_parts", "open_parts"]

Positions = NDArray[np.intp]

#: What the solutions of a part take in memory, bytes, and how many rows it has at most.
PART_BYTES, PART_ROWS = 1 << 26, 1 << 17
#: What `on_error="raise"` raises for.
_RAISED = [s.value for s in (Status.ERROR, Status.INVALID, Status.NONFINITE, Status.TIMEOUT, Status.WORKER_LOST)]
#: So many different warnings are counted.
_TEXTS = 1000


def open_parts(path: Path) -> PartedFits:
    """The fits in a folder, also while another process writes it."""
    manifest, rows = read_manifest(path), _under_way(path)
    footers = read_footers(path)  # after the others: a part that is finished meanwhile is in one of them
    rows = {k: found for k, found in rows.items() if k not in footers}
    facts = manifest.identity.facts
    made = f"written by parfit {facts['versions'].get('parfit')}"
    known = [*footers.values(), *(footer for _, footer in rows.values())]
    seconds = float(sum(footer["seconds"] for footer in known))
    origin = Origin(facts.get("engine") or "rows", made, seconds, f"store {path}")
    return PartedFits(path, manifest, footers, origin, rows)


def _under_way(path: Path) -> dict[int, tuple[pd.DataFrame, dict[str, Any]]]:
    """The rows that are finished of the parts that are not, and what would be in their footers."""
    found = {}
    structure = structure_of(read_manifest(path).identity.facts)
    for number, file in rows_files(path).items():
        try:
            fits = open_store(file)
        except StoreError:  # nothing is in it yet, or it is gone: its part is finished, or fitted again
            continue
        done = (fits.status != Status.NOT_RUN.value).to_numpy()
        if done.any():
            frame, footer = as_part(fits.columns_copy(), fits.labels, structure)
            counts = {status: count for status, count in footer["counts"].items() if status != Status.NOT_RUN.value}
            found[number] = frame[done], {**footer, "counts": counts, "rows": int(done.sum())}
    return found


def fit_in_parts(call: Call) -> PartedFits:
    """Fit every dataset that the folder does not have."""
    begin = time.perf_counter()
    identity = identity_of(call.datasets.part(0, 0), call.problem, call.solver, call.given)
    identity.facts.pop("labels")
    n = len(call.problem.parameters.names)
    rows = max(1, min(PART_ROWS, PART_BYTES // (240 + 33 * n + 4 * n * (n + 1))))
    manifest = Manifest(identity, len(call.datasets), rows)
    assert call.store is not None
    plan: Plan | None = None
    reason = "interrupted before another was chosen"
    with Parts(call.store, manifest, overwrite=call.given["overwrite"]) as parts:  # type: ignore[arg-type]

        def result() -> PartedFits:
            engine, where = call.engine_of(plan)
            origin = Origin(parts.engine or engine, reason, time.perf_counter() - begin, where)
            rows = {k: found for k, found in _under_way(parts.path).items() if k not in parts.footers}
            return PartedFits(parts.path, parts.manifest, dict(parts.footers), origin, rows)

        try:
            with _Filling(call, parts) as store:
                work = store.survey()
                if call.on_error == "raise" and not call.given["retry_failed"]:
                    _raise_if_failed_before(parts)
                plan, reason = call.choose(work, store)
                if len(work):
                    store.settle(call.engine_of(plan)[0])
                    total, already = len(call.datasets), len(call.datasets) - len(work)
                    if plan is not None:
                        call.at_once(plan, store, store.windows(), total, already)
                    else:
                        first = next(iter(work))
                        call.stream(store, store.tasks(), first, store.watch(work), total, already)
                else:
                    store.finish()
                _reconcile(parts, call.problem.parameters.structure)
        except KeyboardInterrupt:
            fits = result()
            done = sum(footer["rows"] for footer in parts.footers.values())
            text = f"interrupted with {done} of {len(fits)} datasets in parts that are finished; see .fits"
            raise FitInterrupted(text, fits) from None
        except StoreError as exc:
            exc.fits = result()
            raise
        fits = result()
        _say_in_sum(fits, parts, len(work), store.warned, call.datasets.hint)
    return fits


def _raise_if_failed_before(parts: Parts) -> None:
    """Raise `FitError` for the first dataset that failed in an earlier call."""
    for k in sorted(parts.footers):
        if any(parts.footers[k]["counts"].get(status) for status in _RAISED):
            frame = parts.read(k)
            at = int(frame["status"].isin(_RAISED).to_numpy().argmax())
            status, message = frame["status"].iloc[at], frame["message"].iloc[at]
            said = f"{status}: {message}" if status in (Status.INVALID.value, Status.NONFINITE.value) else message
            raise FitError(f"dataset {shown(frame.index[at])}: {said}", frame.index[at])


def _say_in_sum(fits: PartedFits, parts: Parts, count: int, warned: tuple[Counter[str], int], hint: str) -> None:
    """What is wrong with every dataset is wrong with the call; one warning for what all raised, and warned of."""
    footers = [parts.footers[k] for k in sorted(parts.footers)]
    if len(fits) and sum(footer["unusable"] for footer in footers) == len(fits):
        texts = {text for footer in footers for text in footer["reasons"]}
        raise none_can_be_fitted(fits, footers[0]["reasons"][0], footers[0]["label"], len(texts) == 1)
    raised: Counter[str] = Counter()
    for footer in footers:
        raised.update(footer["raised"])
    if count > 1 and len(raised) == 1 and raised.total() == len(fits) and footers[0]["tracebacks"]:
        message = footers[0]["tracebacks"][0][3]
        warnings.warn(every_raised(next(iter(raised)), message, hint), ParfitWarning, stacklevel=5)
    said, n = warned
    if n:
        warnings.warn(some_warned(said, n, count, ""), ParfitWarning, stacklevel=5)


@dataclass
class _Begun:
    """A part on its way.

    Attributes
    ----------
    labels, problem
        Its own.
    data, same
        The fingerprint of all of it, and whether the file that is there is of these data.
    kept : ndarray of bool
        Which rows stay as they are in the file that is there.
    store
        Of the others.
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
    same: bool
    kept: NDArray[np.bool_]
    store: Store
    left: int
    undone: bool = False
    opened: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)


class _Filling(Sink):
    """The parts of a folder, as solutions come."""

    noted = True  # for the part that is on its way, which is in a file of SQLite

    def __init__(self, call: Call, parts: Parts) -> None:
        self._call, self._parts = call, parts
        self._begun: dict[int, _Begun] = {}
        #: The number of each part that is not done, and the positions that it lacks.
        self._lacking: list[tuple[int, Positions | range]] = []
        self._texts: Counter[str] = Counter()
        self._warned = 0
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
        """The positions that are not done."""
        parts = self._parts
        same = False
        for k in range(len(parts)):
            span: Positions | range = parts.range_of(k)
            if parts.rows_file(k).exists():
                span = self._lacking_of(self._begin(k, "rows"), k)
            elif k in parts.footers:
                begun = self._begin(k, None)
                span = self._lacking_of(begun, k)
                same |= begun.same
                del self._begun[k]
                if begun.kept.all():
                    continue
            self._lacking.append((k, span))
        if parts.footers and not same and not self._begun:
            raise StoreMismatchError(
                f"{parts.path} holds fits of other data: none of its {len(parts.footers)} parts is of these; "
                "overwrite=True starts anew, another path keeps both"
            )
        return Windows([span for _, span in self._lacking], self._call.datasets.window)

    def _lacking_of(self, begun: _Begun, k: int) -> Positions:
        done = begun.kept.copy()
        done[np.fromiter(begun.store.done(), dtype=np.intp)] = True
        found: Positions = self._parts.range_of(k).start + np.flatnonzero(~done)
        return found

    def _begin(self, k: int, engine: str | None) -> _Begun:
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
        if footer is not None and same:
            kept[: footer["rows"]] = True
            if given["retry_failed"] and footer["counts"].get(Status.CONVERGED.value, 0) < footer["rows"]:
                kept[: footer["rows"]] = column(parts.read(k), "success", problem.parameters.structure)
        store: Store = MemoryStore(len(span), len(problem.parameters.names))
        begun = _Begun(datasets.labels, problem, _as_one(prints), same, kept, store, 0)
        if engine == "rows":
            begun.store = self._on_disk(k, begun, datasets)
        self._begun[k] = begun
        return begun

    def _on_disk(self, k: int, begun: _Begun, datasets: Datasets) -> Store:
        """The solutions of a part that another call may go on from; what is there of other data gives way."""
        for overwrite in (False, True):
            given = {**self._call.given, "overwrite": overwrite}
            made = store_for(self._parts.rows_file(k), datasets, begun.problem, self._call.solver, given)
            try:
                begun.opened.enter_context(made)
                made.settle("rows")
                return made
            except (StoreMismatchError, UnreadableError):
                if overwrite:
                    raise
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
        begun = self._begun.pop(k)
        begun.opened.close()
        if begun.store.columns().has(Status.NOT_RUN, Status.WORKER_LOST).all():
            self._parts.drop_rows(k)

    def _finish(self, k: int) -> None:
        """Write a part that is whole, and let go of it."""
        begun, parts = self._begun[k], self._parts
        structure = begun.problem.parameters.structure
        frame, footer = as_part(begun.store.columns(), begun.labels, structure)
        if begun.kept.any():
            tracebacks = [said for said in parts.footers[k]["tracebacks"] if begun.kept[said[0]]]
            frame = with_kept(frame, parts.read(k), begun.kept)
            footer = {
                **footer_of(frame, structure),
                "tracebacks": sorted(tracebacks + footer["tracebacks"])[:TRACEBACKS],
            }
        parts.write(k, frame, {**footer, "data": begun.data})
        with contextlib.suppress(StoreError):  # what it could not write is in the part
            begun.opened.close()
        parts.drop_rows(k)
        del self._begun[k]


def _reconcile(parts: Parts, structure: Structure) -> None:
    """Make an error of each dataset whose objective is of another kind than the first one's, in whatever part."""
    kind = first_kind(parts.footers)
    for k, footer in parts.footers.items():
        if kind is not None and footer["kinds"][1 - kind]:
            frame, errors = reconciled(parts.read(k), kind, structure)
            tracebacks = sorted(footer["tracebacks"] + errors)[:TRACEBACKS]
            parts.write(k, frame, {**footer_of(frame, structure), "tracebacks": tracebacks, "data": footer["data"]})


def _as_one(fingerprints: NDArray[np.uint64]) -> str:
    return digest(fingerprints).hex()
