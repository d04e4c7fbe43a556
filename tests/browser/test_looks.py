"""What every look of the page keeps: accessible, still, fitting, light."""

from __future__ import annotations

from threading import Event
from typing import TYPE_CHECKING

import pytest

from tests import fakes
from tests.browser.driving import (
    Open,
    analyse,
    compare,
    count_received,
    list_axe_faults,
    open_tab,
    show_features,
    wait_for_states,
    wait_until_at_rest,
    wait_until_still,
)

if TYPE_CHECKING:
    from tests.fake_page import FakePage

pytestmark = pytest.mark.browser

FITS = "document.documentElement.scrollWidth <= innerWidth"


@pytest.mark.parametrize("each_tab", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_no_serious_fault_in_any_theme_width_or_state(
    each_tab: bool, fake_page: FakePage, open_page: Open
) -> None:
    other = fakes.fake_max(words=fakes.WORDS.replace("turns", "turned"))
    fake_page.use(max_hybrid=other)
    page = open_page(fake_page.url)
    page.locator("#audio .play-pause-button").wait_for(state="attached")
    assert list_axe_faults(page) == []
    page.evaluate("document.querySelector('#compare').click()")
    wait_for_states(page, "done", "done")
    page.locator("#compare:enabled").wait_for(state="attached")
    show_features(page)
    assert list_axe_faults(page) == []
    for name in ("inspect", "fault"):
        analyse(page, name)
    page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
    assert page.evaluate(FITS)
    assert list_axe_faults(page) == []
    tabs = page.locator("#tabs").get_by_role("tab").all_inner_texts()
    for tab in tabs if each_tab else tabs[-1:]:
        page.set_viewport_size({"width": 1400, "height": 900})
        open_tab(page, tab)
        page.wait_for_timeout(300)
        assert (tab, list_axe_faults(page)) == (tab, [])
        page.set_viewport_size({"width": 390, "height": 900})
        page.wait_for_function(FITS)
    assert list_axe_faults(page) == []


WEIGHT = """[...performance.getEntriesByType('navigation'),
  ...performance.getEntriesByType('resource')]
  .filter(each => !each.name.endsWith('.flac')).reduce((sum, each) => sum + each.transferSize, 0)"""
WATCH = """() => { window.shift = 0; new PerformanceObserver(list => {
  for (const each of list.getEntries()) if (!each.hadRecentInput) shift += each.value;
}).observe({type: 'layout-shift', buffered: true}); }"""


@pytest.mark.slow
def test_terms_are_explained_on_hover_focus_and_touch_and_models_stand_in_two_groups(
    fake_page: FakePage, open_page: Open
) -> None:
    page = open_page(fake_page.url)
    page.locator("#model input").click()
    heading = "s => getComputedStyle(document.querySelector(s), '::before').content"
    page.locator("#model [role=option]").first.wait_for()
    first = page.evaluate(heading, "#model [role=option]")
    assert first in ('"On this machine"', '"To download"')
    compare(page)
    badge, tip = page.locator("#lanes .badge .term"), page.locator("#tip")
    badge.hover()
    tip.get_by_text("compared with").wait_for()
    page.mouse.move(2, 2)
    tip.wait_for(state="hidden")
    badge.focus()
    tip.get_by_text("compared with").wait_for()
    page.locator("#race summary").nth(1).focus()
    tip.get_by_text("The encoder runs as a graph of MAX").wait_for()


@pytest.mark.parametrize(
    ("width", "height"), [(1280, 720), pytest.param(390, 900, marks=pytest.mark.slow)]
)
def test_a_light_first_screen_then_words_and_nothing_jumps(
    fake_page: FakePage, open_page: Open, width: int, height: int
) -> None:
    """Of a laptop, which sees all of it at once, and of a phone."""
    laptop, gate = width > height, Event()
    fake_page.use(cpu=fakes.FakeEngine(last_word=gate))
    page = open_page(fake_page.url, width=width)
    page.set_viewport_size({"width": width, "height": height})
    page.locator("#audio .waveform-container").wait_for()
    page.evaluate(WATCH)
    assert 300_000 < page.evaluate(WEIGHT) < 650_000
    assert not laptop or page.evaluate("document.documentElement.scrollHeight") == height
    places = (
        "[...document.querySelectorAll('.lane, .lane > *, #summary, #chips')]"
        ".map(e => e.getBoundingClientRect().top + scrollY)"
    )
    page.click("#compare")
    page.locator("#lanes .segment").first.wait_for()
    wait_until_still(page, places)
    during = page.evaluate(places)
    gate.set()
    wait_for_states(page, "done", "done")
    wait_until_still(page, places)  # rows glide to their ranks
    assert sorted(page.evaluate(places)) == sorted(during)  # rows change places when ranked
    box = page.locator("#lanes .segment").first.bounding_box()
    assert box and (box["y"] < 560 or not laptop)
    for tab in ("Time", "Accuracy"):
        open_tab(page, tab)
        page.wait_for_timeout(700)  # what moves half a second after a click counts as shift
    assert page.evaluate("shift") < 0.05
    page.wait_for_function("document.getAnimations().every(a => a.playState !== 'running')")
    wait_until_at_rest(page)


@pytest.mark.slow
def test_a_long_comparison_is_below_half_a_megabyte(fake_page: FakePage, open_page: Open) -> None:
    """The words of a talk of three minutes, and features of the size of a real encoder's."""
    traits = {"words": " ".join([fakes.WORDS] * 36), "shape": (1500, 384)}
    fake_page.use(
        cpu=fakes.FakeEngine(pace=0.02, **traits),  # type: ignore[arg-type]
        max_hybrid=fakes.fake_max(pace=0.03, **traits),
    )
    page = open_page(fake_page.url)
    page.locator("#audio .play-pause-button").wait_for()
    received = count_received(page)
    compare(page)
    show_features(page)
    page.wait_for_timeout(500)
    assert 50_000 < sum(received.values()) < 500_000, received
