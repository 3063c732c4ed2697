"""Small models of subscripts, vectors, macros, data, times and XMILE: the second part of `constructs`."""

from __future__ import annotations

from tests.mdl.compiled.constructs import Construct, vensim

__all__ = ["ARRAYS"]

ARRAYS: dict[str, Construct] = {}

ARRAYS["subscripts"] = Construct(
    """
    FINAL TIME = 1.5
    region: north, south, west -> town
    coast: north, south
    age: young, old
    town: (t1-t3)
    twin <-> region
    k = 2
    weights[region] = 1, 2, 4
    table[region, age] = 1, 2; 3, 4; 5, 6;
    people[region, age] = INTEG(table[region, age] - people[region, age] / k, weights[region] * 10)
    ships[coast] = INTEG(k - ships[coast] / 8, 3)
    parts[north] = INTEG(k, 1)
    parts[south] = INTEG(k * 2 - parts[south] / 3, 2)
    parts[west] = INTEG(parts[north] / 5, k)
    element[north] = k * 2
    element[south] = weights[west] + Time
    element[west] = people[west, old]
    ranges[coast] = weights[coast] * ships[coast]
    ranges[west] = k
    except[region] :EXCEPT: [south] = weights[region] * k
    except[south] = 7 + ships[south]
    turned[age, region] = people[region, age] * 2
    crossed[region, twin] = weights[region] / weights[twin] + k
    mapped[town] = weights[region] * k + Time + town
    truths[north] = k < 2.5
    truths[south] = people[south, old] > 5
    truths[west] = 2.5
    powers[region] = whole numbers[region]^-1
    whole numbers[north] = 1
    whole numbers[south] = 2
    whole numbers[west] = 4
    number[region] = region * k
    first only[region] = IF THEN ELSE(region = north, k, weights[region])
    where[region, age] = IF THEN ELSE(people[region, age] > weights[region] * 8, people[region, age], k)
    cube[region, age, town] = table[region, age] * mapped[town] + k
    column[region] = table[region, old] + people[region, young]
    whole = SUM(people[region!, age!])
    by age[age] = SUM(people[region!, age!]) * 0 + SUM(people[region!, age])
    by region[region] = SUM(table[region, age!] * k) + SUM(cube[region, age!, town!])
    multiplied = PROD(weights[region!] * k) + PROD(table[coast!, old])
    smallest[age] = VMIN(people[region!, age]) + VMIN(table[region!, age!])
    largest[region] = VMAX(people[region, age!]) - VMAX(weights[region!])
    of a subrange = SUM(weights[coast!] * ships[coast!])
    rest[age] = MAX(by age[age], 20) - MIN(people[south, age], k) + ABS(-table[west, age])
    elements = ELMCOUNT(region) + ELMCOUNT(age) * k
    tabbed[region] = TABBED ARRAY(1 2.5 4)
    logic[region] = IF THEN ELSE(weights[region] > 1 :AND: Time > 1 :AND: :NOT: weights[region] > 3, 1, 0)
    """,
    (
        {"k": 3, "weights": [2, 1, 5]},
        {"k": 2.4, "weights": [1.2, 2.3, 3.9]},
    ),
    (1.0, {"people": [[1, 2], [3, 40], [5, 60]], "ships": [1.5, 2.5], "parts": [1, 2, 3]}),
    ("k", "weights", "people", "ships", "parts"),
)

