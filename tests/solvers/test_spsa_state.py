"""An SPSA run that was stopped and goes on gives the result of one that was not, and no other run's state."""

from __future__ import annotations

import json
import os
import shelve

import numpy as np
import pytest

from parfit.core.errors import InvalidInputError, InvalidTypeError
from parfit.solvers import spsa_state
from parfit.solvers.spsa import SPSA

START = [1.0, -0.5]
OPTIONS = {
    "published gains": {"a_par": 0.05, "param_tol": 1e-9},
    "automatic gain": {"a_par": None, "scale": "auto", "param_tol": 1e-9},
    "bounds": {"a_par": 0.5, "bounds": [(0, 1.2), (None, 0)]},
}


def wavy(p):
    """Deterministic, and rough enough to look noisy; NaN on a strip."""
    if 0.9 < p[0] < 0.91:
        return np.nan
    return float(np.sum((p - 0.3) ** 2) + 0.01 * np.sin(1e4 * p[0]) + 0.01 * np.cos(3e3 * p[1]))


class Interrupted(BaseException):
    """Not an `Exception`, as little as `KeyboardInterrupt` is."""


def interrupted_after(n, f):
    """`f`, which raises at its call number `n`, counted from 0."""
    calls = 0

    def g(p):
        nonlocal calls
        calls += 1
        if calls > n:
            raise Interrupted
        return f(p)

    return g


def assert_same(one, other):
    np.testing.assert_array_equal(one.x, other.x)
    for key in one.keys() - {"x"}:
        assert one[key] == other[key], key


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("save_iters", [1, 7, 1000])
def test_interrupted_anywhere_and_resumed_is_uninterrupted(name, save_iters):
    options = {**OPTIONS[name], "maxiter": 45, "save_iters": save_iters, "seed": 3}
    whole = SPSA(wavy, START, **options)
    assert whole.nfev >= 91
    for n in range(whole.nfev):
        kept = {}
        with pytest.raises(Interrupted):
            SPSA(interrupted_after(n, wavy), START, savestate=kept, **options)
        assert_same(SPSA(wavy, START, savestate=kept, **options), whole)


def test_interrupted_many_times(tmp_path):
    options = {"a_par": None, "maxiter": 60, "savestate": tmp_path / "state.json", "save_iters": 5}
    for _ in range(100):
        try:
            result = SPSA(interrupted_after(3, wavy), START, **options)
            break
        except Interrupted:
            pass
    options.pop("savestate")
    assert_same(result, SPSA(wavy, START, **options))
    assert os.listdir(tmp_path) == ["state.json"]


@pytest.mark.parametrize("kind", [np.random.MT19937, np.random.Philox, np.random.SFC64])
def test_noise_from_the_same_generator_resumes_too(kind):
    """The noise comes from the generator that is handed over as the seed: its state is part of the state."""

    def run(savestate, stop_after=10**9):
        rng = np.random.Generator(kind(7))
        f = interrupted_after(stop_after, lambda p: wavy(p) + 0.1 * rng.normal())
        return SPSA(f, START, 0.05, maxiter=50, seed=rng, savestate=savestate)

    whole = run(None)
    for n in (0, 20, 50, 99):
        kept = {}
        with pytest.raises(Interrupted):
            run(kept, n - n % 2)
        resumed = run(kept)
        np.testing.assert_array_equal(resumed.x, whole.x)


def test_killed_between_two_saves(tmp_path, monkeypatch):
    """Nothing runs on the way out of a killed process: the last regular save is what there is."""
    path = tmp_path / "state.json"
    monkeypatch.setattr(spsa_state.Keeper, "__exit__", lambda *a: None)
    with pytest.raises(Interrupted):
        SPSA(interrupted_after(61, wavy), START, 0.05, maxiter=40, savestate=path, save_iters=20)
    assert json.loads(path.read_text())["state"]["nit"] == 20
    monkeypatch.undo()
    resumed = SPSA(wavy, START, 0.05, maxiter=40, savestate=path, save_iters=20)
    assert_same(resumed, SPSA(wavy, START, 0.05, maxiter=40))


def test_a_crash_while_saving_leaves_the_state_before(tmp_path, monkeypatch):
    path = tmp_path / "state.json"
    with pytest.raises(Interrupted):
        SPSA(interrupted_after(30, wavy), START, 0.05, maxiter=40, savestate=path)
    before = path.read_text()

    def full_disk(fd):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space"):
        SPSA(wavy, START, 0.05, maxiter=40, savestate=path)
    assert path.read_text() == before
    assert os.listdir(tmp_path) == ["state.json"]


def test_time_triggers_a_save_too(monkeypatch):
    clock = iter(range(0, 10**6, 2))
    monkeypatch.setattr(spsa_state.time, "monotonic", lambda: next(clock))
    saved = []

    class Counting(dict):
        def __setitem__(self, key, value):
            saved.append(json.loads(value)["state"]["nit"])
            super().__setitem__(key, value)

    SPSA(wavy, START, 0.05, maxiter=12, savestate=Counting(), save_iters=1000)
    assert saved[0] == 0
    assert 3 <= len(saved) <= 10
    assert saved[-1] == 12


