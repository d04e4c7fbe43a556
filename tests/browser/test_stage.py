"""Stage mode: five slides that need no mouse, don't scroll, and can be read from the back row."""

from __future__ import annotations

from threading import Event
from typing import TYPE_CHECKING

import pytest

from tests import fakes
from tests.browser.driving import Open, list_axe_faults, wait_for_states, wait_until

if TYPE_CHECKING:
    from playwright.sync_api import Page, Route

    from tests.fake_page import FakePage

pytestmark = [pytest.mark.browser, pytest.mark.slow]

SMALLEST = """() => {
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  let smallest = [Infinity, ""];
  while (walker.nextNode()) {
    const [node, range] = [walker.currentNode, document.createRange()];
    range.selectNode(node);
    const size = parseFloat(getComputedStyle(node.parentElement).fontSize);
    const seen = node.parentElement.checkVisibility({visibilityProperty: true});
    if (node.data.trim() && seen && range.getBoundingClientRect().width > 1 && size < smallest[0])
      smallest = [size, node.data];
  }
  return smallest;
}"""
"""Of the visible text the smallest size in pixels, and its words."""
HIDDEN = """() => [...document.querySelectorAll('#stage :is(section, footer)')].flatMap(part =>
  [part, ...part.querySelectorAll(
    'h1, ol, li, .tile, .poster > *, .parts, .outcome > *, p.keys, p.where')])
  .filter(e => e.checkVisibility() && (e.getBoundingClientRect().bottom > innerHeight + 1
    || e.getBoundingClientRect().right > innerWidth + 1)).map(e => e.className || e.tagName)"""
"""What lies beyond the window's edges."""
SIZES = {1280: (720, 24), 1920: (1080, 36)}
"""By width: height, and the least size of type."""


def open_stage(fake_page: FakePage, open_page: Open) -> Page:
    page = open_page(fake_page.url, query="&stage=1", ready="#stage .tile")
    page.locator("#audio .play-pause-button").wait_for(state="attached")
    return page


def check_fits(page: Page, slide: int) -> None:
    """No scrolling, nothing cut off and no small type, in either window."""
    assert page.evaluate("document.documentElement.dataset.slide") == str(slide)
    for width, (height, least) in SIZES.items():
        page.set_viewport_size({"width": width, "height": height})
        page.wait_for_timeout(700)  # rows move to their places
        assert page.evaluate("document.documentElement.scrollHeight <= innerHeight")
        assert not page.evaluate(HIDDEN)
        size, words = page.evaluate(SMALLEST)
        assert size > least - 0.01, f"{words!r} has {size} px at {width}"


def test_a_talk_needs_keys_only(fake_page: FakePage, open_page: Open) -> None:
    gate = Event()
    other = fakes.fake_max(words=fakes.WORDS.replace("turns", "turned"), last_word=gate)
    fake_page.use(cpu=fakes.FakeEngine(last_word=gate, pace=0.2), max_hybrid=other)
    page = open_stage(fake_page, open_page)
    press, stage = page.keyboard.press, page.locator("#stage")
    check_fits(page, 1)
    assert list_axe_faults(page) == []
    press("ArrowRight")
    stage.locator(".tile[aria-checked=true]", has_text="Address").wait_for()
    press("1")
    stage.locator(".tile[aria-checked=true]", has_text="Kennedy").wait_for()

    press("Space")
    wait_for_states(page, "decoding", "decoding")
    stage.locator(".racer", has_text="The compiler turned").locator(".words").wait_for()
    check_fits(page, 2)
    press("Escape")
    wait_for_states(page, "stopped", "stopped")
    stage.get_by_text("Stopped. 0 of 2 engines had finished.").wait_for()
    gate.set()
    page.locator("#compare:enabled").wait_for(state="attached")
    press("Space")
    wait_for_states(page, "done", "done")
    check_fits(page, 2)
    assert list_axe_faults(page) == []

    press("r")
    stage.get_by_text("Replay", exact=True).wait_for()
    check_fits(page, 2)
    press("PageDown")
    stage.locator(".told", has_text="ord error rate").wait_for()
    assert stage.get_by_text("Replay", exact=True).is_hidden()
    check_fits(page, 3)
    press("ArrowRight")
    stage.locator(".stacks li", has_text="Encoder").nth(1).wait_for()
    assert "one run" in stage.locator(".stacks + .aside").inner_text()
    check_fits(page, 4)
    press("ArrowLeft")
    press("PageDown")
    press("PageDown")
    stage.locator(".faults .tile").nth(3).wait_for()
    press("ArrowDown")
    stage.get_by_text("This fault sits in the first convolution.").wait_for()
    check_fits(page, 5)
    press("Space")
    stage.get_by_text("It first shows at conv1").wait_for()
    stage.locator(".pair", has_text="slow code").wait_for()
    check_fits(page, 5)
    assert list_axe_faults(page) == []


