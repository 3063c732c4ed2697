"""Single calls, run in the background: `submit` returns at once, and one thread watches all workers.

     any thread                       the dispatcher's thread                    worker k
    submit(fun, …) ──▶ queue ──▶ ┌──────────────────────────────────┐   socket   ┌────────┐
       │                         │ a free LonePool gets the next    │ ─────────▶ │ invoke │
       ▼      wake (a pipe) ───▶ │ call; one selector over the pipe │ ◀───────── │        │
    Future ◀──── Outcome ─────── │ and all pools                    │            └────────┘
                                 └──────────────────────────────────┘

The thread exists from the first call to `close` or `terminate`; it alone touches the pools. The lock guards the queue
and the flags. It is re-entrant since a garbage collection, anywhere, may call `terminate`. The thread does not hold
the object that the user holds, so that this can be dropped while calls are running. Workers that have been idle for a
second are left to others.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import selectors
import threading
import weakref
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any

import cloudpickle

from parfit.core.errors import InvalidInputError, InvalidTypeError
from parfit.core.solution import Outcome, OutcomeKind, TaskError
from parfit.executors import payload as pl
from parfit.executors.baggage import packed_call, result_error
from parfit.executors.chunking import PairBlock
from parfit.executors.lone import LonePool, Stream
from parfit.executors.running import recording_warnings, run_block

__all__ = ["Dispatcher", "call_elsewhere", "call_here"]

_LINGER_S = 1.0
#: How long `terminate` waits for the thread, s; only a process that cannot be killed takes longer than moments.
_END_S = 5.0


def _invoke(_: Any, call: bytes) -> Any:
    fun, args, kwargs = pickle.loads(call)
    return fun(*args, **kwargs)


def _failed(exc: BaseException) -> Outcome:
    return Outcome(None, OutcomeKind.ERROR, None, TaskError.from_exception(exc))


class Dispatcher:
    """Runs calls in at most `workers` worker processes."""

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._begin()
        _all.add(self)

    def _begin(self) -> None:
        self._lock = threading.RLock()
        self._queue: deque[tuple[bytes, Future[Outcome]]] = deque()
        self._thread: threading.Thread | None = None
        self._wake_fd = -1
        self._pools: list[LonePool] = []
        self._closed = self._killed = False
        self._ended = threading.Event()

    def submit(self, fun: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Future[Outcome]:
        """Run ``fun(*args, **kwargs)`` in a worker; what cannot be sent is the outcome."""
        future: Future[Outcome] = Future()
        self.check_open()
        try:
            call = packed_call(fun, args, kwargs)
        except InvalidTypeError as exc:
            future.set_result(_failed(exc))
            return future
        with self._lock:
            self.check_open()
            self._queue.append((call, future))
            if self._thread is None:
                read_fd, self._wake_fd = os.pipe()
                os.set_blocking(read_fd, False)
                os.set_blocking(self._wake_fd, False)
                self._thread = threading.Thread(target=self._serve, args=(read_fd,), daemon=True, name="parfit-pool")
                self._thread.start()
            self._wake()
        return future

    def check_open(self) -> None:
        """Raise `InvalidInputError` after `close` or `terminate`."""
        if self._closed:
            raise InvalidInputError("this Pool has been closed: make a new one")

    @property
    def closed(self) -> bool:
        """Whether no more calls are taken."""
        return self._closed

    def cancel_waiting(self) -> None:
        """Take back the calls that have not been begun."""
        with self._lock:
            for _, future in self._queue:
                future.cancel()

    def _wake(self) -> None:
        """Have the thread look at the queue and the flags; to be called with the lock."""
        if self._wake_fd >= 0:
            with contextlib.suppress(BlockingIOError):  # full: it will wake up anyway
                os.write(self._wake_fd, b"\0")

    def close(self) -> None:
        """Take no more calls; those that are queued will be run."""
        with self._lock:
            self._closed = True
            self._wake()

    def terminate(self) -> None:
        """End the workers now, and wait until they have ended; calls without a result are cancelled or lost."""
        with self._lock:
            self._closed = self._killed = True
            self._wake()
        self.join(_END_S)

    def join(self, timeout: float | None = None) -> None:
        """Wait until the last call is done; to be called after `close`."""
        # Not `Thread.join`: where that is interrupted, Python takes the thread for ended, and it never waits again.
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            self._ended.wait(timeout)

    def disown(self) -> None:
        """In a forked child: there is no thread here, and the workers are the parent's."""
        pools, fd = self._pools, self._wake_fd
        self._begin()
        for pool in pools:
            pool.disown()
        if fd >= 0:
            os.close(fd)

    # ---- the thread

    def _serve(self, read_fd: int) -> None:
        running: dict[LonePool, tuple[Stream, Future[Outcome]]] = {}
        with selectors.DefaultSelector() as selector:
            selector.register(read_fd, selectors.EVENT_READ)
            try:
                while not self._killed:
                    self._assign(running, selector)
                    with self._lock:
                        if self._closed and not self._queue and not running:
                            return
                    for pool in self._wait(selector, read_fd, running):
                        self._advance(pool, running)
            finally:
                try:
                    self._end(running, read_fd)
                finally:
                    self._ended.set()

    def _assign(
        self, running: dict[LonePool, tuple[Stream, Future[Outcome]]], selector: selectors.BaseSelector
    ) -> None:
        """Give the queued calls to free workers, new ones where there may be more."""
        while len(running) < self._workers:
            with self._lock:
                if not self._queue:
                    return
                call, future = self._queue.popleft()
            if not future.set_running_or_notify_cancel():
                continue
            pool = next((pool for pool in self._pools if pool not in running), None)
            if pool is None:
                pool = LonePool(lambda: _NO_SETUP)
                self._pools.append(pool)
                if (fd := pool.fileno()) is not None:
                    selector.register(fd, selectors.EVENT_READ, pool)
            running[pool] = pool.stream(_INVOKE, [(None, call)]), future
            self._advance(pool, running)

    def _wait(
        self,
        selector: selectors.BaseSelector,
        read_fd: int,
        running: Mapping[LonePool, tuple[Stream, Future[Outcome]]],
    ) -> list[LonePool]:
        """Wait for something to happen; the pools to look at."""
        waits = [wait for pool in running if (wait := pool.patience()) is not None]
        if not running and self._pools:
            waits.append(_LINGER_S)
        keys = selector.select(min(waits, default=None))
        with contextlib.suppress(BlockingIOError):
            os.read(read_fd, 1 << 12)
        if not keys and not running:
            for pool in self._pools:
                if (fd := pool.fileno()) is not None:
                    selector.unregister(fd)
                pool.close(keep=True)
            self._pools.clear()
        for key, _ in keys:  # an idle worker that has ended would be announced for ever
            if key.data in self._pools and key.data not in running:
                key.data.drop()
        return list(running) if waits else [key.data for key, _ in keys if key.data in running]

    def _advance(self, pool: LonePool, running: dict[LonePool, tuple[Stream, Future[Outcome]]]) -> None:
        """Take what a worker has sent; at the end of its call, it is free."""
        stream, future = running[pool]
        try:
            for outcome in stream:
                if outcome is None:
                    return
                future.set_result(outcome)
        except BaseException as exc:  # noqa: BLE001 - no worker can be started, for instance
            future.set_result(_failed(exc))
        del running[pool]

    def _end(self, running: dict[LonePool, tuple[Stream, Future[Outcome]]], read_fd: int) -> None:
        with self._lock:
            self._closed = True
            queue, self._queue = self._queue, deque()
            os.close(read_fd)
            os.close(self._wake_fd)
            self._wake_fd = -1
        for stream, future in running.values():
            stream.close()
            if not future.done():
                future.set_result(Outcome.lost(None, 0.0, 1, "its Pool was terminated"))
        for _, future in queue:
            future.cancel()
        for pool in self._pools:
            pool.close(keep=not self._killed)
        self._pools.clear()


