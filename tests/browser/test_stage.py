"""Stage mode in headless Chromium: large, plain, and run from the keyboard."""

from __future__ import annotations

from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING

import pytest

from tests import fakes
from tests.browser.driving import Open, Serve, fake_max, finish_lab, tab_to, wait_for_states

if TYPE_CHECKING:
    from tests.fake_lab import FakeLab

pytestmark = pytest.mark.browser

STAGE = "&stage=1"
SIZE = "s => parseFloat(getComputedStyle(document.querySelector(s)).fontSize)"


def test_space_runs_and_escape_stops(serve_fakes: Serve, open_page: Open) -> None:
    gate = Event()
    url = serve_fakes(cpu=fakes.FakeEngine(last_word=gate), max_hybrid=fake_max(last_word=gate))
    page = open_page(url, query=STAGE)
    tab_to(page, "#sample input:checked")
    page.keyboard.press("ArrowRight")
    page.wait_for_function("document.querySelector('#sample input:checked').value === 'talk'")
    page.keyboard.press("Space")
    wait_for_states(page, "decoding", "decoding")
    page.keyboard.press("Space")
    page.keyboard.press("Escape")
    wait_for_states(page, "stopped", "stopped")
    gate.set()
    page.locator("#compare:enabled").wait_for()
    page.keyboard.press("Space")
    wait_for_states(page, "done", "done")


@pytest.mark.parametrize("name", ["look", "fault"])
def test_escape_stops_the_laboratory(
    serve_fakes: Serve, open_page: Open, lab: FakeLab, name: str
) -> None:
    lab.gate.clear()
    url = serve_fakes(lab=lab, cpu=fakes.FakeEngine(), max_hybrid=fake_max())
    page = open_page(url, query=STAGE)
    page.click(f"#{name}")
    page.locator(f"#{name}-stop:enabled").wait_for()
    page.locator(f"#{name}-status .bar span").wait_for(state="attached")
    page.keyboard.press("Escape")
    page.locator(f"#{name}-status").get_by_text("Stopped.").wait_for()
    page.locator(f"#{name}:enabled").wait_for()


def test_keys_mean_nothing_off_stage(serve_fakes: Serve, open_page: Open) -> None:
    page = open_page(serve_fakes(cpu=fakes.FakeEngine(), max_hybrid=fake_max()))
    page.locator("body").press("Space")
    page.wait_for_timeout(300)
    wait_for_states(page, "idle", "idle")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_it_is_large_plain_and_of_high_contrast(
    serve_fakes: Serve, open_page: Open, lab: FakeLab, tmp_path: Path, theme: str
) -> None:
    url = serve_fakes(lab=lab, cpu=fakes.FakeEngine(), max_hybrid=fake_max())
    plain, page = open_page(url, theme=theme), open_page(url, theme=theme, query=STAGE)
    page.locator("body").press("Space")
    wait_for_states(page, "done", "done")
    for selector in (".summary", ".lane h2", ".transcript", ".figures dd.number"):
        assert page.evaluate(SIZE, selector) >= 1.25 * plain.evaluate(SIZE, selector)
    for hidden in ("#engines", "#schedule", "#audio", ".credits"):
        assert page.locator(hidden).is_hidden()
    colours = (
        "() => ['color', 'backgroundColor'].map(what => getComputedStyle("
        "document.querySelector(what === 'color' ? '.lane h2' : '.lane'))[what])"
    )
    ink, paper = page.evaluate(colours)
    assert measure_contrast(ink, paper) > 15
    page.locator(".keys").wait_for()
    for name in ("look", "fault"):
        finish_lab(page, name)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.screenshot(path=tmp_path / f"stage-{theme}.png", full_page=True)


def measure_contrast(one: str, other: str) -> float:
    """The contrast ratio of WCAG 2.2 between two CSS colours `rgb(r, g, b)`."""

    def luminance(colour: str) -> float:
        parts = [float(part) / 255 for part in colour[colour.index("(") + 1 : -1].split(",")[:3]]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)
