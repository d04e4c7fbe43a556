"""An analysis task: what it tells, how it stops, and its errors."""

from __future__ import annotations

import threading
import time

import pytest

from demo.analysis_task import AnalysisTask, pick_transcripts
from demo.panels import why
from demo.rules import RequestError
from engines.analysis.divergence_records import Candidate
from engines.base import EngineError, Listener
from tests import fakes
from tests.demo.reading import read
from tests.fake_lab import make_divergence
from tests.fake_page import make_task


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
    view = next(view for view in snapshots if view.stage == "walking")
    assert (view.state, view.share) == ("running", 0.5)
    task.stop()
    assert [view.state for view in snapshots][-1] == "stopped"
    assert ended.wait(60)


def test_an_unexpected_error_is_a_sentence() -> None:
    def fail(listener: Listener) -> None:
        raise KeyError("k")

    last = list(AnalysisTask(fail).snapshots())[-1]
    assert (last.state, last.reason) == ("failed", "KeyError: 'k'")


def test_the_baseline_is_asked_about_with_an_engine_that_ran() -> None:
    broken = fakes.FakeEngine("max_full", error=EngineError("It broke."))
    task = make_task(fakes.FakeEngine("cpu"), fakes.fake_max(words="Other words"), broken)
    last = list(task.snapshots())[-1]
    first, second = pick_transcripts(last, "max_hybrid")
    assert (first.engine, second.engine) == ("cpu", "max_hybrid")
    assert pick_transcripts(last, "")[1].engine == "max_hybrid"
    for key in ("max_full", "cpu"):
        with pytest.raises(RequestError, match="This engine has no transcript"):
            pick_transcripts(last, key)
    same = list(make_task(fakes.FakeEngine("cpu"), fakes.fake_max()).snapshots())[-1]
    with pytest.raises(RequestError, match="All engines chose the same tokens"):
        pick_transcripts(same, "")


def test_why_shows_what_is_known() -> None:
    odd = (Candidate(1, " <b>"), Candidate(2, " you", allowed=False))
    html = why.render(make_divergence(candidates=odd, before="x" * 500, pairings=(), cause=""))
    text = read(html).text
    assert "<b>" not in html and "…" + "x" * 160 + " <b>" in text
    assert "an engine keeps what its halves compute" in text
    assert html.count("<tr>") == 2  # the heads and the judge
    same = make_divergence(parts="nowhere", judge=None, candidates=(), pairings=())
    assert why.summarise(same) == "PyTorch CPU and MAX full chose the same tokens."
    assert not read(why.render(same)).text, "it is said once"
