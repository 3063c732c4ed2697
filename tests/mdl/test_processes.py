"""A model in other processes and threads."""

from __future__ import annotations

import copy
import os
import pickle
import shutil
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cloudpickle
import numpy as np
import pytest
from pandas.testing import assert_frame_equal

from parfit.mdl import load_model
from parfit.mdl.source import pysd_module

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


def python(code: str, *arguments: object, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code), *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
    )


def said(process: subprocess.Popen[str]) -> str:
    out, err = process.communicate(timeout=100)
    assert process.returncode == 0, err
    return out.strip()


@pytest.mark.parametrize(
    "send",
    [
        lambda model: pickle.loads(pickle.dumps(model)),
        lambda model: pickle.loads(cloudpickle.dumps(model)),
        lambda model: pickle.loads(cloudpickle.dumps(lambda: model))(),
        copy.deepcopy,
        copy.copy,
    ],
    ids=["pickle", "cloudpickle", "closure", "deepcopy", "copy"],
)
@pytest.mark.parametrize("name", ["Aging_Chain.mdl", "Macro.mdl", "Regions.mdl", "Views.mdl", "Tank.xmile"])
def test_copies(send, name, models, aging):
    model = aging if name == "Aging_Chain.mdl" else load_model(models / name, split_views=name == "Views.mdl")
    expected = model.run(return_columns="all")
    sent = send(model)
    assert sent is not model
    assert sent.path == model.path
    assert sent.stocks == model.stocks
    assert_frame_equal(sent.run(return_columns="all"), expected, check_exact=True)
    assert_frame_equal(model.run(return_columns="all"), expected, check_exact=True)


def test_a_pickle_is_small_and_holds_nothing_alive(aging):
    before = pickle.dumps(load_model(aging.path, compile=aging.compiled))
    aging.run()
    assert pickle.dumps(aging) == before
    assert len(before) < 20_000


def test_data_travel_with_the_model(weather_folder):
    model = load_model(weather_folder / "Data.mdl", data_files="rain.csv")
    expected = model.run()
    sent = pickle.dumps(model)
    shutil.rmtree(weather_folder)
    assert len(sent) < 20_000
    assert_frame_equal(pickle.loads(sent).run(), expected, check_exact=True)


def test_another_process_has_no_need_of_the_file(models, tmp_path):
    shutil.copy(models / "Macro.mdl", tmp_path)
    model = load_model(tmp_path / "Macro.mdl")
    (tmp_path / "Macro.mdl").unlink()
    (tmp_path / "model.pickle").write_bytes(pickle.dumps(model))
    code = """
        import pickle, sys
        model = pickle.load(open(sys.argv[1], "rb"))
        loaded = "pysd" in sys.modules
        end = model.run({"tap": 3.5}, return_timestamps=5).loc[5]
        print(loaded, float(end["pool"]).hex())
    """
    expected = float(model.run({"tap": 3.5}, return_timestamps=5).loc[5, "pool"])
    assert said(python(code, tmp_path / "model.pickle")) == f"False {expected.hex()}"


def test_importing_the_room_does_not_import_pysd():
    code = "import sys, parfit.mdl; print([m for m in ('pysd', 'xarray', 'black') if m in sys.modules])"
    assert said(python(code)) == "[]"


def test_four_processes_translate_one_file_at_a_time(models, tmp_path):
    shutil.copy(models / "Regions.mdl", tmp_path)
    code = """
        import hashlib, pickle, sys
        from parfit.mdl import load_model
        from parfit.mdl.source import pysd_module
        pysd_module(), pysd_module("pysd.builders.python.python_model_builder")
        print("ready", flush=True); sys.stdin.readline()
        found = set()
        for _ in range(2):
            model = load_model(sys.argv[1])
            found.add(hashlib.sha256(pickle.dumps(model)).hexdigest())
        print(*found, float(model.run(return_columns=["all fish"]).iloc[-1, 0]).hex())
    """
    # The order of sets differs between these processes, and the pickles may not.
    processes = []
    for seed in range(4):
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": str(seed)}
        processes.append(
            subprocess.Popen(
                [sys.executable, "-c", textwrap.dedent(code), str(tmp_path / "Regions.mdl")],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env=environment,
            )
        )
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    answers = {said(process) for process in processes}
    (answer,) = answers
    assert len(answer.split()) == 2
    assert [p.name for p in tmp_path.iterdir()] == ["Regions.mdl"]


def test_the_same_text_loaded_twice_is_the_same_pickle(weather_folder):
    dumps = {pickle.dumps(load_model(weather_folder / "Data.mdl", data_files="rain.csv")) for _ in range(2)}
    assert len(dumps) == 1


def test_threads(aging, regions):
    births = np.arange(24.0)
    expected = [aging.run({"births": b}, return_timestamps=2002) for b in births]
    fresh = load_model(aging.path, compile=aging.compiled)
    with ThreadPoolExecutor(8) as pool:
        runs = list(pool.map(lambda b: fresh.run({"births": b}, return_timestamps=2002), births))
    for run, reference in zip(runs, expected, strict=True):
        assert_frame_equal(run, reference, check_exact=True)
    assert len(fresh._runner._idle) <= 8


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_fork(aging_file, engine):
    code = """
        import os, sys, threading, time, warnings
        warnings.simplefilter("ignore", DeprecationWarning)  # of a fork with threads, from Python 3.12 on
        from parfit.mdl import load_model
        from parfit.mdl.source import building
        model = load_model(sys.argv[1], compile=sys.argv[2] == "compiled")
        before = model.run({"births": 3})
        held = threading.Event()
        def hold():
            with building():
                held.set()
                time.sleep(1)
        threading.Thread(target=hold).start()
        held.wait()
        child = os.fork()
        if child == 0:
            # PySD runs in the child: JAX's threads did not come along.
            same = abs(model.run({"births": 3}) / before - 1).max(axis=None) < 1e-13  # a live model from before
            model._runner._idle.clear()
            same = same and abs(model.run({"births": 3}) / before - 1).max(axis=None) < 1e-13  # and a new one
            if sys.argv[2] == "compiled":
                same = same and not load_model(sys.argv[1]).compiled
            os._exit(0 if same else 1)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    """
    assert said(python(code, aging_file, engine)) == "0"


def test_pysd_is_of_the_version_whose_insides_are_used():
    assert pysd_module().__version__.startswith("3.14.")
