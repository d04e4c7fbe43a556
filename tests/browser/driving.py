"""What drives the page in the browser tests: fakes behind it, and waiting for what it shows."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING

import pytest

from tests import fakes

if TYPE_CHECKING:
    from playwright.sync_api import Page

Serve = Callable[..., str]
Open = Callable[..., "Page"]


def fake_max(compiled: Event | None = None, last_word: Event | None = None) -> fakes.FakeEngine:
    return fakes.FakeEngine(
        "max_hybrid", "MAX hybrid", compiled=compiled, last_word=last_word, noise=1e-6
    )


def wait_for_states(page: Page, *states: str) -> None:
    """Wait until the lanes stand as given, in order."""
    page.wait_for_function(
        "wanted => JSON.stringify([...document.querySelectorAll('.lane')]"
        ".map(lane => lane.dataset.state)) === JSON.stringify(wanted)",
        arg=list(states),
    )


def finish_lab(page: Page, name: str) -> None:
    """Press a button of the laboratory, `look` or `fault`, and wait for its result."""
    page.click(f"#{name}")
    page.locator(f"#{'layers' if name == 'look' else 'finding'} .chooser").first.wait_for(
        state="attached"
    )
    page.locator(f"#{name}:enabled").wait_for()


def compare_bad_file(page: Page, path: Path) -> None:
    """Upload a file that is no audio, press Compare, and wait for the sentence about it."""
    page.get_by_label("Your own").check()
    page.set_input_files("#audio input[type=file]", path)
    page.locator("#audio audio, #audio .waveform-container, #audio canvas").first.wait_for(
        state="attached"
    )
    page.click("#compare")
    page.locator("#summary .alert").wait_for()
    page.locator("#compare:enabled").wait_for()


def tab_to(page: Page, selector: str) -> None:
    """Press Tab until the focus is on such an element, and can be seen to be there."""
    for _ in range(100):
        page.keyboard.press("Tab")
        if page.evaluate("s => document.activeElement.matches(s)", selector):
            style = "getComputedStyle(document.activeElement).outlineStyle"
            assert page.evaluate(style) != "none"
            return
    pytest.fail(f"Tab never reached {selector}")


def wait_until_still(page: Page, places: str) -> None:
    """Wait until the page has settled: half a second without anything at another place."""
    last, since = None, time.monotonic()
    while time.monotonic() - since < 0.5:
        now = page.evaluate(places)
        if now != last:
            last, since = now, time.monotonic()
        page.wait_for_timeout(50)
