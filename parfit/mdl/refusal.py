"""What is said of a file that is no model, or none that PySD can read: which, why, and what to do."""

from __future__ import annotations

import logging
from pathlib import Path
from xml.etree import ElementTree

from parfit.core.errors import ModelError

__all__ = ["refusal"]

_log = logging.getLogger("parfit.mdl")

#: So much of a file is looked at, bytes.
_LOOK = 1 << 20
_NAMESPACE = 'xmlns="http://docs.oasis-open.org/xmile/ns/XMILE/v1.0"'
_TRANSLATED = "a .py file must be a model that PySD has translated; of a Vensim or XMILE model, give its own file"


def refusal(what: str, path: str, error: Exception) -> ModelError:
    """The error for a model that PySD cannot translate or load.

    Parameters
    ----------
    what
        ``"translate"`` or ``"load"``.
    path
        The model's file.
    error
        What PySD raised. It is stripped of its traceback, which is long and about PySD's inside, and goes to the log
        ``parfit.mdl`` at level DEBUG; to be the cause of what is returned.
    """
    _log.debug("PySD cannot %s %s", what, path, exc_info=error)
    error.__traceback__ = error.__cause__ = error.__context__ = None
    said = _said(error)
    if why := _reason(what, Path(path), error):
        said = f"{said.rstrip('.')}. {why}"
    return ModelError(f"PySD cannot {what} {path!r}: {said}")


def _said(error: Exception) -> str:
    """What an exception says, with its type where the message alone says little."""
    text = str(error).strip()
    return text if len(text) > 40 else f"{type(error).__name__}: {text}"


def _reason(what: str, path: Path, error: Exception) -> str:
    """What is the matter with the file, as far as its look tells, and what to do."""
    if "_control_vars" in str(error):
        return "It lacks the settings INITIAL TIME, FINAL TIME, TIME STEP and SAVEPER, which every model needs."
    try:
        with open(path, "rb") as file:
            data = file.read(_LOOK)
    except OSError:
        return ""
    if not data.strip():
        return "The file is empty."
    suffix = path.suffix.lower()
    if suffix == ".py":
        return f"It is no model: {_TRANSLATED}." if b"pysd" not in data.lower() else ""
    if what == "load":  # it has been translated
        return ""
    if why := _of_vensim(data) if suffix == ".mdl" else _of_xmile(data):
        return why
    if isinstance(error, KeyError):
        return "Is this a name that no equation defines?"
    return f"If {'Vensim' if suffix == '.mdl' else 'other software'} opens it, PySD does not know something in it."


def _of_vensim(data: bytes) -> str:
    if b"\0" in data[:4096] and not data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "The file is no text: in Vensim, save the model as a text file (.mdl)."
    if b"<xmile" in data:
        return "The file looks like XMILE: give it the suffix .xmile."
    if b"~" not in data or b"|" not in data:
        return "It is no Vensim model: it has no equations, 'name = … ~ units ~ comment |'."
    return ""


def _of_xmile(data: bytes) -> str:
    if len(data) == _LOOK:
        return ""
    try:
        root = ElementTree.fromstring(data)
    except ElementTree.ParseError as error:
        return f"It is no XMILE model, since it is not well-formed XML: {error}."
    namespace, _, name = root.tag.rpartition("}")
    if name != "xmile":
        return f"It is no XMILE model: its root element is <{name}>, not <xmile>."
    if "xmile" not in namespace.lower():
        return f"Its root element lacks the namespace of XMILE, <xmile {_NAMESPACE} …>."
    if not any(element.tag.endswith("}model") for element in root):
        return "It has no element <model>."
    return ""
