"""How a run is done: compiled where the model and the run can be, else by PySD.

    Request ──▶ Asked ──▶ Programs (compiled/) ──▶ arrays ──▶ frame
       │                      │ Unsupported, or values that are not finite
       └──────────────────────┴──▶ Live (PySD) ──▶ frame

Where compiled values are not finite, PySD has the last word: it raises for a division by zero, for example, where
compiled code gives infinity.
"""

from __future__ import annotations

import functools
import importlib.util
import logging
import os
import sys
import warnings
from collections.abc import Hashable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from parfit.core.errors import InvalidInputError, ModelError
from parfit.core.tracing import frame_of
from parfit.mdl.catalog import Catalog
from parfit.mdl.columns import Column, Layout, columns_of, places
from parfit.mdl.live import Live
from parfit.mdl.request import Request, is_traced
from parfit.mdl.source import Source, pysd_module

if TYPE_CHECKING:
    from parfit.mdl.compiled.program import Asked, Programs, Result

__all__ = ["Runner"]

_log = logging.getLogger("parfit.mdl")

_NO_JAX = "JAX is not installed: pip install 'parfit[jax]'"

# JAX's threads do not survive a fork, and compiled code would wait for them for ever: such a child runs PySD.
_forked_with_jax = False


def _note_fork() -> None:
    global _forked_with_jax
    _forked_with_jax = "jax" in sys.modules


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_note_fork)


