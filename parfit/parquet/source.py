"""What is given as Parquet: which files that is, and what is refused because it would be read as something else."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from parfit.core.errors import InvalidInputError, InvalidTypeError

__all__ = ["Source", "is_parquet", "source_of", "way_to"]

_ENDINGS = (".parquet", ".pq")
#: What a folder has that a fit has written (`parfit.stores.parts`), also where that is inside the one with the data.
_RESULTS = "_parfit.json"
#: How such a file begins, plain or encrypted.
_MAGIC = (b"PAR1", b"PARE")
#: What is an address and no path, also where a Path has made one slash of two; a drive has one letter.
_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/+")
_WANTED = "a path of a Parquet file or a folder of them, or pyarrow.dataset.dataset(…) of such"
#: The way out for what is not all that its files have.
_ONE_FILE = "write what is to be fitted to a Parquet file and give its path, or give data.to_table().to_pandas()"


class Source(NamedTuple):
    """Where the rows are.

    Attributes
    ----------
    system
        The file system.
    paths
        The files, in order.
    schema
        The columns as they are asked for; None where the files say that.
    """

    system: Any
    paths: list[str]
    schema: Any


def is_parquet(data: Any) -> bool:
    """Whether data are Parquet files, or were meant to be: then `source_of` says what to give in their place."""
    if type(data).__module__.startswith(("pyarrow._dataset", "pyarrow.parquet")):
        return True
    if isinstance(data, (list, tuple)) and data and all(isinstance(one, (str, os.PathLike)) for one in data):
        return all(_is_file_of_one(_local(one)) for one in data if "\0" not in str(one))
    return _is_path_of_one(data) or _begins(data)


def _is_path_of_one(data: Any) -> bool:
    if not isinstance(data, (str, os.PathLike)) or "\0" in str(data):
        return False
    path = _local(data)
    return os.path.isdir(path) or _is_file_of_one(path)


def _is_file_of_one(path: Path) -> bool:
    return path.suffix.lower() in _ENDINGS or (os.path.isfile(path) and _is_marked(path))


def _is_marked(path: Path) -> bool:
    """Whether a file begins as one of Parquet."""
    try:
        with open(path, "rb") as file:
            return file.read(4) in _MAGIC
    except OSError:
        return False


def _begins(data: Any) -> bool:
    """The same of what is open already."""
    if not all(callable(getattr(data, name, None)) for name in ("read", "seek", "tell")):
        return False
    try:
        at = data.tell()
        data.seek(0)
        found = data.read(4)
        data.seek(at)
    except (OSError, ValueError, TypeError):
        return False
    return found in _MAGIC


def _local(data: str | os.PathLike[str]) -> Path:
    """A path, with the folder that ~ stands for."""
    path = Path(data)
    try:
        return path if path.exists() else path.expanduser()
    except (OSError, RuntimeError):  # too long, or there is no such folder
        return path


def source_of(data: Any) -> Source:
    """Where the rows are.

    Raises
    ------
    InvalidInputError, InvalidTypeError
        For what has no such files, or is not all that they have.
    """
    import pyarrow.fs

    if isinstance(data, (str, os.PathLike)):
        return Source(pyarrow.fs.LocalFileSystem(), list(map(str, _files_at(data))), None)
    if isinstance(data, (list, tuple)):
        raise InvalidTypeError(
            "data is a list of paths of Parquet files: for the rows of all of them give the folder they are in, or "
            "pyarrow.dataset.dataset([…]); where each path itself is a dataset, pandas.Series(paths)"
        )
    if not type(data).__module__.startswith(("pyarrow._dataset", "pyarrow.parquet")):
        raise InvalidTypeError("data is an open Parquet file: give its path, or pandas.read_parquet(file)")
    return _dataset(data)


def _files_at(data: str | os.PathLike[str]) -> list[Path]:
    path = _local(data)
    if not path.exists():
        if address := _ADDRESS.match(str(data)):
            raise InvalidInputError(
                f"data: {data} is an address ({address[1]}), and no path of a file: "
                f'pyarrow.dataset.dataset("{address[1]}://…") reads such'
            )
        raise InvalidInputError(f"data: there is no file or folder {path}")
    if not path.is_dir():
        return [path]
    results = {p.parent for p in path.rglob(_RESULTS)} - {path}
    found = sorted(
        (p for p in path.rglob("*") if p.is_file() and _is_data(p, path) and results.isdisjoint(p.parents)),
        key=Path.as_posix,
    )
    if not found:
        besides = f" beside fits of parfit's ({min(results)})" if results else ""
        raise InvalidInputError(f"data: the folder {path} has no Parquet files{besides}")
    for p in found:
        if inner := next((name for name in p.relative_to(path).parts[:-1] if "=" in name), None):
            raise InvalidInputError(
                f"data: {path} is partitioned, with a column in the names of its folders ({inner}): give one of them, "
                "or write that column into the files"
            )
    return found


def _is_data(path: Path, folder: Path) -> bool:
    """As PyArrow has it: names that begin with a dot or an underscore are no data."""
    if any(part.startswith((".", "_")) for part in path.relative_to(folder).parts):
        return False
    return path.suffix.lower() in _ENDINGS or _is_marked(path)


def _dataset(data: Any) -> Source:
    """Of one of PyArrow's: all rows and columns of its files, or it is refused."""
    import pyarrow.dataset as ds

    kind = f"{type(data).__module__}.{type(data).__name__}"
    if getattr(data, "_filter_expression", None) is not None:  # of a ParquetDataset
        _refuse("a filtered dataset", "its filter")
    fragments = getattr(data, "fragments", None)
    if fragments is None:
        if isinstance(data, (ds.UnionDataset, ds.InMemoryDataset)):
            raise InvalidTypeError(
                f"data is of PyArrow's {type(data).__name__}, which is no dataset of files: "
                "pyarrow.dataset.dataset([…]) takes all their paths at once; or give data.to_table().to_pandas()"
            )
        if not isinstance(data, ds.FileSystemDataset):
            raise InvalidTypeError(f"data of type {kind} is not understood: {_WANTED}")
        try:
            fragments = list(data.get_fragments())
        except ValueError as exc:
            raise InvalidTypeError(f"data is a filtered dataset, which cannot be read in windows: {exc}") from exc
    if not fragments:
        raise InvalidInputError("data is a dataset of PyArrow's without a file")
    if not all(isinstance(fragment, ds.ParquetFileFragment) for fragment in fragments):
        raise InvalidTypeError(f"data is a dataset of other files than Parquet: {_WANTED}")
    for fragment in fragments:
        if not fragment.partition_expression.equals(ds.scalar(True)):
            _refuse("a partitioned dataset", f"the column in the names of its folders ({Path(fragment.path).parent})")
    return Source(fragments[0].filesystem, [_path_of(fragment) for fragment in fragments], data.schema)


