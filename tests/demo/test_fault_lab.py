"""The fault lab's panel: both texts, what differs, and where it first shows."""

from __future__ import annotations

import threading
import time
from dataclasses import replace

from demo import faults
from demo.errand import Errand
from engines.base import EngineError, Listener
from tests.fake_lab import FAULTS, make_finding


def test_both_texts_and_the_words_that_differ() -> None:
    html = faults.render_finding(make_finding("early"))
    assert "The compiler turns the graph into fast code" in html
    assert "The compiler turns a graph into slow code" in html
    assert "2 words differ (2 substituted) of 11." in html
    assert "It first shows at <strong>conv1</strong>: relative error 0.5" in html
    assert 'name="fault" id="fault-1" style="grid-row:4" checked' in html


def test_a_fault_that_spares_the_words_says_so() -> None:
    html = faults.render_finding(make_finding("late"))
    assert "The text is the same, word for word. The decoder got other features" in html
    assert faults.summarise(make_finding("late")) == (
        "Late fault: first shows at ln_post, the same words."
    )


def test_a_clip_of_one_window_is_said_to_be_too_short() -> None:
    short, long = make_finding("none", 6.0), make_finding("none", 70.0)
    assert "choose a longer one" in faults.render_finding(short)
    assert "nowhere in the encoder" in faults.render_finding(short)
    assert "choose a longer one" not in faults.render_finding(long)
    assert faults.summarise(long) == "Window fault: no stage shows it, the same words."


def test_a_broken_run_says_how_and_shows_the_stages_all_the_same() -> None:
    html = faults.render_finding(make_finding("broken"))
    assert "The run broke: ValueError: the shapes don&#x27;t fit" in html
    assert "There is no text to compare." in html
    assert 'class="slide"' in html
    assert faults.summarise(make_finding("broken")) == "Breaking fault: the run broke."


def test_no_words_and_one_word_are_said_in_words() -> None:
    finding = make_finding("early")
    assert finding.faulty is not None
    silent = replace(finding, faulty=replace(finding.faulty, text=" "))
    assert "No words came out." in faults.render_finding(silent)
    one = replace(finding, faulty=replace(finding.faulty, text=finding.right.text + " again"))
    assert faults.summarise(one) == "Early fault: first shows at conv1, 1 word changed."


def test_text_is_escaped() -> None:
    finding = make_finding("early")
    assert finding.faulty is not None
    nasty = replace(finding, faulty=replace(finding.faulty, text="<script>alert(1)</script>"))
    assert "<script>" not in faults.render_finding(nasty)


def test_choices_and_stories() -> None:
    assert faults.list_choices(FAULTS)[0] == ("Late fault", "late")
    assert "first convolution" in faults.render_story(FAULTS, "early")


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
