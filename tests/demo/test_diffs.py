"""Word alignment and error rates, held against jiwer's on random texts."""

from __future__ import annotations

import random

import pytest

from demo import diffs


def align(expected: str, found: str) -> diffs.Alignment:
    return diffs.align(expected.split(), found.split())


def test_equal_words_are_said_to_be_equal() -> None:
    same = align("a graph of words", "a graph of words")
    assert same.errors == 0
    assert diffs.describe(same) == "No differences: all 4 words are the same."
    assert diffs.mark_changes(same) == ""


def test_two_empty_texts_do_not_differ() -> None:
    nothing = align("", "")
    assert diffs.describe(nothing) == "No differences: both are empty."
    assert nothing.word_error_rate is None


def test_each_kind_of_change_is_counted() -> None:
    changed = align("one two three four", "one 2 three four five")
    assert changed.count("replace") == 1
    assert changed.count("insert") == 1
    assert changed.count("delete") == 0
    assert diffs.describe(changed) == "2 words differ (1 substituted, 1 inserted) of 4."
    assert diffs.describe(align("one two", "one")) == "1 word differs (1 deleted) of 2."


def test_changes_carry_signs_and_words_not_only_colour() -> None:
    html = diffs.mark_changes(align("one two three", "one 2 three four"))
    assert '<span class="substitution"><del>' in html
    for sign, spoken in (("−", "deleted: "), ("+", "inserted: ")):
        assert f">{sign}</span>" in html
        assert f">{spoken}</span>" in html


def test_changes_escape_what_a_transcript_holds() -> None:
    html = diffs.mark_changes(align("safe <b>", "safe <script>alert(1)</script>"))
    assert "<script>" not in html
    assert "&lt;script&gt;" in html


def test_long_equal_passages_are_cut() -> None:
    words = [f"w{i}" for i in range(100)]
    changed = [*words[:50], "new", *words[50:]]
    html = diffs.mark_changes(diffs.align(words, changed))
    assert "w49" in html
    assert "w46" in html
    assert "w20" not in html
    assert html.count("…") == 2


def test_normalisation_forgives_case_punctuation_and_spelling() -> None:
    score = diffs.score("Mr. Brown's colour, okay?", "mister brown's color okay")
    assert score.normalised.word_error_rate == 0
    assert score.raw.errors > 0


def test_error_rate_agrees_with_jiwer() -> None:
    jiwer = pytest.importorskip("jiwer")
    rng = random.Random(7)
    for _ in range(50):
        expected = [rng.choice("abcde") for _ in range(rng.randint(1, 20))]
        found = [rng.choice("abcde") for _ in range(rng.randint(1, 20))]
        ours = diffs.align(expected, found).word_error_rate
        assert ours == pytest.approx(jiwer.wer(" ".join(expected), " ".join(found)))
