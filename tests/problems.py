"""Small fitting problems whose answers are known: the oracles of the tests.

NIST's nonlinear regression sets (Statistical Reference Datasets, https://www.itl.nist.gov/div898/strd/nls/) come with
certified parameters, standard deviations and residual sums of squares, to 11 digits; `test_inference` checks that the
data, the models and the certified figures here agree with one another to all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray


@dataclass(frozen=True)
class Scalar:
    """A function to minimise; `fun`, `grad` and `hess` take the parameters and a dataset, which shifts the minimum."""

    name: str
    fun: Callable[[Array, Any], float]
    grad: Callable[[Array, Any], Array]
    hess: Callable[[Array, Any], Array]
    start: tuple[float, ...]
    x: tuple[float, ...]
    cost: float
    box: tuple[tuple[float, float], ...]

    def __repr__(self) -> str:
        return self.name


def _rosenbrock(p: Array, d: Any) -> float:
    u, v = p[0] - d[0], p[1] - d[1]
    return float((1 - u) ** 2 + 10 * (v - u**2) ** 2)


def _rosenbrock_gradient(p: Array, d: Any) -> Array:
    u, v = p[0] - d[0], p[1] - d[1]
    return np.array([-2 * (1 - u) - 40 * u * (v - u**2), 20 * (v - u**2)])


def _rosenbrock_hessian(p: Array, d: Any) -> Array:
    u, v = p[0] - d[0], p[1] - d[1]
    return np.array([[2 - 40 * v + 120 * u**2, -40 * u], [-40 * u, 20.0]])


_A = np.array([[3.0, 1.0], [1.0, 2.0]])


def _quadratic(p: Array, d: Any) -> float:
    q = np.array([p[0] - d[0] - 1, p[1] - d[1] + 2])
    return float(0.5 * q @ _A @ q) + 3.0


def _quadratic_gradient(p: Array, d: Any) -> Array:
    return _A @ np.array([p[0] - d[0] - 1, p[1] - d[1] + 2])


def _quadratic_hessian(p: Array, d: Any) -> Array:
    return _A.copy()


#: In two parameters each; dataset ``(0, 0)`` puts the minimum at `x`, any other moves it along.
ROSENBROCK = Scalar(
    "rosenbrock",
    _rosenbrock,
    _rosenbrock_gradient,
    _rosenbrock_hessian,
    (-1.0, 1.0),
    (1.0, 1.0),
    0.0,
    ((-2.0, 3.0), (-2.5, 3.5)),
)
QUADRATIC = Scalar(
    "quadratic",
    _quadratic,
    _quadratic_gradient,
    _quadratic_hessian,
    (0.0, 0.0),
    (1.0, -2.0),
    3.0,
    ((-4.0, 4.5), (-5.0, 3.0)),
)
SCALARS = (ROSENBROCK, QUADRATIC)


@dataclass(frozen=True)
class Curve:
    """A curve to be fitted by least squares, with certified parameters, standard deviations and sum of squares."""

    name: str
    model: Callable[..., Array]
    x: Array
    y: Array
    starts: tuple[tuple[float, ...], ...]
    params: tuple[float, ...]
    stderr: tuple[float, ...]
    rss: float

    def __repr__(self) -> str:
        return self.name

    def residuals(self, p: Array, y: Any) -> Array:
        """The residuals against a dataset `y`."""
        return self.model(self.x, *p) - np.asarray(y)


# fmt: off
_MISRA_X = np.array([77.6, 114.9, 141.1, 190.8, 239.9, 289.0, 332.8, 378.4, 434.8, 477.3, 536.8, 593.1, 689.1, 760.0])
_MISRA_Y = np.array([10.07, 14.73, 17.94, 23.93, 29.61, 35.18, 40.02, 44.82, 50.76, 55.05, 61.01, 66.40, 75.47, 81.78])

NIST = (
    Curve("Misra1a", lambda x, a, b: a * (1 - np.exp(-b * x)), _MISRA_X, _MISRA_Y,
          ((500.0, 1e-4), (250.0, 5e-4)), (2.3894212918e02, 5.5015643181e-04),
          (2.7070075241e00, 7.2668688436e-06), 1.2455138894e-01),
    Curve("Misra1b", lambda x, a, b: a * (1 - (1 + b * x / 2) ** -2), _MISRA_X, _MISRA_Y,
          ((500.0, 1e-4), (300.0, 2e-4)), (3.3799746163e02, 3.9039091287e-04),
          (3.1643950207e00, 4.2547321834e-06), 7.5464681533e-02),
    Curve("Misra1c", lambda x, a, b: a * (1 - (1 + 2 * b * x) ** -0.5), _MISRA_X, _MISRA_Y,
          ((500.0, 1e-4), (600.0, 2e-4)), (6.3642725809e02, 2.0813627256e-04),
          (4.6638326572e00, 1.7728423155e-06), 4.0966836971e-02),
    Curve("Misra1d", lambda x, a, b: a * b * x / (1 + b * x), _MISRA_X, _MISRA_Y,
          ((500.0, 1e-4), (450.0, 3e-4)), (4.3736970754e02, 3.0227324449e-04),
          (3.6489174345e00, 2.9334354479e-06), 5.6419295283e-02),
    Curve("DanWood", lambda x, a, b: a * x**b,
          np.array([1.309, 1.471, 1.490, 1.565, 1.611, 1.680]),
          np.array([2.138, 3.421, 3.597, 4.340, 4.882, 5.660]),
          ((1.0, 5.0), (0.7, 4.0)), (7.6886226176e-01, 3.8604055871e00),
          (1.8281973860e-02, 5.1726610913e-02), 4.3173084083e-03),
    Curve("BoxBOD", lambda x, a, b: a * (1 - np.exp(-b * x)),
          np.array([1.0, 2.0, 3.0, 5.0, 7.0, 10.0]), np.array([109.0, 149.0, 149.0, 191.0, 213.0, 224.0]),
          ((100.0, 0.75),), (2.1380940889e02, 5.4723748542e-01),
          (1.2354515176e01, 1.0455993237e-01), 1.1680088766e03),
    Curve("Rat42", lambda x, a, b, c: a / (1 + np.exp(b - c * x)),
          np.array([9.0, 14.0, 21.0, 28.0, 42.0, 57.0, 63.0, 70.0, 79.0]),
          np.array([8.93, 10.80, 18.59, 22.33, 39.35, 56.11, 61.73, 64.62, 67.08]),
          ((100.0, 1.0, 0.1), (75.0, 2.5, 0.07)), (7.2462237576e01, 2.6180768402e00, 6.7359200066e-02),
          (1.7340283401e00, 8.8295217536e-02, 3.4465663377e-03), 8.0565229338e00),
    Curve("MGH09", lambda x, a, b, c, d: a * (x**2 + x * b) / (x**2 + x * c + d),
          np.array([4.0, 2.0, 1.0, 0.5, 0.25, 0.167, 0.125, 0.1, 0.0833, 0.0714, 0.0625]),
          np.array([0.1957, 0.1947, 0.1735, 0.1600, 0.0844, 0.0627, 0.0456, 0.0342, 0.0323, 0.0235, 0.0246]),
          ((0.25, 0.39, 0.415, 0.39),),
          (1.9280693458e-01, 1.9128232873e-01, 1.2305650693e-01, 1.3606233068e-01),
          (1.1435312227e-02, 1.9633220911e-01, 8.0842031232e-02, 9.0025542308e-02), 3.0750560385e-04),
)
# fmt: on


def line(x: Array, y: Array) -> tuple[Array, Array, float]:
    """The least-squares line in closed form: (intercept, slope), their covariance, and the sum of squares."""
    X = np.column_stack([np.ones_like(x), x])
    inverse = np.linalg.inv(X.T @ X)
    p = inverse @ X.T @ y
    rss = float(((X @ p - y) ** 2).sum())
    return p, inverse * rss / (len(y) - 2), rss
