"""Random expressions, compiled, have the values that PySD gives them."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from parfit.mdl import Model, load_model
from tests.mdl.compiled.constructs import vensim

jax = pytest.importorskip("jax")

#: Expressions in a model: the more there are, the fewer models have to be translated.
EACH = 12
BASE = "a = 2.5\nb = -1.75\nlevel = INTEG(a - level / 4, 3)\nFINAL TIME = 2\n"
PARAMS = {"a": 1.25, "b": 0.75}

leaves = st.sampled_from(["a", "b", "level", "Time", "0", "1", "2", "3", "0.25", "1.7"])


def _larger(inner):
    infix = st.builds("({} {} {})".format, inner, st.sampled_from("+-*/^"), inner)
    # Without parentheses: the grammar decides what belongs together.
    bare = st.builds(
        "{} {} {} {} {}".format, leaves, st.sampled_from("+-*/^"), leaves, st.sampled_from("+-*/^"), leaves
    )
    negative = st.builds("(-{})".format, inner)
    one = st.builds("{}({})".format, st.sampled_from(["ABS", "INTEGER"]), inner)
    two = st.builds("{}({}, {})".format, st.sampled_from(["MIN", "MAX", "MODULO"]), inner, inner)
    relation = st.builds("{} {} {}".format, inner, st.sampled_from(["=", "<>", "<", "<=", ">", ">="]), inner)
    negated = st.builds(":NOT: ({})".format, relation)
    several = st.builds("{} {} {}".format, relation, st.sampled_from([":AND:", ":OR:"]), relation)
    conditional = st.builds("IF THEN ELSE({}, {}, {})".format, relation | negated | several, inner, inner)
    return infix | bare | negative | one | two | conditional


expressions = st.recursive(leaves, _larger, max_leaves=6)


def outcome(model, column):
    """Values, or the kind of error, of one column."""
    try:
        return model.run(PARAMS, return_columns=[column])[column].to_numpy()
    except Exception as error:
        return type(error)


def is_traced(model, column):
    """Whether a column can be traced: Python itself divides one number in the text by another."""
    try:
        jax.eval_shape(lambda a: model.simulate({**PARAMS, "a": a}, columns=[column]), 1.0)
    except ArithmeticError:
        return False
    return True


@settings(
    max_examples=12,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.generate],
)
@given(texts=st.lists(expressions, min_size=EACH, max_size=EACH))
def test_random_expressions_have_the_values_of_pysd(tmp_path_factory, texts):
    file = tmp_path_factory.mktemp("expressions") / "Small.mdl"
    columns = [f"x{i}" for i in range(EACH)]
    equations = [f"{name} = {text}" for name, text in zip(columns, texts, strict=True)]
    file.write_text(vensim(BASE + "\n".join(equations)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = load_model(file, initialize=False)
        referee = Model(replace(model._source, compile=False))
        texts = {name: text for name, text in zip(columns, texts, strict=True) if is_traced(model, name)}
        columns = list(texts)
        expected = {name: outcome(referee, name) for name in columns}
        with jax.enable_x64(True):
            found = jax.jit(lambda a: model.simulate({**PARAMS, "a": a}, columns=columns))(PARAMS["a"])
        finite = []
        for name, text in texts.items():
            if not isinstance(expected[name], type) and np.isfinite(expected[name].astype(complex)).all():
                np.testing.assert_allclose(found[name], expected[name], rtol=1e-11, atol=1e-11, err_msg=text)
                finite.append(name)
        run = model.run(PARAMS, return_columns=finite)
        for name in finite:
            np.testing.assert_allclose(run[name], expected[name], rtol=1e-11, atol=1e-11, err_msg=texts[name])
        odd = [name for name in columns if name not in finite and not np.isfinite(found[name]).all()]
        for name in odd[:1]:
            same = outcome(model, name)
            if isinstance(expected[name], type):
                assert same is expected[name]
            else:
                np.testing.assert_array_equal(same, expected[name])
