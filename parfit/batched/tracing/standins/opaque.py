"""The stand-in of what is no number: it may be passed on, and not be used."""

from __future__ import annotations

from typing import Any, NoReturn

from parfit.batched.tracing.untraceable import Untraceable

__all__ = ["Opaque"]


class Opaque:
    """Text, a date or whatever else is no number, in a dataset of an objective that is being traced.

    Parameters
    ----------
    what
        What it is, for the sentence that refuses its use.
    """

    __slots__ = ("_what",)

    def __init__(self, what: str) -> None:
        self._what = what

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        raise Untraceable(f"{self._what} is used, and it is no number")

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        self._refuse()

    def __repr__(self) -> str:
        return f"<stand-in of {self._what}>"

    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = _refuse
    __mod__ = __rmod__ = __pow__ = __rpow__ = __floordiv__ = __rfloordiv__ = __neg__ = __abs__ = _refuse
    __lt__ = __le__ = __gt__ = __ge__ = __eq__ = __ne__ = __hash__ = __bool__ = _refuse
    __len__ = __iter__ = __contains__ = __getitem__ = __call__ = __index__ = __int__ = __float__ = _refuse
    __str__ = __format__ = __array__ = _refuse
