"""Where solutions are kept as they come."""

from parfit.stores.memory import MemoryStore

__all__ = ["MemoryStore"]
