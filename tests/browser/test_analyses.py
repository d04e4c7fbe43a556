"""Layer inspection and faults driven in headless Chromium over fakes."""

from __future__ import annotations

from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING

import pytest

from demo import page as demo_page
from tests import fakes
from tests.browser.driving import (
    Open,
    analyse,
    compare,
    count_received,
    edit,
    open_tab,
    press,
    tab_to,
    wait_for_states,
)
from tests.fake_lab import WRONG_WORDS, FakeLab
from tests.fake_page import make_backend

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from tests.fake_page import FakePage

pytestmark = pytest.mark.browser

CARRIED = """[...document.querySelectorAll("#layers [data-figure], #layers [data-options]")]
  .map(each => (each.dataset.figure ?? each.dataset.options).length).reduce((a, b) => a + b)"""
"""Characters of what the panel's charts are drawn from."""

CHOSEN = "document.querySelector('#why-engine input:checked')?.value"

EARLY = "This fault sits in the first convolution."


def shown_stage(page: Page, panel: str) -> str:
    """The stage whose histograms are drawn."""
    menu = page.locator(f"#{panel} .plot select:visible")
    return str(menu.evaluate("menu => menu.selectedOptions[0].label.split(':')[0]"))


def test_layers_are_inspected_where_asked_and_each_shows_its_values(
    fake_page: FakePage, open_page: Open
) -> None:
    page = open_page(fake_page.url)
    page.locator("#audio .play-pause-button").wait_for()
    open_tab(page, "Inspect layers")
    page.locator("#window-start input").fill("3")
    received = count_received(page)
    analyse(page, "inspect")
    assert "7 stages" in page.inner_text("#inspect-status")
    assert "3 s" in page.inner_text("#layers")
    assert page.locator("#layers .verdicts li").count() == 2
    page.wait_for_timeout(500)
    weight = page.evaluate(CARRIED)
    assert weight < sum(received.values()) < 2 * weight, "the panel travels once"
    assert shown_stage(page, "layers") == "ln_post"
    page.locator("#layers .xtick text").first.wait_for()
    point = page.locator("#layers .scatterlayer .point").nth(3)
    point.scroll_into_view_if_needed()
    place = point.bounding_box()
    assert place is not None
    page.mouse.move(place["x"] + 4, place["y"] + 4)
    page.locator("#layers .hoverlayer .hovertext").first.wait_for()
    page.mouse.click(place["x"] + 4, place["y"] + 4)
    page.wait_for_function(
        "document.querySelector('#layers .choice:not([hidden]) select').selectedIndex === 3"
    )
    assert shown_stage(page, "layers") == "positions"


def test_a_fault_shows_its_text_beside_the_right_one_and_a_reload_loses_nothing(
    fake_page: FakePage, open_page: Open
) -> None:
    page = open_page(fake_page.url)
    open_tab(page, "Inspect layers")
    page.get_by_label("MAX, float32 weights").uncheck()
    analyse(page, "inspect")
    said = [page.inner_text("#inspect-status p")]
    open_tab(page, "Faults")
    page.get_by_label("Early fault").check()
    page.get_by_text(EARLY).wait_for()
    analyse(page, "fault")
    said.append(page.inner_text("#fault-status p"))
    assert "first shows at conv1, 2 words changed." in said[1]
    page.reload()
    open_tab(page, "Inspect layers")
    page.locator("#layers .plot").first.wait_for(state="attached")
    assert page.inner_text("#inspect-status p") == said[0]
    assert not page.get_by_label("MAX, float32 weights").is_checked()
    open_tab(page, "Faults")
    page.locator("#finding .plot").first.wait_for(state="attached")
    page.get_by_text(EARLY).wait_for()
    assert page.inner_text("#fault-status p") == said[1]
    assert page.get_by_label("Early fault").is_checked()
    text = page.inner_text("#finding")
    assert fakes.WORDS in text and WRONG_WORDS in text
    assert page.locator("#finding ins").all_inner_texts()
    other = open_page(fake_page.url)
    open_tab(other, "Faults")
    other.locator("#finding").wait_for(state="attached")
    assert other.locator(".plot").count() == 0


@pytest.mark.slow
def test_the_decoder_s_stages_outlive_a_reload(fake_page: FakePage, open_page: Open) -> None:
    page = open_page(fake_page.url)
    open_tab(page, "Inspect layers")
    page.get_by_label("Decoder", exact=True).check()
    analyse(page, "inspect")
    said = page.inner_text("#inspect-status p")
    assert said.startswith("5 stages compared: all match.")
    assert "at logits, most in unit 9 of frame 4" in page.inner_text("#layers .verdicts")
    page.reload()
    open_tab(page, "Inspect layers")
    page.locator("#layers .plot").first.wait_for(state="attached")
    assert page.inner_text("#inspect-status p") == said
    assert page.get_by_label("Decoder", exact=True).is_checked()
    assert page.get_by_label("MAX full, float32").is_checked()


