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
    same = compare(reference=fakes.WORDS.upper() + ".")
    text = read(render(same)).text
    assert "Every engine wrote what CPU wrote, to the letter, and its tokens are equal too." in text
    assert "Word error rate 0.0% normalised: 0 errors in 11 words." in text
    assert read_rows(same)[0].startswith("CPU and MAX hybrid Reference 0.0% 0.0% 100.0%")
    assert len(read_rows(same)) == 1 and not read(render(same)).all(kind="changes")
    assert read_rows(compare()) == []


def test_each_kind_of_error_is_counted_and_its_words_are_shown() -> None:
    words = "a compiler turns the graph into fast code for every big chip"
    done = compare(words, reference=fakes.WORDS)
    shown = read(render(done))
    assert "Not as CPU wrote it: MAX hybrid." in shown.text
    # The/a, and big: 2 of 11 words; as characters 3 of "The" and 4 of "big ", of 58.
    assert read_rows(done) == [
        "CPU Reference 0.0% 0.0% 0.0% 0.0% 0 0 0",
        "MAX hybrid Reference 18.2% 12.1% 18.2% 12.1% 1 1 0",
        "MAX hybrid CPU 18.2% 12.1% 18.2% 12.1% 1 1 0",
    ]
    assert "2 words differ (1 substituted, 1 inserted) of 11. Its tokens differ." in shown.text
    assert shown.all("del")[-1].text == "− deleted: The"
    assert [each.text for each in shown.all("ins")][-2:] == ["+ inserted: a", "+ inserted: big"]
    broken = fail_second(done)
    assert "MAX hybrid: not known, it failed." in read(render(broken)).text
    assert "no second transcript" in render(broken)


def test_silence_is_no_division_by_zero() -> None:
    assert "Nothing was said, but 11 words written." in read(render(compare(reference=""))).text
    assert "Nothing was said, and nothing was written." in render(compare(words="", reference=""))


def test_normalisation_forgives_case_punctuation_and_spelling() -> None:
    done = compare("mister brown's color okay", reference="Mr. Brown's colour, okay?")
    row = read_rows(done)[1]
    assert row.startswith("MAX hybrid Reference 0.0% 0.0% 100.0%") and row.endswith("4 0 0")


def test_where_words_have_no_spaces_each_character_counts() -> None:
    done = compare("今天天气很好我们去公园散步啊", reference="今天天气很好我们去公园散步吧")
    shown = read(render(done))
    assert read_rows(done)[1].startswith("MAX hybrid Reference 7.1% 7.1% 7.1% 7.1% 1 0 0")
    assert "Word error rate 7.1% normalised: 1 error in 14 words." in shown.text
    assert "… 公园散步 − deleted: 吧 + inserted: 啊" in shown.text
    mixed = compare("我在 Google 工作", reference="我在Google上班")
    assert "2 errors in 5 words" in read(render(mixed)).text
