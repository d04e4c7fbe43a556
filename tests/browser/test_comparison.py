"""A visitor compares, stops, waits, fails and reloads, in headless Chromium over fake engines."""

from __future__ import annotations

from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING

import pytest

from demo.jobs import PastJobs
from demo.limits import Limits
from tests import fakes
from tests.browser.driving import (
    Open,
    choose_own,
    compare,
    compare_bad_file,
    tab_to,
    wait_for_states,
)

if TYPE_CHECKING:
    from playwright.sync_api import Page, Route

    from tests.fake_page import FakePage

pytestmark = pytest.mark.browser

AHEAD = "Waiting: {} ahead of yours."
ONE_AHEAD, TWO_AHEAD = AHEAD.format("1 run is"), AHEAD.format("2 runs are")
PLACES = "['#summary', '#lanes'].map(s => document.querySelector(s).getBoundingClientRect().top)"


def hold(fake_page: FakePage) -> Event:
    """Make both engines wait for a gate before their last words."""
    gate = Event()
    fake_page.use(cpu=fakes.FakeEngine(last_word=gate), max_hybrid=fakes.fake_max(last_word=gate))
    return gate


def uncheck_engines(page: Page) -> None:
    for engine in ("CPU", "MAX hybrid"):
        page.locator("#engines").get_by_label(engine, exact=True).uncheck()


def test_one_click_gives_both_transcripts_and_every_panel(
    fake_page: FakePage, open_page: Open
) -> None:
    page = open_page(fake_page.url)
    compare(page)
    for lane in page.locator(".lane .transcript").all():
        words = lane.locator(".segment > span").all_inner_texts()
        assert " ".join(words) == fakes.WORDS
    assert "every engine wrote the same 11 words." in page.inner_text("#summary")
    assert "Word error rate 9.1%" in page.inner_text("#lanes")
    assert "no CUDA device was found" in page.inner_text("#lanes")
    page.locator("#timeline i").first.wait_for(state="attached")
    page.locator("#timings i").first.wait_for(state="attached")
    assert page.inner_text("#scores")


def test_words_appear_while_a_lane_runs_and_stop_waits_for_no_engine(
    fake_page: FakePage, open_page: Open
) -> None:
    gate = Event()
    fake_page.use(cpu=fakes.FakeEngine(last_word=gate), max_hybrid=fakes.fake_max(compiled=gate))
    page = open_page(fake_page.url)
    page.click("#compare")
    page.locator(".lane--decoding .segment").first.wait_for()
    page.locator(".lane--compiling").wait_for()
    assert page.locator("#compare").is_disabled()
    page.click("#stop")
    wait_for_states(page, "stopped", "stopped")
    page.locator("#compare:enabled").wait_for()
    assert page.locator("#stop").is_disabled()
    assert "Stopped." in page.inner_text("#summary")
    assert not gate.is_set(), "what the lanes were at goes on"
    gate.set()


def test_what_can_t_be_done_is_a_sentence_and_the_page_goes_on(
    fake_page: FakePage, open_page: Open, tmp_path: Path
) -> None:
    broken = fakes.FakeEngine("max_hybrid", error=ValueError("the graph broke"))
    fake_page.use(max_hybrid=broken)
    bad = tmp_path / "notes.mp3"
    bad.write_text("these are no sounds")
    page = open_page(fake_page.url)
    page.click("#compare")
    wait_for_states(page, "done", "failed")
    assert "the graph broke" in page.inner_text(".lane--failed")
    fake_page.reset()
    page.locator("#compare:enabled").wait_for()
    compare_bad_file(page, bad)
    assert "notes.mp3 holds no audio that can be read." in page.inner_text("#summary")
    uncheck_engines(page)
    page.click("#compare")
    page.get_by_text("Choose at least one engine.").wait_for()
    page.locator("#compare:enabled").wait_for()
    page.locator("#engines").get_by_label("CPU", exact=True).check()
    page.locator("#engines").get_by_label("MAX hybrid", exact=True).check()
    page.get_by_label("Clear").click()
    page.click("#compare")
    page.get_by_text("There is no clip yet").wait_for()
    page.locator("#compare:enabled").wait_for()
    page.get_by_label("Kennedy, 11 s").check()
    page.locator("#audio .waveform-container").first.wait_for(state="attached")
    compare(page)


