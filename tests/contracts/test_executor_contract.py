"""What every executor promises, whatever the tasks do; the executors are in `executor_table`.

`zoo` opens each executor once and runs a mixed bag of tasks, so that the tests below look at one outcome each.
What an executor cannot promise is read from its `capabilities`.
"""

from __future__ import annotations

import dataclasses
import itertools
import pickle
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from parfit.core.errors import InvalidInputError, ParfitError, RemoteError
from parfit.core.protocols import Capabilities
from parfit.core.solution import Outcome, OutcomeKind, WarningText
from parfit.executors import EXECUTORS
from tests.contracts import executor_tasks as tasks
from tests.contracts.executor_table import NAMED, TABLE, WORKERS, Entry, assert_no_survivors, capabilities, require

SQUARES = range(50)
LARGE = 6_500_000  # float64: 52 MB

MIXED: dict[str, tuple[Any, ...]] = {
    "exception": ("raise_value_error",),
    "needs_arguments": ("raise_needs_arguments",),
    "holds_lock": ("raise_holds_lock",),
    "reduce_raises": ("raise_reduce_raises",),
    "str_raises": ("raise_str_raises",),
    "unpickles_to_raise": ("raise_unpickles_to_raise",),
    "exit": ("exit_system",),
    "no_exception": ("raise_no_exception",),
    "generator_exit": ("raise_generator_exit",),
    "unpicklable_payload": ("accept", threading.Lock()),
    "unreadable_payload": ("accept", tasks.Refuses()),
    "unpicklable_value": ("return_lock",),
    "unreadable_value": ("return_refusing",),
    "warns": ("warn",),
    "warns_fatally": ("warn_fatally",),
    "place": ("look_around",),
    "small_array": ("write_into", np.zeros(5)),
    "array": ("write_into", np.zeros(5000)),
    "nested": ("nest",),
}


@pytest.fixture(scope="module", params=TABLE, ids=lambda entry: entry.name)
def entry(request: pytest.FixtureRequest) -> Iterator[Entry]:
    with request.param.service():
        yield request.param
        assert_no_survivors()


@pytest.fixture(scope="module")
def promises(entry: Entry) -> Capabilities:
    return capabilities(entry)


class Zoo:
    """What came of the mixed bag."""

    def __init__(self, outcomes: list[Outcome], folder: Path) -> None:
        self.all = outcomes
        self.by_key = {outcome.key: outcome for outcome in outcomes}
        self.folder = folder
        self.closure: list[Outcome] = []
        self.pickled = 0

    def __getitem__(self, key: Any) -> Outcome:
        return self.by_key[key]


@pytest.fixture(scope="module")
def zoo(entry: Entry, promises: Capabilities, tmp_path_factory: pytest.TempPathFactory) -> Zoo:
    folder = tmp_path_factory.mktemp(entry.name)
    (folder / "parfit_contract_helper.py").write_text("WORD = 'found'\n")
    bag = {key: item for key, item in MIXED.items()}
    bag |= {f"square-{x}": ("square", x) for x in SQUARES}
    bag |= {f"state-{i}": ("which_state",) for i in range(12)}
    if entry.name != "serial":  # there it is the user's own Ctrl-C
        bag["interrupt"] = ("interrupt",)
    tasks.Setup.pickled = 0
    with pytest.MonkeyPatch.context() as patch, entry.recipe() as recipe, warnings.catch_warnings():
        patch.chdir(folder)
        patch.syspath_prepend(str(folder))
        patch.setenv("PARFIT_CONTRACT", "here")
        warnings.simplefilter("default")
        warnings.filterwarnings("ignore", message="quiet")
        warnings.filterwarnings("error", message="fatal")
        with np.errstate(divide="raise"), recipe.open(tasks.Setup(folder)) as pool:
            zoo = Zoo(list(pool.imap_unordered(tasks.perform, bag.items())), folder)
            offset = 10
            zoo.closure = list(pool.imap_unordered(lambda state, x: (x + offset, state["worker"]), [(1, 1), (2, 2)]))
            zoo.pickled = tasks.Setup.pickled
            sys.modules.pop("parfit_contract_helper", None)
    return zoo


def test_every_task_has_exactly_one_outcome(zoo: Zoo) -> None:
    assert len(zoo.all) == len(zoo.by_key)
    assert set(zoo.by_key) - {"interrupt"} == {
        *MIXED,
        *(f"square-{x}" for x in SQUARES),
        *(f"state-{i}" for i in range(12)),
    }


def test_values(zoo: Zoo) -> None:
    for x in SQUARES:
        outcome = zoo[f"square-{x}"]
        assert (outcome.kind, outcome.result(), outcome.attempts) == (OutcomeKind.DONE, x * x, 1)
        assert outcome.warnings == ()
        assert outcome.seconds >= 0


