"""What every executor promises to a script or a notebook: what ``__main__`` defines travels, and a Ctrl-C ends it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.contracts.executor_table import NAMED, Entry, capabilities, require

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
#: For a script that hangs; nothing is measured with it.
WATCHDOG_S = 60.0
#: Workers are gone this long after the caller, s.
GONE_S = 5.0

#: These look for the rest of Ray from time to time, and outlive it where its caller was killed.
RAYS_OWN = ("ray::DashboardAgent", "ray::RuntimeEnvAgent")

MAIN = """
    import functools, warnings
    from parfit.executors import resolve

    class Squarer:
        def __init__(self, offset):
            self.offset = offset
        def __call__(self, state, x):
            return Wrapped(helper(x) + self.offset + state)

    class Wrapped:
        def __init__(self, value):
            self.value = value

    class MyWarning(UserWarning):
        pass

    def helper(x):
        warnings.warn("mine", MyWarning)
        return x * x

    def setup():
        return 1000

    def main():
        warnings.simplefilter("ignore", MyWarning)
        captured = 10
        with resolve({name!r}, {workers}).open(setup) as pool:
            for function in (Squarer(1), lambda state, x: Wrapped(helper(x) + captured + state)):
                outcomes = list(pool.imap_unordered(function, [(i, i) for i in range(5)]))
                assert all(type(outcome.result()) is Wrapped for outcome in outcomes)
                assert all(outcome.warnings == () for outcome in outcomes)
                print(sorted(outcome.result().value for outcome in outcomes))

    {guard}main()
"""

ENDLESS = """
    import os, sys, time
    from parfit.executors import resolve

    def task(state, x):
        open(os.path.join({folder!r}, f"started-{{x}}"), "w").close()
        while True:
            time.sleep(0.01)

    def main():
        executor = resolve({name!r}, {workers})
        seen = 0
        try:
            with executor.open() as pool:
                for outcome in pool.imap_unordered(task, ((i, i) for i in range(100))):
                    seen += 1
        except KeyboardInterrupt:
            print("interrupted", flush=True)
        with executor.open() as pool:
            outcomes = list(pool.imap_unordered(lambda state, x: x + 1, [(i, i) for i in range(3)]))
        print("again", sorted(outcome.result() for outcome in outcomes), flush=True)

    if __name__ == "__main__":
        main()
"""


LEFT_OPEN = """
    import time
    from parfit.executors import resolve

    def task(state, x):
        while x:
            time.sleep(0.01)
        return x

    if __name__ == "__main__":
        opened = resolve({name!r}, {workers}).open()
        pool = opened.__enter__()
        outcomes = pool.imap_unordered(task, ((i, i) for i in range(100)))
        print(next(outcomes).key)
