"""The nonlinear least-squares problems of Moré, Garbow and Hillstrom, with their standard starts and known minima.

J. J. Moré, B. S. Garbow, K. E. Hillstrom, "Testing unconstrained optimization software", ACM Transactions on
Mathematical Software 7(1), 1981, 17-41: all 35 functions, in the paper's order, those of a variable dimension at one
to three sizes. Gulf is taken without the factor mi inside the modulus, a known misprint.

The residuals take the parameters and the array module (`numpy` or `jax.numpy`), and have no branches on values, so
they can be traced and differentiated.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

Array = np.ndarray


@dataclass(frozen=True, eq=False)
class Problem:
    """Residuals `residuals(x, xp)` whose sum of squares is to be made least, from `start`.

    `minimum` are the sums of squares of the minima the paper lists, the global one first, carried on from its six
    digits to ten; `data` are the observations, where there are any, which the residuals have in them already.
    """

    name: str
    residuals: Callable[[Any, Any], Any]
    start: tuple[float, ...]
    minimum: tuple[float, ...] | None = None
    data: tuple[Array, ...] = ()

    def __repr__(self) -> str:
        return self.name


def _count(n: int) -> Array:
    """1 to n."""
    return np.arange(1.0, n + 1)


def _rosenbrock(x: Any, xp: Any) -> Any:
    return xp.stack([10 * (x[1] - x[0] ** 2), 1 - x[0]])


def _freudenstein_roth(x: Any, xp: Any) -> Any:
    return xp.stack([-13 + x[0] + ((5 - x[1]) * x[1] - 2) * x[1], -29 + x[0] + ((x[1] + 1) * x[1] - 14) * x[1]])


def _powell_badly_scaled(x: Any, xp: Any) -> Any:
    return xp.stack([1e4 * x[0] * x[1] - 1, xp.exp(-x[0]) + xp.exp(-x[1]) - 1.0001])


def _brown_badly_scaled(x: Any, xp: Any) -> Any:
    return xp.stack([x[0] - 1e6, x[1] - 2e-6, x[0] * x[1] - 2])


_BEALE = (np.array([1.5, 2.25, 2.625]),)


def _beale(x: Any, xp: Any) -> Any:
    return _BEALE[0] - x[0] * (1 - xp.stack([x[1], x[1] ** 2, x[1] ** 3]))


def _jennrich_sampson(x: Any, xp: Any) -> Any:
    i = _count(10)
    return 2 + 2 * i - (xp.exp(i * x[0]) + xp.exp(i * x[1]))


def _helical_valley(x: Any, xp: Any) -> Any:
    # The paper's angle runs from -1/4 to 3/4 of a turn, and jumps where x[0] = 0 and x[1] < 0.
    turn = 0.25 + xp.arctan2(-x[0], x[1]) / (2 * np.pi)
    return xp.stack([10 * (x[2] - 10 * turn), 10 * (xp.sqrt(x[0] ** 2 + x[1] ** 2) - 1), x[2]])


_BARD = (
    _count(15),
    np.array([0.14, 0.18, 0.22, 0.25, 0.29, 0.32, 0.35, 0.39, 0.37, 0.58, 0.73, 0.96, 1.34, 2.10, 4.39]),
)


def _bard(x: Any, xp: Any) -> Any:
    u, y = _BARD
    v = 16 - u
    return y - (x[0] + u / (v * x[1] + np.minimum(u, v) * x[2]))


_GAUSSIAN = (
    (8 - _count(15)) / 2,
    np.array([9, 44, 175, 540, 1295, 2420, 3521, 3989, 3521, 2420, 1295, 540, 175, 44, 9]) / 1e4,
)


def _gaussian(x: Any, xp: Any) -> Any:
    t, y = _GAUSSIAN
    return x[0] * xp.exp(-x[1] * (t - x[2]) ** 2 / 2) - y


_MEYER = (
    45 + 5 * _count(16),
    np.array([34780.0, 28610, 23650, 19630, 16370, 13720, 11540, 9744, 8261, 7030, 6005, 5147, 4427, 3820, 3307, 2872]),
)


def _meyer(x: Any, xp: Any) -> Any:
    t, y = _MEYER
    return x[0] * xp.exp(x[1] / (t + x[2])) - y


def _gulf(x: Any, xp: Any) -> Any:
    t = _count(99) / 100
    y = 25 + (-50 * np.log(t)) ** (2 / 3)
    return xp.exp(-(xp.abs(y - x[1]) ** x[2]) / x[0]) - t


def _box(x: Any, xp: Any) -> Any:
    t = _count(10) / 10
    return xp.exp(-t * x[0]) - xp.exp(-t * x[1]) - x[2] * (np.exp(-t) - np.exp(-10 * t))


def _powell_singular(x: Any, xp: Any) -> Any:
    """Also the extended one: the parameters go by fours."""
    a, b, c, d = x[0::4], x[1::4], x[2::4], x[3::4]
    return xp.concatenate([a + 10 * b, 5**0.5 * (c - d), (b - 2 * c) ** 2, 10**0.5 * (a - d) ** 2])


def _wood(x: Any, xp: Any) -> Any:
    return xp.stack(
        [
            10 * (x[1] - x[0] ** 2),
            1 - x[0],
            90**0.5 * (x[3] - x[2] ** 2),
            1 - x[2],
            10**0.5 * (x[1] + x[3] - 2),
            (x[1] - x[3]) / 10**0.5,
        ]
    )


_KOWALIK_OSBORNE = (
    np.array([4.0, 2.0, 1.0, 0.5, 0.25, 0.167, 0.125, 0.1, 0.0833, 0.0714, 0.0625]),
    np.array([0.1957, 0.1947, 0.1735, 0.1600, 0.0844, 0.0627, 0.0456, 0.0342, 0.0323, 0.0235, 0.0246]),
)


def _kowalik_osborne(x: Any, xp: Any) -> Any:
    u, y = _KOWALIK_OSBORNE
    return y - x[0] * (u**2 + u * x[1]) / (u**2 + u * x[2] + x[3])


def _brown_dennis(x: Any, xp: Any) -> Any:
    t = _count(20) / 5
    return (x[0] + t * x[1] - np.exp(t)) ** 2 + (x[2] + x[3] * np.sin(t) - np.cos(t)) ** 2


# fmt: off
_OSBORNE1 = (
    np.arange(0.0, 321.0, 10.0),
    np.array([
        844, 908, 932, 936, 925, 908, 881, 850, 818, 784, 751, 718, 685, 658, 628, 603, 580, 558, 538, 522, 506, 490,
        478, 467, 457, 448, 438, 431, 424, 420, 414, 411, 406,
    ]) / 1e3,
)
_OSBORNE2 = (
    np.arange(65) / 10,
    np.array([
        1366, 1191, 1112, 1013, 991, 885, 831, 847, 786, 725, 746, 679, 608, 655, 616, 606, 602, 626, 651, 724, 649,
        649, 694, 644, 624, 661, 612, 558, 533, 495, 500, 423, 395, 375, 372, 391, 396, 405, 428, 429, 523, 562, 607,
        653, 672, 708, 633, 668, 645, 632, 591, 559, 597, 625, 739, 710, 729, 720, 636, 581, 428, 292, 162, 98, 54,
    ]) / 1e3,
)
# fmt: on


def _osborne1(x: Any, xp: Any) -> Any:
    t, y = _OSBORNE1
    return y - (x[0] + x[1] * xp.exp(-t * x[3]) + x[2] * xp.exp(-t * x[4]))


def _osborne2(x: Any, xp: Any) -> Any:
    t, y = _OSBORNE2
    peaks = [x[k] * xp.exp(-((t - x[k + 7]) ** 2) * x[k + 4]) for k in (1, 2, 3)]
    return y - (x[0] * xp.exp(-t * x[4]) + sum(peaks))


def _biggs(x: Any, xp: Any) -> Any:
    t = _count(13) / 10
    y = np.exp(-t) - 5 * np.exp(-10 * t) + 3 * np.exp(-4 * t)
    return x[2] * xp.exp(-t * x[0]) - x[3] * xp.exp(-t * x[1]) + x[5] * xp.exp(-t * x[4]) - y


def _watson(x: Any, xp: Any) -> Any:
    j = np.arange(len(x))
    t = _count(29)[:, None] / 29
    powers = t**j
    slopes = j[1:] * powers[:, :-1]
    return xp.concatenate([slopes @ x[1:] - (powers @ x) ** 2 - 1, xp.stack([x[0], x[1] - x[0] ** 2 - 1])])


def _extended_rosenbrock(x: Any, xp: Any) -> Any:
    a, b = x[0::2], x[1::2]
    return xp.concatenate([10 * (b - a**2), 1 - a])


def _penalty1(x: Any, xp: Any) -> Any:
    return xp.concatenate([1e-5**0.5 * (x - 1), xp.stack([xp.sum(x**2) - 0.25])])


def _penalty2(x: Any, xp: Any) -> Any:
    n = len(x)
    e, i = xp.exp(x / 10), np.arange(2, n + 1)
    y = np.exp(i / 10) + np.exp((i - 1) / 10)
    return xp.concatenate(
        [
            x[:1] - 0.2,
            1e-5**0.5 * (e[1:] + e[:-1] - y),
            1e-5**0.5 * (e[1:] - np.exp(-0.1)),
            xp.stack([xp.sum((n + 1 - _count(n)) * x**2) - 1]),
        ]
    )


def _variably_dimensioned(x: Any, xp: Any) -> Any:
    total = xp.sum(_count(len(x)) * (x - 1))
    return xp.concatenate([x - 1, xp.stack([total, total**2])])


def _trigonometric(x: Any, xp: Any) -> Any:
    n = len(x)
    return n - xp.sum(xp.cos(x)) + _count(n) * (1 - xp.cos(x)) - xp.sin(x)


def _brown_almost_linear(x: Any, xp: Any) -> Any:
    return xp.concatenate([x[:-1] + xp.sum(x) - (len(x) + 1), xp.stack([xp.prod(x) - 1])])


def _mesh(n: int) -> tuple[float, Array]:
    """The step and the inner points of [0, 1]."""
    return 1 / (n + 1), _count(n) / (n + 1)


def _neighbours(x: Any, xp: Any) -> tuple[Any, Any]:
    """Every element's predecessor and successor, 0 at the ends."""
    end = xp.zeros(1)
    return xp.concatenate([end, x[:-1]]), xp.concatenate([x[1:], end])


