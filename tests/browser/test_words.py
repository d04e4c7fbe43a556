"""A visitor reads the transcripts: differences, equal engines, confidence, keys, and copies."""

from __future__ import annotations

from threading import Event
from typing import TYPE_CHECKING

import pytest

from tests import fakes
from tests.browser.driving import Open, compare, edit, wait_for_states

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from tests.fake_page import FakePage

pytestmark = pytest.mark.browser

FOCUSED = "document.activeElement.textContent"


def read_shown(page: Page, selector: str) -> list[str]:
    return [each.inner_text() for each in page.locator(selector).all() if each.is_visible()]


def test_differences_are_walked_through_and_filtered(fake_page: FakePage, open_page: Open) -> None:
    words = fakes.WORDS.replace("turns", "turned").replace("every", "each and every")
    fake_page.use(max_hybrid=fakes.fake_max(words=words))
    page = open_page(fake_page.url, 1280)
    compare(page)
    assert page.inner_text("#lanes .count") == "2 differences"
    for key, sought in (("n", "turned"), ("n", "each"), ("n", "turned"), ("p", "each")):
        page.locator("body").press(key)
        assert page.inner_text("#lanes .sought") == sought
    assert page.inner_text("#lanes .count") == "2 of 2"
    page.get_by_label("Only differences").check()
    rows = read_shown(page, "#lanes .row .from")
    assert 0 < len(rows) < page.locator("#lanes .row .from").count()
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.get_by_label("Copy the transcript by MAX hybrid").click()
    page.get_by_text("Copied").wait_for()
    assert page.evaluate("navigator.clipboard.readText()") == words
    page.get_by_label("Why MAX hybrid differs").click()
    page.locator("#why-result").get_by_text("PyTorch CPU is right").wait_for()
    assert "They part at 0.5 s" in page.inner_text("#why-status")
    assert page.locator("#why-result td").all_inner_texts()[-4:] == [
        *("PyTorch in float64", "-0.5000", "-0.7500", "0.2500")
    ]
    assert page.locator("#why-engine input:checked").input_value() == "max_hybrid"
    page.locator("#why-result [data-t]").click()
    page.wait_for_function("document.querySelectorAll('#lanes .now').length === 2")


@pytest.mark.slow
def test_equal_engines_share_a_column_and_words_have_keys(
    fake_page: FakePage, open_page: Open
) -> None:
    page = open_page(fake_page.url, 1280)
    compare(page)
    page.get_by_label("Confidence").check()  # runs again, with word timestamps
    page.locator("#chips", has_text="word timestamps").wait_for()
    page.locator("#compare:enabled").wait_for(state="attached")
    page.get_by_label("Merge equal engines").check()
    assert read_shown(page, "#lanes h2") == ["CPU and MAX hybrid"]
    edit(page)
    page.locator("#other_model input").click()
    page.get_by_role("option", name="tiny.en").click()
    page.get_by_text("Compare 2 engines with two models").wait_for()
    page.locator("#baseline input").click()
    page.get_by_role("option", name="MAX hybrid").click()
    compare(page)
    wait_for_states(page, *["done"] * 4)
    heads = page.locator("#lanes .heads header")
    assert heads.filter(has=page.locator(".badge")).locator(".one").inner_text() == "MAX hybrid"
    page.get_by_label("Merge equal engines").check()
    merged = "CPU, CPU (tiny.en), MAX hybrid and MAX hybrid (tiny.en)"
    assert read_shown(page, "#lanes h2") == [merged]
    assert page.locator(".key--sure").is_visible()
    page.locator("#lanes .segment [tabindex]").first.focus()
    for key, word in (
        ("ArrowRight", "compiler"),
        ("ArrowDown", "graph"),
        ("ArrowLeft", "the"),
        ("End", "chip"),
        ("Home", "The"),
    ):
        page.keyboard.press(key)
        assert page.evaluate(FOCUSED) == word


@pytest.mark.slow
def test_a_row_stays_open_while_engines_run(fake_page: FakePage, open_page: Open) -> None:
    gate = Event()
    fake_page.use(cpu=fakes.FakeEngine(last_word=gate, pace=0.2))
    page = open_page(fake_page.url)
    page.locator("#compare:enabled").click()
    page.locator(".lane--decoding").first.wait_for()
    page.locator("#race [data-row=cpu] summary").click()
    page.wait_for_timeout(1200)  # several snapshots
    assert page.locator("#race [data-row=cpu] dl").is_visible()
    gate.set()
    page.locator("#race .lane--done").nth(1).wait_for()
    page.get_by_text("Peak memory").first.wait_for()
    page.locator("#race [data-row=cpu] summary").click()
    assert not page.locator("#race [data-row=cpu] dl").is_visible()
