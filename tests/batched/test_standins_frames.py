"""The stand-ins of a group and of a table of parameters give what pandas gives, padding or not."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

jax = pytest.importorskip("jax", reason="the batched engine needs jax, which a plain install has not")

import jax.numpy as jnp  # noqa: E402

from parfit.batched.tracing.standins import Column, Group, Padded, Row, Table, unwrap  # noqa: E402
from parfit.batched.tracing.standins.vector import StandIn  # noqa: E402
from parfit.batched.tracing.untraceable import Untraceable  # noqa: E402
from tests.batched.expressions import evaluate, lines, traced  # noqa: E402

GROUPS = {
    "long": pd.DataFrame({"x": [0.5, 1.0, 2.0, 4.0], "y": [3.0, 1.0, np.nan, 2.0]}, index=[4, 7, 8, 9]),
    "short": pd.DataFrame({"x": [1.5, 3.0], "y": [2.0, 5.0]}, index=[1, 2]),
    "middle": pd.DataFrame({"x": [-1.0, 0.0, 1.0], "y": [0.0, 1.0, 4.0]}, index=[3, 5, 6]),
}
LENGTH = 4
PARAMS = pd.DataFrame(
    {"value": [1.0, 2.5, -3.0], "lower_bound": [0.0, 0.0, -5.0], "kind": ["rate", "rate", "level"]},
    index=["a", "b", "c"],
)

ON_COLUMNS = """
    g["y"].sum() ; g["y"].mean() ; g["x"].std() ; g["x"].var() ; g["x"].min() ; g["y"].max() ; g["x"].prod()
    g["x"].median() ; g["y"].median() ; g["y"].quantile(0.7) ; g["y"].sum(skipna=False) ; g["y"].count()
    g["x"].dot(g["y"].fillna(0)) ; g["x"] @ g["x"] ; (g["y"] - 2 * g["x"]).sum()
    (g["y"] - g["x"].mean()).abs().max() ; ((g.y - g.x) ** 2).mean() ; g["x"].iloc[0] ; g["x"].iloc[-1]
    g["x"].iloc[-2] ; g["x"].iloc[1:].sum() ; g["x"].iloc[:-1].sum() ; g["x"].iloc[-2:].sum() ; g["x"].iloc[::2].sum()
    g["x"].iloc[1:-1].sum() ; g["x"].tail(1).sum() ; g["x"].diff().sum() ; g["x"].diff(-1).sum()
    g["x"].shift(-1).sum() ; g["x"].cumsum().max() ; g["x"].head(2).sum() ; (g["x"] > 1).sum() ; (g["x"] > 1).mean()
    (g["x"] > -9).all() ; (g["x"] > 9).any() ; g["x"].argmax() ; g["x"].argmin() ; np.sum(g["y"]) ; np.mean(g["y"])
    np.std(g["x"]) ; np.median(g["x"]) ; np.max(g["x"]) ; np.sum(np.exp(g["x"])) ; np.sum(g["x"].to_numpy() ** 2)
    g["x"].to_numpy().mean() ; g["x"].values.std() ; np.mean(g["x"].values * 2)
    np.sum(np.where(g["x"] > 1, g["x"], 0.0)) ; np.nansum(g["y"]) ; np.nanmean(g["y"].values) ; np.ptp(g["x"])
    np.average(g["x"], weights=g["x"] + 2) ; np.average(g["x"]) ; np.linalg.norm(g["x"])
    np.linalg.norm(g["x"], ord=1) ; np.dot(g["x"], g["x"]) ; np.dot(g["x"].values, g["x"].values)
    g["x"].values @ g["x"].values ; np.percentile(g["x"], 20) ; np.sum(np.diff(g["x"]))
    np.trapezoid(g["x"] + 1, g["x"]) ; np.trapezoid(g["x"].values, dx=0.5) ; g["x"].values[-1]
    np.count_nonzero(g["x"] > 1) ; np.sum(g["x"].values[1:]) ; np.sum(g["x"].values[:-1])
    np.sum(np.zeros_like(g["x"]) + 1) ; np.concatenate([g["x"], g["x"]]).sum() ; np.sum(np.asarray(g["x"] * 1))
    np.max(np.abs(g["x"].to_numpy())) ; g.mean()["x"] ; g[["x"]].std()["x"] ; g.sum()["y"] ; g.iloc[0]["x"]
    g.iloc[-1]["y"] ; g.iloc[0, 1] ; g.iloc[1, 0] ; g.loc[:, "x"].sum() ; g.iloc[:, 0].sum() ; g.iloc[1:, 0].sum()
    g.iloc[1:]["x"].sum() ; g[1:]["x"].sum() ; g.x.sum() ; g.reset_index(drop=True).loc[0, "x"]
    g.reset_index(drop=True)["x"][1] ; g["x"].reset_index(drop=True)[0] ; g.drop(columns="y").sum()["x"]
    g.drop("y", axis=1)["x"].sum() ; "x" in g ; "z" in g ; len(g.columns) ; list(g) == ["x", "y"] ; g.get("x").sum()
    g.get("z", 5) ; g.tail(1)["x"].sum() ; g.head(1)["x"].sum() ; g.loc[:, ["x"]]["x"].sum()
    (g["x"].iloc[1:] * 2 - g["x"].iloc[1:]).sum() ; (g["x"].values[1:] - g["x"].values[:-1]).sum()
