"""How many rows are in memory at a time: what they take there is known before they are read.

    numbers         so many bytes a row
    lists of them   as many values as the file says of each row group
    text, structs   as the first rows of some row groups have them, and as many values as the file says

A file says too little of itself: what repeats is written once, and read as often as it is there.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

__all__ = ["Sizes"]

#: Of a cell that is an array: the pointer to it, and what it takes itself; and what an offset takes.
_CELL, _OFFSET = 120, 8
#: So many rows, of so many row groups, of so many values in all are looked at.
_ROWS, _GROUPS, _VALUES = 256, 8, 20_000


class Sizes:
    """What rows take in memory.

    Parameters
    ----------
    pa
        PyArrow.
    """

    def __init__(self, pa: Any) -> None:
        self._pa = pa
        #: Of each row group: its rows, what its cells take that are no numbers, and, where that is not sure, what it
        #: takes as it is written.
        self._groups: list[tuple[int, float, int]] = []
        #: What a value of a column takes, wherever that was looked at.
        self._known: dict[str, list[float]] = {}
        self._looked = 0

    def add(self, file: Any) -> None:
        """Note the row groups of a file."""
        metadata, schema = file.metadata, file.schema_arrow
        leaves, at = {}, 0
        for i, field in enumerate(schema):
            leaves[i] = range(at, at + self._leaves(field.type))
            at = leaves[i].stop
        lists = {i: width for i, field in enumerate(schema) if (width := self._width_in_list(field.type))}
        others = [i for i, field in enumerate(schema) if i not in lists and not self.is_plain(field.type)]
        unsure = bool(others)
        if at != metadata.num_columns:  # a type that is not known here
            unsure, lists, others = True, {}, []
        groups = [metadata.row_group(g) for g in range(metadata.num_row_groups)]
        counts = {
            i: [sum(group.column(j).num_values for j in leaves[i]) for group in groups] for i in [*lists, *others]
        }
        costs = self._costs(file, others, counts)
        for g, group in enumerate(groups):
            size = sum(group.num_rows * (_CELL + _OFFSET) + counts[i][g] * width for i, width in lists.items())
            size += sum(counts[i][g] * costs[i] for i in others)
            if group.num_rows:
                self._groups.append((group.num_rows, size, group.total_byte_size if unsure else 0))

    def window(self, most_rows: int, most_bytes: int, plain: int) -> int:
        """How many rows a window has, so that none, from a multiple of that on, takes more than so many bytes.

        A frame takes so many bytes a row by itself, without what its cells point to.
        """
        if not self._groups:
            return most_rows
        of_each, more, written = np.array(self._groups, dtype=float).T
        rows = np.concatenate([[0.0], np.cumsum(of_each)])
        size = np.concatenate([[0.0], np.cumsum(np.maximum(np.maximum(of_each * plain + more, written), 1))])
        window = max(1, min(most_rows, int(most_bytes * rows[-1] / size[-1])))
        while window > 1:
            edges = np.append(np.arange(0.0, rows[-1], window), rows[-1])
            most = float(np.diff(np.interp(edges, rows, size)).max())
            if most <= most_bytes * 1.001:
                break
            window = max(1, min(window - 1, int(window * most_bytes / most)))
        return window

    def is_plain(self, kind: Any) -> bool:
        """Whether a cell is a number in a frame, or one of few things (`category`)."""
        types = self._pa.types
        known = (types.is_integer, types.is_floating, types.is_boolean, types.is_timestamp, types.is_duration)
        return any(test(kind) for test in (*known, types.is_dictionary, types.is_null))

    def _width_in_list(self, kind: Any) -> int:
        """Bytes of a value of a list of numbers, and 0 for all else."""
        types = self._pa.types
        if not (types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)):
            return 0
        of = kind.value_type
        return max(1, of.bit_width // 8) if types.is_integer(of) or types.is_floating(of) else 0

    def _leaves(self, kind: Any) -> int:
        """How many columns of the file a column of the table is."""
        types = self._pa.types
        if isinstance(kind, self._pa.BaseExtensionType):
            return self._leaves(kind.storage_type)
        if types.is_struct(kind):
            return sum(self._leaves(kind.field(i).type) for i in range(kind.num_fields))
        if types.is_map(kind):
            return self._leaves(kind.key_type) + self._leaves(kind.item_type)
        if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
            return self._leaves(kind.value_type)
        return 1

    def _costs(self, file: Any, chosen: list[int], counts: dict[int, list[int]]) -> dict[int, float]:
        """What a value takes, of each of the chosen columns: the most that the first rows of some row groups say."""
        schema, rows = file.schema_arrow, [file.metadata.row_group(g).num_rows for g in range(file.num_row_groups)]
        if self._looked < _GROUPS and chosen and rows:
            names = [schema.names[i] for i in chosen]
            for g in np.linspace(0, len(rows) - 1, min(_GROUPS, len(rows))).astype(int).tolist():
                values = max(1, *(counts[i][g] for i in chosen))
                size = max(1, min(_ROWS, _VALUES * rows[g] // values))
                batch: Any = next(file.iter_batches(batch_size=size, row_groups=[g], columns=names), None)
                for name in names if batch is not None and len(batch) else ():
                    if (at := batch.schema.get_field_index(name)) >= 0:
                        array = batch.column(at)
                        cost = self._taken(array) / max(len(array), self._values(array))
                        self._known.setdefault(name, []).append(cost)
                self._looked += 1
        return {i: max(self._known.get(schema.names[i], []), default=float(_CELL)) for i in chosen}

    def _values(self, array: Any) -> int:
        """How many values a file has of it."""
        types, kind = self._pa.types, array.type
        if isinstance(kind, self._pa.BaseExtensionType):
            return self._values(array.storage)
        if types.is_struct(kind):
            return sum(self._values(array.field(i)) for i in range(kind.num_fields))
        if types.is_map(kind):
            return max(2 * len(array), self._values(array.keys) + self._values(array.items))
        if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
            return max(len(array), self._values(array.flatten()))
        return len(array)

    def _taken(self, array: Any) -> int:
        """What it takes as PyArrow has it, or as pandas' objects, whichever is more."""
        series = array.to_pandas()
        objects = series.dtype == object
        found = sum(map(_deep, series.array)) if objects else series.memory_usage(index=False, deep=True)
        return max(int(array.nbytes), int(found))


def _deep(cell: Any) -> int:
    """What an object takes, with those in it."""
    own = 8 + sys.getsizeof(cell)
    if isinstance(cell, dict):
        return own + sum(map(_deep, cell.values()))
    if isinstance(cell, (list, tuple)):
        return own + sum(map(_deep, cell))
    if isinstance(cell, np.ndarray):
        inner = sum(map(_deep, cell)) if cell.dtype == object else 0
        return int(own + (cell.nbytes if cell.base is not None else 0) + inner)
    return own
