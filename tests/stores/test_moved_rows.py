"""Datasets that are inserted, removed or put in another order: what was fitted is found again wherever it stands."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
import warnings

import numpy as np
import pandas as pd
import pytest
from pandas.testing import assert_frame_equal, assert_index_equal

import parfit
from parfit import InvalidInputError, StoreMismatchError
from parfit.fitting.worker import fit_one
from parfit.stores.reading import read_store
from tests.scripts import parfit_path

T = np.linspace(0, 4, 15)
START = {"height": 1.0, "rate": 1.0}


def decays(n: int = 12, seed: int = 3) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    clean = rng.uniform(1, 3, (n, 1)) * np.exp(-rng.uniform(0.3, 1, (n, 1)) * T)
    return pd.DataFrame(clean + 0.01 * rng.normal(size=clean.shape), index=[f"r{seed}.{i}" for i in range(n)])


def residuals(p, row):
    return p["height"] * np.exp(-p["rate"] * T) - np.asarray(row)


def drawing(p, row):
    """One whose value depends on the random numbers of its dataset."""
    return residuals(p, row) + 1e-3 * np.random.normal()  # noqa: NPY002


def drawing_in_python(p, row):
    return residuals(p, row) + 1e-3 * random.gauss(0, 1)


def cost(p, row):
    return float(np.sum(residuals(p, row) ** 2))


def fit(data, file, objective=residuals, x0=START, **more):
    """The fits, and how many datasets were fitted."""
    told = []
    if more.setdefault("engine", "rows") == "rows":
        more.setdefault("executor", "serial")
    fits = parfit.fit(data, objective, x0, store=file, progress=lambda done, total: told.append(done), **more)
    fresh = told[-1] - (told[0] - 1) if told else 0
    return fits, fresh


def assert_same_table(a, b):
    assert_index_equal(a.labels, b.labels)
    assert_frame_equal(a.params, b.params, check_exact=True)
    assert_frame_equal(a.stderr, b.stderr, check_exact=True)
    drop = ["seconds", "attempts"]
    assert_frame_equal(a.summary.drop(columns=drop), b.summary.drop(columns=drop), check_exact=True)
    assert_frame_equal(a.errors.drop(columns="traceback"), b.errors.drop(columns="traceback"))


@pytest.fixture(params=["rows", "batch"])
def engine(request):
    if request.param == "batch":
        pytest.importorskip("jax")
    return request.param


@pytest.fixture
def file(tmp_path):
    return tmp_path / "fits.db"


def starts_in(file):
    """The start of each row, by its position."""
    return {p: s for rows in read_store(file).rows for p, s in zip(rows.positions.tolist(), rows.starts, strict=True)}


def inserted(frame):
    return pd.concat([frame.iloc[:3], decays(2, seed=5), frame.iloc[3:]])


CHANGES = {
    "inserted": (inserted, 2),
    "removed": (lambda frame: frame.drop(frame.index[[0, 4]]), 0),
    "reversed": (lambda frame: frame.iloc[::-1], 0),
    "shuffled": (lambda frame: frame.sample(frac=1, random_state=0), 0),
    "all of it": (lambda frame: inserted(frame.iloc[::-1].drop(frame.index[1])), 2),
}


@pytest.mark.parametrize(("change", "new"), CHANGES.values(), ids=CHANGES)
def test_what_was_fitted_is_found_wherever_it_stands(engine, file, tmp_path, change, new):
    fit(decays(), file, engine=engine)
    data = change(decays())
    found, fresh = fit(data, file, engine=engine)
    assert (found.labels == data.index).all()
    if engine == "rows":
        assert fresh == new
    whole, _ = fit(data, tmp_path / "whole.db", engine=engine)
    assert_same_table(found, whole)
    assert_same_table(parfit.open_store(file), whole)
    again, fresh = fit(data, file, engine=engine)
    assert fresh <= (engine == "batch")  # a batch of none is none
    assert_frame_equal(again.summary, found.summary)  # seconds too


def test_groups_of_unequal_length_have_the_same_bits_wherever_they_stand(engine, file, tmp_path):
    rng = np.random.default_rng(0)
    lengths = {"a": 3, "b": 40, "c": 5, "d": 9, "e": 70}
    frame = pd.concat(
        [pd.DataFrame({"g": g, "t": rng.uniform(0, 4, m), "y": rng.uniform(1, 2, m)}) for g, m in lengths.items()]
    )

    def objective(p, group):
        return p["height"] * np.exp(-p["rate"] * group["t"].to_numpy()) - group["y"].to_numpy()

    fit(frame[frame["g"] != "b"].groupby("g"), file, objective, engine=engine)
    found, fresh = fit(frame.groupby("g"), file, objective, engine=engine)
    assert fresh == 1
    assert_same_table(found, fit(frame.groupby("g"), tmp_path / "whole.db", objective, engine=engine)[0])


@pytest.mark.parametrize(
    "kind", [lambda v: v, list, lambda v: (v, np.ones(len(v)))], ids=["array", "list", "tree of arrays"]
)
def test_where_the_label_is_the_position_it_does_not_count(file, tmp_path, kind):
    values = decays().to_numpy()
    objective = (lambda p, d: residuals(p, d[0])) if kind(values).__class__ is tuple else residuals
    fit(kind(values), file, objective)
    data = np.vstack([decays(1, seed=5).to_numpy(), values[1:][::-1]])
    found, fresh = fit(kind(data), file, objective)
    assert fresh == 1
    assert_same_table(found, fit(kind(data), tmp_path / "whole.db", objective)[0])


def test_a_label_that_the_objective_can_see_counts(file, tmp_path):
    frame = decays().reset_index(drop=True)

    def objective(p, row):
        return residuals(p, row) * (1 + row.name)

    fit(frame, file, objective)
    data = frame.iloc[1:].reset_index(drop=True)  # the same numbers under other names
    data.loc[len(data)] = frame.iloc[0]
    data.iloc[3] = frame.iloc[3]  # so that one is the same
    found, fresh = fit(data, file, objective)
    assert fresh == 11
    assert_same_table(found, fit(data, tmp_path / "whole.db", objective)[0])


@pytest.mark.parametrize(
    "more",
    [
        {"objective": drawing},
        {"objective": drawing_in_python},
        {"objective": cost, "method": "spsa", "options": {"maxiter": 30}},
        {
            "objective": cost,
            "method": "differential_evolution",
            "bounds": {"height": (0, 4), "rate": (0, 2)},
            "options": {"maxiter": 3},
        },
        {"x0": lambda row: {"height": 1 + 0.1 * np.random.uniform(), "rate": 1.0}},  # noqa: NPY002
    ],
    ids=["numpy", "random", "spsa", "differential_evolution", "start"],
)
def test_what_used_the_random_numbers_of_its_position_is_fitted_again_elsewhere(file, tmp_path, more):
    first, _ = fit(decays(6), file, **more)
    data = pd.concat([decays(6).iloc[:2], decays(1, seed=5), decays(6).iloc[2:]])
    found, fresh = fit(data, file, **more)
    assert fresh == 5
    assert_same_table(found, fit(data, tmp_path / "whole.db", **more)[0])
    back, fresh = fit(decays(6), file, **more)  # where each was at first
    assert fresh == 0
    assert_frame_equal(back.summary, first.summary)


def test_rows_that_were_moved_do_not_take_the_place_of_others(file, tmp_path):
    """One that used random numbers keeps the position that these came from, though it stands elsewhere in the file."""
    fit(decays(3), file, drawing)
    fit(pd.concat([decays(1, seed=5), decays(3).iloc[1:]]), file, drawing)  # the first is moved behind the table
    data = pd.concat([decays(3).iloc[[1]], decays(3).iloc[[2]], decays(1, seed=5), decays(3).iloc[[0]]])
    found, _ = fit(data, file, drawing)
    assert_same_table(found, fit(data, tmp_path / "whole.db", drawing)[0])


def test_an_error_is_found_at_its_position_only(file):
    """It may have drawn before; and whoever mends the cause wants it fitted again."""

    def failing(p, row):
        if row.name == "r3.4":
            raise ValueError("no data")
        return residuals(p, row)

    fit(decays(), file, failing)
    assert fit(decays(), file, failing)[1] == 0
    found, fresh = fit(decays().iloc[1:], file, failing)
    assert fresh == 1
    assert found.errors.index.tolist() == [3]


def test_equal_datasets_each_have_their_own(file):
    data = decays(4).iloc[[0, 1, 1, 1, 2]]
    first, _ = fit(data, file)
    found, fresh = fit(data.iloc[[1, 2, 3, 0, 4]], file)
    assert fresh == 0
    assert sorted(found.summary["seconds"]) == sorted(first.summary["seconds"])
    _, fresh = fit(data.iloc[[1, 2, 3, 3, 0, 4]], file)
    assert fresh == 1
    assert fit(data, file)[1] == 0


def test_a_warm_start_is_from_the_old_solution_of_the_same_label(engine, file):
    fit(decays(), file, engine=engine)
    data = inserted(decays())
    data.loc["r3.7"] *= 1.001
    old = parfit.open_store(file).params.loc["r3.7"]
    fit(data, file, engine=engine, warm_start=True)
    of = starts_in(file)
    np.testing.assert_array_equal(of[list(data.index).index("r3.7")], old)
    np.testing.assert_array_equal(of[3], [1.0, 1.0])  # a new one has no old solution
    np.testing.assert_array_equal(of[0], [1.0, 1.0])


def test_a_warm_start_is_else_from_the_same_position(file):
    values = decays().to_numpy(copy=True)
    first, _ = fit(values, file)
    values[4] *= 1.001
    fit(values, file, warm_start=True)
    of = starts_in(file)
    np.testing.assert_array_equal(of[4], first.params.iloc[4])
    frame = decays()
    renamed = frame.rename(index={"r3.4": "another"})
    other = file.with_name("other.db")
    first, _ = fit(frame, other)
    fit(renamed, other, warm_start=True)
    of = starts_in(other)
    np.testing.assert_array_equal(of[4], first.params.iloc[4])


def test_what_has_changed_starts_where_all_do_without_a_warm_start(engine, file):
    fit(decays(), file, engine=engine)
    changed = decays()
    changed.loc["r3.5"] *= 1.1
    fit(changed, file, engine=engine)
    np.testing.assert_array_equal(starts_in(file)[5], [1.0, 1.0])


@pytest.mark.parametrize("x0", [lambda row: {"height": float(np.asarray(row)[0]), "rate": 0.7}], ids=["callable"])
def test_the_start_of_each_row_is_in_the_file(engine, file, x0):
    data = decays()
    fit(data, file, x0=x0, engine=engine)
    of = starts_in(file)
    for i in range(len(data)):
        np.testing.assert_array_equal(of[i], [data.iloc[i, 0], 0.7])


def test_rows_of_no_dataset_stay_for_a_call_that_has_them(file):
    first, _ = fit(decays(), file)
    _, fresh = fit(decays().iloc[[7, 2]], file)
    assert fresh == 0
    assert len(parfit.open_store(file)) == 2
    changed = decays()
    changed.loc["r3.5"] *= 1.1
    fit(changed.iloc[3:8], file)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("parfit.stores.sqlite._BLOCKS", 0)  # what is gathered is all of it
        fit(decays(4, seed=5).iloc[:0], file)
        fit(pd.concat([changed.iloc[[5]], decays(1, seed=5)]), file)
    found, fresh = fit(decays(), file)
    assert fresh == 0
    assert_frame_equal(found.summary, first.summary)


def test_what_has_changed_is_not_shown_until_it_is_fitted(file, monkeypatch):
    fit(decays(), file)
    changed = decays()
    changed.loc["r3.5"] *= 1.1
    seen = []

    def looking(state, task):
        seen.append(parfit.open_store(file).status["r3.5"])
        return fit_one(state, task)

    monkeypatch.setattr("parfit.fitting.call.fit_one", looking)
    fit(changed, file)
    assert seen == ["not_run"]


def test_none_of_the_data_is_refused_though_it_used_random_numbers(file):
    fit(decays(3), file, drawing)
    with pytest.raises(StoreMismatchError, match="other data"):
        fit(decays(3, seed=5), file, drawing)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert fit(decays(3).iloc[1:], file, drawing)[1] == 2  # the same data, at other positions


def test_starts_and_bounds_of_each_row_count_and_are_in_the_file(engine, file):
    data = decays()
    x0 = pd.DataFrame({"height": np.linspace(1, 2, 12), "rate": 0.7}, index=data.index)
    x0.iloc[5, 0] = np.nan  # one that cannot be fitted
    lower = pd.DataFrame({"height": 0.0, "rate": 0.0}, index=data.index)
    lower.iloc[2, 1] = 0.7
    upper = lower + 4
    upper.iloc[2, 1] = 0.7  # one whose rate stays
    first, _ = fit(data, file, x0=x0, bounds=(lower, upper), engine=engine)
    assert first.status.tolist().count("invalid") == 1
    of = starts_in(file)
    for i in set(range(12)) - {5}:
        np.testing.assert_array_equal(of[i], x0.iloc[i])
    other = x0.copy()
    other.iloc[7, 1] = 0.8
    order = data.index[::-1]
    bounds = (lower.loc[order], upper.loc[order])
    found, _ = fit(data.loc[order], file, x0=other.loc[order], bounds=bounds, engine=engine)
    changed = (found.summary.loc[data.index, "seconds"] != first.summary["seconds"]).to_numpy()
    assert changed.nonzero()[0].tolist() == [7]


def test_which_kind_the_objective_is_of_is_not_written_as_an_error(file):
    """The first dataset decides whether scalars or residuals are wanted, and which is the first may change."""

    def objective(p, row):
        r = residuals(p, row)
        return r if row.name != "r3.0" else float(r @ r)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        first, _ = fit(decays(4), file, objective, method="L-BFGS-B")
        found, fresh = fit(decays(4).iloc[1:], file, objective, method="L-BFGS-B")
    assert first.success.tolist() == [True, False, False, False]
    assert found.success.all()
    assert fresh == 0


def test_rows_that_are_kept_for_other_calls_are_of_one_engine(file):
    pytest.importorskip("jax")
    x0 = lambda row: {"height": 1 + 0.1 * np.random.uniform(), "rate": 1.0}  # noqa: E731, NPY002
    fit(decays(4), file, x0=x0, engine="rows")
    with pytest.raises(StoreMismatchError, match="holds fits of engine 'rows'"):
        fit(decays(4).iloc[1:], file, x0=x0, engine="batch")
    assert fit(decays(4), file, x0=x0, engine="rows")[1] == 0


def cubic(p, row):
    """Solved from a start near the solution."""
    return np.array([p["m"] ** 3 + p["m"] - np.asarray(row)[0]])


def doubled(p, row):
    return np.array([p["m"] - 2 * row["m"]])


@pytest.mark.parametrize("kind", ["frame", "array", "bounds"])
def test_data_count_where_the_start_or_a_bound_of_each_row_is_equal_to_them(file, kind):
    def call(values, store):
        frame = pd.DataFrame({"m": np.asarray(values, dtype=float)})
        if kind == "bounds":
            return fit(frame, store, doubled, {"m": 45.0}, bounds=(frame, 50.0))
        data = frame.rename(columns={"m": "y"}) if kind == "frame" else frame.to_numpy()
        return fit(data, store, cubic, frame)

    call([1, 2, 3], file)
    found, fresh = call([1, 3, 2, 7], file)
    assert fresh == (3 if kind != "array" else 1)  # what moved has another label, where that is shown
    np.testing.assert_array_equal(found.params, call([1, 3, 2, 7], None)[0].params)


def test_data_count_where_labels_are_equal_to_them(file):
    frame = pd.DataFrame({"y": range(5)})
    fit(frame, file, cubic, {"m": 1.0})
    found, fresh = fit(frame.iloc[::-1], file, cubic, {"m": 1.0})
    assert fresh == 0
    np.testing.assert_array_equal(found.params, fit(frame.iloc[::-1], None, cubic, {"m": 1.0})[0].params)


@pytest.mark.parametrize(
    ("change", "new"),
    {
        "drop": (lambda frame: frame.drop(index=7), 0),
        "shuffle": (lambda frame: frame.sample(frac=1, random_state=0), 0),
        "mask": (lambda frame: frame[frame[0] > 2], 0),
        "append": (lambda frame: pd.concat([frame, decays(5, seed=8).set_axis(range(12, 17))]), 5),
        "another index of integers": (lambda frame: frame.set_axis(pd.Index(list(range(12)), dtype="int32")), 0),
        "nullable": (lambda frame: frame.set_axis(pd.Index(list(range(12)), dtype="Int64")), 0),
        "objects": (lambda frame: frame.set_axis(pd.Index(list(range(12)), dtype=object)), 0),
    }.values(),
)
def test_rows_under_the_usual_index_are_found_again_when_it_is_no_range_any_more(file, change, new):
    frame = decays().reset_index(drop=True)
    fit(frame, file)
    assert fit(change(frame), file)[1] == new


LABELS_OF_ANOTHER_PROCESS = """
import sys
import numpy as np
import pandas as pd
import parfit

