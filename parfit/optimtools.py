"""The primitives: a parallel map, calls in the background, and data that stays in the workers that loaded it.

Functions defined anywhere will do (lambdas, closures, cells of a notebook, a script without a main guard), results
keep the order of the input, and an exception in a worker is raised here, as what it is, with the worker's traceback as
its cause. Inside a worker of parfit's the same calls run serially, with one warning.
"""

from __future__ import annotations

import importlib
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, Self

from parfit.core.errors import InvalidInputError, InvalidTypeError
from parfit.core.solution import Outcome, OutcomeKind, WarningText
from parfit.executors import resolve
from parfit.executors.answers import exception, warn_again
from parfit.executors.background import Dispatcher, call_elsewhere, call_here
from parfit.executors.cpus import cpu_count, worker_count
from parfit.executors.keeping.resident import ProducerConsumer
from parfit.executors.pending import AsyncResult

if TYPE_CHECKING:
    from parfit.core.protocols import Executor
    from parfit.solvers.spsa import SPSA

__all__ = ["SPSA", "AsyncResult", "Pool", "ProducerConsumer", "async_apply", "async_map", "cpu_count"]


def __getattr__(name: str) -> Any:
    if name == "SPSA":  # not needed by the rest, and not free to import
        return importlib.import_module("parfit.solvers.spsa").SPSA
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def async_map(fun: Callable[[Any], Any], args: Iterable[Any], ncpu: int | None = None) -> list[Any]:
    """``[fun(arg) for arg in args]``, over all cores.

    Parameters
    ----------
    fun
        Called in worker processes with one argument.
    args
        The arguments, one each; pulled as they are needed.
    ncpu
        The number of worker processes; by default `cpu_count()`.

    Returns
    -------
    list
        In the order of `args`.

    Raises
    ------
    Exception
        What `fun` raised, for the first of `args` in their order; its cause is the worker's traceback. Calls that are
        under way are finished before, no others are begun, and the workers live on.
    WorkerLostError
        Where the process died under the same argument twice.

    Examples
    --------
    >>> from parfit import async_map
    >>> async_map(lambda x: x**2, range(5))
    [0, 1, 4, 9, 16]
    """
    _check_map("async_map(fun, args)", fun, args)
    recipe = resolve("processes", None if ncpu is None else worker_count(ncpu, "ncpu"))
    return _map(recipe, fun, args, retries=1, stacklevel=2)


