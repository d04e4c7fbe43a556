"""The page driven in headless Chromium over fake engines."""

from __future__ import annotations

from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING

import pytest

from tests import fakes
from tests.browser.driving import (
    Open,
    Serve,
    compare_bad_file,
    fake_max,
    tab_to,
    wait_for_states,
)

if TYPE_CHECKING:
    from playwright.sync_api import Route

pytestmark = pytest.mark.browser


def test_one_click_gives_both_transcripts(serve_fakes: Serve, open_page: Open) -> None:
    page = open_page(serve_fakes(cpu=fakes.FakeEngine(), max_hybrid=fake_max()))
    page.click("#compare")
    wait_for_states(page, "done", "done")
    for lane in page.locator(".lane .transcript").all():
        words = lane.locator(".segment > span").all_inner_texts()
        assert " ".join(words) == fakes.WORDS
    assert "every lane wrote the same 11 words." in page.inner_text("#summary")
    assert "Word error rate 9.1%" in page.inner_text("#lanes")
    assert "to the letter" in page.inner_text("#scores")
    page.locator("#timeline i").first.wait_for()
    assert "no CUDA device was found" in page.inner_text("#lanes")
    page.locator("#timings .boxes i").first.wait_for()
    page.locator("#features img").nth(2).wait_for()


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


def test_stop_leaves_every_lane_clean_and_waits_for_no_engine(
    serve_fakes: Serve, open_page: Open
) -> None:
    """`tests/test_stop.py` holds what the real engines' processes spend after it."""
    gate = Event()
    page = open_page(serve_fakes(cpu=fakes.FakeEngine(last_word=gate), max_hybrid=fake_max(gate)))
    page.click("#compare")
    page.locator(".lane--compiling").wait_for()
    page.click("#stop")
    wait_for_states(page, "stopped", "stopped")
    page.locator("#compare:enabled").wait_for()
    assert page.locator("#stop").is_disabled()
    assert "Stopped." in page.inner_text("#summary")
    assert not gate.is_set(), "what the lanes were at goes on"
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
    compare_bad_file(page, bad)
    assert "notes.mp3 holds no audio that can be read." in page.inner_text("#summary")
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
    second.get_by_text("Waiting: 1 run is ahead of yours.").wait_for()
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


def test_a_reload_loses_nothing_that_was_finished(serve_fakes: Serve, open_page: Open) -> None:
    url = serve_fakes(cpu=fakes.FakeEngine(), max_hybrid=fake_max())
    page = open_page(url)
    page.get_by_label("Talk, 2:41").check()
    page.locator("#repeats").get_by_label("3").check()
    page.click("#compare")
    wait_for_states(page, "done", "done")
    page.locator("#features img").nth(2).wait_for()
    sentence = page.inner_text("#summary")
    page.reload()
    wait_for_states(page, "done", "done")
    page.locator("#features img").nth(2).wait_for()
    assert page.inner_text("#summary") == sentence
    assert page.get_by_label("Talk, 2:41").is_checked()
    assert page.locator("#repeats").get_by_label("3").is_checked()
    other = open_page(url)
    wait_for_states(other, "idle", "idle")


def test_a_reload_in_the_middle_keeps_the_finished_lane(
    serve_fakes: Serve, open_page: Open
) -> None:
    gate = Event()
    page = open_page(
        serve_fakes(cpu=fakes.FakeEngine(), max_hybrid=fake_max(last_word=gate)),
    )
    page.click("#compare")
    wait_for_states(page, "done", "decoding")
    page.reload()
    wait_for_states(page, "done", "stopped")
    assert "Stopped. 1 of 2 lanes had finished." in page.inner_text("#summary")
    assert "were not kept, because the page was reloaded" in page.inner_text("#features")
    assert "No window was encoded" not in page.inner_text("#features")
    gate.set()
    page.locator("#compare:enabled").wait_for()
    page.click("#compare")
    wait_for_states(page, "done", "done")


def test_repeats_are_counted_and_summed_up(serve_fakes: Serve, open_page: Open) -> None:
    gate = Event()
    page = open_page(serve_fakes(cpu=fakes.FakeEngine(last_word=gate), max_hybrid=fake_max()))
    page.get_by_label("One at a time, fair").check()
    page.locator("#repeats").get_by_label("3").check()
    page.click("#compare")
    page.get_by_text("Run 1 of 3: decoding").first.wait_for()
    gate.set()
    wait_for_states(page, "done", "done")
    assert page.get_by_text("Median of 3 runs").count() == 2
    assert "medians of 3 runs each" in page.inner_text("#summary")
    assert "Speed-up" in page.inner_text("#lanes")


def test_the_keyboard_is_enough(serve_fakes: Serve, open_page: Open) -> None:
    page = open_page(serve_fakes(cpu=fakes.FakeEngine(), max_hybrid=fake_max()))
    page.locator("#audio .play-pause-button").wait_for()
    tab_to(page, "#compare")
    page.keyboard.press("Enter")
    wait_for_states(page, "done", "done")
    page.locator("#compare:enabled").wait_for()
    tab_to(page, ".segment .from")
    page.keyboard.press("Enter")
    page.wait_for_function("document.querySelectorAll('.lane .now').length === 2")
    tab_to(page, ".windows summary")
    page.keyboard.press("Enter")
    page.locator(".windows table").wait_for()


def test_the_microphone_s_sound_is_compared(serve_fakes: Serve, open_page: Open) -> None:
    page = open_page(serve_fakes(cpu=fakes.FakeEngine(), max_hybrid=fake_max()))
    page.context.grant_permissions(["microphone"])
    arrivals: list[Route] = []
    page.route("**/upload", lambda route: arrivals.append(route))  # held until Compare was pressed
    page.get_by_label("Your own").check()
    page.locator("#audio").get_by_label("Record audio").click()
    page.locator("#audio .record-button").click()
    page.locator("#audio .stop-button").wait_for()
    page.wait_for_timeout(1000)
    with page.expect_request("**/upload"):
        page.locator("#audio .stop-button").click()
    page.locator("#audio .play-pause-button").wait_for()
    page.click("#compare")
    page.wait_for_timeout(500)
    arrivals[0].continue_()
    wait_for_states(page, "done", "done")
    assert page.get_by_label("Your own").is_checked()
