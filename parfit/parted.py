"""`PartedFits`: what came of every dataset, where that is kept in a folder of Parquet files and not in memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import pandas as pd

from parfit.core.origin import Origin
from parfit.core.solution import Status
from parfit.stores.folder import part_path, read_part
from parfit.stores.manifest import Manifest

__all__ = ["PartedFits"]

#: What a `Fits` has and these have not.
_OF_FITS = (
    "at_bound columns_copy conf_int cov covariances debug history labels params refit row sensitivity status stderr "
    "success summary to_frame to_parquet warnings"
).split()


class PartedFits:
    """The fits of all datasets, in a folder of Parquet files; ``len(fits) == len(data)``.

    Made by `parfit.fit` with ``store="fits.parquet"``, and by `parfit.open_store`. It takes no more memory for more
    datasets: the table itself is in the files, with the columns of `Fits.to_frame`.

    Attributes
    ----------
    path : Path
        The folder. ``pandas.read_parquet(fits.path)`` has the table, as do all that read Parquet.
    counts : Series
        How many datasets have each status; ``not_run`` are those that nothing is known of.
    errors : DataFrame
        The exceptions, the first few of each part: ``position``, ``label``, ``type``, ``message``, ``traceback``.
    engine, engine_reason : str
        As of `Fits`.
    seconds : float
        The time that the call took, s.
    """

    def __init__(
        self,
        path: Path,
        manifest: Manifest,
        footers: dict[int, dict[str, Any]],
        origin: Origin,
        under_way: dict[int, tuple[pd.DataFrame, dict[str, Any]]],
    ) -> None:
        self.path = path
        self.engine, self.engine_reason, self.seconds = origin.engine, origin.engine_reason, origin.seconds
        self._names: list[str] = manifest.identity.facts["names"]
        self._total, self._rows = manifest.total, manifest.rows
        self._footers = footers
        #: Of the parts that were not finished, or not written: the rows that were, and what would be in the footer.
        self._under_way = under_way
        self._where = origin.executor

    def __len__(self) -> int:
        return self._total

    @property
    def counts(self) -> pd.Series[int]:
        """How many datasets have each status."""
        found: Counter[str] = Counter()
        for _, footer in self._known():
            found.update(footer["counts"])
        found[Status.NOT_RUN.value] += self._total - sum(footer["rows"] for _, footer in self._known())
        made = {status.value: found[status.value] for status in Status if found[status.value]}
        return pd.Series(made, name="count", dtype="int64").rename_axis("status")

    def _known(self) -> list[tuple[int, dict[str, Any]]]:
        """What is to know of each part, in order."""
        more = {number: footer for number, (_, footer) in self._under_way.items()}
        return sorted({**self._footers, **more}.items())

    @property
    def errors(self) -> pd.DataFrame:
        """The exceptions, the first few of each part."""
        rows = [
            (number * self._rows + at, *said) for number, footer in self._known() for at, *said in footer["tracebacks"]
        ]
        return pd.DataFrame(rows, columns=["position", "label", "type", "message", "traceback"])

    @property
    def files(self) -> list[Path]:
        """The files, in the order of the data."""
        return [part_path(self.path, number) for number in sorted(self._footers)]

    def frames(self) -> Iterator[pd.DataFrame]:
        """The table, a part at a time, in the order of the data; of a part under way, the rows that are finished."""
        for number, _ in self._known():
            known = self._under_way.get(number)
            yield read_part(part_path(self.path, number)) if known is None else known[0].copy()

    def __getitem__(self, label: object) -> NoReturn:
        raise TypeError(self._instead(f"fits[{label!r}]"))

    def __iter__(self) -> NoReturn:
        raise TypeError(self._instead("iteration"))

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> NoReturn:
            if name in _OF_FITS:
                raise AttributeError(self._instead(f".{name}"))
            raise AttributeError(f"a PartedFits has no {name!r}", name=name, obj=self)

    def _instead(self, what: str) -> str:
        return (
            f"a PartedFits has no {what}, as its table is in files: .frames() gives it a part at a time, and "
            f"pandas.read_parquet({str(self.path)!r}) all of it"
        )

    def __repr__(self) -> str:
        n, names = len(self), self._names
        shown = ", ".join(names[:6]) + (", …" if len(names) > 6 else "")
        of = f"{len(names)} parameter{'' if len(names) == 1 else 's'}"
        rate = f", {1e3 * self.seconds / n:.3g} ms each" if n else ""
        lines = [
            f"{n:,} fit{'' if n == 1 else 's'} of {of} ({shown}) in {self.seconds:.3g} s{rate}; "
            f"engine {self.engine}, {self._where}"
        ]
        lines += [f"  {name:<12} {count:>13,}" for name, count in self.counts.items()]
        lines.append(
            f"in {len(self._footers)} file{'' if len(self._footers) == 1 else 's'}; the table: "
            f"pandas.read_parquet({str(self.path)!r}), or a part at a time with .frames()"
        )
        return "\n".join(lines)