def test_setup_ran_once_in_each_worker_and_its_state_reached_every_task(zoo: Zoo) -> None:
    workers = [path.read_text() for path in zoo.folder.glob("setup-*")]
    assert len(workers) == len(set(workers))
    states = [zoo[f"state-{i}"].result() for i in range(12)]
    for state, worker in states:
        assert state["worker"] == worker
        assert str(worker) in workers
    assert len({worker for _, worker in states}) <= WORKERS + 1  # one is replaced, after "unreadable_value"


def test_setup_is_pickled_at_most_once_for_each_worker(zoo: Zoo, promises: Capabilities) -> None:
    assert zoo.pickled <= (WORKERS if promises.own_process else 0)


def test_an_exception_is_an_outcome_with_the_workers_traceback(zoo: Zoo) -> None:
    outcome = zoo["exception"]
    assert outcome.kind is OutcomeKind.ERROR
    assert outcome.error is not None
    assert (outcome.error.type, outcome.error.message) == ("ValueError", "as intended")
    assert "in raise_value_error" in outcome.error.traceback
    with pytest.raises(ValueError, match="as intended") as caught:
        outcome.result()
    assert isinstance(caught.value.__cause__, RemoteError)
    assert "in raise_value_error" in str(caught.value.__cause__)


@pytest.mark.parametrize(
    ("key", "kind", "text"),
    [
        ("needs_arguments", "NeedsArgumentsError", "what at where"),
        ("holds_lock", "HoldsLockError", "locked"),
        ("reduce_raises", "ReduceRaisesError", "text"),
        ("unpickles_to_raise", "UnpicklesToRaiseError", "text"),
        ("str_raises", "StrRaisesError", "cannot be shown"),
        ("exit", "SystemExit", "3"),
        ("no_exception", "OddError", "of no usual kind"),
        ("generator_exit", "GeneratorExit", "left"),
        ("interrupt", "KeyboardInterrupt", ""),
    ],
)
def test_any_exception_crosses_as_text(zoo: Zoo, key: str, kind: str, text: str) -> None:
    if key not in zoo.by_key:
        pytest.skip("in the caller's own process and thread, it is the caller's Ctrl-C")
    outcome = zoo[key]
    assert outcome.kind is OutcomeKind.ERROR
    assert outcome.error is not None
    assert outcome.error.type.endswith(kind)
    assert text in outcome.error.message
    assert f"in {MIXED.get(key, (key,))[0]}" in outcome.error.traceback
    assert isinstance(outcome.error.to_exception(), BaseException)


@pytest.mark.parametrize("key", ["unpicklable_payload", "unreadable_payload", "unpicklable_value", "unreadable_value"])
def test_what_cannot_be_pickled_is_its_own_outcome_only(zoo: Zoo, promises: Capabilities, key: str) -> None:
    outcome = zoo[key]
    if not promises.own_process:
        assert outcome.kind is OutcomeKind.DONE
        return
    assert outcome.kind is OutcomeKind.ERROR
    assert outcome.error is not None
    assert ("pickle" if "unpicklable" in key else "will not be unpickled") in outcome.error.message


def test_warnings_are_counted_for_each_task_under_the_callers_filters(zoo: Zoo) -> None:
    assert set(zoo["warns"].warnings) == {
        WarningText("RuntimeWarning", "noticed", 3),
        WarningText("DeprecationWarning", "seen once", 1),
    }
    fatal = zoo["warns_fatally"]
    assert fatal.kind is OutcomeKind.ERROR
    assert fatal.error is not None
    assert (fatal.error.type, fatal.error.message) == ("RuntimeWarning", "fatal")


def test_workers_stand_where_the_caller_stands(zoo: Zoo) -> None:
    found = zoo["place"].result()
    assert Path(found["folder"]).samefile(zoo.folder)
    assert found["module"] == "found"
    assert found["environment"]["PARFIT_CONTRACT"] == "here"
    assert found["divide"] == "raise"


def test_one_thread_and_no_gpu(zoo: Zoo, promises: Capabilities) -> None:
    found = zoo["place"].result()
    assert found["threads"]
    assert set(found["threads"]) == {1}
    require(promises, own_process=True)
    environment = found["environment"]
    assert environment["OMP_NUM_THREADS"] == environment["OPENBLAS_NUM_THREADS"] == "1"
    assert environment["CUDA_VISIBLE_DEVICES"] == ""
    assert environment["JAX_PLATFORMS"] == "cpu"