def test_a_finished_run_is_not_run_again_but_can_be_prolonged(tmp_path):
    path = tmp_path / "state.json"
    done = SPSA(wavy, START, 0.05, maxiter=40, savestate=path)
    assert_same(SPSA(interrupted_after(0, wavy), START, 0.05, maxiter=40, savestate=path), done)
    longer = SPSA(wavy, START, 0.05, maxiter=70, savestate=path)
    assert longer.gains["A"] == 4  # as it was saved, so that the gains go on as they began
    straight = SPSA(wavy, START, 0.05, maxiter=70, stability=4)
    np.testing.assert_array_equal(longer.x, straight.x)
    assert longer.nit == 70


def test_a_run_stopped_by_the_callback_goes_on():
    kept = {}

    def halfway(intermediate_result):
        if intermediate_result.nit == 20:
            raise StopIteration

    assert SPSA(wavy, START, 0.05, maxiter=40, savestate=kept, callback=halfway).status == 99
    resumed, whole = SPSA(wavy, START, 0.05, maxiter=40, savestate=kept), SPSA(wavy, START, 0.05, maxiter=40)
    np.testing.assert_array_equal(resumed.x, whole.x)


def test_a_state_in_a_shelf_and_behind_a_link(tmp_path):
    whole = SPSA(wavy, START, 0.05, maxiter=40)
    with shelve.open(str(tmp_path / "shelf")) as shelf:
        with pytest.raises(Interrupted):
            SPSA(interrupted_after(30, wavy), START, 0.05, maxiter=40, savestate=shelf)
        assert_same(SPSA(wavy, START, 0.05, maxiter=40, savestate=shelf), whole)
    (tmp_path / "link").symlink_to(tmp_path / "target")
    SPSA(wavy, START, 0.05, maxiter=40, savestate=str(tmp_path / "link"))
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").is_file()


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"seed": 1}, "seed is 0 there and 1 here"),
        ({"seed": None}, "seed is 0 there and None here"),
        ({"a_par": 0.06}, "a_par is 0.05 there and 0.06 here"),
        ({"a_par": None}, "a_par"),
        ({"c_par": 0.02}, "c_par"),
        ({"alpha": 1}, "alpha"),
        ({"stability": 9}, "stability is 4.0 there and 9.0 here"),
        ({"initparams": [1.0, -0.4]}, r"initparams is \[ 1.  -0.5\] there"),
        ({"initparams": [[1.0, -0.5]]}, "initparams"),
        ({"bounds": [(0, 2), (None, None)]}, "lower bounds .*; upper bounds"),
        ({"scale": 2}, "scale"),
    ],
)
def test_another_run_is_refused_naming_what_differs(changed, text):
    kept = {}
    SPSA(wavy, START, 0.05, maxiter=40, savestate=kept)
    before = dict(kept)
    with pytest.raises(InvalidInputError, match=text):
        SPSA(**{"fnc": lambda p: wavy(np.ravel(p)), "initparams": START, "a_par": 0.05, "maxiter": 40,
                "savestate": kept, **changed})  # fmt: skip
    assert kept == before


@pytest.mark.parametrize(
    ("damage", "text"),
    [
        (lambda t: t[: len(t) // 2], "damaged"),
        (lambda t: "", "is empty"),
        (lambda t: t.replace('"nit": 40', '"nit": 39'), "checksum"),
        (lambda t: t.replace("version 1", "version 9"), "not a state of SPSA that this version reads"),
        (lambda t: '{"my": "notes"}', "not a state of SPSA"),
        (lambda t: "[1, 2]", "not a state of SPSA"),
    ],
)
def test_a_damaged_state_is_refused_and_left_alone(damage, text, tmp_path):
    path = tmp_path / "state.json"
    SPSA(wavy, START, 0.05, maxiter=40, savestate=path)
    path.write_text(damage(path.read_text()))
    before = path.read_text()
    with pytest.raises(InvalidInputError, match=text):
        SPSA(wavy, START, 0.05, maxiter=40, savestate=path)
    assert path.read_text() == before


def test_targets_that_cannot_hold_a_state(tmp_path):
    with pytest.raises(InvalidTypeError, match="path of a file or a mapping"):
        SPSA(wavy, START, savestate=3)
    with pytest.raises(InvalidInputError, match="does not exist"):
        SPSA(wavy, START, savestate=tmp_path / "no" / "state.json")
    with pytest.raises(InvalidInputError, match="is a folder"):
        SPSA(wavy, START, savestate=tmp_path)
    (tmp_path / "picture").write_bytes(bytes(range(128, 256)))
    with pytest.raises(InvalidInputError, match="not text"):
        SPSA(wavy, START, savestate=tmp_path / "picture")


def test_maxiter_counts_from_the_first_run_and_the_stability_constant_stays():
    kept = {}
    first = SPSA(wavy, START, 0.05, maxiter=50, savestate=kept, ftol=None)
    again = SPSA(wavy, START, 0.05, maxiter=50, savestate=kept, ftol=None)
    further = SPSA(wavy, START, 0.05, maxiter=80, savestate=kept, ftol=None)
    assert (first.nit, again.nit, further.nit) == (50, 50, 80)
    assert first.nfev == again.nfev
    assert further.gains["A"] == first.gains["A"] == 5
    whole = SPSA(wavy, START, 0.05, maxiter=80, stability=5, ftol=None)
    np.testing.assert_array_equal(further.x, whole.x)
