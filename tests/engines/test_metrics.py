"""Words against figures by hand, features and maps against plain NumPy."""

from __future__ import annotations

import numpy as np
import pytest

from engines import metrics
from engines.metrics import bin_together, compare, measure_similarity, score, summarise
from tests.fakes import make_features


def test_each_kind_of_change_is_counted() -> None:
    changed = compare("one two three  four", " one 2\tthree\nfour five")
    assert (changed.words, changed.substituted, changed.inserted, changed.deleted) == (4, 1, 1, 0)
    assert changed.word_error_rate == 2 / 4
    assert score("abcd efgh", "abcd efh i", "de").character_error_rate == 3 / 9
    assert [(edit.change, edit.expected, edit.found) for edit in changed.edits] == [
        ("equal", ("one",), ("one",)),
        ("substitute", ("two",), ("2",)),
        ("equal", ("three", "four"), ("three", "four")),
        ("insert", (), ("five",)),
    ]


@pytest.mark.parametrize(("found", "errors"), [("", 0), (" \n ", 0), ("two words", 2)])
def test_nothing_expected_has_no_rate(found: str, errors: int) -> None:
    result = score("", found)
    assert result.inserted == errors
    assert result.word_error_rate is result.character_error_rate is None


def test_normalisation_forgives_case_punctuation_and_spelling() -> None:
    result = score("Mr. Brown's colour, okay?", "mister brown's color okay")
    assert result.normalised_word_error_rate == result.normalised_character_error_rate == 0
    assert result.substituted > 0


def test_statistics_and_similarity_are_numpy_s() -> None:
    baseline = make_features()
    figures = summarise(baseline)
    assert figures.mean == pytest.approx(np.mean(baseline.astype(np.float64)))
    assert figures.std == pytest.approx(np.std(baseline.astype(np.float64)))
    assert (figures.minimum, figures.maximum) == (baseline.min(), baseline.max())
    same = measure_similarity(baseline, make_features())
    assert same is not None and same.cosine == pytest.approx(1.0, abs=1e-12)
    assert same.relative_l2 == same.max_abs == 0
    louder = measure_similarity(np.float32(1.5) * baseline, baseline)
    assert louder is not None and louder.cosine == pytest.approx(1.0)
    assert louder.relative_l2 == pytest.approx(0.5, rel=1e-6)
    assert louder.max_abs == pytest.approx(0.5 * np.abs(baseline).max(), rel=1e-6)
    assert measure_similarity(baseline, baseline[:, :50]) is None


def test_histograms_share_bins_and_lose_no_value() -> None:
    outlier = 3 * make_features()
    outlier[0, 0, 0] = 1e6
    histograms = bin_together({"a": make_features(), "b": outlier})
    assert histograms.edges.shape == (metrics.BINS + 1,)
    assert histograms.edges[-1] < 30, "an outlier does not stretch the range"
    for shares in histograms.shares.values():
        assert shares.shape == (metrics.BINS,)
        assert shares.sum() == pytest.approx(1.0)
    assert bin_together({"a": np.zeros((1, 2, 3), np.float32)}).shares["a"].max() == 1.0


STARTS = (0.0, 20.0)


@pytest.fixture
def windows(monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """Two windows of 60 positions, two positions a second, for maps of three rows."""
    monkeypatch.setattr(metrics, "MAP_COLUMNS", 10)
    monkeypatch.setattr(metrics, "MAP_ROWS", 3)
    return np.random.default_rng(3).normal(size=(2, 60, 6)).astype(np.float32)


def test_a_pixel_is_the_mean_beneath_it(windows: np.ndarray) -> None:
    pixels = metrics.average_over_time(windows, STARTS, 45.0)
    # Of the first window the positions before the second, and of that what lies in the clip.
    own = np.concatenate([windows[0][:40], windows[1][:50]])
    expected = own.reshape(10, 9, 3, 2).mean(axis=(1, 3)).T
    np.testing.assert_allclose(pixels, expected, rtol=1e-6, atol=1e-7)
    first = metrics.average_over_time(windows[:1], (0.0,), 60.0)
    assert np.isfinite(first[:, :5]).all()
    assert np.isnan(first[:, 5:]).all(), "audio that no window holds is no value"


def test_a_difference_shows_its_largest_value(windows: np.ndarray) -> None:
    ours = windows.copy()
    ours[1, 12, 4] -= 0.5
    gap = metrics.largest_differences(ours, windows, STARTS, 45.0)
    assert gap.shape == (3, 10)
    # The 12th position of the window at 20 s is the clip's 52nd; nine fall into a column.
    assert gap[2, 52 // 9] == pytest.approx(-0.5, abs=1e-6)
    assert np.count_nonzero(gap) == 1


def test_windows_are_matched_by_where_they_start() -> None:
    features = make_features(windows=3)
    runs = {"a": ((0.0, 30.0, 60.0), features), "b": ((0.0, 28.0, 60.0), features)}
    common = metrics.match_windows(runs)
    assert (common.starts, common.everywhere) == ((0.0, 60.0), False)
    assert all((each == features[[0, 2]]).all() for each in common.features.values())
    assert metrics.match_windows({"a": runs["a"]}).everywhere
