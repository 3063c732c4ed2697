"""What a user hands to SPSA, checked and converted once: options, start, bounds, seed, objective."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sized
from dataclasses import dataclass, replace
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from parfit.core.errors import InvalidInputError, InvalidTypeError, ParfitWarning
from parfit.solvers.spsa_gains import Gains
from parfit.solvers.spsa_steps import FlatFunction, SPSARecipe

__all__ = [
    "SPSAOptions",
    "count",
    "every",
    "flat",
    "read_bounds",
    "read_seed",
    "read_start",
    "refuse_derivatives",
    "shaped",
]

FloatArray = NDArray[np.float64]

#: The largest first perturbation, as a fraction of the width of a parameter's box.
MAX_REACH = 0.25
#: With a_par=None and max_step=None, no parameter moves by more than this in one step, in units of its scale.
AUTO_STEP = 0.1


@dataclass(frozen=True)
class SPSAOptions:
    """What a user can ask of SPSA; documented at `parfit.solvers.spsa.SPSA`."""

    a_par: float | str | None = None
    c_par: float = 0.01
    param_tol: Any = 1e-6
    ftol: float | None = 1e-8
    maxiter: int = 2000
    alpha: float = 0.602
    gamma: float = 0.101
    stability: float | None = None
    scale: Any = "auto"
    max_step: float | None = None
    window: int = 20

    def __post_init__(self) -> None:
        checked: dict[str, Any] = {
            "a_par": read_gain(self.a_par),
            "c_par": number("c_par", self.c_par, above_zero=True),
            "maxiter": count("maxiter", self.maxiter, 0),
            "alpha": number("alpha", self.alpha),
            "gamma": number("gamma", self.gamma),
            "window": count("window", self.window, 2),
        }
        for name in ("ftol", "stability", "max_step"):
            value = getattr(self, name)
            checked[name] = value if value is None else number(name, value, above_zero=name == "max_step")
        if self.param_tol is not None:
            per_parameter("param_tol", self.param_tol, np.size(self.param_tol))
        if not isinstance(self.scale, str):
            read_scale(self.scale, np.zeros(np.size(self.scale)), np.zeros(0))
        elif self.scale != "auto":
            refuse_scale(self.scale)
        for name, value in checked.items():
            object.__setattr__(self, name, value)

    def on_free(self, free: NDArray[np.intp] | None, n: int) -> SPSAOptions:
        """The options with what they have for each of all `n` parameters, cut to the `free` ones."""
        cut: dict[str, Any] = {}
        for name in ("param_tol", "scale"):
            value = getattr(self, name)
            if free is not None and np.size(value) == n > 1:
                cut[name] = np.reshape(value, -1)[free]
        return replace(self, **cut) if cut else self

    def bind(self, x0: FloatArray, lower: FloatArray, upper: FloatArray) -> SPSARecipe:
        """The recipe for one start and one box, all of shape (n,).

        Raises
        ------
        InvalidInputError
            Where the start is not finite or outside its bounds, a lower bound exceeds its upper one, or an
            option has the wrong length.
        """
        check_box(x0, lower, upper)
        with np.errstate(over="ignore"):
            width = upper - lower
        scale = read_scale(self.scale, x0, width)
        auto = self.a_par is None
        limit = self.max_step if self.max_step is not None else AUTO_STEP if auto else math.inf
        return SPSARecipe(
            x0=x0,
            lower=lower,
            upper=upper,
            scale=scale,
            reach=np.minimum(scale, width * (MAX_REACH / self.c_par)),
            gains=Gains(
                self.c_par,
                self.maxiter / 10 if self.stability is None else self.stability,
                self.alpha,
                self.gamma,
            ),
            a=math.nan if self.a_par is None else float(self.a_par),
            max_step=limit,
            param_tol=None if self.param_tol is None else per_parameter("param_tol", self.param_tol, x0.size),
            ftol=self.ftol,
            maxiter=self.maxiter,
            window=self.window,
        )


def read_gain(a_par: Any) -> float | None:
    """The gain `a`, or None where it is to be found."""
    if a_par is None or (isinstance(a_par, str) and a_par == "auto"):
        return None
    if isinstance(a_par, str):
        raise InvalidTypeError(f"a_par must be a positive number, or None or 'auto' to have it found, not {a_par!r}")
    return number("a_par", a_par, above_zero=True)


def number(name: str, value: Any, *, above_zero: bool = False) -> float:
    """`value` as a finite float that is not negative."""
    try:
        if isinstance(value, (str, bytes, bool, np.bool_)):
            raise TypeError("it is no number")
        result = float(value)
    except (TypeError, ValueError) as exc:
        raise InvalidTypeError(f"{name} must be a number, not {value!r}") from exc
    if not math.isfinite(result) or result < 0 or (above_zero and result == 0):
        raise InvalidInputError(
            f"{name} must be a {'positive' if above_zero else 'non-negative'} finite number, not {value!r}"
        )
    return result


def count(name: str, value: Any, least: int) -> int:
    """`value` as an int, from an int or a float like 1e4."""
    try:
        result = number(name, value)
    except InvalidInputError:
        result = math.nan
    if not result >= least or result != int(result):
        raise InvalidInputError(f"{name} must be a whole number, {least} or more, not {value!r}")
    return int(result)


def per_parameter(name: str, value: Any, n: int) -> FloatArray:
    """A number, or one for each of the `n` parameters in their order, as an array of shape (n,)."""
    try:
        if np.asarray(value).dtype.kind not in "iufO":
            raise TypeError("it is no number")
        array = np.asarray(value, dtype=np.float64).reshape(-1)
    except (TypeError, ValueError) as exc:
        raise InvalidTypeError(f"{name} must be a number or an array of numbers, not {value!r}") from exc
    if array.size not in (1, n):
        raise InvalidInputError(f"{name} has {array.size} elements for {n} parameters; give 1 or {n}")
    if not np.all(array >= 0) or not np.all(np.isfinite(array)):
        raise InvalidInputError(f"{name} must be finite and not negative, got {value!r}")
    return np.broadcast_to(array, (n,)).copy()


def refuse_scale(scale: str) -> NoReturn:
    """Raise for a name that is none."""
    raise InvalidInputError(f"scale must be 'auto', None, a number or one per parameter, not {scale!r}")


def read_scale(scale: Any, x0: FloatArray, width: FloatArray) -> FloatArray:
    """The unit of each parameter, shape (n,); "auto" is ``|x0|``, or 1 for 0, at most the box's width."""
    if scale is None:
        return np.ones_like(x0)
    if isinstance(scale, str):
        if scale != "auto":
            refuse_scale(scale)
        size = np.where(x0 == 0, 1.0, np.abs(x0))
        return np.where(width > 0, np.minimum(size, width), size)
    array = per_parameter("scale", scale, x0.size)
    if not np.all(array > 0):
        raise InvalidInputError(f"scale must be positive, got {scale!r}")
    return array


