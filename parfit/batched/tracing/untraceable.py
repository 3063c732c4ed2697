"""What a compiled function cannot do, as an exception whose sentence the user gets to read."""

from __future__ import annotations

__all__ = ["Untraceable"]


class Untraceable(TypeError):  # noqa: N818 -- it never leaves the engine as an error, only as a reason
    """The objective uses something that cannot be compiled.

    Its sentence names what was used and why; it becomes `Fits.engine_reason`.
    """
