"""Words compared with words: alignment, and word error rate as Whisper's paper counts it.

Alignment is minimal in the sense of Levenshtein, over words, so its number of edits is the one
that word error rate counts. Text is compared as written unless it was normalised first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Literal

from rapidfuzz.distance import Levenshtein

Change = Literal["equal", "replace", "insert", "delete"]


@dataclass(frozen=True)
class Edit:
    """A run of words that stayed equal, was replaced, or is on one side only."""

    change: Change
    expected: tuple[str, ...]
    found: tuple[str, ...]


@dataclass(frozen=True)
class Alignment:
    """Found words against expected words, as edits in order."""

    edits: tuple[Edit, ...]

    def count(self, change: Change) -> int:
        """Words that a kind of change concerns."""
        sizes = (max(len(e.expected), len(e.found)) for e in self.edits if e.change == change)
        return sum(sizes)

    @property
    def expected_words(self) -> int:
        """Words on the expected side."""
        return sum(len(edit.expected) for edit in self.edits)

    @property
    def errors(self) -> int:
        """Substitutions, insertions and deletions together."""
        return self.count("replace") + self.count("insert") + self.count("delete")

    @property
    def word_error_rate(self) -> float | None:
        """Errors per expected word; None where no word was expected."""
        return self.errors / self.expected_words if self.expected_words else None


def align(expected: Sequence[str], found: Sequence[str]) -> Alignment:
    """The shortest way from the expected words to the found ones."""
    return Alignment(
        tuple(
            Edit(
                change=code.tag,  # type: ignore[arg-type]
                expected=tuple(expected[code.src_start : code.src_end]),
                found=tuple(found[code.dest_start : code.dest_end]),
            )
            for code in Levenshtein.opcodes(expected, found)
        )
    )


@lru_cache(maxsize=64)
def compare(expected: str, found: str) -> Alignment:
    """The alignment of two texts as written."""
    return align(split_words(expected), split_words(found))


def split_words(text: str) -> list[str]:
    """Words as written: what stands between spaces."""
    return text.split()


def normalise(text: str, language: str = "en") -> str:
    """Text after the normalizer that OpenAI's Whisper paper scores with."""
    return load_normalizer(english=language == "en")(text)


@cache
def load_normalizer(english: bool) -> Callable[[str], str]:
    """Whisper's English normalizer, or its basic one; imported late because it pulls in torch."""
    from whisper.normalizers import BasicTextNormalizer, EnglishTextNormalizer

    return EnglishTextNormalizer() if english else BasicTextNormalizer()


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


@lru_cache(maxsize=64)
def score(reference: str, text: str, language: str = "en") -> Score:
    """Compare a transcript with what was really said.

    Kept, as `compare` is: a finished lane is drawn anew five times a second while others run, and
    normalising a long text each time would take the processor from the engines being timed.
    """
    plain = [normalise(words, language) for words in (reference, text)]
    return Score(
        raw=align(split_words(reference), split_words(text)),
        normalised=align(split_words(plain[0]), split_words(plain[1])),
        raw_characters=rate_characters(reference, text),
        normalised_characters=rate_characters(*plain),
    )


def rate_characters(expected: str, found: str) -> float | None:
    """Character error rate: edits per expected character; None where none was expected."""
    expected, found = " ".join(expected.split()), " ".join(found.split())
    return Levenshtein.distance(expected, found) / len(expected) if expected else None


def name_count(count: int) -> str:
    """A number of words, in good English."""
    return "1 word" if count == 1 else f"{count} words"