"""
ROW_BY_ROW = """
    g["y"] - 2 * g["x"] ; g["y"].to_numpy() - np.exp(-g["x"].to_numpy()) ; g["x"] ** 2 ; np.sin(g["x"])
    g["y"] - g["y"].mean() ; np.where(g["x"] > 1, 0.0, g["x"]) ; g["x"].cumsum() ; (2 * g["x"]).values
    g.to_numpy() @ np.array([1.0, 2.0]) ; g["x"] ; np.clip(g["x"], 0, 1) ; g["x"].values.ravel() ; g["x"].diff()
    np.sqrt(g["x"] ** 2) * g["x"].to_numpy() ; g["x"].to_numpy() * g["x"] ; g[["x", "y"]].to_numpy()[:, 0]
    g.values[:, 1]
"""


def padded_group(x, y, n):
    mask = jnp.arange(LENGTH) < n
    return Group({"x": Column(x, mask), "y": Column(y, mask)}, pd.Index(["x", "y"]), mask)


def padded(frame):
    # Padding is what ruins every sum that it gets into.
    return [np.append(frame[c].to_numpy(), np.full(LENGTH - len(frame), 1e3)) for c in ("x", "y")] + [len(frame)]


@pytest.mark.parametrize("expression", lines(ON_COLUMNS))
@pytest.mark.parametrize("frame", GROUPS.values(), ids=GROUPS)
def test_padded_group(expression, frame):
    want = evaluate(expression, g=frame)
    got, *_ = traced(expression, "g", padded_group, *padded(frame))
    np.testing.assert_allclose(got, np.asarray(want, float), rtol=1e-12)


@pytest.mark.parametrize("expression", lines(ROW_BY_ROW))
@pytest.mark.parametrize("frame", GROUPS.values(), ids=GROUPS)
def test_padded_rows(expression, frame):
    want = evaluate(expression, g=frame)
    got, *_ = traced(expression, "g", padded_group, *padded(frame))
    values, mask = got if isinstance(got, tuple) else (got, np.arange(LENGTH) < len(frame))
    np.testing.assert_allclose(values[mask], want, rtol=1e-12)


@pytest.mark.parametrize("expression", [*lines(ON_COLUMNS), *lines(ROW_BY_ROW)])
def test_group_without_padding(expression):
    frame = GROUPS["long"]
    want = evaluate(expression, g=frame)
    make = lambda x, y: Group({"x": Column(x), "y": Column(y)}, frame.columns)  # noqa: E731
    got, *_ = traced(expression, "g", make, *(frame[c].to_numpy() for c in "xy"))
    np.testing.assert_allclose(got, np.asarray(want, float), rtol=1e-12)


@pytest.mark.parametrize(
    "expression", lines('len(g) ; len(g["x"]) ; g["x"].size ; g.shape ; list(g["x"]) ; g["x"].shape')
)
def test_length(expression):
    frame = GROUPS["long"]
    with pytest.raises(Untraceable, match="unequal lengths"):
        traced(expression, "g", padded_group, *padded(frame))
    make = lambda x, y: Group({"x": Column(x), "y": Column(y)}, frame.columns)  # noqa: E731
    got, *_ = traced(expression, "g", make, *(frame[c].to_numpy() for c in "xy"))
    np.testing.assert_array_equal(got, evaluate(expression, g=frame))


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ('g["x"][4]', "labels differ from group to group"),
        ('g.loc[4, "x"]', "labels differ from group to group"),
        ("g.index", "DataFrame.index"),
        ('g["x"].index', "Series.index"),
        ('g[g["x"] > 1]', "computed values"),
        ('g["x"][g["x"] > 1]', "computed values"),
        ('g["x"].values[g["x"].values > 1]', "computed values"),
        ('g["x"].iloc[1:] - g["x"].iloc[:-1]', "aligns them by labels"),
        ('g["x"] * pd.Series([1.0, 2.0])', "labels of its own"),
        ('g["x"] * g.iloc[0]', "cannot be aligned"),
        ("len(g['x'].values)", "unequal lengths"),
        ("g['x'].values.shape", "unequal lengths"),
        ("g.apply(np.sum)", "DataFrame.apply"),
        ('g.__setitem__("z", 1)', "assigned to"),
        ('g["x"].__setitem__(0, 1)', "assigned to"),
        ("np.asarray(g)", "NumPy cannot read"),
    ],
)
def test_group_says_what_cannot_be_compiled(expression, words):
    with pytest.raises(Untraceable, match=words):
        traced(expression, "g", padded_group, *padded(GROUPS["short"]), numpy=np)


def test_columns_of_text():
    frame = pd.DataFrame({"x": [1.0, 2.0], "site": ["a", "b"]})

    def make(x):
        return Group({"x": Column(x)}, frame.columns)

    x = frame["x"].to_numpy()
    for expression in ('g["x"].sum()', 'g[["x"]].sum()["x"]', 'g.iloc[0]["x"]', "g.iloc[1:]['x'].sum()"):
        assert traced(expression, "g", make, x)[0] == evaluate(expression, g=frame)
    for expression in ('g["site"]', "g.site.sum()", "g.sum()", "g.to_numpy()", 'g.iloc[0]["site"]'):
        with pytest.raises(Untraceable, match=r"'site' is read, and it (holds no numbers|is no number)"):
            traced(expression, "g", make, x)


def test_columns_of_two_levels():
    frame = pd.DataFrame(
        np.arange(6.0).reshape(2, 3), columns=pd.MultiIndex.from_tuples([("a", "x"), ("a", "y"), ("b", "x")])
    )
    arrays = [frame.iloc[:, i].to_numpy() for i in range(3)]
    for expression in ('g["a"]["y"].sum()', 'g["a", "x"].sum()', 'g.loc[:, ("b", "x")].iloc[0]'):
        got, *_ = traced(expression, "g", lambda *columns: Group([Column(c) for c in columns], frame.columns), *arrays)
        assert got == evaluate(expression, g=frame)


ON_TABLES = """
    p["value"]["a"] ; p.loc["a", "value"] ; p.at["b", "value"] ; p.value["c"] ; p.value.a ; p["value"].sum()
    p.iloc[0, 0] ; p.loc["a"]["value"] ; p.loc["a"]["lower_bound"] ; p.loc[["a", "b"], "value"]
    p.loc["a":"b", "value"].sum() ; p["value"] ; p.loc[p["kind"] == "rate", "value"].sum()
    p[["value", "lower_bound"]]["value"].sum() ; p["lower_bound"].sum() ; p.loc[["a", "b"]]["value"]
    p.query("kind == 'level'")["value"].sum() ; len(p) ; "value" in p ; list(p) == list(p.columns)
    p["value"] - p["lower_bound"] ; p["value"].to_numpy() ; p.value.values ; [r["value"] for _, r in p.iterrows()]
    p.iat[1, 0] ; p.xs("a")["value"] ; p.get("value").sum() ; p["value"].to_dict()["b"]
    p.loc["a", ["value", "lower_bound"]] ; p.shape ; (p.index == "a").sum() ; p.head(1)["value"]
    p.drop("a")["value"] ; [v.iloc[0] for k, v in p.items() if k == "value"]
