"""Transcripts side by side, and the ranked rows above them."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace

import pytest
from gradio_client.utils import apply_diff

from demo import gradio_hooks
from demo.panels import lanes, race
from demo.snapshot import Comparison, Settings, State, new_comparison
from engines.base import Options, Segment
from tests import fakes
from tests.demo.reading import Element, change_last, compare, fail_second, keep_running, read


def show(comparison: Comparison, key: str = "max_hybrid") -> Element:
    """One engine's row as it is read."""
    (lane,) = read(race.render(comparison)).all("li", **{"data-engine": key})
    return lane


def read_column(comparison: Comparison, key: str = "max_hybrid") -> list[str]:
    """What stands in an engine's column, row by row."""
    rows = read(lanes.render(comparison)).all(kind="row")[1:]
    cells = [row.all(kind="cell", **{"data-engine": key})[0] for row in rows]
    return [" ".join(line.text for line in cell.all("p")) for cell in cells]


def read_figures(lane: Element) -> dict[str, str]:
    """The figures by their names."""
    names, values = lane.all("dt"), lane.all("dd")
    return {name.text: value.text for name, value in zip(names, values, strict=True)}


# Rows.


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ("waiting", "○ Waiting for its turn"),
        ("compiling", "◔ Compiling the graph"),
        ("encoding", "◑ Encoding 43 of 162 s"),
        ("failed", "⚠ Failed"),
    ],
)
def test_a_state_is_said_in_words_and_with_a_sign(state: State, said: str) -> None:
    blank = new_comparison(Settings(engines=("cpu",)), fakes.STATUSES, state)
    blank = change_last(replace(blank, audio_seconds=161.5), audio_done=43.0, elapsed=12.3)
    shown = show(blank, "cpu")
    assert shown.attributes["data-state"] == state
    assert shown.all(kind="state")[0].text == said
    assert ("12.3 s" in shown.text) is (state in ("compiling", "encoding"))
    (bar,) = shown.all(role="progressbar")
    assert bar.attributes["aria-valuenow"] == "27"
    noted = change_last(blank, note="downloading tiny.en, 43 %")
    assert "downloading tiny.en, 43 %" in show(noted, "cpu").text


def test_finished_engines_are_ranked_with_their_figures() -> None:
    fair = compare(schedule="one at a time")
    fast, slow = show(fair), show(fair, "cpu")
    assert (fast.all(kind="rank")[0].text, slow.all(kind="rank")[0].text) == ("1 .", "2 .")
    assert "1.00 s" in fast.text and "6.0× real time" in fast.text
    widths = [lane.all(role="progressbar")[0].attributes["aria-valuenow"] for lane in (fast, slow)]
    assert widths == ["50", "100"]
    figures = read_figures(fast)
    assert figures["Against CPU"] == "2.0×" and figures["Peak memory"] == "300 MiB"
    assert figures["Compile"] == "1.50 s" and figures["Encoder"] == "0.20 s"
    assert read_figures(show(compare()))["Against CPU"] == "not comparable", "they ran at once"
    running = show(keep_running(fair), "cpu")
    assert not running.all(kind="rank")[0].text


def test_repeats_are_dots_with_their_spread() -> None:
    done = compare(schedule="one at a time")
    repeat = done.lanes[1].repeats[0]
    slow, fast = (replace(repeat, seconds=replace(repeat.seconds, decode=s)) for s in (3.5, 0.5))
    shown = show(change_last(done, repeats=(repeat, slow, fast), steady=False))
    assert len(shown.all(role="progressbar")[0].all("i")) == 3
    assert read_figures(shown)["Spread of repeats"] == "0.75 s to 3.75 s"
    assert "repeats wrote others" in shown.text


def test_a_failure_shows_its_reason_and_stays_with_its_engine() -> None:
    broken = fail_second(compare())
    assert show(broken).all(kind="reason")[0].text == "⚠ no room on device"
    assert not show(broken, "cpu").all(kind="reason")
    alone = replace(broken, lanes=broken.lanes[1:])
    assert not show(alone).all(kind="reason"), "the verdict says it"
    (absent,) = read(race.render_document(broken)).all(kind="absent")
    assert absent.text == "GPU can’t run on this machine: no CUDA device was found"


# Transcripts.


def test_the_same_moment_stands_on_the_same_line() -> None:
    assert read_column(compare()) == [
        "The compiler turns the",
        "graph into fast code",
        "for every chip",
    ]
    parts = (Segment(0.0, 4.3, " The compiler turns the graph into fast code", (), 0.0),)
    last = Segment(4.4, 6.0, " for every chip", (), 0.0)
    merged = change_last(compare(), segments=(*parts, last))
    assert read_column(merged, "cpu") == [
        "The compiler turns the graph into fast code",
        "for every chip",
    ]
    assert read_column(merged) == read_column(merged, "cpu")
    late = keep_running(change_last(compare(), segments=compare().lanes[1].segments[:1]))
    late = change_last(late, partial="graph in")
    assert read_column(late) == ["The compiler turns the graph in", "", ""]


