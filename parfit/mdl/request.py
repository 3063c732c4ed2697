"""The arguments of `Model.run`, in the many forms that they may take, brought to one."""

from __future__ import annotations

import functools
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from parfit.core.errors import InvalidInputError, InvalidTypeError, refuse_unknown
from parfit.mdl.catalog import Catalog, Variable

__all__ = ["RUN", "SIMULATE", "Request", "Words", "is_traced", "read_request"]


@dataclass(frozen=True)
class Words:
    """What the arguments are called that `Model.run` and `Model.simulate` have in common."""

    start: str
    times: str


RUN = Words("initial_condition", "return_timestamps")
SIMULATE = Words("initial", "times")


@dataclass(frozen=True, eq=False)
class Request:
    """One run, checked: names are Python identifiers that exist, values are what PySD takes.

    Attributes
    ----------
    params
        Name to float, xarray array, Series over time, or callable.
    start, initial
        Time of the start (None: the model's own) and stock to float or xarray array (None: the model's own).
    timestamps
        Increasing, without duplicates, or None for every `saveper`.
    columns
        As PySD takes them.
    labels
        The same as the caller wrote them.
    final_time, time_step, saveper
        In the model's unit of time, or None for the model's own.
    flatten_output
        As in `Model.run`.
    seed
        Of the model's random functions.
    integrator
        ``"euler"`` or ``"rk4"``.
    times
        The times that `Model.simulate` is to give, in the caller's order; None for all that the run gives.
    """

    params: Mapping[str, Any]
    start: float | None
    initial: Mapping[str, Any] | None
    timestamps: list[float] | None
    columns: list[str] | str | None
    labels: list[str] | None
    final_time: float | None
    time_step: float | None
    saveper: float | None
    flatten_output: bool
    seed: int
    integrator: str = "euler"
    times: Any = None

    @property
    def traced(self) -> bool:
        """Whether any value exists only while JAX traces."""
        return any(is_traced(value) for value in (*self.params.values(), *(self.initial or {}).values()))

    @property
    def functions(self) -> bool:
        """Whether a variable is replaced by a function of the caller's."""
        return any(callable(value) and not hasattr(value, "dims") for value in self.params.values())

    def relabelled(self, frame: pd.DataFrame) -> pd.DataFrame:
        """`frame`, with its columns under the names that the caller wrote."""
        if self.labels is None or self.labels == self.columns:
            return frame
        positions, names = [], []
        for asked, label in zip(self.columns or (), self.labels, strict=True):
            stem, written = asked.split("[")[0], label.split("[")[0]
            for position, column in enumerate(frame.columns):
                if column == asked:
                    positions.append(position)
                    names.append(label)
                elif column.startswith(stem + "[") and "[" not in asked:
                    positions.append(position)
                    names.append(written + column[len(stem) :])
        return frame.iloc[:, positions].set_axis(names, axis=1)


def read_request(
    catalog: Catalog,
    *,
    params: Any,
    initial_condition: Any,
    return_timestamps: Any,
    return_columns: Any,
    final_time: Any,
    time_step: Any,
    saveper: Any,
    flatten_output: bool = True,
    seed: int = 0,
    integrator: str = "euler",
    times: Any = None,
    words: Words = RUN,
) -> Request:
    """Check the arguments of `Model.run`, or of `Model.simulate`, against the model's names.

    Raises
    ------
    UnknownNameError, InvalidInputError, InvalidTypeError
        Nothing has been run.
    """
    start, initial = _initial(catalog, initial_condition, words.start)
    columns, labels = _columns(catalog, return_columns)
    timestamps, final = _timestamps(return_timestamps, words.times), _number("final_time", final_time)
    _check_span(catalog, start, timestamps, final, words)
    return Request(
        params=_values("params", params, lambda name: catalog.parameter(name, words.start)),
        start=start,
        initial=initial,
        timestamps=timestamps,
        columns=columns,
        labels=labels,
        final_time=final,
        time_step=_positive("time_step", time_step),
        saveper=_positive("saveper", saveper),
        flatten_output=bool(flatten_output),
        seed=_seed(seed),
        integrator=_integrator(integrator),
        times=times,
    )


def _number(what: str, value: Any) -> float | None:
    if value is None:
        return None
    if is_traced(value):
        raise InvalidTypeError(f"{what} cannot be traced: the steps of a run are known while it is compiled.")
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise InvalidTypeError(f"{what} must be a number, not {value!r}.") from None
    if not math.isfinite(number):
        raise InvalidInputError(f"{what} must be finite, not {number}.")
    return number


