"""Compare encoder features: statistics, similarity to a baseline, histograms on shared bins and
maps over time, with NumPy.

Feature arrays are `Transcript.features`: float32 `(windows, n_audio_ctx, n_audio_state)`. Sums run
in float64, because the differences of interest are near float32's own rounding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np
import numpy.typing as npt

from engines.base import FloatArray

BINS = 64

TAIL = 0.0005
"""Share of values left out at each end when the range is chosen; they count in the end bins."""

Shares = npt.NDArray[np.float64]
"""Shares of values in the bins of a histogram, `(bins,)`."""


@dataclass(frozen=True)
class FeatureStatistics:
    """Mean, standard deviation and range of features."""

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
    shares: Mapping[str, Shares]


def summarise(features: FloatArray) -> FeatureStatistics:
    """Return statistics of features of any shape with at least one value."""
    return FeatureStatistics(
        mean=float(features.mean(dtype=np.float64)),
        std=float(features.std(dtype=np.float64)),
        minimum=float(features.min()),
        maximum=float(features.max()),
    )


def measure_similarity(features: FloatArray, baseline: FloatArray) -> FeatureSimilarity | None:
    """Return the similarity of two arrays; None where their shapes differ.

    Different shapes mean that the runs cut the clip into different windows, so position `i` of one
    isn't position `i` of the other and a figure would mean nothing.
    """
    if features.shape != baseline.shape:
        return None
    sums, largest = np.zeros(4), 0.0
    for ours, theirs in zip(features, baseline, strict=True):
        # One window at a time in float64: half an hour of `large` would take gigabytes at once.
        a, b = ours.ravel().astype(np.float64), theirs.ravel().astype(np.float64)
        gap = a - b
        sums += a @ b, a @ a, b @ b, gap @ gap
        largest = max(largest, float(np.abs(gap).max()))
    product, ours_squared, theirs_squared, gap_squared = sums.tolist()
    norms = sqrt(ours_squared) * sqrt(theirs_squared)
    return FeatureSimilarity(
        cosine=product / norms if norms else float("nan"),
        relative_l2=sqrt(gap_squared / theirs_squared) if theirs_squared else float("nan"),
        max_abs=largest,
    )


def bin_together(features: Mapping[str, FloatArray]) -> SharedHistograms:
    """Return histograms of every array over the same bins; each array holds a value.

    The range leaves out `TAIL` of the values at each end, so that a few outliers don't squeeze
    the body into three bins.
    """
    flat = {name: values.ravel() for name, values in features.items()}
    low = min(float(np.quantile(values, TAIL)) for values in flat.values())
    high = max(float(np.quantile(values, 1 - TAIL)) for values in flat.values())
    if low == high:
        low, high = low - 0.5, high + 0.5
    edges = np.linspace(low, high, BINS + 1)
    shares = {
        name: np.histogram(np.clip(values, low, high), edges)[0] / values.size
        for name, values in flat.items()
    }
    return SharedHistograms(edges, shares)


# Windows, and features over time.

WINDOW_SECONDS = 30.0
"""Audio in one window of Whisper's encoder."""

MAP_COLUMNS, MAP_ROWS = 300, 64
"""Pixels of a map at most: time from left to right, the encoder's dimensions from top to bottom."""

Map = npt.NDArray[np.float64]
"""`(rows, columns)`; nan where no window holds the audio."""


@dataclass(frozen=True)
class CommonWindows:
    """The windows that start at the same audio in every run, so that they may be compared.

    `starts`: seconds of audio. `features`: for each name its features of these windows only.
    `everywhere`: whether no run has any other window.
    """

    starts: tuple[float, ...]
    features: Mapping[str, FloatArray]
    everywhere: bool


def match_windows(runs: Mapping[str, tuple[Sequence[float], FloatArray]]) -> CommonWindows:
    """Find the common windows of several runs, each given as its window starts and features.

    Two decodes that diverge cut the clip at other places from there on; row `i` of one is then
    another stretch of audio than row `i` of the other.
    """
    starts = {name: [round(start, 3) for start in theirs] for name, (theirs, _) in runs.items()}
    common = sorted(set.intersection(*map(set, starts.values()))) if starts else []
    chosen = {
        name: features if len(features) == len(common) else features[np.isin(starts[name], common)]
        for name, (_, features) in runs.items()
    }
    everywhere = all(len(ours) == len(common) for ours in starts.values())
    return CommonWindows(tuple(common), chosen, everywhere)


def average_over_time(features: FloatArray, starts: Sequence[float], seconds: float) -> Map:
    """Average features onto a map.

    `starts`: where each window begins; `seconds`: length of the audio.
    """
    rows, n_state = _split_dimensions(features), features.shape[2]
    heights = np.diff([*rows, n_state])  # dimensions beneath each row
    windows = [np.add.reduceat(w.astype(np.float64), rows, axis=1) / heights for w in features]
    timeline, columns = _lay_along_time(windows, starts, seconds)
    known = np.isfinite(timeline)
    counts = np.add.reduceat(known, columns, dtype=np.int64)
    with np.errstate(invalid="ignore"):
        means: Map = (np.add.reduceat(np.where(known, timeline, 0), columns) / counts).T
    return means


def largest_differences(
    ours: FloatArray, theirs: FloatArray, starts: Sequence[float], seconds: float
) -> Map:
    """Map `ours - theirs`, each pixel the largest value by size beneath it."""
    rows = _split_dimensions(ours)
    windows = [
        _keep_largest(mine.astype(np.float64) - other, rows, axis=1)
        for mine, other in zip(ours, theirs, strict=True)
    ]
    return _keep_largest(*_lay_along_time(windows, starts, seconds), axis=0).T


def _keep_largest(values: Map, begins: npt.NDArray[np.int64], axis: int) -> Map:
    """Reduce each stretch of an axis to its largest value by size; nan is none."""
    highest = np.fmax.reduceat(values, begins, axis=axis)
    lowest = np.fmin.reduceat(values, begins, axis=axis)
    return np.where(highest >= -lowest, highest, lowest)


def _split_dimensions(features: FloatArray) -> npt.NDArray[np.int64]:
    """Return where each row of a map begins among the encoder's dimensions."""
    n_state = features.shape[2]
    rows = min(MAP_ROWS, n_state)
    return np.arange(rows) * n_state // rows


def _lay_along_time(
    windows: Sequence[Map], starts: Sequence[float], seconds: float
) -> tuple[Map, npt.NDArray[np.int64]]:
    """Lay windows `(n_audio_ctx, rows)` along the clip, `(positions, rows)`, nan where none is.

    A window of 30 s may reach into the next one, which then counts, and the last one reaches beyond
    the clip. Also return where each column of a map begins.
    """
    n_ctx, rows = windows[0].shape
    rate = n_ctx / WINDOW_SECONDS
    total = max(1, round(seconds * rate))
    timeline = np.full((total, rows), np.nan)
    for window, start in zip(windows, starts, strict=True):
        first = round(start * rate)
        timeline[first : first + n_ctx] = window[: max(0, total - first)]
    columns = min(MAP_COLUMNS, total)
    return timeline, np.arange(columns) * total // columns
