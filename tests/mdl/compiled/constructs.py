"""Small models that, with those of `arrays`, use every construct that PySD runs, and what is to be varied in each.

Equations stand one a line. A model is compared over all its variables, at its own values, with each set of `params`,
and from the start given as `initial`; `along` are the parameters and stocks with respect to which derivatives are
compared with central differences.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["CONSTRUCTS", "Construct", "vensim"]

_CONTROLS = {"FINAL TIME": "4", "INITIAL TIME": "0", "SAVEPER": "TIME STEP", "TIME STEP": "0.5"}


def vensim(equations: str, before: str = "", after: str = "") -> str:
    """An ``.mdl`` of equations, one a line; with the usual times, where the equations have no others."""
    lines = [line.strip() for line in equations.strip().splitlines()]
    lines += [f"{name} = {value}" for name, value in _CONTROLS.items() if not any(x.startswith(name) for x in lines)]
    return "{UTF-8}\n" + before + "\n".join(f"{line}\n\t~\n\t~\n\t|\n" for line in lines) + after


@dataclass(frozen=True)
class Construct:
    """A model, and how it is to be run.

    Attributes
    ----------
    text
        Equations, or a whole model where it begins with ``{`` or ``<``.
    params
        Two sets of values, for the same parameters.
    initial
        A time and the stocks that a run starts with there.
    along
        Parameters and stocks along which a derivative is taken, at the second set of `params`.
    jumps
        Variables that jump there, so that they have no derivative.
    files
        Name to text of what lies beside the model.
    data_files, options
        As `load_model` takes them.
    """

    text: str
    params: tuple[Mapping[str, Any], Mapping[str, Any]] = ({}, {})
    initial: tuple[float, Mapping[str, Any]] | None = None
    along: tuple[str, ...] = ()
    jumps: tuple[str, ...] = ()
    files: Mapping[str, str] = field(default_factory=dict)
    data_files: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def model(self) -> str:
        """The text of the model's file."""
        return self.text if self.text.lstrip()[0] in "{<" else vensim(self.text)

    @property
    def suffix(self) -> str:
        """The suffix of the model's file."""
        return ".xmile" if self.text.lstrip().startswith("<") else ".mdl"


CONSTRUCTS: dict[str, Construct] = {}

CONSTRUCTS["arithmetic and its precedence"] = Construct(
    """
    a = 2
    b = 3
    level = INTEG(a - level / 20, 10)
    sums = a + b * level - level / b
    negative power = -2^2
    negative power of a variable = -a^b
    power of a negative = (-a)^2
    chain of powers = a^b^0.5
    chain of numbers = 2^3^2
    to a negative power = level^-2
    differences = level - a - b - 1
    quotients = level / a / b / 2
    products and quotients = level * a / b * level / 7
    mixed = level - a * b / 2 + level / (a + b) * 3 - (a - (b - level))
    signs = 3 * -a + 2 - -b * +level
    powers and products = 2 * a^2 * 3^b / a^-1
    scientific = 1.5e-3 * level + .25 * a + 2.E2
    zeroth = level^0 + a^1
    whole == 7
    no number = IF THEN ELSE(level = :NA:, 1, level)
    "quoted: name" = whole * 3
    """,
    ({"a": 3, "b": 4.0}, {"a": 1.5, "b": 2.25}),
    (1.0, {"level": 7}),
    ("a", "b", "level"),
)

CONSTRUCTS["comparisons and logic"] = Construct(
    """
    a = 2
    b = 10.5
    level = INTEG(a - level / 20, 10)
    equal = IF THEN ELSE(a = 2, level, b)
    unequal = IF THEN ELSE(a <> 2, level, b)
    less = IF THEN ELSE(level < b, level, -level)
    at most = IF THEN ELSE(Time <= 2, level * a, b)
    more = IF THEN ELSE(level > b, level^2, 0)
    at least = IF THEN ELSE(Time >= 2, 1, level)
    both = IF THEN ELSE(level > b :AND: Time < 3, level, 0)
    either = IF THEN ELSE(level > b :OR: Time < 1, level, 0)
    neither = IF THEN ELSE(:NOT: level > b, level, a)
    three = IF THEN ELSE(level > b :AND: Time < 3 :AND: a = 2, 1, 2)
    mixture = IF THEN ELSE((level > b :OR: Time < 1) :AND: :NOT: (a = 2), 1, level)
    truth = level > b
    counted = (level > b) + (Time > 2) * level
    from a number = IF THEN ELSE(a - 2, level, b)
    nested = IF THEN ELSE(Time < 1, a, IF THEN ELSE(Time < 2, b, IF THEN ELSE(level > b, level, 0)))
    guarded = IF THEN ELSE(Time > 1, level / (Time - 1), 0) + IF THEN ELSE(Time > 0, LN(Time + 0.1 * a), 0)
    """,
    ({"a": 3, "b": 11}, {"a": 1.25, "b": 10.6}),
    (1.0, {"level": 10.9}),
    ("a", "b", "level"),
)

CONSTRUCTS["functions of numbers"] = Construct(
    """
    a = 0.4
    b = 0.7
    level = INTEG(a - level / 5, 1.3)
    moving = SIN(Time) * 2
    absolute = ABS(moving) + ABS(-a)
    least = MIN(moving, a) + MIN(MIN(a, b), level)
    most = MAX(moving, a) + MAX(MAX(a, b), level)
    exponential = EXP(-level) + EXP(a)
    logarithms = LN(level) + LOG(level, 10) + LOG(a, b)
    root = SQRT(level) + SQRT(a)
    raised = POWER(level, a) + POWER(2, 3)
    sines = SIN(level) + COS(a) + TAN(b)
    inverse = ARCSIN(a) + ARCCOS(b) + ARCTAN(level)
    hyperbolic = SINH(level) + COSH(a) + TANH(b)
    safe = ZIDZ(level, a - 0.4) + ZIDZ(level, moving) + ZIDZ(a, b)
    safer = XIDZ(level, a - 0.4, b) + XIDZ(level, moving, 5) + XIDZ(a, b, 1)
    barely zero = ZIDZ(a, 0.0000009) + XIDZ(a, -0.0000009, level) + XIDZ(a, 0.0000011, level)
    game = GAME(level * 2)
    kept = INITIAL(level * a)
    kept constant = INITIAL(b)
    begun = INTEG(b, kept + begun at)
    begun at = ACTIVE INITIAL(begun * 2 + level, a * 3)
    constant begun = ACTIVE INITIAL(a, 5)
    relative = GET TIME VALUE(0, a, 0)
    """,
    ({"a": 0.3, "b": 0.5}, {"a": 0.45, "b": 0.65}),
    (1.0, {"level": 1.9}),
    ("a", "b", "level"),
)

CONSTRUCTS["whole numbers"] = Construct(
    """
    a = 7
    b = 3
    thirds = INTEG(1 / 3, -1)
    cut = INTEGER(thirds) + INTEGER(-2.7) + INTEGER(a / b)
    exactly whole = INTEGER(a * b / b) + INTEGER((Time + 1) * 3 / 3)
    remainder = MODULO(a, b) + MODULO(Time, 1.5) + MODULO(-a, b) + MODULO(thirds, 0.5)
    quantised = QUANTUM(Time * 1.3, 0.5) + QUANTUM(-a, b) + QUANTUM(a, 0) + QUANTUM(thirds, 0.5)
    day of the week = MODULO(INTEGER(Time * 10 / a), 7)
    """,
    ({"a": 8.5, "b": 2}, {"a": 9.13, "b": 2.47}),
    (1.0, {"thirds": 0.21}),
    ("a", "b", "thirds"),
    jumps=("exactly_whole",),
)

CONSTRUCTS["pulses, steps and ramps"] = Construct(
    """
    begins = 1
    lasts = 1.5
    again = 1
    stops = 3
    height = 2
    one pulse = height * PULSE(begins, lasts)
    short pulse = PULSE(2, 0) + PULSE(2, TIME STEP)
    train = PULSE TRAIN(begins, 0.5, again, stops) * height
    moving train = PULSE TRAIN(0, lasts / 3, 1 + Time / 8, 10)
    no train = PULSE TRAIN(begins, lasts, 0, stops)
    stair = STEP(height, begins) + STEP(1, 2)
    slope = RAMP(height, begins, stops) + RAMP(0.5, 2, 9)
    level = INTEG(one pulse + train + stair - slope, 0)
    """,
    (
        {"begins": 0.5, "lasts": 0.5, "again": 1.5, "stops": 3.5, "height": 3},
        {"begins": 0.6, "lasts": 0.8, "again": 1.3, "stops": 3.1, "height": 0.7},
    ),
    (0.5, {"level": 2}),
    ("begins", "lasts", "again", "stops", "height", "level"),
)

_TABLE = "(0,1),(1,3),(2.5,2),(4,5)"
CONSTRUCTS["lookups"] = Construct(
    f"""
    FINAL TIME = 2
    region: north, south, west
    a = 2
    level = INTEG(a / 2, 0.25)
    table({_TABLE})
    limited([(0,0)-(10,10)],(0,1),(1,3),(2.5,2))
    each[north]((0,1),(2,3))
    each[south]((0,3),(1,1),(3,7))
    each[west]((-1,2),(5,8))
    same[region]((0,1),(1,4),(5,2))
    one point((1,5),(1.0000001,6))
    x[region] = 0.5, 1, 9
    in = WITH LOOKUP(level, ([(0,0)-(10,10)],{_TABLE}))
    called = table(level) + limited(a)
    below and above = table(-a) + table(a * 100) + limited(Time - 2)
    at the knots = table(0) + table(1) + table(2.5) + table(4) + table(a / 2)
    over time = table(Time)
    of each[region] = each[region](level)
    of each alone = each[south](level) + each[west](a)
    at each[region] = same[region](x[region] * level)
    one table at each[region] = table(x[region] + level)
    steep = one point(level)
    with each[region] = WITH LOOKUP(x[region] * a, ({_TABLE}))
    """,
    ({"a": 1.5, "x": [0.1, 0.2, 3.3]}, {"a": 1.17, "x": [0.7, 1.1, 2.2]}),
    (1.0, {"level": 0.31}),
    ("a", "level"),
    jumps=("at_the_knots",),
)

CONSTRUCTS["smooths, delays and trends"] = Construct(
    """
    wait = 2
    start = 3.5
    order = 4
    level = INTEG(given / 4 - level / 6, 5)
    given = 2 + STEP(3, 1) + SIN(Time) + level / 10
    varying wait = wait + Time / 3 + level / 20
    smooth once = SMOOTH(given, wait) + SMOOTH(given, varying wait)
    smooth from = SMOOTHI(given, wait, start)
    smooth thrice = SMOOTH3(given, wait)
    smooth thrice from = SMOOTH3I(given, wait * 1.5, start)
    smooth often = SMOOTH N(given, wait, start, order)
    delay once = DELAY1(given, wait) + DELAY1(given, varying wait)
    delay once from = DELAY1I(given, wait, start)
    delay thrice = DELAY3(given, wait) + DELAY3(given, varying wait)
    delay thrice from = DELAY3I(given, wait, start)
    delay often = DELAY N(given, wait, start, 3)
    delay often varying = DELAY N(given, varying wait, start, 2)
    short delay = DELAY3(given, 0.8)
    trend = TREND(given, wait, 0.1)
    trend of level = TREND(level, 3, start / 100)
    forecast = FORECAST(given, wait, 5)
    chain = SMOOTH(delay once, 1)
    """,
    ({"wait": 3, "start": 1}, {"wait": 2.3, "start": 2.2}),
    (1.0, {"level": 6.5}),
    ("wait", "start", "level"),
)

CONSTRUCTS["delays of arrays"] = Construct(
    """
    region: north, south
    wait[region] = 2, 3
    start[region] = 1, 5
    stock[region] = INTEG(given[region] - stock[region] / 4, start[region])
    given[region] = start[region] + SIN(Time) + stock[region] / 8
    smooth[region] = SMOOTH(given[region], wait[region])
    smooth thrice[region] = SMOOTH3I(given[region], wait[region], 2.5)
    delay[region] = DELAY3(given[region], wait[region])
    delay once[region] = DELAY1I(given[region], 2, start[region])
    delay often[region] = DELAY N(given[region], wait[region], start[region], 2)
    late[region] = DELAY FIXED(given[region], 1.5, start[region])
    sample[region] = SAMPLE IF TRUE(given[region] > 3, given[region], start[region])
    trend[region] = TREND(given[region], wait[region], 0)
    forecast[region] = FORECAST(given[region], 2, wait[region])
    kept[region] = INITIAL(given[region])
    """,
    ({"wait": [2.5, 1.5], "start": [2, 2]}, {"wait": [2.2, 3.1], "start": [1.3, 4.2]}),
    (1.0, {"stock": [3, 4.5]}),
    ("wait", "start", "stock"),
)

CONSTRUCTS["fixed delays and samples"] = Construct(
    """
    wait = 1
    start = 3
    limit = 4.1
    level = INTEG(given / 4 - level / 6, 5)
    given = 2 + Time^2 / 3 + level / 10
    late = DELAY FIXED(given, wait, start)
    at once = DELAY FIXED(given, 0, start)
    rounded = DELAY FIXED(level, 1.3 * wait, level)
    very late = DELAY FIXED(given, 100, start)
    later = DELAY FIXED(late, 1, 0)
    sampled = SAMPLE IF TRUE(given > limit, level, start)
    sampled now and then = SAMPLE IF TRUE(MODULO(Time, 1) = 0, level + given, start)
    never sampled = SAMPLE IF TRUE(Time < 0, level, limit)
    fed by both = INTEG(late - sampled / 10, 0)
    used[one] = late + level
    used[two] = sampled
    sides: one, two
    """,
    ({"wait": 2, "start": 1, "limit": 2}, {"wait": 1.6, "start": 2.2, "limit": 3.3}),
    (1.0, {"level": 6.5, "fed by both": 1}),
    ("wait", "start", "limit", "level"),
)
