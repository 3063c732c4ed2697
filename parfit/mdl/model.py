"""`load_model` and `Model`: a Vensim or XMILE model that pickles and whose runs leave no trace."""

from __future__ import annotations

import functools
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from parfit.core.errors import InvalidTypeError, refuse_unknown
from parfit.mdl.catalog import Catalog
from parfit.mdl.live import read_data
from parfit.mdl.request import SIMULATE, read_request
from parfit.mdl.runner import Runner
from parfit.mdl.source import Source, find_model_file, translate

__all__ = ["Model", "load_model"]

_log = logging.getLogger("parfit.mdl")

_MISSING_VALUES = ("warning", "raise", "ignore", "keep")


def load_model(
    path: str | Path,
    *,
    data_files: str | Path | Sequence[str | Path] | Mapping[str | Path, Sequence[str]] | None = None,
    missing_values: str = "warning",
    initialize: bool = True,
    split_views: bool = False,
    subview_sep: Sequence[str] = (),
    encoding: str | None = None,
    compile: bool = True,
) -> Model:
    """Load a system dynamics model: Vensim ``.mdl``, XMILE (``.xmile``, ``.xml``, ``.stmx``), PySD's ``.py``.

    The file is translated once, here, in a private folder; nothing is written beside it. Data files and
    spreadsheets that it names are read here too, relative to its folder, so that the model can then be sent
    to any process.

    Parameters
    ----------
    path
        The model's file.
    data_files
        Where the model's data variables are read from, ``.csv`` or ``.tab``: a path, several, or a mapping
        from path to the names of the variables in it. A relative path counts from the working folder or,
        where there is no such file, from the model's.
    missing_values
        What to do with gaps in data: ``"warning"`` (interpolate, and say so), ``"ignore"`` (interpolate),
        ``"raise"``, ``"keep"``.
    initialize
        Let the model work out its initial state once, so that one that cannot start is refused here.
        ``False`` for a model that needs `params` to start.
    split_views, subview_sep, encoding
        As in `pysd.read_vensim`: translate each view on its own, the separators of subviews, and the
        encoding of the ``.mdl`` (None: as it says itself).
    compile
        False: let PySD do all runs, also where they could be compiled.

    Returns
    -------
    Model

    Raises
    ------
    FileNotFoundError
        Where the model's or a data file does not exist; names the nearest file.
    InvalidInputError
        For a folder, and for a suffix that is not known.
    InvalidTypeError
        For what is no path.
    ModelError
        Where PySD cannot translate or load the file; carries its message, and says what is the matter with the file.
        PySD's traceback goes to the log ``parfit.mdl``, at level DEBUG.

    Examples
    --------
    >>> model = load_model("models/Aging_Chain.mdl")
    >>> model.stocks[:3]
    ['dec_1', 'dec_2', 'dec_3']
    >>> end = model.run({"dec 9 loss rate": 0.1}, (2000, {"dec 9": 284}), 2010).loc[2010]
    >>> print(f"{end['dec_9']:.2f}")
    108.62
    """
    missing = "raise" if missing_values == "error" else missing_values
    if missing not in _MISSING_VALUES:
        refuse_unknown("missing_values", missing_values, _MISSING_VALUES)
    found = find_model_file(path)
    source = translate(
        found,
        split_views=split_views,
        subview_sep=subview_sep,
        encoding=encoding,
        missing_values=missing,
        compile=bool(compile),
    )
    return Model(read_data(source, _data_files(data_files, found.parent), initialize=initialize))


def _data_files(given: Any, folder: Path) -> Any:
    """`data_files` with absolute paths."""
    if given is None:
        return None
    if isinstance(given, (str, Path)):
        return [_data_file(given, folder)]
    if isinstance(given, Mapping):
        return {
            _data_file(path, folder): [names] if isinstance(names, str) else list(names)
            for path, names in given.items()
        }
    if isinstance(given, Sequence):
        return [_data_file(path, folder) for path in given]
    raise InvalidTypeError(
        f"data_files must be a path, several, or a mapping path to names, not {type(given).__name__}."
    )


def _data_file(path: str | Path, folder: Path) -> str:
    here = Path(path).expanduser().absolute()
    beside = folder / path
    for candidate in (here, beside):
        if candidate.is_file():
            return str(candidate)
    raise FileNotFoundError(f"there is no data file {str(path)!r}, neither at {here} nor at {beside}.")


