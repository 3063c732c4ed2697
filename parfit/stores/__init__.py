"""Where solutions are kept as they come: `memory`, and `sqlite`, which is imported where a path is given."""

from parfit.stores.memory import MemoryStore

__all__ = ["MemoryStore"]
