"""Pools of other libraries: what `futures` and `joblib` are made of.

`pool` is the run that they have in common, `crews` are the live workers behind it, `carriers` bring a task to them,
`jobs` is the queue of what is out, `spool` the folder through which parent and workers see each other, `exits` what
ends with the interpreter, and `remote` the side of a worker.
"""