"""


@pytest.fixture(params=NAMED, ids=lambda entry: entry.name)
def entry(request: pytest.FixtureRequest) -> Entry:
    return request.param


def write(folder: Path, template: str, entry: Entry, **values: object) -> Path:
    values = {"name": entry.name, "workers": None if entry.name == "serial" else 2, "folder": str(folder), **values}
    script = folder / "script.py"
    script.write_text(textwrap.dedent(template).format(**values))
    return script


@contextlib.contextmanager
def started(script: Path) -> Iterator[subprocess.Popen[str]]:
    """The script, apart from this process in a way that whatever it leaves behind is found."""
    process = subprocess.Popen(
        [sys.executable, "-W", "error", str(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=script.parent,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        start_new_session=True,
    )
    with process:
        try:
            yield process
        finally:
            for pid in family(process.pid, rays_own=True):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def family(leader: int, *, rays_own: bool = False) -> list[int]:
    """What is alive of a script and of all that it has started, whatever became of their parents."""
    found = []
    for pid in psutil.pids():
        with contextlib.suppress(ProcessLookupError, PermissionError, psutil.NoSuchProcess):
            process = psutil.Process(pid)
            if os.getsid(pid) != leader or process.status() == psutil.STATUS_ZOMBIE:
                continue
            if rays_own or not " ".join(process.cmdline()).startswith(RAYS_OWN):
                found.append(pid)
    return found


def assert_gone(leader: int) -> None:
    """Nothing is left of a script and of what it has started, a while after it has ended."""
    deadline = time.monotonic() + GONE_S
    while (left := family(leader)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert left == []


def wait_for(folder: Path, pattern: str, n: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + WATCHDOG_S
    while len(list(folder.glob(pattern))) < n:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_what_main_defines_travels(entry: Entry, tmp_path: Path) -> None:
    guard = 'if __name__ == "__main__":\n        ' if capabilities(entry).needs_main_guard else ""
    with started(write(tmp_path, MAIN, entry, guard=guard)) as process:
        out, err = process.communicate(timeout=WATCHDOG_S)
        assert process.returncode == 0, err
        assert out.splitlines() == ["[1001, 1002, 1005, 1010, 1017]", "[1010, 1011, 1014, 1019, 1026]"]
        assert err == ""
        assert_gone(process.pid)


def test_a_missing_main_guard_is_told(entry: Entry, tmp_path: Path) -> None:
    require(capabilities(entry), needs_main_guard=True)
    with started(write(tmp_path, MAIN, entry, guard="")) as process:
        _, err = process.communicate(timeout=WATCHDOG_S)
        assert process.returncode == 1
        last = err.splitlines()[-1]
        assert "SetupError" in last
        assert "if __name__ == '__main__':" in last
        assert "use the default executor, 'processes'" in last
        assert err.count("Traceback") == 1  # none of a child's
        assert_gone(process.pid)


WITHOUT_A_GUARD_OF_THE_USUAL_KIND = """
    import sys
    from parfit.executors import resolve

    def main():
        with resolve({name!r}, {workers}).open() as pool:
            outcomes = list(pool.imap_unordered(lambda state, x: x + 1, [(i, i) for i in range(3)]))
        print(sorted(outcome.result() for outcome in outcomes))

    try:
        for name in [__name__]:
            if name.endswith("in__"):
                if "mp_main" not in name:
                    main()
    finally:
        pass
"""


def test_another_guard_is_respected(entry: Entry, tmp_path: Path) -> None:
    require(capabilities(entry), needs_main_guard=True)
    with started(write(tmp_path, WITHOUT_A_GUARD_OF_THE_USUAL_KIND, entry)) as process:
        out, err = process.communicate(timeout=WATCHDOG_S)
        assert (process.returncode, out, err) == (0, "[1, 2, 3]\n", "")


def test_a_pool_that_was_left_open_does_not_outlive_the_interpreter(entry: Entry, tmp_path: Path) -> None:
    with started(write(tmp_path, LEFT_OPEN, entry)) as process:
        out, err = process.communicate(timeout=WATCHDOG_S)
        assert (process.returncode, out) == (0, "0\n"), err
        assert_gone(process.pid)


@pytest.mark.parametrize("whom", ["group", "parent"])
def test_a_ctrl_c_ends_the_workers_and_the_next_call_works(entry: Entry, tmp_path: Path, whom: str) -> None:
    with started(write(tmp_path, ENDLESS, entry)) as process:
        wait_for(tmp_path, "started-*", 1, process)
        if whom == "group":
            os.killpg(process.pid, signal.SIGINT)
        else:
            os.kill(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=WATCHDOG_S)
        assert process.returncode == 0, err
        assert out == "interrupted\nagain [1, 2, 3]\n"
        assert_gone(process.pid)


def test_workers_die_with_a_caller_that_is_killed(entry: Entry, tmp_path: Path) -> None:
    require(capabilities(entry), own_process=True, survives_worker_death=True)
    with started(write(tmp_path, ENDLESS, entry)) as process:
        wait_for(tmp_path, "started-*", 2, process)
        process.kill()
        process.wait()
        assert_gone(process.pid)
