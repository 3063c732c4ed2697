"""`fit`: one model, many independent datasets. The one place where the rooms meet.

    fit ── prepare.py: every argument checked and converted, once ──▶ Call
    Call ── call.py: tasks ──▶ executor ──▶ worker.py: one dataset, one solver ──▶ store ──▶ Fits
                     └─ kinds.py: is the objective a scalar or residuals, the same for all datasets?
    stored.py: what a file of solutions is of, and a Fits of what it holds
    parted.py: the same call with a folder of Parquet files ── filling.py: a part at a time ── part.py: what is written

What is wrong with every dataset is raised here; what is wrong with one is its status.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

from parfit.core.protocols import Solver, Store
from parfit.fitting.prepare import prepare
from parfit.progress import Progress
from parfit.results import Fits

__all__ = ["fit"]


def fit(
    data: Any,
    objective: Callable[..., Any],
    x0: Any,
    *,
    bounds: Any = None,
    fixed: Any = None,
    constraints: Any = (),
    method: str | Solver | None = None,
    options: Mapping[str, Any] | None = None,
    jac: Any = None,
    args: Any = (),
    maximize: bool = False,
    engine: str = "auto",
    executor: Any = None,
    workers: int | None = None,
    chunk_size: int | None = None,
    timeout: float | None = None,
    memory_limit: int | str | None = None,
    retries: int = 1,
    on_error: str = "record",
    store: str | os.PathLike[str] | Store | None = None,
    retry_failed: bool = False,
    warm_start: bool = False,
    overwrite: bool = False,
    seed: int | None = 0,
    progress: Progress = None,
    history: bool = False,
) -> Fits:
    """Fit one model to each of many independent datasets, in parallel.

    Parameters
    ----------
    data : DataFrame, GroupBy, path of Parquet files, mapping, sequence, ndarray or tree of arrays
        A dataset per row of a DataFrame (as a Series), per group of a GroupBy or bin of ``df.resample("2D")`` (as a
        DataFrame whose ``name`` is the key, as in `groupby.apply`), per entry of a mapping or sequence, or per index of
        the leading axis of an array. A mapping or tuple of nothing but arrays,
        all of one length and one at least 2-D, is a tree of arrays, with a dataset per index of their leading axis
        (refused under keys that are not text); any other mapping is label -> dataset, as ``pandas.Series(mapping)``
        always is, and any other tuple a sequence. The path of a Parquet file or of a folder of them, or a
        `pyarrow.dataset.Dataset`, has a dataset per row, as the DataFrame of `pandas.read_parquet` would, and is read
        a window at a time.
        Labels are the index, the group keys, the mapping's keys or 0 … n-1.
    objective : callable
        ``objective(params, dataset, *args)``. A scalar is minimised; a 1-D array is a vector of residuals, and half
        its sum of squares is minimised.
    x0 : list, array, dict, Series, DataFrame, nesting of these, or callable
        Start values, in the structure that `objective` is to receive (a list of numbers arrives as an array). A
        DataFrame with a column ``value`` is a table of parameters, with optional columns ``lower_bound``,
        ``upper_bound`` and ``fixed``, and `objective` receives a table too, ``params.loc["a", "value"]``; any other
        DataFrame has one start per dataset (a Series for `objective`), and its index is the data's. A callable
        ``x0(dataset)`` gives each dataset its own.
    bounds : optional
        In the structure of `x0`, in whole or in part, with a pair ``(lower, upper)`` or None for each scalar; a list
        of pairs or an array (n, 2), as in `minimize`; ``(lower, upper)``, as in `least_squares`, each a number, None,
        or in the structure of `x0`; `scipy.optimize.Bounds`; a DataFrame; or a callable ``bounds(dataset)``.
        Where two readings are possible, for two entries, a tuple of two lists or arrays as long as the start is
        ``(lower, upper)``; anything else holds one entry for each part of the start; and what SciPy itself reads in
        two ways, an array (2, 2), is refused. A DataFrame as lower or upper has one row per dataset. NaN is no bound
        in a table of parameters only. A parameter whose bounds are equal is fixed there, and starts there.
    fixed : optional
        Names of parameters that stay at their start, or True and False in the structure of `x0`, in whole or in part.
        A fixed value obeys its bounds.
    constraints : optional
        As for `scipy.optimize.minimize`; their functions receive the parameters in the structure of `x0`.
    method : str or Solver, optional
        By default ``"lm"`` for residuals (a bounded variant where there are bounds) and ``"L-BFGS-B"`` for scalars.
        Any method of `scipy.optimize.minimize` and `least_squares`, ``"differential_evolution"``,
        ``"dual_annealing"``, ``"shgo"``, ``"basinhopping"``, ``"direct"``, ``"brute"``, ``"spsa"``.
    options : dict, optional
        The method's options, under SciPy's names; for `minimize` also ``tol``, ``hess(params, dataset, *args)`` and
        ``hessp(params, p, dataset, *args)``.
    jac : callable or str, optional
        ``jac(params, dataset, *args)``: the gradient in the structure of `x0` (or flat), or the Jacobian of the
        residuals, shape (m, n); True where the objective returns value and gradient; or SciPy's ``"2-point"``,
        ``"3-point"``, ``"cs"``; or ``"jax"``: exact derivatives of an objective that JAX can trace, written with NumPy
        or `jax.numpy`, and exact Hessians for the methods that take one and were given none.
    args : tuple, optional
        More arguments of `objective`. They travel to each worker once.
    maximize : bool
        Maximise a scalar objective.
    engine : {"auto", "batch", "rows"}
        ``"batch"`` compiles the objective with JAX and fits all datasets in one program, in double precision unless
        ``options={"dtype": "float32"}``; it must be traceable, written with NumPy or `jax.numpy`. ``"rows"`` runs any
        Python in workers, a dataset at a time. ``"auto"`` takes the batch where JAX is installed, the objective can be
        traced, and its compiled values are those of plain calls on some datasets; `Fits.engine_reason` says why.
    executor : str, Executor, concurrent.futures executor or cluster, optional
        Where: ``"processes"`` (the default), ``"serial"``, ``"threads"``, ``"multiprocessing"``, ``"loky"``,
        ``"joblib"``, ``"producer_consumer"``; ``"dask"``, ``"ray"``, a Dask client or cluster, or the address of
        either, which run both engines.
    workers : int, optional
        How many; by default one per usable core.
    chunk_size : int, optional
        How many datasets travel together; by default as their cost suggests (of the batched engine over a cluster,
        2,000 to 20,000).
    timeout : float, optional
        The limit for one dataset, s. It is killed then, and its status is ``timeout``.
    memory_limit : int or str, optional
        How large each worker may become, with all that it has loaded: bytes, or text such as ``"2 GiB"`` or
        ``"500 MB"``. The dataset that makes it larger is tried once more in a new worker, and is then ``worker_lost``;
        what it asks for beyond the limit in one go is a `MemoryError`, and the dataset an ``error``.
    retries : int
        How often a dataset whose worker died is tried again, alone.
    on_error : {"record", "raise"}
        ``"record"``: a dataset that cannot be fitted is a row with a status, and the others go on. ``"raise"`` stops at
        the first, naming its label.
    store : path or Store, optional
        Where solutions are kept; by default in memory. A path is that of a SQLite file: what is finished is in it
        within a second, whatever becomes of this process, and the same call again fits only what is missing, and
        datasets that have changed, whatever their order. `parfit.open_store` reads it at any time. A file with fits of
        another objective, or with other options, is refused. A path that ends in ``.parquet`` or ``.pq`` is that of a
        folder of Parquet files, each written when its part of the table is done: no more than that is in memory, and
        what is returned is a `PartedFits`.
    retry_failed : bool
        Fit again what is in the store and did not converge.
    warm_start : bool
        Datasets that have changed start from their old solution in the store.
    overwrite : bool
        Begin anew, whatever fits the store holds, be they of this very call. What is no store of parfit's stays.
    seed : int or None
        Every dataset's random numbers come from this and its position.
    progress : bool or callable, optional
        True, False, or ``callable(done, total)``; by default a bar on terminals and in notebooks.
    history : bool
        Keep every evaluation, for `Fits.history`.

    Returns
    -------
    Fits
        One row per dataset, in the data's order, whatever any of them did. With a store of Parquet files, a
        `PartedFits`, whose table is in the files.

    Raises
    ------
    InvalidInputError, InvalidTypeError, UnknownNameError
        For arguments that no dataset can be fitted with (ValueError and TypeError).
    FitError
        With ``on_error="raise"``.
    FitInterrupted
        At a Ctrl-C; its ``fits`` holds what was finished.

    Examples
    --------
    >>> import numpy as np, pandas as pd, parfit
    >>> t = np.linspace(0, 4, 20)
    >>> decays = pd.DataFrame([3 * np.exp(-0.5 * t), 2 * np.exp(-0.9 * t)], index=["a", "b"])
    >>> def residuals(p, row):
    ...     return p["height"] * np.exp(-p["rate"] * t) - row.to_numpy()
    >>> fits = parfit.fit(decays, residuals, {"height": 1.0, "rate": 1.0}, executor="serial")
    >>> fits.params.round(3)
       height  rate
    a     3.0   0.5
    b     2.0   0.9
    """
    return prepare(locals()).run()
