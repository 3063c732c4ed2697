"""Compiled code gives the values of PySD, and derivatives of them, for every construct that PySD runs."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pytest
from pandas.testing import assert_frame_equal

from parfit.mdl import Model, load_model
from parfit.mdl.live import Live
from tests.mdl.compiled.arrays import ARRAYS
from tests.mdl.compiled.constructs import CONSTRUCTS, Construct

jax = pytest.importorskip("jax")

ALL = {**CONSTRUCTS, **ARRAYS}
QUICKLY = {"xla_cpu_use_fusion_emitters": False, "xla_backend_optimization_level": 0}


class Pair:
    """A model, compiled and run by PySD.

    Attributes
    ----------
    construct
        What it is about.
    compiled, referee
        The same translation.
    columns
        All variables that have values over time.
    """

    def __init__(self, construct: Construct, folder) -> None:
        self.construct = construct
        file = folder / f"Small{construct.suffix}"
        file.write_text(construct.model)
        for name, text in construct.files.items():
            (folder / name).write_text(text)
        data = construct.data_files or None
        self.compiled = self.quietly(load_model, file, data_files=data, **construct.options)
        self.referee = Model(replace(self.compiled._source, compile=False))
        doc = self.compiled.doc
        self.columns = list(doc.loc[doc["Type"] != "Lookup", "Py Name"])

    @staticmethod
    def quietly(function, *args, **kwargs):
        """Call without the remarks of PySD, which says, for example, that it rounds a delay."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return function(*args, **kwargs)

    def assert_same(self, **arguments) -> None:
        """The two give the same run, and the one does not leave it to the other."""
        arguments = {"return_columns": self.columns} | arguments
        expected = self.quietly(self.referee.run, **arguments)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Live, "run", None)
            run = self.compiled.run(**arguments)
        assert_frame_equal(run.astype(float), expected.astype(float), rtol=1e-11, atol=1e-11)


@pytest.fixture(scope="module", params=list(ALL), ids=list(ALL))
def pair(request, tmp_path_factory) -> Pair:
    return Pair(ALL[request.param], tmp_path_factory.mktemp("construct"))


def test_all_of_the_model_is_compiled(pair):
    assert pair.compiled.unsupported == ()
    assert pair.compiled.compiled


def test_values_at_the_models_own_parameters_are_those_of_pysd(pair):
    pair.assert_same()


def test_values_at_other_parameters_are_those_of_pysd(pair):
    for params in pair.construct.params:
        pair.assert_same(params=params)


@pytest.mark.parametrize("pair", ["delays of arrays", "fixed delays and samples", "macros"], indirect=True)
def test_values_from_another_start_are_those_of_pysd(pair):
    """The others start elsewhere in the test of derivatives."""
    pair.assert_same(initial_condition=pair.construct.initial)
    pair.assert_same(params=pair.construct.params[0], initial_condition=pair.construct.initial)


@pytest.mark.slow
def test_traced_values_from_another_start_are_those_of_pysd_and_derivatives_those_of_differences(pair):
    construct = pair.construct
    params, (time, stocks) = construct.params[1], construct.initial or (None, {})
    ways = {
        name: np.cos(np.arange(1.0, 1 + np.size(value)) + len(name)).reshape(np.shape(value))
        for name, value in {**params, **stocks}.items()
        if name in construct.along
    }

    def arguments(h):
        """Parameters and stocks a distance h along the way."""
        moved = [
            {name: np.asarray(value) + h * ways[name] if name in ways else value for name, value in values.items()}
            for values in (params, stocks)
        ]
        return moved[0], (time, moved[1]) if stocks else None

    def traced(h):
        return pair.compiled.simulate(*arguments(h), columns=pair.columns)

    def expected(h):
        given, initial = arguments(h)
        frame = pair.quietly(pair.referee.simulate, given, initial, columns=pair.columns)
        return {name: np.asarray(values, float) for name, values in frame.items()}

    with jax.enable_x64(True):
        # In the way that is compiled soonest.
        compiled = jax.jit(lambda h: jax.jvp(traced, (h,), (1.0,)), compiler_options=QUICKLY)
        values, slopes = compiled(0.0)
    h = 1e-5
    below, here, above = expected(-h), expected(0.0), expected(h)
    for name in pair.columns:
        np.testing.assert_allclose(values[name], here[name], rtol=1e-11, atol=1e-11, err_msg=name)
        if name not in construct.jumps:
            difference = (above[name] - below[name]) / (2 * h)
            np.testing.assert_allclose(slopes[name], difference, rtol=1e-6, atol=1e-7, err_msg=name)
