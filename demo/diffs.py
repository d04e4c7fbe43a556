"""Words compared with words: alignment, word error rate, and changes marked up as HTML.

Alignment is minimal in the sense of Levenshtein, over words, so its number of edits is the one
that word error rate counts. Text is compared as written unless it was normalised first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from html import escape
from typing import Literal

from rapidfuzz.distance import Levenshtein

CONTEXT_WORDS = 4
"""Words shown on each side of a change."""

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
    """Word errors against a reference, as written and after normalisation."""

    raw: Alignment
    normalised: Alignment


@lru_cache(maxsize=64)
def score(reference: str, text: str, language: str = "en") -> Score:
    """Compare a transcript with what was really said.

    Kept, as `compare` is: a finished lane is drawn anew five times a second while others run, and
    normalising a long text each time would take the processor from the engines being timed.
    """
    return Score(
        raw=align(split_words(reference), split_words(text)),
        normalised=align(
            split_words(normalise(reference, language)), split_words(normalise(text, language))
        ),
    )


def describe(alignment: Alignment) -> str:
    """An alignment as a sentence: how many words differ, and how."""
    total = alignment.expected_words
    if not alignment.errors:
        return f"No differences: {same_words(total)}."
    names = {
        "replace": "substituted",
        "insert": "inserted",
        "delete": "deleted",
    }
    parts = [
        f"{alignment.count(change)} {name}"  # type: ignore[arg-type]
        for change, name in names.items()
        if alignment.count(change)  # type: ignore[arg-type]
    ]
    noun = "word differs" if alignment.errors == 1 else "words differ"
    return f"{alignment.errors} {noun} ({', '.join(parts)}) of {total}."


def same_words(count: int) -> str:
    """`count` words agree, in words."""
    if count == 0:
        return "both are empty"
    return "the one word is the same" if count == 1 else f"all {count} words are the same"


def mark_changes(alignment: Alignment) -> str:
    """The changes in their context as HTML; empty where nothing changed.

    Inserted words carry + and an underline, deleted ones − and a line through; a substitution is
    a deletion beside an insertion. Long equal passages are cut to a few words on each side.
    """
    if not alignment.errors:
        return ""
    last = len(alignment.edits) - 1
    return " ".join(
        mark_edit(edit, first=index == 0, last=index == last)
        for index, edit in enumerate(alignment.edits)
    )


def mark_edit(edit: Edit, first: bool, last: bool) -> str:
    """One edit as HTML."""
    if edit.change == "equal":
        return escape(" ".join(shorten(edit.found, first, last)))
    deleted = mark_words("del", "−", "deleted", edit.expected)
    inserted = mark_words("ins", "+", "inserted", edit.found)
    both = " ".join(part for part in (deleted, inserted) if part)
    return f'<span class="substitution">{both}</span>' if edit.change == "replace" else both


def mark_words(tag: str, sign: str, spoken: str, words: Sequence[str]) -> str:
    """Words within `<ins>` or `<del>`, with a sign to see and a word to hear."""
    if not words:
        return ""
    text = escape(" ".join(words))
    return (
        f'<{tag}><span class="sign" aria-hidden="true">{sign}</span>'
        f'<span class="spoken">{spoken}: </span>{text}</{tag}>'
    )


def shorten(words: Sequence[str], first: bool, last: bool) -> list[str]:
    """Equal words cut to those next to a change, with an ellipsis for the rest."""
    before = 0 if first else CONTEXT_WORDS
    after = 0 if last else CONTEXT_WORDS
    if len(words) <= before + after + 1:
        return list(words)
    tail = list(words[len(words) - after :])
    return [*words[:before], "…", *tail]