class Runner:
    """Does the runs of one model.

    Parameters
    ----------
    source
        The model, complete.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        # Live models at rest. A run takes one out, or builds one, and puts it back if it went well: so no two
        # threads, and no run inside a run, ever share one. `pop` and `append` of a list are atomic.
        self._idle: list[Live] = []
        # By what was asked for: few kinds of runs are done often.
        self._known_columns: dict[Hashable, list[Column]] = {}
        self._layouts: dict[Hashable, Layout] = {}

    @functools.cached_property
    def catalog(self) -> Catalog:
        """The model's names."""
        live = self._take()
        catalog = Catalog(live)
        self._idle.append(live)
        return catalog

    def _take(self) -> Live:
        try:
            return self._idle.pop()
        except IndexError:
            return Live(self._source)

    # What can be compiled.

    @functools.cached_property
    def unsupported(self) -> tuple[str, ...]:
        """What keeps the model from being compiled; empty where nothing does."""
        if not self._source.compile:
            return ("compile=False, so PySD does all runs",)
        if _forked_with_jax:
            return ("the process was forked after JAX had been imported, which JAX does not survive",)
        programs = self._programs
        if programs is None:
            return (_NO_JAX,)
        variables = {v.name: v for v in self.catalog.variables.values() if v.kind != "Lookup"}
        return tuple(programs.unsupported(list(variables), {name: v.coords for name, v in variables.items()}))

    @property
    def by_pysd(self) -> bool:
        """Whether it is known already that PySD does the runs; to find out may take as long as to trace the model."""
        return not self._may_compile or bool(self.__dict__.get("unsupported"))

    @property
    def _may_compile(self) -> bool:
        return self._source.compile and importlib.util.find_spec("jax") is not None

    @functools.cached_property
    def _programs(self) -> Programs | None:
        if not self._may_compile or _forked_with_jax:
            return None
        # Here and not at the top: JAX takes half a second, and a model can be loaded without it.
        from parfit.mdl.compiled.program import Programs

        return Programs(self._source)

    # Runs.

    def frame(self, request: Request) -> Any:
        """The frame of a run; its stand-in where values are traced."""
        if request.traced:
            return self._traced_frame(request)
        if not (self._source.noisy or request.functions or not request.flatten_output):
            found = self._compiled(request)
            if found is not None and len(found.clock.saved) and not found.clock.skipped:
                return self._layout(request, found).frame(found.values, found.clock.index)
        return self._by_pysd(request)

    def arrays(self, request: Request) -> dict[str, Any]:
        """Label to an array over time and the variable's subscripts."""
        result = self._traced(request) if request.traced else self._compiled(request, noise=True)
        if result is not None:
            _check_times(result)
            chosen = places(request, result.clock.labels)
            return {c.label: c.of(result.values[c.name], result.coords[c.name])[chosen] for c in self._columns(request)}
        with warnings.catch_warnings():
            # PySD's remark on times between steps; `places` refuses them.
            warnings.filterwarnings("ignore", "The returning time stamp", UserWarning)
            frame = self._by_pysd(replace(request, flatten_output=True))
        return self._of_frame(request, frame)

    def _by_pysd(self, request: Request) -> pd.DataFrame:
        if request.integrator != "euler":
            why = "; ".join(self.unsupported[:3])
            why = why or ("a parameter is a function" if request.functions else "its values are not all finite")
            raise InvalidInputError(
                f"PySD has Euler's method alone, so integrator={request.integrator!r} needs a run that can be "
                f"compiled, and this one cannot: {why}."
            )
        live = self._take()
        frame = live.run(request)
        self._idle.append(live)
        return request.relabelled(frame)

    def _compiled(self, request: Request, *, noise: bool = False) -> Result | None:
        """A compiled run; None where it is PySD's."""
        if self._programs is None or request.functions or _forked_with_jax:
            return None
        from parfit.mdl.compiled.unsupported import Unsupported

        try:
            result = self._programs.run(self._asked(request, noise=noise))
        except Unsupported as reason:
            _log.info("run through PySD: %s", reason)
            return None
        finite = all(np.isfinite(values).all() for values in result.values.values())
        return result if finite else None

    def _traced(self, request: Request) -> Result:
        from parfit.mdl.compiled.unsupported import StructuralError, Unsupported

        programs = self._programs
        if programs is None:
            raise ModelError(f"this run cannot be traced, as PySD does it: {self.unsupported[0]}")
        if request.functions:
            raise ModelError("this run cannot be traced, as PySD does it: a parameter is a function")
        try:
            return programs.traced(self._asked(request, noise=True))
        except StructuralError as error:
            raise ModelError(f"this run cannot be traced: {error}. Give that parameter as a plain number.") from error
        except Unsupported as error:
            raise ModelError(f"this run cannot be compiled, and PySD cannot be traced: {error}") from error

    def _traced_frame(self, request: Request) -> Any:
        result = self._traced(request)
        _check_times(result)
        import jax.numpy as jnp

        layout = self._layout(request, result)
        frame = frame_of(jnp.concatenate(layout.matrices(result.values), axis=1), result.clock.index, layout.names)
        if frame is None:
            raise ModelError("Model.run gives a pandas frame, which JAX cannot trace: use Model.simulate")
        return frame

    # A request in the words of the compiled engine.

    def _asked(self, request: Request, *, noise: bool) -> Asked:
        from parfit.mdl.compiled.inputs import Inputs, Settings
        from parfit.mdl.compiled.program import Asked

        settings = Settings(
            request.start,
            request.final_time,
            request.time_step,
            request.saveper,
            None if request.timestamps is None else tuple(request.timestamps),
        )
        params = {name: self._param(name, value) for name, value in request.params.items()}
        initial = None
        if request.initial is not None:
            initial = {name: self._number(name, value) for name, value in request.initial.items()}
        columns = tuple(dict.fromkeys(column.name for column in self._columns(request)))
        seed = request.seed if noise and self._source.noisy else None
        return Asked(settings, Inputs(params, initial), columns, request.integrator, seed)

    def _number(self, name: str, value: Any) -> Any:
        from parfit.mdl.compiled.named import Named

        coords = self.catalog.variables[name].coords
        return Named(self._laid(name, value), coords, list(coords))

    def _laid(self, name: str, value: Any) -> Any:
        """A value over the axes of a variable: as PySD lays out an xarray array."""
        coords = self.catalog.variables[name].coords
        if hasattr(value, "dims") and coords:
            whole = {dim: list(labels) for dim, labels in coords.items()}
            return pysd_module("pysd.py_backend.utils").rearrange(value, list(coords), whole).values
        return value

    def _param(self, name: str, value: Any) -> Any:
        from parfit.mdl.compiled.tables import Knots

        variable = self.catalog.variables[name]
        if isinstance(value, pd.Series):
            shape = variable.shape
            y = np.stack([np.broadcast_to(self._laid(name, entry), shape) for entry in value]).astype(float)
            return Knots(np.asarray(value.index, float), y, variable.coords, tuple(variable.coords))
        lookup = variable.knots is not None and np.shape(value) == (len(variable.knots), *variable.shape)
        if lookup and is_traced(value):
            return Knots(np.asarray(variable.knots), value, variable.coords, tuple(variable.coords))
        return self._number(name, value)

    # Columns.

    def _columns(self, request: Request) -> list[Column]:
        key = self._key(request)
        if key not in self._known_columns:
            self._known_columns[key] = columns_of(self.catalog, request, self._changing(request))
        return self._known_columns[key]

    @staticmethod
    def _key(request: Request) -> Hashable:
        """What the columns of a request depend on."""
        columns = request.columns
        if columns is None or isinstance(columns, str):
            return columns, tuple((name, type(value).__name__) for name, value in request.params.items())
        return tuple(columns), None if request.labels is None else tuple(request.labels)

    def _changing(self, request: Request) -> frozenset[str]:
        """What changes over time, where it is asked."""
        if request.columns != "step":
            return frozenset()
        if self._programs is None:  # PySD decides, and `_of_frame` takes what it has decided
            return frozenset(self.catalog.variables)
        names = [v.name for v in self.catalog.variables.values() if v.kind != "Lookup"]
        return self._programs.changing(names, {n: isinstance(v, pd.Series) for n, v in request.params.items()})

    def _layout(self, request: Request, result: Result) -> Layout:
        # What is a whole number in the text may be given as another.
        key = self._key(request), result.kinds
        if key not in self._layouts:
            self._layouts[key] = Layout(self._columns(request), result.coords, dict(result.kinds))
        return self._layouts[key]

    def _of_frame(self, request: Request, frame: pd.DataFrame) -> dict[str, Any]:
        """The arrays of a frame that PySD made."""
        chosen = places(request, np.asarray(frame.index))
        frame = frame.loc[:, ~frame.columns.duplicated()]
        found = {}
        for column in self._columns(request):
            variable = self.catalog.variables[column.name]
            shape = () if column.address else variable.shape
            names = column.flat_names(variable.coords)
            if request.columns == "step" and names[0] not in frame:
                continue
            values = frame[names].to_numpy(float)
            found[column.label] = values.reshape(len(frame), *shape)[chosen]
        return found


def _check_times(result: Result) -> None:
    if result.clock.skipped or not len(result.clock.saved):
        wrong = [time for time in result.clock.skipped if not np.isclose(time, result.clock.times).any()]
        some = ", ".join(f"{time:g}" for time in (wrong or result.clock.skipped)[:5])
        raise InvalidInputError(
            f"times {some} fall on no step of the run, which goes from {result.clock.times[0]:g} to "
            f"{result.clock.times[-1]:g} by {result.clock.steps[0]:g}."
        )