_SELECTS = "\n".join(
    f"select {n}[town] = VECTOR SELECT(chosen[town, region!], value[region!], missing, {n}, 0)" for n in range(11)
)
_ONES = "\n".join(f"total {n} = VECTOR SELECT(own[region!], value[region!], missing, {n}, 0)" for n in (0, 4, 5, 9))
ARRAYS["vectors"] = Construct(
    f"""
    FINAL TIME = 1
    region: r1, r2, r3, r4
    town: t1, t2, t3
    missing = -99
    start[region] = 3, 1, 4, 1.5
    value[region] = INTEG(start[region] / 3 - value[region] / 5, start[region])
    chosen[town, region] = 0, 1, 2, 0; 0, 0, 0, 0; 1, 1, 1, 1;
    own[region] = IF THEN ELSE(start[region] > 1.2, 1, 0)
    none = VECTOR SELECT(own[region!] * 0, value[region!], missing, 3, 0)
    one error = VECTOR SELECT(chosen[t1, region!], value[region!], missing, 0, 1)
    way = 1
    order[region] = VECTOR SORT ORDER(value[region], way)
    backward[region] = VECTOR SORT ORDER(value[region], -way)
    rank[region] = VECTOR RANK(value[region], way)
    rank backward[region] = VECTOR RANK(value[region], -way)
    reordered[region] = VECTOR REORDER(value[region], order[region])
    table[town, region] = 4, 3, 2, 1; 1, 5, 2, 6; 9, 7, 8, 5;
    moved[town, region] = table[town, region] * value[region] + chosen[town, region]
    orders[town, region] = VECTOR SORT ORDER(moved[town, region], way)
    ranks[town, region] = VECTOR RANK(moved[town, region], 0)
    reorders[town, region] = VECTOR REORDER(moved[town, region], orders[town, region])
    {_SELECTS}
    {_ONES}
    """,
    (
        {"missing": 0, "start": [3, 1, 4, 2], "way": 1},
        {"missing": 5.5, "start": [2.1, 1.7, 0.6, 4.3], "way": -1},
    ),
    (1.0, {"value": [1, 2.5, 3, 2]}),
    ("missing", "start", "value"),
)

ARRAYS["inverted matrices"] = Construct(
    """
    FINAL TIME = 1.5
    row: a1, a2, a3
    column <-> row
    layer: l1, l2
    k = 0.5
    matrix[row, column] = 4, 1, 0; 1, 5, 2; 0, 2, 6;
    level = INTEG(k, 1)
    moving[row, column] = matrix[row, column] + level * 0.1
    inverse[row, column] = INVERT MATRIX(moving[row, column], 3)
    constant[row, column] = INVERT MATRIX(matrix[row, column], 3)
    layers[layer, row, column] = moving[row, column] * layer
    inverses[layer, row, column] = INVERT MATRIX(layers[layer, row, column], 3)
    """,
    ({"k": 1, "matrix": [[2, 1, 0], [1, 3, 1], [0, 1, 4]]}, {"k": 0.7, "matrix": [[5, 0, 1], [1, 4, 1], [2, 1, 7]]}),
    (1.0, {"level": 2}),
    ("k", "level", "matrix"),
)

_MACROS = """:MACRO: BUFFER(inflow, hold)
BUFFER = INTEG(inflow - BUFFER / hold, inflow * hold * shape(hold))
	~
	~
	|
shape((0,1),(10,1),(20,2))
	~
	~
	|
:END OF MACRO:
:MACRO: TWICE(x, hold)
TWICE = half * 2
	~
	~
	|
half = BUFFER(x, hold) + factor
	~
	~
	|
factor = 0.5
	~
	~
	|
:END OF MACRO:
:MACRO: AREA(w, h)
AREA = w * h + SMOOTH(w, 2)
	~
	~
	|
:END OF MACRO:
"""
ARRAYS["macros"] = Construct(
    vensim(
        """
        tap = 2
        waiting = 4
        pool = INTEG(tap + Time - held / 5, 1)
        held = BUFFER(tap, waiting)
        held too = BUFFER(pool, waiting / 2)
        sum = BUFFER(tap, 3) + BUFFER(held, waiting) * 2
        nested = TWICE(pool, waiting)
        nested too = TWICE(held, waiting + 1)
        area = AREA(pool, tap)
        """,
        before=_MACROS,
    ),
    ({"tap": 3, "waiting": 12.5}, {"tap": 1.3, "waiting": 5.2}),
    (1.0, {"pool": 2.5}),
    ("tap", "waiting", "pool"),
)

