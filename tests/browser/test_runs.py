"""A visitor opens earlier runs again, pins them and compares two."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests import fakes
from tests.browser.driving import Open, compare, edit

if TYPE_CHECKING:
    from tests.fake_page import FakePage

pytestmark = pytest.mark.browser


@pytest.mark.slow
def test_an_earlier_run_is_opened_pinned_and_compared(fake_page: FakePage, open_page: Open) -> None:
    page = open_page(fake_page.url)
    compare(page)
    fake_page.use(max_hybrid=fakes.fake_max(words="Another text"))
    edit(page)
    page.get_by_label("Address, 3:19").check()
    page.locator("#word_timestamps input").check()
    compare(page)
    assert "Another" in page.inner_text("#lanes")
    page.get_by_role("tab", name="Runs").click()
    rows = page.locator("#run-list tbody tr")
    rows.nth(1).wait_for()
    assert "Address" in rows.nth(0).inner_text() and "Kennedy" in rows.nth(1).inner_text()
    assert rows.nth(0).get_attribute("aria-current") == "true"
    rows.nth(1).get_by_role("button", name="Pin").click()
    rows.nth(1).get_by_role("button", name="Unpin").wait_for()
    page.click("#compare-runs")
    page.locator("#runs-note", has_text="Tick two runs").wait_for()
    for row in (0, 1):
        rows.nth(row).locator("input").check()
    page.click("#compare-runs")
    page.locator("#two-runs", has_text="The clips are not the same").wait_for()
    assert "Word timestamps" in page.inner_text("#two-runs")
    rows.nth(1).get_by_role("button", name="Open").click()
    page.locator("#lanes", has_text="for every chip").first.wait_for()
    page.locator("#lanes", has_text="Another").wait_for(state="detached")
    assert page.get_by_label("Kennedy, 11 s").is_checked()
    edit(page)
    assert not page.locator("#word_timestamps input").is_checked()
    page.wait_for_function("nameClip() === 'jfk'")
    compare(page)
    rows.nth(2).wait_for()
    assert [rows.nth(row).locator("input").is_checked() for row in range(3)] == [False, True, True]
    page.locator("#speed-accuracy-runs .plot").scroll_into_view_if_needed()
    page.locator("#speed-accuracy-runs .plot svg").first.wait_for()
    page.reload()
    page.get_by_role("tab", name="Runs").click()
    rows.nth(2).wait_for()
