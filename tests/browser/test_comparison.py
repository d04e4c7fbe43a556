"""A visitor compares, stops, waits, fails and reloads, in headless Chromium over fake engines."""

from __future__ import annotations

import time
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any

import pytest

from demo import jobs
from engines import audio
from engines.analysis.sound import SoundView
from engines.base import Clip, Listener, Stopped
from tests import fakes
from tests.bad_input.corpus import tone
from tests.browser.driving import (
    Open,
    choose_own,
    compare,
    edit,
    open_tab,
    press,
    press_compare,
    show_features,
    wait_for_states,
)
from tests.test_audio import write_film

if TYPE_CHECKING:
    from playwright.sync_api import Page, Route

    from tests.fake_page import FakePage

pytestmark = pytest.mark.browser

AHEAD = "Waiting: {} ahead of this one."
ONE_AHEAD, TWO_AHEAD = AHEAD.format("1 run is"), AHEAD.format("2 runs are")
PLACES = "['#summary', '#chips'].map(s => document.querySelector(s).getBoundingClientRect().top)"


def check_engines(page: Page, checked: bool) -> None:
    edit(page)
    for engine in ("CPU", "MAX hybrid"):
        page.locator("#engines").get_by_label(engine, exact=True).set_checked(checked)


def test_words_appear_while_a_lane_runs_and_stop_waits_for_no_engine(
    fake_page: FakePage, open_page: Open
) -> None:
    gate = Event()
    fake_page.use(cpu=fakes.FakeEngine(last_word=gate), max_hybrid=fakes.fake_max(compiled=gate))
    page = open_page(fake_page.url)
    press(page)
    page.locator("#lanes .segment").first.wait_for()
    page.locator(".lane--compiling").wait_for()
    assert page.locator("#compare").is_disabled()
    page.click("#stop")
    wait_for_states(page, "stopped", "stopped")
    page.locator("#compare:enabled").wait_for(state="attached")
    assert page.locator("#stop").is_disabled()
    assert "Stopped." in page.inner_text("#summary")
    assert not gate.is_set(), "what the lanes were at goes on"
    gate.set()


@pytest.mark.slow
def test_what_can_t_be_done_is_a_sentence_and_the_page_goes_on(
    fake_page: FakePage, open_page: Open, tmp_path: Path
) -> None:
    broken = fakes.FakeEngine("max_hybrid", error=ValueError("the graph broke"))
    fake_page.use(max_hybrid=broken)
    bad = tmp_path / "notes.mp3"
    bad.write_text("these are no sounds")
    page = open_page(fake_page.url)
    press(page)
    wait_for_states(page, "done", "failed")
    assert "the graph broke" in page.inner_text(".lane--failed")
    fake_page.reset()
    page.locator("#compare:enabled").wait_for(state="attached")
    edit(page)
    choose_own(page, bad)
    press_compare(page, "notes.mp3 holds no audio that can be read.")
    page.locator("#compare:enabled").wait_for(state="attached")
    check_engines(page, False)
    press_compare(page, "Choose at least one engine.")
    check_engines(page, True)
    edit(page)
    page.get_by_label("Clear").click()
    press_compare(page, "There is no clip yet")
    edit(page)
    page.get_by_label("Kennedy, 11 s").check()
    page.locator("#audio .waveform-container").first.wait_for(state="attached")
    page.locator("#model input").click()
    page.get_by_role("option", name="tiny.en").click()
    page.locator("#language input").click()
    page.get_by_role("option", name="Welsh").click()
    press_compare(page, "tiny.en knows only English, not Welsh")
    edit(page)
    page.locator("#language input").click()
    page.get_by_role("option", name="English").click()
    page.get_by_role("button", name="Whisper’s options").click()
    temperatures = page.locator("#temperatures textarea, #temperatures input")
    assert temperatures.input_value() == "0, 0.2, 0.4, 0.6, 0.8, 1"
    temperatures.fill("0, hot")
    press_compare(page, "temperatures must be numbers from 0 to 1, with commas between")
    edit(page)
    temperatures.fill("0, 0.4")
    compare(page)
    assert "Temperatures: 0, 0.4" in page.inner_text("#chips")


