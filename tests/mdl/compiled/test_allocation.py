"""ALLOCATE AVAILABLE and ALLOCATE BY PRIORITY, beside PySD's."""

from __future__ import annotations

import numpy as np
import pytest
from pandas.testing import assert_frame_equal

from parfit.mdl import load_model

pytestmark = pytest.mark.slow

jax = pytest.importorskip("jax", reason="needs the extra 'jax'")

MODEL = """{UTF-8}
who: a, b, c, d
	~~|
place: x, y
	~~|
prof: ptype, ppriority, pwidth, pextra
	~~|
request[who] = 3, 6, 2.5, 2
	~~|
priority[who] = 10, 9, 7, 2
	~~|
supply = 1 + Time * 1.3
	~~|
width = 3
	~~|
got[who] = ALLOCATE BY PRIORITY(request[who], priority[who], ELMCOUNT(who), width, supply)
	~~|
zero request[who] = 3, 0, 2.5, 2
	~~|
got zero[who] = ALLOCATE BY PRIORITY(zero request[who], priority[who], ELMCOUNT(who), width, supply)
	~~|
pp[who, ptype] = 1, 2, 3, 4
	~~|
pp[who, ppriority] = 1, 2, 1.5, 2.5
	~~|
pp[who, pwidth] = 1, 2, 0.5, 0.7
	~~|
pp[who, pextra] = 0
	~~|
avail[who] = ALLOCATE AVAILABLE(request[who], pp[who, ptype], supply)
	~~|
request2[place, who] = 1, 2, 3, 4; 4, 3, 2, 1;
	~~|
supply2[place] = 2, 6
	~~|
got2[place, who] = ALLOCATE BY PRIORITY(request2[place, who], priority[who], ELMCOUNT(who), width, supply2[place])
	~~|
avail2[place, who] = ALLOCATE AVAILABLE(request2[place, who], pp[who, ptype], supply2[place])
	~~|
stock = INTEG(got[b], 0)
	~~|
FINAL TIME = 4
	~~|
INITIAL TIME = 0
	~~|
TIME STEP = 1
	~~|
SAVEPER = TIME STEP
	~~|
"""


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """The model compiled, and run by PySD."""
    file = tmp_path_factory.mktemp("allocation") / "Allocation.mdl"
    file.write_text(MODEL)
    return load_model(file), load_model(file, compile=False)


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"width": 1.0},
        {"width": 20.0, "request": [1.0, 5.0, 5.0, 5.0]},
        {"priority": [1.0, 1.0, 2.0, 2.0]},
        {"supply": 0.0},
        {"supply": 100.0},
        {"request": [0.0, 0.0, 0.0, 2.0], "supply": 1.0},
    ],
    ids=str,
)
def test_what_each_gets_is_what_pysd_gives(both, params):
    # ALLOCATE AVAILABLE is a root, which PySD finds to 1e-8.
    compiled, judge = both
    assert compiled.compiled
    assert_frame_equal(
        compiled.run(params, return_columns="all"),
        judge.run(params, return_columns="all"),
        rtol=1e-7,
        atol=1e-7,
        check_dtype=False,
    )


def test_all_of_the_supply_is_dealt_out(both):
    found = both[0].simulate({"supply": 4.0}, times=[0], columns=["got", "avail"])
    assert found["got"].sum() == pytest.approx(4, rel=1e-12)
    assert found["avail"].sum() == pytest.approx(4, rel=1e-12)


def test_derivatives_are_those_of_differences(both):
    names = ("width", "supply")

    def dealt(values):
        params = dict(zip(names, values, strict=True))
        found = both[0].simulate(params, times=[3], columns=["got", "avail"])
        return np.concatenate([found["got"][0], found["avail"][0]]) if isinstance(values, np.ndarray) else found

    with jax.enable_x64(True):
        x = np.array([3.0, 5.0])
        J = jax.jacfwd(lambda v: jax.numpy.concatenate([a[0] for a in dealt(v).values()]))(jax.numpy.asarray(x))
        for i, e in enumerate(1e-6 * np.eye(2)):
            np.testing.assert_allclose(J[:, i], (dealt(x + e) - dealt(x - e)) / 2e-6, rtol=1e-6, atol=1e-7)


def test_what_pysd_refuses_is_refused_by_pysd(both):
    with pytest.raises(ValueError, match="negative request"):
        both[0].run({"request": [-1.0, 2.0, 2.0, 2.0]})
