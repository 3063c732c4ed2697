"""What `load_model` reads, what it leaves behind (nothing), and what it says when it cannot."""

from __future__ import annotations

import logging
import os
import random
import shutil
import stat
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pandas.testing import assert_frame_equal

from parfit.core.errors import (
    InvalidInputError,
    InvalidTypeError,
    MissingPackageError,
    ModelError,
    ParfitError,
    UnknownNameError,
)
from parfit.mdl import load_model
from tests.mdl.same import assert_same_run

ALL = ["Macro.mdl", "Noise.mdl", "Regions.mdl", "Tank.xmile", "Views.mdl"]


def listing(folder: Path) -> dict[str, tuple[int, int]]:
    files = [folder, *folder.rglob("*")]
    return {str(f.relative_to(folder)): (f.stat().st_size, f.stat().st_mtime_ns) for f in files}


@pytest.mark.parametrize("name", ALL)
def test_every_kind_runs_as_in_pysd(name, models, referee):
    model = load_model(models / name)
    if name != "Noise.mdl":
        expected = referee(models / name).run(return_columns=model.stocks)
        assert_same_run(model, model.run(), expected)
    assert model.path == (models / name).absolute()
    assert name in repr(model)


def test_by_path_text_or_relative(models, aging, monkeypatch):
    monkeypatch.chdir(aging.path.parent)
    for path in (str(aging.path), aging.path, "Aging_Chain.mdl", Path("../models/Aging_Chain.mdl")):
        assert_frame_equal(load_model(path, compile=aging.compiled).run(), aging.run(), check_exact=True)


@pytest.mark.parametrize("suffix", [".xmile", ".xml", ".stmx", ".XMILE"])
def test_xmile_under_each_suffix(models, tmp_path, suffix):
    file = tmp_path / f"Tank{suffix}"
    shutil.copy(models / "Tank.xmile", file)
    model = load_model(file)
    assert model.stocks == ["water_level"]
    assert list(model.parameters.index) == ["tap", "leak"]
    assert model.parameters.loc["leak", "units"] == "1/Hour"
    level = 10.0
    for _ in range(20):
        level += 0.25 * (3 - level * 0.2)
    run = model.run({"Tap": 3, "leak": 0.2}, return_timestamps=5, return_columns=["Water Level"])
    assert run.loc[5, "Water Level"] == pytest.approx(level, rel=1e-13)


@pytest.mark.parametrize("options", [{}, {"split_views": True}])
def test_nothing_is_written_beside_a_read_only_model_nor_left_elsewhere(models, tmp_path, monkeypatch, options):
    private = tmp_path / "private"
    private.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(private))
    folder = tmp_path / "models"
    shutil.copytree(models, folder)
    before = listing(folder)
    for file in (folder, *folder.iterdir()):
        file.chmod(stat.S_IRUSR | stat.S_IXUSR)
    try:
        for name in ("Macro.mdl", "Views.mdl"):
            model = load_model(folder / name, **(options if name == "Views.mdl" else {}))
            model.run()
            assert list(private.iterdir()) == []
    finally:
        folder.chmod(stat.S_IRWXU)
    assert listing(folder) == before
    shutil.rmtree(folder)
    model.run()
    assert list(private.iterdir()) == []


def test_the_callers_random_numbers_and_imports_are_left_alone(models):
    random.seed(1)
    expected = random.random()
    random.seed(1)
    before = (os.getcwd(), list(sys.path), sys.dont_write_bytecode, warnings.filters[:])
    load_model(models / "Tank.xmile").run()
    assert random.random() == expected
    assert (os.getcwd(), list(sys.path), sys.dont_write_bytecode, warnings.filters[:]) == before


def test_a_translated_model(models, tmp_path, referee):
    for name, options in [("Views.mdl", {"split_views": True}), ("Macro.mdl", {}), ("Views.mdl", {})]:
        folder = tmp_path / f"{name}{len(options)}"
        folder.mkdir()
        model = load_model(models / name, **options)
        main = model._source.write(folder)
        before = listing(folder)
        again = load_model(main)
        shutil.rmtree(folder)
        assert set(before) > set(again._source.texts)
        assert_frame_equal(again.run(return_columns="all"), model.run(return_columns="all"), check_exact=True)


