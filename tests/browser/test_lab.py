"""The microscope and the fault lab driven in headless Chromium over fakes."""

from __future__ import annotations

import re
from collections.abc import Callable
from threading import Event
from typing import TYPE_CHECKING, Any

import pytest

from tests import fakes
from tests.browser.driving import fake_max, finish_lab, tab_to, wait_until_still
from tests.browser.test_accessibility import list_faults
from tests.browser.test_weight import count_received

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from tests.fake_lab import FakeLab

pytestmark = pytest.mark.browser

Open = Callable[..., "Page"]
ServeLab = Callable[..., str]


@pytest.fixture
def serve_lab(serve_fakes: ServeLab) -> ServeLab:
    """Serves the page with a laboratory, over fake engines, and gives its address."""

    def serve_page(lab: FakeLab, **engines: fakes.FakeEngine) -> str:
        usual = {"cpu": fakes.FakeEngine(), "max_hybrid": fake_max()}
        return serve_fakes(lab=lab, **(usual | engines))

    return serve_page


PATIENCE = 90_000
"""Milliseconds for one step: a busy machine may take long to draw two long panels."""


@pytest.fixture
def open_lab(open_page: Open) -> Open:
    """Opens an address as `open_page` does, with patience."""

    def open_at(url: str, **look: Any) -> Page:
        page = open_page(url, **look)
        page.set_default_timeout(PATIENCE)
        return page

    return open_at


def shown_slide(page: Page, panel: str) -> str:
    """The stage whose histograms can be seen; exactly one can."""
    names = page.locator(f"#{panel} .slide").evaluate_all(
        "slides => slides.filter(slide => getComputedStyle(slide).visibility === 'visible')"
        ".map(slide => slide.getAttribute('aria-label'))"
    )
    assert len(names) == 1
    return str(names[0])


def test_a_stage_clicked_shows_its_histograms(
    serve_lab: ServeLab, open_lab: Open, lab: FakeLab
) -> None:
    page = open_lab(serve_lab(lab))
    finish_lab(page, "look")
    assert "7 stages looked at: all are as they should be." in page.inner_text("#look-status")
    assert shown_slide(page, "layers") == "ln_post"
    height = page.locator("#layers .scope").evaluate("scope => scope.offsetHeight")
    page.locator("#layers .stage", has_text="positions").click()
    assert shown_slide(page, "layers") == "positions"
    page.keyboard.press("ArrowUp")
    assert shown_slide(page, "layers") == "conv2"
    assert page.locator("#layers .scope").evaluate("scope => scope.offsetHeight") == height


def test_the_rows_show_the_error_or_the_cosine(
    serve_lab: ServeLab, open_lab: Open, lab: FakeLab
) -> None:
    page = open_lab(serve_lab(lab))
    finish_lab(page, "look")
    largest = page.locator("#layers .stage").nth(1).locator(".largest")
    assert (largest.nth(0).is_visible(), largest.nth(1).is_visible()) == (True, False)
    error = float(largest.nth(0).inner_text().split(":")[-1])
    page.get_by_text("1 − cosine", exact=True).first.click()
    assert (largest.nth(0).is_visible(), largest.nth(1).is_visible()) == (False, True)
    assert 0 < float(largest.nth(1).inner_text().split(":")[-1]) < error


def test_the_marks_stand_on_their_curve(serve_lab: ServeLab, open_lab: Open, lab: FakeLab) -> None:
    page = open_lab(serve_lab(lab))
    page.get_by_label("Early fault").check()
    finish_lab(page, "fault")
    gaps = page.evaluate(
        """() => {
          const svg = document.querySelector('#finding svg.curves.by-error');
          const box = svg.getBoundingClientRect();
          const rows = svg.viewBox.baseVal.height;
          const lines = [...svg.querySelectorAll('polyline')].map(line => [...line.points]);
          return [...document.querySelectorAll('#finding .rail.by-error')].flatMap((rail, row) =>
            [...rail.querySelectorAll('i')].map((mark, line) => {
              const at = mark.getBoundingClientRect(), point = lines[line][row];
              return Math.hypot(
                at.x + at.width / 2 - box.x - point.x / 100 * box.width,
                at.y + at.height / 2 - box.y - point.y / rows * box.height);
            }));
        }"""
    )
    assert len(gaps) == 2 * 7
    assert max(gaps) < 3, gaps


def test_a_fault_shows_its_text_beside_the_right_one(
    serve_lab: ServeLab, open_lab: Open, lab: FakeLab
) -> None:
    page = open_lab(serve_lab(lab))
    page.get_by_label("Early fault").check()
    page.get_by_text("This fault sits in the first convolution.").wait_for()
    finish_lab(page, "fault")
    assert "Early fault: first shows at conv1, 2 words changed." in page.inner_text("#fault-status")
    texts = page.locator("#finding .said").all_inner_texts()
    assert texts == [fakes.WORDS, "The compiler turns a graph into slow code for every chip"]
    assert page.locator("#finding .changes ins").all_inner_texts()
    assert shown_slide(page, "finding") == "conv1"


