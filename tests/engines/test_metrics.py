"""Features and maps over time against plain NumPy."""

from __future__ import annotations

from dataclasses import astuple

import numpy as np
import pytest

from engines import feature_statistics
from engines.feature_statistics import bin_together, measure_similarity, summarise
from tests.fakes import make_features


def test_statistics_and_similarity_are_numpy_s() -> None:
    baseline = make_features()
    figures = summarise(baseline)
    exact = baseline.astype(np.float64)
    expected = (exact.mean(), exact.std(), exact.min(), exact.max())
    assert astuple(figures) == pytest.approx(expected)
    louder = measure_similarity(np.float32(1.5) * baseline, baseline)
    assert louder is not None and louder.cosine == pytest.approx(1.0)
    assert louder.relative_l2 == pytest.approx(0.5, rel=1e-6)
    assert louder.max_abs == pytest.approx(0.5 * np.abs(baseline).max(), rel=1e-6)
    assert measure_similarity(baseline, baseline[:, :50]) is None


def test_histograms_share_bins_and_lose_no_value() -> None:
    outlier = 3 * make_features()
    outlier[0, 0, 0] = 1e6
    histograms = bin_together({"a": make_features(), "b": outlier})
    assert histograms.edges[-1] < 30, "an outlier does not stretch the range"
    for shares in histograms.shares.values():
        assert shares.shape == (feature_statistics.BINS,) and shares.sum() == pytest.approx(1.0)
    assert bin_together({"a": np.zeros((1, 2, 3), np.float32)}).shares["a"].max() == 1.0


STARTS = (0.0, 20.0)


@pytest.fixture
def windows(monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """Two windows of 60 positions, two positions a second, for maps of three rows."""
    monkeypatch.setattr(feature_statistics, "MAP_COLUMNS", 10)
    monkeypatch.setattr(feature_statistics, "MAP_ROWS", 3)
    return np.random.default_rng(3).normal(size=(2, 60, 6)).astype(np.float32)


def test_a_pixel_is_the_mean_beneath_it(windows: np.ndarray) -> None:
    pixels = feature_statistics.average_over_time(windows, STARTS, 45.0)
    # Of the first window the positions before the second, and of that what lies in the clip.
    own = np.concatenate([windows[0][:40], windows[1][:50]])
    expected = own.reshape(10, 9, 3, 2).mean(axis=(1, 3)).T
    np.testing.assert_allclose(pixels, expected, rtol=1e-6, atol=1e-7)
    first = feature_statistics.average_over_time(windows[:1], (0.0,), 60.0)
    assert np.isfinite(first[:, :5]).all()
    assert np.isnan(first[:, 5:]).all(), "audio that no window holds is no value"


def test_a_difference_shows_its_largest_value(windows: np.ndarray) -> None:
    ours = windows.copy()
    ours[1, 12, 4] -= 0.5
    gap = feature_statistics.largest_differences(ours, windows, STARTS, 45.0)
    assert gap.shape == (3, 10)
    # The 12th position of the window at 20 s is the clip's 52nd; nine fall into a column.
    assert gap[2, 52 // 9] == pytest.approx(-0.5, abs=1e-6)
    assert np.count_nonzero(gap) == 1
