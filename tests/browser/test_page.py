"""The page driven in headless Chromium over fake engines."""

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

pytestmark = pytest.mark.browser

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


def test_one_click_gives_both_transcripts(serve_fakes: Serve, open_page: Open) -> None:
    page = open_page(serve_fakes(cpu=fakes.FakeEngine(), max_hybrid=fake_max()))
    page.click("#compare")
    wait_for_states(page, "done", "done")
    for lane in page.locator(".lane .transcript").all():
        words = lane.locator(".segment span").all_inner_texts()
        assert " ".join(words) == fakes.WORDS
    assert "Every lane wrote the same 11 words." in page.inner_text("#summary")
    assert "Word error rate 9.1%" in page.inner_text("#lanes")
    assert "no CUDA device was found" in page.inner_text("#lanes")
    page.locator("#timings .bars path").first.wait_for()
    page.locator("#features figure").nth(2).wait_for()


def test_words_appear_while_the_lane_still_runs(serve_fakes: Serve, open_page: Open) -> None:
    gate = Event()
    page = open_page(serve_fakes(cpu=fakes.FakeEngine(last_word=gate), max_hybrid=fake_max(gate)))
    page.click("#compare")
    page.locator(".lane--decoding .segment").first.wait_for()
    page.locator(".lane--compiling").wait_for()
    assert page.locator("#stop").is_enabled()
    assert page.locator("#compare").is_disabled()
    gate.set()
    wait_for_states(page, "done", "done")


def test_nothing_moves_while_the_page_fills(serve_fakes: Serve, open_page: Open) -> None:
    gate = Event()
    page = open_page(serve_fakes(cpu=fakes.FakeEngine(last_word=gate), max_hybrid=fake_max()))
    page.locator("#audio .waveform-container").wait_for()
    places = "[...document.querySelectorAll('.lane, .lane > *, .sheet')].map(e => e.offsetTop)"
    before = page.evaluate(places)
    page.click("#compare")
    page.locator(".lane--decoding .segment").first.wait_for()
    during = page.evaluate(places)
    gate.set()
    wait_for_states(page, "done", "done")
    page.locator("#timings .bars path").first.wait_for()
    assert page.evaluate(places) == during == before


def test_stop_leaves_every_lane_clean_within_a_second(serve_fakes: Serve, open_page: Open) -> None:
    gate = Event()
    page = open_page(serve_fakes(cpu=fakes.FakeEngine(last_word=gate), max_hybrid=fake_max(gate)))
    page.click("#compare")
    page.locator(".lane--compiling").wait_for()
    start = time.perf_counter()
    page.click("#stop")
    wait_for_states(page, "stopped", "stopped")
    # One second of the page's own; a busy test machine and the browser's driver take the rest.
    assert time.perf_counter() - start < 2
    page.locator("#compare:enabled").wait_for()
    assert page.locator("#stop").is_disabled()
    assert "Stopped." in page.inner_text("#summary")
    gate.set()


def test_a_failed_lane_leaves_the_other_running(serve_fakes: Serve, open_page: Open) -> None:
    broken = fakes.FakeEngine("max_hybrid", error=ValueError("the graph broke"))
    page = open_page(serve_fakes(cpu=fakes.FakeEngine(), max_hybrid=broken))
    page.click("#compare")
    wait_for_states(page, "done", "failed")
    assert "the graph broke" in page.inner_text(".lane--failed")


def test_a_bad_file_gets_one_sentence_and_the_page_goes_on(
    serve_fakes: Serve, open_page: Open, tmp_path: Path
) -> None:
    bad = tmp_path / "notes.mp3"
    bad.write_text("these are no sounds")
    page = open_page(serve_fakes(cpu=fakes.FakeEngine(), max_hybrid=fake_max()))
    page.get_by_label("Your own").check()
    page.get_by_text("nano knows only synthetic speech").wait_for()
    page.set_input_files("#audio input[type=file]", bad)
    page.locator("#audio audio, #audio .waveform-container, #audio canvas").first.wait_for(
        state="attached"
    )
    page.click("#compare")
    page.locator("#summary .alert").wait_for()
    assert "notes.mp3 holds no audio that can be read." in page.inner_text("#summary")
    page.locator("#compare:enabled").wait_for()
    page.get_by_label("Short sentence").check()
    page.locator("#audio .waveform-container").first.wait_for(state="attached")
    page.click("#compare")
    wait_for_states(page, "done", "done")


def test_no_clip_and_no_engine_are_sentences(serve_fakes: Serve, open_page: Open) -> None:
    page = open_page(serve_fakes(cpu=fakes.FakeEngine(), max_hybrid=fake_max()))
    for engine in ("CPU", "MAX hybrid"):
        page.locator("#engines").get_by_label(engine, exact=True).uncheck()
    page.click("#compare")
    page.get_by_text("Choose at least one engine.").wait_for()
    page.locator("#compare:enabled").wait_for()
    page.locator("#engines").get_by_label("CPU", exact=True).check()
    page.get_by_label("Your own").check()
    page.click("#compare")
    page.get_by_text("There is no clip yet").wait_for()


def test_the_second_visitor_waits_for_the_first(serve_fakes: Serve, open_page: Open) -> None:
    gate = Event()
    url = serve_fakes(cpu=fakes.FakeEngine(last_word=gate), max_hybrid=fake_max(last_word=gate))
    first, second = open_page(url), open_page(url)
    first.click("#compare")
    first.locator(".lane--decoding").first.wait_for()
    second.click("#compare")
    second.get_by_text("Waiting: 1 comparison is ahead of yours.").wait_for()
    gate.set()
    wait_for_states(first, "done", "done")
    wait_for_states(second, "done", "done")


def test_a_visitor_may_stop_while_waiting(serve_fakes: Serve, open_page: Open) -> None:
    gate = Event()
    url = serve_fakes(cpu=fakes.FakeEngine(last_word=gate), max_hybrid=fake_max(last_word=gate))
    first, second = open_page(url), open_page(url)
    first.click("#compare")
    first.locator(".lane--decoding").first.wait_for()
    second.click("#compare")
    second.locator("#stop:enabled").click()
    second.get_by_text("Stopped before its turn came").wait_for()
    gate.set()
    wait_for_states(first, "done", "done")
    second.locator("#compare:enabled").wait_for()
    assert second.locator(".lane--done").count() == 0


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
    page.locator("#features figure").nth(2).wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.screenshot(path=tmp_path / f"{theme}-{width}.png", full_page=True)
