"""What drives the page in the browser tests: waiting for what it shows, and measuring it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Page

Open = Callable[..., "Page"]

AXE = Path(__file__).parent / "vendor" / "axe.min.js"


def wait_for_states(page: Page, *states: str) -> None:
    """Wait until the lanes stand as given, in order."""
    page.wait_for_function(
        "wanted => JSON.stringify([...document.querySelectorAll('.lane')]"
        ".map(lane => lane.dataset.state)) === JSON.stringify(wanted)",
        arg=list(states),
    )


def press(page: Page) -> None:
    """Press Compare, or after a run “Run again”."""
    page.locator("#compare:enabled").wait_for(state="attached")
    page.locator("#compare:visible, #again:visible").first.click()


def edit(page: Page) -> None:
    """Show the settings, the advanced ones included."""
    if page.locator("#edit").is_visible():
        page.click("#edit")
    if not page.locator("#schedule").is_visible():
        page.get_by_role("button", name="Advanced").click()


def open_tab(page: Page, name: str) -> None:
    """Choose a tab, which can be done before anything ran."""
    page.locator("#show-tabs:visible, #tabs:visible").first.wait_for()
    if page.locator("#show-tabs").is_visible():
        page.click("#show-tabs")
    page.get_by_role("tab", name=name).click()


def compare(page: Page) -> None:
    """Press Compare and wait until both lanes are done and drawn."""
    old = "document.querySelectorAll('.lane--done').forEach(e => e.classList.remove('lane--done'))"
    page.evaluate(old)
    press(page)
    page.locator(".lane--done").nth(1).wait_for()
    page.locator("#compare:enabled").wait_for(state="attached")


def show_features(page: Page) -> None:
    """Choose the tab of the encoders' output and wait for its charts."""
    open_tab(page, "Encoder")
    page.locator("#features .plot").nth(1).wait_for(state="attached")


def press_compare(page: Page, sentence: str) -> None:
    """Press Compare and wait for what it says."""
    press(page)
    page.locator("#summary").get_by_text(sentence).wait_for()


def analyse(page: Page, name: str) -> None:
    """Press `inspect` or `fault` in its tab and wait for the result."""
    open_tab(page, "Inspect layers" if name == "inspect" else "Faults")
    page.locator(f"#{name}:enabled").click()
    page.locator(f"#{'layers' if name == 'inspect' else 'finding'} .plot").first.wait_for(
        state="attached"
    )
    page.locator(f"#{name}:enabled").wait_for()


def choose_own(page: Page, path: Path) -> None:
    """Bring a clip of one's own."""
    page.get_by_label("Your own").check()
    page.set_input_files("#audio input[type=file]", path)
    page.locator("#audio audio, #audio .waveform-container, #audio canvas").first.wait_for(
        state="attached"
    )


def tab_to(page: Page, selector: str) -> None:
    """Press Tab until the focus is on such an element, and can be seen to be there."""
    for _ in range(100):
        page.keyboard.press("Tab")
        if page.evaluate("s => document.activeElement.matches(s)", selector):
            style = "getComputedStyle(document.activeElement).outlineStyle"
            assert page.evaluate(style) != "none"
            return
    pytest.fail(f"Tab never reached {selector}")


def wait_until(page: Page, true: Callable[[], object], what: str, seconds: float = 60) -> None:
    """Wait for what the page's events bring about; fails the test when it doesn't come true."""
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until, f"{what} did not happen in {seconds:g} s"
        page.wait_for_timeout(20)


def wait_until_still(page: Page, places: str) -> None:
    """Wait until the page has settled: half a second without anything at another place."""
    last, since = None, time.monotonic()

    def is_still() -> bool:
        nonlocal last, since
        now = page.evaluate(places)
        if now != last:
            last, since = now, time.monotonic()
        return time.monotonic() - since >= 0.5

    wait_until(page, is_still, "rest")


FRAMES_AT_REST = 10
"""Fewer callbacks of animation frames than this in a second are rest; an animation has 60."""


def count_frames(page: Page) -> int:
    """Callbacks of animation frames in a second; a page at rest asks for none."""
    session, events = page.context.new_cdp_session(page), list[dict[str, Any]]()
    ended: list[object] = []
    session.on("Tracing.dataCollected", lambda part: events.extend(part["value"]))
    session.on("Tracing.tracingComplete", lambda part: ended.append(part))
    categories = {"includedCategories": ["devtools.timeline"]}
    session.send("Tracing.start", {"transferMode": "ReportEvents", "traceConfig": categories})
    page.wait_for_timeout(1000)
    session.send("Tracing.end")
    wait_until(page, lambda: ended, "the end of tracing")
    session.detach()
    assert events, "nothing was traced"
    return sum(event["name"] == "FireAnimationFrame" for event in events)


def wait_until_at_rest(page: Page) -> None:
    """Wait for a second in which next to no frames are asked for, and fail if none of ten is it.

    A chart that was opened last may still be drawing; what asks for frames for ever never rests.
    """
    counts = list[int]()
    while not counts or counts[-1] >= FRAMES_AT_REST:
        assert len(counts) < 10, f"it does not rest: {counts} frames in each second"
        counts.append(count_frames(page))


def list_axe_faults(page: Page, both: bool = True) -> list[str]:
    """What axe-core finds serious or critical in light, and of contrast in dark: the rule, and the
    first elements that break it. `both`: else as it is, for what has no switch."""
    page.add_style_tag(content="* { transition: none !important; animation: none !important; }")
    page.wait_for_function("document.getAnimations().every(a => a.playState !== 'running')")
    page.add_script_tag(path=AXE)
    found = []
    themes = ("false", ""), ("true", ", runOnly: ['color-contrast']")
    for dark, rules in themes if both else themes[:1]:
        page.evaluate(f"document.body.classList.toggle('dark', {dark})")
        found += page.evaluate(f"axe.run(document, {{resultTypes: ['violations']{rules}}})")[
            "violations"
        ]
    page.evaluate("document.body.classList.remove('dark')")
    return [
        f"{fault['id']}: {[node['html'][:200] for node in fault['nodes'][:4]]}"
        for fault in found
        if fault["impact"] in ("serious", "critical")
    ]


def count_received(page: Page) -> Counter[str]:
    """Bytes that arrive from now on, by address, while the page lives.

    What the page asked for before is none of a comparison's: on a slow machine its scripts may
    still be under way, and so may the clip. Neither counts when it is asked for later.
    """
    received: Counter[str] = Counter()
    asked: dict[str, str] = {}
    session = page.context.new_cdp_session(page)

    def note(event: dict[str, Any]) -> None:
        url = event["request"]["url"]
        travels = url.startswith("http") and not url.endswith((".flac", ".wav"))
        if travels and event.get("type") not in ("Media", "Script", "Stylesheet", "Font"):
            asked[event["requestId"]] = url

    def add(event: dict[str, Any]) -> None:
        if event["requestId"] in asked:
            received[asked[event["requestId"]]] += event["dataLength"]

    session.on("Network.requestWillBeSent", note)
    session.on("Network.dataReceived", add)
    session.send("Network.enable")
    return received