def test_rows_that_merge_arrive_as_they_are() -> None:
    before = lanes.render(compare())
    long = Segment(0.0, 6.0, " The compiler turns the graph into fast code for every chip", (), 0.0)
    after = lanes.render(change_last(compare(), segments=(long,)))
    assert len(after) < len(before)
    assert apply_diff(deepcopy(before), gradio_hooks.send_changes(before, after)) == after


def test_what_differs_is_marked_where_it_is() -> None:
    done = compare("The big compiler turned graph into fast code for every chip")
    page = read(lanes.render(done))
    shown = Element("rows", {}, [*page.all(kind="row"), *page.all(kind="count")])
    assert [each.text for each in shown.all("ins")] == ["big", "turned"]
    assert shown.all("ins", "other")[0].attributes["title"] == "Instead of: turns"
    assert [each.text for each in shown.all("del")] == ["the"]
    assert [each.text for each in shown.all(kind="differs")] == ["turns", "the"]
    assert shown.all(kind="count")[0].text == "2 differences"
    same = [bool(row.all(kind="differs")) for row in shown.all(kind="row")[1:]]
    assert [not each for each in same] == [
        "row--same" in row.attributes["class"].split() for row in shown.all(kind="row")[1:]
    ]
    assert not read(lanes.render(keep_running(done))).all("ins"), "an engine is being timed"


def test_engines_that_wrote_the_same_can_be_merged() -> None:
    done = compare()
    third = replace(compare("Something else").lanes[1], key="max_full", label="MAX full")
    shown = read(lanes.render(replace(done, lanes=(*done.lanes, third))))
    assert {each.attributes["data-engine"] for each in shown.all(kind="twin")} == {"max_hybrid"}
    assert [each.text for each in shown.all(kind="every")] == ["CPU and MAX hybrid", "MAX full"]
    assert "Every engine wrote the same 11 words." in read(lanes.render(done)).text


def test_engines_without_words_say_why() -> None:
    assert read_column(compare(words="")) == ["No speech was found.", "", ""]
    stopped = change_last(compare(), state="stopped", segments=(), transcript=None)
    assert read_column(stopped)[0] == "Stopped before the first words."


def test_words_say_when_they_are_heard_and_how_sure_the_engine_was() -> None:
    words = fakes.FakeEngine().transcribe(fakes.make_clip(), Options(word_timestamps=True))
    first, *rest = words.segments
    assert first.words is not None
    unsure = tuple(
        replace(word, probability=p)
        for word, p in zip(first.words, (0.95, 0.8, 0.6, 0.1), strict=True)
    )
    done = compare()
    timed = change_last(done, segments=(replace(first, words=unsure), *rest))
    cell = read(lanes.render(timed)).all(kind="cell", **{"data-engine": "max_hybrid"})[1]
    placed = [
        (w.text, w.attributes["data-t"]) for w in cell.all("span") if "data-t" in w.attributes
    ]
    assert placed[:2] == [("The", "0.00"), ("compiler", "0.55")]
    assert [cell.all(kind=f"unsure-{level}")[0].text for level in (1, 2, 3)] == [
        "compiler",
        "turns",
        "the",
    ]
    for comparison, estimated in ((done, True), (timed, False)):
        (hint,) = read(lanes.render(comparison)).all(kind="hint")
        assert ("estimate" in hint.text) is estimated
    spread = change_last(done, segments=(Segment(2.0, 4.2, " a three of", (), 0.0),))
    cells = read(lanes.render(spread)).all(kind="cell", **{"data-engine": "max_hybrid"})
    times = [
        word.attributes["data-t"]
        for cell in cells
        for word in cell.walk()
        if "data-t" in word.attributes
    ]
    assert times == ["2.00", "2.40", "3.60"]


def test_words_of_a_window_that_seems_silent_are_marked() -> None:
    done = compare()
    first, *rest = done.lanes[1].segments
    silent = change_last(done, segments=(replace(first, no_speech_prob=0.7), *rest))
    column = read_column(silent)
    assert column[0].startswith("∅ no speech? The compiler") and "∅" not in "".join(column[1:])
    for most in (0.8, None):
        asked = replace(silent, settings=replace(silent.settings, no_speech_threshold=most))
        assert "∅" not in "".join(read_column(asked))
