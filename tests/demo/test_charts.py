"""Timings and features as charts: right figures, light payloads, words where a chart is blank."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import pairwise

import pytest

from demo.histograms import render_features
from demo.snapshot import Comparison, Lap, Settings, lay_out
from demo.timings import STAGE_NAMES, render_legend, render_timings
from tests import fakes


def compare(noise: float = 1e-6) -> Comparison:
    blank = lay_out(Settings(engines=("cpu", "max_hybrid")), fakes.STATUSES)
    cpu = fakes.FakeEngine().transcribe(fakes.make_clip())
    hybrid = fakes.FakeEngine("max_hybrid", noise=noise).transcribe(fakes.make_clip())
    lanes = tuple(
        replace(
            lane,
            state="done",
            device="cpu",
            transcript=transcript,
            laps=(Lap(transcript.seconds),),
        )
        for lane, transcript in zip(blank.lanes, (cpu, hybrid), strict=True)
    )
    return replace(blank, lanes=lanes, audio_seconds=6.0)


def read_bars(html: str) -> list[list[tuple[float, float]]]:
    """For each lane the left end and the width of every stage, in per cent."""
    rows = html.split('<div class="track"')[1:]
    found = [re.findall(r'<i class="[^>]*left:([\d.]+)%;width:([\d.]+)%', row) for row in rows]
    return [[(float(left), float(width)) for left, width in row] for row in found]


def test_repeats_have_a_line_for_their_spread() -> None:
    done = compare()
    lap = done.lanes[0].laps[0]
    slow = replace(lap, seconds=replace(lap.seconds, mel=lap.seconds.mel + 0.5))
    lanes = (replace(done.lanes[0], laps=(lap, lap, slow)), done.lanes[1])
    html = render_timings(replace(done, lanes=lanes, settings=replace(done.settings, repeats=3)))
    spreads = re.findall(r'class="spread" style="left:([\d.]+)%;width:([\d.]+)%', html)
    assert len(spreads) == 1
    assert sum(map(float, spreads[0])) == pytest.approx(100, abs=0.01)
    assert float(spreads[0][1]) == pytest.approx(50 / slow.seconds.total, abs=0.01)
    assert "median of 3" in html
    assert 'class="spread"' not in render_timings(done)


def test_bars_stack_to_each_lane_s_total() -> None:
    done = compare()
    totals = [lane.transcript.seconds.total for lane in done.done if lane.transcript]
    for bar, total in zip(read_bars(render_timings(done)), totals, strict=True):
        assert len(bar) == len(STAGE_NAMES)
        for (left, width), (after, _) in pairwise(bar):
            assert left + width == pytest.approx(after, abs=0.01)
        assert sum(bar[-1]) == pytest.approx(100 * total / max(totals), abs=0.01)


def test_bars_name_their_settings() -> None:
    html = render_timings(compare())
    assert "Seconds by stage: nano, beam 1, the lanes shared the processor." in html
    assert "MAX hybrid<em>cpu, float32</em>" in html
    assert re.search(r'aria-label="CPU: read audio [\d.]+ s, log-mel', html)
    done = compare()
    fair = replace(done, settings=replace(done.settings, schedule="one at a time"))
    assert "beam 1, one at a time." in render_timings(fair)


def test_the_legend_names_every_stage() -> None:
    assert all(name in render_legend() for name in STAGE_NAMES.values())


def test_a_blank_chart_says_what_will_come_and_has_its_rows() -> None:
    done = compare()
    html = render_timings(lay_out(done.settings, fakes.STATUSES))
    assert "when the last lane is done" in html
    assert html.count('class="track"') == render_timings(done).count('class="track"') == 2


def test_features_are_drawn_side_by_side_with_their_difference() -> None:
    html = render_features(compare(noise=0.3))
    assert html.count("<figure") == 6
    assert "MAX hybrid − CPU" in html
    assert "percentage points" in html
    assert "1 × 100 × 32" in html


def test_a_difference_stands_beneath_its_engine() -> None:
    done = compare()
    third = replace(done.lanes[1], key="gpu", label="GPU")
    html = render_features(replace(done, lanes=(*done.lanes, third)))
    assert "--columns:3" in html
    assert html.index('class="blank"') < html.index("MAX hybrid − CPU")


def test_equal_features_look_equal() -> None:
    html = render_features(compare(noise=0.0))
    assert "every bin has the same count" in html
    assert "1.000000000" in html
    assert "0.00e+00" in html


def test_one_lane_has_no_difference() -> None:
    done = compare()
    alone = replace(done, lanes=(done.lanes[0], replace(done.lanes[1], transcript=None)))
    assert render_features(alone).count("<figure") == 2


def test_a_lane_without_its_baseline_says_so() -> None:
    done = compare()
    broken = replace(done.lanes[0], state="failed", transcript=None)
    assert "no baseline" in render_features(replace(done, lanes=(broken, done.lanes[1])))


def test_nothing_is_drawn_while_a_lane_runs_but_its_room_is_kept() -> None:
    done = compare()
    running = replace(done, lanes=(done.lanes[0], replace(done.lanes[1], state="decoding")))
    html = render_features(running)
    assert "when the last lane is done" in html
    assert "<img" not in html
    assert html.count("<figure") == render_features(done).count("<figure")
    assert read_bars(render_timings(running)) == [[], []]


def test_features_weigh_little() -> None:
    assert len(render_features(compare())) < 150_000


def test_no_features_is_said_in_words() -> None:
    blank = lay_out(Settings(engines=("cpu",)), fakes.STATUSES)
    assert "when the last lane is done" in render_features(blank)
    done = compare()
    empty = tuple(
        replace(lane, transcript=replace(lane.transcript, features=lane.transcript.features[:0]))
        for lane in done.lanes
        if lane.transcript is not None
    )
    assert "No window was encoded." in render_features(replace(done, lanes=empty))
