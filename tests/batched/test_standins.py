"""The stand-ins give what pandas gives: every expression is run on the real object, and on the stand-in in a jit."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

jax = pytest.importorskip("jax", reason="the batched engine needs jax, which a plain install has not")

import jax.numpy as jnp  # noqa: E402

from parfit.batched.tracing.standins import Opaque, Row  # noqa: E402
from parfit.batched.tracing.untraceable import Untraceable  # noqa: E402
from tests.batched.expressions import FULL, NUMPY, evaluate, lines, traced  # noqa: E402

FLAT = pd.Series([3.0, -1.5, np.nan, 4.0, 0.5], index=list("abcde"))
YEARS = pd.Series(
    np.arange(1.0, 7.0), index=pd.MultiIndex.from_product([["2000", "2010"], ["x", "y", "z"]], names=["year", "age"])
)
NUMBERED = pd.Series([5.0, 6.0, 7.0], index=[2, 0, 1])
TWICE = pd.Series([1.0, 2.0, 3.0], index=["a", "b", "a"])


ON_ANY_ROW = """
    r.sum() ; r.mean() ; r.std() ; r.std(ddof=0) ; r.var() ; r.min() ; r.max() ; r.prod() ; r.median() ; r.count()
    r.sum(skipna=False) ; r.mean(skipna=False) ; r.max(skipna=False) ; r.median(skipna=False) ; r.sem()
    r.quantile(0.3) ; r.cumsum() ; r.cumprod() ; r.cummax() ; r.cummin() ; r.diff() ; r.diff(2) ; r.shift(-1)
    r.abs() ; abs(r) ; -r ; +r ; round(r / 3, 2) ; r.round(1) ; r.clip(0, 3) ; r.clip(lower=1.0) ; r.clip(upper=1.0)
    r + 1 ; 1 - r ; r * 2.5 ; 2 / r ; r // 2 ; r % 2 ; abs(r) ** 0.5 ; 2**r ; r > 1 ; r <= 1 ; r == 4.0 ; r != 4.0
    (r > 1).sum() ; (r > 1).mean() ; (r > 1).any() ; (r > 1).all() ; (r > 0) & (r < 3) ; (r > 3) | (r < 0) ; ~(r > 1)
    r.add(1) ; r.rsub(1) ; r.mul(2) ; r.div(2) ; r.pow(2) ; r.gt(1) ; r.between(0, 3) ; r.isna() ; r.notna()
    r.fillna(0) ; r.fillna(0).dot(r.fillna(1)) ; r.fillna(0) @ r.fillna(1) ; r.where(r > 1, 0.0) ; r.astype(float)
    r.to_numpy() ; r.values ; r.to_numpy(dtype=float) ; r.size ; r.shape ; r.ndim ; r.empty ; len(r)
    list(r) ; r.to_list() ; r.tolist() ; r.copy() ; r.T ; [v for _, v in r.items()] ; [v * 2 for v in r]
    r.to_numpy() * r ; np.arange(len(r)) * r ; r * np.arange(len(r)) ; np.float64(2) * r ; list(range(len(r))) + r
    np.exp(r) ; np.sqrt(np.abs(r)) ; np.maximum(r, 1.0) ; np.sum(r) ; np.mean(r) ; np.std(r) ; np.var(r) ; np.max(r)
    np.min(r) ; np.prod(r) ; np.median(r) ; np.where(r > 1, r, 0.0) ; np.cumsum(r) ; np.clip(r, 0, 2) ; np.round(r, 1)
    np.dot(r.fillna(0), r.fillna(0)) ; np.ones((2, len(r))) @ r.fillna(0) ; np.add.reduce(r.fillna(0))
    np.concatenate([r, r]) ; np.diff(r) ; np.nansum(r) ; np.isnan(r) ; np.linalg.norm(r.fillna(0)) ; np.average(r)
    r.iloc[0] ; r.iloc[-1] ; r.iloc[1:] ; r.iloc[[0, 1]] ; r.iat[1] ; r.head(2) ; r.tail(1) ; r.reset_index(drop=True)
    r.pipe(np.sum) ; r.argmax() ; r.fillna(0).argmin() ; r.iloc[::-1] ; r.iloc[:0].sum() ; r.iloc[:0].mean()
