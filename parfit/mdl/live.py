"""A live PySD model: loaded from a `Source`, run, and put back as it was.

PySD's `run` leaves its traces: replaced components, altered dependencies and caches, the time settings,
lookup tables, the order and shape of delays. `reload` undoes them by importing the model's file again, which
for the ageing chain takes as long as a run. `Live` notes what a freshly loaded model holds and puts exactly
that back after each run, so that a run depends on its arguments alone. After a run that raised, the `Live` is
not to be used again; building a new one is cheap.
"""

from __future__ import annotations

import random
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from parfit.core.errors import InvalidInputError, ModelError, refuse_unknown
from parfit.mdl.refusal import refusal
from parfit.mdl.source import Source, building, pysd_module, sifted_warnings

if TYPE_CHECKING:
    from parfit.mdl.request import Request

__all__ = ["Live", "read_data"]

# What a component carries besides its code; PySD looks these up on whatever replaces it.
_METADATA = ("name", "units", "limits", "subscripts", "type", "subtype", "args")


def read_data(source: Source, data_files: Any = None, *, initialize: bool = True) -> Source:
    """Read what the model takes from data files and spreadsheets, once, and return a `Source` that holds it.

    Parameters
    ----------
    source
        As `translate` returns it.
    data_files
        Paths, or a mapping path to variable names, as PySD takes them.
    initialize
        Also let the model work out its initial state, so that one that cannot start is refused here.

    Raises
    ------
    ModelError, FileNotFoundError
        With PySD's message.
    """
    with building(), sifted_warnings(tell_user=True):
        model = _load(source)
        external = pysd_module("pysd.py_backend.external")
        data = pysd_module("pysd.py_backend.data")
        try:
            data.Columns.clean()
            for part in _parts(model):
                if data_files:
                    _check_data_names(part, data_files)
                    part._get_data(data_files, None)
                external.External.missing = source.missing_values
                for element in part._external_elements:
                    element.root = Path(source.path).parent
                part.initialize_external_data()
            held = {
                f"{depth}/{element.py_name}": {
                    name: getattr(element, name) for name in ("data", "nan") if hasattr(element, name)
                }
                for depth, part in enumerate(_parts(model))
                for element in (*part._external_elements, *part._data_elements)
            }
            complete = replace(source, data=held)
            if initialize:
                Live(complete).check_start()
        except (OSError, ModelError, InvalidInputError):
            raise
        except Exception as error:
            raise refusal("load", source.path, error) from error
        finally:
            external.Excels.clean()
            data.Columns.clean()
    return complete


def _check_data_names(part: Any, data_files: Any) -> None:
    if isinstance(data_files, Mapping):
        known = [name for element in part._data_elements for name in (element.real_name, element.py_name)]
        for name in (name for names in data_files.values() for name in names):
            if name not in known:
                refuse_unknown("data variable", name, known)


def _load(source: Source) -> Any:
    """A PySD model from the texts of `source`, uninitialised; its folder is gone on return."""
    pysd = pysd_module()
    # PySD names the module it imports by a draw from the caller's generator, and the import system
    # would keep a compiled copy: beside the text, or wherever the user has such copies kept.
    drawn, bytecode = random.getstate(), sys.dont_write_bytecode
    with tempfile.TemporaryDirectory(prefix="parfit-") as folder:
        try:
            sys.dont_write_bytecode = True
            main = source.write(Path(folder))
            return pysd.load(str(main), initialize=False, missing_values=source.missing_values)
        except Exception as error:
            raise refusal("load", source.path, error) from error
        finally:
            sys.dont_write_bytecode = bytecode
            random.setstate(drawn)


def _parts(model: Any) -> Iterator[Any]:
    """The model and its macros, however deep, in a fixed order."""
    yield model
    for macro in model._macro_elements:
        yield from _parts(macro)