def test_split_views(models, referee):
    model = load_model(models / "Views.mdl", split_views=True)
    assert set(model._source.texts) > {"modules_Views/meadow.py", "modules_Views/wood.py"}
    expected = referee(models / "Views.mdl").run(return_columns=["hares", "foxes"])
    assert_same_run(model, model.run(), expected)


def test_data_files_and_spreadsheets(weather_folder, monkeypatch):
    level, rain = [10.0], np.interp(np.arange(0, 4, 0.5), [0, 1, 4], [4, 6, 0])
    dew = np.where(np.arange(0, 4, 0.5) < 2, 1, 3)  # the value before holds
    table = np.interp(np.arange(0, 4, 0.5), [0, 2, 4], [0.5, 1.5, 1.0])
    for step in range(8):
        level.append(level[-1] + 0.5 * (rain[step] + dew[step] * 2 - table[step]))
    before = listing(weather_folder)
    for files in (
        "rain.csv",  # beside the model
        weather_folder / "rain.csv",
        [str(weather_folder / "rain.csv")],
        {weather_folder / "rain.csv": ["rain"]},
        {"rain.csv": "rain"},
    ):
        model = load_model(weather_folder / "Data.mdl", data_files=files)
        np.testing.assert_allclose(model.run(saveper=0.5)["level"], level, rtol=1e-13)
    assert listing(weather_folder) == before
    shutil.rmtree(weather_folder)
    np.testing.assert_allclose(model.run(saveper=0.5)["level"], level, rtol=1e-13)
    assert model.parameters.loc["scale", "value"] == 2
    assert_frame_equal(model.run({"scale": 2, "tide": 0}), model.run(), check_exact=True)


def test_data_as_parameters_do_not_leak(weather_folder):
    model = load_model(weather_folder / "Data.mdl", data_files="rain.csv")
    before = model.run(return_columns=["level", "rain", "dew"])
    other = pd.Series([1.0, 2.0], index=[0.0, 4.0])
    dry = model.run({"rain": other, "dew": 0.0, "table": 0.0, "scale": 5}, return_columns=["level", "rain"])
    assert dry["rain"].tolist() == [1, 1.25, 1.5, 1.75, 2]
    assert dry.loc[4, "level"] == pytest.approx(10 + 0.5 * sum(np.interp(np.arange(0, 4, 0.5), [0, 4], [1, 2])))
    assert_frame_equal(model.run(return_columns=["level", "rain", "dew"]), before, check_exact=True)


def test_a_model_without_its_data(weather_folder):
    model = load_model(weather_folder / "Data.mdl")
    with pytest.raises(ValueError, match="before loading the data") as caught:
        model.run()
    assert caught.value.__notes__ == [
        "No data have been read for ['rain']: give load_model their data_files, or params."
    ]
    rain = pd.Series([4.0, 6.0, 0.0], index=[0, 1, 4])
    expected = load_model(weather_folder / "Data.mdl", data_files="rain.csv").run()
    assert_frame_equal(model.run({"rain": rain}), expected, check_exact=True)


def test_files_read_anew_by_each_load(weather_folder):
    first = load_model(weather_folder / "Data.mdl", data_files="rain.csv").run()
    (weather_folder / "rain.csv").write_text("Time,other,rain\n0,9,1\n4,9,1\n")
    (weather_folder / "weather.csv").write_text("day,dew,scale,table\n0,0,1,0\n4,0,,0\n")
    second = load_model(weather_folder / "Data.mdl", data_files="rain.csv").run()
    assert second["level"].tolist() == [10, 11, 12, 13, 14]
    assert not first.equals(second)


