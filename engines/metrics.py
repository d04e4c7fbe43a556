"""Compare what engines produced: words with words, encoder features with encoder features.

Words: alignment and error rates by jiwer, as written and after Whisper's normalizer. Features:
statistics, similarity to a baseline, histograms on shared bins and maps over time, with NumPy.
Feature arrays are `Transcript.features`: float32 `(windows, n_audio_ctx, n_audio_state)`. Sums run
in float64, because the differences of interest are near float32's own rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from math import sqrt
from typing import Literal

import jiwer
import numpy as np
import numpy.typing as npt

from engines.base import FloatArray

# Words.

Change = Literal["equal", "replace", "insert", "delete"]
CHANGES: Mapping[str, Change] = {
    "equal": "equal",
    "substitute": "replace",
    "insert": "insert",
    "delete": "delete",
}
"""jiwer's names of changes, and ours."""


@dataclass(frozen=True)
class Edit:
    """A run of words that stayed equal, was replaced, or is on one side only."""

    change: Change
    expected: tuple[str, ...]
    found: tuple[str, ...]


@dataclass(frozen=True)
class Alignment:
    """Found words against expected words: the fewest edits that lead from one to the other."""

    edits: tuple[Edit, ...]

    def count(self, change: Change) -> int:
        """Number of words that a kind of change concerns."""
        return sum(max(len(e.expected), len(e.found)) for e in self.edits if e.change == change)

    @property
    def expected_words(self) -> int:
        """Number of words on the expected side."""
        return sum(len(edit.expected) for edit in self.edits)

    @property
    def errors(self) -> int:
        """Substitutions, insertions and deletions together."""
        return self.count("replace") + self.count("insert") + self.count("delete")

    @property
    def word_error_rate(self) -> float | None:
        """Errors per expected word; None where no word was expected."""
        return self.errors / self.expected_words if self.expected_words else None


@dataclass(frozen=True)
class Score:
    """Errors against other words, as written and after normalisation, in words and characters.

    A character error rate is edits per expected character, spaces included; None where no
    character was expected.
    """

    raw: Alignment
    normalised: Alignment
    raw_characters: float | None
    normalised_characters: float | None


def split_words(text: str) -> list[str]:
    """Split a text at white space."""
    return text.split()


def align(expected: Sequence[str], found: Sequence[str]) -> Alignment:
    """Align found words with expected ones."""
    (chunks,) = jiwer.process_words(" ".join(expected), " ".join(found)).alignments
    return Alignment(
        tuple(
            Edit(
                CHANGES[chunk.type],
                tuple(expected[chunk.ref_start_idx : chunk.ref_end_idx]),
                tuple(found[chunk.hyp_start_idx : chunk.hyp_end_idx]),
            )
            for chunk in chunks
        )
    )


@lru_cache(maxsize=64)
def compare(expected: str, found: str) -> Alignment:
    """Align two texts as written."""
    return align(split_words(expected), split_words(found))


@lru_cache(maxsize=64)
def score(reference: str, text: str, language: str = "en") -> Score:
    """Compare a transcript with the words really spoken.

    Cached, as `compare` is: a finished engine is drawn anew five times a second while others run,
    and normalising a long text each time would take the processor from the engines being timed.
    """
    plain = [normalise(words, language) for words in (reference, text)]
    return Score(
        raw=compare(reference, text),
        normalised=compare(*plain),
        raw_characters=character_error_rate(reference, text),
        normalised_characters=character_error_rate(*plain),
    )


def character_error_rate(expected: str, found: str) -> float | None:
    """Return edits per expected character; None where none was expected."""
    expected, found = " ".join(expected.split()), " ".join(found.split())
    return float(jiwer.cer(expected, found)) if expected else None


def normalise(text: str, language: str = "en") -> str:
    """Apply the normalizer that the Whisper paper scores with."""
    return load_normalizer(language == "en")(text)


@cache
def load_normalizer(english: bool) -> Callable[[str], str]:
    """Return Whisper's English normalizer or its basic one (imported late: it pulls in torch)."""
    from whisper.normalizers import BasicTextNormalizer, EnglishTextNormalizer

    return EnglishTextNormalizer() if english else BasicTextNormalizer()


def name_count(count: int) -> str:
    """Return "1 word", "2 words" and so on."""
    return "1 word" if count == 1 else f"{count} words"


# Feature statistics and histograms.

Shares = npt.NDArray[np.float64]
"""Shares of values in the bins of a histogram, `(bins,)`."""

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
    shares: Mapping[str, Shares]

    def difference(self, name: str, baseline: str) -> Shares:
        """Return the shares of `name` less those of `baseline`, bin by bin."""
        return self.shares[name] - self.shares[baseline]


def summarise(features: FloatArray) -> FeatureStatistics | None:
    """Return statistics of features of any shape; None when there are none."""
    if features.size == 0:
        return None
    return FeatureStatistics(
        mean=float(features.mean(dtype=np.float64)),
        std=float(features.std(dtype=np.float64)),
        minimum=float(features.min()),
        maximum=float(features.max()),
    )


