"""A task of the laboratory: what it tells, how it stops, and its errors."""

from __future__ import annotations

import threading
import time

from demo.errand import Errand
from engines.base import EngineError, Listener


def test_an_errand_tells_what_it_does_and_brings_its_result() -> None:
    gate = threading.Event()

    def work(listener: Listener) -> str:
        listener.report("comparing", 0.5, 1.0, "walking")
        gate.wait(60)
        return "milk"

    views = []
    for view in Errand(work).views():
        views.append(view)
        if view.what == "walking":
            gate.set()
    assert [view.state for view in views][-1] == "done"
    assert (views[-1].result, views[-1].share) == ("milk", 1.0)
    assert any(view.state == "running" and view.share == 0.5 for view in views)


def test_an_errand_stops_at_once_and_its_work_soon() -> None:
    ended = threading.Event()

    def work(listener: Listener) -> None:
        try:
            while True:
                listener.report("comparing", 0.0, 1.0, "walking")
                time.sleep(0.01)
        finally:
            ended.set()

    errand = Errand(work)
    views = errand.views()
    assert next(views).state == "running"
    errand.stop()
    assert next(views).state == "stopped"
    assert list(views) == []
    assert ended.wait(60)


def test_an_errand_s_errors_are_sentences() -> None:
    def refuse(listener: Listener) -> None:
        raise EngineError("There is no such thing.")

    def break_down(listener: Listener) -> None:
        raise KeyError("k")

    last = [list(Errand(work).views())[-1] for work in (refuse, break_down)]
    assert [view.state for view in last] == ["failed", "failed"]
    assert [view.reason for view in last] == ["There is no such thing.", "KeyError: 'k'"]
