"""From an objective and a dataset to functions of the free parameters, the same for every solver.

A `Problem` is what all datasets share; it travels to each worker once. `Problem.bind` makes the `BoundProblem`
of one dataset, which calls the objective, checks what it returns, and remembers what a verdict needs: how
often it was called, and whether it was ever NaN or infinite.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from parfit.core.bounds import row_bounds
from parfit.core.errors import InvalidInputError, InvalidTypeError
from parfit.core.parameters import Frame, Parameters, frame_of, made_start
from parfit.core.randomness import seed_globals
from parfit.core.values import as_floats, checked, is_single

if TYPE_CHECKING:
    from parfit.core.tasks import RowTask

__all__ = ["BoundProblem", "Problem"]

FloatArray = NDArray[np.float64]


_FLOAT = np.dtype(np.float64)
_INFINITY = math.inf
_EPSILON = float(np.finfo(np.float64).eps)


@dataclass(frozen=True, eq=False)
class Problem:
    """What all datasets share.

    Attributes
    ----------
    objective
        ``objective(params, dataset, *args)``: a scalar, or a vector of residuals.
    parameters
        Names, start, bounds.
    args
        More arguments of the objective.
    maximize
        Whether a scalar objective is to be maximised.
    jac
        ``jac(params, dataset, *args)``: the gradient of a scalar or the Jacobian of the residuals; or what
        SciPy takes in its place (``"2-point"``, ``True``, ...); or None.
    constraints
        As SciPy's `minimize` takes them; their functions get the parameters in the user's structure.
    seed
        The master seed; None for fresh entropy.
    history
        Whether each evaluation is kept.
    noted
        Whether each solution says where it started and whether its random numbers were used.
    """

    objective: Callable[..., Any]
    parameters: Parameters
    args: tuple[Any, ...] = ()
    maximize: bool = False
    jac: Any = None
    constraints: tuple[Any, ...] = ()
    seed: int | None = 0
    history: bool = False
    noted: bool = False

    @cached_property
    def common_frame(self) -> Frame | None:
        """Start and bounds, checked once, where all datasets share them; None where they do not."""
        p = self.parameters
        if p.start_of is not None or p.bounds_of is not None:
            return None
        if np.isnan(p.start).any() or np.isnan(p.lower).any() or np.isnan(p.upper).any():
            return None
        return frame_of(p, p.start, p.lower, p.upper)

    def seed_globals(self, position: int) -> int | None:
        """Seed the global generators of NumPy and `random`, for the user's functions that draw from them."""
        return None if self.seed is None else seed_globals(self.seed, position)

    def bind(self, task: RowTask) -> BoundProblem:
        """The problem of one dataset.

        Raises
        ------
        InvalidInputError
            Where its start or bounds cannot be used.
        """
        return BoundProblem(self, task)