"""
ON_LABELS = """
    r["a"] ; r[["c", "a"]] ; r.a ; r.e ; r.loc["b"] ; r.loc[["b"]] ; r.loc["b":"d"] ; r["b":"d"] ; r[1:3] ; r.at["b"]
    r.loc[r.index != "a"] ; r[np.array([True, False, True, False, True])] ; r.drop("a") ; r.drop(["a", "c"])
    r.get("a") ; r.get("z", 7.0) ; r.reindex(["c", "z", "a"]) ; r.reindex(["c", "z"], fill_value=0.0)
    r.keys() == r.index ; "a" in r ; "z" in r ; r.to_dict()["b"] ; r.filter(like="a") ; r.rename({"a": "z"})
    r.add_suffix("1") ; r.set_axis(list("vwxyz")) ; r.xs("a") ; r.loc[lambda s: s.index > "b"] ; r.sort_index()
    r * other ; other * r ; r - other.to_numpy() ; r + rest ; rest * r ; r.fillna(0) @ other ; r * r.iloc[::-1]
    r["a"] * r["b"] ; r["a"] * r ; np.hypot(r, other) ; r.where(r > 0, other) ; r[["a", "b"]] * r[["b", "a"]]
    np.multiply(other, r) ; r.clip(other * 0, other) ; r[r.index.isin(["a", "b"])] ; r.truncate("b", "c")
"""
ON_LEVELS = """
    r["2000"] ; r["2000", "x"] ; r["2000"]["x"] ; r.loc["2010"] ; r.loc["2010", "y"] ; r.loc[("2010", "y")]
    r.loc[:, "x"] ; r.loc[["2000"]] ; r.xs("x", level="age") ; r["2010"] - r["2000"] ; r["2000"].sum() ; "2000" in r
    r.loc[("2000", slice(None))] ; r.droplevel("year") ; r["2000"].to_numpy()[1:] ; (r["2010"] / r["2000"])["y"]
    r.loc[(slice(None), ["x", "z"])] ; r.drop("2000") ; r["2000"].iloc[1:] ; r[("2000", "x"):("2010", "x")]
