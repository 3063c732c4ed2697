"""The caller's place: taken for good or for a while, and whatever of it can be taken."""

from __future__ import annotations

import os
import pickle
import re
import signal
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from parfit.executors.place import Place


@pytest.fixture
def elsewhere(tmp_path: Path) -> Place:
    """The place of a caller that stands somewhere else."""
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings(), np.errstate(over="raise"):
        patch.chdir(tmp_path)
        patch.syspath_prepend("/parfit/elsewhere")
        patch.setenv("PARFIT_ELSEWHERE", "1")
        patch.delenv("HOME", raising=False)
        warnings.filterwarnings("error", message="elsewhere")
        place = Place()
    return pickle.loads(pickle.dumps(place))


def stand() -> tuple[object, ...]:
    return (
        os.getcwd(),
        list(sys.path),
        dict(os.environ),
        list(warnings.filters),
        np.geterr(),
        signal.getsignal(signal.SIGINT),
    )


def test_a_visit_leaves_everything_as_it_was(elsewhere: Place, tmp_path: Path) -> None:
    before = stand()
    for _ in range(2):
        with elsewhere.visit():
            assert os.getcwd() == str(tmp_path)
            assert sys.path[0] == "/parfit/elsewhere"
            assert os.environ["PARFIT_ELSEWHERE"] == "1"
            assert "HOME" not in os.environ
            assert os.environ["OMP_NUM_THREADS"] == "1"
            assert np.geterr()["over"] == "raise"
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
            with pytest.raises(UserWarning, match="elsewhere"):
                warnings.warn("elsewhere", UserWarning, stacklevel=1)
        assert stand() == before


def test_a_visit_ends_also_with_an_exception(elsewhere: Place) -> None:
    before = stand()
    with pytest.raises(ZeroDivisionError), elsewhere.visit():
        _ = 1 / 0
    assert stand() == before


@pytest.fixture
def back_again() -> Iterator[None]:
    """Whoever enters a place is a worker from then on; this process is to be none after the test."""
    environment, path, folder, floating = dict(os.environ), list(sys.path), os.getcwd(), np.geterr()
    with warnings.catch_warnings():
        yield
    os.environ.clear()
    os.environ.update(environment)
    sys.path[:] = path
    os.chdir(folder)
    np.seterr(**floating)


@pytest.mark.usefixtures("back_again")
def test_filters_travel_one_by_one() -> None:
    class Local(Warning):
        pass

    local = ("ignore", None, Local, None, 0)
    plain = ("error", re.compile("text"), UserWarning, re.compile("module"), 3)
    place = Place()
    place.filters = [local, plain, ("ignore", None, type("Gone", (Warning,), {"__module__": "gone"}), None, 0)]
    data = pickle.dumps(place)
    with warnings.catch_warnings():
        pickle.loads(data).enter()
        assert plain in warnings.filters
        assert any(entry[2].__name__ == "Local" for entry in warnings.filters)
    Place().enter()
