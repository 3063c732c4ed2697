"""Which values each option can have: a table, so that a wrong one is refused once and not by SciPy in every row.

A table's entry is a `Kind`; what has none goes on to SciPy as it is. Nothing that SciPy can use is refused, but for
negative limits, with which it ends at once (`test_options` asks SciPy, value by value).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from numbers import Number
from typing import Any

import numpy as np
import scipy

from parfit.core.errors import InvalidInputError, InvalidTypeError, UnknownNameError, nearest, refuse_unknown

__all__ = ["KINDS", "MINIMIZE_METHODS", "checked_options", "refuse_unknown_options"]

#: Untyped: SciPy's stubs make of its class a protocol.
_scipy: Any = scipy


@dataclass(frozen=True)
class Kind:
    """What an option may be.

    Attributes
    ----------
    wanted
        In words.
    is_type, is_value
        Whether a value is of a usable kind, and whether it then lies where it must.
    names
        The strings it may be.
    is_count
        Whether whole numbers are handed on as an `int`, which SciPy insists on here and there.
    """

    wanted: str
    is_type: Callable[[Any], bool]
    is_value: Callable[[Any], bool] = lambda value: True  # noqa: ARG005
    names: tuple[str, ...] = ()
    is_count: bool = False


#: What is asked of `fit` itself, and looked for among the options.
_ARGUMENTS = (
    "args",
    "bounds",
    "constraints",
    "executor",
    "fixed",
    "jac",
    "maximize",
    "method",
    "seed",
    "workers",
    "x0",
)
#: What goes by different names in different methods, the most usual first.
_ALIKE = (
    ("maxfun", "maxfev", "max_nfev"),
    ("maxiter", "niter", "iters", "n_iter", "max_iter"),
    ("maxiter", "maxfun", "maxfev", "max_nfev", "niter", "iters", "n_iter", "max_iter"),
    ("tol", "ftol", "xtol", "fatol"),
    ("verbose", "disp", "iprint"),
    ("finite_diff_rel_step", "diff_step", "eps", "epsfcn"),
)


def refuse_unknown_options(what: str, options: Iterable[str], known: Iterable[str]) -> None:
    """Refuse options that do not exist, with the nearest match."""
    names = tuple(dict.fromkeys(known))
    for option in options:
        if option in names:
            continue
        if option in _ARGUMENTS:
            raise UnknownNameError(f"{option!r} is no option of {what}: give it to fit itself, fit(..., {option}=...)")
        own = next((name for group in _ALIKE if option in group for name in group if name in names), None)
        if own is not None and nearest(option, names) is None:
            raise UnknownNameError(f"unknown option of {what} {option!r}; what comes nearest is {own!r}")
        refuse_unknown(f"option of {what}", option, names, limit=len(names))


def checked_options(method: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a method, each of a kind that it can use.

    Raises
    ------
    InvalidInputError, InvalidTypeError, UnknownNameError
        With the option, the value, and what is wanted.
    """
    checked = dict(options)
    for name, value in options.items():
        kind = KINDS[method].get(name)
        if kind is None:
            continue
        if isinstance(value, str) and kind.names:
            if value not in kind.names:
                refuse_unknown(f"value for option {name!r} of method {method!r}:", value, kind.names)
            continue
        if not kind.is_type(value) or not kind.is_value(value):
            error = InvalidInputError if kind.is_type(value) else InvalidTypeError
            raise error(f"option {name!r} of method {method!r} must be {kind.wanted}, not {_shown(value)}")
        if kind.is_count:
            checked[name] = _as_count(value)
    return checked


def _shown(value: Any) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"{text[:57]}..."


# ---- kinds


def _is_numbers(value: Any) -> bool:
    try:
        return np.asarray(value).dtype.kind in "biufc"
    except (TypeError, ValueError):
        return False


def _is_number(value: Any) -> bool:
    return isinstance(value, Number) or (_is_numbers(value) and np.size(value) == 1)


