"""`AsyncResult`: what a call in the background will come to."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from typing import Any

from parfit.core.errors import InvalidInputError, TaskTimeoutError
from parfit.core.solution import Outcome, OutcomeKind
from parfit.executors.answers import exception, warn_again

__all__ = ["AsyncResult"]


class AsyncResult:
    """What becomes of a call in the background.

    It has the methods of `multiprocessing.pool.AsyncResult` and those of `concurrent.futures.Future`.
    """

    def __init__(self, future: Future[Outcome], owner: Any, fun: Callable[..., Any]) -> None:
        self._future = future
        self._what = f"the call of {getattr(fun, '__qualname__', type(fun).__name__)}"
        self._warned = False
        self._owner = owner  # who waits for a result does not want its pool to be dropped meanwhile
        this = weakref.ref(self)
        future.add_done_callback(lambda _: _let_go(this))

    def get(self, timeout: float | None = None) -> Any:
        """The value of the call, waited for.

        Parameters
        ----------
        timeout
            How long to wait, s; by default for as long as it takes.

        Raises
        ------
        TaskTimeoutError
            (A `TimeoutError`.) The value is not there yet; the call goes on.
        WorkerLostError
            Its process died.
        Exception
            What the call raised, with the worker's traceback as its cause.
        """
        outcome = self._outcome(timeout)
        if not self._warned:
            self._warned = True
            warn_again(outcome.warnings, stacklevel=2)
        if outcome.kind is OutcomeKind.DONE:
            return outcome.value
        raise exception(outcome, self._what)

    def result(self, timeout: float | None = None) -> Any:
        """As `get`."""
        return self.get(timeout)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """The exception of the call, waited for; None where it has a value."""
        outcome = self._outcome(timeout)
        return None if outcome.kind is OutcomeKind.DONE else exception(outcome, self._what)

    def _outcome(self, timeout: float | None) -> Outcome:
        self.wait(timeout)
        if not self.ready():
            raise TaskTimeoutError(f"no result within timeout={timeout:g} s; the call goes on in its worker")
        return self._future.result()

    def wait(self, timeout: float | None = None) -> None:
        """Wait until the call has ended, or for `timeout` seconds."""
        with contextlib.suppress(TimeoutError, CancelledError):
            self._future.exception(timeout)

    def ready(self) -> bool:
        """Whether the call has ended."""
        return self._future.done()

    def done(self) -> bool:
        """As `ready`."""
        return self.ready()

    def successful(self) -> bool:
        """Whether the call has ended with a value; raises `InvalidInputError` (a ValueError) while it runs."""
        if not self.ready():
            raise InvalidInputError("the call has not ended yet: wait() for it, or ask ready()")
        return not self.cancelled() and self.exception() is None

    def running(self) -> bool:
        """Whether the call has been begun and has not ended."""
        return self._future.running()

    def cancel(self) -> bool:
        """Take the call back; False where it has been begun."""
        return self._future.cancel()

    def cancelled(self) -> bool:
        """Whether it was taken back."""
        return self._future.cancelled()

    def add_done_callback(self, fun: Callable[[AsyncResult], Any]) -> None:
        """Have `fun(self)` called when the call has ended, in a thread of the pool's."""
        self._future.add_done_callback(lambda _: fun(self))


def _let_go(result: weakref.ref[AsyncResult]) -> None:
    """The pool has done what the result needs it for."""
    if (found := result()) is not None:
        found._owner = None
