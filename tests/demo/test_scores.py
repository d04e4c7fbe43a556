"""Figures of the words: against the baseline and the reference, raw and normalised."""

from __future__ import annotations

from dataclasses import replace

from demo.panels.scores import COLUMNS, render
from demo.snapshot import Comparison
from tests import fakes
from tests.demo.reading import compare, read


def read_rows(comparison: Comparison) -> list[str]:
    """The table's rows, its head first."""
    return [row.text for row in read(render(comparison)).all("tr")]


def test_the_same_words_are_said_to_be_the_same() -> None:
    done = compare()
    assert "every engine wrote what CPU wrote, to the letter." in read(render(done)).text
    assert read_rows(done) == [" ".join(COLUMNS), "MAX hybrid CPU 0 0 0 0.0% 0.0% 0.0% 0.0%"]


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


def test_normalisation_forgives_what_is_no_error() -> None:
    row = read_rows(compare(reference=fakes.WORDS.upper() + "."))[-1]
    assert row.startswith("MAX hybrid Reference 11 0 0 100.0%")
    assert row.endswith("0.0% 0.0%")


def test_an_engine_that_failed_has_dashes() -> None:
    done = compare(reference=fakes.WORDS)
    failed = replace(done.lanes[1], state="failed", transcript=None)
    rows = read_rows(replace(done, lanes=(done.lanes[0], failed)))
    assert rows[-1] == "MAX hybrid Reference – – – – – – –"


def test_one_transcript_has_nothing_beside_it() -> None:
    done = compare()
    assert "no second transcript" in render(replace(done, lanes=done.lanes[:1]))
