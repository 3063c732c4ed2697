"""Data that stays in the workers that loaded it.

`shards` sends each task to the worker that owns its data, in the queues of `routing`; `shelf` is what such a worker
keeps and does, `kept` holds the shards of earlier calls for the next one and `fingerprint` tells whether they are the
same data; `resident` is the primitive `ProducerConsumer`.
"""
