"""Encoder features in figures: statistics, similarity to a baseline, histograms on shared bins.

NumPy only. Arrays are what `Transcript.features` holds: float32
`(windows, n_audio_ctx, n_audio_state)`. Sums run in float64, because the differences of interest
are near float32's own rounding.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import sqrt

import numpy as np
import numpy.typing as npt

from engines.base import FloatArray

BINS = 64
"""Bins of a histogram: fine enough to show the shape, coarse enough to read from a distance."""

TAIL = 0.0005
"""Share of values left out at each end when the range is chosen; they count in the end bins."""


@dataclass(frozen=True)
class FeatureStatistics:
    """Mean, standard deviation and range of one engine's features."""

    mean: float
    std: float
    minimum: float
    maximum: float


@dataclass(frozen=True)
class FeatureSimilarity:
    """How near features are to the baseline's.

    `cosine`: of the two arrays taken as one long vector each. `relative_l2`: norm of the
    difference over the norm of the baseline. `max_abs`: the largest single difference.
    """

    cosine: float
    relative_l2: float
    max_abs: float


@dataclass(frozen=True)
class SharedHistograms:
    """Several histograms over the same bins.

    `edges`: `(bins + 1,)`. `shares`: for each name the share of its values in each bin, `(bins,)`,
    summing to 1. Values outside the edges are counted in the first and the last bin.
    """

    edges: npt.NDArray[np.float64]
    shares: Mapping[str, npt.NDArray[np.float64]]

    def difference(self, name: str, baseline: str) -> npt.NDArray[np.float64]:
        """Share of `name` less share of `baseline`, bin by bin."""
        return self.shares[name] - self.shares[baseline]


def summarise(features: FloatArray) -> FeatureStatistics | None:
    """Statistics of features of any shape; None when there are none (no window was decoded)."""
    if features.size == 0:
        return None
    return FeatureStatistics(
        mean=float(features.mean(dtype=np.float64)),
        std=float(features.std(dtype=np.float64)),
        minimum=float(features.min()),
        maximum=float(features.max()),
    )


def measure_similarity(features: FloatArray, baseline: FloatArray) -> FeatureSimilarity | None:
    """Similarity of two arrays; None where they are empty or of different shapes.

    Different shapes mean that the runs cut the clip into different windows, so position `i` of one
    isn't position `i` of the other and a figure would mean nothing.
    """
    if features.shape != baseline.shape or features.size == 0:
        return None
    product = ours_squared = theirs_squared = gap_squared = largest = 0.0
    for ours, theirs in zip(features, baseline, strict=True):
        # One window at a time in float64: half an hour of `large` would take gigabytes at once.
        a, b = ours.ravel().astype(np.float64), theirs.ravel().astype(np.float64)
        gap = a - b
        product += float(a @ b)
        ours_squared += float(a @ a)
        theirs_squared += float(b @ b)
        gap_squared += float(gap @ gap)
        largest = max(largest, float(np.abs(gap).max()))
    norms = sqrt(ours_squared) * sqrt(theirs_squared)
    return FeatureSimilarity(
        cosine=product / norms if norms else float("nan"),
        relative_l2=sqrt(gap_squared / theirs_squared) if theirs_squared else float("nan"),
        max_abs=largest,
    )


def bin_together(features: Mapping[str, FloatArray], bins: int = BINS) -> SharedHistograms | None:
    """Histograms of every array over the same bins; None when no array holds a value.

    The range leaves out `TAIL` of the values at each end, so that a few outliers don't squeeze
    the body into three bins.
    """
    filled = {name: values.ravel() for name, values in features.items() if values.size}
    if not filled:
        return None
    low = min(float(np.quantile(values, TAIL)) for values in filled.values())
    high = max(float(np.quantile(values, 1 - TAIL)) for values in filled.values())
    if low == high:
        low, high = low - 0.5, high + 0.5
    edges = np.linspace(low, high, bins + 1)
    shares = {
        name: np.histogram(np.clip(values, low, high), edges)[0] / values.size
        for name, values in filled.items()
    }
    return SharedHistograms(edges=edges, shares=shares)
