"""Worker processes of our own, and what connects them to the parent.

`launch` starts one, `idle` keeps it for the next call, `worker` is the loop that runs inside it; `wire` carries the
messages, `board` tells the parent what a worker is on, `lifeline` ends a worker whose parent is gone, `sending` pickles
outcomes one by one where they cannot travel together, `descriptors` keeps what a task closes from being missed.
"""