def _discrete_boundary_value(x: Any, xp: Any) -> Any:
    h, t = _mesh(len(x))
    before, after = _neighbours(x, xp)
    return 2 * x - before - after + h**2 * (x + t + 1) ** 3 / 2


def _discrete_integral_equation(x: Any, xp: Any) -> Any:
    h, t = _mesh(len(x))
    kernel = np.minimum(t, t[:, None]) * (1 - np.maximum(t, t[:, None]))
    return x + h / 2 * (kernel @ (x + t + 1) ** 3)


def _broyden_tridiagonal(x: Any, xp: Any) -> Any:
    before, after = _neighbours(x, xp)
    return (3 - 2 * x) * x - before - 2 * after + 1


def _broyden_banded(x: Any, xp: Any) -> Any:
    i = np.arange(len(x))
    lag = i[:, None] - i
    band = ((lag <= 5) & (lag >= -1) & (lag != 0)).astype(float)
    return x * (2 + 5 * x**2) + 1 - band @ (x * (1 + x))


def _full_rank(x: Any, xp: Any, m: int) -> Any:
    return xp.concatenate([x, xp.zeros(m - len(x))]) - 2 / m * xp.sum(x) - 1


def _rank1(x: Any, xp: Any, m: int) -> Any:
    return _count(m) * xp.sum(_count(len(x)) * x) - 1