def _path_of(fragment: Any) -> str:
    try:
        chosen, all_of_them = [group.id for group in fragment.row_groups], fragment.metadata.num_row_groups
    except (OSError, ValueError) as exc:  # of which PyArrow's own errors are
        first = str(exc).partition("\n")[0]
        raise InvalidInputError(f"data: {fragment.path} cannot be read as a Parquet file: {first}") from exc
    if chosen != list(range(all_of_them)):
        _refuse("a dataset of some row groups of its files", f"such a choice (of {fragment.path}, {chosen[:6]})")
    path: str = fragment.path
    if not path:
        raise InvalidTypeError("data is a dataset of an open file: give its path, or data.to_table().to_pandas()")
    return path


def _refuse(what: str, lost: str) -> NoReturn:
    raise InvalidTypeError(f"data is {what}, and files are read without {lost}: {_ONE_FILE}")


def way_to(wanted: Any, found: Any, path: str, of: str) -> list[int]:
    """Where each of the wanted columns is in a file, whose order of columns may be another.

    Parameters
    ----------
    wanted, found
        Schemas.
    path, of
        The file, and who says what is wanted.

    Raises
    ------
    InvalidInputError
        Which says how they differ, in more than the order, in whether gaps are allowed, and in how text is kept.
    """
    if sorted(wanted.names) != sorted(found.names):
        less = _named(wanted, found)
        more = _named(found, wanted)
        said = [f"{path} has no {less}"] * bool(less) + [f"{of} has no {more}"] * bool(more)
        raise InvalidInputError(
            f"data: columns differ: {'; '.join(said) or f'{path} has one twice'}" + _of_labels(wanted, found)
        )
    places = [found.names.index(name) for name in wanted.names]
    if len(set(places)) < len(places):
        twice = next(name for name in found.names if found.names.count(name) > 1)
        raise InvalidInputError(
            f"data: {path} has two columns of the name {twice!r}, which pandas does not read either"
        )
    for field, place in zip(wanted, places, strict=True):
        if not is_alike(field.type, found.field(place).type):
            raise InvalidInputError(
                f"data: columns differ: {field.name!r} is {found.field(place).type} in {path}, and {field.type} in {of}"
            )
    return places


def _named(has: Any, lacks: Any) -> str:
    """The columns that one schema has and another lacks, the first of them."""
    names = [repr(name) for name in has.names if name not in lacks.names]
    return ", ".join(names[:6]) + (", …" if len(names) > 6 else "")


def _of_labels(*schemas: Any) -> str:
    known = [{n for n in (s.pandas_metadata or {}).get("index_columns", []) if isinstance(n, str)} for s in schemas]
    return " (where pandas keeps the labels)" if known[0] ^ known[1] else ""


def is_alike(a: Any, b: Any) -> bool:
    """Whether two types hold the same values for pandas: text is text, however long it may be."""
    return bool(a.equals(b) or {str(a), str(b)} in ({"string", "large_string"}, {"binary", "large_binary"}))