_RAIN = "Time,rain,held,ahead\n0,4,1,2\n1,6,3,1\n2.5,5,2,7\n4,0,8,9\n"
_RAW = "Time,raw\n" + "".join(f"{t / 2},{t * t % 7}\n" for t in range(9))
_SHEET = "day,dew,late,scale,table\n0,1,4,2,0.5\n2,3,1,3,1.5\n4,2,7,,1.0\n"
ARRAYS["data"] = Construct(
    """
    region: north, south
    k = 1
    level = INTEG(rain + held - ahead + dew * scale - table(Time), 10)
    rain:INTERPOLATE:
    held:HOLD BACKWARD:
    ahead:LOOK FORWARD:
    raw:RAW:
    dew:HOLD BACKWARD: := GET DIRECT DATA('sheet.csv', ',', 'A', 'B2')
    late:LOOK FORWARD: := GET DIRECT DATA('sheet.csv', ',', 'A', 'C2')
    straight:INTERPOLATE: := GET DIRECT DATA('sheet.csv', ',', 'A', 'B2')
    plain := GET DIRECT DATA('sheet.csv', ',', 'A', 'C2')
    each[north] := GET DIRECT DATA('sheet.csv', ',', 'A', 'B2')
    each[south] := GET DIRECT DATA('sheet.csv', ',', 'A', 'C2')
    together[region] := GET DIRECT DATA('sheet.csv', ',', 'A', 'B2')
    across[region] = GET DIRECT CONSTANTS('sheet.csv', ',', 'B2')
    down[region] = GET DIRECT CONSTANTS('sheet.csv', ',', 'B2*')
    curves[region] = GET DIRECT LOOKUPS('sheet.csv', ',', 'A', 'B2')
    scale = GET DIRECT CONSTANTS('sheet.csv', ',', 'D2')
    scales[north] = GET DIRECT CONSTANTS('sheet.csv', ',', 'D2')
    scales[south] = GET DIRECT CONSTANTS('sheet.csv', ',', 'D3')
    table = GET DIRECT LOOKUPS('sheet.csv', ',', 'A', 'E2')
    read = table(level) + rain * k + raw
    of each[region] = each[region] * scales[region] + k + together[region] * across[region]
    of curves[region] = curves[region](level / 4) + down[region]
    """,
    ({"k": 2, "scale": 5, "scales": [1, 4]}, {"k": 1.5, "scale": 0.3, "scales": [2.5, 1.5]}),
    (1.0, {"level": 3}),
    ("k", "scale", "scales", "level"),
    files={"rain.csv": _RAIN, "raw.csv": _RAW, "sheet.csv": _SHEET},
    data_files=("rain.csv", "raw.csv"),
)

ARRAYS["times that are computed"] = Construct(
    """
    parts = 4
    span = 3
    k = 1
    INITIAL TIME = 1
    FINAL TIME = 1 + span
    TIME STEP = 1 / parts
    SAVEPER = TIME STEP * 2
    level = INTEG(k + STEP(1, INITIAL TIME + 1) - level / 5, FINAL TIME)
    left = FINAL TIME - Time
    steps = (Time - INITIAL TIME) / TIME STEP + SAVEPER * k
    """,
    ({"parts": 2, "span": 4, "k": 2}, {"parts": 8, "span": 2, "k": 1.5}),
    (1.0, {"level": 2}),
    ("k", "level"),
)

ARRAYS["an initial time that is computed"] = Construct(
    """
    early = 3
    k = 2
    INITIAL TIME = early - 2
    level = INTEG(k - level / 5, INITIAL TIME * 2)
    since = Time - INITIAL TIME + STEP(k, INITIAL TIME + 1)
    """,
    ({"early": 2, "k": 1}, {"early": 2.5, "k": 1.5}),
    (2.0, {"level": 2}),
    ("k", "level"),
)

