"""Timings and features as charts: right figures, light payloads, words where a chart is blank."""

from __future__ import annotations

from dataclasses import replace

import pytest

from demo.histograms import render_features
from demo.snapshot import Comparison, Lap, Settings, lay_out
from demo.timings import STAGE_NAMES, draw_timings, render_legend
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


def test_repeats_have_whiskers() -> None:
    done = compare()
    lap = done.lanes[0].laps[0]
    slow = replace(lap, seconds=replace(lap.seconds, mel=lap.seconds.mel + 0.5))
    lanes = (replace(done.lanes[0], laps=(lap, lap, slow)), done.lanes[1])
    settings = replace(done.settings, repeats=3)
    figure = draw_timings(replace(done, lanes=lanes, settings=settings))
    assert figure.data[-1].error_x.array == pytest.approx((0.5, 0.0), abs=1e-4)
    assert figure.data[-1].error_x.arrayminus == pytest.approx((0.0, 0.0), abs=1e-4)
    assert "median of 3" in figure.layout.annotations[0].text
    assert draw_timings(done).data[-1].error_x.array is None


def test_bars_stack_to_each_lane_s_total() -> None:
    done = compare()
    figure = draw_timings(done)
    assert [bar.name for bar in figure.data] == list(STAGE_NAMES.values())
    totals = [sum(bar.x[lane] for bar in figure.data) for lane in range(2)]
    expected = [lane.transcript.seconds.total for lane in done.done if lane.transcript]
    assert totals == pytest.approx(expected, abs=1e-3)


def test_bars_name_their_settings() -> None:
    figure = draw_timings(compare())
    assert figure.layout.annotations[0].text == "seconds · nano · beam 1 · parallel"
    assert figure.data[0].y[1] == "MAX hybrid<br><i>cpu, float32</i>"


def test_stages_differ_by_pattern_too() -> None:
    shapes = [bar.marker.pattern.shape for bar in draw_timings(compare()).data]
    assert len(set(shapes)) == len(shapes)
    assert all(name in render_legend() for name in STAGE_NAMES.values())


def test_a_blank_chart_says_what_will_come_and_has_its_height() -> None:
    blank = lay_out(Settings(engines=("cpu",)), fakes.STATUSES)
    figure = draw_timings(blank)
    assert "when the last lane is done" in figure.layout.annotations[0].text
    assert figure.layout.height == draw_timings(compare()).layout.height


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
    assert not draw_timings(running).data[0].x


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