"""
ON_NUMBERS = "r[0] ; r[2] ; r[1:] ; r.loc[0] ; r.iloc[0] ; r.loc[[2, 1]] ; r[:-1] ; r.reset_index(drop=True)[0]"
ON_DOUBLES = 'r["a"] ; r["b"] ; r[["a"]] ; r.iloc[2] ; r.sum() ; r * r ; r.loc["a"].sum()'


def check_row(expression, series, numpy=NUMPY):
    want = evaluate(expression, r=series)
    got, *index = traced(expression, "r", lambda v: Row(series.index, v), series.to_numpy(), numpy=numpy)
    if isinstance(want, pd.Series):
        pd.testing.assert_index_equal(index[0], want.index, check_names=False)
    np.testing.assert_allclose(np.asarray(got, float), np.asarray(want, float), rtol=1e-12)


@pytest.mark.parametrize("expression", lines(ON_ANY_ROW))
@pytest.mark.parametrize("series", [FLAT, FULL, YEARS], ids=["missing", "full", "levels"])
def test_row(expression, series):
    with np.errstate(all="ignore"):
        check_row(expression, series)


@pytest.mark.parametrize("expression", [expression for expression in lines(ON_ANY_ROW) if "np." in expression])
def test_numpy_itself(expression):
    # A helper of somebody else's may call NumPy on a stand-in: its protocols lead to the same.
    check_row(expression, FULL, numpy=np)


@pytest.mark.parametrize(
    ("expression", "series"),
    [
        *((expression, series) for expression in lines(ON_LABELS) for series in (FLAT, FULL)),
        *((expression, YEARS) for expression in lines(ON_LEVELS)),
        *((expression, NUMBERED) for expression in lines(ON_NUMBERS)),
        *((expression, TWICE) for expression in lines(ON_DOUBLES)),
    ],
)
def test_labels(expression, series):
    check_row(expression, series)


@pytest.mark.parametrize(
    ("expression", "error"),
    [
        ('r["z"]', KeyError),
        ('r.loc["z"]', KeyError),
        ('r[["a", "z"]]', KeyError),
        ('r.drop("z")', KeyError),
        ("r.iloc[9]", IndexError),
        ("r.nothing", AttributeError),
        ("bool(r)", ValueError),
        ("float(r)", TypeError),
        ("hash(r)", TypeError),
        ("r == other", ValueError),
        ("r.dot(rest)", ValueError),
        ("r.sum(axis=1)", ValueError),
    ],
)
def test_row_refuses_what_pandas_refuses(expression, error):
    with pytest.raises(error):
        evaluate(expression, r=FULL)
    with pytest.raises(error):
        traced(expression, "r", lambda v: Row(FULL.index, v), FULL.to_numpy())


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("r.name", "it is a label, which is no number"),
        ("r.apply(abs)", "Series.apply"),
        ("r.dropna()", "how many entries are left"),
        ("r.plot()", "cannot draw"),
        ("r[r > 1]", "selected by computed values"),
        ("r.loc[r > 1]", "selected by computed values"),
        ('r.__setitem__("a", 1.0)', "assigned to"),
        ('r.loc.__setitem__("a", 1.0)', "assigned to"),
        ('r == "text"', "str cannot be compiled"),
        ("r + np.ones(2)", "shape|length|broadcast"),
        ("r.sum(min_count=3)", "min_count"),
        ("np.asarray(r)", "NumPy cannot read"),
        ("pd.isna(r)", "NumPy cannot read"),
        ("np.busday_count(r, r)", "no counterpart"),
    ],
)
def test_row_says_what_cannot_be_compiled(expression, words):
    with pytest.raises(TypeError, match=words):
        traced(expression, "r", lambda v: Row(FULL.index, v), FULL.to_numpy(), numpy=np)


MIXED = pd.Series(["Autauga", 2.0, 3.0, pd.Timestamp("2010-01-01")], index=["name", "x", "y", "when"])


def mixed(values):
    return Row(MIXED.index, values, frozenset({0, 3}))


@pytest.mark.parametrize("expression", lines('r["x"] * r["y"] ; r[["x", "y"]].sum() ; r.drop(["name", "when"]).mean()'))
def test_entries_beside_text(expression):
    want = evaluate(expression, r=MIXED)
    got, *_ = traced(expression, "r", mixed, np.array([0, 2.0, 3.0, 0]))
    np.testing.assert_allclose(got, want)


@pytest.mark.parametrize(
    "expression", lines('r["name"] ; r.sum() ; r.to_numpy() ; r * 2 ; list(r) ; r[["x", "when"]] + 1')
)
def test_text_is_refused(expression):
    with pytest.raises(Untraceable, match=r"'(name|when)' is read, and it is no number"):
        traced(expression, "r", mixed, np.array([0, 2.0, 3.0, 0]))


def test_opaque():
    text = Opaque("'Autauga' in the data")
    for use in (lambda: text + "x", lambda: text == "x", lambda: str(text), lambda: text.upper(), lambda: bool(text)):
        with pytest.raises(Untraceable, match="'Autauga' in the data is used"):
            use()


def test_scalar_times_row_keeps_the_labels():
    with jax.enable_x64(True):
        got = jax.jit(lambda a, v: (a * Row(FULL.index, v))["b"] + (a > Row(FULL.index, v))["b"])(2.0, FULL.to_numpy())
    assert float(got) == -2.0


def test_jax_takes_a_row():
    with jax.enable_x64(True):
        row = Row(FULL.index, jnp.asarray(FULL.to_numpy()))
        np.testing.assert_array_equal(jnp.asarray(row), FULL)
        np.testing.assert_array_equal(jnp.stack([row, row]), [FULL, FULL])