def _rank1_zeros(x: Any, xp: Any, m: int) -> Any:
    i = np.concatenate([np.arange(m - 1.0), [0.0]])
    return i * xp.sum(np.arange(2.0, len(x)) * x[1:-1]) - 1


def _chebyquad(x: Any, xp: Any) -> Any:
    before, now, means = xp.ones(len(x)), 2 * x - 1, []
    for i in range(1, len(x) + 1):
        means.append(xp.mean(now) + (1 / (i**2 - 1) if i % 2 == 0 else 0))
        before, now = now, 2 * (2 * x - 1) * now - before
    return xp.stack(means)


def _mesh_start(n: int) -> tuple[float, ...]:
    t = _mesh(n)[1]
    return tuple((t * (t - 1)).tolist())


MGH = (
    Problem("rosenbrock", _rosenbrock, (-1.2, 1.0), (0.0,)),
    Problem("freudenstein-roth", _freudenstein_roth, (0.5, -2.0), (0.0, 48.98425368)),
    Problem("powell-badly-scaled", _powell_badly_scaled, (0.0, 1.0), (0.0,)),
    Problem("brown-badly-scaled", _brown_badly_scaled, (1.0, 1.0), (0.0,)),
    Problem("beale", _beale, (1.0, 1.0), (0.0,), _BEALE),
    Problem("jennrich-sampson", _jennrich_sampson, (0.3, 0.4), (124.3621824,)),
    Problem("helical-valley", _helical_valley, (-1.0, 0.0, 0.0), (0.0,)),
    # The second at x = (0.8406..., -infinity, -infinity).
    Problem("bard", _bard, (1.0, 1.0, 1.0), (8.214877307e-3, 17.42869333), _BARD),
    Problem("gaussian", _gaussian, (0.4, 1.0, 0.0), (1.12793277e-8,), _GAUSSIAN),
    Problem("meyer", _meyer, (0.02, 4000.0, 250.0), (87.94585517,), _MEYER),
    Problem("gulf", _gulf, (5.0, 2.5, 0.15), (0.0,)),
    Problem("box", _box, (0.0, 10.0, 20.0), (0.0,)),
    Problem("powell-singular", _powell_singular, (3.0, -1.0, 0.0, 1.0), (0.0,)),
    Problem("wood", _wood, (-3.0, -1.0, -3.0, -1.0), (0.0,)),
    # The second at x = (infinity, -14.07..., -infinity, -infinity).
    Problem(
        "kowalik-osborne",
        _kowalik_osborne,
        (0.25, 0.39, 0.415, 0.39),
        (3.075056038e-4, 1.027343049e-3),
        _KOWALIK_OSBORNE,
    ),
    Problem("brown-dennis", _brown_dennis, (25.0, 5.0, -5.0, -1.0), (85822.20163,)),
    Problem("osborne-1", _osborne1, (0.5, 1.5, -1.0, 0.01, 0.02), (5.464894697e-5,), _OSBORNE1),
    Problem("biggs", _biggs, (1.0, 2.0, 1.0, 1.0, 1.0, 1.0), (0.0, 5.655649925e-3)),
    Problem(
        "osborne-2", _osborne2, (1.3, 0.65, 0.65, 0.7, 0.6, 3.0, 5.0, 7.0, 2.0, 4.5, 5.5), (4.013773629e-2,), _OSBORNE2
    ),
    Problem("watson-6", _watson, (0.0,) * 6, (2.287670054e-3,)),
    Problem("watson-9", _watson, (0.0,) * 9, (1.399760138e-6,)),
    Problem("watson-12", _watson, (0.0,) * 12, (4.72238110e-10,)),
    Problem("extended-rosenbrock", _extended_rosenbrock, (-1.2, 1.0) * 5, (0.0,)),
    Problem("extended-powell-singular", _powell_singular, (3.0, -1.0, 0.0, 1.0) * 3, (0.0,)),
    Problem("penalty-1-4", _penalty1, tuple(_count(4).tolist()), (2.249977501e-5,)),
    Problem("penalty-1-10", _penalty1, tuple(_count(10).tolist()), (7.087651467e-5,)),
    Problem("penalty-2-4", _penalty2, (0.5,) * 4, (9.376293007e-6,)),
    Problem("penalty-2-10", _penalty2, (0.5,) * 10, (2.936605375e-4,)),
    Problem("variably-dimensioned", _variably_dimensioned, tuple((1 - _count(10) / 10).tolist()), (0.0,)),
    # The second is not in the paper: it is where descent from this start ends up.
    Problem("trigonometric", _trigonometric, (0.1,) * 10, (0.0, 2.795056122e-5)),
    Problem("brown-almost-linear", _brown_almost_linear, (0.5,) * 10, (0.0, 1.0)),
    Problem("discrete-boundary-value", _discrete_boundary_value, _mesh_start(10), (0.0,)),
    Problem("discrete-integral-equation", _discrete_integral_equation, _mesh_start(10), (0.0,)),
    Problem("broyden-tridiagonal", _broyden_tridiagonal, (-1.0,) * 10, (0.0,)),
    Problem("broyden-banded", _broyden_banded, (-1.0,) * 10, (0.0,)),
    Problem("linear-full-rank", partial(_full_rank, m=10), (1.0,) * 5, (10.0 - 5.0,)),
    Problem("linear-rank-1", partial(_rank1, m=10), (1.0,) * 5, (10 * 9 / (2 * 21),)),
    Problem("linear-rank-1-zeros", partial(_rank1_zeros, m=10), (1.0,) * 5, (124 / (2 * 17),)),
    Problem("chebyquad-7", _chebyquad, tuple((_count(7) / 8).tolist()), (0.0,)),
    Problem("chebyquad-8", _chebyquad, tuple((_count(8) / 9).tolist()), (3.516873726e-3,)),
    Problem("chebyquad-9", _chebyquad, tuple((_count(9) / 10).tolist()), (0.0,)),
    Problem("chebyquad-10", _chebyquad, tuple((_count(10) / 11).tolist()), (6.503954801e-3,)),
)
