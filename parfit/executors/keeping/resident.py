"""`ProducerConsumer`: one parameter set scored over all data, which stays in the workers that loaded it.

init_data ── dealt out, 0 1 2 0 1 2 … ──▶ worker k: init_function(item), once, kept
run(p)    ── p ─────────────────────────▶ worker k: process_function(p, loaded) for each of its items ──▶ in order
"""

from __future__ import annotations

import functools
import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Any, Self

import cloudpickle

from parfit.core.errors import InvalidInputError, InvalidTypeError, ParfitWarning
from parfit.core.protocols import Block
from parfit.core.solution import Outcome, OutcomeKind, WarningText
from parfit.executors.answers import exception, shown, warn_again
from parfit.executors.baggage import unsendable
from parfit.executors.chunking import PairBlock
from parfit.executors.cpus import worker_count
from parfit.executors.keeping import shelf
from parfit.executors.keeping.shards import Call, SerialShards, Shards
from parfit.executors.limits import time_limit, whole_number
from parfit.executors.running import in_worker

__all__ = ["ProducerConsumer"]


class _Positions:
    """A task for each dataset, as `Tasks`; `stop` ends them."""

    def __init__(self, n: int) -> None:
        self._left = iter(range(n))

    def take(self, n: int) -> Block | None:
        pairs = [(at, at) for at, _ in zip(self._left, range(n), strict=False)]
        return PairBlock(pairs) if pairs else None


