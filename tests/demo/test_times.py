"""Bars and timeline: every stage of every run where it belongs, in boxes and in words."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import pairwise

import pytest

from demo.panels import times
from demo.snapshot import Comparison
from engines.base import Span
from tests.demo.reading import Element, compare, fail_second, read


def read_places(boxes: list[Element]) -> list[tuple[float, float]]:
    """Left end and width of boxes, in per cent."""
    found = [re.findall(r"(?:left|width):([\d.]+)%", box.attributes["style"]) for box in boxes]
    return [(float(left), float(width)) for left, width in found]


def test_bars_stack_to_each_engine_s_total_and_name_their_settings() -> None:
    page = read(times.render_bars(compare()))
    for track, total in zip(page.all(kind="track"), (2.0, 1.0), strict=True):
        boxes = read_places(track.all("i"))
        assert len(boxes) == len(times.STAGE_NAMES)
        for (left, width), (after, _) in pairwise(boxes):
            assert left + width == pytest.approx(after, abs=0.01)
        assert sum(boxes[-1]) == pytest.approx(100 * total / 2.0, abs=0.01)
        assert track.all(kind="sum")[0].text == f"{total:.2f} s"
    for render in (times.render_bars, times.render_timeline):
        track = read(render(fail_second(compare()))).all(kind="track")[1]
        assert not track.all("i")
        assert "MAX hybrid: nothing" in track.all(role="img")[0].attributes["aria-label"]
    assert page.all("figcaption")[0].text == (
        "Seconds by stage: tiny.en, beam 1, the engines shared the processor."
    )
    assert page.all(kind="who")[1].text == "MAX hybrid cpu, float32"
    label = page.all(role="img")[0].attributes["aria-label"]
    assert label.startswith("CPU: read audio 0.000 s, set-up 0.000 s, log-mel 0.100 s, encoder")
    assert page.all("ul")[0].text == " ".join(times.STAGE_NAMES.values())


def test_repeats_have_a_line_for_their_spread() -> None:
    done = compare()
    repeat = done.lanes[0].repeats[0]
    slow = replace(repeat, seconds=replace(repeat.seconds, mel=repeat.seconds.mel + 0.5))
    lanes = (replace(done.lanes[0], repeats=(repeat, repeat, slow)), done.lanes[1])
    several = replace(done, lanes=lanes, settings=replace(done.settings, repeats=3))
    page = read(times.render_bars(several))
    assert read_places(page.all(kind="spread")) == [(80.0, 20.0)]  # 2.0 to 2.5 s
    assert "median of 3" in page.text
    assert "runs from 2.000 to 2.500 s" in page.all(role="img")[0].attributes["aria-label"]


def run_windows(windows: int = 3) -> Comparison:
    """Two runs of each engine over windows, half a second after 1.5 s of getting ready."""
    done = compare(windows=windows)
    lanes = []
    for lane in done.lanes:
        (run,) = lane.repeats
        ready = Span("prepare", run.spans[0].start - 2.0, 1.5)
        lanes.append(replace(lane, ready=ready, repeats=(run, run)))
    return replace(done, lanes=tuple(lanes), start=run.spans[0].start - 2.5)


def test_every_stage_of_every_window_has_a_box_on_both_clocks() -> None:
    own, whole = read(times.render_timeline(run_windows())).all("figure")
    for stage, runs, clock in (("prepare", 0, 1), ("mel", 1, 2), ("encode", 3, 6)):
        assert len(own.all("i", f"key--{stage}")) == 2 * runs
        assert len(whole.all("i", f"key--{stage}")) == 2 * clock
    for track in own.all(kind="track") + whole.all(kind="track"):
        assert all(left + width <= 100.01 for left, width in read_places(track.all("i")))
    assert all(read_places(track.all("i"))[0][0] == 0 for track in own.all(kind="track"))
    tips = [box.attributes["title"] for box in whole.all(kind="track")[1].all("i")]
    assert tips[0] == "Getting ready: 1.500 s from 0.500 s"
    assert tips[1].startswith("Log-mel: 0.020 s from 2.500 s")
    assert any(tip.startswith("Encoder, window 3: ") for tip in tips)
    said = whole.all(role="img")[-1].attributes["aria-label"]
    assert said.startswith("MAX hybrid: getting ready 1.500 s, log-mel 0.040 s, encoder ")
    crowded = read(times.render_timeline(run_windows(1000))).all("figure")[1]
    assert len(crowded.all(kind="track")[0].all("i")) < 10, "what nobody can see is left out"


def test_ticks_are_round() -> None:
    for longest, ticks in (
        (0.12, ["0.00", "0.02", "0.04", "0.06", "0.08", "0.10", "0.12 s"]),
        (7.8, ["0", "2", "4", "6 s"]),
    ):
        assert [label for _, label in times.Chart("", (), longest).ticks] == ticks