def test_gaps_in_data(weather_folder):
    (weather_folder / "weather.csv").write_text("day,dew,scale,table\n0,1,2,0.5\n2,,,1.5\n4,2,,1.0\n")
    with pytest.warns(UserWarning, match="Data value missing") as caught:
        load_model(weather_folder / "Data.mdl", data_files="rain.csv")
    assert caught[0].filename == __file__
    load_model(weather_folder / "Data.mdl", data_files="rain.csv", missing_values="ignore").run()
    for name in ("raise", "error"):
        with pytest.raises(ModelError, match="Data value missing"):
            load_model(weather_folder / "Data.mdl", data_files="rain.csv", missing_values=name)
    with pytest.raises(UnknownNameError, match="Did you mean 'ignore'"):
        load_model(weather_folder / "Data.mdl", data_files="rain.csv", missing_values="ignored")


def test_data_that_are_not_there(weather_folder):
    with pytest.raises(FileNotFoundError, match=r"no data file 'snow\.csv'"):
        load_model(weather_folder / "Data.mdl", data_files="snow.csv")
    with pytest.raises(UnknownNameError, match=r"unknown data variable 'rian'\. Did you mean 'rain'"):
        load_model(weather_folder / "Data.mdl", data_files={"rain.csv": ["rian"]})
    with pytest.raises(ModelError, match="Data for rain not found in"):
        load_model(weather_folder / "Data.mdl", data_files="weather.csv")
    with pytest.raises(InvalidTypeError, match="data_files must be a path"):
        load_model(weather_folder / "Data.mdl", data_files=3)
    (weather_folder / "weather.csv").unlink()
    with pytest.raises(FileNotFoundError, match=r"weather\.csv"):
        load_model(weather_folder / "Data.mdl", data_files="rain.csv")


def test_no_such_model(tmp_path, aging):
    missing = aging.path.with_name("Ageing_Chain.mdl")
    with pytest.raises(FileNotFoundError, match=r"Ageing_Chain\.mdl'.*Did you mean 'Aging_Chain.mdl'"):
        load_model(missing)
    with pytest.raises(FileNotFoundError, match=r"Did you mean 'Aging_Chain\.mdl'"):
        load_model(aging.path.with_suffix(""))
    with pytest.raises(FileNotFoundError, match=r"no model file '.*x\.mdl'\.$"):
        load_model(tmp_path / "x.mdl")
    with pytest.raises(FileNotFoundError, match="does not exist either"):
        load_model(tmp_path / "nowhere" / "x.mdl")


def test_no_such_kind(tmp_path):
    (tmp_path / "model.vpm").write_text("")
    with pytest.raises(InvalidInputError, match=r"suffix '\.vpm'.*\.mdl \(Vensim\), \.xmile \(XMILE\)"):
        load_model(tmp_path / "model.vpm")
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(InvalidInputError, match=r"is a folder; there is no model in it; known suffixes: \.mdl"):
        load_model(tmp_path)
    for name in ("b.mdl", "a.xmile", "b.py"):
        (tmp_path / name).write_text("")
    with pytest.raises(InvalidInputError, match=r"is a folder; give a model in it: 'a\.xmile', 'b\.mdl'\.$"):
        load_model(str(tmp_path))


