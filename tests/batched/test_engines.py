"""Which engine runs, and why: what can be compiled is, what cannot is told, what is asked for is done or refused."""

from __future__ import annotations

import importlib.util
import logging
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

import parfit
from tests.batched.decays import T, cost, decays, fit, residuals, table

pytest.importorskip("jax", reason="the batched engine needs jax")
import jax
import jax.numpy as jnp

pytestmark = pytest.mark.usefixtures("quickly_compiled")
DATA = decays(4)
CALLS: list[int] = []


def choice(objective: Any = residuals, data: Any = DATA, x0: Any = (1.0, 1.0), **given: Any) -> tuple[str, str]:
    """The engine that ``engine="auto"`` chose, and the reason."""
    fits = parfit.fit(data, objective, x0, workers=1, **given)
    assert fits.success.all()
    return fits.engine, fits.engine_reason


# ---- what is compiled


def with_jax(p: Any, row: Any) -> Any:
    return p[0] * jnp.exp(-p[1] * T) - row.to_numpy()


@jax.jit
def _inside(a: Any, b: Any, y: Any) -> Any:
    return a * jnp.exp(-b * T) - y


def cost_as_float(p: Any, row: Any) -> float:
    return float(cost(p, row))


@pytest.mark.parametrize(
    ("objective", "reason"),
    [
        (with_jax, "the objective was compiled"),
        (lambda p, row: _inside(p[0], p[1], row.to_numpy()), "the objective was compiled"),
        (residuals, "the objective was compiled, with its calls of NumPy as JAX's"),
        (cost, "the objective was compiled, with its calls of NumPy as JAX's"),
        (cost_as_float, "the objective was compiled, with its calls of NumPy as JAX's"),
    ],
    ids=["jax", "jit", "numpy", "scalar", "float"],
)
def test_what_can_be_compiled_is(objective: Any, reason: str) -> None:
    assert choice(objective) == ("batch", reason)


def test_what_was_asked_for_is_the_reason() -> None:
    assert fit(DATA).engine_reason == "engine='batch' was asked for"
    assert fit(DATA, engine="rows", executor="serial").engine_reason == "engine='rows' was asked for"


def test_one_record_of_the_choice_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="parfit"):
        choice()
    name = jax.default_backend()
    said = [record.getMessage() for record in caplog.records if record.name == "parfit"]
    assert said == [
        f"engine batch: the objective was compiled, with its calls of NumPy as JAX's; 4 datasets, lm on {name}"
    ]
    caplog.clear()
    with caplog.at_level(logging.INFO, logger="parfit"):
        choice(executor="serial")
    said = [record.getMessage() for record in caplog.records if record.name == "parfit"]
    assert said == [
        "engine rows: executor='serial' is for engine='rows' where it is no cluster; 4 datasets, executor serial"
    ]


# ---- what cannot be compiled


def branches(p: Any, row: Any) -> Any:
    return residuals(p, row) if p[0] > 0 else 1e3 * np.ones(len(T))


def assigns(p: Any, row: Any) -> Any:
    r = np.zeros(len(T))
    r[:] = residuals(p, row)
    return r


def as_integer(p: Any, row: Any) -> Any:
    return residuals(p, row) + 0 * int(p[0])


def prints(p: Any, row: Any) -> Any:
    print(end="")
    return residuals(p, row)


def counts_its_calls(p: Any, row: Any) -> Any:
    CALLS.append(1)
    return residuals(p, row)


def draws(p: Any, row: Any) -> Any:
    return residuals(p, row) + 0 * np.random.default_rng(1).normal()


def catches(p: Any, row: Any) -> Any:
    try:
        return residuals(p, row)
    except ValueError:
        return np.full(len(T), np.nan)


def reads_the_label(p: Any, row: Any) -> Any:
    return residuals(p, row) if row.name != "row 1" else 2 * residuals(p, row)


def leaves_numpy(p: Any, row: Any) -> Any:
    values = [float(v) for v in np.asarray(p).tolist()]
    return residuals(values, row)


UNTRACEABLE = {
    branches: "it branches on a value",
    assigns: "it assigns into an array",
    as_integer: "a value is used as a number of Python's",
    prints: "it calls print()",
    counts_its_calls: "it changes the list `CALLS` of its module",
    draws: "numpy.random",
    catches: "it catches exceptions",
    reads_the_label: "name",
    leaves_numpy: "a value is used as a number of Python's",
}


