"""An analysis task: what it tells, how it stops, and its errors."""

from __future__ import annotations

import threading
import time

import pytest

from demo.analysis import AnalysisTask
from engines.base import EngineError, Listener


def test_a_task_tells_what_it_does_and_brings_its_result() -> None:
    gate = threading.Event()

    def work(listener: Listener) -> str:
        listener.report("comparing", 0.5, 1.0, "walking")
        gate.wait(60)
        return "milk"

    snapshots = []
    for view in AnalysisTask(work).snapshots():
        snapshots.append(view)
        if view.what == "walking":
            gate.set()
    assert snapshots[-1].complete and snapshots[-1].result == "milk"
    assert any(view.state == "running" and view.share == 0.5 for view in snapshots)


def test_a_task_stops_at_once_and_its_work_soon() -> None:
    ended = threading.Event()

    def work(listener: Listener) -> None:
        try:
            while True:
                listener.report("comparing", 0.0, 1.0, "walking")
                time.sleep(0.01)
        finally:
            ended.set()

    task = AnalysisTask(work)
    snapshots = task.snapshots()
    assert next(snapshots).state == "running"
    task.stop()
    assert [view.state for view in snapshots] == ["stopped"]
    assert ended.wait(60)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (EngineError("There is no such thing."), "There is no such thing."),
        (KeyError("k"), "KeyError: 'k'"),
    ],
)
def test_a_task_s_errors_are_sentences(error: Exception, reason: str) -> None:
    def fail(listener: Listener) -> None:
        raise error

    last = list(AnalysisTask(fail).snapshots())[-1]
    assert (last.state, last.reason) == ("failed", reason)