class Live:
    """A PySD model that comes back from each `run` as freshly loaded.

    Parameters
    ----------
    source
        Complete, as `read_data` returns it.

    Attributes
    ----------
    model
        PySD's own object: for reading only.
    """

    def __init__(self, source: Source) -> None:
        with building(), sifted_warnings(tell_user=False):
            self.model = _load(source)
            for depth, part in enumerate(_parts(self.model)):
                for element in (*part._external_elements, *part._data_elements):
                    vars(element).update(source.data.get(f"{depth}/{element.py_name}", {}))
                part.external_loaded = True
                for lookup in part._lookup_elements:
                    lookup.initialize()
                part.lookups_loaded = True
        self._noisy = source.noisy
        self._module = vars(self.model.components._components)
        self.model.components._init_outer_references({"scope": self.model, "time": self.model.time})
        self._note()

    def _note(self) -> None:
        model = self.model
        self._functions = dict(self._module)
        self._dependencies = dict(model._dependencies)
        self._cached = frozenset(model.cache.cached_funcs)
        self._time = dict(vars(model.time))
        elements = []
        for part in _parts(model):
            elements += [e for e in part._stateful_elements.values() if not hasattr(e, "components")]
            elements += [*part._external_elements, *part._data_elements, *part._lookup_elements]
        self._elements = [(vars(element), dict(vars(element))) for element in elements]

    def restore(self) -> None:
        """Put everything back that a run changes."""
        model = self.model
        self._module.update(self._functions)
        model._dependencies = dict(self._dependencies)
        model._components_setter_tracker = {}
        model._constant_funcs = set()
        model.cache.cached_funcs = set(self._cached)
        model.clean_caches()
        time = vars(model.time)
        time.clear()
        time.update(self._time, _control_vars_tracker={})
        for held, noted in self._elements:
            held.clear()
            held.update(noted)

    @contextmanager
    def noise(self, seed: int) -> Iterator[None]:
        """Let the model's random functions start from `seed`, and leave the caller's generator alone."""
        if not self._noisy:
            yield
            return
        # PySD's translation names NumPy's global generator; there is no other to give it.
        with building():
            drawn = np.random.get_state()  # noqa: NPY002
            np.random.seed(seed)  # noqa: NPY002
            try:
                yield
            finally:
                np.random.set_state(drawn)  # noqa: NPY002

    def check_start(self) -> None:
        """Let the model work out its initial state; raises what PySD raises."""
        with self.noise(0):
            self.model.initialize()
        self.restore()

    def value(self, name: str) -> Any:
        """The value of a component that has one before any run: a float or an array."""
        with self.noise(0):
            found = getattr(self.model.components, name)()
        self.model.clean_caches()
        return np.array(found) if hasattr(found, "dims") else float(found)

    def knots(self, name: str) -> tuple[float, ...] | None:
        """The arguments at which a lookup has values; None where it has none yet."""
        table = self._module[self.model._dependencies[name]["__lookup__"]]
        data: Any = getattr(table, "data", None)
        return tuple(float(x) for x in data.coords["lookup_dim"].values) if hasattr(data, "coords") else None

    def run(self, request: Request) -> pd.DataFrame:
        """Run the model and put it back as it was.

        Raises
        ------
        InvalidInputError
            Where none of the time stamps asked for falls on a step of the run.
        Exception
            Whatever PySD raises; this object is then spent.
        """
        with self.noise(request.seed):
            self.restore()  # reading the values of components leaves traces, too
            for name, value in request.params.items():
                self._replace(name, value)
            try:
                frame = self._simulate(request)
            except ValueError as error:
                self._say_which_data_are_missing(error)
                raise
        self.restore()
        return frame

    def _say_which_data_are_missing(self, error: ValueError) -> None:
        elements = [element for part in _parts(self.model) for element in part._data_elements]
        missing = [element.real_name for element in elements if element.data is None]
        if missing:
            error.add_note(f"No data have been read for {missing}: give load_model their data_files, or params.")

    def _simulate(self, request: Request) -> pd.DataFrame:
        """PySD's `run`, but for the frame, where PySD sets pandas' deprecation warnings off on every run."""
        model = self.model
        output = pysd_module("pysd.py_backend.output")
        model._stepper_mode = False
        model._config_simulation(
            params=None,
            return_columns=request.columns,
            return_timestamps=request.timestamps,
            initial_condition=self._start(request),
            final_time=request.final_time,
            time_step=request.time_step,
            saveper=request.saveper,
            cache_output=True,
            progress=False,
        )
        model.output = output.ModelOutput()
        model.output.set_capture_elements(model.capture_elements)
        model.output.initialize(model)
        model._integrate()
        model.output.add_run_elements(model)
        rows = model.output.handler.ds
        if "time" not in rows:
            raise InvalidInputError(
                f"the run has no rows: of return_timestamps {request.timestamps} none falls on a step; "
                f"it goes from {model.time._initial_time:g} to {model.time.final_time():g} "
                f"by {model.time.time_step():g}."
            )
        frame: pd.DataFrame = output.DataFrameHandler.make_flat_df(
            pd.DataFrame(rows).set_index("time", drop=False), model.return_addresses, request.flatten_output
        )
        model._remove_constant_cache()
        return frame

    def _replace(self, name: str, value: Any) -> None:
        """Let a component have another value, series or function; PySD's `set_components`, without remarks.

        PySD warns whenever a value changes a component's kind, which is what the caller asked for, and marks
        a function that it is given.
        """
        model = self.model
        component = self._module[name]
        if component.type in ("Lookup", "Data"):
            holder = model._dependencies[name][f"__{component.type.lower()}__"]
            self._module[holder].set_values(value)
            if component.type == "Data":
                varies = {"time": 1} if isinstance(value, pd.Series) else {}
                model._dependencies[name] = {**varies, "__data__": holder}
            return
        replacement, dependencies = self._component(value, component.subscripts)
        for key in _METADATA:
            setattr(replacement, key, getattr(component, key))
        replacement.__name__ = name
        self._module[name] = replacement
        model._dependencies[name] = dependencies
        model.cache.cached_funcs.discard(name)

    def _component(self, value: Any, dims: list[str] | None) -> tuple[Any, dict[str, int]]:
        if isinstance(value, pd.Series):
            replacement, dependencies = self.model._timeseries_component(value, dims)
            return replacement, dict(dependencies)
        if callable(value):
            return (lambda *arguments: value(*arguments)), {"time": 1}
        if dims:
            value = pysd_module("pysd.py_backend.utils").rearrange(value, dims, self.model.subscripts)
        return (lambda: value), {}

    def _start(self, request: Request) -> str | tuple[float, dict[str, Any]]:
        """The initial condition as PySD takes it."""
        if request.initial is None:
            return "original"
        time = request.start
        if time is None:
            time = self.model.components._control_vars["initial_time"]()
        values: dict[str, Any] = {}
        for name, value in request.initial.items():
            pieces = list(self.model._dependencies[name])
            if len(pieces) == 1:
                values[name] = value
            else:
                values.update(self._spread(name, pieces, value))
        return time, values

    def _spread(self, name: str, pieces: list[str], value: Any) -> dict[str, Any]:
        """Deal a value to the pieces of a stock that has an equation for each part of its subscripts.

        PySD's `set_initial_value` takes such a stock for the one that was set before it.
        """
        utils = pysd_module("pysd.py_backend.utils")
        xarray = pysd_module("xarray")
        dims = self._module[name].subscripts
        whole = utils.rearrange(value, dims, self.model.subscripts)
        values = {}
        for piece in pieces:
            element = self._module[piece]
            if element._state is None:
                self.model.initialize()
            coords = {dim: list(element.state.coords[dim].values) for dim in element.state.dims}
            part = whole.loc[tuple(coords.values())]
            values[piece] = xarray.DataArray(part.values, coords, list(coords))
        return values