class Pool:
    """Worker processes for a map and for calls in the background.

    Use it in a ``with``, or end it by `close`, by `terminate` or by dropping it. The ``with`` waits at its end for the
    calls in the background, like that of `concurrent.futures`, so that none is lost; the one of
    `multiprocessing.Pool` ends them. An exception that leaves the ``with``, and a Ctrl-C while it waits, ends them.

    Parameters
    ----------
    ncpu
        The number of worker processes; by default `cpu_count()`. They are started when they are needed. A map beside
        calls in the background has as many of its own.

    Notes
    -----
    A call whose worker dies raises `WorkerLostError`, and the pool lives on; no call is run twice.

    Examples
    --------
    >>> from parfit import Pool
    >>> with Pool(2) as pool:
    ...     later = pool.apply_async(pow, (2, 10))
    ...     squares = pool.map(lambda x: x**2, [1, 2, 3])
    ...     squares, later.get()
    ([1, 4, 9], 1024)
    """

    def __init__(self, ncpu: int | None = None) -> None:
        n = worker_count(ncpu, "ncpu")
        self._recipe: Executor = resolve("processes", n)
        self._here = not self._recipe.capabilities.own_process
        self._dispatcher = Dispatcher(n)
        # At exit too. The dispatcher does not know the pool: a reference would keep it from ever being dropped.
        self._finalizer = weakref.finalize(self, self._dispatcher.terminate)

    def map(self, fun: Callable[[Any], Any], iterable: Iterable[Any], chunksize: int | None = None) -> list[Any]:  # noqa: ARG002 - by cost
        """``[fun(x) for x in iterable]``; raises as `async_map`. How many travel together follows their cost."""
        self._dispatcher.check_open()
        _check_map("map(fun, iterable)", fun, iterable)
        return _map(self._recipe, fun, iterable, retries=0, stacklevel=2)

    def starmap(
        self,
        fun: Callable[..., Any],
        iterable: Iterable[Iterable[Any]],
        chunksize: int | None = None,  # noqa: ARG002
    ) -> list[Any]:
        """``[fun(*x) for x in iterable]``; as `map`."""
        self._dispatcher.check_open()
        _check_map("starmap(fun, iterable)", fun, iterable)
        return _map(self._recipe, _Starred(fun), iterable, retries=0, stacklevel=2)

    def imap(self, fun: Callable[[Any], Any], iterable: Iterable[Any], chunksize: int | None = None) -> Iterator[Any]:  # noqa: ARG002
        """Yield the results in order, each as soon as it and all before it are there; the first exception ends it."""
        self._dispatcher.check_open()
        _check_map("imap(fun, iterable)", fun, iterable)
        return _imap(self._recipe, fun, iterable)

    def imap_unordered(
        self,
        fun: Callable[[Any], Any],
        iterable: Iterable[Any],
        chunksize: int | None = None,  # noqa: ARG002
    ) -> Iterator[Any]:
        """Yield the results as they come; the first exception ends it."""
        self._dispatcher.check_open()
        _check_map("imap_unordered(fun, iterable)", fun, iterable)
        return _imap_unordered(self._recipe, fun, iterable)

    def apply(self, fun: Callable[..., Any], args: Iterable[Any] = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        """``fun(*args, **kwargs)``, in a worker."""
        return self.apply_async(fun, args, kwargs).get()

    def apply_async(
        self,
        fun: Callable[..., Any],
        args: Iterable[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        callback: Callable[[Any], None] | None = None,
        error_callback: Callable[[BaseException], None] | None = None,
    ) -> AsyncResult:
        """Have ``fun(*args, **kwargs)`` run in a worker, and return at once.

        Parameters
        ----------
        fun, args, kwargs
            The call, which travels as it is now.
        callback, error_callback
            Called with the result, or the exception, in a thread of the pool's; they are to be quick.
        """
        self._dispatcher.check_open()
        call = _checked_call(fun, args, kwargs)
        future = call_here(*call) if self._here else self._dispatcher.submit(*call)
        result = AsyncResult(future, self, fun)
        if callback is not None or error_callback is not None:
            result.add_done_callback(lambda done: _call_back(done, callback, error_callback))
        return result

    def submit(self, fun: Callable[..., Any], /, *args: Any, **kwargs: Any) -> AsyncResult:
        """As `apply_async`, in the words of `concurrent.futures`."""
        return self.apply_async(fun, args, kwargs)

    def close(self) -> None:
        """Take no more calls; those that are waiting will be run."""
        self._dispatcher.close()

    def join(self) -> None:
        """Wait for the last call; to be called after `close` or `terminate`."""
        if not self._dispatcher.closed:
            raise InvalidInputError("join() waits for the last call: call close() or terminate() first")
        self._dispatcher.join()

    def terminate(self) -> None:
        """End the workers now. Calls that are running are lost, those that are waiting are cancelled."""
        self._dispatcher.terminate()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """`close`, and `join` where `wait` is True, in the words of `concurrent.futures`."""
        if cancel_futures:
            self._dispatcher.cancel_waiting()
        self.close()
        if wait:
            self.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        try:
            if kind is None:
                self.shutdown()
        finally:  # also at a Ctrl-C while it waits
            self.terminate()

    def __reduce__(self) -> NoReturn:
        raise InvalidTypeError("a Pool cannot be sent to its workers: is it in the closure of the function?")


def async_apply(
    pool: Any, fun: Callable[..., Any], args: Iterable[Any] = (), kwargs: Mapping[str, Any] | None = None
) -> AsyncResult:
    """Have ``fun(*args, **kwargs)`` run in a pool, and return at once.

    Parameters
    ----------
    pool
        A `Pool`, a pool of `multiprocessing`, or an executor with the interface of `concurrent.futures`.
    fun, args, kwargs
        The call. `fun` may be a lambda or a closure in each of these pools, too.

    Returns
    -------
    AsyncResult
        With `get`, `ready`, `wait`, `successful`, `result`.

    Examples
    --------
    >>> from parfit import Pool, async_apply
    >>> with Pool(2) as pool:
    ...     results = [async_apply(pool, lambda x, y: x * y, (i, 10)) for i in range(3)]
    ...     [result.get() for result in results]
    [0, 10, 20]
    """
    if isinstance(pool, Pool):
        return pool.apply_async(fun, args, kwargs)
    if isinstance(pool, type) or not any(callable(getattr(pool, name, None)) for name in ("submit", "apply_async")):
        given = f"the class {pool.__name__}" if isinstance(pool, type) else type(pool).__name__
        hint = "; the pool comes first: async_apply(pool, fun, args)" if isinstance(fun, Pool) else ""
        raise InvalidTypeError(
            f"pool must be a parfit.Pool, a multiprocessing Pool or a concurrent.futures executor, not {given}{hint}"
        )
    return AsyncResult(call_elsewhere(pool, *_checked_call(fun, args, kwargs)), pool, fun)


def _check_map(signature: str, fun: Any, items: Any) -> None:
    """Refuse what is no function, and what has no items."""
    if not callable(fun):
        hint = f"; the function comes first: {signature}" if callable(items) else ""
        raise InvalidTypeError(f"fun must be callable, not {type(fun).__name__}{hint}")
    if not isinstance(items, Iterable) and not hasattr(items, "__getitem__"):
        name = signature.split()[-1].rstrip(")")
        raise InvalidTypeError(
            f"{name} must be a collection of arguments, one for each call, not {type(items).__name__}"
        )


def _checked_call(fun: Any, args: Any, kwargs: Any) -> tuple[Callable[..., Any], tuple[Any, ...], Mapping[str, Any]]:
    """A call in the background, its arguments as a tuple and a mapping."""
    if not callable(fun):
        raise InvalidTypeError(f"fun must be callable, not {type(fun).__name__}")
    if isinstance(args, (str, bytes, Mapping)) or not isinstance(args, Iterable):
        raise InvalidTypeError(
            f"args must be a tuple of arguments, not {type(args).__name__}: (value,) for a single one"
        )
    if kwargs is not None and not isinstance(kwargs, Mapping):
        raise InvalidTypeError(f"kwargs must be a mapping from name to value, not {type(kwargs).__name__}")
    return fun, tuple(args), kwargs or {}


def _call_back(
    done: AsyncResult,
    callback: Callable[[Any], None] | None,
    error_callback: Callable[[BaseException], None] | None,
) -> None:
    if done.cancelled():
        return
    if done.successful():
        if callback is not None:
            callback(done.get())
    elif error_callback is not None and (error := done.exception()) is not None:
        error_callback(error)


# ---- maps


class _Each:
    """A task's function: the user's, on the payload."""

    def __init__(self, fun: Callable[[Any], Any]) -> None:
        self._fun = fun

    def __call__(self, _: Any, item: Any) -> Any:
        return self._fun(item)


class _Starred:
    """The user's function, called with the entries of one argument."""

    def __init__(self, fun: Callable[..., Any]) -> None:
        self._fun = fun

    def __call__(self, item: Iterable[Any]) -> Any:
        return self._fun(*item)


class _Numbered:
    """The items with their numbers, until `stop`."""

    def __init__(self, items: Iterable[Any]) -> None:
        self._items = iter(items)
        self._next = 0
        self.stopped = False

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> tuple[int, Any]:
        if self.stopped:
            raise StopIteration
        pair = self._next, next(self._items)
        self._next += 1
        return pair


class _Counted(_Numbered):
    """As `_Numbered`, of a known number."""

    def __init__(self, items: Any) -> None:
        super().__init__(items)
        self._len = len(items)

    def __len__(self) -> int:
        return self._len


def _numbered(items: Iterable[Any]) -> _Numbered:
    return _Counted(items) if isinstance(items, Sized) else _Numbered(items)


def _map(
    recipe: Executor, fun: Callable[[Any], Any], items: Iterable[Any], *, retries: int, stacklevel: int
) -> list[Any]:
    """The results in order, or the exception of the first item that has one.

    Items are begun in their order: when one has failed, all before it have been begun, and the first failure is known
    when these have ended.
    """
    source = _numbered(items)
    values: dict[int, Any] = {}
    failed: Outcome | None = None
    texts: list[WarningText] = []
    with recipe.open(retries=retries) as workers:
        for outcome in workers.imap_unordered(_Each(fun), source):
            texts += outcome.warnings
            if outcome.kind is OutcomeKind.DONE:
                values[outcome.key] = outcome.value
            elif failed is None or outcome.key < failed.key:
                failed, source.stopped = outcome, True
    warn_again(texts, stacklevel + 1)
    if failed is not None:
        raise exception(failed, f"item {failed.key}")
    return [values[i] for i in range(len(values))]


def _imap_unordered(recipe: Executor, fun: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
    for outcome in _outcomes(recipe, fun, items):
        if outcome.kind is not OutcomeKind.DONE:
            raise exception(outcome, f"item {outcome.key}")
        yield outcome.value


def _imap(recipe: Executor, fun: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
    waiting: dict[int, Outcome] = {}
    at = 0
    for outcome in _outcomes(recipe, fun, items):
        waiting[outcome.key] = outcome
        while (found := waiting.pop(at, None)) is not None:
            if found.kind is not OutcomeKind.DONE:
                raise exception(found, f"item {at}")
            yield found.value
            at += 1


def _outcomes(recipe: Executor, fun: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Outcome]:
    with recipe.open(retries=0) as workers:
        for outcome in workers.imap_unordered(_Each(fun), _numbered(items)):
            warn_again(outcome.warnings, stacklevel=4)
            yield outcome