def test_a_fault_that_breaks_the_run_is_told_in_words(
    serve_lab: ServeLab, open_lab: Open, lab: FakeLab
) -> None:
    page = open_lab(serve_lab(lab))
    page.get_by_label("Breaking fault").check()
    finish_lab(page, "fault")
    assert "The run broke: ValueError: the shapes don't fit" in page.inner_text("#finding")


def test_nothing_chosen_and_no_clip_are_sentences(
    serve_lab: ServeLab, open_lab: Open, lab: FakeLab
) -> None:
    page = open_lab(serve_lab(lab))
    for label in ("MAX, float16 weights", "MAX, float32 weights"):
        page.get_by_label(label).uncheck()
    page.click("#look")
    page.get_by_text("Choose at least one encoder.").wait_for()
    page.get_by_label("Your own").check()
    page.locator("#fault:enabled").click()
    page.locator("#fault-status").get_by_text("There is no clip yet").wait_for()
    page.locator("#fault:enabled").wait_for()


def test_stop_ends_a_look_at_once(serve_lab: ServeLab, open_lab: Open, lab: FakeLab) -> None:
    lab.gate = Event()
    page = open_lab(serve_lab(lab))
    page.click("#look")
    page.get_by_text("Looking at stage 3").wait_for()
    assert page.locator("#look").is_disabled()
    page.click("#look-stop")
    page.locator("#look-status").get_by_text("Stopped.").wait_for()
    page.locator("#look:enabled").wait_for()
    assert page.locator("#look-stop").is_disabled()
    lab.gate.set()
    finish_lab(page, "look")


def test_the_lab_waits_for_a_comparison_and_the_comparison_for_the_lab(
    serve_lab: ServeLab, open_lab: Open, lab: FakeLab
) -> None:
    gate = Event()
    page = open_lab(serve_lab(lab, cpu=fakes.FakeEngine(last_word=gate)))
    page.click("#compare")
    page.locator(".lane--decoding").first.wait_for()
    page.click("#fault")
    page.get_by_text("Waiting: 1 run is ahead of yours.").wait_for()
    page.click("#look")
    page.get_by_text("Waiting: 2 runs are ahead of yours.").wait_for()
    page.click("#look-stop")
    page.locator("#look-status").get_by_text("Stopped before its turn came.").wait_for()
    gate.set()
    page.locator("#finding .chooser").first.wait_for(state="attached")
    page.locator("#look:enabled").wait_for()
    assert page.locator("#layers .chooser").count() == 0


def test_a_panel_travels_once(serve_lab: ServeLab, open_lab: Open, lab: FakeLab) -> None:
    page = open_lab(serve_lab(lab))
    page.locator("#audio .play-pause-button").wait_for()
    received = count_received(page)
    finish_lab(page, "look")
    page.wait_for_timeout(500)
    weight = len(page.inner_html("#layers").encode())
    assert weight < sum(received.values()) < 1.5 * weight, received


def test_a_machine_without_max_says_why(serve_lab: ServeLab, open_lab: Open, lab: FakeLab) -> None:
    lab.reason = "the package max is not installed"
    page = open_lab(serve_lab(lab))
    assert page.locator("#fault").is_disabled()
    page.get_by_text("Faults can’t run here: the package max is not installed.").wait_for()


def test_both_types_stand_on_one_chart(serve_lab: ServeLab, open_lab: Open, lab: FakeLab) -> None:
    page = open_lab(serve_lab(lab))
    finish_lab(page, "look")
    assert page.locator("#layers svg.curves.by-error polyline").count() == 2
    verdicts = page.locator("#layers .verdicts li").all_inner_texts()
    assert ["float16" in verdicts[0], "float32" in verdicts[1]] == [True, True]
    assert page.locator("#layers .slide").first.locator("figure").count() == 4


def test_the_microscope_looks_where_it_is_told(
    serve_lab: ServeLab, open_lab: Open, lab: FakeLab
) -> None:
    page = open_lab(serve_lab(lab))
    page.locator("#window-start input").fill("3")
    finish_lab(page, "look")
    assert "one window of 30 s at 3 s" in page.inner_text("#layers .scope-around > .caption")
    page.locator("#window-start input").fill("90")
    page.click("#look")
    page.locator("#look-status .alert, #look-status [role=alert]").first.wait_for()
    assert "The clip has 6.0 s." in page.inner_text("#look-status")


