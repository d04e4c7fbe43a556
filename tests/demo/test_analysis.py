"""An analysis task: what it tells, how it stops, and its errors."""

from __future__ import annotations

import threading
import time

from demo.analysis import AnalysisTask
from engines.base import Listener


def test_a_task_tells_what_it_does_and_stops_at_once_and_its_work_soon() -> None:
    ended = threading.Event()

    def work(listener: Listener) -> None:
        try:
            while True:
                listener.report("comparing", 0.5, 1.0, "walking")
                time.sleep(0.01)
        finally:
            ended.set()

    task = AnalysisTask(work)
    snapshots = task.snapshots()
    view = next(view for view in snapshots if view.what == "walking")
    assert (view.state, view.share) == ("running", 0.5)
    task.stop()
    assert [view.state for view in snapshots][-1] == "stopped"
    assert ended.wait(60)


def test_an_unexpected_error_is_a_sentence() -> None:
    def fail(listener: Listener) -> None:
        raise KeyError("k")

    last = list(AnalysisTask(fail).snapshots())[-1]
    assert (last.state, last.reason) == ("failed", "KeyError: 'k'")
