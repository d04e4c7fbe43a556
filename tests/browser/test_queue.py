"""Several visitors at once: each sees the own place, while it changes, and none another's."""

from __future__ import annotations

from collections.abc import Callable
from threading import Event
from typing import TYPE_CHECKING

import pytest

from demo.limits import Limits
from demo.runs import PastRuns
from tests import fakes

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.browser

Serve = Callable[..., str]
Open = Callable[..., "Page"]

HEIGHTS = "['#summary', '#lanes'].map(s => document.querySelector(s).getBoundingClientRect().top)"


def held(gate: Event) -> dict[str, fakes.FakeEngine]:
    """Engines that wait for the gate before their last words."""
    return {
        "cpu": fakes.FakeEngine(last_word=gate),
        "max_hybrid": fakes.FakeEngine("max_hybrid", "MAX hybrid", last_word=gate),
    }


def wait_for_end(page: Page) -> None:
    """Wait until both lanes are done."""
    page.wait_for_function("document.querySelectorAll('.lane--done').length === 2")


def test_a_place_in_the_queue_moves_up_while_one_waits(serve_fakes: Serve, open_page: Open) -> None:
    gate = Event()
    url = serve_fakes(**held(gate))
    first, second, third = open_page(url), open_page(url), open_page(url)
    first.click("#compare")
    first.locator(".lane--decoding").first.wait_for()
    second.click("#compare")
    second.get_by_text("Waiting: 1 run is ahead of yours.").wait_for()
    third.locator("#audio .waveform-container").wait_for()
    before = third.evaluate(HEIGHTS)
    third.click("#compare")
    third.get_by_text("Waiting: 2 runs are ahead of yours.").wait_for()
    assert third.evaluate(HEIGHTS) == before
    second.click("#stop")
    second.get_by_text("Stopped before its turn came").wait_for()
    second.locator("#compare:enabled").wait_for()
    third.get_by_text("Waiting: 1 run is ahead of yours.").wait_for()
    assert third.evaluate(HEIGHTS) == before
    gate.set()
    wait_for_end(first)
    wait_for_end(third)


def test_an_expected_wait_is_told_where_past_runs_tell_it(
    serve_fakes: Serve, open_page: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Event()
    url = serve_fakes(**held(gate))
    first, second = open_page(url), open_page(url)
    first.click("#compare")
    first.locator(".lane--decoding").first.wait_for()
    second.locator("#audio .waveform-container").wait_for()
    before = second.evaluate(HEIGHTS)
    second.click("#compare")
    second.get_by_text("Waiting: 1 run is ahead of yours.").wait_for()
    assert not second.inner_text("#summary .note")
    monkeypatch.setattr(PastRuns, "expect", lambda self, sort: 600.0)
    second.get_by_text("Your turn comes in about 10 minutes, going by past runs.").wait_for()
    assert second.evaluate(HEIGHTS) == before
    # A run that takes longer than expected: nothing is known any more, and so nothing is said.
    monkeypatch.setattr(PastRuns, "expect", lambda self, sort: 0.0)
    second.wait_for_function("!document.querySelector('#summary .note').textContent")
    gate.set()
    wait_for_end(first)
    wait_for_end(second)


def test_a_visitor_who_leaves_the_queue_frees_the_place(
    serve_fakes: Serve, open_page: Open
) -> None:
    gate = Event()
    url = serve_fakes(**held(gate))
    first, second, third = open_page(url), open_page(url), open_page(url)
    first.click("#compare")
    first.locator(".lane--decoding").first.wait_for()
    second.click("#compare")
    second.get_by_text("Waiting: 1 run is ahead of yours.").wait_for()
    third.click("#compare")
    third.get_by_text("Waiting: 2 runs are ahead of yours.").wait_for()
    second.close()
    third.get_by_text("Waiting: 1 run is ahead of yours.").wait_for()
    first.close()
    gate.set()
    wait_for_end(third)


def test_a_full_queue_is_a_sentence_and_the_page_goes_on(
    serve_fakes: Serve, open_page: Open
) -> None:
    gate = Event()
    url = serve_fakes(limits=Limits(waiting=1), **held(gate))
    pages = [open_page(url) for _ in range(3)]
    pages[0].click("#compare")
    pages[0].locator(".lane--decoding").first.wait_for()
    pages[1].click("#compare")
    pages[1].get_by_text("Waiting: 1 run is ahead of yours.").wait_for()
    pages[2].click("#compare")
    pages[2].get_by_text("The queue is full, 1 waiting: try again in").wait_for()
    pages[2].locator("#compare:enabled").wait_for()
    gate.set()
    wait_for_end(pages[0])
    wait_for_end(pages[1])
    pages[2].click("#compare")
    wait_for_end(pages[2])
