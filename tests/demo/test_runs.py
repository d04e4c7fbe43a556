"""The list of a visit's runs, and two of them held against each other."""

from __future__ import annotations

from dataclasses import replace

from demo.runs import render_runs, render_two
from demo.visits import Saved
from tests import fakes
from tests.demo.reading import EVIL, compare, fail_second, read
from tests.demo.test_panels import make_hostile


def test_a_run_is_listed_with_what_came_of_it() -> None:
    timed = compare("The compiler turned the graph", "one at a time", reference=fakes.WORDS)
    for comparison, outcome in (
        (timed, "MAX hybrid 2.0× as fast as CPU; 0.0% to 63.6% of words wrong"),
        (replace(timed, reference=None), "MAX hybrid 2.0× as fast as CPU; 7 words apart"),
        (compare(), "timed beside each other; the same words"),
        (fail_second(timed), "MAX hybrid did not finish; 0.0% of words wrong"),
    ):
        kept = Saved({}, replace(comparison, run="a", clip_name="Talk"), {}, True, pinned=True)
        page = read(render_runs([kept], "a"))
        (row,) = page.all("tr")[1:]
        cells = [each.text for each in row.all("td")]
        assert cells[1:5] == ["Talk", "tiny.en, English", "CPU, MAX hybrid", outcome]
        assert row.attributes["aria-current"] == "true" and "pinned" in row.text


def test_two_runs_show_what_differs_between_them() -> None:
    first = compare("The compiler turned the graph", "one at a time")
    second = compare(fakes.WORDS, "one at a time", reference=fakes.WORDS)
    second = replace(second, settings=replace(second.settings, model="base", beam_size=5))
    page = read(render_two(first, second))
    settings, engines = page.all("table")
    assert [row.text for row in settings.all("tr")[1:]] == [
        "Model tiny.en base",
        "Beam size 1 5",
        f"Words really spoken not known {fakes.WORDS}",
    ]
    assert [row.text for row in engines.all("tr")[2:]] == [
        "CPU 2.00 s 2.00 s 1.00× 1.00× 1.00× – 0.0% 0 of 11",
        "MAX hybrid 1.00 s 1.00 s 1.00× 2.00× 2.00× – 0.0% 7 of 5",
    ]
    (changes,) = page.all("p", "changes")
    assert "turned" in changes.all("del")[0].text
    other = replace(compare(), clip_name="Other", lanes=compare().lanes[:1])
    page = read(render_two(other, second))
    assert "The clips are not the same" in page.text
    assert page.all("tr")[-1].text == "MAX hybrid – 1.00 s – – 2.00× – 0.0% –"


def test_nothing_of_a_run_becomes_markup() -> None:
    for comparison in make_hostile():
        kept = Saved({}, replace(comparison, run=EVIL), {}, True)
        for page in (render_runs([kept], EVIL), render_two(comparison, compare())):
            assert not read(page).all("script") + read(page).all("img") + read(page).all("b")
