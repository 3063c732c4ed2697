"""A model as one compiled, differentiable function: PySD's translation, evaluated while JAX traces.

section.py       the translation read, with what follows under the names that it imports:
  named.py, pieces.py, numeric.py       arrays with named axes, and NumPy
  functions.py, allocation.py, randomness.py, interpolation.py, tables.py, statefuls.py
simulation.py    one run: its start, the values of a moment
dependencies.py  what needs what, and what changes over time
integration.py   its steps                clock.py    its times
program.py       compiled runs, kept      unsupported.py    what cannot be compiled
"""