ARRAYS["times that depend on time"] = Construct(
    """
    k = 1
    TIME STEP = IF THEN ELSE(Time < 2, 0.25, 0.5)
    SAVEPER = IF THEN ELSE(Time < 1, 0.5, 1)
    FINAL TIME = 4 + STEP(1, 3)
    level = INTEG(k + STEP(1, 2) - level / 5, 1)
    pulsed = PULSE(1, 1) + PULSE(3, 0)
    late = DELAY FIXED(level, 1, k)
    """,
    ({"k": 2}, {"k": 1.5}),
    (1.0, {"level": 2}),
    ("k", "level"),
)

ARRAYS["no constants"] = Construct("level = INTEG(-level / 3, 5)", initial=(1.0, {"level": 2}), along=("level",))

ARRAYS["no stocks"] = Construct(
    "a = 2\nwave = a * SIN(Time)\nfixed = a * 3",
    ({"a": 1}, {"a": 0.5}),
    along=("a",),
)

_VIEWS = """\\\\\\---/// Sketch information - do not modify anything except names
V300  Do not put anything below this section - it will be ignored
*First
$192-192-192,0,Times New Roman|12||0-0-0|0-0-0|0-0-255|-1--1--1|-1--1--1|96,96,100,0
10,1,level,100,100,40,20,3,3,0,0,0,0,0,0
10,2,k,200,100,40,20,8,3,0,0,0,0,0,0
\\\\\\---/// Sketch information - do not modify anything except names
V300  Do not put anything below this section - it will be ignored
*Second
$192-192-192,0,Times New Roman|12||0-0-0|0-0-0|0-0-255|-1--1--1|-1--1--1|96,96,100,0
10,1,smoothed,100,100,40,20,8,3,0,0,0,0,0,0
10,2,table,200,100,40,20,8,3,0,0,0,0,0,0
///---\\\\\\
"""
ARRAYS["views in files of their own"] = Construct(
    vensim(
        """
        region: north, south
        k = 2
        level[region] = INTEG(k - table(level[region]), 5)
        smoothed[region] = SMOOTH(level[region], k)
        table((0,0),(10,4))
        """,
        after=_VIEWS,
    ),
    ({"k": 3}, {"k": 1.5}),
    (1.0, {"level": [2, 4]}),
    ("k", "level"),
    options={"split_views": True},
)


def _xmile(variables: str, specs: str = "") -> str:
    return f"""<?xml version="1.0" encoding="utf-8"?>
<xmile version="1.0" xmlns="http://docs.oasis-open.org/xmile/ns/XMILE/v1.0">
<header><name>Small</name><vendor>parfit</vendor><product version="1.0" lang="en">parfit</product></header>
<sim_specs method="Euler" time_units="Months"><start>0</start><stop>4</stop><dt>0.5</dt></sim_specs>{specs}
<model><variables>{variables}</variables></model></xmile>"""


