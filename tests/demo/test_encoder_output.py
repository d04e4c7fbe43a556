"""Encoder output: charts, maps and tables, light whatever the clip's length."""

from __future__ import annotations

import base64
import io
from dataclasses import replace

import numpy as np
from PIL import Image

from demo.panels import encoder_output
from demo.panels.encoder_output import render
from demo.snapshot import Comparison
from tests.demo.reading import change_last, compare, fail_second, read


def test_histograms_and_maps_stand_beneath_their_engines_with_their_differences() -> None:
    done = compare(noise=0.3)
    third = replace(done.lanes[1], key="gpu", label="GPU")
    page = read(render(replace(done, lanes=(*done.lanes, third))))
    titles = [figure.all("strong")[0].text for figure in page.all("figure")]
    assert titles == ["CPU", "MAX hybrid", "GPU", "MAX hybrid − CPU", "GPU − CPU"] * 2
    assert "1 × 100 × 32" in page.text
    assert page.all("rect")[0].text.endswith("%")
    kinds = [each.attributes.get("class", "").strip() for each in page.all(kind="charts")[0].walk()]
    placed = [kind for kind in kinds if kind in ("chart", "blank")]
    assert placed == ["chart"] * 3 + ["blank"] + ["chart"] * 2


def test_equal_features_look_equal() -> None:
    page = read(render(compare(noise=0.0)))
    assert "every bin has the same count" in page.text
    assert "no value differs" in page.text
    row = page.all("tr")[2].text
    assert row.startswith("MAX hybrid cpu · float32")
    assert row.endswith("1.000000000 0.00e+00 0.00e+00")


def test_one_engine_has_no_difference_and_says_whether_it_is_the_baseline() -> None:
    broken = fail_second(compare())
    alone = read(render(broken))
    assert len(alone.all("figure")) == 2
    assert alone.all("tr")[1].text.endswith(" baseline")
    cpu, hybrid = replace(broken.lanes[1], key="cpu"), compare().lanes[1]
    other = read(render(replace(broken, lanes=(cpu, hybrid))))
    assert other.all("tr")[1].text.endswith("no baseline")


def last(windows: int, seconds: float) -> Comparison:
    return replace(compare(windows=windows, noise=1e-6), audio_seconds=seconds)


def test_the_panel_weighs_the_same_however_long_the_clip() -> None:
    short, long = (render(last(n, 30.0 * n)) for n in (4, 60))
    assert len(short) < 250_000
    # Only the table by window grows: two rows of some hundred characters each.
    assert len(long) - len(short) < 2 * 56 * 500 + 60_000


def test_the_table_by_window_has_only_windows_of_the_same_audio() -> None:
    done = last(3, 90.0)
    rows = [row.text for row in read(render(done)).all("details")[0].all("tr")]
    assert len(rows) == 1 + 2 * 3
    assert rows[3].startswith("2, from 30.00 s CPU")
    hybrid = done.lanes[1].transcript
    assert hybrid is not None
    moved = replace(hybrid, window_starts=(0.0, 28.0, 60.0))
    page = read(render(change_last(done, transcript=moved)))
    assert "Only windows that start at the same audio are compared." in page.text
    rows = [row.text.split(" s ")[0] for row in page.all("details")[0].all("tr")[1::2]]
    assert rows == ["1, from 0.00", "2, from 60.00"]


def test_a_map_is_a_png_of_the_right_colours() -> None:
    values = np.array([[0.0, 1.0, np.nan], [0.5, -9.0, 9.0]])
    address = encoder_output.draw_map(values, 0.0, 1.0, ("#000000", "#ffffff"))
    packed = base64.b64decode(address.removeprefix("data:image/png;base64,"))
    pixels = np.array(Image.open(io.BytesIO(packed)).convert("RGB"))
    missing = [*bytes.fromhex(encoder_output.MISSING[1:])]
    black, white, level_32_of_64 = [0] * 3, [255] * 3, [130] * 3
    assert pixels.tolist() == [[black, white, missing], [level_32_of_64, black, white]]
