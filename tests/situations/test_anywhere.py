"""A fit from a script without a main guard, from standard input, and with lambdas and a bar in a notebook."""

from __future__ import annotations

import importlib.util
import json

import pytest

from tests.programs import run_notebook, run_program, run_stdin

pytestmark = pytest.mark.slow

UNGUARDED = """
    import time
    import numpy as np, pandas as pd
    import parfit

    T = np.linspace(0, 4, 9)
    df = pd.DataFrame(np.outer([1.0, 2.0, 3.0], np.exp(-0.5 * T)), index=["a", "b", "c"])

    class Model:
        def __init__(self, t): self.t = t
        def __call__(self, height, rate): return height * np.exp(-rate * self.t)

    model = Model(T)

    def residuals(p, row):
        return model(p["height"], p["rate"]) - row.to_numpy()

    start = {"height": 1.0, "rate": 0.1}
    print(parfit.fit(df, residuals, start, workers=2).params.round(6).to_numpy().tolist())
    squares = parfit.fit(df, lambda p, row: ((model(*p) - row) ** 2).sum(), [1.0, 0.1], workers=2)
    print(squares.params.round(3).iloc[2].tolist())
    print(parfit.fit(df, lambda p, row: time.sleep(0.3) or [p[0] - 1], [1.0], method="lm", workers=2).success.all())
"""
PRINTED = "[[1.0, 0.5], [2.0, 0.5], [3.0, 0.5]]\n[3.0, 0.5]\nTrue\n"


@pytest.mark.parametrize("run", [run_program, run_stdin], ids=["script", "stdin"])
def test_lambdas_and_no_main_guard_and_not_a_word_off_a_terminal(run, tmp_path):
    """pandarallel#98, joblib#659, pyLIMA#66, pandarallel#131: `run` also checks that standard error is empty."""
    assert run(tmp_path, UNGUARDED) == PRINTED


CELLS = [
    "import numpy as np, pandas as pd, parfit\ndf = pd.DataFrame(np.arange(8.0).reshape(4, 2))\nshift = 1.0",
    "fits = parfit.fit(df, lambda p, row: p - row.to_numpy() - shift, [0.0, 0.0], workers=2)\n"
    "print(np.unique((fits.params.to_numpy() - df).round(6)).tolist())",
    "shift = 2.0\ndef objective(p, row):\n    return p - row.to_numpy() - shift\n"
    "fits = parfit.fit(df, objective, [0.0, 0.0], workers=2)\n"
    "print(np.unique((fits.params.to_numpy() - df).round(6)).tolist())",
    "fits",
    "import time\ndef slow(p, row):\n    time.sleep(0.1)\n    return objective(p, row)\n"
    "parfit.fit(df, slow, [0.0, 0.0], executor='serial').success.all()",
]


def test_cells_of_a_notebook(tmp_path):
    """pandarallel#98, pyLIMA#66."""
    made = run_notebook(CELLS, tmp_path)
    outputs = [output for cell in made["cells"] for output in cell["outputs"]]
    assert ["".join(o["text"]) for o in outputs if o["output_type"] == "stream"] == ["[1.0]\n", "[2.0]\n"]
    (shown,) = ["".join(o["data"]["text/html"]) for o in outputs if "text/html" in o.get("data", ())]
    assert "4 fits of 2 parameters" in shown
    if importlib.util.find_spec("ipywidgets") is not None:
        assert "4/4" in json.dumps(made["metadata"]["widgets"])
