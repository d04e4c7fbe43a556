"""Words of a transcript play the clip that they are about."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

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
