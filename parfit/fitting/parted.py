"""A call of `fit` whose store is a folder of Parquet files: a part of the table at a time, and none of it kept.

    parts that are whole and of these data ─▶ skipped
    the others ─▶ begun, one after another ─▶ engine ─▶ their solutions, in memory; for the rows engine, which may take
                  long, in a SQLite file too ─▶ once all are there: written, and let go of

What is said for a whole call is said from what the footers of the parts know, once, when all are there.
"""

from __future__ import annotations

import contextlib
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from parfit.core.errors import FitError, FitInterrupted, ParfitWarning, StoreError, shown
from parfit.core.origin import Origin
from parfit.core.solution import Status
from parfit.core.structure import Structure
from parfit.fitting.filling import Filling
from parfit.fitting.part import TRACEBACKS, first_kind, footer_of, known_rows, reconciled
from parfit.fitting.sayings import every_raised, none_can_be_fitted, some_warned
from parfit.fitting.stored import held_by, identity_of, structure_of
from parfit.parted import PartedFits
from parfit.results import Fits
from parfit.stores.folder import part_path, read_folder, read_part, rows_files
from parfit.stores.manifest import Manifest
from parfit.stores.parts import Parts

if TYPE_CHECKING:
    from parfit.batched import Plan
    from parfit.fitting.call import Call

__all__ = ["fit_in_parts", "open_parts"]

#: What the solutions of a part take in memory, bytes, and how many rows it has at most.
PART_BYTES, PART_ROWS = 1 << 26, 1 << 17
#: What `on_error="raise"` raises for.
_RAISED = [s.value for s in (Status.ERROR, Status.INVALID, Status.NONFINITE, Status.TIMEOUT, Status.WORKER_LOST)]


def open_parts(path: Path) -> PartedFits:
    """The fits in a folder, also while another process writes it."""
    on_disk = _on_disk(path)
    found = read_folder(path)  # after the rows: a part that is finished meanwhile is in one of them
    manifest, footers = found.manifest, found.footers
    ends = [number * manifest.rows + len(fits) for number, (fits, _) in on_disk.items()]
    manifest = manifest._replace(total=max(manifest.total, *ends, 0))  # where that is what older parts say
    if found.damage:
        warnings.warn(f"{path}: {found.damage}", ParfitWarning, stacklevel=3)
    rows = _under_way(path, on_disk, footers)
    facts = manifest.identity.facts
    made = f"written by parfit {facts['versions'].get('parfit')}"
    known = [*footers.values(), *(footer for _, footer in rows.values())]
    seconds = float(sum(footer["seconds"] for footer in known))
    origin = Origin(facts.get("engine") or "rows", made, seconds, f"store {path}")
    return PartedFits(path, manifest, footers, origin, rows)


def _on_disk(path: Path) -> dict[int, tuple[Fits, dict[str, Any]]]:
    """The files of the parts that are not finished, and what else they say."""
    found = {}
    for number, file in rows_files(path).items():
        with contextlib.suppress(StoreError):  # nothing is in it yet, or it is gone: its part is finished, or to come
            found[number] = held_by(file)
    return found


def _under_way(
    path: Path, on_disk: dict[int, tuple[Fits, dict[str, Any]]], footers: dict[int, dict[str, Any]]
) -> dict[int, tuple[pd.DataFrame, dict[str, Any]]]:
    """What is known of the parts that are not finished, or of which some rows are fitted again; and their footers."""
    found = {}
    for number, (fits, facts) in on_disk.items():
        done, footer = (fits.status != Status.NOT_RUN.value).to_numpy(), footers.get(number)
        of_these = footer is None or (facts.get("part") == footer["data"] and footer["rows"] <= len(done))
        if not (of_these and done.any()):
            continue
        with contextlib.suppress(StoreError):
            old = None if footer is None else (read_part(part_path(path, number)), footer)
            if old is not None and len(old[0]) != old[1]["rows"]:  # another has come into its place
                continue
            known = known_rows(fits.columns_copy(), done, fits.labels, structure_of(facts), old)
            if known is not None:
                found[number] = known
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
            begun = store.under_way()  # in memory, be it on the disk or not
            left = {k: found for k, found in _on_disk(parts.path).items() if k not in begun}
            rows = {**_under_way(parts.path, left, parts.footers), **begun}
            return PartedFits(parts.path, parts.manifest, dict(parts.footers), origin, rows)

        store = Filling(call, parts)
        try:
            with store:
                work = store.survey()
                if call.on_error == "raise" and not call.given["retry_failed"]:
                    _raise_if_failed_before(parts, store)
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
                    asked = call.given["engine"]
                    if len(call.datasets) and asked not in ("auto", store.engine):
                        store.settle(asked)  # refused as where one is missing
                    store.finish()
                _reconcile(parts, call.problem.parameters.structure)
        except KeyboardInterrupt:
            fits = result()
            done = len(fits) - int(fits.counts.get(Status.NOT_RUN.value, 0))
            text = f"interrupted with {done} of {len(fits)} datasets done; see .fits"
            raise FitInterrupted(text, fits) from None
        except StoreError as exc:
            exc.fits = result()
            raise
        fits = result()
        _say_in_sum(fits, parts, len(work), store.warned, call.datasets.hint)
    return fits


def _raise_if_failed_before(parts: Parts, store: Filling) -> None:
    """Raise `FitError` for the first dataset that failed in an earlier call, and was not fitted since."""
    for k in sorted(parts.footers):
        if any(parts.footers[k]["counts"].get(status) for status in _RAISED):
            frame, kept = parts.read(k), store.begun(k)
            failed = frame["status"].isin(_RAISED).to_numpy() & (True if kept is None else kept[: len(frame)])
            if not failed.any():
                continue
            at = int(failed.argmax())
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


def _reconcile(parts: Parts, structure: Structure) -> None:
    """Make an error of each dataset whose objective is of another kind than the first one's, in whatever part."""
    kind = first_kind(parts.footers)
    for k, footer in parts.footers.items():
        if kind is not None and footer["kinds"][1 - kind]:
            frame, errors = reconciled(parts.read(k), kind, structure)
            tracebacks = sorted(footer["tracebacks"] + errors)[:TRACEBACKS]
            of_data = {name: footer[name] for name in ("data", "sample")}
            parts.write(k, frame, {**footer_of(frame, structure), "tracebacks": tracebacks, **of_data})
