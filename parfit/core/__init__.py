"""The nouns that the rooms exchange, and the protocols they keep; no I/O, no processes."""
