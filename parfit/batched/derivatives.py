"""Exact derivatives of an objective, one dataset at a time, for the methods of SciPy.

    caller: Derivative(objective, …).learn(start, dataset) ── pickled ─▶ worker: .compile(), then for each call of SciPy
              │ traces, compiles, compares with a plain call                       dataset ─▶ form ─▶ program ─▶ numbers
              ▼
            InvalidInputError, before any worker starts

A program suits all datasets of one form (the same labels, fields and shapes of arrays), and is compiled for the first
of them. Everything runs on the CPU, in double precision.
"""

from __future__ import annotations

import contextlib
import functools
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import NDArray

from parfit.batched.calculus import (
    Function,
    all_used,
    candidates,
    cost_of,
    differs,
    gradient,
    hessian,
    reason,
)
from parfit.batched.compiled import compiled, precision
from parfit.batched.tracing.feeds import Feed, read_one
from parfit.batched.tracing.traced import Traced
from parfit.batched.tracing.untraceable import Untraceable
from parfit.core.errors import InvalidInputError
from parfit.core.structure import Structure

__all__ = ["Derivative"]

FloatArray = NDArray[np.float64]

#: So many forms of datasets keep their programs.
_KEPT = 64
#: Frames are padded to a power of two, from this on.
_LEAST_LENGTH = 8


def _slope(function: Function, z: Array) -> tuple[Array, Array]:
    """The value, and the gradient, shape (n,), or the Jacobian, shape (m, n)."""
    if jax.eval_shape(function, z).ndim == 0:
        return function(z), gradient(function)(z)
    try:
        push: Any = jax.vmap(lambda e: jax.jvp(function, (z,), (e,)), out_axes=(None, 1))
        value, columns = push(jnp.eye(len(z), dtype=z.dtype))
        return value, columns
    except TypeError:  # a function that has a derivative of its own, by reverse mode only
        return function(z), jax.jacrev(function)(z)


#: What there is a program for.
_KINDS: dict[str, Callable[[Function, Array], Any]] = {
    "value": lambda function, z: function(z),
    "slope": _slope,
    "curvature": lambda function, z: hessian(lambda x: cost_of(function(x)))(z),
}


@functools.cache
def _cpu() -> jax.Device | None:
    """Where to run; None for where JAX runs in any case."""
    if jax.default_backend() != "cpu":
        with contextlib.suppress(RuntimeError):  # JAX was told to do without
            return jax.local_devices(backend="cpu")[0]
    return None


@contextlib.contextmanager
def _here() -> Iterator[None]:
    """In double precision, on the CPU: a single dataset is too little for an accelerator."""
    device = _cpu()
    with precision(True), contextlib.nullcontext() if device is None else jax.default_device(device):
        yield


def _compiled(function: Function, *examples: Any) -> Function:
    if _cpu() is None:
        return compiled(all_used(function), *examples)
    program: Function = jax.jit(function).lower(*examples).compile()  # executables are kept for the accelerator only
    return program


class _Read(NamedTuple):
    """A dataset as arrays; how they are nested; and what they are padded to, 0 where nothing is."""

    feed: Feed
    leaves: list[Array]
    nesting: Any
    length: int

    @property
    def is_single(self) -> bool:
        return any(leaf.dtype in (np.float32, np.float16) for leaf in self.leaves)

    def cut(self, residuals: NDArray[Any]) -> NDArray[Any]:
        """Of residuals, or their Jacobian, what is no padding."""
        m, *rest = residuals.shape
        if not self.length or m % self.length or self.feed.lengths is None:
            return residuals
        return residuals.reshape(-1, self.length, *rest)[:, : self.feed.lengths[0]].reshape(-1, *rest)


def _read(dataset: Any, padded: bool) -> _Read:
    """Under `_here`."""
    feed = read_one(dataset, padded=padded)
    length = 0 if feed.lengths is None else max(_LEAST_LENGTH, 1 << int(feed.lengths[0] - 1).bit_length())
    leaves, nesting = jax.tree.flatten(feed.leaves(np.zeros(1, dtype=np.intp), length))
    return _Read(feed, [jnp.asarray(leaf[0]) for leaf in leaves], nesting, length)


@dataclass(eq=False)
class _Form:
    """Datasets of one form, that of the one that was `read`; and their programs."""

    read: _Read
    traced: Traced
    which: int
    parameters: int
    programs: dict[str, Function] = field(default_factory=dict)

    def suits(self, read: _Read) -> bool:
        mine, others = ([(leaf.shape, leaf.dtype) for leaf in r.leaves] for r in (self.read, read))
        return mine == others and self.read.feed.is_like(read.feed)

    def program(self, kind: str) -> Function:
        """The program for a kind of question; compiled on first use."""
        if kind not in self.programs:
            x = jax.ShapeDtypeStruct((self.parameters,), np.float64)
            data = [jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for leaf in self.read.leaves]
            self.programs[kind] = _compiled(self._asked(kind), x, data)
        return self.programs[kind]

    def _asked(self, kind: str) -> Function:
        def ask(x: Array, leaves: list[Array]) -> Any:
            free, data = self.traced.free, jax.tree.unflatten(self.read.nesting, leaves)
            full, z = (None, x) if free is None else (x, x[free])
            return _KINDS[kind](lambda v: self.traced(v, full, data), z)

        return ask


