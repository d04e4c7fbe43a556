"""What a visitor takes home, saved by a browser and opened from disk; links bring settings back."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests import fakes
from tests.browser.test_accessibility import list_faults

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.browser

Serve = Callable[..., str]
Open = Callable[..., "Page"]

PATIENCE = 120_000
"""Milliseconds; a busy machine takes its time."""


def engines() -> dict[str, fakes.FakeEngine]:
    other = fakes.FakeEngine("max_hybrid", "MAX hybrid", words="The compiler <b>turned", noise=1e-6)
    return {"cpu": fakes.FakeEngine(), "max_hybrid": other}


def save(page: Page, button: str, folder: Path) -> Path:
    """Press a button and keep the file it gives."""
    with page.expect_download(timeout=PATIENCE) as started:
        page.click(button)
    path = folder / started.value.suggested_filename
    started.value.save_as(path)
    return path


def compare(page: Page) -> None:
    page.set_default_timeout(PATIENCE)
    page.click("#compare")
    page.wait_for_function("document.querySelectorAll('.lane--done').length === 2")


def test_files_are_saved_and_the_report_opens_offline(
    serve_fakes: Serve, open_page: Open, browser: Browser, tmp_path: Path
) -> None:
    page = open_page(serve_fakes(**engines()))
    page.set_default_timeout(PATIENCE)
    page.click("#save-record")
    page.locator("#take-away-note", has_text="press Compare").wait_for()
    compare(page)
    record = json.loads(save(page, "#save-record", tmp_path).read_text(encoding="utf-8"))
    assert [lane["engine"] for lane in record["lanes"]] == ["cpu", "max_hybrid"]
    assert save(page, "#save-srt-cpu", tmp_path).read_text().startswith("1\n00:00:00,000 --> ")
    assert "&lt;b&gt;turned" in save(page, "#save-vtt-max_hybrid", tmp_path).read_text()
    report = save(page, "#save-report", tmp_path)
    assert record["run"] in report.name
    for theme in ("light", "dark"):
        check_report(browser, report, theme)
        assert list_report_faults(browser, report, theme) == []


def check_report(browser: Browser, report: Path, theme: str) -> None:
    """The file, opened from disk without a network and without scripts."""
    context = browser.new_context(
        offline=True, java_script_enabled=False, color_scheme=theme,  # type: ignore[arg-type]
        viewport={"width": 390, "height": 800},
    )  # fmt: skip
    tab, asked = context.new_page(), []
    tab.on("request", lambda request: asked.append(request.url))
    tab.goto(report.as_uri())
    assert "turned" in tab.inner_text("main") and "Relative L2" in tab.inner_text("main")
    assert tab.locator("ins, del").count()
    assert tab.locator(".transcript b").count() == 0
    outside = [url for url in asked if not url.startswith(("file:", "data:"))]
    assert not outside
    context.close()


def list_report_faults(browser: Browser, report: Path, theme: str) -> list[str]:
    """What axe-core finds serious in the file, whose own policy would forbid it to run."""
    context = browser.new_context(
        bypass_csp=True, color_scheme=theme,  # type: ignore[arg-type]
    )  # fmt: skip
    tab = context.new_page()
    tab.goto(report.as_uri())
    faults = list_faults(tab)
    context.close()
    return faults


def test_a_link_brings_the_settings_to_another_visitor(serve_fakes: Serve, open_page: Open) -> None:
    url = serve_fakes(**engines())
    page = open_page(url)
    page.set_default_timeout(PATIENCE)
    page.locator("#words input").check()
    page.locator("#schedule label", has_text="One at a time").click()
    page.locator("#sample label", has_text="Talk").click()
    page.click("#link")
    page.wait_for_function("location.search.includes('sample=talk')")
    query = page.evaluate("location.search")
    assert "schedule=in-turn" in query and "words=1" in query and "__theme=light" in query
    other = open_page(url, query="&" + query.removeprefix("?"))
    other.set_default_timeout(PATIENCE)
    other.wait_for_function("document.querySelector('#words input').checked")
    chosen = "document.querySelector('#sample input:checked')?.value === 'talk'"
    other.wait_for_function(chosen)
    other.wait_for_function(
        "document.querySelector('#schedule input:checked')?.value === 'one at a time'"
    )
