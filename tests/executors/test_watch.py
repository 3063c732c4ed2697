"""Time limits while this process is stopped: what it has not seen is charged to no task."""

from __future__ import annotations

import pytest

from parfit.executors.workers import watch as module
from parfit.executors.workers.board import Position
from parfit.executors.workers.watch import LOOK_S, Watch


class Clock:
    """The monotonic clock, as it is set."""

    now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(module, "time", made)
    return made


def test_a_task_is_late_when_it_has_run_for_too_long() -> None:
    watch = Watch(timeout=2.0)
    assert not watch.late(None)
    assert not watch.late(Position(0, 1.9))
    assert watch.late(Position(0, 2.1))
    assert not Watch().late(Position(0, 1e9))


def test_a_wait_that_took_far_too_long_does_not_count(clock: Clock) -> None:
    watch = Watch(timeout=2.0)
    begin, clock.now = clock.now, clock.now + 3600.0
    watch.waited(LOOK_S, begin)
    assert not watch.late(Position(0, 3600.5))  # it had begun before
    assert not watch.late(Position(0, 1.0))  # since then
    assert watch.patience([Position(0, 3600.5)]) is not None
    clock.now += 3.0
    assert watch.late(Position(0, 3603.5))
    assert watch.late(Position(0, 2.5))
    assert not watch.late(Position(0, 1.5))


def test_a_wait_on_a_busy_machine_counts(clock: Clock) -> None:
    watch = Watch(timeout=2.0)
    for _ in range(30):
        begin, clock.now = clock.now, clock.now + LOOK_S + 0.05
        watch.waited(LOOK_S, begin)
    assert watch.late(Position(0, 2.1))


def test_how_long_to_wait() -> None:
    assert Watch().patience([Position(0, 5.0)]) is None
    assert Watch(memory_limit=1).patience([]) == LOOK_S
    watch = Watch(timeout=2.0)
    assert watch.patience([None, Position(0, 0.5)]) == LOOK_S
    assert watch.patience([Position(0, 0.5), Position(0, 1.99)]) == pytest.approx(0.011)
    assert watch.patience([Position(0, 9.0)]) == pytest.approx(0.001)
