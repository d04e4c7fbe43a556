"""Differences between two texts, as a sentence and as the pieces to show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from engines.metrics import Alignment, Change

CONTEXT_WORDS = 4
"""Words shown on each side of a change."""

NAMES: dict[Change, str] = {"replace": "substituted", "insert": "inserted", "delete": "deleted"}


@dataclass(frozen=True)
class Piece:
    """Words that are equal, replaced, or on one side only, as they are shown."""

    change: Change
    expected: str
    found: str


def describe(alignment: Alignment) -> str:
    """Say how many words differ, and how."""
    total = alignment.expected_words
    if not alignment.errors:
        same = {0: "both are empty", 1: "the one word is the same"}
        return f"No differences: {same.get(total, f'all {total} words are the same')}."
    counts = {name: alignment.count(change) for change, name in NAMES.items()}
    parts = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
    noun = "word differs" if alignment.errors == 1 else "words differ"
    return f"{alignment.errors} {noun} ({parts}) of {total}."


def list_pieces(alignment: Alignment | None) -> list[Piece]:
    """List the changes within a few words on each side; nothing where nothing changed."""
    if alignment is None or not alignment.errors:
        return []
    last = len(alignment.edits) - 1
    pieces = []
    for at, edit in enumerate(alignment.edits):
        found = edit.found
        if edit.change == "equal":
            found = shorten(found, CONTEXT_WORDS * (at > 0), CONTEXT_WORDS * (at < last))
        pieces.append(Piece(edit.change, " ".join(edit.expected), " ".join(found)))
    return pieces


def shorten(words: Sequence[str], before: int, after: int) -> tuple[str, ...]:
    """Keep the first and the last few words, with an ellipsis for the rest."""
    if len(words) <= before + after + 1:
        return tuple(words)
    return (*words[:before], "…", *words[len(words) - after :])