class BoundProblem:
    """One dataset's problem, in its free parameters ``z``, shape (n,).

    Attributes
    ----------
    x0, lower, upper : ndarray, shape (n,)
        Start and bounds of the free parameters.
    nfev
        How often the objective was called.
    n_residuals
        Their number; -1 for a scalar objective; None before the first call.
    nonfinite, last_nonfinite
        The number of evaluations that gave NaN or infinity, and which was the last of them, counted as in `nfev`.
    raised
        The exception that the objective (or another function of the user's) raised, to tell it from a solver's own.
    trace
        The cost and all parameters of each evaluation, where the history is kept.
    starts_alone
        Whether the start is its own, and not that of all datasets.
    resolution
        The machine epsilon of what the objective gives, which may be of single precision.
    """

    def __init__(self, problem: Problem, task: RowTask) -> None:
        p = problem.parameters
        self._problem = problem
        self._objective = problem.objective
        self._arguments = (task.dataset, *problem.args)
        self._sign = -1.0 if problem.maximize else 1.0
        self._position = task.position
        common = problem.common_frame
        self.starts_alone = False
        if common is not None and task.start is task.lower is task.upper is None:
            self.full, self.free, self.x0, self.lower, self.upper = common
        else:
            self.starts_alone = True
            start = p.start if task.start is None else task.start
            lower = p.lower if task.lower is None else task.lower
            upper = p.upper if task.upper is None else task.upper
            if p.start_of is not None:
                start = made_start(p, task.dataset, task.start)
            if p.bounds_of is not None:
                lower, upper = row_bounds(p.structure, p.bounds_of(task.dataset))
            self.full, self.free, self.x0, self.lower, self.upper = frame_of(p, start, lower, upper)
        self._history = problem.history
        self._as_is = self.free is None and p.structure.is_vector
        self._unflatten = p.structure.unflattener
        self.nfev = 0
        self.nonfinite = self.last_nonfinite = 0
        self.n_residuals: int | None = None
        self.trace: list[FloatArray] = []
        self.raised: BaseException | None = None
        self._start_value: Any = None
        self.resolution = _EPSILON

    @property
    def n(self) -> int:
        """The number of free parameters."""
        return len(self.x0)

    @property
    def is_single_precision(self) -> bool:
        """Whether what the objective gives is of less than double precision, which SciPy's own steps do not show."""
        return self.resolution > _EPSILON

    @property
    def bounded(self) -> bool:
        """Whether any free parameter has a finite bound."""
        return bool(np.isfinite(self.lower).any() or np.isfinite(self.upper).any())

    @cached_property
    def rng(self) -> np.random.Generator:
        """The generator of this dataset alone, from the master seed and its position."""
        seed = self._problem.seed
        return np.random.default_rng(None if seed is None else (seed, self._position))

    @property
    def has_rng(self) -> bool:
        """Whether anybody has asked for `rng`."""
        return "rng" in self.__dict__

    def expand(self, z: FloatArray) -> FloatArray:
        """All parameters, shape (n_all,), where the free ones are `z`."""
        if self.free is None:
            return z
        x = self.full.astype(z.dtype)
        x[self.free] = z
        return x

    def params(self, z: FloatArray) -> Any:
        """The parameters in the user's structure."""
        return z if self._as_is else self._unflatten(self.expand(z))

    # ---- the objective

    def _call(self, z: FloatArray) -> Any:
        """The objective's raw value."""
        self.nfev += 1
        try:
            return self._objective(z if self._as_is else self._unflatten(self.expand(z)), *self._arguments)
        except BaseException as exc:
            self.raised = exc
            raise

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call another function of the user's than the objective: a derivative, a constraint."""
        try:
            return function(*args)
        except BaseException as exc:
            self.raised = exc
            raise

    def _checked(self, value: Any, z: FloatArray) -> Any:
        """A float or a 1-D array of floats (or a pair, with ``jac=True``) from whatever the objective gave."""
        if z.dtype.kind == "c":  # a complex step of SciPy's ("cs"), which wants the raw values
            return value
        if self._problem.jac is True:
            return self._checked_pair(value)
        return checked(value)

    def _checked_pair(self, pair: Any) -> tuple[float, Any]:
        """The value and the gradient of an objective that gives both."""
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            raise InvalidTypeError(
                f"with jac=True the objective gives a pair (value, gradient), not {type(pair).__name__}"
            )
        value = checked(pair[0])
        if type(value) is not float:
            raise InvalidTypeError(
                f"jac=True is for scalar objectives, and this one gave shape {np.shape(value)}: "
                "give the Jacobian of residuals as a function, jac(params, dataset, *args)"
            )
        return value, pair[1]

    def start(self) -> Any:
        """The objective's value at the start; the solver's own first call there costs nothing."""
        if self._start_value is None:
            given = self._call(self.x0.copy())
            value = self._checked(given, self.x0)
            kind = getattr(given, "dtype", None)
            if kind in (np.float32, np.float16):
                self.resolution = float(np.finfo(kind).eps)
            self.n_residuals = -1
            if type(value) is np.ndarray:
                self.n_residuals, value = len(value), value.copy()
            self._start_value = value
            self.nfev = 0
        return self._start_value

    @property
    def start_cost(self) -> float:
        """What is minimised, at the start."""
        value = self.start()
        if type(value) is np.ndarray:
            return 0.5 * float(value.dot(value))
        return self._sign * float(value[0] if type(value) is tuple else value)

    @property
    def is_residuals(self) -> bool:
        """Whether the objective gives residuals; calls it at the start to find out."""
        if self.n_residuals is None:
            self.start()
        return self.n_residuals != -1

    def _value(self, z: FloatArray) -> Any:
        if not self.nfev and self._start_value is not None and np.array_equal(z, self.x0):
            self.nfev = 1
            return self._start_value
        return self._call(z)

    def residuals(self, z: FloatArray) -> FloatArray:
        """The residual vector, shape (m,); a copy, since some objectives hand out the same array each time."""
        return self.seen_residuals(z).copy()

    def seen_residuals(self, z: FloatArray) -> FloatArray:
        """As `residuals`, but good only until the next call."""
        if self.nfev:  # `_call` written out: this is the innermost loop
            self.nfev += 1
            try:
                r = self._objective(z if self._as_is else self._unflatten(self.expand(z)), *self._arguments)
            except BaseException as exc:
                self.raised = exc
                raise
        else:
            r = self._value(z)
        if type(r) is not np.ndarray or r.dtype is not _FLOAT or r.ndim != 1:
            r = self._checked(r, z)
            if z.dtype.kind == "c":
                return np.asarray(r)
            if type(r) is not np.ndarray:
                raise InvalidTypeError("the objective gave a vector of residuals at the start, and a scalar now")
        if len(r) != self.n_residuals:
            raise InvalidInputError(
                f"the number of residuals changed with the parameters: shape ({self.n_residuals},) at the start, "
                f"shape {r.shape} now"
            )
        square = r.dot(r)
        if not square < _INFINITY and not np.isfinite(r).all():
            self.nonfinite += 1
            self.last_nonfinite = self.nfev
        if self._history:
            self.trace.append(np.append(0.5 * square, self.expand(z)))
        return r

    def fun(self, z: FloatArray) -> float:
        """What is minimised: the objective, its negative, or ``0.5 * sum(r**2)``."""
        if self.n_residuals is None:
            self.start()
        if self.n_residuals != -1:
            r = self.seen_residuals(z)
            return 0.5 * float(r.dot(r))
        value = self._value(z)
        if type(value) is not float and type(value) is not np.float64:
            value = self._checked(value, z)
            if z.dtype.kind == "c":
                complex_value: Any = self._sign * value
                return complex_value  # type: ignore[no-any-return]
            if type(value) is tuple:
                value = value[0]
            elif type(value) is np.ndarray:
                raise InvalidInputError(f"the objective gave a scalar at the start, and shape {value.shape} now")
        return self._noted(self._sign * value, z)

    def _noted(self, value: float, z: FloatArray) -> float:
        if not math.isfinite(value):
            self.nonfinite += 1
            self.last_nonfinite = self.nfev
        if self._history:
            self.trace.append(np.append(value, self.expand(z)))
        return value

    def fun_and_gradient(self, z: FloatArray) -> tuple[float, FloatArray]:
        """Both at once, for an objective that gives both (``jac=True``)."""
        value, gradient = self._checked_pair(self._value(z))
        return self._noted(self._sign * value, z), self._sign * self._reduced(gradient, "gradient")

    # ---- derivatives

    @property
    def jac(self) -> Any:
        """The user's derivative in the free parameters: a callable, what SciPy takes in its place, or None."""
        jac = self._problem.jac
        if not callable(jac):
            return jac
        return self._jacobian if self.is_residuals else self._gradient

    def _gradient(self, z: FloatArray) -> FloatArray:
        return self._sign * self._reduced(self.call(self._problem.jac, self.params(z), *self._arguments), "gradient")

    def _reduced(self, gradient: Any, what: str) -> FloatArray:
        structure, n = self._problem.parameters.structure, len(self.full)
        if isinstance(gradient, (list, tuple)) and len(gradient) == n and all(map(is_single, gradient)):
            gradient = as_floats(gradient, what)
        is_flat = isinstance(gradient, np.ndarray) and gradient.ndim == 1
        flat = as_floats(gradient, what) if is_flat else structure.flatten(gradient, what)
        if len(flat) != n:
            raise InvalidInputError(f"jac gave a {what} of shape {np.shape(flat)} for {n} parameters")
        return flat if self.free is None else flat[self.free]

    def hessian(self, hess: Callable[..., Any]) -> Callable[[FloatArray], FloatArray]:
        """The user's ``hess(params, dataset, *args)``, shape (n_all, n_all), in the free parameters."""

        def reduced(z: FloatArray) -> FloatArray:
            H = as_floats(self.call(hess, self.params(z), *self._arguments), "Hessian")
            return self._sign * (H if self.free is None else H[np.ix_(self.free, self.free)])

        return reduced

    def hessian_product(self, hessp: Callable[..., Any]) -> Callable[[FloatArray, FloatArray], FloatArray]:
        """The user's ``hessp(params, p, dataset, *args)``, shape (n_all,), in the free parameters."""

        def reduced(z: FloatArray, p: FloatArray) -> FloatArray:
            if self.free is not None:
                whole = np.zeros(len(self.full))
                whole[self.free] = p
                p = whole
            Hp = as_floats(self.call(hessp, self.params(z), p, *self._arguments), "Hessian times a vector")
            return self._sign * (Hp if self.free is None else Hp[self.free])

        return reduced

    def _jacobian(self, z: FloatArray) -> FloatArray:
        J = as_floats(self.call(self._problem.jac, self.params(z), *self._arguments), "Jacobian")
        if J.shape != (self.n_residuals, len(self.full)):
            raise InvalidInputError(
                f"jac gave shape {J.shape}; ({self.n_residuals}, {len(self.full)}) is wanted: residuals × parameters"
            )
        return J if self.free is None else J[:, self.free]

    @property
    def constraints(self) -> tuple[Any, ...]:
        """The user's constraints, as SciPy takes them."""
        return self._problem.constraints
