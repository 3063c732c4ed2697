"""Vensim and XMILE models: `load_model` and what it returns, a `Model`.

source.py     PySD's translation as text, and the data: what travels
live.py       a live PySD model, which is the reference
compiled/     the same text evaluated while JAX traces
catalog.py, request.py, columns.py    names, arguments, results
runner.py     which of the two does a run
model.py      the facade
"""

from __future__ import annotations

from parfit.mdl.model import Model, load_model

__all__ = ["Model", "load_model"]
