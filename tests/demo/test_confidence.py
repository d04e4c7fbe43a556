"""How sure each engine was of its words, and which words it was least sure of."""

from __future__ import annotations

from dataclasses import replace

from demo.panels import confidence
from demo.snapshot import Comparison, Lane
from engines.base import Segment, Word
from tests.demo.reading import Element, compare, read


def say(lane: Lane, *words: tuple[str, float]) -> Lane:
    """The lane whose words have these probabilities, one a second."""
    timed = tuple(Word(at, at + 1, f" {word}", sure) for at, (word, sure) in enumerate(words))
    text = "".join(word.text for word in timed)
    return replace(lane, segments=(Segment(0.0, len(words), text, (), 0.0, timed),))


def make(*words: tuple[str, float], other: tuple[tuple[str, float], ...]) -> Comparison:
    comparison = compare()
    first, second = comparison.lanes
    return replace(comparison, lanes=(say(first, *words), say(second, *other)))


def read_rows(page: Element, name: str) -> list[list[str]]:
    (region,) = page.all("div", **{"aria-label": name})
    rows = region.all("tbody")[0].all("tr")
    return [[cell.text for cell in row.children if isinstance(cell, Element)] for row in rows]


def test_the_same_word_of_two_engines_shares_a_row_and_the_least_sure_comes_first() -> None:
    told = make(
        ("ask", 0.99),
        ("not", 0.4),
        ("what", 0.8),
        other=(("ask", 0.95), ("now", 0.6), ("what", 0.3)),
    )
    page = read(confidence.render(told))
    assert read_rows(page, "Confidence of each engine") == [
        ["CPU", "3", "73.0%", "2", "1", "1"],
        ["MAX hybrid", "3", "61.7%", "2", "2", "1"],
    ]
    assert read_rows(page, "Words of lowest probability") == [
        ["what", "0:02", "80%", "30%"],
        ["not", "0:01", "40%", "–"],
        ["now", "0:01", "–", "60%"],
        ["ask", "0:00", "99%", "95%"],
    ]
    assert page.all("button")[0].attributes["data-t"] == "2.00"
    assert not read(confidence.render_document(told)).all("button"), "nothing to click in a report"


def test_without_word_times_it_offers_to_run_again() -> None:
    (button,) = read(confidence.render(compare())).all("button")
    assert button.attributes["data-press"] == "with-words"
