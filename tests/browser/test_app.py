"""The whole road: `python app.py` with the real engines, driven in headless Chromium."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from engines import registry
from tests.browser.driving import compare_bad_file

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.browser

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 120
FINISH_SECONDS = 240
"""A first run compiles the graph: more than a minute on a small machine."""


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The app's address, served by a process of its own."""
    log = tmp_path_factory.mktemp("app") / "log.txt"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    url, variables = f"http://127.0.0.1:{port}", {**os.environ, "GRADIO_SERVER_PORT": port}
    with log.open("w") as out:
        process = subprocess.Popen(
            [sys.executable, "app.py"], cwd=ROOT, env=variables, stdout=out, stderr=out
        )
    deadline = time.monotonic() + START_SECONDS
    try:
        while True:
            with suppress(httpx.HTTPError):
                httpx.get(url, timeout=5)
                break
            if process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"app.py does not answer:\n{log.read_text()}")
            time.sleep(0.1)
        yield url
    finally:
        process.terminate()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()


def compare(page: Page) -> None:
    """Press Compare and wait until every lane is at an end."""
    page.click("#compare")
    page.locator("#compare:disabled").wait_for()
    page.wait_for_function(
        "[...document.querySelectorAll('.lane')].every("
        "lane => ['done', 'failed', 'stopped'].includes(lane.dataset.state))",
        timeout=FINISH_SECONDS * 1000,
    )
    page.locator("#compare:enabled").wait_for()


def list_states(page: Page) -> set[str | None]:
    """The lanes' states, each once."""
    return {lane.get_attribute("data-state") for lane in page.locator(".lane").all()}


def test_one_click_gives_the_same_words_in_every_lane(
    address: str, open_page: Callable[..., Page]
) -> None:
    page = open_page(address)
    compare(page)
    lanes = {str(lane.get_attribute("data-engine")): lane for lane in page.locator(".lane").all()}
    assert tuple(lanes) == registry.available()
    words = {}
    for key, lane in lanes.items():
        assert lane.get_attribute("data-state") == "done", lane.inner_text()
        words[key] = " ".join(lane.locator(".segment > span").all_inner_texts())
    assert words["cpu"].endswith("ask what you can do for your country.")
    assert len(set(words.values())) == 1, words


@pytest.mark.slow
def test_a_bad_file_and_a_bad_checkpoint_get_a_sentence_and_the_page_goes_on(
    address: str, open_page: Callable[..., Page], tmp_path: Path
) -> None:
    notes, broken = tmp_path / "notes.mp3", tmp_path / "broken.pt"
    notes.write_text("these are no sounds")
    broken.write_text("these are no weights")
    page = open_page(address)
    compare_bad_file(page, notes)
    assert "notes.mp3 can't be read as audio" in page.inner_text("#summary")
    page.get_by_label("Kennedy, 11 s").check()
    choose_model(page, str(broken))
    compare(page)
    assert list_states(page) == {"failed"}
    for lane in page.locator(".lane").all():
        assert "broken.pt" in lane.inner_text()
    choose_model(page, "tiny.en")
    compare(page)
    assert list_states(page) == {"done"}


def choose_model(page: Page, name: str) -> None:
    """Type a model's name or path."""
    page.locator("#model input").fill(name)
    page.locator("#model input").press("Enter")


@pytest.mark.slow
@pytest.mark.max
def test_the_analyses_find_what_a_missing_norm_does(
    address: str, open_page: Callable[..., Page]
) -> None:
    pytest.importorskip("max.engine")
    page = open_page(address)
    page.set_default_timeout(FINISH_SECONDS * 1000)
    page.locator("#audio .play-pause-button").wait_for()
    page.click("#inspect")
    page.locator("#layers .chooser").first.wait_for(state="attached")
    verdicts = page.locator("#layers .verdicts li").all_inner_texts()
    assert verdicts
    assert all("matches PyTorch CPU, float32 at every stage" in said for said in verdicts), verdicts
    page.locator("#faults").get_by_label("ln_post left out", exact=True).check()
    page.get_by_text("The 2025 attempt left out the last layer norm").wait_for()
    page.click("#fault")
    page.locator("#finding .chooser").first.wait_for(state="attached")
    assert page.inner_text("#finding .first strong") == "ln_post"
    right, faulty = page.locator("#finding .texts section").all()[:2]
    said = right.locator(".said").inner_text()
    assert right.inner_text().startswith("Without the fault")
    assert len(said.split()) > 5
    assert faulty.inner_text().startswith("With it")
    assert said not in faulty.inner_text()
    status = page.inner_text("#fault-status")
    assert re.search(r"first shows at ln_post, \d+ words? changed", status), status