def _real(value: Any) -> float:
    return float(np.real(np.asarray(value, dtype=complex)).reshape(-1)[0])


def _as_count(value: Any) -> Any:
    if value is None or isinstance(value, bool) or not math.isfinite(number := _real(value)):
        return value
    return int(number) if number == int(number) else value


def _or_none(is_type: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or is_type(value)


def _count(least: int = 0, *, none: bool = False, inf: bool = True, whole: bool = False) -> Kind:
    """A limit. Where `whole` is not asked for, SciPy compares with it, and a fraction does no harm."""

    def is_value(value: Any) -> bool:
        if value is None:
            return True
        number = _real(value)
        if math.isnan(number) or number == math.inf:
            return inf and not (whole and math.isnan(number))
        return number >= least and not (whole and number != int(number))

    wanted = f"a whole number, {least} or more" + ", or None" * none
    return Kind(wanted, _or_none(_is_number) if none else _is_number, is_value, is_count=True)


def _number(
    *, above: float | None = None, least: float | None = None, below: float | None = None, most: float | None = None,
    none: bool = False,
) -> Kind:  # fmt: skip
    """A number; NaN passes, as in SciPy."""
    words = [
        f"{word} {limit:g}"
        for word, limit in (("above", above), ("at least", least), ("below", below), ("at most", most))
        if limit is not None
    ]

    def is_value(value: Any) -> bool:
        if value is None:
            return True
        number = _real(value)
        return not (
            (above is not None and number <= above)
            or (least is not None and number < least)
            or (below is not None and number >= below)
            or (most is not None and number > most)
        )

    wanted = " ".join(["a number", " and ".join(words)]).strip() + ", or None" * none
    return Kind(wanted, _or_none(_is_number) if none else _is_number, is_value)


def _names(*names: str, function: bool = False, none: bool = False, numbers: bool = False) -> Kind:
    """One of some names; also a function, None or an array, where these are taken too."""
    more = ["a function"] * function + ["None"] * none + ["an array"] * numbers

    def is_type(value: Any) -> bool:
        return (function and callable(value)) or (none and value is None) or (numbers and _is_numbers(value))

    return Kind(", ".join([f"one of {', '.join(map(repr, names))}", *more]), is_type, names=names)


def _is_mapping(value: Any) -> bool:
    return value is None or isinstance(value, Mapping)


def _is_scale(value: Any) -> bool:
    return value is None or bool(np.all(np.isfinite(value)) and np.all(np.asarray(value) > 0))


def _is_mutation(value: Any) -> bool:
    return bool(np.all(np.isfinite(value)) and np.all(np.real(value) >= 0) and np.all(np.real(value) < 2))


def _is_local(value: Any) -> bool:
    """Whether the arguments of an inner `minimize` name a method that there is."""
    method = (value or {}).get("method")
    if isinstance(method, str) and method.lower() not in (name.lower() for name in MINIMIZE_METHODS):
        refuse_unknown("method in option 'minimizer_kwargs'", method, MINIMIZE_METHODS, limit=20)
    return method is None or isinstance(method, str) or callable(method)


_FUNCTION = Kind("a function, or None", _or_none(callable))
_NUMBERS = Kind("a number or an array of numbers", _is_numbers)
_NUMBERS_OR_NONE = Kind("a number, an array of numbers, or None", _or_none(_is_numbers))
_MAPPING = Kind("a dict, or None", _is_mapping)
_LOCAL = Kind("a dict of arguments of scipy.optimize.minimize, or None", _is_mapping, _is_local)
_WORKERS = Kind("a number or a map-like function", lambda value: _is_number(value) or callable(value))
_DIFFERENCES = ("2-point", "3-point", "cs")
_HESSIAN = Kind(
    "a function, one of '2-point', '3-point', 'cs', or a HessianUpdateStrategy such as scipy.optimize.BFGS()",
    lambda value: value is None or callable(value) or isinstance(value, _scipy.optimize.HessianUpdateStrategy),
    names=_DIFFERENCES,
)

# ---- the table

_NUMBER, _NUMBER_OR_NONE = _number(), _number(none=True)
_TOLERANCE = _number(least=0, none=True)
_LIMIT, _LIMIT_OR_NONE = _count(), _count(none=True)
_WHOLE = _count(whole=True, inf=False)
_SHARE = _number(above=0, below=1)
_ALL = {"tol": _NUMBER_OR_NONE, "hess": _HESSIAN, "hessp": _FUNCTION}


def _least_squares(max_nfev: Kind) -> dict[str, Kind]:
    return {
        "ftol": _TOLERANCE,
        "xtol": _TOLERANCE,
        "gtol": _TOLERANCE,
        "x_scale": Kind(
            "'jac', None, or positive numbers, one or one per parameter", _or_none(_is_numbers), _is_scale, ("jac",)
        ),
        "loss": _names("linear", "soft_l1", "huber", "cauchy", "arctan", function=True),
        "f_scale": _NUMBERS_OR_NONE,
        "diff_step": _NUMBERS_OR_NONE,
        "tr_solver": _names("exact", "lsmr", none=True),
        "tr_options": Kind("a dict", lambda value: value is None or not isinstance(value, (str, bool))),
        "max_nfev": max_nfev,
        "verbose": Kind("0, 1 or 2", _is_number, lambda value: _real(value) in (0, 1, 2)),
    }


_STEPS = {"eps": _NUMBERS_OR_NONE, "finite_diff_rel_step": _NUMBERS_OR_NONE}
_LINE_SEARCH = {"maxiter": _LIMIT_OR_NONE, "gtol": _NUMBER, "norm": _NUMBER, **_STEPS, "c1": _SHARE, "c2": _SHARE}
_TRUST = {
    "maxiter": _LIMIT_OR_NONE,
    "initial_trust_radius": _number(above=0),
    "max_trust_radius": _number(above=0),
    "eta": _number(least=0, below=0.25),
    "gtol": _NUMBER,
}
_METHODS: dict[str, dict[str, Kind]] = {
    "Nelder-Mead": {
        "maxiter": _LIMIT_OR_NONE, "maxfev": _LIMIT_OR_NONE, "xatol": _NUMBER, "fatol": _NUMBER,
        "initial_simplex": _NUMBERS_OR_NONE,
    },
    "Powell": {
        "maxiter": _LIMIT_OR_NONE, "maxfev": _count(1, none=True), "xtol": _NUMBER, "ftol": _NUMBER,
        "direc": _NUMBERS_OR_NONE,
    },
    "CG": _LINE_SEARCH,
    "BFGS": {**_LINE_SEARCH, "xrtol": _NUMBER, "hess_inv0": _NUMBERS_OR_NONE},
    "Newton-CG": {"maxiter": _LIMIT_OR_NONE, "xtol": _NUMBER, "eps": _NUMBERS_OR_NONE, "c1": _SHARE, "c2": _SHARE},
    "L-BFGS-B": {
        "maxiter": _LIMIT, "maxfun": _LIMIT, "ftol": _NUMBER, "gtol": _NUMBER, **_STEPS, "maxcor": _WHOLE,
        "maxls": _count(1, whole=True, inf=False),
    },
    "TNC": {
        "maxfun": _count(none=True, inf=False), **_STEPS, "scale": _NUMBERS_OR_NONE, "offset": _NUMBERS_OR_NONE,
        **dict.fromkeys(
            ("maxCGit", "eta", "stepmx", "accuracy", "minfev", "ftol", "xtol", "gtol", "rescale"), _NUMBER
        ),
    },
    "COBYLA": {
        "maxiter": _count(none=True, inf=False), "rhobeg": _NUMBER_OR_NONE, "catol": _NUMBER_OR_NONE,
        "f_target": _NUMBER,
    },
    "COBYQA": {
        "maxiter": _count(1, none=True, inf=False), "maxfev": _count(1, none=True, inf=False), "f_target": _NUMBER,
        "feasibility_tol": _NUMBER, "initial_tr_radius": _number(above=0), "final_tr_radius": _number(least=0),
    },
    "SLSQP": {"maxiter": _count(inf=False), "ftol": _NUMBER, **_STEPS},
    "trust-constr": {
        "maxiter": _LIMIT, "gtol": _NUMBER, "xtol": _NUMBER, "initial_tr_radius": _NUMBER, "verbose": _NUMBER,
        "initial_constr_penalty": _NUMBER, "finite_diff_rel_step": _NUMBERS_OR_NONE,
        "barrier_tol": _NUMBER_OR_NONE, "initial_barrier_parameter": _NUMBER_OR_NONE,
        "initial_barrier_tolerance": _NUMBER_OR_NONE,
        "factorization_method": _names(
            "NormalEquation", "AugmentedSystem", "QRFactorization", "SVDFactorization", none=True
        ),
    },
    "dogleg": _TRUST,
    "trust-ncg": _TRUST,
    "trust-exact": {**_TRUST, "subproblem_maxiter": _count(1, none=True)},
    "trust-krylov": _TRUST,
}  # fmt: skip
MINIMIZE_METHODS = tuple(_METHODS)
_GLOBAL: dict[str, dict[str, Kind]] = {
    "differential_evolution": {
        "strategy": _names(
            *(
                f"{base}{cross}"
                for base in ("best1", "rand1", "rand2", "randtobest1", "currenttobest1", "best2")
                for cross in ("bin", "exp")
            ),
            function=True,
        ),
        "maxiter": _count(none=True, whole=True, inf=False),
        "popsize": _NUMBER, "tol": _NUMBER, "atol": _NUMBER, "recombination": _NUMBERS,
        "mutation": Kind("a number from 0 to below 2, or a pair of them", _is_numbers, _is_mutation),
        "init": _names("latinhypercube", "sobol", "halton", "random", numbers=True),
        "updating": _names("immediate", "deferred"),
        "workers": _WORKERS,
    },
    "dual_annealing": {
        "maxiter": _WHOLE, "maxfun": _LIMIT, "initial_temp": _NUMBER, "visit": _NUMBER, "accept": _NUMBER,
        "restart_temp_ratio": _SHARE, "minimizer_kwargs": _LOCAL,
    },
    "shgo": {
        "n": _LIMIT_OR_NONE, "iters": _count(none=True, inf=False), "options": _MAPPING, "minimizer_kwargs": _LOCAL,
        "sampling_method": _names("simplicial", "halton", "sobol", function=True),
        "workers": _WORKERS,
    },
    "basinhopping": {
        "niter": _WHOLE, "T": _NUMBER, "stepsize": _NUMBER, "interval": _NUMBER, "niter_success": _NUMBER_OR_NONE,
        "take_step": _FUNCTION, "accept_test": _FUNCTION, "minimizer_kwargs": _LOCAL, "target_accept_rate": _SHARE,
        "stepwise_factor": _SHARE,
    },
    "direct": {
        "eps": _NUMBER, "maxfun": _count(none=True, whole=True, inf=False), "maxiter": _WHOLE, "f_min": _NUMBER,
        **dict.fromkeys(("f_min_rtol", "vol_tol", "len_tol"), _number(least=0, most=1)),
    },
    "brute": {
        "Ns": _count(1), "workers": _WORKERS, "finish": _names("polish", function=True, none=True),
    },
}  # fmt: skip
#: The options of each method whose values are known.
KINDS: dict[str, dict[str, Kind]] = {
    "lm": _least_squares(_count(1, none=True, whole=True, inf=False)),
    "trf": _least_squares(_count(1, none=True, whole=True)),
    "dogbox": _least_squares(_count(1, none=True, whole=True)),
    **{name: {**_ALL, **kinds} for name, kinds in _METHODS.items()},
    **_GLOBAL,
}