"""


@pytest.mark.parametrize("expression", lines(ON_TABLES))
def test_table(expression):
    want = evaluate(expression, p=PARAMS)
    got, *index = traced(expression, "p", lambda v: Table(PARAMS, v), PARAMS["value"].to_numpy())
    if isinstance(want, pd.Series):
        pd.testing.assert_index_equal(index[0], want.index)
    np.testing.assert_allclose(np.asarray(got, float), np.asarray(want, float))


@pytest.mark.parametrize(
    ("expression", "error"),
    [
        ('p["z"]', KeyError),
        ('p.loc["z", "value"]', KeyError),
        ("p.nothing", AttributeError),
        ("p.groupby('kind')", Untraceable),
        ('p.__setitem__("value", 1)', Untraceable),
        ("np.asarray(p)", Untraceable),
    ],
)
def test_table_refuses(expression, error):
    with pytest.raises(error):
        traced(expression, "p", lambda v: Table(PARAMS, v), PARAMS["value"].to_numpy())


def test_gradients_pass_padding_and_missing_values_by():
    def cost(v):
        column = Column(v, jnp.array([True, True, False]))
        return column.sum() + column.std() + column.median() + column.max() + Row(pd.Index(list("abc")), v).sum()

    with jax.enable_x64(True):
        gradient = jax.grad(cost)(jnp.array([1.0, 2.0, jnp.nan]))
    assert np.isfinite(gradient[:2]).all()


def test_results():
    with jax.enable_x64(True):
        mask = jnp.array([True, False])
        values, found = unwrap(Column(jnp.ones(2), mask) * 2)
        assert found is mask
        np.testing.assert_array_equal(values, [2.0, 2.0])
        assert isinstance(Column(jnp.ones(2), mask).to_numpy(), Padded)
        assert isinstance(Column(jnp.ones(2)).to_numpy(), jax.Array)
        assert unwrap(3.0) == (3.0, None)
        assert all(issubclass(kind, StandIn) for kind in (Row, Column, Group, Table))
