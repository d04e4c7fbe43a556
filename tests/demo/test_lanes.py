"""Lanes as HTML: every state, every figure with its settings, and nothing unescaped."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from demo import lanes
from demo.snapshot import Comparison, Lane, Lap, Schedule, Settings, State, lay_out
from engines.base import Options, PrepareSeconds, StageSeconds
from tests import fakes


def finish(lane: Lane, words: str = fakes.WORDS, factor: float = 1.0) -> Lane:
    engine = fakes.FakeEngine(lane.key, lane.label, words=words)
    written = engine.transcribe(fakes.make_clip())
    seconds = StageSeconds(audio=0.0, mel=0.1 * factor, encode=0.4 * factor, decode=1.5 * factor)
    return replace(
        lane,
        state="done",
        device="cpu",
        segments=written.segments,
        prepare=PrepareSeconds(load=0.2, compile=1.5),
        laps=(Lap(seconds, written.spans),),
        transcript=replace(written, seconds=seconds),
    )


def compare(
    words: str = fakes.WORDS, schedule: Schedule = "parallel", reference: str | None = None
) -> Comparison:
    settings = Settings(engines=("cpu", "max_hybrid"), schedule=schedule)
    blank = lay_out(settings, fakes.STATUSES)
    cpu, hybrid = blank.lanes
    done = (finish(cpu), finish(hybrid, words, factor=0.5))
    return replace(blank, lanes=done, audio_seconds=6.0, reference=reference)


def read(html: str) -> str:
    """What a person reads: no tags, single spaces."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", html))


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ("waiting", "Waiting"),
        ("loading", "Loading the model"),
        ("compiling", "Compiling the graph"),
        ("encoding", "Encoding 43 of 162 s"),
        ("decoding", "Decoding 43 of 162 s"),
        ("failed", "Failed"),
        ("stopped", "Stopped"),
    ],
)
def test_a_state_is_said_in_words_and_with_a_sign(state: State, words: str) -> None:
    blank = lay_out(Settings(engines=("cpu",)), fakes.STATUSES, state)
    lane = replace(blank.lanes[0], audio_done=43.0, elapsed=12.3)
    html = lanes.render_lane(lane, replace(blank, lanes=(lane,), audio_seconds=161.5))
    assert words in read(html)
    assert f'data-state="{state}"' in html
    assert lanes.STATE_SIGNS[state] in html
    busy = lane.running and state != "waiting"
    assert ("12.3 s" in html) == busy


def test_an_engine_may_say_more_about_getting_ready() -> None:
    blank = lay_out(Settings(engines=("cpu",)), fakes.STATUSES, "loading")
    lane = replace(blank.lanes[0], note="downloading tiny.en, 43 %")
    assert "downloading tiny.en, 43 %" in lanes.render_lane(lane, blank)


def test_rows_are_the_same_from_the_first_moment_on() -> None:
    def rows(comparison: Comparison) -> list[str]:
        html = lanes.render_lane(comparison.lanes[1], comparison)
        return re.findall(r'<(?:header|footer|dl|table|div)(?: class="(\w+))?', html)

    done = compare()
    blank = lay_out(done.settings, fakes.STATUSES)
    assert [r for r in rows(blank) if r] == [r for r in rows(done) if r]


def test_parallel_lanes_print_no_speed_up() -> None:
    text = read(lanes.render_lanes(compare()))
    assert "×" not in text
    assert text.count("Speed-up not measured") == 2
    assert "shared the processor" in text


def test_lanes_in_turn_print_a_speed_up() -> None:
    fair = compare(schedule="one at a time")
    text = read(lanes.render_lanes(fair))
    assert "Speed-up 2.00×" in text
    assert "shared" not in text


def test_words_wait_until_no_engine_is_timed() -> None:
    fair = compare(schedule="one at a time", reference=fakes.WORDS)
    running = replace(fair, lanes=(fair.lanes[0], replace(fair.lanes[1], state="decoding")))
    assert "all 11 words" not in read(lanes.render_lanes(running))
    assert "error rate" not in read(lanes.render_lanes(running))
    assert "all 11 words" in read(lanes.render_lanes(fair))