class ProducerConsumer:
    """Data that is loaded once, by the workers that keep it, and scored with one parameter set after the other.

    The items of `init_data` are dealt out over the workers, item by item; each worker calls `init_function` on its
    own and keeps what that returns. `run` sends the parameters, a few bytes, and all workers score their items at the
    same time. The workers are started, and the data is loaded, by the first `run`.

    Parameters
    ----------
    init_function
        ``init_function(item)`` returns a loaded item. Called in a worker, once for each item; again only where that
        worker has been lost.
    init_data
        The items: paths, say.
    process_function
        ``process_function(params, loaded_item)`` returns the score, or anything else that pickles. Each call has a
        copy of `params` of its own; the loaded item is the one that is kept.
    n_cores
        The number of workers; by default `cpu_count()`, and never more than there are items.
    timeout
        The limit for each call of `process_function`, s; by default there is none.
    load_timeout
        The limit for each call of `init_function`, s; by default there is none.
    retries
        How often a call whose worker died is made again.

    Notes
    -----
    A worker that dies, or is stopped at its limit, is replaced by one that loads the same share again. The object may
    be used in a ``with``; else `shut_down` ends the workers, and so does dropping it. It is for one thread at a time:
    a second `run` waits for the first.

    Examples
    --------
    >>> from parfit import ProducerConsumer
    >>> with ProducerConsumer(float, ["1.0", "2.5"], lambda p, x: (p - x) ** 2, n_cores=2) as scores:
    ...     scores.run(2.0)
    [1.0, 0.25]
    """

    def __init__(
        self,
        init_function: Callable[[Any], Any],
        init_data: Iterable[Any],
        process_function: Callable[[Any, Any], Any],
        n_cores: int | None = None,
        *,
        timeout: float | None = None,
        load_timeout: float | None = None,
        retries: int = 1,
    ) -> None:
        for name, function in (("init_function", init_function), ("process_function", process_function)):
            if not callable(function):
                raise InvalidTypeError(
                    f"{name} must be callable, not {type(function).__name__}; the order is "
                    "ProducerConsumer(init_function, init_data, process_function)"
                )
        self._items = _items(init_data)
        self._functions = init_function, process_function
        self._timeout = time_limit("timeout", timeout)
        self._load_timeout = time_limit("load_timeout", load_timeout)
        self._retries = whole_number("retries", retries)
        self._n_cores = n_cores
        self._closed = False
        self._shards: Shards | SerialShards
        workers = worker_count(n_cores, "n_cores")
        if in_worker():
            message = "ProducerConsumer inside a worker process: running serially there, without time limits"
            warnings.warn(message, ParfitWarning, stacklevel=2)
            self._shards = SerialShards(init_function)
        else:
            self._shards = Shards(len(self._items), workers, init_function, self._load_timeout, interleave=True)
            self._finalizer = weakref.finalize(self, self._shards.close, wait=False)  # at exit too

    def __len__(self) -> int:
        return len(self._items)

    def run(self, params: Any, timeout: float | None = None) -> list[Any]:
        """Score all items.

        Parameters
        ----------
        params
            Anything that pickles.
        timeout
            In the place of the limit that the object was made with, s.

        Returns
        -------
        list
            ``process_function(params, loaded_item)`` for each item, in the order of `init_data`.

        Raises
        ------
        Exception
            What `process_function` or `init_function` raised, with the worker's traceback as its cause and a note that
            names the item. Where several items fail at about the same time, the first of them. The workers live on.
        TaskTimeoutError, WorkerLostError
            Naming the item.
        InvalidInputError
            After `shut_down`.
        """
        if self._closed:
            raise InvalidInputError("this ProducerConsumer has been shut down: make a new one")
        limit = self._timeout if timeout is None else time_limit("timeout", timeout)
        call = Call(
            shelf.Score(_packed(params)), self._slice, shelf.Scorer(self._functions[1]), limit, self._retries, False
        )
        values: list[Any] = [None] * len(self._items)
        failed: Outcome | None = None
        texts: list[WarningText] = []
        for outcome, stop in self._outcomes(call):
            texts += outcome.warnings
            if outcome.kind is OutcomeKind.DONE:
                values[outcome.key] = outcome.value
            elif failed is None or outcome.key < failed.key:
                failed = outcome
                stop()
        warn_again([*call.warnings, *texts], stacklevel=2)
        if failed is not None:
            raise exception(failed, shown(failed.key, self._items[failed.key]))
        return values

    def _outcomes(self, call: Call) -> Iterator[tuple[Outcome, Callable[[], None]]]:
        """The outcomes, each with what makes it the last one that is waited for."""
        n = len(self._items)
        if isinstance(self._shards, SerialShards):
            stopped = False

            def stop() -> None:
                nonlocal stopped
                stopped = True

            for outcome in self._shards.run(call, ((at, at) for at in range(n) if not stopped), n):
                yield outcome, stop
            return
        router = self._shards.router(_Positions(n))
        for outcome in self._shards.run(call, router):
            yield outcome, router.stop

    def _slice(self, start: int, stop: int) -> list[Any]:
        return self._items[start:stop]

    def shut_down(self) -> None:
        """End the workers; what they have loaded is gone."""
        self._closed = True
        if isinstance(self._shards, Shards):
            self._shards.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self.shut_down()

    def __reduce__(self) -> Any:
        """In another process it is one that has yet to load its data."""
        limits: dict[str, Any] = {
            "timeout": self._timeout,
            "load_timeout": self._load_timeout,
            "retries": self._retries,
        }
        return functools.partial(type(self), **limits), (
            self._functions[0],
            self._items,
            self._functions[1],
            self._n_cores,
        )

    def __repr__(self) -> str:
        state = "shut down" if self._closed else f"{len(self._items)} items"
        return f"<ProducerConsumer: {state}>"


def _items(init_data: Iterable[Any]) -> list[Any]:
    if isinstance(init_data, (str, bytes)):
        raise InvalidTypeError(
            f"init_data must be a collection of items, not a {type(init_data).__name__}: [{init_data!r}]?"
        )
    if hasattr(init_data, "iterrows"):
        raise InvalidTypeError(
            "init_data is a DataFrame, whose items would be the names of its columns: "
            "[row for _, row in df.iterrows()], or [group for _, group in df.groupby(…)]"
        )
    try:
        return list(init_data)
    except TypeError:
        raise InvalidTypeError(f"init_data must be a collection of items, not {type(init_data).__name__}") from None


def _packed(params: Any) -> bytes:
    try:
        return bytes(cloudpickle.dumps(params, protocol=5))
    except Exception as exc:
        raise InvalidTypeError(unsendable("params", params, exc)) from exc