def _positive(what: str, value: Any) -> float | None:
    number = _number(what, value)
    if number is not None and number <= 0:
        raise InvalidInputError(f"{what} must be above zero, not {number:g}.")
    return number


def _integrator(value: Any) -> str:
    if value not in ("euler", "rk4"):
        refuse_unknown("integrator", value, ("euler", "rk4"))
    return str(value)


def _seed(value: Any) -> int:
    if not isinstance(value, (int, np.integer)) or not 0 <= value < 2**32:
        raise InvalidInputError(f"seed must be an integer from 0 to 2**32 - 1, not {value!r}.")
    return int(value)


def _timestamps(value: Any, name: str) -> list[float] | None:
    if value is None:
        return None
    if callable(convert := getattr(value, "__jax_array__", None)):  # what stands for a column in a trace
        value = convert()
    if is_traced(value):
        raise InvalidTypeError(
            f"{name} cannot be traced: the steps of a run are known while it is compiled. Simulate at all times, and "
            "take those of a dataset by their positions: jnp.take(values, positions)."
        )
    try:
        stamps = np.unique(np.asarray(value, dtype=float))
    except (TypeError, ValueError):
        raise InvalidTypeError(f"{name} must be a number or several, not {value!r}.") from None
    if not stamps.size:
        return None
    if not np.isfinite(stamps).all():
        raise InvalidInputError(f"{name} must be finite; given: {value!r}.")
    return [float(stamp) for stamp in stamps]


def _check_span(
    catalog: Catalog, start: float | None, stamps: list[float] | None, final: float | None, words: Words
) -> None:
    """Refuse times before the start; PySD would leave them out, and say that they fall between steps."""
    if start is None:
        start = catalog.times["initial_time"]
    if start is None:
        return
    # As close as PySD takes for the same.
    close = 1e-5 * (catalog.times["time_step"] or 1.0)
    if early := [stamp for stamp in stamps or () if stamp < start and not np.isclose(stamp, start, close)]:
        raise InvalidInputError(
            f"{words.times} {_some(early)} lie before the run's start, {start:g}; it starts elsewhere with "
            f"{words.start}=(time, {{stock: value}})."
        )
    if final is not None and final < start:
        raise InvalidInputError(f"final_time {final:g} lies before the run's start, {start:g}.")


def _some(times: list[float]) -> str:
    return ", ".join(f"{time:g}" for time in times[:5]) + (", …" if len(times) > 5 else "")


def _columns(catalog: Catalog, value: Any) -> tuple[list[str] | str | None, list[str] | None]:
    if value is None:
        return list(catalog.stocks), None
    if isinstance(value, str):
        if catalog.find(value) is None and value in ("all", "step"):
            return (None if value == "all" else value), None
        value = [value]
    pairs = [pair for label in value for pair in catalog.columns(label)]
    return [asked for asked, _ in pairs], [label for _, label in pairs]


def _initial(catalog: Catalog, value: Any, name: str) -> tuple[float | None, Mapping[str, Any] | None]:
    if value is None or (isinstance(value, str) and value.lower() in ("original", "o")):
        return None, None
    if isinstance(value, str):
        reason = (
            "a run leaves nothing behind to go on from; take the last row of the run before, as "
            f"{name}=(time, {{stock: value}})"
            if value.lower() in ("current", "c")
            else "give the values, as (time, {stock: value})"
        )
        raise InvalidInputError(f"{name}={value!r} cannot be used: {reason}.")
    find = functools.partial(catalog.stateful, start=name)
    if _maps(value):
        return None, _values(name, value, find)
    if isinstance(value, Sequence) and len(value) == 2 and _maps(value[1]):
        start = _number(f"the time of {name}", value[0])
        return start, _values(name, value[1], find)
    raise InvalidTypeError(
        f"{name} must be (time, {{stock: value}}), {{stock: value}} at the model's own initial time, "
        f"or None; not {value!r}."
    )


def _values(what: str, given: Any, find: Callable[[object], Variable]) -> dict[str, Any]:
    """Name to value, for `params` and `initial_condition` alike."""
    if given is None:
        return {}
    if not _maps(given):
        raise InvalidTypeError(f"{what} must map names to values, not {type(given).__name__}.")
    values: dict[str, Any] = {}
    for name, value in given.items():
        variable = find(name)
        if variable.name in values:
            raise InvalidInputError(f"{what} has {variable.real_name!r} twice, under two of its names.")
        values[variable.name] = _value(f"{what}[{name!r}]", value, variable, at_start=what != "params")
    return values


