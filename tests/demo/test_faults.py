"""The faults panel: both texts, what differs, and where it first shows."""

from __future__ import annotations

from dataclasses import replace

from demo.panels import faults
from engines.analysis.records import FaultResult
from tests.demo.reading import Element, read
from tests.fake_lab import FAULTS, make_result


def show(finding: FaultResult) -> Element:
    return read(faults.render(finding))


def test_both_texts_and_the_words_that_differ() -> None:
    page = show(make_result("early"))
    assert [each.text for each in page.all(kind="said")] == [
        "The compiler turns the graph into fast code for every chip",
        "The compiler turns a graph into slow code for every chip",
    ]
    assert "2 words differ (2 substituted) of 11." in page.text
    assert [each.text for each in page.all("ins")] == ["+ inserted: a", "+ inserted: slow"]
    assert page.all(kind="first")[0].text.startswith("It first shows at conv1 : relative error 0.5")
    (opened,) = page.all("input", "chooser", checked="")
    assert opened.attributes["id"] == "fault-1", "the stage where it first shows is open"


def test_a_fault_that_spares_the_words_says_so() -> None:
    late = make_result("late")
    assert "The text is the same, word for word. The decoder got other" in show(late).text
    assert faults.summarise(late) == "Late fault: first shows at ln_post, the same words."


def test_a_clip_of_one_window_is_said_to_be_too_short() -> None:
    short, long = make_result("none", 6.0), make_result("none", 70.0)
    assert "choose a longer one" in show(short).text
    assert "nowhere in the encoder" in show(short).text
    assert "choose a longer one" not in show(long).text
    assert faults.summarise(long) == "Window fault: no stage shows it, the same words."


def test_a_broken_run_says_how_and_shows_the_stages_all_the_same() -> None:
    page = show(make_result("broken"))
    assert "The run broke: ValueError: the shapes don't fit" in page.text
    assert "There is no text to compare." in page.text
    assert page.all(kind="slide")
    assert faults.summarise(make_result("broken")) == "Breaking fault: the run broke."


def test_no_words_and_one_word_are_said_in_words() -> None:
    finding = make_result("early")
    assert finding.faulty is not None
    silent = replace(finding, faulty=replace(finding.faulty, text=" "))
    assert "No words came out." in show(silent).text
    one = replace(finding, faulty=replace(finding.faulty, text=finding.right.text + " again"))
    assert faults.summarise(one) == "Early fault: first shows at conv1, 1 word changed."


def test_choices_and_stories() -> None:
    assert faults.list_choices(FAULTS)[0] == ("Late fault", "late")
    assert "first convolution" in read(faults.render_story(FAULTS, "early")).text
