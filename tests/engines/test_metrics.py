"""Words against jiwer's own figures, features and maps against plain NumPy."""

from __future__ import annotations

import random

import jiwer
import numpy as np
import pytest

from engines import metrics
from engines.metrics import bin_together, compare, measure_similarity, score, summarise
from tests.fakes import make_features


def test_each_kind_of_change_is_counted() -> None:
    changed = compare("one two three four", "one 2 three four five")
    counts = [changed.count(change) for change in ("equal", "replace", "insert", "delete")]
    assert counts == [3, 1, 1, 0]
    assert changed.word_error_rate == 2 / 4
    assert [(edit.expected, edit.found) for edit in changed.edits] == [
        (("one",), ("one",)),
        (("two",), ("2",)),
        (("three", "four"), ("three", "four")),
        ((), ("five",)),
    ]


@pytest.mark.parametrize(("found", "errors"), [("", 0), (" \n ", 0), ("two words", 2)])
def test_nothing_expected_has_no_rate(found: str, errors: int) -> None:
    result = score("", found)
    assert result.raw.errors == errors
    assert result.raw.word_error_rate is None
    assert result.raw_characters is None


def test_words_are_split_at_any_white_space() -> None:
    assert compare("a b\tc\n\nd", " a  b c d ").errors == 0


def test_error_rates_agree_with_jiwer_s() -> None:
    rng = random.Random(7)
    for _ in range(50):
        expected, found = (
            " ".join(rng.choice("abcde") for _ in range(rng.randint(1, 20))) for _ in range(2)
        )
        result = score(expected, found, "de")
        assert result.raw.word_error_rate == pytest.approx(jiwer.wer(expected, found))
        assert result.raw_characters == pytest.approx(jiwer.cer(expected, found))


def test_normalisation_forgives_case_punctuation_and_spelling() -> None:
    result = score("Mr. Brown's colour, okay?", "mister brown's color okay")
    assert result.normalised.word_error_rate == result.normalised_characters == 0
    assert result.raw.errors > 0


def test_statistics_are_numpy_s() -> None:
    features = make_features()
    figures = summarise(features)
    assert figures is not None
    assert figures.mean == pytest.approx(np.mean(features.astype(np.float64)))
    assert figures.std == pytest.approx(np.std(features.astype(np.float64)))
    assert (figures.minimum, figures.maximum) == (features.min(), features.max())


def test_equal_features_are_perfectly_similar() -> None:
    figures = measure_similarity(make_features(), make_features())
    assert figures is not None
    assert figures.cosine == pytest.approx(1.0, abs=1e-12)
    assert figures.relative_l2 == 0
    assert figures.max_abs == 0


def test_a_known_difference_is_measured() -> None:
    baseline = make_features()
    figures = measure_similarity(np.float32(1.5) * baseline, baseline)
    assert figures is not None
    assert figures.cosine == pytest.approx(1.0)
    assert figures.relative_l2 == pytest.approx(0.5, rel=1e-6)
    assert figures.max_abs == pytest.approx(0.5 * np.abs(baseline).max(), rel=1e-6)


def test_other_windows_are_not_compared() -> None:
    assert measure_similarity(make_features(), make_features()[:, :50]) is None
    empty = make_features()[:0]
    assert measure_similarity(empty, empty) is None
    assert summarise(empty) is None


def test_histograms_share_bins_and_lose_no_value() -> None:
    histograms = bin_together({"a": make_features(), "b": 3 * make_features()}, bins=32)
    assert histograms is not None
    assert histograms.edges.shape == (33,)
    for shares in histograms.shares.values():
        assert shares.shape == (32,)
        assert shares.sum() == pytest.approx(1.0)
    assert histograms.difference("a", "b").sum() == pytest.approx(0.0, abs=1e-12)
    assert np.abs(histograms.difference("a", "b")).max() > 0.01


def test_an_outlier_does_not_stretch_the_range() -> None:
    features = make_features()
    features[0, 0, 0] = 1e6
    histograms = bin_together({"a": features})
    assert histograms is not None
    assert histograms.edges[-1] < 10


def test_constant_and_missing_features_have_a_range_or_none() -> None:
    flat = bin_together({"a": np.zeros((1, 2, 3), np.float32)})
    assert flat is not None
    assert flat.shares["a"].max() == 1.0
    assert bin_together({"a": make_features()[:0]}) is None


STARTS = (0.0, 20.0)


def make_windows(n_state: int = 6) -> np.ndarray:
    """Two windows of 60 positions, two positions a second."""
    rng = np.random.default_rng(3)
    return rng.normal(size=(2, 60, n_state)).astype(np.float32)


@pytest.fixture
def small_maps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "MAP_COLUMNS", 10)
    monkeypatch.setattr(metrics, "MAP_ROWS", 3)


@pytest.mark.usefixtures("small_maps")
def test_a_pixel_is_the_mean_beneath_it() -> None:
    features = make_windows()
    pixels = metrics.average_over_time(features, STARTS, 45.0)
    # Of the first window the positions before the second, and of that what lies in the clip.
    own = np.concatenate([features[0][:40], features[1][:50]])
    expected = own.reshape(10, 9, 3, 2).mean(axis=(1, 3)).T
    np.testing.assert_allclose(pixels, expected, rtol=1e-6, atol=1e-7)


@pytest.mark.usefixtures("small_maps")
def test_a_difference_shows_its_largest_value() -> None:
    theirs = make_windows()
    ours = theirs.copy()
    ours[1, 12, 4] -= 0.5
    gap = metrics.largest_differences(ours, theirs, STARTS, 45.0)
    assert gap.shape == (3, 10)
    # The 12th position of the window at 20 s is the clip's 52nd; nine fall into a column.
    assert gap[2, 52 // 9] == pytest.approx(-0.5, abs=1e-6)
    assert np.count_nonzero(gap) == 1
    assert metrics.find_largest(gap) == pytest.approx(0.5, abs=1e-6)


def test_audio_that_no_window_holds_is_no_value() -> None:
    pixels = metrics.average_over_time(make_windows()[:1], (0.0,), 60.0)
    middle = pixels.shape[1] // 2
    assert np.isfinite(pixels[:, :middle]).all()
    assert np.isnan(pixels[:, middle + 1 :]).all()
    assert (metrics.quantise(pixels, -1.0, 1.0, 8)[:, middle + 1 :] == 0).all()


def test_windows_are_matched_by_where_they_start() -> None:
    features = make_features(windows=3)
    runs = {"a": ((0.0, 30.0, 60.0), features), "b": ((0.0, 28.0, 60.0), features)}
    common = metrics.match_windows(runs)
    assert (common.starts, common.everywhere) == ((0.0, 60.0), False)
    assert all((each == features[[0, 2]]).all() for each in common.features.values())
    assert metrics.match_windows({"a": runs["a"]}).everywhere
    assert metrics.match_windows({}).starts == ()
