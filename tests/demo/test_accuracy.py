"""Figures of the words, computed by hand: against the baseline and the reference."""

from __future__ import annotations

from demo.panels.accuracy import render
from demo.snapshot import Comparison
from tests import fakes
from tests.demo.reading import compare, fail_second, read


def read_rows(comparison: Comparison) -> list[str]:
    """The table's rows without its head."""
    return [row.text for row in read(render(comparison)).all("tr")[1:]]


def test_the_same_words_are_said_to_be_the_same() -> None:
    assert "every engine wrote what CPU wrote, to the letter." in read(render(compare())).text
    assert read_rows(compare()) == ["MAX hybrid CPU 0 0 0 0.0% 0.0% 0.0% 0.0%"]


def test_each_kind_of_error_is_counted() -> None:
    words = "a compiler turns the graph into fast code for every big chip"
    done = compare(words, reference=fakes.WORDS)
    assert "Not as CPU wrote it: MAX hybrid." in read(render(done)).text
    # The/a, and big: 2 of 11 words; as characters 3 of "The" and 4 of "big ", of 58.
    assert read_rows(done) == [
        "CPU Reference 0 0 0 0.0% 0.0% 0.0% 0.0%",
        "MAX hybrid CPU 1 1 0 18.2% 12.1% 18.2% 12.1%",
        "MAX hybrid Reference 1 1 0 18.2% 12.1% 18.2% 12.1%",
    ]
    broken = fail_second(done)
    assert read_rows(broken)[-1] == "MAX hybrid Reference – – – – – – –"
    assert "no second transcript" in render(broken)


def test_normalisation_forgives_case_punctuation_and_spelling() -> None:
    done = compare("mister brown's color okay", reference="Mr. Brown's colour, okay?")
    row = read_rows(done)[-1]
    assert row.startswith("MAX hybrid Reference 4 0 0 100.0%") and row.endswith("0.0% 0.0%")
