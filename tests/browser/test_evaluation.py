"""A visitor brings many clips, stops and goes on, saves the lines, and opens a clip."""

from __future__ import annotations

import json
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING

import pytest

from tests import fakes
from tests.browser.driving import Open, list_axe_faults, tab_to

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from tests.fake_page import FakePage

pytestmark = pytest.mark.browser

OTHER = fakes.WORDS.replace("fast", "slow")


def bring(page: Page, *paths: Path) -> None:
    """Add files to those that are there."""
    with page.expect_file_chooser() as chooser:
        page.click("#add-files")
    chooser.value.set_files(paths)


def test_many_clips_are_run_stopped_gone_on_saved_and_opened(
    fake_page: FakePage, open_page: Open, sample_folder: Path, tmp_path: Path
) -> None:
    gate = Event()
    fake_page.use(max_hybrid=fakes.fake_max(words=OTHER))
    for name in ("one.flac", "two.flac", "three.flac"):
        (tmp_path / name).write_bytes((sample_folder / "jfk.flac").read_bytes())
    (tmp_path / "two.txt").write_text(OTHER)
    (tmp_path / "words.jsonl").write_text(json.dumps({"audio": "one.flac", "text": fakes.WORDS}))
    page = open_page(fake_page.url)
    tab_to(page, "#show-clips")
    page.keyboard.press("Enter")
    status = page.locator("#evaluate-status")
    page.click("#evaluate")
    status.get_by_text("There are no clips yet").wait_for()
    dropped = [tmp_path / name for name in ("one.flac", "two.flac", "two.txt")]
    page.set_input_files("#clip-files input[type=file]", dropped)
    status.get_by_text("2 clips, 1 with their words.").wait_for()
    bring(page, tmp_path / "three.flac", tmp_path / "words.jsonl")
    status.get_by_text("3 clips, 2 with their words.").wait_for()
    engine = fakes.FakeEngine(last_word=gate)
    fake_page.use(cpu=engine)
    page.click("#evaluate")
    page.locator("#clip-table [data-state=running]").wait_for()
    assert page.locator("#clip-table tbody tr").count() == 3
    page.click("#evaluate-stop")
    status.get_by_text("Stopped after 0 of 6 runs").wait_for()
    gate.set()
    page.locator("#evaluate:enabled").click()
    status.get_by_text("3 clips through 2 engines.").wait_for()
    cells = page.locator("#clip-table td").all_inner_texts()
    assert [cell.split()[0] for cell in cells] == ["0.0%", "9.1%", "11", "1", "9.1%", "0.0%"]
    assert "4.55%" in page.inner_text("#clip-totals")
    assert list_axe_faults(page) == []
    with page.expect_download() as download:
        page.click("#save-lines")
    lines = [json.loads(line) for line in Path(download.value.path()).read_text().splitlines()]
    assert len(lines) == 6 and lines[0]["clip"] == "one.flac" and lines[0]["error_rate"] == 0
    page.reload()
    page.get_by_role("tab", name="Many clips").click()
    page.locator("#clip-chart .plot").wait_for()
    page.locator("#clip-chart .plot").scroll_into_view_if_needed()
    dot = page.locator("#clip-chart .scatterlayer .point").nth(1)
    dot.wait_for()
    place = dot.bounding_box()
    assert place is not None
    page.mouse.move(place["x"] + 4, place["y"] + 4)
    page.locator("#clip-chart .hoverlayer .hovertext").first.wait_for()
    page.mouse.click(place["x"] + 4, place["y"] + 4)
    page.locator(".lane--done").nth(1).wait_for()
    page.locator("#summary", has_text="9.1%").wait_for()
    page.wait_for_function("nameClip().endsWith('/two.flac')")


@pytest.mark.slow
def test_only_differences_hides_rows_and_an_earlier_file_goes_on(
    fake_page: FakePage, open_page: Open, sample_folder: Path, tmp_path: Path
) -> None:
    page = open_page(fake_page.url, width=390)
    page.click("#show-clips")
    page.click("#take-samples")
    page.locator("#evaluate-status").get_by_text("2 clips, 1 with their words.").wait_for()
    page.click("#evaluate")
    page.locator("#clip-chart .plot").wait_for()
    rows = page.locator("#clip-table tbody tr:visible")
    assert rows.count() == 2
    page.locator("#only-differences input").check()
    rows.first.wait_for(state="hidden")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    with page.expect_download() as download:
        page.click("#save-lines")
    download.value.save_as(tmp_path / "evaluation.jsonl")
    broken = fakes.FakeEngine(error=RuntimeError("It would run again."))
    fake_page.use(cpu=broken, max_hybrid=broken)
    other = open_page(fake_page.url)
    other.click("#show-clips")
    other.click("#take-samples")
    bring(other, tmp_path / "evaluation.jsonl")
    other.locator("#evaluate-status").get_by_text("4 lines of an earlier run").wait_for()
    other.click("#evaluate")
    other.locator("#evaluate-status").get_by_text("2 clips through 2 engines.").wait_for()
    other.locator("#clip-table button", has_text="columbia").click()
    other.locator("#summary").get_by_text("It would run again").first.wait_for()
