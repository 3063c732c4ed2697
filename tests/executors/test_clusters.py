"""What clusters do of themselves: workers are killed, come and go, are found by address."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import pytest

import parfit
from parfit.core.errors import InvalidInputError, InvalidTypeError, SetupError
from parfit.core.solution import OutcomeKind
from parfit.executors import resolve
from parfit.executors.dask import DaskExecutor
from parfit.executors.ray import RayExecutor
from parfit.fitting.spread import rows_of_a_window
from tests.workers import nothing_is_left

pytestmark = pytest.mark.slow

distributed = pytest.importorskip("distributed")
_nothing_is_left = pytest.fixture(autouse=True)(nothing_is_left)

RATE = 0.3
#: On any port: two clusters at a time would warn of the usual one.
NO_DASHBOARD = {"dashboard": False, "dashboard_address": "127.0.0.1:0"}
TIMES = np.linspace(0, 4, 12)


@contextlib.contextmanager
def cluster(n: int, **options: Any) -> Iterator[tuple[Any, Any]]:
    options = {"threads_per_worker": 1, "scheduler_kwargs": NO_DASHBOARD, **options}
    with (
        distributed.LocalCluster(n_workers=n, **options) as made,
        distributed.Client(made, set_as_default=False) as client,
    ):
        yield made, client


def slowly(state: Any, x: int) -> int:
    time.sleep(0.02)
    return x * x


def frame(n: int) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    heights = rng.uniform(1, 3, (n, 1))
    return pd.DataFrame(heights * np.exp(-RATE * TIMES) + rng.normal(0, 0.01, (n, len(TIMES))))


def residuals(p: Any, row: pd.Series) -> Any:
    return p["height"] * np.exp(-p["rate"] * TIMES) - row.to_numpy()


START = {"height": 1.0, "rate": 1.0}


def assert_same(a: parfit.Fits, b: parfit.Fits) -> None:
    """To the last bit, but for what depends on the clock and on accidents."""
    pd.testing.assert_frame_equal(a.params, b.params, check_exact=True)
    pd.testing.assert_frame_equal(a.stderr, b.stderr, check_exact=True)
    timing = ["seconds", "attempts"]
    pd.testing.assert_frame_equal(a.summary.drop(columns=timing), b.summary.drop(columns=timing), check_exact=True)


# ---- Dask


def test_a_client_a_cluster_and_an_address_are_executors() -> None:
    with cluster(1, processes=False) as (made, client):
        for given in (client, made, made.scheduler_address):
            recipe = DaskExecutor(None, given) if given == made.scheduler_address else resolve(given, None)
            assert isinstance(recipe, DaskExecutor)
            with recipe.open() as pool:
                assert [o.value for o in pool.imap_unordered(slowly, [(3, 3)])] == [9]
        assert client.status == "running"
    assert resolve("tcp://10.0.0.1:8786", 3) == DaskExecutor(3, "tcp://10.0.0.1:8786")
    assert resolve("cluster-1.local:8786", None) == DaskExecutor(None, "cluster-1.local:8786")
    assert resolve("ray://10.0.0.1:10001", None) == RayExecutor(None, "ray://10.0.0.1:10001")


def test_the_current_client_is_taken_and_left() -> None:
    with cluster(1, processes=False) as (_, client), client.as_current():
        with resolve("dask", None).open() as pool:
            assert [o.value for o in pool.imap_unordered(slowly, [(2, 2)])] == [4]
        assert client.status == "running"
        assert client.run(lambda: 1)


def test_a_cluster_of_our_own_is_heard_by_this_machine_alone(recwarn: pytest.WarningsRecorder) -> None:
    with socket.create_server(("127.0.0.1", 8787)) if port_is_free(8787) else contextlib.nullcontext():
        before = listening()
        with resolve("dask", 2).open() as pool:
            assert [o.value for o in pool.imap_unordered(slowly, [(2, 2)])] == [4]
            new = listening() - before
    assert {ip for ip, _ in new} == {"127.0.0.1"}
    assert not recwarn.list


def port_is_free(port: int) -> bool:
    with socket.socket() as asked:
        return asked.connect_ex(("127.0.0.1", port)) != 0


def listening() -> set[tuple[str, int]]:
    here = psutil.Process().net_connections(kind="tcp")
    return {(c.laddr.ip, c.laddr.port) for c in here if c.status == psutil.CONN_LISTEN}


def test_what_cannot_be_used_is_told() -> None:
    import dask

    with dask.config.set({"distributed.comm.timeouts.connect": "0.3s"}):
        nobody = DaskExecutor(None, "tcp://127.0.0.1:1").open()
        with pytest.raises(SetupError, match="no Dask scheduler answers at tcp://"), nobody:
            pass
    with pytest.raises(InvalidTypeError, match="cluster is a int"), DaskExecutor(None, 7).open():
        pass
    with cluster(1, processes=False) as (gone, client):
        pass
    with pytest.raises(InvalidInputError, match="the Dask client is closed"), resolve(client, None).open():
        pass
    with pytest.raises(SetupError, match="no Dask scheduler answers at LocalCluster"), resolve(gone, None).open():
        pass


@pytest.mark.parametrize("kill", [1, 2], ids=["one", "all"])
def test_a_worker_of_dasks_killed_in_mid_run_costs_a_retry(kill: int) -> None:
    with cluster(2) as (_, client), resolve(client, None).open() as pool:
        outcomes = []
        for i, outcome in enumerate(pool.imap_unordered(slowly, ((x, x) for x in range(100)))):
            outcomes.append(outcome)
            if i == 20:  # with all of them goes what had been scattered
                for pid in list(client.run(os.getpid).values())[:kill]:
                    os.kill(pid, signal.SIGKILL)
    assert sorted(o.key for o in outcomes) == list(range(100))
    assert all((o.kind, o.value) == (OutcomeKind.DONE, o.key**2) for o in outcomes)


def test_what_a_cluster_has_not_done_when_it_is_lost_is_told() -> None:
    with cluster(2, processes=False) as (made, client), resolve(client, None).open() as pool:
        outcomes = []
        for i, outcome in enumerate(pool.imap_unordered(slowly, ((x, x) for x in range(100)))):
            outcomes.append(outcome)
            if i == 20:
                made.close()
    assert sorted(o.key for o in outcomes) == list(range(100))
    assert {o.kind for o in outcomes} == {OutcomeKind.DONE, OutcomeKind.WORKER_LOST}


@pytest.mark.parametrize("ending", ["db", "parquet"])
def test_what_a_lost_cluster_has_left_is_fitted_by_the_next_call(tmp_path: Path, ending: str) -> None:
    if ending == "parquet":
        pytest.importorskip("pyarrow")
    path = tmp_path / f"fits.{ending}"
    data = frame(100)
    data.iloc[3] = np.nan
    more: dict[str, Any] = {"engine": "rows", "store": path, "chunk_size": 1}
    with cluster(2, processes=False) as (made, client):

        def close(done: int, total: int) -> None:
            if done == 10:
                made.close()

        parfit.fit(data, residuals, START, executor=client, progress=close, **more)
    before = counts(parfit.open_store(path))
    assert before.get("worker_lost", 0) == 0
    assert before["not_run"] > 0
    after = counts(parfit.fit(data, residuals, START, executor="serial", **more))
    assert after == {"converged": 99, "nonfinite": 1}


def counts(fits: Any) -> dict[str, int]:
    found = fits.counts if hasattr(fits, "counts") else fits.status.value_counts()
    return {str(status): int(n) for status, n in dict(found).items() if n}


def test_a_worker_that_dies_while_it_is_given_what_all_share_is_no_end(monkeypatch: pytest.MonkeyPatch) -> None:
    shared = []

    def share(client: Any, things: Any, **options: Any) -> Any:
        shared.append(things)
        if len(shared) in (2, 3):
            raise OSError("Timed out trying to connect to tcp://127.0.0.1:1")
        return plain(client, things, **options)

    plain = distributed.Client.scatter
    monkeypatch.setattr(distributed.Client, "scatter", share)
    with cluster(1, processes=False) as (_, client), resolve(client, None).open() as pool:
        assert sorted(o.value for o in pool.imap_unordered(slowly, [(2, 2), (3, 3)])) == [4, 9]


def test_a_cluster_that_adapts_starts_without_workers_and_grows() -> None:
    with cluster(0) as (made, client):
        made.adapt(minimum=0, maximum=2, interval="50ms", target_duration="50ms")
        with resolve(client, None).open() as pool:
            most = 0
            for outcome in pool.imap_unordered(slowly, ((x, x) for x in range(150))):
                assert outcome.value == outcome.key**2
                most = max(most, len(client.nthreads()))
        assert most == 2


def test_what_is_left_running_on_a_cluster_is_ended(tmp_path: Path) -> None:
    def endless(state: Any, x: int) -> None:
        while x:
            (tmp_path / str(os.getpid())).touch()
            time.sleep(0.01)

    with cluster(1, threads_per_worker=2) as (_, client):
        with resolve(client, None).open() as pool:
            outcomes = pool.imap_unordered(endless, ((x, x) for x in range(5)))  # kept: dropped, it would end them
            next(outcomes)
            while not list(tmp_path.iterdir()):
                time.sleep(0.01)
        busy = [int(path.name) for path in tmp_path.iterdir()]
        assert not any(map(psutil.pid_exists, busy))
        with resolve(client, None).open() as pool:
            assert [o.value for o in pool.imap_unordered(slowly, [(3, 3)])] == [9]


def test_a_cluster_without_workers_for_a_while_is_waited_for(caplog: pytest.LogCaptureFixture) -> None:
    import dask

    with dask.config.set({"distributed.comm.timeouts.connect": "1s"}), cluster(1) as (made, client):
        with resolve(client, None).open() as pool:
            outcomes = []
            for i, outcome in enumerate(pool.imap_unordered(slowly, ((x, x) for x in range(60)))):
                outcomes.append(outcome)
                if i == 20:  # what had been scattered goes with it
                    made.scale(0)
                    threading.Timer(3.0, made.scale, (1,)).start()
    assert sorted(o.key for o in outcomes) == list(range(60))
    assert all((o.kind, o.value) == (OutcomeKind.DONE, o.key**2) for o in outcomes)


def test_what_a_caller_that_was_killed_has_left_running_ends(tmp_path: Path) -> None:
    script = f"""
        import os, time
        from parfit.executors import resolve

        def endless(state, x):
            open(os.path.join({str(tmp_path)!r}, str(os.getpid())), "w").close()
            while True:
                time.sleep(0.01)

        with resolve(ADDRESS, None).open() as pool:
            next(pool.imap_unordered(endless, [(1, 1)]))
    """
    with cluster(1) as (made, client):
        program = textwrap.dedent(script).replace("ADDRESS", repr(made.scheduler_address))
        with subprocess.Popen([sys.executable, "-c", program]) as caller:
            while not list(tmp_path.iterdir()):
                assert caller.poll() is None
                time.sleep(0.01)
            caller.kill()
        (busy,) = (int(path.name) for path in tmp_path.iterdir())
        assert client.submit(abs, -1, pure=False).result(timeout=30) == 1
        assert not psutil.pid_exists(busy)


def test_a_fit_inside_a_task_of_dasks_leaves_it_its_place() -> None:
    def inside(n: int) -> list[float]:
        fits = parfit.fit(frame(n), residuals, START, engine="rows", executor=distributed.get_client())
        return fits.params["rate"].tolist()

    with cluster(1, processes=False) as (_, client):
        wanted = parfit.fit(frame(5), residuals, START, engine="rows", executor="serial").params["rate"].tolist()
        assert client.submit(inside, 5).result(timeout=60) == wanted


def test_a_worker_keeps_what_its_environment_has_besides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARFIT_CALLERS", "own")
    with cluster(1, env={"PARFIT_SLOT": "7"}) as (_, client), resolve(client, None).open() as pool:
        (outcome,) = pool.imap_unordered(lambda state, x: [os.environ.get(name) for name in x], [(1, NAMES)])
    assert outcome.value == ["7", "own"]


NAMES = ("PARFIT_SLOT", "PARFIT_CALLERS")


def test_the_scheduler_of_dasks_configuration_is_taken() -> None:
    import dask

    with cluster(1) as (made, client), dask.config.set({"scheduler-address": made.scheduler_address}):
        (host,) = client.run(os.getpid).values()
        with resolve("dask", None).open() as pool:
            (outcome,) = pool.imap_unordered(lambda state, x: os.getppid(), [(1, 1)])
        assert outcome.value == host


def test_a_fit_over_dask_is_the_fit_at_home() -> None:
    data = frame(40)
    at_home = parfit.fit(data, residuals, START, engine="rows", executor="serial")
    with cluster(2) as (_, client):
        assert_same(at_home, parfit.fit(data, residuals, START, engine="rows", executor=client, timeout=60))


# ---- the batched engine


def test_windows_over_a_cluster_have_the_bits_that_they_have_at_home() -> None:
    pytest.importorskip("jax")
    data = frame(300)
    data.iloc[7] = np.nan
    starts = pd.DataFrame({"height": np.linspace(0.5, 3, 300), "rate": 1.0})
    starts.iloc[11] = np.nan
    bounds = {"height": (0.0, 2.5)}
    at_home = parfit.fit(data, residuals, starts, bounds=bounds, engine="batch")
    away = parfit.fit(data, residuals, starts, bounds=bounds, executor="dask", workers=2, chunk_size=70)
    assert away.engine == "batch"
    assert "executor dask" in repr(away)
    assert_same(at_home, away)
    assert away.status.iloc[[7, 11]].tolist() == ["nonfinite", "invalid"]


def test_ragged_groups_over_a_cluster() -> None:
    pytest.importorskip("jax")
    rng = np.random.default_rng(1)
    lengths = rng.integers(1, 40, 60)
    times = np.concatenate([np.linspace(0, 3, k) for k in lengths])
    long = pd.DataFrame({"site": np.repeat(np.arange(60), lengths), "t": times})
    long["y"] = 2 * np.exp(-RATE * times) + rng.normal(0, 0.01, len(times))

    def misfit(p: Any, group: pd.DataFrame) -> Any:
        return p["height"] * np.exp(-p["rate"] * group["t"].to_numpy()) - group["y"].to_numpy()

    groups = long.groupby("site")
    at_home = parfit.fit(groups, misfit, START, engine="batch")
    assert_same(at_home, parfit.fit(groups, misfit, START, engine="batch", executor="dask", workers=2, chunk_size=13))


@pytest.mark.parametrize("engine", ["batch", "rows"])
def test_files_of_parquet_over_a_cluster(tmp_path: Path, engine: str) -> None:
    pytest.importorskip("jax")
    pytest.importorskip("pyarrow")
    data = frame(100).rename(columns=str)
    data.to_parquet(tmp_path / "data.parquet")
    at_home = parfit.fit(data, residuals, START, engine=engine).to_frame()
    there = {"engine": engine, "executor": "dask", "workers": 2, "chunk_size": 30}
    away = parfit.fit(tmp_path / "data.parquet", residuals, START, store=tmp_path / "fits.parquet", **there)
    assert dict(away.counts) == {"converged": 100}
    timing = ["seconds", "attempts"]
    found = pd.read_parquet(tmp_path / "fits.parquet")
    pd.testing.assert_frame_equal(found.drop(columns=timing), at_home.drop(columns=timing), check_exact=True)


def test_windows_are_many_where_rows_are_few() -> None:
    assert [rows_of_a_window(n) for n in (10, 15_000, 300_000, 10_000_000)] == [2000, 2000, 4687, 20_000]


# ---- Ray


@pytest.fixture(scope="module")
def ray() -> Iterator[Any]:
    found = pytest.importorskip("ray")
    found.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield found
    found.shutdown()


def actors() -> list[psutil.Process]:
    made = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.cmdline()[:1] and process.cmdline()[0].startswith("ray::Host") and is_ours(process):
                made.append(process)
    return made


def is_ours(process: psutil.Process) -> bool:
    return psutil.Process() in process.parents()


def test_an_actor_of_rays_killed_in_mid_run_costs_a_retry(ray: Any) -> None:
    with resolve("ray", 2).open() as pool:
        outcomes = []
        for i, outcome in enumerate(pool.imap_unordered(slowly, ((x, x) for x in range(100)))):
            outcomes.append(outcome)
            if i == 20:
                actors()[0].kill()
    assert ray.is_initialized()
    assert sorted(o.key for o in outcomes) == list(range(100))
    assert all((o.kind, o.value) == (OutcomeKind.DONE, o.key**2) for o in outcomes)
    assert any(o.attempts == 2 for o in outcomes)


def test_a_fit_over_ray_is_the_fit_at_home(ray: Any) -> None:
    data = frame(40)
    at_home = parfit.fit(data, residuals, START, engine="rows", executor="serial")
    assert_same(at_home, parfit.fit(data, residuals, START, engine="rows", executor="ray"))


def test_a_head_node_that_does_not_answer_is_told_soon(tmp_path: Path) -> None:
    program = "from parfit.executors import resolve\nwith resolve('ray', 1).open(): pass"
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "RAY_ADDRESS": "127.0.0.1:1"},
    )
    assert "SetupError: no Ray cluster can be had at 127.0.0.1:1" in done.stderr


def test_an_address_beside_a_connection_is_refused(ray: Any) -> None:
    with pytest.raises(InvalidInputError, match="Ray is connected already"):
        with RayExecutor(None, "ray://elsewhere:10001").open():
            pass


# ---- MPI, by the adapter for anything with `submit`


MPI = """
    import os, sys
    import numpy as np, pandas as pd, parfit
    from mpi4py.futures import MPIPoolExecutor

    def misfit(p, row):
        with open(os.path.join(folder, str(os.getpid())), "w"):
            return np.array([p["a"] - row["y"], 0.0])

    if __name__ == "__main__":
        folder = sys.argv[1]
        with MPIPoolExecutor() as pool:
            data = pd.DataFrame({"y": [1.0, 2.0, 3.0, 4.0]})
            fits = parfit.fit(data, misfit, {"a": 0.5}, engine="rows", executor=pool)
        print(fits.params["a"].round(6).tolist(), os.getpid())
"""


def test_a_fit_over_mpi(tmp_path: Path) -> None:
    pytest.importorskip("mpi4py")
    launcher = shutil.which("mpiexec", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    if launcher is None:
        pytest.skip("there is no mpiexec")
    script, seen = tmp_path / "script.py", tmp_path / "seen"
    seen.mkdir()
    script.write_text(textwrap.dedent(MPI))
    command = [launcher, "-n", "3", sys.executable, "-m", "mpi4py.futures", str(script), str(seen)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    found, caller = done.stdout.rsplit(maxsplit=1)
    assert found == "[1.0, 2.0, 3.0, 4.0]"
    workers = {path.name for path in seen.iterdir()}
    assert caller not in workers
    assert 1 <= len(workers) <= 2


# ---- neither is there


@pytest.mark.parametrize(("name", "package"), [("dask", "distributed"), ("ray", "ray")])
def test_a_missing_package_is_told_with_the_command_that_installs_it(name: str, package: str) -> None:
    program = (
        f"import sys; sys.modules[{package!r}] = None; import parfit; "
        f"parfit.fit([1.0], lambda p, d: (p[0] - d) ** 2, [0.0], executor={name!r})"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert f"pip install 'parfit[{name}]'" in done.stderr.splitlines()[-1]
