"""The timeline: every stage of every run where it was on the clock, in boxes and in words."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from demo.snapshot import Comparison, Lap, Settings, lay_out
from demo.timeline import align_run, list_spans, list_ticks, pick_visible, render_timeline
from engines.base import Span
from tests import fakes


def compare(windows: int = 3) -> Comparison:
    blank = lay_out(Settings(engines=("cpu", "max_hybrid")), fakes.STATUSES)
    lanes = []
    for lane in blank.lanes:
        transcript = fakes.FakeEngine(lane.key, windows=windows).transcribe(fakes.make_clip())
        start = transcript.spans[0].start
        ready = Span("prepare", start - 2.0, 1.5)
        laps = (Lap(transcript.seconds, transcript.spans),) * 2
        done = replace(lane, state="done", transcript=transcript, ready=ready, laps=laps)
        lanes.append(done)
    return replace(blank, lanes=tuple(lanes), start=start - 2.5)


def test_spans_count_from_the_clock_s_zero() -> None:
    done = compare()
    lane = done.lanes[1]
    spans = list_spans(lane, done.start)
    assert (spans[0].stage, spans[0].start) == ("prepare", pytest.approx(0.5))
    assert spans[1].start == pytest.approx(2.5)
    assert len(spans) == 1 + 2 * 7
    assert align_run(lane)[0].start == 0
    assert align_run(lane)[1].window == 0


def test_every_stage_of_every_window_has_a_box() -> None:
    html = render_timeline(compare())
    for stage, count in (("prepare", 1), ("mel", 3), ("encode", 9), ("decode", 9)):
        assert len(re.findall(f'<i class="key--{stage}"', html)) == 2 * count
    assert "Encoder, window 3: " in html
    lefts = [float(x) for x in re.findall(r"left:([\d.]+)%;width", html)]
    widths = [float(x) for x in re.findall(r"width:([\d.]+)%", html)]
    assert all(x + w <= 100.01 for x, w in zip(lefts, widths, strict=True))


def test_a_row_is_told_in_words() -> None:
    assert re.search(
        r'aria-label="MAX hybrid: getting ready 1.500 s, log-mel 0.040 s, '
        r"encoder [\d.]+ s over 3 windows, decoder loop",
        render_timeline(compare()),
    )


def test_it_keeps_its_room_and_waits_for_the_last_lane() -> None:
    done = compare()
    running = replace(done, lanes=(done.lanes[0], replace(done.lanes[1], state="decoding")))
    html = render_timeline(running)
    assert "<i " not in html
    assert "when the last lane is done" in html
    assert html.count('class="track"') == render_timeline(done).count('class="track"') == 4


@pytest.mark.parametrize(
    ("longest", "ticks"),
    [
        (0.0, []),
        (0.12, ["0.00", "0.02", "0.04", "0.06", "0.08", "0.10", "0.12 s"]),
        (7.8, ["0", "2", "4", "6 s"]),
        (30.0, ["0", "5", "10", "15", "20", "25", "30 s"]),
    ],
)
def test_ticks_are_round(longest: float, ticks: list[str]) -> None:
    assert [label for _, label in list_ticks(longest)] == ticks


def test_a_crowded_row_leaves_out_what_nobody_sees() -> None:
    spans = [Span("decode", float(n), 1e-6 if n % 2 else 1.0, n) for n in range(1000)]
    assert len(pick_visible(spans, 1000.0)) == 500
    assert len(pick_visible(spans[:100], 1000.0)) == 100