def test_an_english_only_model_says_so_and_refuses_other_languages(
    fake_page: FakePage, open_page: Open
) -> None:
    page = open_page(fake_page.url)
    assert page.locator("#language input").input_value() == "Detect automatically"
    page.locator("#model input").click()
    page.get_by_role("option", name="tiny.en (English only)").click()
    page.locator("#language input").click()
    page.get_by_role("option", name="Cantonese").wait_for(state="attached")
    page.get_by_role("option", name="Welsh").click()
    page.click("#compare")
    page.get_by_text("tiny.en knows only English, not Welsh").wait_for()


def test_repeats_are_counted_and_summed_up(fake_page: FakePage, open_page: Open) -> None:
    gate = Event()
    fake_page.use(cpu=fakes.FakeEngine(last_word=gate))
    page = open_page(fake_page.url)
    page.get_by_label("One at a time, fair").check()
    page.locator("#repeats").get_by_label("3").check()
    page.click("#compare")
    page.get_by_text("Run 1 of 3: decoding").first.wait_for()
    gate.set()
    wait_for_states(page, "done", "done")
    assert page.get_by_text("Median of 3 runs").count() == 2
    assert "medians of 3 runs each" in page.inner_text("#summary")
    assert "Speed-up" in page.inner_text("#lanes")


def test_the_keyboard_is_enough(fake_page: FakePage, open_page: Open) -> None:
    page = open_page(fake_page.url)
    page.locator("#audio .play-pause-button").wait_for()
    tab_to(page, "#compare")
    page.keyboard.press("Enter")
    wait_for_states(page, "done", "done")
    page.locator("#compare:enabled").wait_for()
    tab_to(page, ".segment .from")
    page.keyboard.press("Enter")
    page.wait_for_function("document.querySelectorAll('.lane .now').length === 2")


def test_the_microphone_s_sound_is_compared(fake_page: FakePage, open_page: Open) -> None:
    page = open_page(fake_page.url)
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


# Several visitors.


