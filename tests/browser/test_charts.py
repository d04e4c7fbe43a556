"""Charts in a browser: their script comes once and late; choices, clicks and themes redraw them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from demo.exports import render_report
from tests import fakes
from tests.browser.driving import Open, compare, show_features
from tests.demo.reading import compare as make_comparison

if TYPE_CHECKING:
    from playwright.sync_api import Browser

    from tests.fake_page import FakePage

pytestmark = pytest.mark.browser

SCRIPT = "plotly.min.js"
DRAWN = (
    """name => document.querySelector(`.plot[data-name=${name}] .canvas`)?._fullLayout != null"""
)
LAYOUT = "name => document.querySelector(`.plot[data-name=${name}] .canvas`)._fullLayout"
SHOWN = """name => document.querySelector(`.plot[data-name=${name}] .canvas`)._fullData
  .filter(trace => trace.visible === true).map(trace => trace.name)"""


def test_charts_are_drawn_late_and_follow_choices_clicks_and_the_theme(
    fake_page: FakePage, open_page: Open
) -> None:
    fake_page.use(max_hybrid=fakes.fake_max(noise=0.1))
    page, asked = open_page(fake_page.url), []
    page.on("request", lambda request: asked.append(request.url))
    assert not [url for url in asked if SCRIPT in url], "no chart is in view"
    compare(page)
    show_features(page)
    map_ = page.locator(".plot[data-name=encoder-map]")
    before = map_.evaluate("plot => plot.scrollHeight")
    map_.scroll_into_view_if_needed()
    page.wait_for_function(DRAWN, arg="encoder-map")
    page.wait_for_function(DRAWN, arg="encoder-histograms")
    assert len([url for url in asked if SCRIPT in url]) == 1
    assert map_.evaluate("plot => plot.scrollHeight") == before, "nothing moved"

    page.evaluate("() => { window.heard = []; window.playFrom = (at) => heard.push(at); }")
    area = map_.locator(".nsewdrag").first
    area.hover()
    map_.locator(".hoverlayer .hovertext").wait_for()
    area.click()
    page.wait_for_function("heard.length === 1 && Math.abs(heard[0] - 3) < 0.2")
    map_.get_by_text("MAX hybrid − CPU", exact=True).click()
    page.wait_for_function(f"(({SHOWN})('encoder-map')).join() === 'MAX hybrid − CPU'")

    histograms = page.locator(".plot[data-name=encoder-histograms]")
    histograms.get_by_text("Logarithmic").click()
    page.wait_for_function(f"(({LAYOUT})('encoder-histograms')).yaxis.type === 'log'")
    histograms.get_by_text("Overlaid").click()
    page.wait_for_function(f"(({LAYOUT})('encoder-histograms')).xaxis.domain[1] === 1")
    light = page.evaluate(f"(({LAYOUT})('encoder-histograms')).font.color")
    page.evaluate("document.body.classList.add('dark')")
    page.wait_for_function(
        f"light => (({LAYOUT})('encoder-histograms')).font.color !== light", arg=light
    )
    assert page.evaluate(f"(({LAYOUT})('encoder-histograms')).yaxis.type") == "log", "choices stay"
    with page.expect_download() as saved:
        histograms.locator(".save-png").click()
    assert saved.value.suggested_filename == "encoder-histograms.png"


def test_the_report_draws_its_charts_without_a_network(browser: Browser, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text(render_report(make_comparison(noise=0.1)), encoding="utf-8")
    context = browser.new_context(offline=True)
    tab, complaints = context.new_page(), []
    tab.on("console", lambda line: complaints.append(line.text))
    tab.goto(path.as_uri())
    tab.locator(".plot[data-name=encoder-map]").scroll_into_view_if_needed()
    tab.wait_for_function(DRAWN, arg="encoder-map")
    for part in ("#race .seconds", "#lanes .segment"):
        assert tab.locator(part).first.is_visible()
    term = tab.locator(".badge .term")
    tip = "term => getComputedStyle(term, '::after').content"
    assert term.evaluate(tip) == "none"
    term.focus()
    assert term.evaluate(tip) != "none", "what a term means is there without a script"
    assert complaints == []
    context.close()
