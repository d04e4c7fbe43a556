"""What tests share: a browser, and the page over fake engines."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from engines import logs
from tests.install_browser import find_browser

if TYPE_CHECKING:
    from gradio_client import Client
    from playwright.sync_api import Browser, Page

    from tests.fake_page import FakePage

BROWSER_ARGUMENTS = [
    "--disable-gpu",
    "--disable-quic",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
]
"""The last two: a microphone that beeps, and no question whether the page may hear it."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    from engines.hardware import why_no_max

    if reason := why_no_max():
        for item in items:
            if item.get_closest_marker("max"):
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(autouse=True)
def forget_log_handlers() -> Iterator[None]:
    """A test that sets logging up leaves no handler behind, whose stream would soon be closed."""
    yield
    logs.remove()


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Headless Chromium; skipped where there is none, but never in CI."""
    from playwright.sync_api import sync_playwright

    path = find_browser()
    if path is None:
        reason = "no Chromium was found: run `make browser`, or set CHROMIUM to its path"
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(reason)
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=path, args=BROWSER_ARGUMENTS)


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Callable[..., Page]]:
    """Opens an address in a fresh tab; the test fails if the tab asks any other host."""
    asked: list[str] = []
    with ExitStack() as tabs:

        def open_at(url: str, width: int = 1400, query: str = "", ready: str = "#compare") -> Page:
            tab = tabs.enter_context(closing(browser.new_page()))
            tab.set_viewport_size({"width": width, "height": 900})
            tab.set_default_timeout(90_000)
            tab.on("request", lambda request: asked.append(request.url))
            tab.goto(f"{url}?__theme=light{query}")
            tab.locator(ready).first.wait_for()
            return tab

        yield open_at
    local = ("http://127.0.0.1", "http://localhost", "data:", "blob:")
    strangers = [url for url in asked if not url.startswith(local)]
    assert not strangers, f"the page asked other hosts: {strangers}"


@pytest.fixture(scope="module")
def sample_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two short clips, one of them with its reference."""
    import soundfile

    from tests.fakes import make_clip

    folder = tmp_path_factory.mktemp("samples")
    for name in ("jfk", "columbia"):
        soundfile.write(folder / f"{name}.flac", make_clip(2.0).samples, 16_000)
    (folder / "jfk.txt").write_text("The compiler turns a graph into fast code for every chip")
    return folder


@pytest.fixture(scope="module")
def uploads(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder for uploads of the pages that a module serves."""
    folder = tmp_path_factory.mktemp("uploads")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(folder))
        yield folder


@pytest.fixture(scope="module")
def serve_fakes(sample_folder: Path, uploads: Path) -> Iterator[Callable[..., FakePage]]:
    """Serves a page over fakes, with the given limits."""
    from tests.fake_page import FakePage

    with ExitStack() as pages:
        yield lambda **how: pages.enter_context(closing(FakePage(sample_folder, **how)))


@pytest.fixture(scope="module")
def shared_page(serve_fakes: Callable[..., FakePage]) -> FakePage:
    """The page that the tests of a module share."""
    return serve_fakes()


@pytest.fixture
def connect() -> Iterator[Callable[..., Client]]:
    """Connects programs to a page, each a visitor of its own."""
    from gradio_client import Client

    with ExitStack() as clients:
        yield lambda url, **how: clients.enter_context(closing(Client(url, verbose=False, **how)))


@pytest.fixture
def fake_page(shared_page: FakePage) -> FakePage:
    """The module's page as if just started."""
    shared_page.reset()
    return shared_page