@functools.cache
def _note_tolerances() -> None:
    _log.info("rtol and atol have no effect: PySD integrates by Euler's method with the model's time step.")


class Model:
    """A system dynamics model, from `load_model`.

    It pickles and copies, unlike PySD's own object, which it builds anew wherever it is used: what travels is
    the translated text and the data. It may be used from several threads at a time.

    Where JAX is installed and the model holds nothing that cannot be compiled (`compiled`, `unsupported`), runs are
    compiled, each kind of run the first time that it is asked for; `simulate` can then be traced and differentiated.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._runner = Runner(source)

    def __reduce__(self) -> tuple[type[Model], tuple[Source]]:
        return type(self), (self._source,)

    @property
    def _catalog(self) -> Catalog:
        return self._runner.catalog

    def run(
        self,
        params: Mapping[str, Any] | pd.Series[Any] | None = None,
        initial_condition: Any = None,
        return_timestamps: Any = None,
        return_columns: Sequence[str] | str | None = None,
        *,
        final_time: float | None = None,
        time_step: float | None = None,
        saveper: float | None = None,
        flatten_output: bool = True,
        seed: int = 0,
        rtol: float | None = None,
        atol: float | None = None,
    ) -> pd.DataFrame:
        """Simulate, and return what was asked for over time.

        The result depends on the arguments alone: nothing of one run is left for the next.

        Parameters
        ----------
        params
            Name to value, for any variable but stocks: a number; an array in the shape of the variable's
            subscripts, or an xarray array; a Series over time, interpolated (for a lookup, over its
            argument); a function without arguments.
        initial_condition
            ``(time, {stock: value})``, with values as numbers or arrays in the shape of the stock's
            subscripts; a Series serves for the mapping. Stocks left out start as the model says. Without the
            time, at the model's own initial time. None or ``"original"``: all as the model says.
        return_timestamps
            The time or times to return, in the model's unit of time; the last is also the end of the run,
            unless `final_time` says otherwise. None: every `saveper`.
        return_columns
            Names of variables, or ``"stock[element]"`` for one element; None for the stocks, ``"step"`` for
            all that change over time, ``"all"`` for all variables.
        final_time, time_step, saveper
            In place of the model's own, in its unit of time.
        flatten_output
            A column for each element of a variable with subscripts; False: one column of xarray arrays.
        seed
            Of the model's random functions. As in Vensim, each run repeats the same noise.
        rtol, atol
            Accepted for the sake of older scripts, and without effect: integration is Euler's, with a fixed
            step.

        Returns
        -------
        pandas.DataFrame
            Index ``time``, float; columns named as asked for, by default `stocks`.

        Raises
        ------
        UnknownNameError
            For a parameter, stock or column that does not exist, with the nearest that does.
        InvalidInputError, InvalidTypeError
            For values that cannot be used. Nothing has been run.
        Exception
            Whatever the model raises.

        Notes
        -----
        Names are the model's own or PySD's Python identifiers, as the caller likes.

        Examples
        --------
        >>> model = load_model("models/Aging_Chain.mdl")
        >>> run = model.run({"births": 2}, return_timestamps=[2000, 2010], return_columns=["dec 1", "dec_9"])
        >>> run.round(2)  # doctest: +NORMALIZE_WHITESPACE
                dec 1  dec_9
        time
        2000.0   10.0  10.00
        2010.0   12.6  12.15
        """
        if rtol is not None or atol is not None:
            _note_tolerances()
        request = read_request(
            self._catalog,
            params=params,
            initial_condition=initial_condition,
            return_timestamps=return_timestamps,
            return_columns=return_columns,
            final_time=final_time,
            time_step=time_step,
            saveper=saveper,
            flatten_output=flatten_output,
            seed=seed,
        )
        frame: pd.DataFrame = self._runner.frame(request)
        return frame

    def simulate(
        self,
        params: Mapping[str, Any] | pd.Series[Any] | None = None,
        initial: Any = None,
        times: Any = None,
        columns: Sequence[str] | str | None = None,
        *,
        final_time: float | None = None,
        time_step: float | None = None,
        saveper: float | None = None,
        integrator: str = "euler",
        seed: int = 0,
    ) -> dict[str, Any]:
        r"""Simulate, and return arrays; inside a JAX trace, arrays that are traced and differentiable.

        Parameters
        ----------
        params
            Name to value, as in `run`; of a lookup, its values at its own arguments, shape (K, \*subscripts). Values
            may be JAX's, traced or not.
        initial
            ``{stock: value}`` at the model's own initial time, or ``(time, {stock: value})``. Stocks left out start
            as the model says, from those that are given where they depend on them.
        times
            The times to return, in the model's unit of time, in any order; the latest is also the end of the run,
            unless `final_time` says otherwise. None: every `saveper`.
        columns
            Names of variables, or ``"stock[element]"`` for one element; None for the stocks. ``"Time"`` is a column,
            too.
        final_time, time_step, saveper
            In place of the model's own, in its unit of time. Like `times`, and the time in `initial`, they cannot be
            traced.
        integrator
            ``"euler"``, as Vensim and PySD have it, or ``"rk4"``, Runge and Kutta's method of fourth order.
        seed
            Of the model's random functions. Their numbers are JAX's here, and NumPy's in `run`; a trace with 32-bit
            numbers draws others.

        Returns
        -------
        dict of str to array, shape (len(times), \*subscripts)
            Under the names asked for, by default `stocks`; NumPy arrays outside a trace. For a single number as
            `times`, without the axis of times.

        Raises
        ------
        UnknownNameError
            For a parameter, stock or column that does not exist, with the nearest that does.
        InvalidInputError, InvalidTypeError
            For values that cannot be used, and for times on which no step falls.
        ModelError
            Inside a trace, where the model cannot be compiled (`unsupported`).

        Notes
        -----
        Derivatives of lookups, IF THEN ELSE, MIN and MAX at a kink are those of one side. Forward mode
        (`jax.jvp`, `jax.jacfwd`) is to be preferred: what is not selected cannot make its derivatives NaN.

        In a trace of one's own, turn on 64-bit numbers (``jax.enable_x64(True)``), as `parfit.fit` does by itself: with
        JAX's 32 bits, times such as 2005.6 are rounded, and what happens at them may happen a step early or late.

        Examples
        --------
        >>> model = load_model("models/Aging_Chain.mdl")
        >>> model.simulate({"births": 2}, times=[2000, 2005, 2010], columns=["dec 1"])["dec 1"].round(2)
        array([10.  , 11.77, 12.6 ])
        """
        request = read_request(
            self._catalog,
            params=params,
            initial_condition=initial,
            return_timestamps=times,
            return_columns=columns,
            final_time=final_time,
            time_step=time_step,
            saveper=saveper,
            seed=seed,
            integrator=integrator,
            times=times,
            words=SIMULATE,
        )
        return self._runner.arrays(request)

    @property
    def path(self) -> Path:
        """The file that the model was read from."""
        return Path(self._source.path)

    @property
    def stocks(self) -> list[str]:
        """The stocks, as Python identifiers, in the order of the model's file."""
        return list(self._catalog.stocks)

    @property
    def parameters(self) -> pd.DataFrame:
        """The constants, in the order of the model's file.

        Index ``name`` (Python identifier); columns ``real_name`` (as in the file), ``value`` (float, or an
        array for a constant with subscripts), ``units``, ``subscripts`` (names of the ranges), ``doc``.
        """
        return self._catalog.parameters.copy(deep=True)

    @property
    def doc(self) -> pd.DataFrame:
        """PySD's table of all variables: names, units, limits, types, comments."""
        return self._catalog.doc.copy()

    @property
    def compiled(self) -> bool:
        """Whether the model runs as compiled code; else PySD runs it."""
        return not self.unsupported

    @property
    def unsupported(self) -> tuple[str, ...]:
        """What keeps the model from being compiled, and where; empty where nothing does."""
        return self._runner.unsupported

    def __repr__(self) -> str:
        catalog = self._catalog
        start, end, step = (catalog.times[name] for name in ("initial_time", "final_time", "time_step"))
        span = "" if None in (start, end, step) else f", {start:g} to {end:g} by {step:g}"
        return (
            f"<parfit.Model {self.path.name}: {len(catalog.stocks)} stocks, "
            f"{len(catalog.parameters)} parameters{span}{'; runs through PySD' if self._runner.by_pysd else ''}>"
        )