def test_settings_open_over_the_stage(fake_page: FakePage, open_page: Open) -> None:
    page = open_stage(fake_page, open_page)
    asked: list[Route] = []
    # At the start: what a page asks while Chromium begins to hold requests may pass unseen.
    page.route("**/queue/join**", lambda route: asked.append(route))
    page.keyboard.press("s")
    for control in ("#model input", "#engines", "#repeats"):
        page.locator(control).first.wait_for()
    check_fits(page, 1)
    page.get_by_role("checkbox", name="MAX hybrid").focus()
    page.keyboard.press("Space")
    page.keyboard.press("Escape")
    page.locator("#engines").wait_for(state="hidden")
    page.locator("#stage .asked:has-text('CPU'):not(:has-text('MAX'))").wait_for()
    page.locator("#stage footer button", has_text="settings").click()
    page.locator("#engines").wait_for()
    page.keyboard.press("s")
    page.keyboard.press("Space")
    page.locator("#stage .racer").first.wait_for()
    assert page.locator("#stage .racer .name").all_inner_texts() == ["CPU"], "those that will run"
    wait_until(page, lambda: asked, "the page's request")  # the racers are there before it
    asked[0].continue_()
    wait_for_states(page, "done")


def test_the_microphone_is_a_tile(fake_page: FakePage, open_page: Open) -> None:
    page = open_stage(fake_page, open_page)
    page.context.grant_permissions(["microphone"])
    page.locator("#stage .tile", has_text="Microphone").click()
    page.locator("#stage footer", has_text="record").wait_for()
    page.keyboard.press("Space")
    page.locator("#stage .tile", has_text="Recording 1 s").wait_for()
    page.keyboard.press("Space")
    page.locator("#stage .tile", has_text="Your recording").wait_for()
    page.keyboard.press("Space")
    wait_for_states(page, "done", "done")


def test_a_replay_takes_as_long_as_the_race(fake_page: FakePage, open_page: Open) -> None:
    gate = Event()
    fake_page.use(cpu=fakes.FakeEngine(last_word=gate), max_hybrid=fakes.fake_max(last_word=gate))
    page = open_stage(fake_page, open_page)
    page.keyboard.press("Space")
    page.locator("#stage .words", has_text="The compiler").nth(1).wait_for()
    page.wait_for_timeout(1500)
    gate.set()
    wait_for_states(page, "done", "done")
    page.locator("#stage .words", has_text="chip").nth(1).wait_for()
    words = "[...document.querySelectorAll('#stage .words')].map(e => e.textContent).join()"
    whole = page.evaluate(words)
    page.evaluate(
        f"""() => {{
          window.seen = [];
          new MutationObserver(() => seen.push([performance.now(), {words}.length])).observe(
            document.querySelector("#stage .racers"), {{subtree: true, childList: true}});
        }}"""
    )
    page.keyboard.press("r")
    page.wait_for_function("seen.length && seen.at(-1)[0] - seen[0][0] > 1500", timeout=10_000)
    assert page.evaluate("seen")[0][1] < len(whole)
    page.wait_for_function(f"whole => {words} === whole", arg=whole)
    replayed = page.locator("#stage h1").get_by_text("Replay", exact=True)
    replayed.wait_for()
    page.reload()
    page.locator("#stage .tile").first.wait_for()
    wait_for_states(page, "done", "done")
    page.keyboard.press("PageDown")
    page.locator("#stage footer", has_text="replay").wait_for()
    page.keyboard.press("r")
    page.wait_for_function(f"whole => {words} !== whole", arg=whole)
    replayed.wait_for()
    page.wait_for_function(f"whole => {words} === whole", arg=whole)


def test_the_ordinary_page_has_no_stage(fake_page: FakePage, open_page: Open) -> None:
    page = open_page(fake_page.url)
    page.locator("body").press("Space")
    page.wait_for_timeout(300)
    wait_for_states(page, "idle", "idle")
    assert not page.locator("#stage").count()