class _Known:
    """The datasets' forms that have been seen, and the dataset of the last call."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.forms: OrderedDict[int, _Form] = OrderedDict()
        self.last: tuple[Any, _Form, _Read] | None = None

    def find(self, read: _Read) -> _Form | None:
        for key in reversed(self.forms):
            if self.forms[key].suits(read):
                self.forms.move_to_end(key)
                return self.forms[key]
        return None

    def keep(self, form: _Form) -> None:
        self.forms[id(form)] = form
        while len(self.forms) > _KEPT:
            self.forms.popitem(last=False)


class Derivative:
    """``jac(params, dataset, *args)`` of an objective that can be traced, as SciPy's methods want it.

    Picklable: programs stay behind, and `compile` makes them again.

    Parameters
    ----------
    objective
        ``objective(params, dataset, *args)``: a scalar, or residuals of shape (m,); written with NumPy or `jax.numpy`.
    structure
        That of the parameters.
    args
        More arguments of the objective; constants of the programs.
    free : ndarray of int, optional
        The positions of the parameters that derivatives are wanted for; None for all.

    Raises
    ------
    InvalidInputError
        By all that follow: where the objective cannot be traced, or gives another value then.
    """

    def __init__(
        self,
        objective: Function,
        structure: Structure,
        args: tuple[Any, ...] = (),
        free: NDArray[np.intp] | None = None,
    ) -> None:
        self.objective = objective
        self.args = args
        self._structure = structure
        self._free = free
        self._pads = True
        self._wanted: set[str] = {"slope"}
        self._example: tuple[Any, Any, int] | None = None
        self._known = _Known()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_known"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _known=_Known())

    # ---- what SciPy asks

    def __call__(self, params: Any, dataset: Any, *_: Any) -> FloatArray:
        """The gradient, shape (n,), or the Jacobian, shape (m, n), in all parameters; 0 for those not wanted."""
        (value, found), read = self._ask("slope", params, dataset)
        return self._whole(read.cut(np.array(found)) if value.ndim else np.array(found), 1)

    def hessian(self, params: Any, dataset: Any, *_: Any) -> FloatArray:
        """The Hessian of the scalar, or of ``0.5 * sum(r**2)``, shape (n, n)."""
        return self._whole(np.array(self._ask("curvature", params, dataset)[0]), 2)

    def value(self, params: Any, dataset: Any, *_: Any) -> Any:
        """The objective's value, in double precision."""
        found, read = self._ask("value", params, dataset)
        return read.cut(np.array(found)) if found.ndim else float(found)

    # ---- before it asks

    def learn(self, params: Any, dataset: Any, wanted: tuple[str, ...] = ()) -> None:
        """Trace and compile what is wanted (``"value"``, ``"curvature"``; derivatives always) for a first dataset."""
        self._wanted |= set(wanted)
        form, _ = self._at(params, dataset)
        self._example = (params, dataset, form.which)
        self.compile()

    def compile(self) -> None:
        """Make the programs that `learn` has made, where this has come to another process."""
        if self._example is None:
            return
        params, dataset, which = self._example
        form, _ = self._at(params, dataset, which)
        with self._known.lock, _here():
            for kind in sorted(self._wanted):
                form.program(kind)

    # ---- forms

    def _ask(self, kind: str, params: Any, dataset: Any) -> tuple[Any, _Read]:
        form, read = self._at(params, dataset)
        x = self._structure.flatten(params)
        with _here():
            if kind not in form.programs:
                with self._known.lock:
                    form.program(kind)
            return form.programs[kind](x, read.leaves), read

    def _at(self, params: Any, dataset: Any, which: int | None = None) -> tuple[_Form, _Read]:
        """The form of a dataset, and its arrays; `which` of the candidates can be traced, where that is known."""
        last = self._known.last
        if last is not None and last[0] is dataset:
            return last[1], last[2]
        with self._known.lock, _here():
            try:
                form, read = self._found(params, dataset, which)
            except Untraceable as exc:
                raise InvalidInputError(
                    f"jac='jax' cannot be used: {exc}; leave out `jac` for difference quotients, or give a function"
                ) from (exc.__cause__ or exc)
        self._known.last = (dataset, form, read)
        return form, read

    def _found(self, params: Any, dataset: Any, which: int | None) -> tuple[_Form, _Read]:
        read = _read(dataset, self._pads)
        form = self._known.find(read)
        if form is None and read.length:
            try:
                form = self._new(params, dataset, read, which)
            except Untraceable:  # it can be without padding
                self._pads = False
                return self._found(params, dataset, which)
        form = form or self._new(params, dataset, read, which)
        self._known.keep(form)
        return form, read

    def _new(self, params: Any, dataset: Any, read: _Read, which: int | None) -> _Form:
        """The form of a dataset that is the first of its kind, checked against a plain call."""
        x = self._structure.flatten(params)
        failures: list[Exception] = []
        for k, candidate in enumerate(candidates(self.objective, self.args)):
            if which not in (None, k):
                continue
            try:
                function, args = candidate()
                traced = Traced(function, self._structure.root, read.feed, args, self._free)
                form = _Form(read, traced, k, len(x))
                value = np.asarray(form.program("slope")(x, read.leaves)[0])
            except Exception as exc:  # noqa: BLE001 - whatever tracing the user's function raises
                failures.append(exc)
                continue
            if which is None:
                plain = self.objective(params, dataset, *self.args)
                value = read.cut(value) if value.ndim else value
                if (what := differs(value, plain, single=read.is_single)) is not None:
                    failures.append(Untraceable(f"compiled, the objective gives another value: {what}"))
                    continue
            return form
        raise Untraceable(reason(failures)) from failures[-1]

    def _whole(self, found: FloatArray, axes: int) -> FloatArray:
        """A derivative in all parameters, from that in the free ones; of its last `axes` axes."""
        if self._free is None:
            return found
        n = len(self._structure)
        made = np.zeros(found.shape[: found.ndim - axes] + (n,) * axes)
        made[(..., self._free) if axes == 1 else np.ix_(self._free, self._free)] = found
        return made
