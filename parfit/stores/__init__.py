"""Where solutions are kept as they come."""

from parfit.stores.memory import MemoryStore
from parfit.stores.sqlite import Argument, Identity, SqliteStore, read_store
from parfit.stores.texts import index_as_json, index_from_json, tree_as_json, tree_from_json

__all__ = [
    "Argument",
    "Identity",
    "MemoryStore",
    "SqliteStore",
    "index_as_json",
    "index_from_json",
    "read_store",
    "tree_as_json",
    "tree_from_json",
]