@pytest.mark.parametrize("objective", UNTRACEABLE, ids=lambda f: f.__name__)
def test_what_cannot_be_compiled_runs_row_by_row_and_says_why(objective: Any) -> None:
    engine, reason = choice(objective)
    assert engine == "rows"
    assert UNTRACEABLE[objective] in reason
    with pytest.raises(
        parfit.InvalidInputError, match=r"engine='batch' cannot run this: .*; engine='rows' can$"
    ) as said:
        fit(DATA, objective)
    assert reason in str(said.value)


GROUPS = pd.DataFrame(
    {"g": np.repeat(np.arange(3), (4, 9, 17)), "t": np.concatenate([np.linspace(0, 2, n) for n in (4, 9, 17)])}
)
GROUPS["y"] = 2 * np.exp(-GROUPS["t"]) + 0.01 * np.sin(np.arange(len(GROUPS)))


def weighted_by_length(p: Any, part: Any) -> Any:
    """JAX's own `len` of what is padded is not the plain one."""
    r = p[0] * np.exp(-p[1] * part["t"].to_numpy()) - part["y"].to_numpy()
    return r / jnp.asarray(r).shape[0]


def test_an_objective_whose_compiled_value_differs_runs_row_by_row() -> None:
    engine, reason = choice(weighted_by_length, GROUPS.groupby("g"))
    assert engine == "rows"
    assert "another value" in reason or "padded" in reason or "length" in reason, reason


def test_a_value_that_changes_between_the_calls_is_noticed() -> None:
    """What is compiled holds what the objective read while it was traced; a plain call reads what is there then."""

    class Drifts:
        calls = 0

        def __call__(self, p: Any, row: Any) -> Any:
            return residuals(p, row)

    assert choice(Drifts())[0] == "batch"

    class Counts(Drifts):
        def __call__(self, p: Any, row: Any) -> Any:
            self.calls += 1
            return residuals(p, row) * self.calls

    fits = parfit.fit(DATA, Counts(), (1.0, 1.0), workers=1)
    assert fits.engine == "rows"


# ---- what is given that only calls of Python can do


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"executor": "serial"}, "executor='serial' is for engine='rows'"),
        ({"executor": "serial", "timeout": None, "chunk_size": 3}, "executor='serial'"),
        ({"chunk_size": 3}, "chunk_size=3 says what travels to workers"),
        ({"timeout": 60.0}, "timeout=60.0 needs workers that can be stopped"),
        ({"history": True}, "history=True records calls of Python"),
        ({"jac": "2-point"}, "jac='2-point' is for the methods of SciPy"),
        ({"jac": lambda p, row: np.stack([np.exp(-p[1] * T), -p[0] * T * np.exp(-p[1] * T)], 1)}, "jac=<function>"),
        ({"method": "trf"}, "method 'trf' has no batched counterpart"),
        ({"method": "Powell", "objective": cost}, "method 'Powell' has no batched counterpart"),
        ({"method": "BFGS", "objective": cost}, "method 'BFGS' has no batched counterpart"),
        ({"method": "lm", "options": {"diff_step": 1e-6}}, "the option 'diff_step' is for SciPy's own lm"),
        ({"method": "L-BFGS-B", "objective": cost, "options": {"eps": 1e-8}}, "the option 'eps' is for SciPy's own"),
        (
            {"method": "SLSQP", "objective": cost, "constraints": {"type": "ineq", "fun": lambda p: p[0]}},
            "constraints are for the methods of SciPy",
        ),
    ],
    ids=lambda v: ",".join(v) if isinstance(v, dict) else "",
)
def test_an_argument_that_only_rows_have_speaks_for_rows(given: dict[str, Any], reason: str) -> None:
    engine, said = choice(**given)
    assert engine == "rows"
    assert reason in said
    with pytest.raises(parfit.InvalidInputError, match="engine='batch' cannot run this: ") as caught:
        fit(**{"data": DATA, **given})
    assert reason in str(caught.value)


def test_the_methods_that_have_a_counterpart_are_named() -> None:
    with pytest.raises(parfit.InvalidInputError, match=r"these have: lm, L-BFGS-B"):
        fit(DATA, method="dogbox")


def test_false_and_none_ask_for_nothing() -> None:
    given = {"executor": None, "timeout": None, "chunk_size": None, "history": False, "jac": None}
    assert choice(**given) == choice(**{**given, "jac": False}) == choice()
    assert choice(retries=3, seed=None, on_error="raise", progress=False)[0] == "batch"


def test_an_unknown_engine_is_refused() -> None:
    with pytest.raises(parfit.UnknownNameError, match=r"unknown value of `engine` 'bach'\. Did you mean 'batch'"):
        fit(engine="bach")


def test_without_jax_the_rows_run(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "jax" else real(name, *rest))
    assert choice() == ("rows", "jax is not installed (pip install 'parfit[jax]')")
    with pytest.raises(parfit.MissingPackageError, match=r"engine='batch' needs jax.*pip install 'parfit\[jax\]'"):
        fit()


