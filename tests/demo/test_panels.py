"""What holds for every panel: the table, empty states, escaping, and what travels."""

from __future__ import annotations

from dataclasses import replace
from itertools import chain
from pathlib import Path

import pytest

from demo import exports, page
from demo.jobs import JobQueue
from demo.panels import PANELS, Panel, faults, lanes, race
from demo.panels.headline import Headline, render_headline
from demo.snapshot import Comparison, new_comparison
from demo.visits import SavedResults
from tests import fakes
from tests.demo.reading import EVIL, change_last, compare, fail_second, keep_running, read
from tests.fake_lab import make_fault_result
from tests.fake_page import make_backend

CHARTS = [panel for panel in PANELS if not panel.live]


def test_a_new_panel_is_one_row(monkeypatch: pytest.MonkeyPatch, sample_folder: Path) -> None:
    """The page and the report show it."""
    added = Panel("count", "How many", lambda found: f"<p>{len(found.lanes)} engines</p>")
    for module in (page, exports):
        monkeypatch.setattr(module, "PANELS", (*PANELS, added))
    (section,) = read(exports.render_report(compare())).all("section", id="count")
    assert section.text == "How many 2 engines"
    blocks = page.build(make_backend(sample_folder), JobQueue(), SavedResults())
    assert "count" in {each.elem_id for each in blocks.blocks.values()}


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


def test_nothing_from_a_file_or_a_model_becomes_markup() -> None:
    """The report's test looks at the other panels."""
    result = make_fault_result("early")
    assert result.faulty is not None
    encoders = tuple(replace(each, label=EVIL) for each in result.layers.halves)
    found = replace(result.layers, model=EVIL, clip=EVIL, halves=encoders)
    hostile = replace(result, faulty=replace(result.faulty, text=EVIL), layers=found)
    for shown in (
        read(render_headline(Headline(EVIL, EVIL, alert=True))),
        *(read([*race.render(each), *lanes.render(each)]) for each in make_hostile()),
        read(faults.render(hostile)),
        read(faults.render(replace(hostile, faulty=None, error=EVIL))),
    ):
        assert not shown.all("script") + shown.all("img") + shown.all("b")
        assert not [n for each in shown.walk() for n in each.attributes if n.startswith("on")]
        assert "<script>alert(1)</script>" in shown.text


@pytest.mark.parametrize("panel", CHARTS, ids=[panel.key for panel in CHARTS])
def test_a_chart_is_a_sentence_until_the_last_engine_is_done(panel: Panel) -> None:
    done = compare(reference=fakes.WORDS)
    for early in (new_comparison(done.settings, fakes.STATUSES), keep_running(done)):
        shown = read(panel.render(early))
        assert "when the last engine is done" in shown.text
        assert len(list(shown.walk())) == 2


def test_only_changed_parts_of_the_words_travel() -> None:
    done = keep_running(compare())
    segments = done.lanes[1].segments
    before, after = (
        lanes.render(change_last(done, segments=heard)) for heard in (segments[:-1], segments)
    )
    cells = zip(chain(*before), chain(*after), strict=True)
    (changed,) = (new for old, new in cells if old != new)
    assert "every" in changed


def test_text_runs_in_its_own_direction() -> None:
    page = read(lanes.render(compare("السلام عليكم", reference="سلام")))
    for words in [*page.all("p", "segment"), *page.all("p", "changes")]:
        assert [each for each in words.walk() if each.attributes.get("dir") == "auto"]
