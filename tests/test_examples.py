"""Every example runs, with warnings as errors, and prints or writes what it promises."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pandas as pd
import pytest

from parfit.datasets import load_census, load_synthetic
from tests.scripts import ROOT, parfit_path, run_script

pytestmark = pytest.mark.slow

EXAMPLES = ROOT / "examples"
NOTEBOOK = EXAMPLES / "parallel_model_fitting.ipynb"

#: script -> what its output must hold
SAYS = {
    "ragged_groups.py": ["60 fits of 3 parameters", "converged           58", "nonfinite", "invalid"],
    "global_method.py": ["differential_evolution", "24 of 24 frequencies found"],
    "sharded_data.py": ["third  run", "SciPy [ 1.5 -0.7  0.3]", "SPSA  [ 1.5 -0.7  0.3]"],
    "async_map_closure.py": ["the same results, in the same order: True", "ZeroDivisionError: division by zero"],
    "epidemic.py": ["300 of 300 regions converged, engine batch", "first infectious", "SciPy in a loop, 3 regions"],
    "predator_prey.py": ["rk4: ", "euler: ", "300 of 300 plots converged", "engine batch", "in interval"],
}

NEED_JAX = {"epidemic.py", "predator_prey.py"}


@pytest.mark.parametrize("name", SAYS)
def test_script(name: str, tmp_path: Path) -> None:
    if name in NEED_JAX:
        pytest.importorskip("jax", reason="needs the extra 'jax'")
    printed = run_script(EXAMPLES / name, cwd=tmp_path)
    assert [text for text in SAYS[name] if text not in printed] == [], printed
    assert not list(tmp_path.iterdir())


def demo_has_written(folder: Path, printed: str, counties: pd.DataFrame) -> None:
    """The table, the two pictures, and the words."""
    params = pd.read_csv(folder / "county_params.csv", index_col=["state", "county"])
    assert list(params.columns) == [f"dec_{i}_loss_rate" for i in range(1, 10)]
    assert params.index.equals(counties.index)
    assert params.notna().all(axis=None)
    assert params.iloc[:, 1:].stack().between(-0.2, 0.6).all()
    assert (folder / "loss_histogram.png").read_bytes()[:4] == b"\x89PNG"
    assert "<svg" in (folder / "loss_histogram.svg").read_text(encoding="utf-8")
    assert sorted(os.listdir(folder)) == ["county_params.csv", "loss_histogram.png", "loss_histogram.svg"]
    wanted = (
        "3 fits of 9 parameters",
        "engine batch",
        "met within 1e-6",
        "1 of them by the recipe",
        "times faster",
        "Written:",
    )
    assert [text for text in wanted if text not in printed] == []


def test_county_demo(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="needs the extra 'plot'")
    pytest.importorskip("jax", reason="needs the extra 'jax'")
    script = EXAMPLES / "county_demo.py"
    printed = run_script(
        script, "--counties", "3", "--recipe", "1", "--out", "new/out", cwd=tmp_path, PARFIT_CENSUS_CSV=""
    )
    assert "3 synthetic counties" in printed
    assert "true median" in printed
    demo_has_written(tmp_path / "new" / "out", printed, load_synthetic().head(3))


@pytest.mark.census
@pytest.mark.skipif(not os.environ.get("PARFIT_CENSUS_CSV"), reason="PARFIT_CENSUS_CSV is not set")
def test_county_demo_of_real_counties(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="needs the extra 'plot'")
    pytest.importorskip("jax", reason="needs the extra 'jax'")
    census = str(Path(os.environ["PARFIT_CENSUS_CSV"]).absolute())
    script = EXAMPLES / "county_demo.py"
    chosen = ("--counties", "3", "--recipe", "1", "--workers", "1")
    printed = run_script(script, *chosen, cwd=tmp_path, PARFIT_CENSUS_CSV=census)
    assert "3 real counties, Aging_Chain.mdl: " in printed
    assert "in 1 worker\n" in printed
    demo_has_written(tmp_path / "out", printed, load_census().head(3))


@pytest.mark.parametrize("given", ["0", "-1", "many", "1.5"])
def test_county_demo_refuses_odd_numbers(given: str, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=r"(?s)ended with 2.*--counties takes a number from 1 on, or 'all'"):
        run_script(EXAMPLES / "county_demo.py", f"--counties={given}", cwd=tmp_path)


def test_notebook_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for package, extra in (("matplotlib", "plot"), ("ipykernel", "notebook"), ("nbformat", "notebook")):
        pytest.importorskip(package, reason=f"needs the extra {extra!r}")
    nbclient = pytest.importorskip("nbclient", reason="needs the extra 'notebook'")
    import nbformat

    monkeypatch.setenv("PARFIT_EXAMPLE_COUNTIES", "2")
    monkeypatch.setenv("PYTHONPATH", parfit_path())
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    client = nbclient.NotebookClient(notebook, timeout=240, resources={"metadata": {"path": str(tmp_path)}})
    client.execute()
    printed = "".join(o.get("text", "") for cell in notebook.cells for o in cell.get("outputs", ()))
    assert "the same as above: True" in printed


def test_notebook_is_stored_with_its_results() -> None:
    cells = [cell for cell in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert {output["output_type"] for output in outputs} == {"stream", "execute_result", "display_data"}
    assert {output["name"] for output in outputs if output["output_type"] == "stream"} == {"stdout"}
    assert sum("image/png" in output.get("data", ()) for output in outputs) >= 5


def test_every_example_is_tested() -> None:
    found = {path.name for path in EXAMPLES.iterdir() if path.suffix in (".py", ".ipynb")}
    assert found == {*SAYS, "county_demo.py", NOTEBOOK.name}
