"""Figures of the words, and differences in words: against the baseline and the reference."""

from __future__ import annotations

from dataclasses import replace

import pytest

from demo.panels.accuracy import describe_differences, list_changes, render
from demo.snapshot import Comparison
from engines.metrics import compare as align
from tests import fakes
from tests.demo.reading import compare, fail_second, read


def read_rows(comparison: Comparison) -> list[str]:
    """The table's rows, its head first."""
    return [row.text for row in read(render(comparison)).all("tr")]


def test_the_same_words_are_said_to_be_the_same() -> None:
    done = compare()
    assert "every engine wrote what CPU wrote, to the letter." in read(render(done)).text
    assert read_rows(done)[1:] == ["MAX hybrid CPU 0 0 0 0.0% 0.0% 0.0% 0.0%"]
    assert "no second transcript" in render(replace(done, lanes=done.lanes[:1]))


def test_each_kind_of_error_is_counted() -> None:
    words = "a compiler turns the graph into fast code for every big chip"
    done = compare(words, reference=fakes.WORDS)
    assert "Not as CPU wrote it: MAX hybrid." in read(render(done)).text
    # The/a, and big: 2 of 11 words; as characters 3 of "The" and 4 of "big ", of 58.
    assert read_rows(done)[1:] == [
        "CPU Reference 0 0 0 0.0% 0.0% 0.0% 0.0%",
        "MAX hybrid CPU 1 1 0 18.2% 12.1% 18.2% 12.1%",
        "MAX hybrid Reference 1 1 0 18.2% 12.1% 18.2% 12.1%",
    ]
    assert read_rows(fail_second(done))[-1] == "MAX hybrid Reference – – – – – – –"


def test_normalisation_forgives_what_is_no_error() -> None:
    row = read_rows(compare(reference=fakes.WORDS.upper() + "."))[-1]
    assert row.startswith("MAX hybrid Reference 11 0 0 100.0%")
    assert row.endswith("0.0% 0.0%")


def test_long_equal_passages_are_cut() -> None:
    words = [f"w{i}" for i in range(100)]
    changed = " ".join([*words[:50], "new", *words[50:]])
    edits = list_changes(align(" ".join(words), changed))
    assert [" ".join(edit.found) for edit in edits] == [
        "… w46 w47 w48 w49",
        "new",
        "w50 w51 w52 w53 …",
    ]


@pytest.mark.parametrize(
    ("expected", "found", "said"),
    [
        ("", "", "No differences: both are empty."),
        ("a", "a", "No differences: the one word is the same."),
        ("one two", "one", "1 word differs (1 deleted) of 2."),
        ("1 2 3", "1 b 3 4", "2 words differ (1 substituted, 1 inserted) of 3."),
    ],
)
def test_differences_are_said_in_words(expected: str, found: str, said: str) -> None:
    assert describe_differences(align(expected, found)) == said