@pytest.mark.slow
def test_the_upload_box_takes_films_and_names_without_an_ending(
    fake_page: FakePage, open_page: Open, tmp_path: Path
) -> None:
    """As its browser goes by a name's ending, one film under several names tries them all."""
    write_film(tmp_path / "talk.mkv", tone(1.0)[None])
    film, page = (tmp_path / "talk.mkv").read_bytes(), open_page(fake_page.url)
    read: list[float] = []

    def load_clip(path: Path, *_: object) -> Clip:
        read.append(audio.load_clip(path).seconds)
        return fakes.make_clip()

    fake_page.load_clip = load_clip
    for number, ending in enumerate((".mp4", ".mkv", ".webm", ""), 1):
        (tmp_path / f"film{ending}").write_bytes(film)
        edit(page)
        choose_own(page, tmp_path / f"film{ending}")
        compare(page)
        assert read == [1.0] * number and f"“film{ending}”" in page.inner_text("#summary")
        edit(page)
        page.get_by_label("Clear").click()


@pytest.mark.slow
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
    press(page)
    page.wait_for_timeout(500)
    arrivals[0].continue_()
    wait_for_states(page, "done", "done")
    assert page.get_by_label("Your own").is_checked()


@pytest.mark.slow
def test_places_in_the_queue_move_while_visitors_wait_stop_and_leave(
    fake_page: FakePage, open_page: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "ESTIMATE_SECONDS", 0.1)
    gate = Event()
    fake_page.use(cpu=fakes.FakeEngine(last_word=gate), max_hybrid=fakes.fake_max(last_word=gate))
    first, second, third = (open_page(fake_page.url) for _ in range(3))
    press(first)
    first.locator(".lane--decoding").first.wait_for()
    press_compare(second, ONE_AHEAD)
    assert not second.inner_text("#summary .note")
    third.locator("#audio .waveform-container").wait_for()
    third.locator("#engines").get_by_label("CPU", exact=True).uncheck()
    press_compare(third, TWO_AHEAD)
    wait_for_states(third, "waiting")  # what will run, not what is usual
    before = third.evaluate(PLACES)
    monkeypatch.setattr(jobs.PastJobs, "estimate", lambda self, kind: 600.0)
    third.get_by_text("Your turn comes in about 20 minutes, going by past runs.").wait_for()
    # A job that takes longer than expected: nothing is known any more, and so nothing is said.
    monkeypatch.setattr(jobs.PastJobs, "estimate", lambda self, kind: 0.0)
    third.wait_for_function("!document.querySelector('#summary .note').textContent")
    assert third.evaluate(PLACES) == before
    second.locator("#stop:enabled").click()
    second.get_by_text("Stopped before its turn came").wait_for()
    second.locator("#compare:enabled").wait_for(state="attached")
    wait_for_states(second, "stopped", "stopped")
    third.get_by_text(ONE_AHEAD).wait_for()
    press_compare(second, TWO_AHEAD)
    third.close()
    second.get_by_text(ONE_AHEAD).wait_for()
    first.close()
    gate.set()
    wait_for_states(second, "done", "done")


@pytest.mark.slow
def test_the_next_run_can_begin_while_the_sound_of_the_last_is_described_but_not_beside_it(
    fake_page: FakePage, open_page: Open
) -> None:
    order: list[str] = []

    class NotingEngine(fakes.FakeEngine):
        def transcribe(self, *arguments: Any) -> Any:
            order.append("run")
            return super().transcribe(*arguments)

    def describe(clip: Clip, listener: Listener) -> SoundView:
        if "stopped" in order:
            return fakes.describe_fake_sound(clip)
        order.append("describing")
        while not listener.stopped():
            time.sleep(0.02)
        time.sleep(0.5)  # as long as a process may take to end
        order.append("stopped")
        raise Stopped("stopped")

    fake_page.use(cpu=NotingEngine())
    fake_page.describe_sound = describe
    page = open_page(fake_page.url)
    compare(page)
    compare(page)
    once = ["run", "run"]
    assert order == [*once, "describing", "stopped", *once]
    open_tab(page, "Sound")
    page.locator("#sound .plot").wait_for(state="attached")
    assert page.locator("#compare").is_enabled() and page.locator("#stop").is_disabled()


