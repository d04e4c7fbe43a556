"""The compact vocabulary: only the tokens that training can meet, and one row for all others.

The full English-only vocabulary has 51,864 tokens; training needs about 4,000. Row `i` of the
compact vocabulary is the full token `ids[i]`; the last row stands for every token not listed and
is copied to all their places by the export.
"""

from functools import cache

import numpy as np
from whisper.tokenizer import Tokenizer, get_tokenizer

from .text import vocabulary

N_VOCAB = 51864
SAMPLES_PER_TIMESTAMP = 0.02  # seconds between two timestamp tokens
LETTERS = "abcdefghijklmnopqrstuvwxyz'"


@cache
def tokenizer() -> Tokenizer:
    return get_tokenizer(multilingual=False)


@cache
def word_tokens(word: str) -> tuple[int, ...]:
    """Full token ids of one word as it stands in a sentence, with the space before it."""
    return tuple(tokenizer().encode(" " + word))


def timestamp(seconds: float) -> int:
    """The full id of the timestamp token nearest to `seconds`, kept within 0 to 30 s."""
    step = round(seconds / SAMPLES_PER_TIMESTAMP)
    return tokenizer().timestamp_begin + min(max(step, 0), 1500)


@cache
def compact_ids() -> np.ndarray:
    """Full ids of the compact rows, sorted, int64 (rows,); the shared row comes after them."""
    t = tokenizer()
    ids = {t.eot, t.sot, t.sot_prev, t.no_speech, t.no_timestamps}
    ids |= set(range(t.timestamp_begin, t.timestamp_begin + 1501))
    for word in vocabulary():
        for form in (word, word[0].upper() + word[1:]):
            ids |= set(word_tokens(form))
    for mark in ".,?":
        ids |= set(t.encode(mark))
    return np.array(sorted(ids), dtype=np.int64)


@cache
def compact_index() -> np.ndarray:
    """Full id -> compact row, int64 (51864,); unlisted ids point at the shared row."""
    ids = compact_ids()
    index = np.full(N_VOCAB, len(ids), dtype=np.int64)
    index[ids] = np.arange(len(ids))
    return index


def spell(word: str) -> list[int]:
    """Character classes of a word for the auxiliary CTC: 1 is a space, 2 to 28 the letters."""
    return [LETTERS.index(c) + 2 for c in word.lower() if c in LETTERS]


@cache
def word_classes() -> dict[str, int]:
    """Lower-case word -> class for the framewise head; class 0 is no word."""
    words = sorted({w.lower() for w in vocabulary()} | {"an"})
    return {word: i + 1 for i, word in enumerate(words)}
