"""Changes between two texts as sentences and as HTML; `engines.words` finds them."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from engines.words import (
    Alignment,
    Change,
    Edit,
    Score,
    align,
    compare,
    name_count,
    normalise,
    rate_characters,
    score,
    split_words,
)

__all__ = [
    "Alignment",
    "Change",
    "Edit",
    "Score",
    "align",
    "compare",
    "describe",
    "mark_changes",
    "name_count",
    "normalise",
    "rate_characters",
    "same_words",
    "score",
    "split_words",
]

CONTEXT_WORDS = 4
"""Words shown on each side of a change."""


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
