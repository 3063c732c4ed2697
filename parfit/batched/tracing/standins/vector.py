"""What the stand-ins of a Series have in common: elementwise arithmetic, and what they refuse.

Vector            elementwise                          (this file)
  └ Summarised    sums, means, ...; NumPy's protocols  (summaries.py)
      ├ Row       labels, known while tracing          (row.py)
      ├ Column    a mask, and no labels                (column.py)
      └ Padded    a column's bare array                (padded.py)
"""

from __future__ import annotations

import operator
import sys
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Self

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from parfit.batched.tracing.untraceable import Untraceable

__all__ = ["Array", "StandIn", "Vector", "is_traced", "leader", "refuse_keywords"]

Array = Any  # a jax array, traced or not

#: Attributes of a Series that deserve more than "it cannot be compiled".
_REASONS = {
    "name": "it is a label, which is no number",
    "plot": "a compiled function cannot draw",
    "dropna": "how many entries are left depends on their values; sums and means skip what is missing by themselves",
    "unique": "how many entries are left depends on their values",
    "drop_duplicates": "how many entries are left depends on their values",
    "value_counts": "how many entries are left depends on their values",
    "idxmax": "a label that depends on values cannot be read while compiling",
    "idxmin": "a label that depends on values cannot be read while compiling",
}

#: Keywords that pandas and NumPy pass on, with values that change nothing.
_IDLE = (None, False, 0, "index")


def is_traced(value: Any) -> bool:
    """Whether a value, or any part of a nested list, tuple or dict, is JAX's, or stands for a pandas object."""
    if isinstance(value, (list, tuple, set, frozenset)):
        return any(map(is_traced, value))
    if isinstance(value, dict):
        return any(map(is_traced, value.values()))
    if isinstance(value, slice):
        return is_traced((value.start, value.stop, value.step))
    return isinstance(value, (jax.Array, StandIn))


def refuse_keywords(name: str, keywords: dict[str, Any]) -> None:
    """Refuse an option of a method that would change its result."""
    for keyword, value in keywords.items():
        if not any(value is idle for idle in _IDLE) and type(value).__name__ != "_NoValueType":
            raise Untraceable(f"Series.{name}({keyword}=…) cannot be compiled")


def leader(operands: Sequence[Any]) -> Vector:
    """The stand-in among some operands that says what becomes of them all."""
    return max((operand for operand in operands if isinstance(operand, Vector)), key=lambda vector: vector.rank)


def _operator(function: Callable[..., Any], *, reflected: bool = False, compares: bool = False) -> Callable[..., Any]:
    def method(self: Vector, other: Any) -> Any:
        if not self._operates_with(other):
            raise Untraceable(f"{function.__name__} of a Series and {type(other).__name__} cannot be compiled")
        operands = [other, self] if reflected else [self, other]
        return leader(operands).combine(function, operands, compares=compares)

    method.__name__ = function.__name__
    return method


def _named(function: Callable[..., Any]) -> Callable[..., Any]:
    def method(self: Vector, other: Any, **options: Any) -> Any:
        if options.pop("fill_value", None) is not None:
            raise Untraceable(f"Series.{function.__name__.strip('_')}(fill_value=…) cannot be compiled")
        refuse_keywords(function.__name__, options)
        return function(self, other)

    return method


class StandIn:
    """What stands for any pandas object."""

    #: Beyond that of a Series and a frame, so that pandas leaves ``series * stand_in`` to the stand-in.
    __pandas_priority__: ClassVar[int] = 5000
    # Nothing that is compared entry by entry has one.
    __hash__ = None  # type: ignore[assignment]

    def to_numpy(self, dtype: Any = None, copy: bool = False, na_value: Any = None) -> Any:  # noqa: ARG002
        """The numbers as an array."""
        raise Untraceable("the values are read as an array, and not all of them are numbers")


