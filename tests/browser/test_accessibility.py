"""axe-core finds no serious fault in any of the page's looks, before a comparison and after."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests import fakes
from tests.browser.driving import Open, Serve, fake_max, finish_lab, wait_for_states

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from tests.fake_lab import FakeLab

pytestmark = pytest.mark.browser

AXE = Path(__file__).parent / "vendor" / "axe.min.js"


@pytest.mark.parametrize(
    ("theme", "width", "query"),
    [
        ("light", 1400, ""),
        ("dark", 1400, ""),
        ("light", 390, ""),
        ("dark", 390, ""),
        ("light", 1400, "&stage=1"),
        ("dark", 1400, "&stage=1"),
    ],
)
def test_axe_finds_no_serious_fault(
    serve_fakes: Serve, open_page: Open, lab: FakeLab, theme: str, width: int, query: str
) -> None:
    other = fake_max()
    other.words = fakes.WORDS.replace("turns", "turned")
    url = serve_fakes(lab=lab, cpu=fakes.FakeEngine(), max_hybrid=other)
    page = open_page(url, theme, width, query)
    page.locator("#audio .play-pause-button").wait_for(state="attached")
    assert list_faults(page) == []
    page.evaluate("document.querySelector('#compare').click()")
    wait_for_states(page, "done", "done")
    page.locator("#features img").nth(2).wait_for()
    page.locator("#compare:enabled").wait_for()
    page.evaluate("document.querySelector('.windows').open = true")
    for name in ("look", "fault"):
        finish_lab(page, name)
    page.evaluate("document.querySelectorAll('.every').forEach(each => each.open = true)")
    assert list_faults(page) == []


def test_axe_would_find_a_fault(serve_fakes: Serve, open_page: Open) -> None:
    page = open_page(serve_fakes(cpu=fakes.FakeEngine(), max_hybrid=fake_max()))
    page.evaluate("document.querySelector('h1').innerHTML += '<img src=\"data:,\">'")
    assert any(fault.startswith("image-alt") for fault in list_faults(page))


def list_faults(page: Page) -> list[str]:
    """Serious and critical violations: the rule, and the first elements that break it."""
    page.add_style_tag(content="* { transition: none !important; animation: none !important; }")
    page.wait_for_function("document.getAnimations().every(a => a.playState !== 'running')")
    page.add_script_tag(path=AXE)
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    return [
        f"{fault['id']}: {[node['html'][:200] for node in fault['nodes'][:4]]}"
        for fault in found["violations"]
        if fault["impact"] in ("serious", "critical")
    ]
