"""What holds for every panel: the table, empty states, escaping, and what travels."""

from __future__ import annotations

from dataclasses import replace

import pytest

from demo import exports
from demo.panels import PANELS, Panel, layers
from demo.panels.headline import Headline, render_headline
from demo.panels.templating import join_parts
from demo.snapshot import Comparison, new_comparison
from tests import fakes
from tests.demo.reading import EVIL, compare, fail_second, keep_running, read
from tests.fake_lab import make_comparison, make_fault_result

CHARTS = [panel for panel in PANELS if not panel.live]
BY_KEY = {panel.key: panel for panel in PANELS}


def count_engines(comparison: Comparison) -> str:
    return f"<p>{len(comparison.lanes)} engines</p>"


def test_a_new_panel_is_one_row(monkeypatch: pytest.MonkeyPatch) -> None:
    added = (*PANELS, Panel("count", "How many", count_engines))
    monkeypatch.setattr(exports, "PANELS", added)
    (section,) = read(exports.render_report(compare())).all("section", id="count")
    assert section.text == "How many 2 engines"


def make_hostile() -> tuple[Comparison, Comparison]:
    """Comparisons whose every text is markup; in the second one engine failed."""
    evil = compare(EVIL, reference=f"{EVIL} b", language=None)
    evil = replace(evil, clip_name=EVIL, clip_id=EVIL)
    hybrid = evil.lanes[1]
    assert hybrid.transcript is not None
    heard = replace(hybrid.transcript, language=EVIL, language_probability=0.5)
    traits = {"label": EVIL, "device": EVIL, "encoder": EVIL, "note": EVIL}
    cpu = replace(fail_second(evil, EVIL).lanes[1], key="cpu", label=EVIL)
    broken = (cpu, replace(hybrid, transcript=heard, **traits))  # type: ignore[arg-type]
    settings = replace(evil.settings, model=EVIL)
    absent = (replace(fakes.GPU, label=EVIL, reason=EVIL),)
    return evil, replace(evil, lanes=broken, settings=settings, absent=absent)


@pytest.mark.parametrize("panel", PANELS, ids=BY_KEY.get)
def test_nothing_from_a_file_or_a_model_becomes_markup(panel: Panel) -> None:
    for hostile in make_hostile():
        for render in (panel.render, panel.document or panel.render):
            page = read(render(hostile))
            assert not page.all("script") + page.all("b")
            assert all(i.attributes["src"].startswith("data:image/png") for i in page.all("img"))
            assert not [n for each in page.walk() for n in each.attributes if n.startswith("on")]


def test_nothing_becomes_markup_in_headlines_layers_and_faults() -> None:
    assert not read(render_headline(Headline(EVIL, EVIL, alert=True))).all("script")
    result = make_fault_result("early")
    assert result.faulty is not None
    encoders = tuple(replace(each, label=EVIL) for each in result.layers.encoders)
    found = replace(result.layers, model=EVIL, clip=EVIL, encoders=encoders)
    hostile = replace(result, faulty=replace(result.faulty, text=EVIL), layers=found)
    broken = replace(hostile, faulty=None, error=EVIL)
    for html in (layers.render(found), *map(layers.render_fault, (hostile, broken))):
        page = read(html)
        assert not page.all("script") + page.all("img")
        assert "<script>alert(1)</script>" in page.text


@pytest.mark.parametrize("panel", CHARTS, ids=[panel.key for panel in CHARTS])
def test_a_chart_is_a_sentence_until_the_last_engine_is_done(panel: Panel) -> None:
    done = compare(reference=fakes.WORDS)
    for early in (new_comparison(done.settings, fakes.STATUSES), keep_running(done)):
        page = read(panel.render(early))
        assert "when the last engine is done" in page.text
        assert len(list(page.walk())) == 2
    assert len(list(read(panel.render(done)).walk())) > 10


def test_only_changed_parts_of_the_engines_travel() -> None:
    done = compare()
    cpu, hybrid = done.lanes
    said = replace(hybrid, state="decoding", elapsed=9.0, segments=hybrid.segments[:-1])
    before, after = (
        BY_KEY["lanes"].render(replace(done, lanes=(cpu, lane)))
        for lane in (said, replace(said, segments=hybrid.segments))
    )
    (at,) = [
        at
        for at, parts in enumerate(zip(before, after, strict=True))
        if len(set(map(str, parts))) > 1
    ]
    assert len(after[at]) == len(before[at]) + 1
    assert after[at][: len(hybrid.segments)] == before[at][:-1]
    assert all(type(row) is str for row in after[at])


def test_every_element_has_its_own_id() -> None:
    done = compare()
    html = "".join(join_parts(panel.render(done)) for panel in PANELS)
    html += layers.render(make_comparison()) + layers.render_fault(make_fault_result("early"))
    ids = [each.attributes["id"] for each in read(html).walk() if "id" in each.attributes]
    assert len(ids) > 10
    assert len(set(ids)) == len(ids)


def test_text_runs_in_its_own_direction() -> None:
    page = read(BY_KEY["lanes"].render(compare("السلام عليكم", reference="سلام")))
    for words in [*page.all("p", "segment"), *page.all("p", "changes")]:
        assert [each for each in words.walk() if each.attributes.get("dir") == "auto"]