class Vector(StandIn):
    """The stand-in of a Series or of its array, with values of shape (n,) that exist only while tracing.

    Parameters
    ----------
    values : jax.Array, shape (n,)
        The numbers.
    mask : jax.Array of bool, shape (n,), optional
        Which entries are there, and not only padding. None: all of them.
    """

    #: Of two kinds of stand-ins, the result is of the one that ranks higher.
    rank: ClassVar[int] = 0
    ndim: ClassVar[int] = 1

    def __init__(self, values: Array, mask: Array | None = None) -> None:
        self.raw = values if isinstance(values, jax.Array) else jnp.asarray(values)
        self.mask = mask

    def numbers(self) -> Array:
        """The values, shape (n,), refused where an entry is no number."""
        return self.raw

    def like(self, values: Array) -> Self:
        """The same labels, or the same mask, with other values."""
        raise NotImplementedError

    def array(self) -> Any:
        """What the Series' own array is: a jax array, or a `Padded` where there is a mask."""
        raise NotImplementedError

    def combine(self, function: Callable[..., Array], operands: Sequence[Any], *, compares: bool = False) -> Any:
        """What an elementwise function gives for stand-ins, arrays and scalars, aligned as pandas does.

        Parameters
        ----------
        function
            Takes arrays and scalars, as many as there are operands.
        operands
            In the function's order.
        compares
            Whether pandas refuses to align here.
        """
        raise NotImplementedError

    @staticmethod
    def _operates_with(other: Any) -> bool:
        if isinstance(other, (Vector, jax.Array, np.ndarray, np.generic, pd.Series, pd.Index)):
            return True
        return isinstance(other, (int, float, complex, list, tuple, range))

    def plain(self, operand: Any) -> Any:
        """An operand without labels, as an array or a scalar that fits beside the values."""
        if isinstance(operand, Vector):
            operand = operand.numbers()
        elif isinstance(operand, pd.Series):
            raise Untraceable("a Series with labels of its own cannot be aligned with rows whose labels are not known")
        elif isinstance(operand, (list, tuple, range)):
            operand = jnp.asarray(list(operand))
        elif isinstance(operand, (pd.Index, np.ndarray)):
            operand = np.asarray(operand)
            if operand.dtype.kind not in "fiub":
                raise Untraceable(f"an array of dtype {operand.dtype} cannot be used in a compiled function")
        if np.ndim(operand) > 1:
            raise Untraceable(f"a Series and an array of shape {np.shape(operand)} cannot be combined")
        return operand

    @property
    def __jax_array__(self) -> Callable[[], Array]:
        # JAX's own operators ask for this before they leave `tracer * row` to the row, and the labels or the
        # mask would be lost; they alone are told that there is nothing here.
        if sys._getframe(1).f_code.co_filename.endswith("array_methods.py"):
            raise AttributeError("__jax_array__")
        return self.numbers

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise Untraceable("NumPy cannot read the values of a function that is being compiled")

    # Operators.

    __add__, __radd__ = _operator(operator.add), _operator(operator.add, reflected=True)
    __sub__, __rsub__ = _operator(operator.sub), _operator(operator.sub, reflected=True)
    __mul__, __rmul__ = _operator(operator.mul), _operator(operator.mul, reflected=True)
    __truediv__, __rtruediv__ = _operator(operator.truediv), _operator(operator.truediv, reflected=True)
    __floordiv__, __rfloordiv__ = _operator(operator.floordiv), _operator(operator.floordiv, reflected=True)
    __mod__, __rmod__ = _operator(operator.mod), _operator(operator.mod, reflected=True)
    __pow__, __rpow__ = _operator(operator.pow), _operator(operator.pow, reflected=True)
    __and__, __rand__ = _operator(operator.and_), _operator(operator.and_, reflected=True)
    __or__, __ror__ = _operator(operator.or_), _operator(operator.or_, reflected=True)
    __xor__, __rxor__ = _operator(operator.xor), _operator(operator.xor, reflected=True)
    __lt__, __le__ = _operator(operator.lt, compares=True), _operator(operator.le, compares=True)
    __gt__, __ge__ = _operator(operator.gt, compares=True), _operator(operator.ge, compares=True)
    __eq__, __ne__ = _operator(operator.eq, compares=True), _operator(operator.ne, compares=True)

    add, radd = _named(__add__), _named(__radd__)
    sub, rsub = _named(__sub__), _named(__rsub__)
    mul, rmul = _named(__mul__), _named(__rmul__)
    truediv, rtruediv = _named(__truediv__), _named(__rtruediv__)
    floordiv, rfloordiv = _named(__floordiv__), _named(__rfloordiv__)
    mod, rmod = _named(__mod__), _named(__rmod__)
    pow, rpow = _named(__pow__), _named(__rpow__)
    lt, le, gt, ge = _named(__lt__), _named(__le__), _named(__gt__), _named(__ge__)
    eq, ne = _named(__eq__), _named(__ne__)
    subtract, multiply, div, rdiv, divide = sub, mul, truediv, rtruediv, truediv

    def __neg__(self) -> Self:
        return self.like(-self.numbers())

    def __pos__(self) -> Self:
        return self.like(+self.numbers())

    def __invert__(self) -> Self:
        return self.like(~self.numbers())

    def __abs__(self) -> Self:
        return self.abs()

    def __round__(self, decimals: int = 0) -> Self:
        return self.round(decimals)

    def __bool__(self) -> bool:
        raise ValueError("The truth value of a Series is ambiguous. Use a.empty, a.any() or a.all().")

    def __setitem__(self, key: Any, value: Any) -> None:
        raise Untraceable(f"the entry {key!r} of a Series is assigned to, and a compiled function cannot change it")

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("_") and hasattr(pd.Series, name):
            raise Untraceable(f"Series.{name} is used: {_REASONS.get(name, 'it cannot be compiled')}")
        raise AttributeError(f"'Series' object has no attribute {name!r}")

    # Elementwise methods.

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(self.raw.dtype)

    def abs(self) -> Self:
        return self.like(jnp.abs(self.numbers()))

    def round(self, decimals: int = 0, **options: Any) -> Self:
        refuse_keywords("round", options)
        return self.like(jnp.round(self.numbers(), decimals))

    def astype(self, dtype: Any, **_: Any) -> Self:
        wanted = np.dtype(dtype)
        if wanted.kind not in "fiub":
            raise Untraceable(f"Series.astype({dtype!r}) gives no numbers, which cannot be compiled")
        return self.like(self.numbers().astype(jax.dtypes.canonicalize_dtype(wanted)))

    def clip(self, lower: Any = None, upper: Any = None, **options: Any) -> Any:
        refuse_keywords("clip", options)
        low = self if lower is None else self.combine(jnp.maximum, [self, lower])
        return low if upper is None else low.combine(jnp.minimum, [low, upper])

    def isna(self) -> Self:
        return self.like(jnp.isnan(self.numbers()))

    def notna(self) -> Self:
        return ~self.isna()

    isnull, notnull = isna, notna

    def where(self, cond: Any, other: Any = np.nan, **options: Any) -> Any:
        refuse_keywords("where", options)
        return self.combine(lambda mine, kept, theirs: jnp.where(kept, mine, theirs), [self, cond, other])

    def fillna(self, value: Any, **options: Any) -> Any:
        refuse_keywords("fillna", options)
        return self.where(self.notna(), value)

    def between(self, left: Any, right: Any, inclusive: str = "both") -> Any:
        low = self >= left if inclusive in ("both", "left") else self > left
        return low & (self <= right if inclusive in ("both", "right") else self < right)

    def copy(self, deep: bool = True) -> Self:  # noqa: ARG002 -- nothing here can be changed
        return self

    def pipe(self, function: Callable[..., Any], *args: Any, **options: Any) -> Any:
        return function(self, *args, **options)

    @property
    def T(self) -> Self:
        return self