def measure_similarity(features: FloatArray, baseline: FloatArray) -> FeatureSimilarity | None:
    """Return the similarity of two arrays; None where they are empty or of different shapes.

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
    """Return histograms of every array over the same bins; None when no array holds a value.

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


# Windows, and features over time.

WINDOW_SECONDS = 30.0
"""Audio in one window of Whisper's encoder."""

MAP_COLUMNS, MAP_ROWS = 300, 64
"""Pixels of a map at most: time from left to right, the encoder's dimensions from top to bottom."""

MAP_TAIL = 0.002
"""Share of pixels at each end of a shared scale that are drawn in its end colours."""

Map = npt.NDArray[np.float64]


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
    starts = {
        name: [round(start, 3) for start, _ in zip(theirs, features, strict=False)]
        for name, (theirs, features) in runs.items()
    }
    shared = set.intersection(*map(set, starts.values())) if starts else set()
    chosen = {}
    for name, (_, features) in runs.items():
        rows = [row for row, start in enumerate(starts[name]) if start in shared]
        chosen[name] = features if len(rows) == len(features) else features[rows]
    return CommonWindows(
        starts=tuple(sorted(shared)),
        features=chosen,
        everywhere=all(len(ours) == len(shared) for ours in starts.values()),
    )


def average_over_time(features: FloatArray, starts: Sequence[float], seconds: float) -> Map:
    """Average features onto a map `(rows, columns)`; nan where no window holds the audio.

    `starts`: where each window begins; `seconds`: length of the audio.
    """
    dimensions = _split_dimensions(features.shape[2])
    sums = np.zeros((_count_columns(features, seconds), len(dimensions)))  # (columns, rows)
    counts = np.zeros(len(sums))
    for window, column in _place_positions(features, starts, seconds):
        np.add.at(sums, column, np.add.reduceat(window.astype(np.float64), dimensions, axis=1))
        np.add.at(counts, column, 1)
    heights = np.diff([*dimensions, features.shape[2]])  # dimensions beneath each row
    with np.errstate(invalid="ignore", divide="ignore"):
        means: Map = (sums / counts[:, None] / heights).T
    return means


def largest_differences(
    ours: FloatArray, theirs: FloatArray, starts: Sequence[float], seconds: float
) -> Map:
    """Map `ours - theirs`, each pixel the largest value by size beneath it, `(rows, columns)`."""
    dimensions = _split_dimensions(ours.shape[2])
    highest = np.full((_count_columns(ours, seconds), len(dimensions)), -np.inf)
    lowest = -highest
    placed = zip(
        _place_positions(ours, starts, seconds),
        _place_positions(theirs, starts, seconds),
        strict=True,
    )
    for (mine, column), (other, _) in placed:
        gap = mine.astype(np.float64) - other
        np.maximum.at(highest, column, np.maximum.reduceat(gap, dimensions, axis=1))
        np.minimum.at(lowest, column, np.minimum.reduceat(gap, dimensions, axis=1))
    largest = np.where(highest >= -lowest, highest, lowest)
    return np.where(np.isfinite(largest), largest, np.nan).T


def find_range(maps: Sequence[Map]) -> tuple[float, float]:
    """Return the values between which to draw several maps; `MAP_TAIL` at each end is outside."""
    known = np.concatenate([each[np.isfinite(each)] for each in maps])
    return float(np.quantile(known, MAP_TAIL)), float(np.quantile(known, 1 - MAP_TAIL))


def find_largest(values: Map) -> float:
    """Return the largest value by size; 0 where there is none."""
    known = np.abs(values[np.isfinite(values)])
    return float(known.max()) if known.size else 0.0


def quantise(values: Map, low: float, high: float, levels: int) -> npt.NDArray[np.uint8]:
    """Return the level of each value, 1 to `levels` from `low` to `high`; 0 where there is none."""
    level = np.clip((values - low) / (high - low or 1.0), 0, 1) * (levels - 1)
    return np.where(np.isfinite(values), np.nan_to_num(level).round() + 1, 0).astype(np.uint8)


def _split_dimensions(n_state: int) -> list[int]:
    """Return where each row of a map begins among the encoder's dimensions."""
    rows = min(MAP_ROWS, n_state)
    return [row * n_state // rows for row in range(rows)]


def _count_columns(features: FloatArray, seconds: float) -> int:
    return min(MAP_COLUMNS, max(1, round(seconds * features.shape[1] / WINDOW_SECONDS)))


def _place_positions(
    features: FloatArray, starts: Sequence[float], seconds: float
) -> Iterator[tuple[FloatArray, npt.NDArray[np.int64]]]:
    """Yield each window's own positions `(positions, n_state)` with the column each falls into.

    A window of 30 s may reach into the next one, and the last one reaches beyond the clip.
    """
    n_ctx = features.shape[1]
    rate = n_ctx / WINDOW_SECONDS
    total, columns = max(1, round(seconds * rate)), _count_columns(features, seconds)
    for window, start, after in zip(features, starts, [*starts[1:], seconds], strict=True):
        first = round(start * rate)
        last = min(round(after * rate), round(seconds * rate), first + n_ctx)
        if last > first:
            yield window[: last - first], np.arange(first, last) * columns // total