def test_places_in_the_queue_move_while_visitors_wait_stop_and_leave(
    fake_page: FakePage, open_page: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = hold(fake_page)
    first, second, third = (open_page(fake_page.url) for _ in range(3))
    first.click("#compare")
    first.locator(".lane--decoding").first.wait_for()
    second.click("#compare")
    second.get_by_text(ONE_AHEAD).wait_for()
    assert not second.inner_text("#summary .note")
    third.locator("#audio .waveform-container").wait_for()
    before = third.evaluate(PLACES)
    third.click("#compare")
    third.get_by_text(TWO_AHEAD).wait_for()
    monkeypatch.setattr(PastJobs, "expect", lambda self, kind: 600.0)
    third.get_by_text("Your turn comes in about 20 minutes, going by past runs.").wait_for()
    # A job that takes longer than expected: nothing is known any more, and so nothing is said.
    monkeypatch.setattr(PastJobs, "expect", lambda self, kind: 0.0)
    third.wait_for_function("!document.querySelector('#summary .note').textContent")
    assert third.evaluate(PLACES) == before
    second.locator("#stop:enabled").click()
    second.get_by_text("Stopped before its turn came").wait_for()
    second.locator("#compare:enabled").wait_for()
    assert second.locator(".lane--done").count() == 0
    third.get_by_text(ONE_AHEAD).wait_for()
    second.click("#compare")
    second.get_by_text(TWO_AHEAD).wait_for()
    third.close()
    second.get_by_text(ONE_AHEAD).wait_for()
    first.close()
    gate.set()
    wait_for_states(second, "done", "done")


def test_a_full_queue_is_a_sentence_and_the_page_goes_on(
    fake_page: FakePage, open_page: Open
) -> None:
    fake_page.reset(Limits(waiting=1))
    gate = hold(fake_page)
    pages = [open_page(fake_page.url) for _ in range(3)]
    pages[0].click("#compare")
    pages[0].locator(".lane--decoding").first.wait_for()
    pages[1].click("#compare")
    pages[1].get_by_text(ONE_AHEAD).wait_for()
    pages[2].click("#compare")
    pages[2].get_by_text("The queue is full, 1 waiting: try again in").wait_for()
    pages[2].locator("#compare:enabled").wait_for()
    gate.set()
    wait_for_states(pages[0], "done", "done")
    wait_for_states(pages[1], "done", "done")
    compare(pages[2])


# A reload.


def test_a_reload_loses_nothing_that_was_finished(fake_page: FakePage, open_page: Open) -> None:
    page = open_page(fake_page.url)
    page.get_by_label("Address, 3:19").check()
    page.locator("#repeats").get_by_label("3").check()
    compare(page)
    sentence = page.inner_text("#summary")
    page.reload()
    wait_for_states(page, "done", "done")
    page.locator("#features img").nth(2).wait_for(state="attached")
    assert page.inner_text("#summary") == sentence
    assert page.get_by_label("Address, 3:19").is_checked()
    assert page.locator("#repeats").get_by_label("3").is_checked()
    wait_for_states(open_page(fake_page.url), "idle", "idle")


def test_a_reload_in_the_middle_keeps_the_finished_lane(
    fake_page: FakePage, open_page: Open
) -> None:
    gate = Event()
    fake_page.use(max_hybrid=fakes.fake_max(last_word=gate))
    page = open_page(fake_page.url)
    page.click("#compare")
    wait_for_states(page, "done", "decoding")
    page.wait_for_timeout(300)  # another snapshot
    page.reload()
    wait_for_states(page, "done", "stopped")
    assert "Stopped. 1 of 2 engines had finished." in page.inner_text("#summary")
    assert "not kept" in page.inner_text("#features")
    gate.set()
    compare(page)


# Playing the clip by its words.


def play_word(page: Page, clip: str) -> None:
    """Click a word until it plays, as it does once the clip is in the player, and to its end."""
    from playwright.sync_api import TimeoutError

    page.wait_for_function("clip => nameClip()?.endsWith(clip)", arg=clip)
    page.locator("#audio .play-pause-button").wait_for()
    marked = "count => document.querySelectorAll('.lane .now').length === count"
    for _ in range(20):
        page.locator(".lane").nth(1).get_by_text("compiler", exact=True).click()
        try:
            page.wait_for_function(marked, arg=2, timeout=3000)
        except TimeoutError:
            continue
        page.wait_for_function(
            "[...document.querySelectorAll('.lane .now')].every(word => word.dataset.t > 0)"
        )
        page.wait_for_function(marked, arg=0)  # the clip lasts two seconds
        return
    pytest.fail("the word never played")


def is_played(page: Page) -> bool:
    """Whether a click on a word plays the clip."""
    page.evaluate(
        """() => {
          window.plays = 0;
          window.plainPlay ??= HTMLMediaElement.prototype.play;
          HTMLMediaElement.prototype.play = function () {
            plays += 1;
            return plainPlay.call(this);
          };
        }"""
    )
    page.locator(".lane").first.get_by_text("compiler", exact=True).click()
    page.wait_for_timeout(300)
    return bool(page.evaluate("plays"))


def test_a_word_plays_its_own_clip_in_every_lane_and_no_other(
    fake_page: FakePage, open_page: Open
) -> None:
    page = open_page(fake_page.url)
    compare(page)
    play_word(page, "jfk")
    page.get_by_label("Address, 3:19").check()
    assert not is_played(page)
    # Another comparison is asked for and refused: the lanes still show the earlier clip.
    uncheck_engines(page)
    page.locator("#compare:enabled").click()
    page.get_by_text("Choose at least one engine.").wait_for()
    assert not is_played(page)
    page.get_by_label("Kennedy, 11 s").check()
    play_word(page, "jfk")


def test_a_word_plays_one_s_own_clip_after_a_reload(
    fake_page: FakePage, open_page: Open, sample_folder: Path
) -> None:
    page = open_page(fake_page.url)
    choose_own(page, sample_folder / "columbia.flac")
    page.locator("#audio .play-pause-button").wait_for()
    compare(page)
    page.reload()
    wait_for_states(page, "done", "done")
    play_word(page, "/columbia.flac")
    page.get_by_label("Kennedy, 11 s").check()
    assert not is_played(page)
