"""The engines side by side: every state, every figure with its settings."""

from __future__ import annotations

from dataclasses import replace

import pytest

from demo.panels import lanes
from demo.snapshot import Comparison, Settings, State, new_comparison
from engines.base import Options, Segment
from tests import fakes
from tests.demo.reading import Element, change_last, compare, fail_second, keep_running, read


def show(comparison: Comparison, key: str = "max_hybrid") -> Element:
    """One engine as it is read."""
    (lane,) = read(lanes.render(comparison)).all("article", **{"data-engine": key})
    return lane


def read_figures(lane: Element) -> dict[str, str]:
    """The figures by their names."""
    names, values = lane.all("dt"), lane.all("dd")
    return {name.text: value.text for name, value in zip(names, values, strict=True)}


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ("waiting", "○ Waiting"),
        ("compiling", "◔ Compiling the graph 12.3 s"),
        ("encoding", "◑ Encoding 43 of 162 s 12.3 s"),
        ("failed", "✕ Failed"),
    ],
)
def test_a_state_is_said_in_words_and_with_a_sign(state: State, said: str) -> None:
    blank = new_comparison(Settings(engines=("cpu",)), fakes.STATUSES, state)
    blank = change_last(replace(blank, audio_seconds=161.5), audio_done=43.0, elapsed=12.3)
    shown = show(blank, "cpu")
    assert shown.attributes["data-state"] == state
    assert shown.all(kind="state")[0].text == said
    (bar,) = shown.all(role="progressbar")
    assert bar.attributes["aria-valuenow"] == "27"
    noted = change_last(blank, note="downloading tiny.en, 43 %")
    assert "downloading tiny.en, 43 %" in show(noted, "cpu").text


def test_figures_have_their_settings_and_speed_ups_are_of_engines_that_ran_alone() -> None:
    shared, fair = (show(compare(schedule=s)) for s in ("parallel", "one at a time"))
    assert read_figures(shared)["Speed-up"] == "not measured"
    assert "2.00×" not in shared.text
    assert shared.all("footer")[0].text == (
        "cpu · float32 · beam 1 · tiny.en · shared the processor · 11 tokens · peak 300 MiB"
    )
    assert read_figures(fair) == {
        "Whole run": "1.00 s",
        "Speed-up": "2.00×",
        "Speed": "6.0× real time",
        "Tokens per second": "11",
    }
    assert fair.all("tr", "encode")[0].text == "Encoder 0.200 s 2.00×"
    assert read_figures(show(compare(schedule="one at a time"), "cpu"))["Speed-up"] == "baseline"


def test_a_detected_language_is_told_unless_it_was_asked_for() -> None:
    for language, said in ((None, "Detected French (98%)"), ("fr", "")):
        done = compare(language=language)
        written = done.lanes[1].transcript
        assert written is not None
        heard = replace(written, language="fr", language_probability=0.98)
        assert show(change_last(done, transcript=heard)).all(kind="clock")[0].text == said


def test_words_wait_until_no_engine_is_timed() -> None:
    fair = compare(schedule="one at a time", reference=fakes.WORDS)
    for comparison, compared in ((change_last(fair, state="decoding"), False), (fair, True)):
        assert ("all 11 words" in show(comparison).text) is compared
        assert ("error rate" in show(comparison).text) is compared


def test_tokens_per_second_and_the_newest_words_are_shown_while_it_runs() -> None:
    running = change_last(keep_running(compare()), elapsed=0.5, repeats=())
    assert read_figures(show(running))["Tokens per second"] == "22"
    assert show(running).all(kind="live")
    assert not show(keep_running(compare())).all(kind="live"), "its first run is over"


def test_repeats_show_their_median_and_spread() -> None:
    done = compare()
    done = replace(done, settings=replace(done.settings, repeats=3))
    repeat = done.lanes[1].repeats[0]
    slow, fast = (replace(repeat, seconds=replace(repeat.seconds, decode=s)) for s in (3.5, 0.5))
    for traits, said in (
        ({"repeats": (repeat, slow, fast)}, "Median of 3 runs, which took 0.750 to 3.750 s."),
        ({"repeats": (repeat, slow), "steady": False}, "different tokens"),
    ):
        assert said in show(change_last(done, **traits)).text


def test_the_same_words_are_said_to_be_the_same_and_others_are_marked() -> None:
    same = show(compare(reference=fakes.WORDS.upper() + "."))
    assert "No differences: all 11 words are the same. Its tokens are equal too." in same.text
    assert "Word error rate 0.0% normalised: 0 errors in 11 words." in same.text
    assert not same.all(kind="changes")
    changed = show(compare(fakes.WORDS.replace("compiler turns", "big compiler turned")))
    assert "2 words differ (1 substituted, 1 inserted) of 11." in changed.text
    assert changed.all("del")[0].text == "− deleted: turns"
    assert [each.text for each in changed.all("ins")] == ["+ inserted: big", "+ inserted: turned"]
    assert "the graph into fast …" in changed.all(kind="changes")[0].text
    assert "error rate" not in changed.text


def test_silence_is_no_division_by_zero() -> None:
    assert "Nothing was said, but 11 words written." in show(compare(reference="")).text
    silent = show(compare(words="", reference="")).text
    assert "Nothing was said, and nothing was written." in silent
    assert "No speech was found." in silent


def test_a_failure_shows_its_reason_and_stays_in_its_lane() -> None:
    broken = fail_second(compare())
    assert show(broken).all(kind="reason")[0].text == "no room on device"
    assert "Not known: MAX hybrid failed." in show(broken).text
    assert show(broken, "cpu").attributes["data-state"] == "done"
    stopped = change_last(broken, state="stopped", segments=(), reason=None)
    assert "Stopped before the first words." in show(stopped).text
    (absent,) = read(lanes.render(broken)).all(kind="absent")
    assert absent.text == "— GPU can’t run on this machine: no CUDA device was found"


def test_every_word_says_when_it_is_heard_and_segments_play_from_the_keyboard() -> None:
    words = fakes.FakeEngine().transcribe(fakes.make_clip(), Options(word_timestamps=True))
    row = show(change_last(compare(), segments=words.segments)).all("p", "segment")[0]
    placed = [(w.text, w.attributes["data-t"]) for w in row.all("span") if "data-t" in w.attributes]
    assert placed[:2] == [("The", "0.00"), ("compiler", "0.55")]
    (button,) = row.all("button")
    assert button.attributes["aria-label"] == "Play from 0:00"


def test_times_that_are_not_known_are_spread_and_called_estimates() -> None:
    done = change_last(compare(), segments=(Segment(2.0, 4.2, " a three of", (), 0.0),))
    words = show(done).all("p", "segment")[0].all("span")
    assert [word.attributes["data-t"] for word in words[1:]] == ["2.00", "2.40", "3.60"]
    timed = replace(done, settings=replace(done.settings, word_timestamps=True))
    for comparison, estimated in ((done, True), (timed, False)):
        (hint,) = read(lanes.render(comparison)).all(kind="hint")
        assert ("estimate" in hint.text) is estimated
