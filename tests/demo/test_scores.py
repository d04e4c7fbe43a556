"""Figures of the words: against the baseline and the reference, raw and normalised."""

from __future__ import annotations

from dataclasses import replace

from demo.scores import COLUMNS, render_scores
from tests import fakes
from tests.demo.test_lanes import compare, read


def test_the_same_words_are_said_to_be_the_same() -> None:
    text = read(render_scores(compare()))
    assert "No differences: every lane wrote what CPU wrote, to the letter." in text
    assert "MAX hybrid CPU 0 0 0 0.0% 0.0% 0.0% 0.0%" in text


def test_each_kind_of_error_is_counted() -> None:
    words = "a compiler turns the graph into fast code for every big chip"
    text = read(render_scores(compare(words, reference=fakes.WORDS)))
    assert "Not as CPU wrote it: MAX hybrid." in text
    # The/a, and big: 2 of 11 words; as characters 3 of "The" and 4 of "big ", of 58.
    assert "MAX hybrid CPU 1 1 0 18.2% 12.1% 18.2% 12.1%" in text
    assert "CPU Reference 0 0 0 0.0%" in text


def test_normalisation_forgives_what_is_no_error() -> None:
    text = read(render_scores(compare(reference=fakes.WORDS.upper() + ".")))
    assert "MAX hybrid Reference 11 0 0 100.0%" in text
    assert "0.0% 0.0%" in text


def test_no_figures_before_the_last_lane_is_done_but_their_rows() -> None:
    done = compare(reference=fakes.WORDS)
    running = replace(done, lanes=(done.lanes[0], replace(done.lanes[1], state="decoding")))
    html = render_scores(running)
    assert "appear when the last lane is done" in html
    assert "%" not in html
    assert html.count("<tr>") == render_scores(done).count("<tr>") == 4
    assert html.count("<th ") == len(COLUMNS) + 3


def test_one_transcript_has_nothing_beside_it() -> None:
    done = compare()
    assert "no second transcript" in render_scores(replace(done, lanes=done.lanes[:1]))
