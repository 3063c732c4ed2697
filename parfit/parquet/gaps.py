"""Where numbers are missing: PyArrow makes real numbers of whole ones then, and rows far away decide that.

Inside lists and structs, too. There a row that has gaps where others have them, put beside those of a window, has
PyArrow make of the window what it makes of all.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

__all__ = ["Gaps"]

#: Rows that are looked at together.
_BATCH = 256


class Gaps:
    """Of which columns whole numbers or truth values are missing.

    Parameters
    ----------
    pa
        PyArrow.
    """

    def __init__(self, pa: Any) -> None:
        self._pa = pa
        self._plain: dict[str, bool] = {}
        #: Of each column of lists or structs, whether there is a gap, for each of the things that its cells are of.
        self._inside: dict[str, list[bool]] = {}

    @property
    def inside(self) -> set[str]:
        """The columns of lists and structs with gaps in them."""
        return {name for name, found in self._inside.items() if any(found)}

    def add(self, file: Any) -> None:
        """Look at a file: at its footer, and at what that does not tell."""
        schema, metadata = file.schema_arrow, file.metadata
        groups = [metadata.row_group(g) for g in range(metadata.num_row_groups)]
        places = {metadata.schema.column(j).path: j for j in range(metadata.num_columns)}
        for field in schema:
            kinds = list(self._kinds(field.type))
            if kinds == [field.type]:
                if self._is_exact(field.type) and not self._plain.get(field.name):
                    said = _may_have(groups, [places[field.name]])
                    self._plain[field.name] = self._has_gaps(file, field.name) if said is None else said
            elif any(map(self._is_exact, kinds)) and schema.names.count(field.name) == 1:
                found = self._inside.setdefault(field.name, [False] * len(kinds))
                inner = [j for path, j in places.items() if path.startswith(f"{field.name}.")]
                if _may_have(groups, inner) is not False:
                    self._look_inside(file, field.name, [self._is_exact(kind) for kind in kinds], found)

    def row(self, schema: Any) -> Any:
        """A row of gaps, but where there are none, as a table."""
        cells, inside = [], self.inside
        for field in schema:
            if field.name in inside:
                cells.append(self._cell(field))
            elif self._is_exact(field.type) and not self._plain.get(field.name):
                cells.append(self._pa.array([0]).cast(field.type))
            else:
                cells.append(self._pa.nulls(1, field.type))
        return self._pa.Table.from_arrays(cells, schema=schema)

    def _has_gaps(self, file: Any, name: str) -> bool:
        return any(batch.column(name).null_count for batch in file.iter_batches(columns=[name]))

    def _look_inside(self, file: Any, name: str, wanted: list[bool], found: list[bool]) -> None:
        for batch in file.iter_batches(batch_size=_BATCH, columns=[name]):
            for i, array in enumerate(self._values(batch.column(batch.schema.get_field_index(name)))):
                found[i] |= wanted[i] and array.null_count > 0
            if found == wanted:
                break

    def _cell(self, field: Any) -> Any:
        """A cell of a column, as an array of one, with a gap wherever some cell has one."""
        said = iter(self._inside[field.name])
        return self._pa.array([self._sample(field.type, said)], field.type)

    def _is_exact(self, kind: Any) -> bool:
        return bool(self._pa.types.is_integer(kind) or self._pa.types.is_boolean(kind))

    def _is_list(self, kind: Any) -> bool:
        types = self._pa.types
        return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))

    def _kinds(self, kind: Any) -> Iterator[Any]:
        """The types of the things that a cell is of."""
        if self._is_list(kind):
            yield from self._kinds(kind.value_type)
        elif self._pa.types.is_struct(kind):
            for i in range(kind.num_fields):
                yield from self._kinds(kind.field(i).type)
        else:
            yield kind

    def _values(self, array: Any) -> Iterator[Any]:
        """These things, in the same order; what is missing as a whole is missing in each of its fields."""
        if self._is_list(array.type):
            yield from self._values(array.flatten())
        elif self._pa.types.is_struct(array.type):
            for inner in array.flatten():
                yield from self._values(inner)
        else:
            yield array

    def _sample(self, kind: Any, said: Iterator[bool]) -> Any:
        if self._is_list(kind):
            size = kind.list_size if self._pa.types.is_fixed_size_list(kind) else 1
            return [self._sample(kind.value_type, said)] * size
        if self._pa.types.is_struct(kind):
            fields = [kind.field(i) for i in range(kind.num_fields)]
            return {field.name: self._sample(field.type, said) for field in fields}
        gap = next(said)
        if gap or not self._is_exact(kind):
            return None
        return False if self._pa.types.is_boolean(kind) else 0


def _may_have(groups: list[Any], columns: list[int]) -> bool | None:
    """Whether a footer says that something is missing from columns; None where it does not say."""
    each = [group.column(j).statistics for group in groups for j in columns]
    known = [said.null_count if said is not None and said.has_null_count else None for said in each]
    return True if any(known) else None if None in known else False
