"""What a model is made of apart from anything alive: PySD's translation, as text, and the data it read.

    .mdl, .xmile ──translate──▶ texts ──read_data──▶ Source ──pickle──▶ another process
                  (here, once)         (here, once)    │                      │
                                                       ▼                      ▼
                                                  Live (live.py)         Live (live.py)

PySD writes its translation beside the model: two processes that translate one file at a time read each
other's half-written text, and a read-only folder fails. Here the translators read the model where it lies,
so that subscripts from spreadsheets are found, and the builder writes to a private folder, which is gone as
soon as its texts have been read.
"""

from __future__ import annotations

import ast
import functools
import importlib
import itertools
import logging
import os
import re
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from parfit.core.errors import InvalidInputError, InvalidTypeError, MissingPackageError, nearest
from parfit.mdl.refusal import refusal

__all__ = ["SUFFIXES", "Source", "building", "find_model_file", "pysd_module", "sifted_warnings", "translate"]

_log = logging.getLogger("parfit.mdl")

# PySD keeps open spreadsheets, column names and its policy for missing values on its classes, and the
# warnings machinery is the process's: one translation or load at a time.
_building = threading.RLock()


def _renew_lock() -> None:
    # A fork while another thread builds would leave the child with a lock that nobody opens.
    global _building
    _building = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)


def building() -> threading.RLock:
    """The lock that is held while PySD translates or loads."""
    return _building


#: What PySD reads, by the translator that reads it.
SUFFIXES: Mapping[str, str] = {
    ".mdl": "Vensim",
    ".xmile": "XMILE",
    ".xml": "XMILE",
    ".stmx": "XMILE",
    ".py": "PySD",
}


#: Of the models in a folder, so many are named.
_NAMED = 8


@dataclass(frozen=True, eq=False)
class Source:
    """A model as a value: everything that a process needs to build a live one.

    Attributes
    ----------
    path
        The file that the model was read from, absolute. Nothing is read from there again.
    main
        The name of the main text.
    texts
        PySD's translation, relative path to text: the main module, macros, modules of a split model.
    data
        What the model read from data files and spreadsheets: element to attributes (xarray arrays).
    missing_values, compile
        As in `load_model`.
    """

    path: str
    main: str
    texts: Mapping[str, str]
    data: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    missing_values: str = "warning"
    compile: bool = True

    def write(self, folder: Path) -> Path:
        """Write the texts below `folder` and return the path of the main one."""
        for name, text in self.texts.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        return folder / self.main

    @functools.cached_property
    def noisy(self) -> bool:
        """Whether the model draws random numbers (PySD takes them from NumPy's global generator)."""
        return any(re.search(r"\bnp\.random\.|\bstats\.trunc", text) for text in self.texts.values())