# ---- long objectives


def test_a_loop_that_unrolls_to_thousands_of_operations_is_compiled_only_when_asked() -> None:
    def steps(p: Any, row: Any) -> Any:
        value = p[0]
        for _ in range(1100):
            value = value - 0.001 * p[1] * value
        return p[0] * np.exp(-p[1] * T) - row.to_numpy() + 0 * value

    engine, reason = choice(steps, DATA.iloc[:2])
    assert engine == "rows"
    assert "the objective unrolls to" in reason
    assert "jax.lax.scan" in reason


# ---- what is wrong with all


def test_no_data_is_an_empty_table_from_every_engine() -> None:
    tables = [table(fit(DATA.iloc[:0], engine=engine)) for engine in ("auto", "batch", "rows")]
    for found in tables[:2]:
        pd.testing.assert_frame_equal(found, tables[2])


@pytest.mark.parametrize("engine", ["auto", "batch", "rows"])
@pytest.mark.parametrize(
    ("x0", "bounds", "text"),
    [
        ((1.0, np.nan), None, "start of x1 is nan"),
        ((1.0, 5.0), ((0, 2), (0, 2)), "outside its bounds"),
        ((1.0, 1.0), (pd.DataFrame({"x0": 3.0, "x1": 3.0}, index=DATA.index), 2.0), "wrong way round"),
        (pd.DataFrame({"x0": np.nan, "x1": 1.0}, index=DATA.index), None, "no other dataset has a start"),
        (lambda row: [np.nan, 1.0], None, "no dataset can be fitted: the start of x0 is nan"),
    ],
    ids=["nan", "outside", "wrong way round", "by row", "callable"],
)
def test_what_is_wrong_with_every_row_is_raised_by_every_engine(engine: str, x0: Any, bounds: Any, text: str) -> None:
    objective = (lambda p, row: residuals(p.to_numpy(), row)) if isinstance(x0, pd.DataFrame) else residuals
    with pytest.raises(parfit.InvalidInputError, match=text):
        fit(DATA, objective, x0, bounds=bounds, engine=engine)


@pytest.mark.parametrize("engine", ["auto", "batch", "rows"])
def test_data_of_nothing_but_nan_are_refused(engine: str) -> None:
    text = (
        r"no dataset can be fitted: the residuals hold NaN or infinity at the start \(dataset 'row 0', and all others"
    )
    with pytest.raises(parfit.InvalidInputError, match=text) as caught:
        fit(DATA * np.nan, engine=engine)
    assert caught.value.fits.status.tolist() == ["nonfinite"] * 4


@pytest.mark.parametrize("engine", ["auto", "batch", "rows"])
def test_a_method_for_residuals_refuses_a_scalar(engine: str) -> None:
    with pytest.raises(parfit.InvalidInputError, match=r"method 'lm' fits residuals, and the objective gives a scalar"):
        fit(DATA, cost, method="lm", engine=engine)


@pytest.mark.parametrize("engine", ["auto", "batch", "rows"])
def test_residuals_cannot_be_maximised(engine: str) -> None:
    with pytest.raises(parfit.InvalidInputError, match="maximize=True needs a scalar objective"):
        fit(DATA, maximize=True, engine=engine)


def test_fewer_residuals_than_parameters_say_so() -> None:
    short = lambda p, row: residuals(p, row)[:1]  # noqa: E731
    for engine in ("batch", "rows"):
        with pytest.raises(parfit.InvalidInputError, match="1 residual cannot determine 2 free parameters"):
            fit(DATA, short, engine=engine)


# ---- settings


@pytest.mark.parametrize("asked", [{"dtype": "float16"}, {"dtype": int}, {"dtype": "nonsense"}])
def test_another_precision_is_refused(asked: Any) -> None:
    with pytest.raises(parfit.InvalidInputError, match="option 'dtype' must be 'float64' or 'float32'"):
        fit(DATA, options=asked)


def test_a_generic_object_as_dataset_is_told() -> None:
    things = [SimpleNamespace(y=row) for row in DATA.to_numpy()]
    engine, reason = choice(lambda p, d: p[0] * np.exp(-p[1] * T) - d.y, things)
    assert engine == "rows"
    assert "SimpleNamespace" in reason


def test_many_wide_rows_go_through_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    from parfit import batched

    data = decays(300)
    wanted = fit(data)
    monkeypatch.setattr(batched, "_BLOCK_BYTES", 4096)
    pd.testing.assert_frame_equal(table(fit(data)), table(wanted), check_exact=True)
