"""The page driven in headless Chromium over fake engines."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any

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


def finish_lab(page: Page, name: str) -> None:
    """Press a button of the laboratory, `look` or `fault`, and wait for its result."""
    page.click(f"#{name}")
    page.locator(f"#{'layers' if name == 'look' else 'finding'} .chooser").first.wait_for(
        state="attached"
    )
    page.locator(f"#{name}:enabled").wait_for()


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


def wait_until_still(page: Page, places: str) -> None:
    """Wait until the page has settled: half a second without anything at another place."""
    last, since = None, time.monotonic()
    while time.monotonic() - since < 0.5:
        now = page.evaluate(places)
        if now != last:
            last, since = now, time.monotonic()
        page.wait_for_timeout(50)


def watch_shifts(page: Page) -> None:
    """Note what the browser calls a layout shift from now on, but for text in a scrolling box."""
    page.evaluate(
        """() => {
          window.shifts = [];
          const scrolls = ".transcript, .changes, .said";
          const note = (entry) => {
            for (const {node} of entry.sources) {
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


def test_a_word_plays_the_clip_and_is_marked_in_every_lane(
    serve_fakes: Serve, open_page: Open
) -> None:
    page = open_page(serve_fakes(cpu=fakes.FakeEngine(), max_hybrid=fake_max()))
    page.locator("#audio .play-pause-button").wait_for()
    page.click("#compare")
    wait_for_states(page, "done", "done")
    page.locator(".lane").nth(1).get_by_text("compiler", exact=True).click()
    page.wait_for_function("document.querySelectorAll('.lane .now').length === 2")
    page.wait_for_function(
        "[...document.querySelectorAll('.lane .now')].every(word => word.dataset.t > 1)"
    )
    # The clip lasts two seconds: at its end no word is marked any more.
    page.wait_for_function("document.querySelectorAll('.lane .now').length === 0")
    page.get_by_label("Talk, 2:41").check()
    page.locator(".lane").first.get_by_text("compiler", exact=True).click()
    page.wait_for_timeout(300)
    assert page.locator("#audio .play-pause-button").get_attribute("aria-label") == "Play"


def play_word(page: Page, clip: str) -> None:
    """Click a word until it plays, as it does once the clip is in the player, and to its end."""
    from playwright.sync_api import TimeoutError

    page.wait_for_function("clip => nameClip()?.endsWith(clip)", arg=clip)
    page.locator("#audio .play-pause-button").wait_for()
    marked = "count => document.querySelectorAll('.lane .now').length === count"
    for _ in range(20):
        page.locator(".lane").first.get_by_text("compiler", exact=True).click()
        try:
            page.wait_for_function(marked, arg=2, timeout=3000)
        except TimeoutError:
            continue
        page.wait_for_function(marked, arg=0)
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


def test_a_word_plays_its_own_clip_and_no_other(serve_fakes: Serve, open_page: Open) -> None:
    page = open_page(serve_fakes(cpu=fakes.FakeEngine(), max_hybrid=fake_max()))
    page.click("#compare")
    wait_for_states(page, "done", "done")
    page.reload()
    wait_for_states(page, "done", "done")
    page.locator("#audio .play-pause-button").wait_for()
    page.get_by_label("Talk, 2:41").check()
    assert not is_played(page)
    # Another comparison is asked for and refused: the lanes still show the earlier clip.
    for engine in ("CPU", "MAX hybrid"):
        page.locator("#engines").get_by_label(engine, exact=True).uncheck()
    page.locator("#compare:enabled").click()
    page.get_by_text("Choose at least one engine.").wait_for()
    assert not is_played(page)
    page.get_by_label("Short sentence").check()
    play_word(page, "short")


def test_a_word_plays_one_s_own_clip_after_a_reload(
    serve_fakes: Serve, open_page: Open, sample_folder: Path
) -> None:
    page = open_page(serve_fakes(cpu=fakes.FakeEngine(), max_hybrid=fake_max()))
    page.get_by_label("Your own").check()
    page.set_input_files("#audio input[type=file]", sample_folder / "talk.flac")
    page.locator("#audio .play-pause-button").wait_for()
    page.click("#compare")
    wait_for_states(page, "done", "done")
    play_word(page, "/talk.flac")
    page.reload()
    wait_for_states(page, "done", "done")
    play_word(page, "/talk.flac")
    assert is_played(page)
    page.wait_for_function("document.querySelectorAll('.lane .now').length === 0")
    page.get_by_label("Short sentence").check()
    assert not is_played(page)


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


def tab_to(page: Page, selector: str) -> None:
    """Press Tab until the focus is on such an element, and can be seen to be there."""
    for _ in range(100):
        page.keyboard.press("Tab")
        if page.evaluate("s => document.activeElement.matches(s)", selector):
            style = "getComputedStyle(document.activeElement).outlineStyle"
            assert page.evaluate(style) != "none"
            return
    pytest.fail(f"Tab never reached {selector}")


def test_the_microphone_s_sound_is_compared(serve_fakes: Serve, open_page: Open) -> None:
    page = open_page(serve_fakes(cpu=fakes.FakeEngine(), max_hybrid=fake_max()))
    page.context.grant_permissions(["microphone"])
    page.get_by_label("Your own").check()
    page.locator("#audio").get_by_label("Record audio").click()
    page.locator("#audio .record-button").click()
    page.locator("#audio .stop-button").wait_for()
    page.wait_for_timeout(1000)
    page.locator("#audio .stop-button").click()
    page.locator("#audio .play-pause-button").wait_for()
    page.click("#compare")
    wait_for_states(page, "done", "done")
    assert page.get_by_label("Your own").is_checked()


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