def _maps(value: Any) -> bool:
    """Whether it maps names to values; the stand-in of a Series in a trace does."""
    return isinstance(value, (Mapping, pd.Series)) or (hasattr(value, "items") and hasattr(value, "keys"))


def is_traced(value: Any) -> bool:
    """Whether a value, or an entry of a list, exists only while JAX traces."""
    if isinstance(value, (list, tuple)):
        return any(map(is_traced, value))
    jax = sys.modules.get("jax")
    return jax is not None and isinstance(value, jax.core.Tracer)


def _traced_value(what: str, value: Any, variable: Variable) -> Any:
    """An array, or nested lists, of JAX's, in the shape of a variable or a number."""
    array = sys.modules["jax"].numpy.asarray(value)
    allowed = [(), variable.shape]
    if variable.knots is not None:
        allowed.append((len(variable.knots), *variable.shape))
    if array.shape not in allowed:
        raise InvalidInputError(_misshapen(what, array.shape, variable))
    return array


def _misshapen(what: str, shape: tuple[int, ...], variable: Variable) -> str:
    """What to say of an array of a wrong shape."""
    text = f"{what} has shape {shape}, but {variable.real_name!r} "
    if variable.knots is not None:
        shape = (len(variable.knots), *variable.shape)
        return text + f"is a lookup, whose values have shape {shape}, at the arguments {_some(list(variable.knots))}."
    return text + (f"has shape {variable.shape}: {variable.axes}." if variable.coords else "takes a number.")


def _value(what: str, value: Any, variable: Variable, *, at_start: bool) -> Any:
    """One value as PySD takes it: float, xarray array, and in `params` also Series and callable; or JAX's."""
    if isinstance(value, float):
        return float(value)
    if callable(convert := getattr(value, "__jax_array__", None)):  # what stands for a Series in a trace
        value = convert()
    if is_traced(value):
        return _traced_value(what, value, variable)
    xarray = sys.modules["xarray"]  # PySD has imported it
    if isinstance(value, xarray.DataArray):
        if not variable.coords and value.ndim:
            raise InvalidInputError(f"{what}: {variable.real_name!r} has no subscripts; give a number.")
        return value if value.ndim else float(value)
    if isinstance(value, pd.Series) and not at_start:
        return _series(what, value)
    if callable(value) and not at_start and variable.kind not in ("Lookup", "Data"):
        return value
    array = _floats(value)
    if array is None:
        raise InvalidTypeError(f"{what} must be a number{_or_more(variable)}, not {value!r}.")
    if not array.ndim:
        return float(array)
    coords, dims = {d: list(e) for d, e in variable.coords.items()}, list(variable.coords)
    if variable.knots is not None and array.shape == (len(variable.knots), *variable.shape):
        entries = [xarray.DataArray(entry.copy(), coords, dims) if dims else float(entry) for entry in array]
        return pd.Series(entries, index=list(variable.knots))
    if array.shape != variable.shape:
        raise InvalidInputError(_misshapen(what, array.shape, variable))
    return xarray.DataArray(array.copy(), coords, dims)


def _floats(value: Any) -> np.ndarray[Any, np.dtype[np.float64]] | None:
    """`value` as an array, or None: NumPy alone would read ``"0.05"`` as a number and None as NaN."""
    try:
        given = np.asarray(value)
        textual = given.dtype.kind in "SU" or (
            given.dtype == object and any(isinstance(v, (str, bytes, type(None))) for v in given.flat)
        )
        return None if textual or given.dtype.kind == "c" else given.astype(float)
    except (TypeError, ValueError):
        return None


def _or_more(variable: Variable) -> str:
    return f", or an array of shape {variable.shape}" if variable.coords else ""


def _series(what: str, value: pd.Series[Any]) -> pd.Series[Any]:
    """A Series over time (or over a lookup's argument), increasing, as PySD interpolates it."""
    try:
        index = np.asarray(value.index, dtype=float)
    except (TypeError, ValueError):
        index = np.array([np.nan])
    if not len(value) or not np.isfinite(index).all() or len(np.unique(index)) < len(index):
        raise InvalidInputError(
            f"{what}: the index of a Series is the time, so it must hold different finite numbers; "
            f"it is {list(value.index)[:6]}."
        )
    if not hasattr(value.iloc[0], "dims"):
        numbers = _floats(value)
        if numbers is None:
            raise InvalidTypeError(f"{what}: the Series must hold numbers, not {value.iloc[0]!r}.")
        value = pd.Series(numbers, index=value.index)
    return value.set_axis(index).sort_index()
