"""`python app.py` told to end: what runs is stopped and says so, and nothing is left behind."""

from __future__ import annotations

import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from gradio_client import Client
from gradio_client.exceptions import AppError

from tests.processes import PATIENCE, needs_proc, wait_until

pytestmark = needs_proc

ROOT = Path(__file__).resolve().parents[1]
START_SECONDS, END_SECONDS = 180.0, 60.0
"""Bounds on a busy machine: an end takes some two seconds where nothing else runs."""


def find_marked(mark: str) -> dict[int, str]:
    """The living processes that have a word in their environment, with their commands."""
    found = {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError):
            if mark.encode() in Path(f"/proc/{name}/environ").read_bytes():
                command = Path(f"/proc/{name}/cmdline").read_bytes().replace(b"\0", b" ")
                found[int(name)] = command.decode(errors="replace")
    return found


class App:
    """The page in a process of its own, with a mark by which its processes are found."""

    def __init__(self, folder: Path, **variables: str) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.mark, self.log = uuid.uuid4().hex, folder / "log.txt"
        self.uploads = folder / "uploads"
        self.url = f"http://127.0.0.1:{port}/"
        environment = {
            **os.environ,
            "GRADIO_SERVER_PORT": str(port),
            "GRADIO_TEMP_DIR": str(self.uploads),
            "MARK": self.mark,
            **variables,
        }
        with self.log.open("w") as out:
            self.process = subprocess.Popen(
                [sys.executable, "app.py"], cwd=ROOT, env=environment, stdout=out, stderr=out
            )
        wait_until(self.answers, "the start of the page", START_SECONDS)

    def answers(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        with suppress(httpx.HTTPError):
            return httpx.get(f"{self.url}health").status_code == 200
        return False

    def queue(self) -> Any:
        return httpx.get(f"{self.url}health", timeout=60).json()["queue"]

    def end(self) -> None:
        """Leave nothing behind, whatever the test found."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for number in find_marked(self.mark):
            with suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)


@pytest.fixture
def app(tmp_path: Path) -> Iterator[App]:
    started = App(tmp_path)
    yield started
    started.end()


def test_sigterm_stops_what_runs_and_leaves_nothing(app: App) -> None:
    clients = [Client(app.url, verbose=False) for _ in range(2)]
    ask: dict[str, Any] = {"sample": "columbia", "engines": ["cpu"], "api_name": "/compare"}
    first = clients[0].submit(repeats=5, **ask)
    wait_until(lambda: app.queue()["running"] == 1, "the first run", START_SECONDS)
    second = clients[1].submit(**ask)
    wait_until(lambda: app.queue()["waiting"] == 1, "the second run's waiting", START_SECONDS)
    wait_until(lambda: "engine=cpu" in app.log.read_text(), "the engine", START_SECONDS)
    assert len(find_marked(app.mark)) > 1 and any(app.uploads.glob("clips-*"))
    app.process.send_signal(signal.SIGTERM)
    assert app.process.wait(END_SECONDS) == 0, app.log.read_text()
    assert first.result(END_SECONDS)["headline"].startswith("Stopped.")
    with pytest.raises(AppError, match="The page is closing"):
        second.result(END_SECONDS)
    wait_until(lambda: not find_marked(app.mark), "the end of every process", END_SECONDS)
    assert not list(app.uploads.glob("clips-*"))
    said = app.log.read_text()
    assert "Traceback" not in said and "memory runs out" not in said, said
    for client in clients:
        client.close()


@pytest.mark.slow
def test_ctrl_c_ends_a_page_that_compiles(tmp_path: Path) -> None:
    """With nothing cached MAX compiles for a minute after the start, where there is MAX."""
    app = App(tmp_path, MAX_WHISPER_CACHE=str(tmp_path / "cache"))
    try:
        wait_until(lambda: len(find_marked(app.mark)) > 1, "an engine's process", START_SECONDS)
        app.process.send_signal(signal.SIGINT)
        assert app.process.wait(END_SECONDS) == 0, app.log.read_text()
        wait_until(lambda: not find_marked(app.mark), "the end of every process", END_SECONDS)
        assert not list(app.uploads.glob("clips-*"))
        assert "Traceback" not in app.log.read_text()
    finally:
        app.end()


def test_the_end_waits_until_the_last_message_is_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    from demo import serve

    monkeypatch.setattr(serve, "LAST_WORDS_SECONDS", 600.0)
    messages: queue.SimpleQueue[str] = queue.SimpleQueue()
    messages.put("stopped")
    gradio = SimpleNamespace(
        active_jobs=[None, [SimpleNamespace(session_hash="tab")]],
        pending_messages_per_session={"tab": messages},
    )
    page: Any = SimpleNamespace(_queue=gradio)
    assert serve.list_asking(page) == ["tab"]
    waiting = threading.Thread(target=serve.wait_for_last_words, args=(page, ["tab"]), daemon=True)
    waiting.start()
    for change in (lambda: gradio.active_jobs.pop(), messages.get):
        waiting.join(0.5)
        assert waiting.is_alive()
        change()
    waiting.join(PATIENCE)
    assert not waiting.is_alive()
    monkeypatch.setattr(serve, "LAST_WORDS_SECONDS", 0.1)
    gradio.active_jobs.append(["a run that goes on"])
    serve.wait_for_last_words(page, ["tab"])


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("DEMO_QUEUE", "many", "DEMO_QUEUE must be a whole number from 1 up, and 'many' isn't."),
        ("DEMO_GPU_SECONDS", "2m", "DEMO_GPU_SECONDS must be a whole number from 1 up, and '2m'"),
        ("DEMO_AUTH", "me", "DEMO_AUTH must be name:password, with something on both sides."),
    ],
)
def test_a_wrong_variable_ends_the_start_with_a_sentence(
    name: str, value: str, sentence: str
) -> None:
    environment = {**os.environ, name: value}
    done = subprocess.run(
        [sys.executable, "app.py"], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].startswith(sentence)
    assert "Traceback" not in done.stderr and "engine" not in done.stdout
