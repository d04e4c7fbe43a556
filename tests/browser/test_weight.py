"""What a comparison sends to the page."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from tests import fakes
from tests.browser.driving import (
    Open,
    Serve,
    fake_max,
    wait_for_states,
)

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.browser


def test_a_long_comparison_weighs_less_than_a_megabyte(serve_fakes: Serve, open_page: Open) -> None:
    """Twice the words of the talk, said slowly, and features of the size of a real encoder's."""
    words = " ".join([fakes.WORDS] * 72)
    shape = (1500, 384)
    page = open_page(
        serve_fakes(
            cpu=fakes.FakeEngine(words=words, pace=0.02, shape=shape),
            max_hybrid=fakes.FakeEngine(
                "max_hybrid", "MAX hybrid", words=words, pace=0.03, shape=shape, noise=1e-4
            ),
        )
    )
    page.locator("#audio .play-pause-button").wait_for()
    received = count_received(page)
    page.click("#compare")
    wait_for_states(page, "done", "done")
    page.locator("#features img").nth(2).wait_for()
    page.locator("#compare:enabled").wait_for()
    page.wait_for_timeout(500)
    assert 100_000 < sum(received.values()) < 1_000_000, received


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


def test_the_count_of_bytes_is_of_all_but_clip_and_code(
    serve_fakes: Serve, open_page: Open
) -> None:
    page = open_page(serve_fakes(cpu=fakes.FakeEngine(), max_hybrid=fake_max()))
    page.locator("#audio .play-pause-button").wait_for()
    received = count_received(page)
    read = "url => fetch(url, {cache: 'reload'}).then(a => a.arrayBuffer()).then(b => b.byteLength)"
    clip = page.evaluate(
        "performance.getEntriesByType('resource').map(e => e.name).find(n => n.endsWith('.flac'))"
    )
    assert page.evaluate(read, clip) > 0
    length = page.evaluate(read, page.url)
    for _ in range(400):
        if received[page.url] == length:
            break
        page.wait_for_timeout(50)
    assert received == {page.url: length}
