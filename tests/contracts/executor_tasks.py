"""What the executors' contract suite has workers do: one function per kind of task, all called by `perform`."""

from __future__ import annotations

import ctypes
import os
import re
import signal
import sys
import threading
import time
import uuid
import warnings
from pathlib import Path
from typing import Any

import numpy as np


class Setup:
    """Leaves a file for each time it is called; `pickled` counts, in the caller, how often it is pickled."""

    pickled = 0

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __getstate__(self) -> dict[str, Any]:
        type(self).pickled += 1
        return self.__dict__

    def __call__(self) -> dict[str, Any]:
        (self.folder / f"setup-{uuid.uuid4().hex}").write_text(str(here()))
        return {"worker": here()}


def here() -> tuple[int, int]:
    """Which worker this is."""
    return os.getpid(), threading.get_ident()


def perform(state: Any, item: tuple[Any, ...]) -> Any:
    name, *arguments = item
    return globals()[name](state, *arguments)


# ---- values


def square(state: Any, x: int) -> int:
    return x * x


def which_state(state: Any) -> tuple[Any, tuple[int, int]]:
    time.sleep(0.01)  # so that every worker gets some
    return state, here()


def write_into(state: Any, array: Any) -> float:
    array[0] = 1.0
    return float(array.sum())


def double(state: Any, array: Any) -> Any:
    return array * 2


# ---- exceptions


class NeedsArgumentsError(Exception):
    def __init__(self, what: str, where: str) -> None:
        super().__init__(f"{what} at {where}")


class HoldsLockError(Exception):
    def __init__(self) -> None:
        super().__init__("locked")
        self.lock = threading.Lock()


class ReduceRaisesError(Exception):
    def __reduce__(self) -> Any:
        raise RuntimeError("no reduce")


class StrRaisesError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no str")


class UnpicklesToRaiseError(Exception):
    def __reduce__(self) -> Any:
        return _refuse, ()


def _refuse() -> None:
    raise RuntimeError("will not be unpickled")


def raise_value_error(state: Any) -> None:
    raise ValueError("as intended")


def raise_needs_arguments(state: Any) -> None:
    raise NeedsArgumentsError("what", "where")


def raise_holds_lock(state: Any) -> None:
    raise HoldsLockError


def raise_reduce_raises(state: Any) -> None:
    raise ReduceRaisesError("text")


def raise_str_raises(state: Any) -> None:
    raise StrRaisesError


def raise_unpickles_to_raise(state: Any) -> None:
    raise UnpicklesToRaiseError("text")


def exit_system(state: Any) -> None:
    sys.exit(3)


class OddError(BaseException):
    pass


def raise_no_exception(state: Any) -> None:
    raise OddError("of no usual kind")


def raise_generator_exit(state: Any) -> None:
    raise GeneratorExit("left")


def interrupt(state: Any) -> None:
    raise KeyboardInterrupt


# ---- values and payloads that do not travel


class Refuses:
    """Pickles, and cannot be unpickled."""

    def __reduce__(self) -> Any:
        return _refuse, ()


def accept(state: Any, anything: Any) -> str:
    return "accepted"


def return_lock(state: Any) -> Any:
    return threading.Lock()


def return_refusing(state: Any) -> Any:
    return Refuses()


# ---- place


def warn(state: Any) -> None:
    for _ in range(3):
        warnings.warn("noticed", RuntimeWarning, stacklevel=1)
    warnings.warn("quiet please", RuntimeWarning, stacklevel=1)
    warnings.warn("seen once", DeprecationWarning, stacklevel=1)


def warn_fatally(state: Any) -> None:
    warnings.warn("fatal", RuntimeWarning, stacklevel=1)


def look_around(state: Any) -> dict[str, Any]:
    import parfit_contract_helper
    import threadpoolctl

    np.ones((4, 4)) @ np.ones((4, 4))
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "JAX_PLATFORMS", "PARFIT_CONTRACT")
    return {
        "folder": os.getcwd(),
        "module": parfit_contract_helper.WORD,
        "threads": [library["num_threads"] for library in threadpoolctl.threadpool_info()],
        "environment": {name: os.environ.get(name) for name in names},
        "divide": np.geterr()["divide"],
    }


def nest(state: Any) -> tuple[str, list[int]]:
    from parfit.executors import resolve

    executor = resolve("processes", 2)
    with executor.open() as pool:
        values = [outcome.value for outcome in pool.imap_unordered(square, [(i, i) for i in range(3)])]
    return executor.name, sorted(values)


# ---- deaths and delays


def started(folder: Path, what: str) -> int:
    """How often `note` was called for `what`."""
    return len(list(folder.glob(f"{what}-*")))


def note(folder: Path, what: str) -> None:
    (folder / f"{what}-{uuid.uuid4().hex}").touch()


def die(state: Any, folder: Path, what: str, times: int) -> str:
    """Kill the own process, the first `times` times."""
    note(folder, what)
    if started(folder, what) <= times:
        if what.startswith("exit"):
            os._exit(3)
        os.kill(os.getpid(), signal.SIGKILL)
    return "survived"


def work(state: Any, x: int) -> int:
    time.sleep(0.002)
    return x * x


def spin(state: Any) -> None:
    while True:
        pass


def spin_in_c(state: Any) -> None:
    re.match(r"(a+)+$", "a" * 60 + "b")


def sleep_with_the_gil_held(state: Any) -> None:
    """In a C call that holds the GIL, with every signal blocked that can be."""
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    sleep = ctypes.PyDLL(None).sleep
    while True:
        sleep(1000)


def grow(state: Any) -> None:
    """Bit by bit, so that it is stopped where it is looked at now and then."""
    kept = []
    while True:
        kept.append(np.ones(1_000_000))
        time.sleep(0.01)


def die_in_setup() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def fail_in_setup() -> None:
    raise LookupError("no such data")
