"""Heat maps against plain NumPy, and the pictures against a reader of PNG that isn't ours."""

from __future__ import annotations

import base64
import io
from dataclasses import replace

import numpy as np
import pytest

from demo import heatmap
from demo.histograms import render_features
from demo.snapshot import Comparison, Lane, Settings, lay_out
from demo.windows import match_windows
from tests import fakes

STARTS = (0.0, 20.0)


def make_features(n_state: int = 6) -> np.ndarray:
    """Two windows of 60 positions, two positions a second."""
    rng = np.random.default_rng(3)
    return rng.normal(size=(2, 60, n_state)).astype(np.float32)


def lay_over(features: np.ndarray, audio_seconds: float) -> np.ndarray:
    """The clip's own positions one after another: of the first window those before the second."""
    rest = round((audio_seconds - STARTS[1]) * 2)
    return np.concatenate([features[0][:40], features[1][:rest]])


def test_a_pixel_is_the_mean_beneath_it(monkeypatch: pytest.MonkeyPatch) -> None:
    features = make_features()
    monkeypatch.setattr(heatmap, "COLUMNS", 10)
    monkeypatch.setattr(heatmap, "ROWS", 3)
    pixels = heatmap.average(features, STARTS, 45.0)
    expected = lay_over(features, 45.0).reshape(10, 9, 3, 2).mean(axis=(1, 3)).T
    np.testing.assert_allclose(pixels, expected, rtol=1e-6, atol=1e-7)


def test_a_difference_shows_its_largest_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heatmap, "COLUMNS", 10)
    monkeypatch.setattr(heatmap, "ROWS", 3)
    theirs = make_features()
    ours = theirs.copy()
    ours[1, 12, 4] -= 0.5
    gap = heatmap.find_extremes(ours, theirs, STARTS, 45.0)
    assert gap.shape == (3, 10)
    # The 12th position of the window at 20 s is the clip's 52nd; nine fall into a column.
    assert gap[2, 52 // 9] == pytest.approx(-0.5, abs=1e-6)
    assert np.count_nonzero(gap) == 1


def test_audio_that_no_window_holds_is_no_value() -> None:
    features = make_features()[:1]
    pixels = heatmap.average(features, (0.0,), 60.0)
    assert np.isfinite(pixels[:, : pixels.shape[1] // 2]).all()
    assert np.isnan(pixels[:, pixels.shape[1] // 2 + 1 :]).all()


def test_a_picture_is_a_png_of_the_right_colours() -> None:
    image = pytest.importorskip("PIL.Image")
    values = np.array([[0.0, 1.0, np.nan], [0.5, -9.0, 9.0]])
    address = heatmap.draw(values, 0.0, 1.0, ("#000000", "#ffffff"))
    packed = base64.b64decode(address.removeprefix("data:image/png;base64,"))
    picture = image.open(io.BytesIO(packed)).convert("RGB")
    assert picture.size == (3, 2)
    assert picture.getpixel((0, 0)) == picture.getpixel((1, 1)) == (0, 0, 0)
    assert picture.getpixel((1, 0)) == picture.getpixel((2, 1)) == (255, 255, 255)
    assert picture.getpixel((2, 0)) == heatmap.parse_colour(heatmap.MISSING)
    assert 120 < picture.getpixel((0, 1))[0] < 136


def compare(windows: int, audio_seconds: float, noise: float = 1e-6) -> Comparison:
    blank = lay_out(Settings(engines=("cpu", "max_hybrid")), fakes.STATUSES)
    lanes: list[Lane] = []
    for lane in blank.lanes:
        engine = fakes.FakeEngine(lane.key, windows=windows, noise=noise * len(lanes))
        transcript = engine.transcribe(fakes.make_clip())
        lanes.append(replace(lane, state="done", transcript=transcript))
    return replace(blank, lanes=tuple(lanes), audio_seconds=audio_seconds)


def test_maps_weigh_the_same_however_long_the_clip() -> None:
    short, long = (len(render_features(compare(n, 30.0 * n))) for n in (4, 60))
    assert short < 250_000
    # Only the table by window grows: two rows of some hundred characters each.
    assert long - short < 2 * 56 * 500 + 60_000


def test_the_table_by_window_has_a_row_for_each_lane_and_window() -> None:
    html = render_features(compare(3, 90.0))
    table = html[html.index("The figures by window") :]
    assert table.count("<tr>") == 1 + 2 * 3
    assert "2, from 30.00 s" in table


def test_only_windows_of_the_same_audio_are_compared() -> None:
    done = compare(3, 90.0)
    cpu, hybrid = done.lanes
    assert hybrid.transcript is not None
    moved = replace(hybrid.transcript, window_starts=(0.0, 28.0, 60.0))
    apart = replace(done, lanes=(cpu, replace(hybrid, transcript=moved)))
    common = match_windows(apart.lanes)
    assert common.starts == (0.0, 60.0)
    assert not common.everywhere
    assert common.rows == {"cpu": (0, 2), "max_hybrid": (0, 2)}
    assert common.pick(apart.lanes[1]).shape == (2, 100, 32)
    html = render_features(apart)
    assert "Only windows that start at the same audio are compared." in html
    assert "from 28.00 s" not in html
    assert match_windows(done.lanes).everywhere
