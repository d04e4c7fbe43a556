"""Feature figures against plain NumPy."""

from __future__ import annotations

import numpy as np
import pytest

from engines.metrics import bin_together, measure_similarity, summarise
from tests.fakes import make_features


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