def check_box(x0: FloatArray, lower: FloatArray, upper: FloatArray) -> None:
    """Refuse a start or bounds that cannot be used, naming the first such parameter."""
    for bad, what in (
        (~np.isfinite(x0), "starts at {x}, which is not finite"),
        (np.isnan(lower) | np.isnan(upper), "has a NaN bound: {lo} to {hi}; use None or inf for no bound"),
        (lower > upper, "has a lower bound above its upper bound: {lo} > {hi}"),
        ((x0 < lower) | (x0 > upper), "starts at {x}, outside its bounds {lo} to {hi}"),
    ):
        if np.any(bad):
            i = int(np.argmax(bad))
            text = what.format(x=x0[i], lo=lower[i], hi=upper[i])
            raise InvalidInputError(f"parameter {i} of {x0.size} {text}")


def flat(fnc: Callable[..., Any], args: Any, shape: tuple[int, ...]) -> FlatFunction:
    """`fnc` as a function of the flat parameters; it gets an array of its own each time."""
    if not callable(fnc):
        raise InvalidTypeError(f"fnc must be callable, not {fnc!r}")
    rest = args if isinstance(args, tuple) else (args,)

    def fun(x: FloatArray) -> float:
        value = fnc(shaped(x, shape), *rest)
        try:
            array = np.asarray(value)
            if array.size == 1 and array.dtype.kind in "fiubO":
                return float(array.item())
        except (TypeError, ValueError):
            pass
        what = f"an array of shape {np.shape(value)}" if isinstance(value, np.ndarray) else repr(value)
        raise InvalidTypeError(f"fnc must return one real number, not {what}; for residuals return 0.5 * sum(r**2)")

    return fun


