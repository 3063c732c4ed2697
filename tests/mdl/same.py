"""What it means that a run gives what PySD gives."""

from __future__ import annotations

import pandas as pd
from pandas.testing import assert_frame_equal

from parfit.mdl import Model

__all__ = ["assert_same_run"]


def assert_same_run(model: Model, run: pd.DataFrame, expected: pd.DataFrame) -> None:
    """Equal bit by bit where PySD runs the model.

    Compiled, a product and a sum may be rounded as one, and what PySD holds as whole numbers may be floats.
    """
    if model.compiled:
        assert_frame_equal(run, expected, rtol=1e-13, atol=1e-13, check_dtype=False)
    else:
        assert_frame_equal(run, expected, check_exact=True)
