"""`apply_by_multiprocessing` with functions defined anywhere: scripts, notebooks, standard input, modules."""

from __future__ import annotations

import sys

from tests.programs import checked, run_notebook, run_program, run_stdin, written

UNGUARDED = """
    import os
    import pandas as pd
    import parfit

    FACTOR = 10
    print("imported", os.getpid())

    class Scale:
        def __init__(self, by): self.by = by
        def __call__(self, row): return row["a"] * self.by

    class Refused(Exception):
        def __init__(self, why): super().__init__(why); self.why = why

    def product(row):
        return helper(row) * FACTOR

    def helper(row):
        return row["a"] * row["b"]

    def refuse(row):
        raise Refused("no")

    df = pd.DataFrame({"a": [1, 2, 3], "b": [4, 5, 6]})
    own = os.getpid()
    print(parfit.apply_by_multiprocessing(df, product, 2).tolist())
    print(parfit.apply_by_multiprocessing(df, lambda row: helper(row) + FACTOR, 2).tolist())
    print(parfit.apply_by_multiprocessing(df, Scale(3), 2).tolist())
    print(parfit.apply_by_multiprocessing(df, lambda row: os.getpid() == own, 2).tolist())
    FACTOR = 100
    def helper(row): return row["a"]
    print(parfit.apply_by_multiprocessing(df, product, 2).tolist())
    try:
        parfit.apply_by_multiprocessing(df, refuse, 2)
    except Refused as exc:
        print(exc.why)
"""
PRINTED = ["[40, 100, 180]", "[14, 20, 28]", "[3, 6, 9]", "[False, False, False]", "[100, 200, 300]", "no"]


def without_first(text):
    first, *rest = text.splitlines()
    assert first.startswith("imported")
    return rest


def test_a_script_without_a_main_guard(tmp_path):
    assert without_first(run_program(tmp_path, UNGUARDED)) == PRINTED


def test_standard_input(tmp_path):
    assert without_first(run_stdin(tmp_path, UNGUARDED)) == PRINTED


def test_one_line_on_the_command_line(tmp_path):
    line = (
        "import pandas as pd, parfit; df = pd.DataFrame({'a': [1, 2]}); k = 5; "
        "print(parfit.apply_by_multiprocessing(df, lambda row: row['a'] * k, 2).tolist())"
    )
    assert checked([sys.executable, "-c", line], tmp_path) == "[5, 10]\n"


def test_functions_of_a_module_beside_the_script(tmp_path):
    written(tmp_path, "def double(row):\n    return row['a'] * 2\n", "beside.py")
    text = """
        import os, pandas as pd, parfit
        from beside import double
        df = pd.DataFrame({"a": [1, 2]})
        print(parfit.apply_by_multiprocessing(df, double, 2).tolist())
        os.chdir("/")
        print(parfit.apply_by_multiprocessing(df, double, 2).tolist())
    """
    assert run_program(tmp_path, text) == "[2, 4]\n" * 2


def test_a_module_that_is_edited_between_two_calls(tmp_path):
    text = """
        import importlib, os, pathlib, sys, pandas as pd, parfit
        sys.dont_write_bytecode = True
        df = pd.DataFrame({"a": [1, 2]})
        path = pathlib.Path("edited.py")
        for n, factor in enumerate((2, 30)):
            path.write_text(f"def times(row): return row['a'] * {factor}")
            os.utime(path, ns=(0, n * 10**9))
            import edited
            importlib.reload(edited)
            print(parfit.apply_by_multiprocessing(df, edited.times, 2).tolist())
    """
    assert run_program(tmp_path, text, PYTHONDONTWRITEBYTECODE="1") == "[2, 4]\n[30, 60]\n"


CELLS = [
    "import os\nimport pandas as pd\nimport parfit\ndf = pd.DataFrame({'a': [1, 2, 3]})\nk = 10",
    "def times(row):\n    return row['a'] * k\nprint(parfit.apply_by_multiprocessing(df, times, 2).tolist())",
    "k = 100\nprint(parfit.apply_by_multiprocessing(df, lambda row: times(row) + 1, 2).tolist())",
    "def times(row):\n    return row['a']\nparfit.apply_by_multiprocessing(df, times, 2)",
    "own = os.getpid()\nassert not any(parfit.apply_by_multiprocessing(df, lambda row: os.getpid() == own, 2))",
]


def test_cells_of_a_notebook(tmp_path):
    """In a kernel of its own, the shell's own tables and hooks around every function."""
    outputs = [cell["outputs"] for cell in run_notebook(CELLS, tmp_path)["cells"]]
    printed = ["".join(o["text"]) for cell in outputs for o in cell if o["output_type"] == "stream"]
    assert printed == ["[10, 20, 30]\n", "[101, 201, 301]\n"]
    assert "".join(outputs[3][-1]["data"]["text/plain"]).split() == "0 1 1 2 2 3 dtype: int64".split()
    assert not [o for cell in outputs for o in cell if o["output_type"] == "error"]
