"""Joblib's threads, which may answer late: for a call that has been abandoned, in the place of one that has not."""

from __future__ import annotations

from typing import Any

import pytest

from parfit.executors.joblib import JoblibExecutor, JoblibPool

pytest.importorskip("joblib")


def square(state: Any, x: int) -> int:
    return x * x


def test_an_answer_to_an_abandoned_call_stands_for_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = JoblibPool._parallel
    late = [(10**9, ("outcomes", []))]

    def parallel(self: JoblibPool, *, apart: bool) -> Any:
        def run(calls: Any) -> Any:
            answers = plain(self, apart=apart)(calls)
            for answer in answers:
                if not late:
                    yield answer
                    continue
                yield late.pop()  # which joblib counts, and so ends a call too early
                missed = [answer, *answers]
                yield from missed[:-1]

        return run

    monkeypatch.setattr(JoblibPool, "_parallel", parallel)
    with JoblibExecutor(2, "threading").open() as pool:
        found = sorted(outcome.result() for outcome in pool.imap_unordered(square, ((i, i) for i in range(20))))
    assert not late
    assert found == [i * i for i in range(20)]
