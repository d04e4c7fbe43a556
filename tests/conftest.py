"""What tests share: a browser, and the page over fake engines."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from engines import logs
from tests.install_browser import find_browser

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

    from demo.limits import Limits
    from engines.base import Clip
    from tests.fake_lab import FakeLab

BROWSER_ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
]
"""The last two: a microphone that beeps, and no question whether the page may hear it."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of MAX are skipped, with the reason that the page gives, where it can't run."""
    from engines.hardware import why_no_max

    if reason := why_no_max():
        for item in items:
            if item.get_closest_marker("max"):
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(autouse=True)
def forget_log_handlers() -> Iterator[None]:
    """A test that sets logging up leaves no handler behind, whose stream would soon be closed."""
    yield
    root = logging.getLogger()
    for handler in [each for each in root.handlers if isinstance(each, logs.Handler)]:
        root.removeHandler(handler)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Headless Chromium; skipped where there is none, but never in CI."""
    from playwright.sync_api import sync_playwright

    path = os.environ.get("CHROMIUM") or find_browser()
    if path is None:
        reason = "no Chromium was found: run `make browser`, or set CHROMIUM to its path"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=BROWSER_ARGUMENTS)
        yield chromium
        chromium.close()


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Callable[..., Page]]:
    """Opens an address in a fresh tab; the test fails if the tab asks any other host."""
    strangers: list[str] = []
    contexts = []

    def open_at(url: str, theme: str = "light", width: int = 1400, query: str = "") -> Page:
        context = browser.new_context(viewport={"width": width, "height": 900})
        contexts.append(context)
        tab = context.new_page()
        tab.set_default_timeout(90_000)
        tab.on("request", lambda request: note_stranger(strangers, request.url))
        tab.goto(f"{url}?__theme={theme}{query}")
        tab.locator("#compare").wait_for()
        return tab

    yield open_at
    for context in contexts:
        context.close()
    assert not strangers, f"the page asked other hosts: {strangers}"


def note_stranger(strangers: list[str], url: str) -> None:
    """Keep the address of a request that leaves this machine."""
    local = ("http://127.0.0.1", "http://localhost", "data:", "blob:")
    if not url.startswith(local):
        strangers.append(url)


@pytest.fixture
def sample_folder(tmp_path: Path) -> Path:
    """Two short clips, one of them with its reference."""
    import soundfile

    from tests.fakes import make_clip

    folder = tmp_path / "samples"
    folder.mkdir()
    for name in ("short", "talk"):
        soundfile.write(folder / f"{name}.flac", make_clip(2.0).samples, 16_000)
    (folder / "short.txt").write_text("The compiler turns a graph into fast code for every chip")
    return folder


@pytest.fixture
def uploads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder for uploads of a page that the test serves."""
    folder = tmp_path / "uploads"
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(folder))
    return folder


@pytest.fixture
def lab() -> FakeLab:
    """A laboratory whose gate is open."""
    from tests.fake_lab import FakeLab

    made = FakeLab()
    made.gate.set()
    return made


@pytest.fixture
def serve_fakes(sample_folder: Path, uploads: Path) -> Iterator[Callable[..., str]]:
    """Serves the page over the given fake engines, and the given laboratory, at an address."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    from demo import page, serve, session
    from demo.keepsakes import Keepsakes
    from demo.limits import Limits
    from demo.runs import Runs
    from tests import fakes

    served = []

    def serve_page(
        limits: Limits | None = None,
        load_clip: Callable[..., Clip] = fakes.read_fake_clip,
        lab: FakeLab | None = None,
        **engines: Any,
    ) -> str:
        backend = session.Backend(
            statuses=lambda: fakes.STATUSES,
            get=lambda key, model, dtype: engines[key],
            models=lambda: ("tiny.en", "tiny.en"),
            load_clip=load_clip,
            samples=sample_folder,
            laboratory=lab.laboratory() if lab else None,
        )
        runs = Runs(limits or Limits())
        keepsakes = Keepsakes()
        blocks = page.build(backend, runs, keepsakes)
        served.append(blocks)
        _, url, _ = serve.serve(
            blocks, lambda: fakes.STATUSES, runs, keepsakes, prevent_thread_lock=True, quiet=True
        )
        return str(url)

    yield serve_page
    for blocks in served:
        blocks.close()