@pytest.mark.parametrize("path", [None, 3, b"model.mdl", ["model.mdl"]])
def test_what_is_no_path(path):
    with pytest.raises(InvalidTypeError, match="path must be the path of a model file, a str or a Path, not"):
        load_model(path)
    with pytest.raises(InvalidInputError, match="path is empty"):
        load_model("")


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("a.mdl", "{UTF-8}\nx = = 3\n~ ~ |\n", "cannot translate"),
        ("a.xmile", "nothing of the kind", "cannot translate"),
        ("a.py", "x = (", "cannot load"),
        ("a.py", "x = 3", "cannot load"),
        ("a.mdl", "{UTF-8}\nx = INTEG(1, y)~~|\ny = INTEG(1, x)~~|\nTIME STEP = 1~~|\nINITIAL TIME=0~~|\n"
         "FINAL TIME=1~~|\nSAVEPER=1~~|\n", "Circular initialization"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_model(tmp_path, name, text, says):
    (tmp_path / name).write_text(text)
    with pytest.raises(ModelError, match=says) as caught:
        load_model(tmp_path / name)
    assert isinstance(caught.value, (ParfitError, ValueError))
    assert str(tmp_path / name) in str(caught.value)
    assert caught.value.__cause__ is not None
    assert sorted(p.name for p in tmp_path.iterdir()) == [name]


XMILE = 'xmlns="http://docs.oasis-open.org/xmile/ns/XMILE/v1.0"'


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("a.mdl", "", "The file is empty"),
        ("a.mdl", "hello", "It is no Vensim model: it has no equations"),
        ("a.mdl", "\x00\x01\xff", "The file is no text: in Vensim, save the model as a text file"),
        ("a.mdl", "<xmile/>", "give it the suffix .xmile"),
        ("a.mdl", "{UTF-8}\nx = = 3\n~ ~ |\n", "If Vensim opens it, PySD does not know something in it"),
        ("a.mdl", "{UTF-8}\nx = y~~|\n", "'y'. Is this a name that no equation defines?"),
        ("a.mdl", "{UTF-8}\nx = 3~~|\n", "It lacks the settings INITIAL TIME"),
        ("a.xmile", " ", "The file is empty"),
        ("a.xmile", "<xmile><foo>", "it is not well-formed XML: no element found"),
        ("a.stmx", "<a/>", "its root element is <a>, not <xmile>"),
        ("a.xml", "<xmile/>", f"Its root element lacks the namespace of XMILE, <xmile {XMILE}"),
        ("a.xmile", f"<xmile {XMILE}/>", "It has no element <model>"),
        ("a.py", "x = (", "a .py file must be a model that PySD has translated"),
    ],
)
def test_what_is_the_matter_with_a_file_is_said_first_of_all(tmp_path, caplog, name, text, says):
    (tmp_path / name).write_text(text, encoding="latin-1")
    with caplog.at_level(logging.DEBUG, logger="parfit.mdl"), pytest.raises(ModelError) as caught:
        load_model(tmp_path / name)
    assert says in str(caught.value)
    assert str(tmp_path / name) in str(caught.value)
    cause = caught.value.__cause__
    assert cause is not None
    assert (cause.__traceback__, cause.__cause__, cause.__context__) == (None, None, None)
    (logged,) = [record for record in caplog.records if record.levelno == logging.DEBUG]
    assert logged.exc_info[1] is cause  # a log that is written has the traceback by then


def test_a_model_that_cannot_start_is_refused_at_once_unless_told_otherwise(models, tmp_path):
    text = (models / "Tank.xmile").read_text().replace("<eqn>10</eqn>", "<eqn>1/(Tap - 2)</eqn>")
    (tmp_path / "Tank.xmile").write_text(text)
    with pytest.raises(ModelError, match="division by zero"):
        load_model(tmp_path / "Tank.xmile")
    model = load_model(tmp_path / "Tank.xmile", initialize=False)
    assert model.run({"tap": 3}).iloc[0, 0] == 1
    with pytest.raises(ZeroDivisionError):
        model.run()


def test_pysds_remarks_are_logged_and_not_warned_of(models, tmp_path, caplog):
    text = (models / "Macro.mdl").read_text().replace("{UTF-8}\n", "")
    (tmp_path / "Macro.mdl").write_text(text.replace("waiting = 4", "waiting = 4 + 0 * NONSENSE(3)"))
    with caplog.at_level(logging.INFO, logger="parfit.mdl"):
        model = load_model(tmp_path / "Macro.mdl", initialize=False)
    assert any("No encoding specified" in record.message for record in caplog.records)
    assert model.stocks == ["pool"]


def test_without_pysd(tmp_path, monkeypatch):
    file = tmp_path / "a.mdl"
    file.write_text("a=1~~|\nFINAL TIME=1~~|\nINITIAL TIME=0~~|\nTIME STEP=1~~|\nSAVEPER=1~~|\n")
    for name in [name for name in sys.modules if name.partition(".")[0] == "pysd"]:
        monkeypatch.delitem(sys.modules, name)

    class Gone:
        def find_spec(self, name, path=None, target=None):
            if name == "pysd":
                raise ModuleNotFoundError("No module named 'pysd'", name="pysd")

    monkeypatch.setattr(sys, "meta_path", [Gone(), *sys.meta_path])
    with pytest.raises(MissingPackageError, match="pip install 'pysd"):
        load_model(file)
