"""`python app.py` told to end: what runs is stopped and says so, and nothing is left behind."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest
from gradio_client import Client
from gradio_client.exceptions import AppError

from tests.processes import needs_proc, wait_until
from tests.running_app import END_SECONDS, START_SECONDS, App

pytestmark = [needs_proc, pytest.mark.slow]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., App]]:
    """Starts the page, its uploads in a folder of the test's."""
    ours = os.environ | {"GRADIO_TEMP_DIR": str(tmp_path / "uploads")}
    with ExitStack() as pages:
        yield lambda **more: pages.enter_context(closing(App(tmp_path, ours | more)))


def test_sigterm_stops_what_runs_and_leaves_nothing(
    start: Callable[..., App], connect: Callable[..., Client], tmp_path: Path
) -> None:
    """With variables of docs/limits.md and docs/hosting.md, for a page that others reach."""
    public = {"DEMO_PROXY": "1", "FORWARDED_ALLOW_IPS": "192.0.2.1", "LOG_FORMAT": "json"}
    app = start(DEMO_QUEUE="7", DEMO_RATE="2", **public)
    claimed = {"X-Forwarded-For": "192.0.2.7"}  # nobody who may say so
    clients = [connect(app.url, headers=claimed) for _ in range(2)]
    ask: dict[str, Any] = {"sample": "columbia", "engines": ["cpu"], "api_name": "/compare"}
    first = clients[0].submit(repeats=5, **ask)
    wait_until(lambda: app.queue()["running"] == 1, "the first run", START_SECONDS)
    second = clients[1].submit(**ask)
    wait_until(lambda: app.queue()["waiting"] == 1, "the second run's waiting", START_SECONDS)
    claimed["X-Forwarded-For"] = "192.0.2.8"
    with pytest.raises(AppError, match="2 runs a minute are the most for one visitor"):
        connect(app.url, headers=claimed).predict(**ask)
    assert app.queue()["most_waiting"] == 7
    wait_until(lambda: '"engine": "cpu"' in app.log.read_text(), "the engine", START_SECONDS)
    assert len(app.find_processes()) > 1 and any((tmp_path / "uploads").glob("clips-*"))
    said = app.end(signal.SIGTERM)
    assert first.result(END_SECONDS)["headline"].startswith("Stopped.")
    with pytest.raises(AppError, match="The page is closing"):
        second.result(END_SECONDS)
    assert not list((tmp_path / "uploads").glob("clips-*"))
    assert "Traceback" not in said and "memory runs out" not in said, said


def test_ctrl_c_ends_a_page_that_compiles(start: Callable[..., App], tmp_path: Path) -> None:
    """With nothing cached MAX compiles for a minute after the start, where there is MAX."""
    app = start(MAX_WHISPER_CACHE=str(tmp_path / "cache"))
    wait_until(lambda: len(app.find_processes()) > 1, "an engine's process", START_SECONDS)
    assert "Traceback" not in app.end(signal.SIGINT)
    assert not list((tmp_path / "uploads").glob("clips-*"))
