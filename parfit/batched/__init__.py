"""All datasets at once, compiled with JAX. The room is ready; the engine is not in it yet."""
