"""Bars and timeline: every stage of every run where it belongs, in bars and in a table."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from demo.panels import times
from demo.snapshot import Comparison
from engines.base import Span, StageSeconds
from tests.demo.reading import compare, fail_second, list_figures, read


def list_bars(figure: dict[str, Any], stage: str = "") -> list[dict[str, Any]]:
    """The traces of stages but for those of the legend."""
    bars = [each for each in figure["data"] if each["type"] == "bar" and "hovertext" in each]
    return [each for each in bars if stage in ("", each["name"])]


def test_bars_stack_to_each_engine_s_total_the_fastest_first() -> None:
    page = read(times.render_bars(compare(schedule="one at a time")))
    (figure,) = list_figures(page)
    totals: dict[str, float] = {}
    for bar in list_bars(figure):
        totals[bar["y"][0]] = totals.get(bar["y"][0], 0.0) + bar["x"][0]
    assert list(totals.values()) == pytest.approx([1.0, 2.0])
    assert [name.split("<")[0] for name in totals] == ["MAX hybrid", "CPU"]
    assert len({each["marker"]["pattern"]["shape"] for each in list_bars(figure)}) == 3
    rows = [row.text for row in page.all("tr")]
    assert rows[1].startswith(
        "MAX hybrid, cpu float32 0.000 s 0.000 s 0.050 s 0.200 s 0.750 s 1.000"
    )
    assert "Seconds by stage: tiny.en, beam 1" in page.text
    assert times.ALONE in page.text and times.SINGLE in page.text
    assert times.SHARED in times.render_bars(compare(schedule="parallel"))
    (failed,) = list_figures(read(times.render_bars(fail_second(compare()))))
    assert len(list_bars(failed)) == 3


def test_every_run_alone_has_a_dot_and_the_race_its_seconds_in_the_table() -> None:
    done = compare(schedule="both")
    repeat = done.lanes[0].repeats[0]
    slow = replace(repeat, seconds=replace(repeat.seconds, mel=repeat.seconds.mel + 0.5))
    race = StageSeconds(0.0, mel=1.0, encode=1.0, decode=2.0)
    lanes = (replace(done.lanes[0], repeats=(repeat, repeat, slow), race=race), done.lanes[1])
    several = replace(done, lanes=lanes, settings=replace(done.settings, repeats=3))
    page = read(times.render_bars(several))
    (figure,) = list_figures(page)
    dots = {each["name"]: each["x"] for each in figure["data"] if each.get("mode") == "markers"}
    assert dots == {"One run": [1.0, 2.0, 2.0, 2.5]}
    assert "median of 3" in page.text and "2.000, 2.000, 2.500 4.000 s" in page.text


def run_windows(windows: int = 3) -> Comparison:
    """Two runs of each engine over windows, half a second after 1.5 s of getting ready."""
    done = compare(windows=windows)
    lanes = []
    for lane in done.lanes:
        (run,) = lane.repeats
        ready = Span("prepare", run.spans[0].start - 2.0, 1.5)
        lanes.append(replace(lane, ready=ready, repeats=(run, run)))
    return replace(done, lanes=tuple(lanes), start=run.spans[0].start - 2.5)


def test_every_stage_of_every_window_has_a_bar_on_both_clocks() -> None:
    page = read(times.render_timeline(run_windows()))
    (figure,) = list_figures(page)
    for name, runs, clock in (("Getting ready", 0, 1), ("Log-mel", 1, 2), ("Encoder", 3, 6)):
        bars = list_bars(figure, name)
        shown = [each for each in bars if each["visible"]]
        assert sum(len(each["x"]) for each in shown) == 2 * runs
        assert sum(len(each["x"]) for each in bars) == 2 * (runs + clock)
    encoders = list_bars(figure, "Encoder")
    assert encoders[0]["customdata"] == [0.0, 30.0, 60.0], "a click plays the window"
    assert list_bars(figure, "Log-mel")[0]["base"] == [0.0]
    said = [text for each in list_bars(figure, "Getting ready") for text in each["hovertext"]]
    assert said[-1] == "MAX hybrid<br>Getting ready: 1.500 s from 0.500 s"
    rows = [row.text for row in page.all("tr")]
    assert "MAX hybrid From the click Getting ready – 0.500 1.500" in rows
    (crowded,) = list_figures(read(times.render_timeline(run_windows(1000))))
    assert len(list_bars(crowded, "Encoder")) == 0, "what nobody can see is left out"