@pytest.mark.slow
def test_of_two_models_the_lane_that_was_asked_about_is_explained(
    fake_page: FakePage, open_page: Open
) -> None:
    fake_page.use(cpu=fakes.FakeEngine(model="base"), max_hybrid=fakes.fake_max(model="base"))
    other = fakes.fake_max(words=fakes.WORDS.replace("turns", "turned"))
    fake_page.use(**{"max_hybrid@tiny.en": other, "cpu@tiny.en": fakes.FakeEngine(words="Nothing")})
    page = open_page(fake_page.url)
    edit(page)
    page.locator("#other_model input").click()
    page.get_by_role("option", name="tiny.en").click()
    compare(page)
    wait_for_states(page, *["done"] * 4)
    page.get_by_label("Why MAX hybrid (tiny.en) differs").click()
    for reloaded in (False, True):
        page.locator("#why-result td").first.wait_for()
        page.wait_for_function(f"{CHOSEN} === 'max_hybrid@tiny.en'")
        offered = page.locator("#why-engine label").all_inner_texts()
        assert offered[1:] == ["CPU (tiny.en)", "MAX hybrid", "MAX hybrid (tiny.en)"]
        if not reloaded:
            page.reload()
            wait_for_states(page, *["done"] * 4)
            open_tab(page, "Why they differ")


def test_what_can_t_be_done_is_a_sentence(fake_page: FakePage, open_page: Open) -> None:
    page = open_page(fake_page.url)
    page.locator("#audio .play-pause-button").wait_for(state="attached")
    open_tab(page, "Inspect layers")
    page.locator("#window-start input").fill("90")
    page.keyboard.press("Tab")
    page.locator("#inspect:enabled").click()
    page.locator("#inspect-status").get_by_text("The clip has 6.0 s.").wait_for()
    open_tab(page, "Faults")
    page.get_by_label("Breaking fault").check()
    page.locator("#fault:enabled").click()
    page.get_by_text("The run broke: ValueError: the shapes don't fit").wait_for()
    open_tab(page, "Inspect layers")
    for label in ("MAX, float16 weights", "MAX, float32 weights"):
        page.get_by_label(label).uncheck()
    page.locator("#inspect:enabled").click()
    page.get_by_text("Choose at least one encoder.").wait_for()
    open_tab(page, "Why they differ")
    page.locator("#why:enabled").click()
    page.get_by_text("Compare engines first").wait_for()
    page.get_by_label("Your own").check()
    open_tab(page, "Faults")
    page.locator("#fault:enabled").click()
    page.locator("#fault-status").get_by_text("There is no clip yet").wait_for()
    page.locator("#fault:enabled").wait_for()


@pytest.mark.slow
def test_all_three_kinds_of_job_wait_in_one_queue_and_stop_by_themselves(
    fake_page: FakePage, open_page: Open
) -> None:
    gate = Event()
    fake_page.use(cpu=fakes.FakeEngine(last_word=gate))
    page = open_page(fake_page.url)
    press(page)
    page.locator(".lane--decoding").first.wait_for()
    open_tab(page, "Faults")
    page.click("#fault")
    page.get_by_text("Waiting: 1 run is ahead of this one.").wait_for()
    open_tab(page, "Inspect layers")
    page.click("#inspect")
    page.get_by_text("Waiting: 2 runs are ahead of this one.").wait_for()
    page.click("#inspect-stop")
    page.locator("#inspect-status").get_by_text("Stopped before its turn came.").wait_for()
    gate.set()
    open_tab(page, "Faults")
    page.locator("#finding .plot").first.wait_for(state="attached")
    open_tab(page, "Inspect layers")
    page.locator("#inspect:enabled").wait_for()
    assert page.locator("#layers .plot").count() == 0
    fake_page.lab.gate.clear()
    page.click("#inspect")
    page.get_by_text("Looking at stage 3").wait_for()
    assert page.locator("#inspect").is_disabled()
    page.click("#inspect-stop")
    page.locator("#inspect-status").get_by_text("Stopped.").wait_for()


@pytest.mark.slow
def test_the_keyboard_is_enough(fake_page: FakePage, open_page: Open) -> None:
    page = open_page(fake_page.url)
    page.locator("#audio .play-pause-button").wait_for()
    tab_to(page, "#compare")
    page.keyboard.press("Enter")
    wait_for_states(page, "done", "done")
    page.locator("#compare:enabled").wait_for(state="attached")
    tab_to(page, ".segment [data-t]")
    page.keyboard.press("Enter")
    page.wait_for_function("document.querySelectorAll('#lanes .now').length === 2")
    open_tab(page, "Inspect layers")
    tab_to(page, "#inspect")
    page.keyboard.press("Enter")
    page.locator("#layers .plot").first.wait_for(state="attached")
    page.locator("#inspect:enabled").wait_for()
    tab_to(page, "#layers .plot select")
    page.keyboard.press("ArrowUp")
    assert shown_stage(page, "layers") == "blocks.1"
    open_tab(page, "Faults")
    tab_to(page, "#faults input:checked")
    page.keyboard.press("ArrowDown")
    page.get_by_text(EARLY).wait_for()
    tab_to(page, "#fault")
    page.keyboard.press("Enter")
    page.locator("#finding .plot").first.wait_for(state="attached")


def test_a_machine_without_max_says_why(tmp_path: Path) -> None:
    lab = FakeLab(reason="the package max is not installed")
    blocks = demo_page.build(make_backend(tmp_path, analyses=lab.analyses()))
    parts = {part["props"].get("elem_id"): part["props"] for part in blocks.config["components"]}
    assert not parts["fault"]["interactive"]
    sentence = "Faults can’t run here: the package max is not installed."
    assert sentence in parts["fault-status"]["value"]
