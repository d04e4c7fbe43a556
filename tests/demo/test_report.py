"""The report: one file with all that the page shows, which asks no host and runs nothing."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest

from demo.panels import PANELS, encoder_output
from demo.panels.report import render_report
from demo.record import as_json, count_errors, describe
from demo.snapshot import Comparison, Schedule
from engines.base import Clip
from tests import fakes
from tests.demo.reading import EVIL, read
from tests.fake_page import make_task


def compare(
    *engines: fakes.FakeEngine,
    name: str = "Talk",
    reference: str | None = None,
    words: bool = False,
    schedule: Schedule = "one at a time",
) -> Comparison:
    """A finished comparison."""
    run = make_task(
        *engines,
        load_clip=lambda path, listener: Clip(fakes.make_clip().samples, name, 0.003),
        name=name,
        reference=reference,
        word_timestamps=words,
        schedule=schedule,
    )
    return list(run.snapshots())[-1]


def fake_max(**traits: object) -> fakes.FakeEngine:
    return replace(fakes.FakeEngine("max_hybrid", "MAX hybrid", noise=1e-6), **traits)  # type: ignore[arg-type]


def test_the_record_says_what_ran_where_and_what_came_of_it() -> None:
    end = compare(
        fakes.FakeEngine(), fake_max(words="The compiler turned the graph"), reference=fakes.WORDS
    )
    record = json.loads(as_json(describe(end)))
    assert record["run"] == end.run and re.fullmatch("[0-9a-f]{12}", end.run)
    assert record["settings"]["engines"] == ["cpu", "max_hybrid"]
    assert record["machine"]["versions"]["gradio"] and record["machine"]["cores"] >= 1
    assert record["absent"] == [
        {"engine": "gpu", "label": "GPU", "reason": "no CUDA device was found"}
    ]
    cpu, hybrid = record["lanes"]
    assert cpu["text"] == fakes.WORDS and cpu["against_baseline"] is None
    assert cpu["against_reference"]["word_error_rate"] == 0
    assert cpu["tokens"] == list(range(11)) and len(cpu["runs"]) == 1
    assert cpu["seconds"]["total"] == pytest.approx(
        sum(cpu["seconds"][stage] for stage in ("audio", "mel", "encode", "decode"))
    )
    errors = hybrid["against_baseline"]
    assert (errors["substituted"], errors["inserted"], errors["deleted"]) == (1, 0, 6)
    assert errors["word_error_rate"] == pytest.approx(7 / 11)
    assert errors["normalised_character_error_rate"] == errors["character_error_rate"] > 0
    loud = count_errors(fakes.WORDS.upper(), end.lanes[0])
    assert loud is not None and loud.character_error_rate
    assert loud.normalised_character_error_rate == 0


def test_a_failed_engine_keeps_its_reason_in_the_record() -> None:
    end = compare(fakes.FakeEngine(), fake_max(error=ValueError("the graph broke")))
    lane = json.loads(as_json(describe(end)))["lanes"][1]
    assert lane["state"] == "failed" and lane["reason"] == "ValueError: the graph broke"
    assert lane["text"] == "" and lane["seconds"] is None


def test_an_empty_transcript_is_a_record_and_a_report() -> None:
    end = compare(fakes.FakeEngine(words=""), reference="")
    record = json.loads(as_json(describe(end)))
    assert record["lanes"][0]["segments"] == []
    assert record["lanes"][0]["against_reference"]["word_error_rate"] is None
    text = read(render_report(end)).text
    assert "No speech was found." in text and "Nothing is said in this clip." in text


@pytest.mark.parametrize("words", [False, True])
def test_the_report_shows_every_panel_settings_and_machine(words: bool) -> None:
    end = compare(
        fakes.FakeEngine(), fake_max(words="The compiler turned"), reference="x", words=words
    )
    html = render_report(end)
    page = read(html)
    assert page.all("h1")[0].text == "Talk, every engine"
    titles = [each.text for each in page.all("h2", "") if "id" not in each.attributes]
    named = [panel.title for panel in PANELS if panel.title]
    assert titles == [*named, "Reference", "How it was made"]
    assert [each.attributes["id"] for each in page.all("section") if "id" in each.attributes] == [
        panel.key for panel in PANELS
    ]
    for expected in ("turned", end.run, "tiny.en", "Python 3", "detected automatically"):
        assert expected in page.text
    assert page.all("ins") and page.all("del") and page.all("svg")
    assert bool(page.all("ruby")) == words
    assert not page.all("button"), "words are to be read, not to be clicked"
    assert len(html.encode()) < 400_000


def test_the_report_asks_no_host_and_runs_nothing() -> None:
    html = render_report(compare(fakes.FakeEngine(), fake_max()))
    elements = list(read(html).walk())
    forbidden = {"script", "link", "iframe", "object", "embed", "form", "base"}
    assert not forbidden & {each.tag for each in elements}
    attributes = [pair for each in elements for pair in each.attributes.items()]
    assert not [name for name, _ in attributes if name.startswith("on")]
    sources = [v for name, v in attributes if name in ("src", "href", "srcset", "xlink:href")]
    assert sources
    assert all(value.startswith(("data:image/png;base64,", "#")) for value in sources)
    assert "@import" not in html and not re.search(r"url\((?!data:|#)", html)
    assert "default-src 'none'" in html and "prefers-color-scheme: dark" in html


def test_nothing_from_a_file_or_a_model_becomes_markup() -> None:
    evil = compare(
        fakes.FakeEngine(words=EVIL, label=EVIL),
        fake_max(words=f"{EVIL} b", device=EVIL),
        name=EVIL,
        reference=EVIL,
        words=True,
    )
    failed = compare(fakes.FakeEngine(error=ValueError(EVIL)), name=EVIL)
    for one in (evil, failed):
        page = read(render_report(one))
        assert not page.all("script")
        assert not [n for each in page.walk() for n in each.attributes if n.startswith("on")]
        assert "<script>alert(1)</script>" in page.text


def test_a_panel_that_was_drawn_before_stands_in_for_what_is_no_longer_kept() -> None:
    end = compare(fakes.FakeEngine(), fake_max())
    drawn = {"features": encoder_output.render(end)}
    light = end.to_save()
    assert light is not None
    assert "Relative L2" in read(render_report(light, drawn)).text
    assert "was not kept" in read(render_report(light)).text
