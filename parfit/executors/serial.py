"""In this process, one task after the other: for debugging, and where no worker may be started."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from parfit.core.errors import InvalidInputError, SetupError
from parfit.core.protocols import Capabilities, Executor, Pool, TaskFunction, Tasks
from parfit.core.solution import Outcome
from parfit.executors.chunking import Blocks
from parfit.executors.running import recording_warnings, run_block, single_threaded_blas

__all__ = ["SerialExecutor"]


@dataclass(frozen=True)
class SerialExecutor(Executor):
    """Runs every task in the calling process."""

    name: ClassVar[str] = "serial"
    capabilities: ClassVar[Capabilities] = Capabilities(
        survives_worker_death=False, enforces_timeout=False, own_process=False
    )

    @contextlib.contextmanager
    def open(self, setup: Callable[[], Any] | None = None, *, retries: int = 1) -> Iterator[Pool]:  # noqa: ARG002
        with single_threaded_blas():
            try:
                state = None if setup is None else setup()
            except Exception as exc:
                raise SetupError(f"the setup failed: {type(exc).__name__}: {exc}") from exc
            yield _SerialPool(state)


class _SerialPool(Pool):
    def __init__(self, state: Any) -> None:
        self._state = state

    def imap_unordered(
        self,
        function: TaskFunction,
        tasks: Tasks | Iterable[tuple[Hashable, Any]],
        timeout: float | None = None,
    ) -> Iterator[Outcome]:
        if timeout is not None:
            raise InvalidInputError("the executor 'serial' cannot stop a running task: use 'processes', or no timeout")
        blocks = Blocks(tasks, 1)
        while (block := blocks.next()) is not None:
            done: list[Outcome] = []
            try:
                with recording_warnings():
                    run_block(function, self._state, block, done.append)
            except KeyboardInterrupt:
                yield from done
                raise
            blocks.took(len(done), sum(outcome.seconds for outcome in done))
            yield from done
