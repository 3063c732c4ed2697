"""A model as one compiled, differentiable function: PySD's translation, evaluated while JAX traces."""
