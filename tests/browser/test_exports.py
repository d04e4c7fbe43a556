"""What a visitor exports, saved by a browser and opened from disk; links bring settings back."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest

from demo.rules import RULES
from tests import fakes
from tests.browser.driving import (
    Open,
    compare,
    edit,
    list_axe_faults,
    open_tab,
    wait_for_states,
    wait_until,
)

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page, Route

    from tests.fake_page import FakePage

pytestmark = pytest.mark.browser


def save(page: Page, button: str, folder: Path) -> Path:
    """Press a button and keep the file it gives."""
    with page.expect_download() as started:
        page.click(button)
    path = folder / started.value.suggested_filename
    started.value.save_as(path)
    return path


def test_files_are_saved_and_the_report_opens_offline(
    fake_page: FakePage, open_page: Open, browser: Browser, tmp_path: Path
) -> None:
    fake_page.use(max_hybrid=fakes.fake_max(words="The compiler <b>turned"))
    page = open_page(fake_page.url)
    open_tab(page, "Export")
    page.click("#save-json")
    page.locator("#export-note", has_text="press Compare").wait_for()
    compare(page)
    record = json.loads(save(page, "#save-json", tmp_path).read_text(encoding="utf-8"))
    assert [lane["engine"] for lane in record["lanes"]] == ["cpu", "max_hybrid"]
    assert save(page, "#save-srt", tmp_path).read_text().startswith("1\n00:00:00,000 --> ")
    page.get_by_label("Words of").click()
    page.get_by_role("option", name="MAX hybrid").click()
    assert "turned" in save(page, "#save-vtt", tmp_path).read_text()
    with zipfile.ZipFile(save(page, "#save-zip", tmp_path)) as archive:
        assert archive.testzip() is None and len(archive.namelist()) == 11
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.click("#copy-words")
    page.locator("#export-note", has_text="on the clipboard").wait_for()
    assert "turned" in page.evaluate("navigator.clipboard.readText()")
    report = save(page, "#save-html", tmp_path)
    assert record["run"] in report.name
    for theme in ("light", "dark"):
        check_report(browser, report, theme)


def check_report(browser: Browser, report: Path, theme: Any) -> None:
    """The file, opened from disk without a network and without scripts, and then by axe-core,
    which the report's own policy would forbid to run."""
    plain = browser.new_context(
        offline=True,
        java_script_enabled=False,
        color_scheme=theme,
        viewport={"width": 390, "height": 800},
    )
    tab, asked = plain.new_page(), []
    tab.on("request", lambda request: asked.append(request.url))
    tab.goto(report.as_uri())
    text = tab.inner_text("main")
    assert "turned" in text and "chip" in text
    assert tab.locator("ins, del").count()
    assert tab.locator(".transcript b").count() == 0
    assert not [url for url in asked if not url.startswith(("file:", "data:"))]
    plain.close()
    checked = browser.new_context(bypass_csp=True, color_scheme=theme)
    tab = checked.new_page()
    tab.goto(report.as_uri())
    assert list_axe_faults(tab, both=False) == []
    checked.close()


PART = "#clip_timestamps input"


def test_who_presses_at_once_runs_what_the_link_says(fake_page: FakePage, open_page: Open) -> None:
    page = open_page(fake_page.url)
    held: list[Route] = []
    page.route("**/gradio_api/run/**", lambda route: held.append(route))  # the link's settings
    page.goto(f"{fake_page.url}?temperature=0%2C0.4")
    page.locator("#compare").wait_for(state="attached")
    wait_until(page, lambda: held, "the page's request")
    page.wait_for_timeout(500)
    assert page.locator("#compare").is_hidden()
    page.unroute("**/gradio_api/run/**")  # which lets them through
    page.click("#compare")
    wait_for_states(page, "done", "done")
    assert "Temperatures: 0, 0.4" in page.inner_text("#chips")


@pytest.mark.slow
def test_a_link_brings_the_settings_to_another_visitor(
    fake_page: FakePage, open_page: Open
) -> None:
    page = open_page(fake_page.url)
    edit(page)
    page.locator("#word_timestamps input").check()
    page.get_by_label("Each alone", exact=True).check()
    page.fill(PART, "1")
    page.locator("#sample label", has_text="Address").click()
    page.wait_for_function(f"document.querySelector('{PART}').value === ''")  # another clip's
    page.wait_for_function("nameClip() === 'columbia'")
    page.wait_for_function("document.querySelector('.part .to')?.value === '2'")
    for slider, key, part in (("from", "ArrowRight", "0.1"), ("to", "ArrowLeft", "0.1, 1.9")):
        page.locator(f".part .{slider}").press(key)
        page.wait_for_function(f"document.querySelector('{PART}').value === '{part}'")
    open_tab(page, "Export")
    page.click("#link")
    page.wait_for_function("location.search.includes('sample=columbia')")
    query = page.evaluate("location.search")
    changed = ("__theme=light", "schedule=in-turn", "words=1", "part=0.1%2C1.9", "sample=columbia")
    assert set(query.removeprefix("?").split("&")) == set(changed)
    page.locator("#word_timestamps input").uncheck()
    page.click("#link")
    page.wait_for_function("!location.search.includes('words')")
    other = open_page(fake_page.url, query="&" + query.removeprefix("?"))
    edit(other)
    other.wait_for_function("document.querySelector('#word_timestamps input').checked")
    other.wait_for_function("nameClip() === 'columbia'")
    other.wait_for_function("document.querySelector('.part .to')?.value === '1.9'")
    other.wait_for_function(
        "document.querySelector('#schedule input:checked')?.value === 'one at a time'"
    )
    markup = quote("\"'></title><img src=x onerror='window.harmed=1'><script>harmed=1</script>")
    links = (f"&{rule.link}={markup}" for rule in RULES.values() if rule.link)
    third = open_page(fake_page.url, query="".join(links) + f"&{markup}={markup}")
    edit(third)
    third.wait_for_function("nameClip() === 'jfk'")
    assert third.evaluate("window.harmed") is None