@pytest.mark.parametrize("key", ["small_array", "array"])
def test_arrays_arrive_writable(zoo: Zoo, key: str) -> None:
    assert zoo[key].result() == 1.0


def test_nested_use_is_serial_with_one_warning(zoo: Zoo) -> None:
    outcome = zoo["nested"]
    assert outcome.result() == ("serial", [0, 1, 4])
    assert [(w.category, w.count) for w in outcome.warnings] == [("ParfitWarning", 1)]


def test_closures_and_another_function_in_the_same_open(zoo: Zoo) -> None:
    assert sorted(outcome.result()[0] for outcome in zoo.closure) == [11, 12]
    workers = [path.read_text() for path in zoo.folder.glob("setup-*")]
    assert {str(outcome.result()[1]) for outcome in zoo.closure} <= set(workers)


# ---- one open pool, again and again


@pytest.fixture(scope="module")
def pool(entry: Entry) -> Iterator[Any]:
    with entry.recipe() as recipe, recipe.open() as pool:
        yield pool


def squares(pool: Any, n: int = 20) -> list[int]:
    return sorted(outcome.result() for outcome in pool.imap_unordered(tasks.square, ((i, i) for i in range(n))))


def test_no_tasks(pool: Any) -> None:
    assert list(pool.imap_unordered(tasks.square, [])) == []
    assert list(pool.imap_unordered(tasks.square, iter(()))) == []


def test_fewer_tasks_than_workers(pool: Any) -> None:
    assert squares(pool, 1) == [0]


def test_tasks_are_pulled_lazily(pool: Any) -> None:
    pulled = 0

    def endless() -> Iterator[tuple[int, int]]:
        nonlocal pulled
        for pulled in itertools.count(1):
            yield pulled, pulled

    outcomes = pool.imap_unordered(tasks.work, endless())
    for _ in range(10):
        assert next(outcomes).kind is OutcomeKind.DONE
    outcomes.close()
    # 2 ms each: some 10 a block, two blocks a worker, and what joblib looks ahead.
    assert pulled < 500
    assert squares(pool) == [i * i for i in range(20)]


def test_what_the_tasks_raise_is_raised(pool: Any) -> None:
    def broken() -> Iterator[tuple[int, int]]:
        yield from ((i, i) for i in range(10))
        raise LookupError("no more data")

    with pytest.raises(LookupError, match="no more data"):
        list(pool.imap_unordered(tasks.square, broken()))
    assert squares(pool) == [i * i for i in range(20)]


def test_works_again_after_the_consumer_was_interrupted(pool: Any) -> None:
    def consume() -> None:
        for _ in pool.imap_unordered(tasks.work, ((i, i) for i in range(1000))):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        consume()
    assert squares(pool) == [i * i for i in range(20)]


def test_a_new_call_while_another_is_unfinished(pool: Any, entry: Entry) -> None:
    unfinished = pool.imap_unordered(tasks.work, ((("old", i), i) for i in range(200)))
    next(unfinished)
    assert squares(pool) == [i * i for i in range(20)]
    if entry.name == "serial":  # nothing runs beside it
        assert len(list(unfinished)) == 199
    else:
        with pytest.raises(ParfitError, match="called again"):
            list(unfinished)


def test_a_large_array_there_and_back(pool: Any) -> None:
    array = np.arange(LARGE, dtype=float)
    (outcome,) = pool.imap_unordered(tasks.double, [("large", array)])
    assert outcome.kind is OutcomeKind.DONE
    np.testing.assert_array_equal(outcome.value, array * 2)
    outcome.value[0] = 1.0


def test_a_time_limit_is_kept_or_refused(pool: Any, promises: Capabilities) -> None:
    require(promises, enforces_timeout=False)
    with pytest.raises(InvalidInputError, match="cannot stop"):
        list(pool.imap_unordered(tasks.square, [(1, 1)], timeout=1.0))


# ---- the table


def test_every_name_is_in_the_table() -> None:
    assert {entry.name for entry in NAMED} == set(EXECUTORS)


def test_recipes_pickle_and_compare() -> None:
    for entry in NAMED:
        with entry.recipe() as recipe:
            again = pickle.loads(pickle.dumps(recipe))
            assert again == recipe
            assert again.capabilities == recipe.capabilities


def test_the_table_in_the_docs_says_what_the_executors_say() -> None:
    page = (Path(__file__).parents[2] / "docs" / "executors.md").read_text()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in page.splitlines() if line[:3] == "| `"]
    told = {name.strip("`"): [{"yes": True, "no": False}[cell] for cell in cells] for name, *cells in rows}
    promised = {entry.name: list(dataclasses.astuple(capabilities(entry))) for entry in NAMED}
    assert told == promised
