"""``jac="jax"`` in fits: SciPy's methods with exact derivatives, in this process and in workers."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

jax = pytest.importorskip("jax", reason="the batched engine needs jax, which a plain install has not")

import jax.numpy as jnp  # noqa: E402

import parfit  # noqa: E402
from parfit.core.errors import InvalidInputError  # noqa: E402
from tests.batched.test_derivatives import T, decay, group, in_group, in_row, true_hessian  # noqa: E402
from tests.scripts import run_script  # noqa: E402


def noisy(n=6):
    rng = np.random.default_rng(3)
    truth = rng.uniform([1.0, 0.3], [4.0, 1.0], (n, 2))
    return pd.DataFrame([decay(*x) + 0.02 * rng.normal(size=len(T)) for x in truth], index=list("abcdef")[:n])


def half_squares(p, row):
    r = decay(p["a"], p["b"]) - row.to_numpy()
    return 0.5 * np.sum(r * r)


def half_squares_of_jax(p, row):
    r = decay(p["a"], p["b"], xp=jnp) - jnp.asarray(row)
    return 0.5 * jnp.sum(r * r)


OPTIONS = {"executor": "serial", "engine": "rows"}
START = {"a": 1.0, "b": 0.5}


@pytest.mark.parametrize("method", ["lm", "trf", "dogbox"])
def test_least_squares(method):
    plain = parfit.fit(noisy(), in_row, START, method=method, **OPTIONS)
    exact = parfit.fit(noisy(), in_row, START, method=method, jac="jax", **OPTIONS)
    assert exact.success.all()
    np.testing.assert_allclose(exact.params, plain.params, rtol=1e-5)
    np.testing.assert_allclose(exact.stderr, plain.stderr, rtol=1e-4)
    assert (exact.summary["nfev"] < plain.summary["nfev"] / (2 if method == "lm" else 1) + 1).all()


@pytest.mark.parametrize("objective", [half_squares, half_squares_of_jax])
@pytest.mark.parametrize(
    "method",
    ["CG", "BFGS", "L-BFGS-B", "TNC", "SLSQP", "trust-constr", "Newton-CG", "trust-exact", "trust-ncg", "trust-krylov"],
)
def test_methods_for_scalars(method, objective):
    wanted = parfit.fit(noisy(), in_row, START, **OPTIONS).params
    start = {"a": 2.5, "b": 0.5}
    exact = parfit.fit(noisy(), objective, start, method=method, jac="jax", **OPTIONS)
    assert exact.success.all(), exact.summary["message"].tolist()
    np.testing.assert_allclose(exact.params, wanted, rtol=1e-3)
    if objective is half_squares:
        plain = parfit.fit(noisy(), objective, start, method=method, **OPTIONS)
        assert exact.summary["nfev"].sum() < plain.summary["nfev"].sum()


def test_dogleg_gets_a_hessian():
    near = pd.DataFrame([[3.0, 0.5]] * 6, columns=["a", "b"], index=noisy().index)

    def bowl(p, row):
        return (p["a"] - row[0]) ** 2 * (1 + p["b"] ** 2) + (p["b"] - 1.0) ** 2 + p["b"] ** 4

    exact = parfit.fit(noisy(), bowl, near, method="dogleg", jac="jax", **OPTIONS)
    assert exact.success.all()
    np.testing.assert_allclose(exact.params["a"], noisy()[0], rtol=1e-5)


def test_residuals_through_a_method_with_hessians():
    wanted = parfit.fit(noisy(), in_row, START, **OPTIONS).params
    exact = parfit.fit(noisy(), in_row, START, method="trust-exact", jac="jax", **OPTIONS)
    np.testing.assert_allclose(exact.params, wanted, rtol=1e-3)


def test_a_hessian_that_was_given_is_taken():
    calls = []

    def hess(p, row):
        calls.append(p)
        return true_hessian(np.array([p["a"], p["b"]]), row.to_numpy())

    fits = parfit.fit(noisy(2), half_squares, START, method="Newton-CG", jac="jax", options={"hess": hess}, **OPTIONS)
    assert fits.success.all()
    assert calls


def test_maximize_bounds_and_fixed():
    fits = parfit.fit(
        noisy(),
        lambda p, row: -half_squares(p, row),
        {"a": 1.0, "b": 0.4, "c": 7.0},
        maximize=True,
        bounds={"b": (0.0, 0.45)},
        fixed=["c"],
        jac="jax",
        **OPTIONS,
    )
    plain = parfit.fit(
        noisy(), half_squares, {"a": 1.0, "b": 0.4, "c": 7.0}, bounds={"b": (0.0, 0.45)}, fixed=["c"], **OPTIONS
    )
    assert fits.success.all()
    assert (fits.at_bound["b"] == 1).any()
    np.testing.assert_allclose(fits.params, plain.params, rtol=1e-4)


def test_an_objective_of_jax_is_as_exact_as_one_of_numpy():
    """Called plainly, it gives single precision, which no derivative could make up for."""
    options = {"gtol": 1e-10, "ftol": 1e-16}
    fits = parfit.fit(noisy(), half_squares_of_jax, START, jac="jax", options=options, **OPTIONS)
    wanted = parfit.fit(noisy(), half_squares, START, jac="jax", options=options, **OPTIONS)
    np.testing.assert_allclose(fits.params, wanted.params, rtol=1e-7)
    assert (fits.summary["optimality"] < 1e-7).all()


def test_a_first_dataset_that_raises_is_passed_over():
    def residuals(p, row):
        if row.isna().any():
            raise ValueError("nothing there")
        return in_row(p, row)

    def plainly(p, row):
        if isinstance(row, pd.Series) and row.isna().any():
            raise ValueError("nothing there")
        return in_row(p, row)

    data = noisy()
    data.iloc[0] = np.nan
    fits = parfit.fit(data, plainly, START, jac="jax", **OPTIONS)
    assert fits.status.tolist() == ["error"] + ["converged"] * 5
    assert "nothing there" in fits.errors["message"].iloc[0]
    with pytest.raises(InvalidInputError, match="jac='jax' cannot be used"):
        parfit.fit(data, residuals, START, jac="jax", **OPTIONS)


def test_groups():
    frame = pd.concat([group(n, n).assign(k=n) for n in (5, 9, 14, 20)])
    fits = parfit.fit(frame.groupby("k"), in_group, START, jac="jax", **OPTIONS)
    np.testing.assert_allclose(fits.params, np.tile([3.0, 0.5], (4, 1)), rtol=1e-6)


def test_the_default_engine_may_take_all_rows_at_once():
    fits = parfit.fit(noisy(), in_row, START, jac="jax")
    assert fits.engine == "batch"
    assert parfit.fit(noisy(), in_row, START, jac="jax", method="trf", executor="serial").engine == "rows"


def test_debug_and_refit():
    fits = parfit.fit(noisy(), in_row, START, jac="jax", method="trf", options={"max_nfev": 2}, **OPTIONS)
    assert fits.debug("b").nfev == fits.summary.loc["b", "nfev"]
    assert fits.refit(options={}).success.all()


# ---- in workers


@pytest.mark.parametrize("objective", [in_row, half_squares_of_jax], ids=["numpy", "jax"])
@pytest.mark.parametrize("executor", ["processes", "threads"])
def test_everywhere_the_same_bits(objective, executor):
    here = parfit.fit(noisy(), objective, START, jac="jax", **OPTIONS)
    there = parfit.fit(noisy(), objective, START, jac="jax", engine="rows", executor=executor, workers=2, chunk_size=1)
    pd.testing.assert_frame_equal(here.params, there.params, check_exact=True)


SCRIPT = """
import sys
import numpy as np
import pandas as pd
import parfit

T = np.linspace(0.0, 4.0, 12)

def residuals(p, row):
    import os, sys
    LOADED = ("jax" in sys.modules, os.environ.get("JAX_PLATFORMS"))
    with open(OUT, "a") as file:
        print(*LOADED, file=file)
    return p["a"] * np.exp(-p["b"] * T) - row.to_numpy()

def plain(p, row):
    return p["a"] * np.exp(-p["b"] * T) - row.to_numpy()

if __name__ == "__main__":
    OUT = sys.argv[1]
    rows = pd.DataFrame([3 * np.exp(-0.5 * T)] * 3)
    fits = parfit.fit(rows, residuals, {"a": 1.0, "b": 1.0}, engine="rows", workers=1)
    assert fits.success.all()
    assert "jax" not in sys.modules
    with open(OUT) as file:
        assert set(file) == {"False cpu\\n"}
    fits = parfit.fit(rows, plain, {"a": 1.0, "b": 1.0}, engine="rows", workers=1, jac="jax")
    assert fits.success.all() and np.allclose(fits.params, [3.0, 0.5])
    print("done")
"""


def test_only_workers_that_are_asked_to_load_jax(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    assert "done" in run_script(script, str(tmp_path / "loaded"), cwd=tmp_path)
