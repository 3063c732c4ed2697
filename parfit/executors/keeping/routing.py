"""Which task goes to which shard: the queues of `parfit.executors.keeping.shards`."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

from parfit.core.protocols import Block, Tasks
from parfit.core.solution import Outcome
from parfit.executors.chunking import PairBlock

__all__ = ["Own", "Router", "positions"]


class Router:
    """Hands each task to the shard that has its dataset.

    Parameters
    ----------
    tasks
        Cut into blocks as they are wanted; a task's payload is its position, or has a `position`.
    owner
        position -> number of the shard.
    shards
        The number of shards.
    """

    def __init__(self, tasks: Tasks, owner: Callable[[int], int], shards: int) -> None:
        self._tasks: Tasks | None = tasks
        self._owner = owner
        self._queues: list[deque[tuple[Any, Any]]] = [deque() for _ in range(shards)]

    def pull(self, shard: int, n: int | None) -> deque[tuple[Any, Any]]:
        """The tasks that wait for a shard: at least `n` of them, or all that there are."""
        queue = self._queues[shard]
        while self._tasks is not None and (n is None or len(queue) < n):
            block = self._tasks.take(min(max(64, (n or 4096) * len(self._queues)), 4096))
            if block is None:
                self._tasks = None
                break
            block.visit(self._put)
        return queue

    def _put(self, key: Any, payload: Any) -> None:
        self._queues[self._owner(_position(payload))].append((key, payload))

    def stop(self) -> None:
        """Hand out no more."""
        self._tasks = None
        for queue in self._queues:
            queue.clear()


def _position(payload: Any) -> int:
    """The position of the dataset that a task is on."""
    return payload if isinstance(payload, int) else int(payload.position)


def positions(jobs: Iterable[Any]) -> list[int]:
    """The positions of the datasets that some blocks on their way are on."""
    found: list[int] = []
    for job in jobs:
        job.block.visit(lambda _, payload: found.append(_position(payload)))
    return found


class Own:
    """The tasks of one shard, as `Tasks`."""

    def __init__(self, router: Router, shard: int) -> None:
        self._router = router
        self._shard = shard

    def take(self, n: int) -> Block | None:
        queue = self._router.pull(self._shard, n)
        pairs = [queue.popleft() for _ in range(min(n, len(queue)))]
        return PairBlock(pairs) if pairs else None

    def any(self) -> bool:
        return bool(self._router.pull(self._shard, 1))

    def positions(self) -> list[int]:
        return [_position(payload) for _, payload in self._router.pull(self._shard, None)]

    def refuse(self, failed: dict[int, Outcome]) -> Iterator[Outcome]:
        """Answer the tasks on datasets that could not be loaded."""
        queue = self._router.pull(self._shard, None)
        for _ in range(len(queue)):
            key, payload = queue.popleft()
            if (outcome := failed.get(_position(payload))) is None:
                queue.append((key, payload))
            else:
                yield replace(outcome, key=key)
