"""An array that is not NumPy's."""

from __future__ import annotations

from typing import Any

import numpy as np


class Foreign:
    """An array of another library."""

    def __init__(self, values: Any) -> None:
        self._values = np.asarray(values)
        self.shape, self.ndim = self._values.shape, self._values.ndim

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        return np.array(self._values, dtype=dtype)
