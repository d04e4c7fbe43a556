"""Compare the words of engines: alignment and error rates by jiwer, as written and after
Whisper's normalizer; and how words, counts and names are written.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache

import jiwer
import numpy as np


@dataclass(frozen=True)
class Edit:
    """A run of words; `change` is jiwer's `equal`, `substitute`, `insert` or `delete`."""

    change: str
    expected: tuple[str, ...]
    found: tuple[str, ...]


@dataclass(frozen=True)
class Alignment:
    """Found words against expected words: the fewest edits that lead from one to the other.

    `words`: those expected; `substituted`, `inserted` and `deleted` are counts of words.
    """

    edits: tuple[Edit, ...]
    words: int
    substituted: int
    inserted: int
    deleted: int

    @property
    def errors(self) -> int:
        """Substitutions, insertions and deletions together."""
        return self.substituted + self.inserted + self.deleted

    @property
    def word_error_rate(self) -> float | None:
        """Errors per expected word; None where no word was expected."""
        return self.errors / self.words if self.words else None


@dataclass(frozen=True)
class Score:
    """Errors against other words, as written and after the normalizer of the Whisper paper.

    Counts are of words as written. Rates are errors per expected word or character, spaces
    included; None where none was expected.
    """

    words: int
    substituted: int
    inserted: int
    deleted: int
    word_error_rate: float | None
    character_error_rate: float | None
    normalised_word_error_rate: float | None
    normalised_character_error_rate: float | None


def align(expected: Sequence[str], found: Sequence[str]) -> Alignment:
    """Align found words with expected ones."""
    result = jiwer.process_words(" ".join(expected), " ".join(found))
    edits = tuple(
        Edit(
            chunk.type,
            tuple(expected[chunk.ref_start_idx : chunk.ref_end_idx]),
            tuple(found[chunk.hyp_start_idx : chunk.hyp_end_idx]),
        )
        for chunk in result.alignments[0]
    )
    return Alignment(
        edits, len(expected), result.substitutions, result.insertions, result.deletions
    )


# Cached: a finished engine is drawn anew five times a second while others run, and going through a
# long text each time would take the processor from the engines being timed.


@lru_cache(maxsize=64)
def compare(expected: str, found: str) -> Alignment:
    """Align two texts word by word; see `split_words`."""
    return align(split_words(expected), split_words(found))


UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"  # Thai and Lao, Burmese, Khmer
    "\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # kana, Han
)
"""Ranges of characters of scripts that have no spaces between words."""
WORD = re.compile(f"[{UNSPACED}]|[^\\s{UNSPACED}]+")
INNER_SPACE = re.compile(f"(?<=[{UNSPACED}]) (?=[{UNSPACED}])")


def split_words(text: str) -> list[str]:
    """Split a text at white space, and where words have none between them into characters, as is
    usual for error rates of Chinese, Japanese or Thai."""
    return WORD.findall(text)


def join_words(words: Iterable[str]) -> str:
    """Join words of `split_words` to a text."""
    return INNER_SPACE.sub("", " ".join(words))


@lru_cache(maxsize=64)
def score(expected: str, found: str, language: str = "en") -> Score:
    """Count errors and give error rates of a text against the expected one."""
    plain = normalise(expected, language), normalise(found, language)
    written, normalised = compare(expected, found), compare(*plain)
    return Score(
        written.words,
        written.substituted,
        written.inserted,
        written.deleted,
        written.word_error_rate,
        _character_error_rate(expected, found),
        normalised.word_error_rate,
        _character_error_rate(*plain),
    )


def _character_error_rate(expected: str, found: str) -> float | None:
    expected, found = " ".join(expected.split()), " ".join(found.split())
    return float(jiwer.cer(expected, found)) if expected else None


@lru_cache(maxsize=64)
def normalise(text: str, language: str = "en") -> str:
    """Apply the normalizer that the Whisper paper scores with."""
    return _load_normalizer(language == "en")(text)


@cache
def _load_normalizer(english: bool) -> Callable[[str], str]:
    from whisper import normalizers  # here, because it pulls in torch

    kind = normalizers.EnglishTextNormalizer if english else normalizers.BasicTextNormalizer
    return kind()


def name_count(count: int, noun: str = "word") -> str:
    """Return "1 word", "2 words" and so on."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def join_names(names: list[str]) -> str:
    """Return names as in "a, b and c"."""
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else last


BOOTSTRAP_SAMPLES = 2000


def bootstrap_rate(errors: Sequence[int], expected: Sequence[int]) -> tuple[float, float] | None:
    """Return the 95 % interval of an error rate over clips, each with its errors and its words.

    A percentile bootstrap: clips are drawn with replacement, always the same ones. None for fewer
    than two clips, or where nothing is spoken.
    """
    counts = np.array([errors, expected], np.int64)  # (2, clips)
    clips = counts.shape[1]
    if clips < 2 or not counts[1].sum():
        return None
    drawn = np.random.default_rng(0).integers(0, clips, (BOOTSTRAP_SAMPLES, clips))
    wrong, words = counts[:, drawn].sum(axis=2)  # (samples,)
    low, high = np.quantile(wrong[words > 0] / words[words > 0], (0.025, 0.975))
    return float(low), float(high)