_INVOKE = pl.dumps(_invoke)
_NO_SETUP = pl.dumps(None)
_all: weakref.WeakSet[Dispatcher] = weakref.WeakSet()


def _disown_all() -> None:
    for dispatcher in list(_all):
        dispatcher.disown()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_disown_all)


# ---- the same call, elsewhere


def _run_one(function: Callable[[Any, Any], Any], payload: Any) -> Outcome:
    done: list[Outcome] = []
    with recording_warnings():
        run_block(function, None, PairBlock([(None, payload)]), done.append)
    return done[0]


def _run_packed(call: bytes) -> bytes:
    """In a worker of somebody else's: the outcome travels as text and bytes, whatever their pickler can do."""
    outcome = _run_one(_invoke, call)
    try:
        return bytes(cloudpickle.dumps(outcome, protocol=5))
    except Exception as exc:  # noqa: BLE001 - a value that cannot be pickled
        failed = Outcome(None, OutcomeKind.ERROR, None, result_error(outcome.value, exc))
        return bytes(cloudpickle.dumps(failed, protocol=5))


def call_here(fun: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Future[Outcome]:
    """Run the call in this thread, now."""
    future: Future[Outcome] = Future()
    future.set_result(_run_one(lambda _, __: fun(*args, **kwargs), None))
    return future


def call_elsewhere(
    pool: Any, fun: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Future[Outcome]:
    """Run the call in a pool of another library's: with `submit` (concurrent.futures) or `apply_async`."""
    future: Future[Outcome] = Future()

    def arrived(result: Any) -> None:
        try:
            future.set_result(pickle.loads(result) if isinstance(result, bytes) else result)
        except Exception as exc:  # noqa: BLE001 - a value whose class is not importable here
            future.set_result(_failed(exc))

    if type(pool).__name__ in ("ThreadPoolExecutor", "ThreadPool"):  # the same memory: nothing is to be pickled
        function: Callable[..., Any] = _run_one
        arguments: tuple[Any, ...] = (lambda _, __: fun(*args, **kwargs), None)
    else:
        try:
            function, arguments = _run_packed, (packed_call(fun, args, kwargs),)
        except InvalidTypeError as exc:
            future.set_result(_failed(exc))
            return future
    if callable(getattr(pool, "submit", None)):
        theirs = pool.submit(function, *arguments)
        theirs.add_done_callback(lambda done: _hand_over(done, future, arrived))
    else:
        pool.apply_async(function, arguments, callback=arrived, error_callback=future.set_exception)
    return future


def _hand_over(theirs: Any, ours: Future[Outcome], arrived: Callable[[Any], None]) -> None:
    try:
        arrived(theirs.result())
    except BaseException as exc:  # noqa: BLE001 - cancelled, or a broken pool
        ours.set_exception(exc)
