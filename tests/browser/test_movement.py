"""The page stands still while it fills, and fits the screen."""

from __future__ import annotations

from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING

import pytest

from tests import fakes
from tests.browser.driving import (
    Open,
    Serve,
    fake_max,
    wait_for_states,
    wait_until_still,
)

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.browser


@pytest.mark.parametrize("width", [1400, 390])
def test_nothing_moves_while_the_page_fills(
    serve_fakes: Serve, open_page: Open, width: int
) -> None:
    gate = Event()
    url = serve_fakes(cpu=fakes.FakeEngine(last_word=gate), max_hybrid=fake_max())
    page = open_page(url, width=width)
    page.locator("#audio .waveform-container").wait_for()
    places = (
        "[...document.querySelectorAll('.lane, .lane > *, .sheet, .sheet h2, .sheet h3, .timeline, "
        ".charts, .scroll:not(details *), .windows')]"
        ".map(e => e.getBoundingClientRect().top + scrollY)"
    )
    wait_until_still(page, places)
    watch_shifts(page)
    before = page.evaluate(places)
    page.click("#compare")
    page.locator(".lane--decoding .segment").first.wait_for()
    during = page.evaluate(places)
    gate.set()
    wait_for_states(page, "done", "done")
    page.locator("#timings .boxes i").first.wait_for()
    page.locator("#features img").nth(2).wait_for()
    assert page.evaluate(places) == during == before
    page.locator("#compare:enabled").wait_for()
    assert list_shifts(page) == []


def watch_shifts(page: Page) -> None:
    """Note what the browser calls a layout shift from now on, but for text in a scrolling box.

    It also calls it one when text grows where it stands, a dash into a number: nothing moves then.
    """
    page.evaluate(
        """() => {
          window.shifts = [];
          const scrolls = ".transcript, .changes, .said";
          const note = (entry) => {
            for (const {node, previousRect: before, currentRect: after} of entry.sources) {
              if (before.x === after.x && before.y === after.y) continue;
              const element = node?.nodeType === 1 ? node : node?.parentElement;
              if (element && !element.closest(scrolls)) {
                shifts.push(`${entry.value.toFixed(4)} ${element.outerHTML.slice(0, 120)}`);
              }
            }
          };
          new PerformanceObserver((list) => list.getEntries().forEach(note))
            .observe({type: "layout-shift"});
        }"""
    )


def list_shifts(page: Page) -> list[str]:
    """The shifts so far, each with an element that moved."""
    page.evaluate("new Promise((done) => requestAnimationFrame(() => setTimeout(done, 100)))")
    return list(page.evaluate("window.shifts"))


def test_a_shift_would_be_seen(serve_fakes: Serve, open_page: Open) -> None:
    page = open_page(serve_fakes(cpu=fakes.FakeEngine(), max_hybrid=fake_max()))
    wait_until_still(page, "document.body.scrollHeight")
    watch_shifts(page)
    page.evaluate("document.querySelector('.masthead').style.marginTop = '200px'")
    assert list_shifts(page)


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1400, 390])
def test_it_fits_the_screen(
    serve_fakes: Serve, open_page: Open, tmp_path: Path, theme: str, width: int
) -> None:
    page = open_page(
        serve_fakes(cpu=fakes.FakeEngine(), max_hybrid=fake_max()), theme=theme, width=width
    )
    page.click("#compare")
    wait_for_states(page, "done", "done")
    page.locator("#features img").nth(2).wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.screenshot(path=tmp_path / f"{theme}-{width}.png", full_page=True)
