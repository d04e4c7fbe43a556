"""What holds for every panel: the table, empty states, escaping, and what travels."""

from __future__ import annotations

from dataclasses import replace

import pytest

from demo import panels
from demo.panels import PANELS, Panel, faults, layers, report
from demo.panels.headline import Headline, render_headline
from demo.panels.templating import join_parts
from demo.snapshot import Comparison, new_comparison
from tests import fakes
from tests.demo.reading import EVIL, compare, keep_running, read
from tests.fake_lab import make_comparison, make_fault_result

CHARTS = [panel for panel in PANELS if not panel.live]
BY_KEY = {panel.key: panel for panel in PANELS}


def count_engines(comparison: Comparison) -> str:
    return f"<p>{len(comparison.lanes)} engines</p>"


def test_a_new_panel_is_one_row(monkeypatch: pytest.MonkeyPatch) -> None:
    added = (*PANELS, Panel("count", "How many", count_engines))
    monkeypatch.setattr(panels, "PANELS", added)
    monkeypatch.setattr(report, "PANELS", added)
    page = read(report.render_report(compare()))
    (section,) = page.all("section", id="count")
    assert section.text == "How many 2 engines"


@pytest.mark.parametrize("panel", PANELS, ids=BY_KEY.get)
def test_nothing_from_a_file_or_a_model_becomes_markup(panel: Panel) -> None:
    evil = compare(EVIL, reference=f"{EVIL} b", language=None)
    cpu, hybrid = evil.lanes
    assert hybrid.transcript is not None
    cpu = replace(cpu, state="failed", reason=EVIL, transcript=None, repeats=(), label=EVIL)
    hybrid = replace(
        hybrid,
        label=EVIL,
        device=EVIL,
        encoder=EVIL,
        note=EVIL,
        transcript=replace(hybrid.transcript, language=EVIL, language_probability=0.5),
    )
    broken = replace(evil, lanes=(cpu, hybrid), clip_name=EVIL, clip_id=EVIL)
    settings = replace(broken.settings, model=EVIL)
    absent = (replace(fakes.GPU, label=EVIL, reason=EVIL),)
    for hostile in (evil, replace(broken, settings=settings, absent=absent)):
        for render in (panel.render, panel.document or panel.render):
            page = read(render(hostile))
            assert not page.all("script") + page.all("b")
            assert all(i.attributes["src"].startswith("data:image/png") for i in page.all("img"))
            assert not [n for each in page.walk() for n in each.attributes if n.startswith("on")]


def test_nothing_becomes_markup_in_headlines_layers_and_faults() -> None:
    assert not read(render_headline(Headline(EVIL, EVIL, alert=True))).all("script")
    finding = make_fault_result("early")
    assert finding.faulty is not None
    found = replace(
        finding.layers,
        model=EVIL,
        clip=EVIL,
        encoders=tuple(replace(each, label=EVIL) for each in finding.layers.encoders),
    )
    hostile = replace(finding, faulty=replace(finding.faulty, text=EVIL), layers=found)
    broken = replace(hostile, faulty=None, error=EVIL)
    for html in (layers.render(found), faults.render(hostile), faults.render(broken)):
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
    later = replace(done, lanes=(cpu, replace(hybrid, state="decoding", elapsed=9.0)))
    before, after = (BY_KEY["lanes"].render(each) for each in (done, later))
    assert before[1][0] == after[1][0]
    changed = [a != b for a, b in zip(before[1][1], after[1][1], strict=True)]
    assert 0 < sum(changed) < len(changed)
    segments = next(part for part in before[1][1] if isinstance(part, list))[1]
    assert len(segments) == len(hybrid.segments)
    assert all(type(part) is str for part in segments)


def test_every_element_has_its_own_id() -> None:
    done = compare()
    html = "".join(join_parts(panel.render(done)) for panel in PANELS)
    html += layers.render(make_comparison()) + faults.render(make_fault_result("early"))
    ids = [each.attributes["id"] for each in read(html).walk() if "id" in each.attributes]
    assert len(ids) > 10
    assert len(set(ids)) == len(ids)


def test_text_runs_in_its_own_direction() -> None:
    arabic = "السلام عليكم"
    done = compare(arabic, reference="سلام")
    done = replace(done, settings=replace(done.settings, language="ar"))
    page = read(BY_KEY["lanes"].render(done))
    for words in [*page.all("p", "segment"), *page.all("p", "changes")]:
        assert [each for each in words.walk() if each.attributes.get("dir") == "auto"]