def pysd_module(name: str = "pysd") -> Any:
    """Import a module of PySD's without the deprecation warnings that its own imports raise.

    Raises
    ------
    MissingPackageError
        Where there is no PySD.
    """
    if name in sys.modules:
        return sys.modules[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as exc:
            if exc.name != "pysd":
                raise
            text = "models need pysd, which is not installed: pip install 'pysd>=3.14,<3.15'"
            raise MissingPackageError(text, name="pysd") from None


@contextmanager
def sifted_warnings(*, tell_user: bool) -> Iterator[None]:
    """Keep PySD's remarks off the caller's warnings: log them, and pass on the user's own if `tell_user`."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    for remark in caught:
        text = str(remark.message).strip()
        if tell_user and issubclass(remark.category, UserWarning):
            warnings.warn(text, remark.category, stacklevel=5)  # load_model's caller
        else:
            _log.info("PySD: %s: %s", remark.category.__name__, text)


def find_model_file(path: str | Path) -> Path:
    """The absolute path of a model file.

    Raises
    ------
    FileNotFoundError
        Where there is none; names the file of the folder that comes nearest.
    InvalidTypeError
        For what is no path.
    InvalidInputError
        For a folder, and for a suffix that PySD does not read.
    """
    if not isinstance(path, (str, os.PathLike)) or not isinstance(os.fspath(path), str):
        raise InvalidTypeError(f"path must be the path of a model file, a str or a Path, not {path!r}.")
    if not str(path).strip():
        raise InvalidInputError("path is empty: give the path of a model file.")
    found = Path(path).expanduser().absolute()
    if not found.exists():
        message = f"there is no model file {str(found)!r}."
        if not found.parent.is_dir():
            raise FileNotFoundError(f"{message} The folder {str(found.parent)!r} does not exist either.")
        names = [p.name for p in found.parent.iterdir() if p.suffix.lower() in SUFFIXES]
        close = nearest(found.name, names)
        raise FileNotFoundError(message + (f" Did you mean {close!r}, in the same folder?" if close else ""))
    if found.is_dir() or found.suffix.lower() not in SUFFIXES:
        known = ", ".join(f"{suffix} ({kind})" for suffix, kind in SUFFIXES.items())
        if not found.is_dir():
            raise InvalidInputError(
                f"{str(found)!r} is a file with the suffix {found.suffix!r}, not a model; known suffixes: {known}."
            )
        models = sorted(p.name for p in found.iterdir() if p.suffix.lower() in SUFFIXES and p.suffix != ".py")
        named = ", ".join(map(repr, models[:_NAMED])) + (f", … ({len(models)} in all)" if len(models) > _NAMED else "")
        there = f"give a model in it: {named}" if models else f"there is no model in it; known suffixes: {known}"
        raise InvalidInputError(f"{str(found)!r} is a folder; {there}.")
    return found


def translate(
    path: Path,
    *,
    split_views: bool = False,
    subview_sep: Sequence[str] = (),
    encoding: str | None = None,
    missing_values: str = "warning",
    compile: bool = True,
) -> Source:
    """Translate a model file, or collect an already translated one, without writing beside it.

    Parameters
    ----------
    path
        As `find_model_file` returns it.
    split_views, subview_sep, encoding, missing_values, compile
        As in `load_model`.

    Raises
    ------
    ModelError
        Where PySD cannot translate the file; carries its message.
    """
    if path.suffix.lower() == ".py":
        return Source(str(path), path.name, _collect(path), missing_values=missing_values, compile=compile)
    with building(), tempfile.TemporaryDirectory(prefix="parfit-") as name, sifted_warnings(tell_user=False):
        folder = Path(name)
        try:
            main = _build(path, folder, split_views, subview_sep, encoding)
        except MissingPackageError:
            raise
        except Exception as error:
            raise refusal("translate", str(path), error) from error
        texts = {
            file.relative_to(folder).as_posix(): _canonical(file)
            for file in sorted(folder.rglob("*"))
            if file.is_file()
        }
    return Source(str(path), main.name, texts, missing_values=missing_values, compile=compile)


def _build(path: Path, folder: Path, split_views: bool, subview_sep: Sequence[str], encoding: str | None) -> Path:
    """Run PySD's translator on `path` and its builder into `folder`; the path of the main text."""
    builder_module = pysd_module("pysd.builders.python.python_model_builder")
    parsed: Any
    if SUFFIXES[path.suffix.lower()] == "Vensim":
        parsed = pysd_module("pysd.translators.vensim.vensim_file").VensimFile(path, encoding=encoding)
        parsed.parse()
        if split_views:
            parsed.parse_sketch(list(subview_sep))
    else:
        parsed = pysd_module("pysd.translators.xmile.xmile_file").XmileFile(path)
        parsed.parse()
    builder = builder_module.ModelBuilder(parsed.get_abstract_model())
    for section in builder.sections:
        section.path = folder / section.path.name
        section.root = folder
    return Path(builder.build_model())


def _canonical(file: Path) -> str:
    """The text of a translated module in an order of its own.

    PySD writes imports and dependencies in the order of a set of strings, which is another in each process;
    sorted, one model has one pickle, by which stored results are recognised.
    """
    text = file.read_text(encoding="utf-8")
    if file.suffix != ".py":
        return text
    edits: list[tuple[Any, str]] = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom):
            node.names.sort(key=lambda alias: alias.name)
            edits.append((node, ast.unparse(node)))
        elif isinstance(node, ast.keyword) and node.arg in ("depends_on", "other_deps"):
            edits.append((node.value, _sorted_repr(ast.literal_eval(node.value))))
        elif isinstance(node, ast.keyword) and node.arg in ("comp_type", "comp_subtype"):
            edits.append((node.value, repr(", ".join(sorted(ast.literal_eval(node.value).split(", "))))))
    lines = text.encode().splitlines(keepends=True)
    starts = [0, *itertools.accumulate(map(len, lines))]
    whole, done, pieces = b"".join(lines), 0, []
    for node, replacement in sorted(edits, key=lambda edit: (edit[0].lineno, edit[0].col_offset)):
        pieces += [whole[done : starts[node.lineno - 1] + node.col_offset], replacement.encode()]
        done = starts[node.end_lineno - 1] + node.end_col_offset
    return b"".join([*pieces, whole[done:]]).decode()


def _sorted_repr(value: Any) -> str:
    if not isinstance(value, dict):
        return repr(value)
    return "{" + ", ".join(f"{key!r}: {_sorted_repr(value[key])}" for key in sorted(value)) + "}"


def _collect(main: Path) -> dict[str, str]:
    """The texts of a translated model: `main`, its modules where it is split, and the macros they name."""
    folder = main.parent
    waiting = [main]
    texts: dict[str, str] = {}
    while waiting:
        file = waiting.pop()
        name = file.relative_to(folder).as_posix()
        if name in texts:
            continue
        text = texts[name] = file.read_text(encoding="utf-8")
        macros = re.findall(r"""Macro\(\s*_root\.joinpath\(["']([^"']+)["']""", text)
        waiting += [folder / macro for macro in macros]
        if file == main and "load_modules(" in text:
            modules = (folder / f"modules_{main.stem}").rglob("*")
            waiting += [folder / f"_subscripts_{main.stem}.json"]
            waiting += sorted(module for module in modules if module.suffix in (".py", ".json"))
    return texts
