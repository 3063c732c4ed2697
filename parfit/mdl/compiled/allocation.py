"""ALLOCATE AVAILABLE and ALLOCATE BY PRIORITY."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

ALLOCATION: Mapping[str, Callable[..., Any]] = {}
