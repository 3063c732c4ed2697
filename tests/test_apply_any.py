"""`apply_by_multiprocessing` against `DataFrame.apply` over frames, functions and slices of any kind."""

from __future__ import annotations

import datetime
import os
import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.apply_referee import check, set_size

N = 9
DATES = pd.Series(pd.date_range("2020", periods=40))
OBJECTS = [1, None, "x", [1, 2], {"k": 1}, 2.5, np.nan, datetime.date(2020, 1, 1), (1,)]

COLUMNS = {
    "int": lambda v: v,
    "float": lambda v: [x / 3 if x else np.nan for x in v],
    "float32": lambda v: np.array(v, dtype="float32"),
    "uint8": lambda v: np.abs(v).astype("uint8"),
    "bool": lambda v: [x > 0 for x in v],
    "complex": lambda v: [complex(x, 1) for x in v],
    "text": lambda v: [f"s{x}" for x in v],
    "string": lambda v: pd.array([f"s{x}" if x else None for x in v], dtype="string"),
    "nullable": lambda v: pd.array([x if x else None for x in v], dtype="Int64"),
    "category": lambda v: pd.Categorical([f"c{x}" for x in v]),
    "date": lambda v: [DATES[x + 5] if x else pd.NaT for x in v],
    "zone": lambda v: DATES[[x + 5 for x in v]].dt.tz_localize("Europe/Paris").array,
    "duration": lambda v: pd.to_timedelta(v, unit="h"),
    "interval": lambda v: pd.arrays.IntervalArray.from_breaks(range(len(v) + 1)),
    "period": lambda v: pd.period_range("2020", periods=len(v), freq="M").array,
    "object": lambda v: pd.Series([OBJECTS[x % len(OBJECTS)] for x in v], dtype=object),
}
INDEXES = {
    "range": lambda n: pd.RangeIndex(n),
    "every_second": lambda n: pd.RangeIndex(5, 5 + 2 * n, 2),
    "text": lambda n: pd.Index([f"r{i}" for i in range(n)], name="id"),
    "duplicates": lambda n: pd.Index(list("abababababab")[:n]),
    "dates": lambda n: pd.date_range("2020", periods=n, freq="D"),
    "two_levels": lambda n: pd.MultiIndex.from_tuples([(i // 2, "xy"[i % 2]) for i in range(n)], names=["p", None]),
    "objects": lambda n: pd.Index([(1, 2), None, "c", 4.5, np.nan, 6, 7, 8, 9][:n], tupleize_cols=False),
    "categories": lambda n: pd.CategoricalIndex(list("abcdefghi")[:n]),
}
HEADERS = {
    "numbers": lambda k: pd.RangeIndex(k),
    "text": lambda k: pd.Index(list("dcba")[:k], name="columns"),
    "one_name": lambda k: pd.Index(["a"] * k),
    "two_levels": lambda k: pd.MultiIndex.from_tuples([("u", i) for i in range(k)], names=["l", "m"]),
    "mixed": lambda k: pd.Index([0.5, "x", None, 3][:k], dtype=object),
}


def number(line):
    """Some number that depends on the line's name alone."""
    return sum(map(ord, repr(line.name)))


def now_and_then(line):
    if number(line) % 5 == 0:
        raise ValueError(f"no {line.name!r}")
    return 1


FUNCTIONS = {
    "line": lambda line: line,
    "name": lambda line: line.name,
    "dtype": lambda line: str(line.dtype),
    "first": lambda line: line.iloc[0],
    "part": lambda line: line.iloc[:1],
    "turned": lambda line: line.iloc[::-1],
    "list": list,
    "index": lambda line: line.index,
    "array": lambda line: line.to_numpy(),
    "missing": lambda line: line.isna(),
    "count": lambda line: int(line.notna().sum()),
    "text": lambda line: line.astype(str),
    "line_or_number": lambda line: line if number(line) % 3 else 5,
    "kinds": lambda line: [1, 2.5, None, "x", True, np.float64(1), pd.NA, [1], {"a": 1}, 2**70][number(line) % 10],
    "indexes": lambda line: pd.Series([1, 2], index=["a", "b"] if number(line) % 2 else ["b", "c"]),
    "ranges": lambda line: pd.Series([1, 2], index=[0, 1] if number(line) % 2 else None),
    "dtypes": lambda line: pd.Series([1, 2] if number(line) % 2 else [1.5, 2], index=["a", "b"], name="given"),
    "raises": now_and_then,
}


@st.composite
def frames(draw):
    n, k = draw(st.integers(1, N)), draw(st.integers(1, 4))
    kinds = draw(st.lists(st.sampled_from(sorted(COLUMNS)), min_size=k, max_size=k))
    if draw(st.booleans()):
        kinds = kinds[:1] * k
    values = [draw(st.lists(st.integers(-5, 5), min_size=n, max_size=n)) for _ in kinds]
    frame = pd.DataFrame({i: COLUMNS[kind](v) for i, (kind, v) in enumerate(zip(kinds, values, strict=True))})
    frame.columns = HEADERS[draw(st.sampled_from(sorted(HEADERS)))](k)
    frame.index = INDEXES[draw(st.sampled_from(sorted(INDEXES)))](n)
    return frame.copy() if draw(st.booleans()) else frame


EXAMPLES = settings(
    max_examples=int(os.environ.get("PARFIT_EXAMPLES", "150")),
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.generate],
)


@pytest.mark.parametrize("executor", ["serial", "processes"])
@EXAMPLES
@given(
    frame=frames(),
    name=st.sampled_from(sorted(FUNCTIONS)),
    size=st.integers(1, 5),
    axis=st.sampled_from([1, 1, 1, 0]),
    options=st.sampled_from([{}, {}, {"raw": True}, {"result_type": "expand"}, {"result_type": "reduce"}]),
)
def test_any_frame_any_function_any_slices(executor, monkeypatch, frame, name, size, axis, options):
    if options.get("raw"):
        name = name if name in ("line", "list") else "line"
    set_size(monkeypatch, size)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pandas 2 deprecates some of what is in these frames
        check(frame, FUNCTIONS[name], executor=executor, axis=axis, **options)


# ---- the last bit

RNG = np.random.default_rng(0)
VALUES = RNG.normal(size=(11, 37)) * 10.0 ** RNG.integers(-8, 8, size=(11, 37))
MATRIX = RNG.normal(size=(37, 37))


def column_by_column():
    frame = pd.DataFrame(index=range(11))
    for i in range(37):
        frame[i] = VALUES[:, i]
    return frame


def frame_of(values, **kwargs):
    return pd.DataFrame(values, **kwargs)


LAYOUTS = {
    "rows_in_one_piece": lambda: frame_of(VALUES, copy=False),
    "columns_in_one_piece": lambda: frame_of(np.asfortranarray(VALUES), copy=False),
    "as_pandas_likes_it": lambda: frame_of(VALUES),
    "turned_over": lambda: frame_of(VALUES.T.copy()).T,
    "every_second_row": lambda: frame_of(VALUES, copy=False).iloc[::2],
    "every_third_column": lambda: frame_of(VALUES, copy=False).iloc[:, ::3],
    "backwards": lambda: frame_of(VALUES, copy=False).iloc[::-1, ::-1],
    "one_row_of_many": lambda: frame_of(VALUES).iloc[5:6],
    "one_row_of_many_in_one_piece": lambda: frame_of(VALUES, copy=False).iloc[5:6],
    "two_rows_of_many": lambda: frame_of(VALUES, copy=False).iloc[5:7],
    "column_by_column": column_by_column,
    "with_whole_numbers": lambda: frame_of(VALUES).assign(n=range(11)),
    "single": lambda: frame_of(VALUES.astype("float32"), copy=False),
}


def of_products(line):
    v = np.asarray(line)
    m = MATRIX[: len(v), : len(v)]
    return [v @ v, np.linalg.norm(v), np.einsum("i,i", v, v), v.sum(), np.var(v), (m @ v).sum(), (v @ m).sum()]


@pytest.mark.parametrize("raw", [False, True])
@pytest.mark.parametrize("size", [1, 2, 4, 100])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_products_and_sums_have_the_same_bits_in_every_slice(layout, size, raw, monkeypatch):
    set_size(monkeypatch, size)
    frame = LAYOUTS[layout]()
    check(frame, of_products, raw=raw, executor="serial" if size > 1 else "processes")
    if layout != "with_whole_numbers":
        check(frame, of_products, raw=raw, executor="serial", axis=0)
