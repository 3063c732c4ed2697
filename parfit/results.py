"""`Fits`: what came of every dataset."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import scipy
from numpy.typing import NDArray

from parfit.core.columns import STATUSES, Columns
from parfit.core.errors import InvalidInputError, InvalidTypeError, missing_package, refuse_unknown
from parfit.core.labels import position_of, select, unstorable
from parfit.core.origin import Origin
from parfit.core.solution import Solution, Status
from parfit.core.structure import Structure
from parfit.display import as_html, as_text
from parfit.inference import conditions, conf_int

__all__ = ["Fits"]


class Fits:
    """The fits of all datasets, in the order of the data. Immutable; ``len(fits) == len(data)``.

    Made by `parfit.fit`. See the attributes below, and ``fits[label]`` for one dataset as a
    `scipy.optimize.OptimizeResult`.
    """

    def __init__(self, columns: Columns, labels: pd.Index[Any], structure: Structure, origin: Origin) -> None:
        for array in (columns.params, columns.at_bound, columns.status, columns.floats, columns.ints, columns.cov):
            if array is not None:
                array.flags.writeable = False
        self.__dict__.update(_columns=columns, _labels=labels, _structure=structure, _origin=origin)

    _columns: Columns
    _labels: pd.Index[Any]
    _structure: Structure
    _origin: Origin

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"a Fits does not change; {name!r} cannot be set (`refit` gives a new one)")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"a Fits does not change; {name!r} cannot be deleted")

    def __len__(self) -> int:
        return len(self._columns)

    def __copy__(self) -> Fits:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Fits:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled without the data and the objective, which `refit`, `debug` and `sensitivity` need."""
        origin = replace(self._origin, refit=None, debug=None, sensitivity=None)
        return type(self), (self._columns, self._labels, self._structure, origin)

    # ---- tables

    @property
    def labels(self) -> pd.Index[Any]:
        """The labels of the datasets."""
        return self._labels.copy()  # a table's index can be given another name, and the others keep theirs

    @property
    def engine(self) -> str:
        """``"rows"`` or ``"batch"``."""
        return self._origin.engine

    @property
    def engine_reason(self) -> str:
        """Why this engine ran."""
        return self._origin.engine_reason

    def _frame(self, values: NDArray[Any]) -> pd.DataFrame:
        return pd.DataFrame(values.copy(), index=self.labels, columns=list(self._structure.names), copy=False)

    @property
    def params(self) -> pd.DataFrame:
        """The parameters, labels × names; NaN where a dataset could not be evaluated."""
        return self._frame(self._columns.params)

    @property
    def stderr(self) -> pd.DataFrame:
        """Standard errors, labels × names.

        Infinite where the data do not determine a parameter; NaN where there are none (a scalar objective, a
        failed fit); 0 for a fixed parameter.
        """
        return self._frame(np.sqrt(self._columns.variances()))

    @property
    def at_bound(self) -> pd.DataFrame:
        """-1, 0 or 1 for each parameter, labels × names: at its lower bound, free, at its upper bound."""
        return self._frame(self._columns.at_bound)

    @property
    def status(self) -> pd.Series[Any]:
        """The status of each dataset, a categorical of the words that `Status` explains."""
        codes: Any = self._columns.status.copy()
        values = pd.Categorical.from_codes(codes, categories=pd.Index([s.value for s in STATUSES]))
        return pd.Series(values, index=self.labels, name="status")

    @property
    def success(self) -> pd.Series[bool]:
        """True where the fit converged."""
        converged = STATUSES.index(Status.CONVERGED)
        return pd.Series(self._columns.status == converged, index=self.labels, name="success")

    def _conditions(self, positions: NDArray[np.intp]) -> NDArray[np.float64]:
        """The condition at some positions; from the covariance, where it is not there yet."""
        c = self._columns
        made = c.floats_of("condition")[positions]
        asked = np.flatnonzero(np.isnan(made) & (c.ints_of("rank")[positions] > 0))
        if c.cov is not None:
            made[asked] = conditions(c.cov[positions[asked]])
        return made

    @cached_property
    def _summary(self) -> pd.DataFrame:
        c = self._columns
        made: dict[str, Any] = {
            "status": self.status.array,
            "success": self.success.array,
            "message": pd.Series(c.messages(), dtype=str).array,
            "cost": c.floats_of("cost"),
        }
        made.update({name: c.ints_of(name) for name in ("n_residuals", "nfev", "njev", "nit")})
        made["optimality"] = c.floats_of("optimality")
        made["at_bound"] = (c.at_bound != 0).any(axis=1)
        made["rank"] = c.ints_of("rank")
        made["condition"] = self._conditions(np.arange(len(self)))
        made["seconds"] = c.floats_of("seconds")
        made["attempts"] = c.ints_of("attempts")
        return pd.DataFrame(made, index=self.labels)

    @property
    def summary(self) -> pd.DataFrame:
        """One row a dataset: ``status``, ``success``, ``message``, ``cost``, ``n_residuals``, ``nfev``, ``njev``,
        ``nit``, ``optimality``, ``at_bound``, ``rank``, ``condition``, ``seconds``, ``attempts``.

        ``cost`` is what was minimised: the objective (its negative with ``maximize=True``), or
        ``0.5 * sum(r**2)``. Counts are -1 where the solver does not tell.
        """  # noqa: D205
        return self._summary.set_axis(self.labels)

    @property
    def errors(self) -> pd.DataFrame:
        """The exceptions: ``label``, ``type``, ``message``, ``traceback``, and ``rerun``, a line of Python.

        ``rerun`` runs that dataset again in this process, where a debugger can follow the exception.
        """
        found = sorted(self._columns.errors.items())
        rows = [(self._labels[i], e.type, e.message, e.traceback, f"fits.debug(position={i})") for i, e in found]
        return _table([i for i, _ in found], rows, ("label", "type", "message", "traceback", "rerun"))

    @property
    def warnings(self) -> pd.DataFrame:
        """The warnings that the objective gave: ``label``, ``category``, ``message``, ``count``."""
        found = [(i, w) for i, given in sorted(self._columns.warnings.items()) for w in given]
        rows = [(self._labels[i], w.category, w.message, w.count) for i, w in found]
        made = _table([i for i, _ in found], rows, ("label", "category", "message", "count"))
        return made.astype({"count": np.int64})

    @property
    def history(self) -> pd.DataFrame:
        """Each evaluation of the objective, where ``history=True`` was asked for.

        Columns ``label``, ``evaluation``, ``cost`` and the parameters.
        """
        found = sorted(self._columns.history.items())
        names = ["cost", *self._structure.names]
        lengths = [len(trace) for _, trace in found]
        values = np.concatenate([trace for _, trace in found]) if found else np.empty((0, len(names)))
        named = [self._labels[i] for i, trace in found for _ in trace]
        labels = pd.Series(named, dtype=object, name="label")
        numbers = np.concatenate([np.arange(n) for n in lengths]) if found else np.empty(0, dtype=np.int64)
        evaluations = pd.Series(numbers, name="evaluation")
        return pd.concat([labels, evaluations, pd.DataFrame(values, columns=names)], axis=1)

    # ---- one dataset

    def __getitem__(self, label: Hashable) -> scipy.optimize.OptimizeResult:
        return self.row(position_of(label, self._labels))

    def __iter__(self) -> Iterator[Any]:
        """The labels, in order."""
        return iter(self._labels)

    def __contains__(self, label: object) -> bool:
        return label in self._labels

    def row(self, position: int) -> scipy.optimize.OptimizeResult:
        """The dataset at a position, as a `scipy.optimize.OptimizeResult`.

        ``x`` has the caller's own structure; ``fun`` is the objective's value, ``cost`` what was minimised.
        """
        c = self._columns
        if not -len(self) <= position < len(self):
            raise IndexError(f"position {position} in {len(self)} fits")
        position %= len(self)
        status = c.status_of(position)
        cost = float(c.floats_of("cost")[position])
        made = scipy.optimize.OptimizeResult()
        made.update(
            x=self._structure.unflatten(c.params[position].copy()),
            fun=-cost if self._origin.maximize else cost,
            cost=cost,
            success=status is Status.CONVERGED,
            status=status,
            message=c.message(position),
            label=self._labels[position],
            optimality=float(c.floats_of("optimality")[position]),
            at_bound=c.at_bound[position].copy(),
            cov=c.cov_of(position),
            stderr=np.sqrt(np.diag(c.cov_of(position))),
            condition=float(self._conditions(np.array([position]))[0]),
            seconds=float(c.floats_of("seconds")[position]),
        )
        for name in ("n_residuals", "nfev", "njev", "nit", "rank", "attempts"):
            made[name] = int(c.ints_of(name)[position])
        if position in c.errors:
            made["error"] = c.errors[position]
        return made

    def cov(self, label: Hashable) -> pd.DataFrame:
        """The covariance of one dataset's parameters, names × names."""
        names = list(self._structure.names)
        return pd.DataFrame(self._columns.cov_of(position_of(label, self._labels)), index=names, columns=names)

    def covariances(self) -> NDArray[np.float64]:
        """The covariances of all datasets, shape (B, n, n), as `cov` gives one; NaN where there is none."""
        return self._columns.covariances()

    def conf_int(self, level: float = 0.95) -> pd.DataFrame:
        """Confidence intervals by Student's t distribution, labels × (name, ``lower`` or ``upper``)."""
        if not 0 < level < 1:
            raise InvalidInputError(f"level must be between 0 and 1, not {level!r}")
        free = np.count_nonzero(self._columns.variances() != 0, axis=1)
        freedom = self._columns.ints_of("n_residuals") - free
        return conf_int(self.params, self.stderr, freedom, level)

    # ---- again, and elsewhere

    def debug(self, label: Hashable = None, *, position: int | None = None) -> Solution:
        """Fit one dataset again in this process, and let its exception pass, for a debugger to follow.

        Parameters
        ----------
        label, position
            Which dataset.

        Returns
        -------
        Solution
            Where nothing was raised.
        """
        if self._origin.debug is None:
            raise InvalidInputError("these fits were loaded without their data and objective")
        return self._origin.debug(position_of(label, self._labels) if position is None else position)

    def columns_copy(self) -> Columns:
        """A copy of the columns that this is made of."""
        return self._columns.copy()

    def refit(self, which: Any = "failed", *, by: str = "label", **changes: Any) -> Fits:
        """Fit some datasets again, with changed arguments; the others are kept.

        Parameters
        ----------
        which
            ``"failed"`` (all that did not converge), ``"all"``, a status or a list of them, a boolean mask or
            Series, or a list of labels (or of positions, with ``by="position"``).
        by
            What a list holds: ``"label"`` or ``"position"``.
        **changes
            Any arguments of `parfit.fit` but the data. ``x0="solution"`` starts from the parameters found here,
            moved inside their bounds. A DataFrame or Series as `x0` whose labels are the parameters' names, as those
            of `params` are, reaches the objective in the structure of the first call.

        Returns
        -------
        Fits
        """
        if self._origin.refit is None:
            raise InvalidInputError("these fits were loaded without their data and objective: call parfit.fit again")
        fits: Fits = self._origin.refit(self, self._positions(which, by), changes)
        return fits

    def sensitivity(self, wrt: str | int = "data") -> Any:
        """How the solutions move with the data or a hyperparameter: ``dx/dθ``, by the implicit function theorem.

        Parameters
        ----------
        wrt
            ``"data"``, or `k` for ``args[k]``, a number or an array.

        Returns
        -------
        DataFrame, ndarray, list, or nesting of ndarrays
            For rows of a DataFrame: labels × (parameter, data column), of the columns that hold numbers. For arrays
            with a leading axis: arrays of shape (B, n, *shape of a dataset's), nested as they are. For groups, mappings
            and sequences: a list with an entry for each dataset, in its form: a DataFrame, rows × (parameter, column),
            for a frame; parameters × labels for a Series; shape (n, *shape) for an array. For an argument: an array of
            shape (B, n, *shape of the argument).

            NaN for datasets that did not converge, for parameters that the data do not determine (the Hessian is
            singular along them), and for whole numbers that the objective uses as such (an index). 0 for parameters
            that are fixed or at a bound, where they stay for small changes.

        Raises
        ------
        InvalidInputError
            Where the objective cannot be compiled, with the reason; for fits with constraints; and for fits that were
            loaded without their data and objective.
        MissingPackageError
            Where JAX is not installed.

        Notes
        -----
        At a solution the gradient of the cost ``C(x, θ)`` is zero in the parameters that are free to move, so that
        ``dx/dθ = -H⁻¹ d(grad C)/dθ``, with the exact Hessian `H`, the curvature of the residuals included: M. Blondel
        et al. (2022), Efficient and modular implicit differentiation, arXiv:2105.15183. It is as exact as the solution
        is. After a `refit`, objective, arguments and bounds are those of that last call.
        """
        if self._origin.sensitivity is None:
            raise InvalidInputError("these fits were loaded without their data and objective: call parfit.fit again")
        return self._origin.sensitivity(self, wrt)

    def _positions(self, which: Any, by: str) -> NDArray[np.intp]:
        if by not in ("label", "position"):
            refuse_unknown("value of `by`", by, ("label", "position"))
        if isinstance(which, str) and which in ("all", "failed"):
            return np.arange(len(self)) if which == "all" else np.flatnonzero(~self.success.to_numpy())
        statuses = [s.value for s in STATUSES]
        if isinstance(which, str) and by == "label" and which not in self._labels:
            if which not in statuses:
                refuse_unknown("choice of rows", which, ("all", "failed", *statuses))
            which = [which]
        if isinstance(which, (list, tuple)) and which and all(w in statuses for w in which if isinstance(w, str)):
            if all(isinstance(w, str) for w in which) and not all(w in self._labels for w in which):
                return self._columns.where(*(s for s in Status if s.value in which))
        return select(which, self._labels, by)

    def to_frame(self) -> pd.DataFrame:
        """Everything in one table: the parameters, ``<name>_stderr``, and the summary's columns.

        A column of the summary that is called as a parameter is, is ``fit_<name>`` here.
        """
        made = pd.concat([self.params, self.stderr.add_suffix("_stderr")], axis=1)
        summary = self._summary.astype({"status": str})
        return pd.concat([made, summary.rename(columns={c: f"fit_{c}" for c in summary if c in made})], axis=1)

    def to_parquet(self, path: str | Path) -> None:
        """Write `to_frame` as a Parquet file, labels as its index.

        Raises
        ------
        InvalidTypeError
            Where the labels are of types that one column of a Parquet file cannot hold.
        """
        try:
            import pyarrow
        except ImportError:
            raise missing_package("pyarrow", "to_parquet", "parquet") from None
        try:
            self.to_frame().to_parquet(path)
        except (pyarrow.ArrowInvalid, pyarrow.ArrowTypeError, pyarrow.ArrowNotImplementedError) as exc:
            kinds = unstorable(self._labels)
            if kinds is None:
                raise
            raise InvalidTypeError(
                f"the labels are {kinds}, which one column of a Parquet file cannot hold; as text they can be written: "
                "fits.to_frame().rename(index=str).to_parquet(path)"
            ) from exc

    def __repr__(self) -> str:
        return as_text(self, self._origin)

    def _repr_html_(self) -> str:
        return as_html(self, self._origin)


def _table(positions: Sequence[int], rows: Sequence[tuple[Any, ...]], names: Sequence[str]) -> pd.DataFrame:
    """Rows of whatever Python has, such as labels, by the positions of their datasets."""
    index = pd.Index(positions, name="position", dtype=np.int64)
    return pd.DataFrame({n: pd.Series([r[k] for r in rows], index=index, dtype=object) for k, n in enumerate(names)})
