"""A compiled model beside PySD's runtime, and how long models of different sizes take to compile.

    python benchmarks/simulate.py [--sizes 100 500 2000] [--no-chains]

First the ageing chain of nine cohorts, 80 steps: one run from Python's dict to a frame or to arrays, the compiled
function alone, 3,137 parameter sets at once, and the Jacobian with respect to the nine rates; PySD's `run` beside them.
Then generated chains, four variables a stage (a stock, what passes on, what is lost, and a rate): seconds from
`load_model`'s end to the first result, alone and for a Jacobian with respect to nine rates. `quick` is XLA's older
code generator, which parfit asks for itself in `Model.run`, `Model.simulate` and `parfit.fit`; `jax.jit` of one's own
takes it by `compiler_options={"xla_cpu_use_fusion_emitters": False}`.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import parfit
from parfit import datasets

QUICK = {"xla_cpu_use_fusion_emitters": False}


def seconds(call: Callable[[], Any], repeats: int) -> float:
    """The median time of a call, after one to warm up."""
    call()
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        jax.block_until_ready(call())
        times.append(time.perf_counter() - begin)
    return statistics.median(times)


def ageing_chain() -> None:
    """Runs of the ageing chain."""
    model = parfit.load_model(datasets.aging_chain_path())
    judge = parfit.load_model(datasets.aging_chain_path(), compile=False)
    stocks = [f"dec_{i}" for i in range(1, 10)]
    rates = [f"{stock}_loss_rate" for stock in stocks]
    params, start = dict.fromkeys(rates, 0.05), (2000, dict(zip(stocks, range(100, 1000, 100), strict=True)))

    def end(values: Any) -> Any:
        found = model.simulate(dict(zip(rates, values, strict=True)), start, 2010)
        return jnp.stack([found[stock] for stock in stocks])

    one, many = np.full(9, 0.05), np.random.default_rng(0).uniform(0.01, 0.1, (3137, 9))
    pysd = seconds(lambda: judge.run(params, start, 2010), 20)
    programs = {
        "the compiled function, one run": (jax.jit(end), one, 1),
        "3,137 runs at once": (jax.jit(jax.vmap(end)), many, len(many)),
        "the Jacobian, one run": (jax.jit(jax.jacfwd(end)), one, 1),
        "3,137 Jacobians at once": (jax.jit(jax.vmap(jax.jacfwd(end))), many, len(many)),
    }
    print(f"{'PySD, Model.run(…) of compile=False':40s} {pysd * 1e6:10.1f} us")
    for name, call in (
        ("Model.run, to the frame", lambda: model.run(params, start, 2010)),
        ("Model.simulate, to arrays", lambda: model.simulate(params, start, 2010)),
    ):
        took = seconds(call, 200)
        print(f"{name:40s} {took * 1e6:10.1f} us {pysd / took:10,.0f} x PySD")
    for name, (program, values, n) in programs.items():
        argument = jnp.asarray(values)
        took = seconds(lambda: program(argument), 100) / n  # noqa: B023
        print(f"{name:40s} {took * 1e6:10.2f} us {pysd / took:10,.0f} x PySD's run")
    apart = np.abs(np.asarray(end(one)) / judge.run(params, start, 2010).to_numpy()[0] - 1).max()
    print(f"largest difference from PySD, relative: {apart:.1g}")


def chain(stages: int) -> str:
    """A chain of stages as Vensim text, four variables each."""
    lines = ["{UTF-8}"]
    for i in range(1, stages + 1):
        arrival = f"passed {i - 1}" if i > 1 else "1"
        lines += [
            f"stage {i} = INTEG({arrival} - passed {i} - lost {i}, 10) ~~|",
            f"passed {i} = stage {i} / 10 ~~|",
            f"lost {i} = stage {i} * rate {i} ~~|",
            f"rate {i} = 0.05 ~~|",
        ]
    settings = {"INITIAL TIME": 0, "FINAL TIME": 10, "TIME STEP": 0.125, "SAVEPER": 1}
    return "\n".join([*lines, *(f"{name} = {value} ~~|" for name, value in settings.items())])


def compile_times(size: int, folder: Path) -> None:
    """What a chain of so many variables takes to compile."""
    stages = size // 4
    file = folder / f"Chain{size}.mdl"
    file.write_text(chain(stages))
    begin = time.perf_counter()
    model = parfit.load_model(file)
    loaded = time.perf_counter() - begin
    rates, stocks = [f"rate_{i}" for i in range(1, 10)], [f"stage_{i}" for i in range(1, stages + 1)]
    _ = model.stocks  # what PySD needs to tell the names

    def end(values: Any) -> Any:
        found = model.simulate(dict(zip(rates, values, strict=True)), times=10)
        return jnp.stack([found[stock] for stock in stocks])

    x = jnp.full(9, 0.05)
    begin = time.perf_counter()
    model.simulate(dict.fromkeys(rates, 0.05), times=10)
    print(
        f"{size:5d} variables: load_model {loaded:5.1f} s; simulate, first call {time.perf_counter() - begin:5.2f} s",
        end="",
    )
    for name, options in (("Jacobian", None), ("Jacobian, quick", QUICK)):
        jax.clear_caches()
        begin = time.perf_counter()
        jax.block_until_ready(jax.jit(jax.jacfwd(end), compiler_options=options)(x))
        print(f"; {name} {time.perf_counter() - begin:5.2f} s", end="")
    print(flush=True)


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description="Compiled models beside PySD.")
    parser.add_argument("--sizes", type=int, nargs="*", default=[100, 500, 2000])
    asked = parser.parse_args()
    with jax.enable_x64(True):
        ageing_chain()
        with tempfile.TemporaryDirectory() as folder:
            for size in asked.sizes:
                compile_times(size, Path(folder))


if __name__ == "__main__":
    main()
