"""The engines side by side: every state, every figure with its settings."""

from __future__ import annotations

from dataclasses import replace

import pytest

from demo.panels import lanes
from demo.snapshot import Comparison, Settings, State, new_comparison
from engines.base import Options, Segment
from tests import fakes
from tests.demo.reading import Element, compare, fail_second, finish, keep_running, read


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
        ("loading", "◔ Loading the model 12.3 s"),
        ("compiling", "◔ Compiling the graph 12.3 s"),
        ("mel", "◑ Computing the log-mel spectrogram 12.3 s"),
        ("encoding", "◑ Encoding 43 of 162 s 12.3 s"),
        ("failed", "✕ Failed"),
        ("stopped", "■ Stopped"),
    ],
)
def test_a_state_is_said_in_words_and_with_a_sign(state: State, said: str) -> None:
    blank = new_comparison(Settings(engines=("cpu",)), fakes.STATUSES, state)
    lane = replace(blank.lanes[0], audio_done=43.0, elapsed=12.3)
    shown = show(replace(blank, lanes=(lane,), audio_seconds=161.5), "cpu")
    assert shown.attributes["data-state"] == state
    assert shown.all(kind="state")[0].text == said
    (bar,) = shown.all(role="progressbar")
    assert bar.attributes["aria-valuenow"] == "27"
    assert not shown.all(kind="unsure")
    more = replace(lane, note="downloading tiny.en, 43 %", audio_done=0.0)
    assert "downloading tiny.en, 43 %" in show(replace(blank, lanes=(more,)), "cpu").text


def test_an_engine_has_the_same_rows_from_the_first_moment_on() -> None:
    done = compare()
    first, last = (
        [child.tag for child in show(each).children if isinstance(child, Element)]
        for each in (new_comparison(done.settings, fakes.STATUSES), done)
    )
    assert first == last and len(first) == 8, "as many as the style sheet gives room"


def test_speed_ups_are_of_engines_that_ran_alone() -> None:
    shared, fair = (show(compare(schedule=s)) for s in ("parallel", "one at a time"))
    assert read_figures(shared)["Speed-up"] == "not measured"
    assert "2.00×" not in shared.text and "shared the processor" in shared.text
    assert read_figures(fair) == {
        "Whole run": "1.00 s",
        "Speed-up": "2.00×",
        "Speed": "6.0× real time",
        "Tokens per second": "11",
    }
    assert fair.all("tr", "encode")[0].text == "Encoder 0.200 s 2.00×"
    assert read_figures(show(compare(schedule="one at a time"), "cpu"))["Speed-up"] == "baseline"


@pytest.mark.parametrize(
    ("language", "sure", "said"),
    [(None, 0.98, "Detected French (98%)"), ("fr", 0.98, ""), (None, None, "")],
)
def test_a_detected_language_is_told(language: str | None, sure: float | None, said: str) -> None:
    done = compare(language=language)
    hybrid = done.lanes[1]
    assert hybrid.transcript is not None
    heard = replace(hybrid.transcript, language="fr", language_probability=sure)
    shown = show(replace(done, lanes=(done.lanes[0], replace(hybrid, transcript=heard))))
    assert shown.all(kind="clock")[0].text == said


def test_words_wait_until_no_engine_is_timed() -> None:
    fair = compare(schedule="one at a time", reference=fakes.WORDS)
    running = replace(fair, lanes=(fair.lanes[0], replace(fair.lanes[1], state="decoding")))
    for comparison, compared in ((running, False), (fair, True)):
        assert ("all 11 words" in show(comparison).text) is compared
        assert ("error rate" in show(comparison).text) is compared


def test_tokens_per_second_are_told_while_it_runs() -> None:
    done = compare()
    running = replace(done.lanes[0], state="decoding", transcript=None, elapsed=0.5)
    for lane, said in ((running, "22"), (replace(running, segments=()), "–")):
        shown = show(replace(done, lanes=(lane, done.lanes[1])), "cpu")
        assert read_figures(shown)["Tokens per second"] == said


def test_repeats_show_their_median_and_spread() -> None:
    done = compare()
    several = replace(done, settings=replace(done.settings, repeats=3))
    repeat = done.lanes[0].repeats[0]
    slow, fast = (replace(repeat, seconds=replace(repeat.seconds, decode=s)) for s in (3.5, 0.5))
    lane = replace(done.lanes[0], repeats=(repeat, slow, fast))

    def say(**traits: object) -> str:
        shown = replace(several, lanes=(replace(lane, **traits), done.lanes[1]))  # type: ignore[arg-type]
        return show(shown, "cpu").text

    assert "Median of 3 runs, which took 1.000 to 4.000 s." in say()
    assert "different tokens" in say(steady=False)
    assert "Run 2 of 3: waiting" in say(state="waiting", repeats=(repeat,))