def shaped(x: FloatArray, shape: tuple[int, ...]) -> Any:
    """A copy of the flat `x` in `shape`; a float for a single number."""
    return x.reshape(shape).copy()[()]


def read_start(initparams: Any) -> tuple[FloatArray, tuple[int, ...]]:
    """The start as a flat float array, and its shape."""
    try:
        array = np.asarray(initparams)
        if array.dtype.kind not in "fiubO":
            raise TypeError(f"its type is {array.dtype}")
        if array.dtype.kind == "O":  # None is no number, though NumPy converts it to NaN
            array = np.reshape([float(element) for element in array.ravel()], array.shape)
        array = np.array(array, dtype=np.float64)
    except (TypeError, ValueError) as exc:
        raise InvalidTypeError(
            f"initparams must be a number or an array of numbers, not {initparams!r} ({exc})"
        ) from exc
    return array.reshape(-1), array.shape


def read_bounds(bounds: Any, shape: tuple[int, ...]) -> tuple[FloatArray, FloatArray]:
    """The bounds as two flat float arrays, infinite where there is none."""
    n = math.prod(shape)
    if bounds is None:
        return np.full(n, -np.inf), np.full(n, np.inf)
    try:
        if hasattr(bounds, "lb") and hasattr(bounds, "ub"):  # a scipy.optimize.Bounds
            sides = [np.asarray(side, dtype=np.float64) for side in (bounds.lb, bounds.ub)]
            lower, upper = (np.broadcast_to(s.ravel() if s.size == n else s, (n,)).copy() for s in sides)
            return lower, upper
        table = np.array(bounds if hasattr(bounds, "shape") else list(bounds), dtype=object)
        if table.shape[-1:] != (2,) or table.size != 2 * n:
            raise ValueError(f"their shape is {table.shape}")
        pairs = table.reshape(n, 2)
        lower = np.array([-np.inf if low is None else float(low) for low in pairs[:, 0]])
        upper = np.array([np.inf if high is None else float(high) for high in pairs[:, 1]])
    except (TypeError, ValueError) as exc:
        raise InvalidInputError(
            f"bounds must be {n} pairs (lower, upper), one per parameter, or a scipy.optimize.Bounds that "
            f"fits them; got {bounds!r} ({exc})"
        ) from exc
    return lower, upper


def read_seed(seed: Any) -> tuple[np.random.Generator, object]:
    """The generator, and what to remember of the seed."""
    try:
        rng = np.random.default_rng(seed)
    except (TypeError, ValueError) as exc:
        raise InvalidInputError(f"seed must be what numpy.random.default_rng takes, not {seed!r}") from exc
    if seed is None or isinstance(seed, (int, np.integer)):
        return rng, seed if seed is None else int(seed)
    if isinstance(seed, (list, tuple, np.ndarray)):
        return rng, [int(part) for part in np.ravel(seed)]
    if isinstance(seed, np.random.SeedSequence):
        return rng, repr(seed)
    return rng, f"a {type(rng.bit_generator).__name__} generator"


def every(print_iters: float | None) -> float:
    """The number of iterations between two reports; infinite for never."""
    if print_iters is None or print_iters is False or print_iters == math.inf:
        return math.inf
    if print_iters is True:
        return 1.0
    wanted = number("print_iters", print_iters)
    return max(1.0, float(round(wanted))) if wanted else math.inf


def refuse_derivatives(jac: Any, hess: Any, hessp: Any, constraints: Any) -> None:
    """Warn of derivatives, which SPSA does without; refuse constraints, which it would break."""
    given = [name for name, what in (("jac", jac), ("hess", hess), ("hessp", hessp)) if what]
    if given:
        warnings.warn(f"SPSA does not use {' and '.join(given)}", ParfitWarning, stacklevel=3)
    if constraints is None or (isinstance(constraints, Sized) and len(constraints) == 0):
        return
    raise InvalidInputError(
        "SPSA knows bounds but no constraints: give bounds, add a penalty to the objective, or use a method "
        "with constraints, such as 'SLSQP' or 'trust-constr'"
    )