def _auxiliaries(equations: str) -> str:
    pairs = (line.strip().split(" = ", 1) for line in equations.strip().splitlines())
    escaped = ((name, text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")) for name, text in pairs)
    return "\n".join(f'<aux name="{name}"><eqn>{text}</eqn></aux>' for name, text in escaped)


_GF = '<gf type="{0}"><xpts>0,1,2.5,4</xpts><ypts>1,3,2,5</ypts></gf>'
ARRAYS["XMILE"] = Construct(
    _xmile(
        '<stock name="Level"><eqn>10</eqn><inflow>filling</inflow><outflow>draining</outflow></stock>'
        '<stock name="Cask"><eqn>3</eqn><inflow>a</inflow><outflow>draining</outflow><non_negative/></stock>'
        '<stock name="Still"><eqn>Level + a</eqn></stock>'
        '<stock name="Leaking"><eqn>5</eqn><outflow>filling</outflow><outflow>b</outflow></stock>'
        '<stock name="Tub"><dimensions><dim name="side"/></dimensions><eqn>2 * x</eqn><inflow>x</inflow>'
        "<outflow>Tub * Level / 3</outflow><non_negative/></stock>"
        '<flow name="filling"><eqn>a - TIME</eqn><non_negative/></flow>'
        '<flow name="draining"><eqn>Level / b</eqn></flow>'
        '<aux name="x"><dimensions><dim name="side"/></dimensions><element subscript="left"><eqn>1</eqn></element>'
        '<element subscript="right"><eqn>4</eqn></element></aux>'
        '<aux name="every_x"><dimensions><dim name="side"/></dimensions><eqn>x[side] * a + MAX(x[side], Level)</eqn>'
        '</aux><gf name="curve" type="continuous"><xpts>0,1,4</xpts><ypts>1,3,2</ypts></gf>'
        '<gf name="line" type="extrapolate"><xscale min="0" max="4"/><ypts>1,3,2</ypts></gf>'
        '<gf name="stair" type="discrete"><xpts>0,1,4</xpts><ypts>1,3,2</ypts></gf>'
        + "".join(
            f'<aux name="{kind}_at_{n}"><eqn>{at}</eqn>{_GF.format(kind)}</aux>'
            for kind in ("continuous", "extrapolate", "discrete")
            for n, at in enumerate(("TIME * 2 - 2", "Level / 3", "2.5", "a"))
        )
        + _auxiliaries(
            """
            a = 2.5
            b = 4
            tables = curve(Level / 3) + curve(TIME) + line(-a) + line(9) + stair(TIME - 0.5) + stair(a) + stair(9)
            one_pulse = PULSE(a, 1)
            pulses = PULSE(a, 0.5, 1.5) + PULSE(b, 1, 0)
            sloping = RAMP(a, 1) + RAMP(b, 1, 2)
            stair_up = STEP(a, 1.5)
            conditional = IF Level > 9 AND TIME < 3 OR NOT a = 2.5 THEN Level ELSE a
            remainder = INT(Level) + (Level mod b) + (TIME mod 1.5)
            divided = SAFEDIV(Level, a - 2.5) + SAFEDIV(Level, a - 2.5, 7) + SAFEDIV(Level, b, 1)
            extremes = MIN(x) + MAX(x) * MIN(a, Level) + MAX(a, b)
            totals = SUM(x[side!])
            first = INIT(Level * a)
            smooths = SMTH1(Level, b) + SMTH1(Level, b, a) + SMTH3(Level, b, a) + SMTH3(Level, b)
            smooth_often = SMTHN(Level, b, 2) + SMTHN(Level, b, 2, a)
            delays = DELAY1(Level, b) + DELAY1(Level, b, a) + DELAY3(Level, b) + DELAY3(Level, b, a)
            delay_often = DELAYN(Level, b, 2) + DELAYN(Level, b, 3, a)
            late = DELAY(Level, 1) + DELAY(Level, 1.5, a)
            trends = TREND(Level, b) + TREND(Level, b, 0.1)
            forecasts = FORCST(Level, b, 3) + FORCST(Level, b, 3, 0.1)
            numbers = ABS(-a) + EXP(-a) + LN(Level) + SQRT(a) + SIN(a) + COS(b) + TAN(a) + PI() * a
            turned = ARCTAN(a) + ARCSIN(1 / b) + ARCCOS(1 / b)
            powers = -a^2 + a^b / b - a - b * -2
            clock = TIME + TIME_STEP * a + FINAL_TIME
            """
        ),
        '<dimensions><dim name="side"><elem name="left"/><elem name="right"/></dim></dimensions>',
    ),
    ({"a": 3, "b": 5}, {"a": 2.7, "b": 3.6}),
    (1.0, {"Level": 8.7, "Leaking": 1, "Tub": [1, 3]}),
    ("a", "b", "Level", "Tub"),
)
