"""Vensim and XMILE models, run by PySD: `load_model` and what it returns, a `Model`."""

from __future__ import annotations

from parfit.mdl.model import Model, load_model

__all__ = ["Model", "load_model"]
