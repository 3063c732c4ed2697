"""Memory for blocks: what is lent is one borrower's own, and what is given back is used again."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("jax")

from parfit.batched.staging import Staging


def test_what_is_lent_holds_the_entries_and_is_aligned() -> None:
    staging = Staging()
    for array in (
        np.arange(6.0).reshape(3, 2),
        np.asfortranarray(np.arange(6.0).reshape(3, 2)),
        np.array([1, 0], bool),
    ):
        made = staging.take(array, 5)
        assert made.shape == (5, *array.shape[1:])
        assert made.dtype == array.dtype
        assert made.flags.c_contiguous
        assert made.ctypes.data % 64 == 0
        np.testing.assert_array_equal(made[: len(array)], array)


def test_two_borrowers_never_share() -> None:
    staging = Staging()
    one, two = staging.take(np.ones(4), 8), staging.take(np.ones(4), 8)
    assert not np.shares_memory(one, two)
    staging.give_back([one])
    assert not np.shares_memory(staging.take(np.ones(4), 8), two)


def test_what_is_given_back_is_used_again_where_it_fits() -> None:
    staging = Staging()
    one = staging.take(np.ones(4), 8)
    staging.give_back([one])
    assert not np.shares_memory(staging.take(np.ones(4, np.float32), 8), one)
    assert not np.shares_memory(staging.take(np.ones(4), 16), one)
    assert np.shares_memory(staging.take(np.zeros(4), 8), one)


def test_no_more_is_kept_than_allowed() -> None:
    staging = Staging(most=100)
    one, two = staging.take(np.ones(10), 10), staging.take(np.ones(10), 10)
    staging.give_back([one, two])
    assert np.shares_memory(staging.take(np.ones(10), 10), one)
    assert not np.shares_memory(staging.take(np.ones(10), 10), two)