class Key:
    def __init__(self, n):
        self.n = n
    def __eq__(self, other):
        return self.n == other.n
    def __hash__(self):
        return hash(self.n)

def line(p, row):
    return (p["m"] - row["y"]) ** 2

labels = np.empty(6, dtype=object)
labels[:] = [frozenset({"ab", "cd", "ef"}), frozenset({"x", "y"}), Key(1), Key(2), (Key(3), np.int64(1)), "text"]
data = pd.DataFrame({"y": range(6)}, index=pd.Index(labels, tupleize_cols=False))
told = []
parfit.fit(
    data, line, {"m": 0.0}, store=sys.argv[1], executor="serial", engine="rows", progress=lambda *n: told.append(n)
)
print(told[-1][0] - told[0][0] + 1 if told else 0)
"""


def test_labels_whose_text_has_an_address_or_the_order_of_a_set_are_the_same_in_another_process(file):
    found = []
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONPATH": parfit_path(), "PYTHONHASHSEED": seed}
        call = [sys.executable, "-c", LABELS_OF_ANOTHER_PROCESS, str(file)]
        ran = subprocess.run(call, env=environment, capture_output=True, text=True, check=True)
        found.append(int(ran.stdout))
    assert found == [6, 0]


def test_data_of_another_type_are_fitted_again(file):
    """A square that does not fit into its type is another one."""

    def objective(p, row):
        return (p["m"] - float(row["a"] * row["a"])) ** 2

    frame = pd.DataFrame({"a": [20, 30]})
    fit(frame, file, objective, {"m": 0.0})
    with pytest.raises(StoreMismatchError, match="other data"):
        fit(frame.astype("int8"), file, objective, {"m": 0.0})


def test_data_in_which_a_change_would_go_unnoticed_are_refused_by_name(file):
    data = {"a": {"y": 1.0}, "b": {"y": 2.0, "lock": threading.Lock()}}

    def objective(p, dataset):
        return (p["m"] - dataset["y"]) ** 2

    with pytest.raises(InvalidInputError, match=r"dataset 'b': a _thread.lock cannot be looked into"):
        fit(data, file, objective, {"m": 0.0})
    assert fit(data, None, objective, {"m": 0.0})[0].success.all()