def test_tokens_per_second_while_it_runs_and_after() -> None:
    done = compare()
    running = replace(done.lanes[0], state="decoding", transcript=None, elapsed=0.5)
    assert lanes.measure_rate(running) == pytest.approx(11 / 0.5)
    assert lanes.measure_rate(done.lanes[0]) == pytest.approx(11 / 2.0)
    assert lanes.measure_rate(replace(running, state="waiting")) is None
    assert lanes.measure_rate(replace(running, segments=())) is None
    assert "Tokens per second 22" in read(lanes.render_figures(running, done))


def test_repeats_show_their_median_and_spread() -> None:
    done = compare()
    several = replace(done, settings=replace(done.settings, repeats=3))
    lap = done.lanes[0].laps[0]
    slow = replace(lap, seconds=replace(lap.seconds, decode=3.5))
    fast = replace(lap, seconds=replace(lap.seconds, decode=0.5))
    lane = replace(done.lanes[0], laps=(lap, slow, fast))
    text = lanes.describe_spread(lane, several)
    assert text == "Median of 3 runs, which took 1.000 to 4.000 s."
    assert "different tokens" in lanes.describe_spread(replace(lane, steady=False), several)
    between = replace(lane, state="waiting", laps=(lap,))
    assert "Run 2 of 3: waiting" in read(lanes.render_lane(between, several))


def test_only_changed_parts_would_travel() -> None:
    done = compare()
    later = replace(done, lanes=(done.lanes[0], replace(done.lanes[1], elapsed=9.0)))
    assert lanes.list_lanes(done)[1][0] == lanes.list_lanes(later)[1][0]
    assert lanes.join_parts(lanes.list_lanes(done)) == lanes.render_lanes(done)


def test_figures_stand_with_their_settings() -> None:
    done = compare()
    settings = replace(done.settings, options=Options(beam_size=5))
    html = lanes.render_foot(done.lanes[0], replace(done, settings=settings))
    assert "cpu · float32 · beam 5 · nano" in html


def test_the_same_words_are_said_to_be_the_same() -> None:
    text = read(lanes.render_lanes(compare()))
    assert "No differences: all 11 words are the same. Its tokens are equal too." in text


def test_different_words_are_marked() -> None:
    done = compare(words=fakes.WORDS.replace("turns", "turned"))
    html = lanes.render_lanes(done)
    assert "1 word differs (1 substituted) of 11." in read(html)
    assert "<del>" in html
    assert "<ins>" in html


def test_error_rate_is_given_where_the_words_are_known() -> None:
    text = read(lanes.render_lanes(compare(reference=fakes.WORDS.upper() + ".")))
    assert "Word error rate 0.0% normalised: 0 errors in 11 words." in text
    assert "error rate" not in read(lanes.render_lanes(compare()))


def test_silence_is_no_division_by_zero() -> None:
    quiet = compare(reference="")
    lane = finish(quiet.lanes[0], words="")
    text = read(lanes.render_lane(lane, replace(quiet, lanes=(lane,))))
    assert "Nothing was said, and nothing was written." in text
    assert "No speech was found." in text


def test_a_failure_shows_its_reason_and_stays_in_its_lane() -> None:
    done = compare()
    failed = replace(
        done.lanes[1], state="failed", reason="no room on device", transcript=None, laps=()
    )
    broken = replace(done, lanes=(done.lanes[0], failed))
    text = read(lanes.render_lanes(broken))
    assert "no room on device" in text
    assert "Not known: MAX hybrid failed." in text


def test_an_absent_engine_gives_its_reason() -> None:
    assert "GPU can’t run on this machine: no CUDA device was found" in read(
        lanes.render_lanes(compare())
    )


def test_nothing_an_engine_says_becomes_markup() -> None:
    evil = "<img src=x onerror=alert(1)>"
    done = compare(words=evil, reference=evil)
    failed = replace(done.lanes[0], state="failed", reason=evil, label=evil)
    html = lanes.render_lanes(replace(done, lanes=(failed, done.lanes[1])))
    assert "<img" not in html
