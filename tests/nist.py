"""NIST's nonlinear regression sets, with certified parameters, standard deviations and sums of squares.

Statistical Reference Datasets, https://www.itl.nist.gov/div898/strd/nls/nls_main.shtml, in the public domain: all of
the 27 sets of observations, from the two starts that NIST prescribes for each, the far one first. The figures are
certified to 11 digits; the data are in `nist_data.py`.

At the certified parameters the residuals give the certified sum of squares to 1e-10, but for Lanczos1, whose data
have 13 digits: its 1.4e-25 is below what the 11 digits of the parameters leave, 4e-21, and near what double precision
does, so that a fit reaches it, and the deviations that follow from it, to 1e-3.

A model takes the parameters, the predictor and the array module (`numpy` or `jax.numpy`), and has no branches, so it
can be traced and differentiated.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tests import nist_data as data

Array = np.ndarray
Floats = tuple[float, ...]


@dataclass(frozen=True, eq=False)
class Regression:
    """A curve `model(b, x, xp)` to be fitted to `y` by least squares, and what NIST certifies of the answer."""

    name: str
    model: Callable[[Any, Any, Any], Any]
    x: Array
    y: Array
    starts: tuple[Floats, Floats]
    certified: Floats
    stderr: Floats
    ssr: float

    def __repr__(self) -> str:
        return self.name

    def residuals(self, b: Any, xp: Any = np) -> Any:
        return self.model(b, self.x, xp) - self.y


def _saturation(b: Any, x: Any, xp: Any) -> Any:
    """Misra1a and BoxBOD."""
    return b[0] * (1 - xp.exp(-b[1] * x))


def _misra1b(b: Any, x: Any, xp: Any) -> Any:
    return b[0] * (1 - (1 + b[1] * x / 2) ** -2)


def _misra1c(b: Any, x: Any, xp: Any) -> Any:
    return b[0] * (1 - (1 + 2 * b[1] * x) ** -0.5)


def _misra1d(b: Any, x: Any, xp: Any) -> Any:
    return b[0] * b[1] * x / (1 + b[1] * x)


def _chwirut(b: Any, x: Any, xp: Any) -> Any:
    return xp.exp(-b[0] * x) / (b[1] + b[2] * x)


def _lanczos(b: Any, x: Any, xp: Any) -> Any:
    return b[0] * xp.exp(-b[1] * x) + b[2] * xp.exp(-b[3] * x) + b[4] * xp.exp(-b[5] * x)


def _gauss(b: Any, x: Any, xp: Any) -> Any:
    first, second = ((x - b[3]) / b[4]) ** 2, ((x - b[6]) / b[7]) ** 2
    return b[0] * xp.exp(-b[1] * x) + b[2] * xp.exp(-first) + b[5] * xp.exp(-second)


def _danwood(b: Any, x: Any, xp: Any) -> Any:
    return b[0] * x ** b[1]


def _kirby2(b: Any, x: Any, xp: Any) -> Any:
    return (b[0] + b[1] * x + b[2] * x**2) / (1 + b[3] * x + b[4] * x**2)


def _cubics(b: Any, x: Any, xp: Any) -> Any:
    """Hahn1 and Thurber."""
    return (b[0] + b[1] * x + b[2] * x**2 + b[3] * x**3) / (1 + b[4] * x + b[5] * x**2 + b[6] * x**3)


def _nelson(b: Any, x: Any, xp: Any) -> Any:
    """The logarithm of the response."""
    return b[0] - b[1] * x[0] * xp.exp(-b[2] * x[1])


def _mgh09(b: Any, x: Any, xp: Any) -> Any:
    return b[0] * (x**2 + x * b[1]) / (x**2 + x * b[2] + b[3])


def _mgh10(b: Any, x: Any, xp: Any) -> Any:
    return b[0] * xp.exp(b[1] / (x + b[2]))


def _mgh17(b: Any, x: Any, xp: Any) -> Any:
    return b[0] + b[1] * xp.exp(-x * b[3]) + b[2] * xp.exp(-x * b[4])


def _roszman1(b: Any, x: Any, xp: Any) -> Any:
    return b[0] - b[1] * x - xp.arctan(b[2] / (x - b[3])) / np.pi


def _enso(b: Any, x: Any, xp: Any) -> Any:
    year, first, second = 2 * np.pi * x / 12, 2 * np.pi * x / b[3], 2 * np.pi * x / b[6]
    return (
        b[0]
        + (b[1] * xp.cos(year) + b[2] * xp.sin(year))
        + (b[4] * xp.cos(first) + b[5] * xp.sin(first))
        + (b[7] * xp.cos(second) + b[8] * xp.sin(second))
    )


def _rat42(b: Any, x: Any, xp: Any) -> Any:
    return b[0] / (1 + xp.exp(b[1] - b[2] * x))


def _rat43(b: Any, x: Any, xp: Any) -> Any:
    return b[0] / (1 + xp.exp(b[1] - b[2] * x)) ** (1 / b[3])


def _eckerle4(b: Any, x: Any, xp: Any) -> Any:
    return b[0] / b[1] * xp.exp(-0.5 * ((x - b[2]) / b[1]) ** 2)


def _bennett5(b: Any, x: Any, xp: Any) -> Any:
    return b[0] * (b[1] + x) ** (-1 / b[2])


_LANCZOS = ((1.2, 0.3, 5.6, 5.5, 6.5, 7.6), (0.5, 0.7, 3.6, 4.2, 4.0, 6.3))

# fmt: off
#: In NIST's order: of lower, average and higher difficulty.
NIST_ALL = (
    Regression("Misra1a", _saturation, *data.MISRA, ((500.0, 1e-4), (250.0, 5e-4)),
               (2.3894212918e02, 5.5015643181e-04), (2.7070075241e00, 7.2668688436e-06), 1.2455138894e-01),
    Regression("Chwirut2", _chwirut, *data.CHWIRUT2, ((0.1, 0.01, 0.02), (0.15, 0.008, 0.010)),
               (1.6657666537e-01, 5.1653291286e-03, 1.2150007096e-02),
               (3.8303286810e-02, 6.6621605126e-04, 1.5304234767e-03), 5.1304802941e02),
    Regression("Chwirut1", _chwirut, *data.CHWIRUT1, ((0.1, 0.01, 0.02), (0.15, 0.008, 0.010)),
               (1.9027818370e-01, 6.1314004477e-03, 1.0530908399e-02),
               (2.1938557035e-02, 3.4500025051e-04, 7.9281847748e-04), 2.3844771393e03),
    Regression("Lanczos3", _lanczos, *data.LANCZOS3, _LANCZOS,
               (8.6816414977e-02, 9.5498101505e-01, 8.4400777463e-01, 2.9515951832e00, 1.5825685901e00,
                4.9863565084e00),
               (1.7197908859e-02, 9.7041624475e-02, 4.1488663282e-02, 1.0766312506e-01, 5.8371576281e-02,
                3.4436403035e-02), 1.6117193594e-08),
    Regression("Gauss1", _gauss, *data.GAUSS1,
               ((97.0, 0.009, 100.0, 65.0, 20.0, 70.0, 178.0, 16.5),
                (94.0, 0.0105, 99.0, 63.0, 25.0, 71.0, 180.0, 20.0)),
               (9.8778210871e01, 1.0497276517e-02, 1.0048990633e02, 6.7481111276e01, 2.3129773360e01,
                7.1994503004e01, 1.7899805021e02, 1.8389389025e01),
               (5.7527312730e-01, 1.1406289017e-04, 5.8831775752e-01, 1.0460593412e-01, 1.7439951146e-01,
                6.2622793913e-01, 1.2436988217e-01, 2.0134312832e-01), 1.3158222432e03),
    Regression("Gauss2", _gauss, *data.GAUSS2,
               ((96.0, 0.009, 103.0, 106.0, 18.0, 72.0, 151.0, 18.0),
                (98.0, 0.0105, 103.0, 105.0, 20.0, 73.0, 150.0, 20.0)),
               (9.9018328406e01, 1.0994945399e-02, 1.0188022528e02, 1.0703095519e02, 2.3578584029e01,
                7.2045589471e01, 1.5327010194e02, 1.9525972636e01),
               (5.3748766879e-01, 1.3335306766e-04, 5.9217315772e-01, 1.5006798316e-01, 2.2695595067e-01,
                6.1721965884e-01, 1.9466674341e-01, 2.6416549393e-01), 1.2475282092e03),
    Regression("DanWood", _danwood, *data.DANWOOD, ((1.0, 5.0), (0.7, 4.0)),
               (7.6886226176e-01, 3.8604055871e00), (1.8281973860e-02, 5.1726610913e-02), 4.3173084083e-03),
    Regression("Misra1b", _misra1b, *data.MISRA, ((500.0, 1e-4), (300.0, 2e-4)),
               (3.3799746163e02, 3.9039091287e-04), (3.1643950207e00, 4.2547321834e-06), 7.5464681533e-02),
    Regression("Kirby2", _kirby2, *data.KIRBY2,
               ((2.0, -0.1, 0.003, -0.001, 0.00001), (1.5, -0.15, 0.0025, -0.0015, 0.00002)),
               (1.6745063063e00, -1.3927397867e-01, 2.5961181191e-03, -1.7241811870e-03, 2.1664802578e-05),
               (8.7989634338e-02, 4.1182041386e-03, 4.1856520458e-05, 5.8931897355e-05, 2.0129761919e-07),
               3.9050739624e00),
    Regression("Hahn1", _cubics, *data.HAHN1,
               ((10.0, -1.0, 0.05, -0.00001, -0.05, 0.001, -0.000001),
                (1.0, -0.1, 0.005, -0.000001, -0.005, 0.0001, -0.0000001)),
               (1.0776351733e00, -1.2269296921e-01, 4.0863750610e-03, -1.4262662514e-06, -5.7609940901e-03,
                2.4053735503e-04, -1.2314450199e-07),
               (1.7070154742e-01, 1.2000289189e-02, 2.2508314937e-04, 2.7578037666e-07, 2.4712888219e-04,
                1.0449373768e-05, 1.3027335327e-08), 1.5324382854e00),
    Regression("Nelson", _nelson, *data.NELSON, ((2.0, 0.0001, -0.01), (2.5, 0.000000005, -0.05)),
               (2.5906836021e00, 5.6177717026e-09, -5.7701013174e-02),
               (1.9149996413e-02, 6.1124096540e-09, 3.9572366543e-03), 3.7976833176e00),
    Regression("MGH17", _mgh17, *data.MGH17, ((50.0, 150.0, -100.0, 1.0, 2.0), (0.5, 1.5, -1.0, 0.01, 0.02)),
               (3.7541005211e-01, 1.9358469127e00, -1.4646871366e00, 1.2867534640e-02, 2.2122699662e-02),
               (2.0723153551e-03, 2.2031669222e-01, 2.2175707739e-01, 4.4861358114e-04, 8.9471996575e-04),
               5.4648946975e-05),
    Regression("Lanczos1", _lanczos, *data.LANCZOS1, _LANCZOS,
               (9.5100000027e-02, 1.0000000001e00, 8.6070000013e-01, 3.0000000002e00, 1.5575999998e00,
                5.0000000001e00),
               (5.3347304234e-11, 2.7473038179e-10, 1.3576062225e-10, 3.3308253069e-10, 1.8815731448e-10,
                1.1057500538e-10), 1.4307867721e-25),
    Regression("Lanczos2", _lanczos, *data.LANCZOS2, _LANCZOS,
               (9.6251029939e-02, 1.0057332849e00, 8.6424689056e-01, 3.0078283915e00, 1.5529016879e00,
                5.0028798100e00),
               (6.6770575477e-04, 3.3989646176e-03, 1.7185846685e-03, 4.1707005856e-03, 2.3744381417e-03,
                1.3958787284e-03), 2.2299428125e-11),
    Regression("Gauss3", _gauss, *data.GAUSS3,
               ((94.9, 0.009, 90.1, 113.0, 20.0, 73.8, 140.0, 20.0),
                (96.0, 0.0096, 80.0, 110.0, 25.0, 74.0, 139.0, 25.0)),
               (9.8940368970e01, 1.0945879335e-02, 1.0069553078e02, 1.1163619459e02, 2.3300500029e01,
                7.3705031418e01, 1.4776164251e02, 1.9668221230e01),
               (5.3005192833e-01, 1.2554058911e-04, 8.1256587317e-01, 3.5317859757e-01, 3.6584783023e-01,
                1.2091239082e00, 4.0488183351e-01, 3.7806634336e-01), 1.2444846360e03),
    Regression("Misra1c", _misra1c, *data.MISRA, ((500.0, 1e-4), (600.0, 2e-4)),
               (6.3642725809e02, 2.0813627256e-04), (4.6638326572e00, 1.7728423155e-06), 4.0966836971e-02),
    Regression("Misra1d", _misra1d, *data.MISRA, ((500.0, 1e-4), (450.0, 3e-4)),
               (4.3736970754e02, 3.0227324449e-04), (3.6489174345e00, 2.9334354479e-06), 5.6419295283e-02),
    Regression("Roszman1", _roszman1, *data.ROSZMAN1,
               ((0.1, -0.00001, 1000.0, -100.0), (0.2, -0.000005, 1200.0, -150.0)),
               (2.0196866396e-01, -6.1953516256e-06, 1.2044556708e03, -1.8134269537e02),
               (1.9172666023e-02, 3.2058931691e-06, 7.4050983057e01, 4.9573513849e01), 4.9484847331e-04),
    Regression("ENSO", _enso, *data.ENSO,
               ((11.0, 3.0, 0.5, 40.0, -0.7, -1.3, 25.0, -0.3, 1.4),
                (10.0, 3.0, 0.5, 44.0, -1.5, 0.5, 26.0, -0.1, 1.5)),
               (1.0510749193e01, 3.0762128085e00, 5.3280138227e-01, 4.4311088700e01, -1.6231428586e00,
                5.2554493756e-01, 2.6887614440e01, 2.1232288488e-01, 1.4966870418e00),
               (1.7488832467e-01, 2.4310052139e-01, 2.4354686618e-01, 9.4408025976e-01, 2.8078369611e-01,
                4.8073701119e-01, 4.1612939130e-01, 5.1460022911e-01, 2.5434468893e-01), 7.8853978668e02),
    Regression("MGH09", _mgh09, *data.MGH09, ((25.0, 39.0, 41.5, 39.0), (0.25, 0.39, 0.415, 0.39)),
               (1.9280693458e-01, 1.9128232873e-01, 1.2305650693e-01, 1.3606233068e-01),
               (1.1435312227e-02, 1.9633220911e-01, 8.0842031232e-02, 9.0025542308e-02), 3.0750560385e-04),
    Regression("Thurber", _cubics, *data.THURBER,
               ((1000.0, 1000.0, 400.0, 40.0, 0.7, 0.3, 0.03), (1300.0, 1500.0, 500.0, 75.0, 1.0, 0.4, 0.05)),
               (1.2881396800e03, 1.4910792535e03, 5.8323836877e02, 7.5416644291e01, 9.6629502864e-01,
                3.9797285797e-01, 4.9727297349e-02),
               (4.6647963344e00, 3.9571156086e01, 2.8698696102e01, 5.5675370270e00, 3.1333340687e-02,
                1.4984928198e-02, 6.5842344623e-03), 5.6427082397e03),
    Regression("BoxBOD", _saturation, *data.BOXBOD, ((1.0, 1.0), (100.0, 0.75)),
               (2.1380940889e02, 5.4723748542e-01), (1.2354515176e01, 1.0455993237e-01), 1.1680088766e03),
    Regression("Rat42", _rat42, *data.RAT42, ((100.0, 1.0, 0.1), (75.0, 2.5, 0.07)),
               (7.2462237576e01, 2.6180768402e00, 6.7359200066e-02),
               (1.7340283401e00, 8.8295217536e-02, 3.4465663377e-03), 8.0565229338e00),
    Regression("MGH10", _mgh10, *data.MGH10, ((2.0, 400000.0, 25000.0), (0.02, 4000.0, 250.0)),
               (5.6096364710e-03, 6.1813463463e03, 3.4522363462e02),
               (1.5687892471e-04, 2.3309021107e01, 7.8486103508e-01), 8.7945855171e01),
    Regression("Eckerle4", _eckerle4, *data.ECKERLE4, ((1.0, 10.0, 500.0), (1.5, 5.0, 450.0)),
               (1.5543827178e00, 4.0888321754e00, 4.5154121844e02),
               (1.5408051163e-02, 4.6803020753e-02, 4.6800518816e-02), 1.4635887487e-03),
    Regression("Rat43", _rat43, *data.RAT43, ((100.0, 10.0, 1.0, 1.0), (700.0, 5.0, 0.75, 1.3)),
               (6.9964151270e02, 5.2771253025e00, 7.5962938329e-01, 1.2792483859e00),
               (1.6302297817e01, 2.0828735829e00, 1.9566123451e-01, 6.8761936385e-01), 8.7864049080e03),
    Regression("Bennett5", _bennett5, *data.BENNETT5, ((-2000.0, 50.0, 0.8), (-1500.0, 45.0, 0.85)),
               (-2.5235058043e03, 4.6736564644e01, 9.3218483193e-01),
               (2.9715175411e02, 1.2448871856e00, 2.0272299378e-02), 5.2404744073e-04),
)
# fmt: on