def test_figures_stand_with_their_settings() -> None:
    done = compare()
    settings = replace(done.settings, beam_size=5)
    (foot,) = show(replace(done, settings=settings)).all("footer")
    assert foot.text == (
        "cpu · float32 · beam 5 · tiny.en · shared the processor · 11 tokens · peak 300 MiB"
    )


def test_the_same_words_are_said_to_be_the_same_and_others_are_marked() -> None:
    same = show(compare(reference=fakes.WORDS.upper() + "."))
    assert "No differences: all 11 words are the same. Its tokens are equal too." in same.text
    assert "Word error rate 0.0% normalised: 0 errors in 11 words." in same.text
    assert not same.all(kind="changes")
    changed = show(compare(words=fakes.WORDS.replace("turns", "turned")))
    assert "1 word differs (1 substituted) of 11." in changed.text
    assert changed.all("del")[0].text == "− deleted: turns"
    assert changed.all("ins")[0].text == "+ inserted: turned"
    assert "error rate" not in changed.text


def test_silence_is_no_division_by_zero() -> None:
    quiet = compare(reference="")
    assert "Nothing was said, but 11 words written." in show(quiet).text
    lane = finish(quiet.lanes[1], words="")
    silent = show(replace(quiet, lanes=(quiet.lanes[0], lane))).text
    assert "Nothing was said, and nothing was written." in silent
    assert "No speech was found." in silent


def test_a_failure_shows_its_reason_and_stays_in_its_lane() -> None:
    broken = fail_second(compare())
    assert show(broken).all(kind="reason")[0].text == "no room on device"
    assert "Not known: MAX hybrid failed." in show(broken).text
    assert show(broken, "cpu").attributes["data-state"] == "done"
    stopped = replace(broken.lanes[1], state="stopped", segments=(), reason=None)
    assert "Stopped before the first words." in show(replace(broken, lanes=(stopped,))).text
    (absent,) = read(lanes.render(broken)).all(kind="absent")
    assert absent.text == "— GPU can’t run on this machine: no CUDA device was found"


def test_every_word_says_when_it_is_heard_and_segments_play_from_the_keyboard() -> None:
    timed = compare()
    words = fakes.FakeEngine().transcribe(fakes.make_clip(), Options(word_timestamps=True))
    lane = replace(timed.lanes[1], segments=words.segments)
    row = show(replace(timed, lanes=(timed.lanes[0], lane))).all("p", "segment")[0]
    placed = [(w.text, w.attributes["data-t"]) for w in row.all("span") if "data-t" in w.attributes]
    assert placed[:2] == [("The", "0.00"), ("compiler", "0.55")]
    (button,) = row.all("button")
    assert button.attributes["aria-label"] == "Play from 0:00"
    printed = read(lanes.render_document(replace(timed, lanes=(lane,))))
    assert not printed.all("button")
    assert printed.all("ruby")[1].text == "compiler 0.5"


def test_times_that_are_not_known_are_spread_and_called_estimates() -> None:
    done = compare()
    lane = replace(done.lanes[1], segments=(Segment(2.0, 4.2, " a three of", (), 0.0),))
    words = show(replace(done, lanes=(done.lanes[0], lane))).all("p", "segment")[0].all("span")
    assert [word.attributes["data-t"] for word in words[1:]] == ["2.00", "2.40", "3.60"]
    timed = replace(done, settings=replace(done.settings, word_timestamps=True))
    for comparison, estimated in ((done, True), (timed, False)):
        (hint,) = read(lanes.render(comparison)).all(kind="hint")
        assert ("estimate" in hint.text) is estimated


def test_a_long_clip_has_a_taller_box_and_a_running_one_shows_the_newest_words() -> None:
    done = compare()
    long = show(keep_running(replace(done, audio_seconds=61.0)))
    assert long.all(kind="tall") and not long.all(kind="live"), "its first run is over"
    fresh = replace(keep_running(done).lanes[1], repeats=())
    assert show(replace(done, lanes=(done.lanes[0], fresh))).all(kind="live")
