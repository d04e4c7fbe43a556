"""Encoder output: charts, maps and tables, light whatever the clip's length."""

from __future__ import annotations

import base64
import json
from dataclasses import replace

import numpy as np
import pytest

from demo.panels import charts
from demo.panels.encoder_output import render
from demo.snapshot import Comparison
from tests.demo.reading import change_last, compare, fail_second, list_figures, read


def test_histograms_stand_side_by_side_above_their_differences_or_overlaid() -> None:
    done = compare(noise=0.3)
    third = replace(done.lanes[1], key="gpu", label="GPU")
    page = read(render(replace(done, lanes=(*done.lanes, third))))
    histograms, maps = list_figures(page)
    names = [trace["name"] for trace in histograms["data"]]
    assert names == ["CPU", "MAX hybrid", "GPU", "MAX hybrid", "GPU"]
    cpu, hybrid, *_, gap = histograms["data"]
    assert (cpu["x0"], cpu["dx"]) == (hybrid["x0"], hybrid["dx"])
    assert sum(cpu["y"]) == pytest.approx(100, abs=0.1)
    assert gap["y"] == pytest.approx(np.subtract(hybrid["y"], cpu["y"]), abs=0.01)
    axes = [histograms["layout"][f"xaxis{at}"] for at in (2, 3, 4, 5)]
    assert all(axis["matches"] == "x" for axis in axes)
    assert [axis["domain"] for axis in axes[:2]] == [axis["domain"] for axis in axes[2:]]
    columns = json.loads(page.all(kind="choice")[0].attributes["data-options"])
    assert columns[1]["traces"]["xaxis"] == ["x", "x", "x", "x4", "x4"]
    titles = ["CPU", "MAX hybrid", "GPU", "MAX hybrid − CPU", "GPU − CPU"]
    assert [trace["name"] for trace in maps["data"]] == titles
    assert [trace["visible"] for trace in maps["data"]] == [True, *[False] * 4]
    assert "1 × 100 × 32" in page.text


def test_equal_features_look_equal() -> None:
    page = read(render(compare(noise=0.0)))
    histograms, _ = list_figures(page)
    assert not any(histograms["data"][2]["y"])
    reach = histograms["layout"]["yaxis3"]["range"][1]
    assert reach == pytest.approx(0.011 * max(histograms["data"][0]["y"]), rel=0.01)
    row = page.all("tr")[2].text
    assert row.startswith("MAX hybrid cpu · float32")
    assert row.endswith("1.000000000 0.00e+00 0.00e+00")


def test_one_engine_has_no_difference_and_says_whether_it_is_the_baseline() -> None:
    broken = fail_second(compare())
    alone = read(render(broken))
    assert [len(figure["data"]) for figure in list_figures(alone)] == [1, 1]
    assert alone.all("tr")[1].text.endswith(" baseline")
    cpu, hybrid = replace(broken.lanes[1], key="cpu"), compare().lanes[1]
    other = read(render(replace(broken, lanes=(cpu, hybrid))))
    assert other.all("tr")[1].text.endswith("no baseline")


def last(windows: int, seconds: float) -> Comparison:
    return replace(compare(windows=windows, noise=1e-6), audio_seconds=seconds)


def test_the_panel_weighs_the_same_however_long_the_clip() -> None:
    short, long = (render(last(n, 30.0 * n)) for n in (4, 60))
    assert len(short) < 150_000
    # Only the table by window grows: two rows of some hundred characters each.
    assert len(long) - len(short) < 2 * 56 * 500 + 60_000


def test_the_table_by_window_has_only_windows_of_the_same_audio() -> None:
    done = last(3, 90.0)
    rows = [row.text for row in read(render(done)).all("details")[1].all("tr")]
    assert len(rows) == 1 + 2 * 3
    assert rows[3].startswith("2, from 30.00 s CPU")
    hybrid = done.lanes[1].transcript
    assert hybrid is not None
    moved = replace(hybrid, window_starts=(0.0, 28.0, 60.0))
    page = read(render(change_last(done, transcript=moved)))
    assert "Only windows that start at the same audio are compared." in page.text
    rows = [row.text.split(" s ")[0] for row in page.all("details")[1].all("tr")[1::2]]
    assert rows == ["1, from 0.00", "2, from 60.00"]


def test_a_map_travels_in_levels_of_a_byte_on_the_clip_s_time_axis() -> None:
    packed = charts.pack(np.array([[0.0, 1.0, np.nan], [0.5, -9.0, 9.0]]), 0.0, 1.0)
    assert packed["z"].tolist() == [[0, 254, charts.MISSING], [127, 0, 254]]
    _, maps = list_figures(read(render(last(2, 60.0))))
    trace = maps["data"][0]
    rows, columns = map(int, trace["z"]["shape"].split(","))
    assert len(base64.b64decode(trace["z"]["bdata"])) == rows * columns
    assert trace["x0"] + trace["dx"] * (columns - 0.5) == pytest.approx(60.0)
    assert trace["meta"]["seconds"] == "x", "a click plays the clip from there"


def test_an_engine_that_hands_out_no_features_is_named_and_left_out() -> None:
    done = compare()
    cpu, hybrid = done.lanes
    assert hybrid.transcript is not None
    bare = replace(
        hybrid, own_loop="Another loop.", transcript=hybrid.transcript.without_features()
    )
    page = read(render(replace(done, lanes=(cpu, bare))))
    assert [len(figure["data"]) for figure in list_figures(page)] == [1, 1]
    assert "No encoder output is handed out by MAX hybrid." in page.text
    nothing = read(render(replace(done, lanes=(bare,))))
    assert "No window was encoded." in nothing.text
