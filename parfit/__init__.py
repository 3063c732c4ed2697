"""parfit: fit one model to thousands of independent datasets, in parallel, in one call."""

from __future__ import annotations

__version__ = "0.1.0"
