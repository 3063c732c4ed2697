"""What keeps a model, or one call, from being compiled."""

from __future__ import annotations

__all__ = ["StructuralError", "Unsupported"]


class Unsupported(Exception):  # noqa: N818 - it is no error: the model runs through PySD instead
    """A construct that has no counterpart in a compiled program.

    Attributes
    ----------
    what
        The construct, in words.
    where
        The variable that uses it, as a Python identifier; empty where it is not known yet.
    """

    def __init__(self, what: str, where: str = "") -> None:
        super().__init__(f"{what} (in {where})" if where else what)
        self.what, self.where = what, where


class StructuralError(Unsupported):
    """A number has to be known while compiling, such as the order of a delay, and depends on a traced value.

    Attributes
    ----------
    names
        The variables that were being computed, innermost last.
    """

    def __init__(self, what: str, names: tuple[str, ...] = ()) -> None:
        super().__init__(what, names[-1] if names else "")
        self.names = names
