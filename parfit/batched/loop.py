"""The loop over rows: the only file that knows of the batch axis.

    block (N rows: data, start, bounds; state; `order`: which row of the data each state belongs to)
      │ one program, `advance`, compiled for N:
      │    for each chunk of C rows:  take C states and their data ─▶ up to K steps ─▶ put the states back
      ▼
    rows that ended ─▶ handed out, for scalars with their Hessians (a second program)
    the others      ─▶ moved together, so that chunks are full again ─▶ `advance`, or left over for a later block

C is constant for a problem, so that the arithmetic of a row is the same whatever its neighbours, and how many of
them there are. N is one of few sizes, so that few programs are compiled; how many chunks are done is an argument.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from numpy.typing import NDArray

from parfit.batched.blocks import Block, Ended, Finished, at, padded
from parfit.batched.compiled import compiled, precision
from parfit.batched.ends import End
from parfit.batched.lane import Lane
from parfit.batched.staging import Staging
from parfit.core.protocols import BatchedSolver

__all__ = ["Loop", "chunk_width"]

Tree = Any

#: How many bytes of residuals a chunk holds (`benchmarks/chunk_width.py`): the arrays of a step stay in the second
#: level of the cache, and are long enough for what each operation costs to begin.
_CHUNK_BYTES = 1 << 19
_LEAST_WIDTH, _MOST_WIDTH = 32, 256
#: Objectives that integrate over time keep all that they carry, with its derivatives, for each row of a chunk.
_MOST_INTEGRATING = 128
_ACCELERATOR_WIDTH = 1 << 16
#: Steps between two looks at which rows have ended.
_STEPS = 10
#: A chunk is done with, for now, where no more than one in so many of its rows still run: these are moved together.
_FEW = 8
#: How long a call into a compiled program may take, s.
_CALL_S = 0.1
#: Sizes of blocks, in chunks.
_SIZES = (1, 8, 32)

_staging = Staging()


def chunk_width(numbers: int, itemsize: int, *, loops: bool = False) -> int:
    """How many rows go through a step together, for rows of so many numbers of so many bytes; a power of two.

    Parameters
    ----------
    loops
        Whether the objective holds loops.
    """
    if jax.default_backend() != "cpu":
        return _ACCELERATOR_WIDTH
    width, most = _LEAST_WIDTH, _MOST_INTEGRATING if loops else _MOST_WIDTH
    while width < most and 2 * width * max(numbers, 1) * itemsize <= _CHUNK_BYTES:
        width *= 2
    return width


@dataclass(frozen=True, eq=False)
class Loop:
    """The programs for one problem and one shape of data.

    Attributes
    ----------
    solver
        The mathematics of one row.
    lane
        Makes the `Lane` of one row from its part of `rows`.
    extra
        ``extra(lane, x)``: what else is wanted of a row at its solution; None for nothing.
    example
        The shapes and types of one row's part of `rows`, without a leading axis.
    width
        The number of rows in a chunk, C.
    double
        Whether numbers have 64 bits.
    """

    solver: BatchedSolver
    lane: Callable[[Tree], Lane]
    extra: Callable[[Lane, Any], Any] | None
    example: Tree
    width: int
    double: bool
    _programs: dict[tuple[str, int], Any] = field(default_factory=dict, init=False, repr=False)
    _pace: _Pace = field(default_factory=lambda: _Pace(), init=False, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False)

    # ---- one row

    def _init(self, row: Tree) -> Any:
        return self.solver.init(self.lane(row))

    def _step(self, row: Tree, state: Any) -> Any:
        lane = self.lane(row)
        new = self.solver.step(lane, state)
        new = new._replace(end=self.solver.terminate(lane, new))
        running = state.end == int(End.RUNNING)
        return jax.tree.map(lambda a, b: jnp.where(running, a, b), new, state)

    def _extra(self, row: Tree, x: Any) -> Any:
        assert self.extra is not None
        return self.extra(self.lane(row), x)

    @cached_property
    def _state_example(self) -> Any:
        with precision(self.double):
            return jax.eval_shape(self._init, self.example)

    # ---- all rows

    def _taken(self, tree: Tree, j: Any) -> Tree:
        return jax.tree.map(lambda a: lax.dynamic_slice_in_dim(a, j * self.width, self.width), tree)

    def _put(self, tree: Tree, part: Tree, j: Any) -> Tree:
        return jax.tree.map(lambda a, b: lax.dynamic_update_slice_in_dim(a, b, j * self.width, 0), tree, part)

    def _rows_of(self, rows: Tree, order: Any, j: Any) -> Tree:
        chosen = lax.dynamic_slice_in_dim(order, j * self.width, self.width)
        return jax.tree.map(lambda a: a.at[chosen].get(mode="promise_in_bounds"), rows)

    def _advance(
        self, rows: Tree, state: Any, order: Any, fresh: Any, begin: Any, end: Any, count: Any, k: Any, few: Any
    ) -> Any:
        """Up to `k` steps for the chunks `begin` to `end`, as long as more than `few` of their rows run.

        The rows from `count` on do not exist.
        """

        def chunk(carry: Any) -> Any:
            j, state = carry
            part, own = self._taken(state, j), self._rows_of(rows, order, j)
            part = lax.cond(fresh, lambda _: jax.vmap(self._init)(own), lambda s: s, part)
            there = j * self.width + jnp.arange(self.width) < count
            part = part._replace(end=jnp.where(there, part.end, int(End.LIMIT)))

            def go_on(c: Any) -> Any:
                return (c[0] < k) & (jnp.sum(c[1].end == int(End.RUNNING), dtype=jnp.int32) > few)

            def steps(c: Any) -> Any:
                return c[0] + 1, jax.vmap(self._step)(own, c[1])

            _, part = lax.while_loop(go_on, steps, (jnp.zeros((), k.dtype), part))
            return j + 1, self._put(state, part, j)

        return lax.while_loop(lambda c: c[0] < end, chunk, (begin, state))[1]

    def _extras(self, rows: Tree, x: Any, order: Any, chunks: Any) -> Any:
        example = jax.eval_shape(self._extra, self.example, jax.ShapeDtypeStruct(x.shape[1:], x.dtype))
        made = jax.tree.map(lambda a: jnp.zeros((len(x), *a.shape), a.dtype), example)

        def chunk(carry: Any) -> Any:
            j, made = carry
            part = jax.vmap(self._extra)(self._rows_of(rows, order, j), self._taken(x, j))
            return j + 1, self._put(made, part, j)

        return lax.while_loop(lambda c: c[0] < chunks, chunk, (jnp.zeros((), chunks.dtype), made))[1]

    @property
    def row_bytes(self) -> int:
        """What the data, start and bounds of one row take."""
        return sum(a.size * a.dtype.itemsize for a in jax.tree.leaves(self.example))

    @property
    def most(self) -> int:
        """The most rows in a block."""
        return _SIZES[-1] * self.width

    def size_for(self, kind: str, rows: int) -> int:
        """The number of rows, N, of the program that a block of so many runs in: one that is there, if any is."""
        sizes = [size * self.width for size in _SIZES]
        fitting = [size for size in sizes if rows <= size] or sizes[-1:]
        return next((size for size in fitting if (kind, size) in self._programs), fitting[0])

    def compile_for(self, rows: int) -> None:
        """Have the program of the steps for blocks of so many rows, which shorter ones then run in, too."""
        self.advance(self.size_for("advance", rows))

    def advance(self, size: int) -> Callable[..., Any]:
        """The program of the steps, for blocks of `size` rows."""
        program: Callable[..., Any]
        i = jax.ShapeDtypeStruct((), np.int32)
        flag = jax.ShapeDtypeStruct((), np.bool_)
        order = jax.ShapeDtypeStruct((size,), np.int32)
        rows, state = (self._many(tree, size) for tree in (self.example, self._state_example))
        program = self._kept(
            ("advance", size),
            lambda: compiled(self._advance, rows, state, order, flag, i, i, i, i, i, donate=(1,)),
        )
        return program

    def extras(self, rows: Tree, x: NDArray[Any]) -> Any:
        """What `extra` gives for rows at their solutions, shape (k, n)."""
        # No program for a single chunk: that of several does it as fast.
        size = self.size_for("extras", max(len(x), self.width + 1))
        i, order = jax.ShapeDtypeStruct((), np.int32), np.arange(size, dtype=np.int32)
        shapes = (self._many(self.example, size), jax.ShapeDtypeStruct((size, *x.shape[1:]), x.dtype))
        with precision(self.double):
            program = self._kept(("extras", size), lambda: compiled(self._extras, *shapes, order, i))
            parts = []
            for at in range(0, len(x), size):
                chosen = slice(at, at + size)
                mine = jax.tree.map(lambda a: padded(a[chosen], size), rows)  # noqa: B023
                count = len(x[chosen])
                made = program(mine, padded(x[chosen], size), order, np.int32(-(-count // self.width)))
                parts.append(jax.tree.map(lambda a: np.asarray(a)[:count], made))  # noqa: B023
            return jax.tree.map(lambda *each: np.concatenate(each), *parts)

    def costs(self, rows: Tree, x: NDArray[Any]) -> NDArray[Any]:
        """What is minimised, for rows at the parameters `x`, shape (k, n)."""
        size = self.size_for("advance", len(x))
        advance, order = self.advance(size), np.arange(size, dtype=np.int32)
        found = []
        with precision(self.double):
            for begin in range(0, len(x), size):
                count = len(x[begin : begin + size])
                mine = {**at(rows, np.arange(begin, begin + count)), "start": x[begin : begin + count]}
                mine = jax.tree.map(lambda a: padded(a, size), mine)
                block = Block(np.arange(size), mine, None)
                numbers = (np.int32(0), np.int32(-(-count // self.width)), np.int32(count), np.int32(1), np.int32(0))
                state = advance(mine, self._start(block, size), order, np.bool_(True), *numbers)
                found.append(np.asarray(state.start_cost)[:count])
        return np.concatenate(found)

    def _kept(self, key: tuple[str, int], make: Callable[[], Any]) -> Any:
        """A program, made once, by whichever thread is the first to want it."""
        with self._lock:
            if key not in self._programs:
                with precision(self.double):
                    self._programs[key] = make()
            return self._programs[key]

    def _many(self, tree: Tree, size: int) -> Tree:
        return jax.tree.map(lambda a: jax.ShapeDtypeStruct((size, *a.shape), a.dtype), tree)

    def run(self, block: Block, stop: Callable[[], bool], leave: Callable[[int], bool]) -> Iterator[Finished | Block]:
        """Take a block to its end.

        Parameters
        ----------
        stop
            Whether to end at once; asked about every 0.1 s.
        leave
            Whether so few rows that still run are to be handed back, as a `Block`, to be merged with others.

        Yields
        ------
        Finished
            Rows that have ended, as they do.
        Block
            Those that have not, at the end, where `leave` said so.
        """
        size = self.size_for("advance", len(block))
        staged = jax.tree.map(lambda a: _staging.take(a, size), block.rows)
        try:
            yield from self._run(block, staged, size, stop, leave)
        finally:
            _staging.give_back(jax.tree.leaves(staged))

    def _run(
        self, block: Block, staged: Tree, size: int, stop: Callable[[], bool], leave: Callable[[int], bool]
    ) -> Iterator[Finished | Block]:
        advance = self.advance(size)
        with precision(self.double):
            rows = jax.device_put(staged)
            state, fresh = self._start(block, size), block.state is None
            order, count = np.arange(size, dtype=np.int32), len(block)
            while True:
                chunks = -(-count // self.width)
                few = self.width // _FEW
                few = few if chunks > 1 or leave(few) else 0
                for begin, end in self._pace.ranges(chunks):
                    started, first, last = time.perf_counter(), begin * self.width, min(end * self.width, count)
                    numbers = tuple(map(np.int32, (begin, end, count, _STEPS, few)))
                    begun = not fresh
                    while True:
                        state = jax.block_until_ready(advance(rows, state, order, np.bool_(not begun), *numbers))
                        begun = True
                        running = np.asarray(state.end)[first:last] == int(End.RUNNING)
                        if stop() or not (np.add.reduceat(running, range(0, len(running), self.width)) > few).any():
                            break
                    done = first + np.flatnonzero(~running)
                    if len(done):
                        yield self._finished(block, order, state, done, time.perf_counter() - started)
                    if stop():
                        return
                fresh = False
                going = np.flatnonzero(np.asarray(state.end)[:count] == int(End.RUNNING))
                if not len(going):
                    return
                state, order = jax.tree.map(lambda a: np.asarray(a)[going], state), order[going]  # noqa: B023
                if leave(len(going)):
                    yield Block(block.positions[order], at(block.rows, order), state)
                    return
                state = jax.tree.map(lambda a: padded(a, size), state)
                order, count = padded(order, size), len(going)

    def _finished(
        self, block: Block, order: NDArray[np.int32], state: Any, done: NDArray[np.intp], seconds: float
    ) -> Finished:
        # indexing copies: the programs write the next state over this one
        read = {name: np.asarray(getattr(state, name))[done] for name in Ended._fields if hasattr(state, name)}
        own, ended = order[done], Ended(**read)
        extra = None if self.extra is None else self.extras(at(block.rows, own), ended.x)
        share = ended.nfev / max(int(ended.nfev.sum()), 1)
        return Finished(block.positions[own], block, own, ended, extra, seconds * share)

    def _start(self, block: Block, size: int) -> Any:
        if block.state is not None:
            return jax.tree.map(lambda a: padded(a, size), block.state)
        return jax.tree.map(lambda a: np.zeros((size, *a.shape), a.dtype), self._state_example)


class _Pace:
    """How many chunks a call does: about `_CALL_S` long, so that an interrupt does not wait."""

    def __init__(self) -> None:
        self._chunks = 1

    def ranges(self, chunks: int) -> Iterator[tuple[int, int]]:
        """Ranges of chunks, whose time is what the caller takes for each."""
        begin = 0
        while begin < chunks:
            n = min(self._chunks, chunks - begin)
            started = time.perf_counter()
            yield begin, begin + n
            seconds = max(time.perf_counter() - started, 1e-6)
            self._chunks = max(1, min(int(n * _CALL_S / seconds), 16 * n))
            begin += n