def test_a_reload_loses_nothing_that_was_found(
    serve_lab: ServeLab, open_lab: Open, lab: FakeLab
) -> None:
    url = serve_lab(lab)
    page = open_lab(url)
    page.get_by_label("MAX, float32 weights").uncheck()
    finish_lab(page, "look")
    page.get_by_label("Early fault").check()
    page.get_by_text("This fault sits in the first convolution.").wait_for()
    finish_lab(page, "fault")
    said = page.inner_text("#look-status .errand p"), page.inner_text("#fault-status .errand p")
    page.reload()
    page.locator("#layers .chooser").first.wait_for(state="attached")
    page.locator("#finding .chooser").first.wait_for(state="attached")
    page.get_by_text("This fault sits in the first convolution.").wait_for()
    now = page.inner_text("#look-status .errand p"), page.inner_text("#fault-status .errand p")
    assert now == said
    assert page.get_by_label("Early fault").is_checked()
    assert not page.get_by_label("MAX, float32 weights").is_checked()
    other = open_lab(url)
    other.locator("#finding").wait_for(state="attached")
    assert other.locator(".chooser").count() == 0


def test_every_control_and_chart_has_a_name(
    serve_lab: ServeLab, open_lab: Open, lab: FakeLab
) -> None:
    page = open_lab(serve_lab(lab))
    finish_lab(page, "look")
    labels = page.locator("#layers input").evaluate_all("all => all.map(i => i.labels.length)")
    assert labels
    assert set(labels) == {1}
    stages = page.get_by_role("radio", name=re.compile("^conv1"))
    assert stages.count() == 1
    assert page.locator("#layers svg[role=img]:not([aria-label])").count() == 0


def test_the_keyboard_is_enough(serve_lab: ServeLab, open_lab: Open, lab: FakeLab) -> None:
    page = open_lab(serve_lab(lab))
    tab_to(page, "#look")
    page.keyboard.press("Enter")
    page.locator("#layers .chooser").first.wait_for(state="attached")
    page.locator("#look:enabled").wait_for()
    tab_to(page, "#layers .chooser:checked")
    page.keyboard.press("ArrowUp")
    assert shown_slide(page, "layers") == "blocks.1"
    tab_to(page, "#faults input:checked")
    page.keyboard.press("ArrowDown")
    page.get_by_text("This fault sits in the first convolution.").wait_for()
    tab_to(page, "#fault")
    page.keyboard.press("Enter")
    page.locator("#finding .chooser").first.wait_for(state="attached")


@pytest.mark.parametrize("width", [1400, 900, 390])
@pytest.mark.parametrize("name", ["look", "fault"])
def test_nothing_moves_from_the_click_to_the_result(
    serve_lab: ServeLab, open_lab: Open, lab: FakeLab, name: str, width: int
) -> None:
    """The click itself makes room; after that nothing moves, be it stopped or done."""
    lab.gate = Event()
    page = open_lab(serve_lab(lab), width=width)
    places = (
        "[...document.querySelectorAll('.lab > *, .lab h2, .credits')]"
        ".map(e => e.getBoundingClientRect().top + scrollY)"
    )
    page.click(f"#{name}")
    page.locator(f"#{'layers' if name == 'look' else 'finding'} .scope-around--blank").wait_for(
        state="attached"
    )
    page.locator(f"#{name}-status .bar span").wait_for(state="attached")
    wait_until_still(page, places)
    near = pytest.approx(page.evaluate(places), abs=1)
    page.click(f"#{name}-stop")
    page.locator(f"#{name}-status").get_by_text("Stopped.").wait_for()
    assert page.evaluate(places) == near
    lab.gate.set()
    page.locator(f"#{name}:enabled").wait_for()
    for _ in range(2):
        finish_lab(page, name)
        assert page.evaluate(places) == near


@pytest.mark.parametrize(("theme", "width"), [("light", 1400), ("dark", 1400), ("light", 390)])
def test_axe_finds_no_serious_fault(
    serve_lab: ServeLab, open_lab: Open, lab: FakeLab, theme: str, width: int
) -> None:
    page = open_lab(serve_lab(lab), theme=theme, width=width)
    page.locator("#audio .play-pause-button").wait_for(state="attached")
    finish_lab(page, "look")
    page.get_by_label("Early fault").check()
    finish_lab(page, "fault")
    page.evaluate("document.querySelectorAll('.every').forEach(e => e.open = true)")
    assert list_faults(page) == []


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1400, 390])
def test_it_fits_the_screen(
    serve_lab: ServeLab, open_lab: Open, lab: FakeLab, theme: str, width: int
) -> None:
    page = open_lab(serve_lab(lab), theme=theme, width=width)
    finish_lab(page, "look")
    finish_lab(page, "fault")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    wide = page.locator(".scope, .texts, .pairs").evaluate_all(
        "all => all.filter(e => e.scrollWidth > e.clientWidth + 1).map(e => e.className)"
    )
    assert wide == []
