"""Whether a process that the standard library spawns would run the script that has asked for it once more."""

from __future__ import annotations

import ast
import os
import sys
import tokenize
from collections.abc import Sequence
from types import FrameType

from parfit.core.errors import SetupError

__all__ = ["GUARD", "refuse_unguarded"]

GUARD = "`if __name__ == '__main__':`"


def refuse_unguarded(name: str) -> None:
    """Raise `SetupError` where the call comes from the top level of a script, outside of any ``if``.

    A spawned process imports the caller's ``__main__``, does again all that stands before the call, comes to the same
    call, and ends with an error of its own. Any ``if`` may be a guard: whether it is, shows when the workers start.
    """
    frame = _top_of_main()
    if frame is None or _guarded(frame.f_code.co_filename, frame.f_lineno):
        return
    where = f"{os.path.basename(frame.f_code.co_filename)}, line {frame.f_lineno}"
    raise SetupError(
        f"executor {name!r} starts processes that run the script from its top, and this call ({where}) would be among "
        f"what they run: put it under {GUARD}, or use the default executor, 'processes', which needs no guard"
    )


def _top_of_main() -> FrameType | None:
    """The frame of the script's top level, where this call comes from there."""
    main = sys.modules.get("__main__")
    if getattr(main, "__file__", None) is None:  # a notebook, or typed in: nothing will be imported
        return None
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if frame.f_globals is vars(main) and frame.f_code.co_name == "<module>":
            return frame
        frame = frame.f_back
    return None


def _guarded(path: str, line: int) -> bool:
    """Whether a line stands within an ``if``; True where that cannot be found out."""
    try:
        with tokenize.open(path) as file:
            body: Sequence[ast.AST] = [ast.parse(file.read())]
    except (OSError, SyntaxError, UnicodeDecodeError, ValueError):
        return True
    while body:
        node = body[0]
        if isinstance(node, (ast.If, ast.Match)):
            return True
        parts = [part for part in ast.iter_child_nodes(node) if isinstance(part, (ast.stmt, ast.ExceptHandler))]
        body = [part for part in parts if part.lineno <= line <= (part.end_lineno or part.lineno)]
    return False
