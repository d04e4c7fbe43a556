"""The whole road: `python app.py` with the real engines, driven in headless Chromium."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from engines import registry
from tests.browser.driving import open_tab
from tests.processes import needs_proc
from tests.running_app import App

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = [pytest.mark.browser, needs_proc]

FINISH_SECONDS = 240
"""A first run compiles the graph: more than a minute on a small machine."""


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The app's address, served by a process of its own."""
    with closing(App(tmp_path_factory.mktemp("app"))) as app:
        yield app.url


@pytest.mark.parametrize("model", ["tiny.en", pytest.param("base", marks=pytest.mark.slow)])
def test_one_click_gives_the_same_words_in_every_lane(
    model: str, address: str, open_page: Callable[..., Page]
) -> None:
    """With the quick model, and as a visitor finds the page, with `base`."""
    page = open_page(address, query="" if model == "base" else f"&model={model}")
    page.wait_for_function(f"document.querySelector('#model input')?.value.startsWith('{model}')")
    page.click("#compare")
    page.locator("#compare:disabled").wait_for(state="attached")
    page.locator("#compare:enabled").wait_for(state="attached", timeout=FINISH_SECONDS * 1000)
    lanes = {str(lane.get_attribute("data-engine")): lane for lane in page.locator(".lane").all()}
    assert tuple(lanes) == registry.available()
    words = {}
    for key, lane in lanes.items():
        assert lane.get_attribute("data-state") == "done", lane.inner_text()
        words[key] = " ".join(page.locator(f".cell[data-engine={key}] .segment").all_inner_texts())
    assert "ask what you can do for your country" in words["cpu"]
    assert len(set(words.values())) == 1, words


@pytest.mark.slow
@pytest.mark.parametrize("key", [row.key for row in registry.ENGINES if row.is_optional])
def test_an_optional_engine_is_chosen_by_a_link_and_writes_the_words(
    key: str, address: str, open_page: Callable[..., Page]
) -> None:
    """Beside the baseline, from the same checkpoint; where tokens differ it is said why."""
    if reason := registry.row(key).why_unavailable():
        pytest.skip(reason)
    link = f"&sample=jfk&model=tiny.en&engines=cpu,{key}&schedule=parallel"
    page = open_page(address, query=link)
    page.set_default_timeout(FINISH_SECONDS * 1000)
    page.get_by_text("Compare 2 engines").click()
    page.locator("#compare:disabled").wait_for(state="attached")
    page.locator("#compare:enabled").wait_for(state="attached")
    lane = page.locator(f'.lane[data-engine="{key}"]')
    assert lane.get_attribute("data-state") == "done", lane.inner_text()
    cells = page.locator(f'.cell[data-engine="{key}"]')
    words = " ".join(cells.locator(".segment").all_inner_texts())
    assert "ask what you can do for your country" in words
    row = registry.row(key)
    lane.locator("summary").click()
    assert row.own_loop[:40] in page.locator(f'.lane[data-engine="{key}"]').inner_text()
    if cells.locator("[data-why]").count():
        cells.locator("[data-why]").click()
        page.locator("#why-result .finding").wait_for(state="attached")
        assert row.label in page.inner_text("#why-status")


@pytest.mark.slow
@pytest.mark.max
def test_the_analyses_find_what_a_missing_norm_does(
    address: str, open_page: Callable[..., Page]
) -> None:
    pytest.importorskip("max.engine")
    page = open_page(address)
    page.set_default_timeout(FINISH_SECONDS * 1000)
    page.locator("#audio .play-pause-button").wait_for()
    open_tab(page, "Inspect layers")
    for half in ("encoder", "decoder"):
        page.get_by_label(half.title(), exact=True).check()
        page.locator("#inspect:enabled").click()
        page.locator("#layers").get_by_text(f"How far each {half} is from").wait_for()
        verdicts = page.locator("#layers .verdicts li").all_inner_texts()
        assert verdicts and all(
            "matches PyTorch CPU, float32 at every stage" in said for said in verdicts
        ), verdicts
    open_tab(page, "Faults")
    page.locator("#faults").get_by_label("ln_post left out", exact=True).check()
    page.get_by_text("The 2025 attempt left out the last layer norm").wait_for()
    page.click("#fault")
    page.locator("#finding .plot").first.wait_for(state="attached")
    assert page.inner_text("#finding .first strong") == "ln_post"
    right, faulty = page.locator("#finding .texts section").all_inner_texts()[:2]
    assert right.startswith("Without the fault") and faulty.startswith("With it")
    status = page.inner_text("#fault-status")
    assert re.search(r"first shows at ln_post, \d+ words? changed", status), status