# A reload.


def test_a_reload_picks_up_what_runs_and_loses_nothing_that_was_finished(
    fake_page: FakePage, open_page: Open
) -> None:
    gate = Event()
    fake_page.use(max_hybrid=fakes.fake_max(last_word=gate))
    page = open_page(fake_page.url)
    edit(page)
    page.get_by_label("All at once", exact=True).check()
    press(page)
    wait_for_states(page, "done", "decoding")
    page.reload()
    wait_for_states(page, "done", "decoding")
    page.locator("#stop:enabled").click()
    wait_for_states(page, "done", "stopped")
    assert "Stopped. 1 of 2 engines had finished." in page.inner_text("#summary")
    edit(page)
    page.get_by_label("Address, 3:19").check()
    page.get_by_label("Each alone", exact=True).check()
    page.locator("#repeats").get_by_label("3").check()
    press(page)
    page.get_by_text("Run 1 of 3: decoding").first.wait_for()
    page.reload()
    page.get_by_text("Run 1 of 3: decoding").first.wait_for()
    gate.set()
    wait_for_states(page, "done", "done")
    page.locator("#compare:enabled").wait_for(state="attached")
    assert page.locator("#race .bar i").count() == 6
    sentence = page.inner_text("#summary")
    assert "each alone, median of 3 runs" in sentence
    page.reload()
    wait_for_states(page, "done", "done")
    show_features(page)
    assert page.inner_text("#summary") == sentence
    edit(page)
    assert page.get_by_label("Address, 3:19").is_checked()
    assert page.locator("#repeats").get_by_label("3").is_checked()
    wait_for_states(open_page(fake_page.url), "idle", "idle")


# Playing the clip by its words.


def play_word(page: Page, clip: str) -> None:
    """Click a word until it plays, as it does once the clip is in the player, and to its end."""
    from playwright.sync_api import TimeoutError

    page.wait_for_function("clip => nameClip()?.endsWith(clip)", arg=clip)
    page.locator("#audio .play-pause-button").wait_for()
    marked = "count => document.querySelectorAll('#lanes .now').length === count"
    for _ in range(20):
        page.locator(".lanes .cell[data-engine=max_hybrid]").get_by_text(
            "compiler", exact=True
        ).click()
        try:
            page.wait_for_function(marked, arg=2, timeout=3000)
        except TimeoutError:
            continue
        page.wait_for_function(
            "[...document.querySelectorAll('#lanes .now')].every(word => word.dataset.t > 0)"
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
    page.locator("#lanes").get_by_text("compiler", exact=True).first.click()
    page.wait_for_timeout(300)
    return bool(page.evaluate("plays"))


def test_every_panel_is_drawn_and_a_word_plays_its_own_clip_and_no_other(
    fake_page: FakePage, open_page: Open, sample_folder: Path
) -> None:
    page = open_page(fake_page.url)
    compare(page)
    for engine in ("cpu", "max_hybrid"):
        words = page.locator(f".cell[data-engine={engine}] .segment").all_inner_texts()
        assert " ".join(words) == fakes.WORDS
    assert "Every engine wrote the same 11 words" in page.inner_text("#summary")
    assert "word error rate 9.1%" in page.inner_text("#summary")
    for tab, panel in (("Time", "timings"), ("Time", "timeline"), ("Sound", "sound")):
        open_tab(page, tab)
        page.locator(f"#{panel} .plot").first.wait_for(state="attached")
    open_tab(page, "Accuracy")
    assert page.inner_text("#scores")
    play_word(page, "jfk")
    edit(page)
    page.get_by_label("Address, 3:19").check()
    assert not is_played(page)
    # Another comparison is asked for and refused: the lanes still show the earlier clip.
    check_engines(page, False)
    press_compare(page, "Choose at least one engine.")
    assert not is_played(page)
    check_engines(page, True)
    edit(page)
    choose_own(page, sample_folder / "columbia.flac")
    page.locator("#audio .play-pause-button").wait_for()
    compare(page)
    page.reload()
    wait_for_states(page, "done", "done")
    play_word(page, "/columbia.flac")
    edit(page)
    page.get_by_label("Kennedy, 11 s").check()
    assert not is_played(page)
