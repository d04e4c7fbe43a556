"""On Hugging Face Spaces: what differs there, and the whole of it in an environment of its own."""

from __future__ import annotations

import base64
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from unittest import mock

import httpx
import pytest
from gradio_client import Client

from demo import limits, server
from engines import registry
from engines.audio import load_clip
from engines.checkpoints import sources
from tests.processes import needs_proc
from tests.running_app import App
from tests.test_readme import front_matter
from tests.test_setup import ROOT, tracked_files

__all__ = ["front_matter"]

VARIABLES = ("SPACE_ID", "GRADIO_SERVER_NAME", "XDG_CACHE_HOME", "MAX_WHISPER_CACHE")


@pytest.fixture
def environment() -> Iterator[None]:
    """A Space's, without what this machine has set; put back afterwards, whoever changed it."""
    with mock.patch.dict(os.environ):
        for name in VARIABLES:
            os.environ.pop(name, None)
        os.environ["SPACE_ID"] = "somebody/one-clip"
        yield


def test_a_space_is_public_and_keeps_what_it_makes_in_persistent_storage(
    environment: None, tmp_path: Path
) -> None:
    server.set_environment(tmp_path)
    assert sources.openai_file("base") == tmp_path / "cache" / "whisper" / "base.pt"
    assert os.environ["MAX_WHISPER_CACHE"] == str(tmp_path / "max-whisper")
    assert not list(tmp_path.iterdir())
    assert server.pick_address() == "0.0.0.0"
    assert not server.is_private() and limits.read_limits(server.is_private()).a_minute


def test_nothing_is_set_elsewhere_nor_without_storage_nor_what_the_owner_set(
    environment: None, tmp_path: Path
) -> None:
    server.set_environment(tmp_path / "absent")
    assert not {"XDG_CACHE_HOME", "MAX_WHISPER_CACHE"} & set(os.environ)
    os.environ |= {"MAX_WHISPER_CACHE": "/elsewhere", "GRADIO_SERVER_NAME": "127.0.0.1"}
    server.set_environment(tmp_path)
    assert os.environ["MAX_WHISPER_CACHE"] == "/elsewhere"
    assert server.pick_address() is None and not server.is_private()
    for name in VARIABLES:
        os.environ.pop(name, None)
    server.set_environment(tmp_path)
    assert not set(VARIABLES) & set(os.environ)
    assert server.pick_address() is None and server.is_private()


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        *(
            ("DEMO_QUEUE", wrong, f"a whole number from 1 to 10000, and '{wrong}'")
            for wrong in ("0", "many", "-3", "1.5", "99999999999")
        ),
        ("DEMO_GPU_SECONDS", "2m", "a whole number from 1 to 3600"),
        ("GRADIO_SERVER_PORT", "x", "a port such as 7860"),
        ("DEMO_AUTH", ":secret", "name:password, with something on both sides."),
    ],
)
def test_a_wrong_variable_ends_the_start_with_a_sentence(
    name: str, value: str, sentence: str, environment: None
) -> None:
    os.environ[name] = value
    with pytest.raises(SystemExit, match=f"{name} must be {sentence}") as caught:
        server.set_environment()
    assert "secret" not in str(caught.value)


def test_a_taken_port_is_told_and_not_passed_over(environment: None) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        os.environ["GRADIO_SERVER_PORT"] = str(taken.getsockname()[1])
        with pytest.raises(SystemExit, match="is taken by another program"):
            server.set_environment()


# The whole, once: some gigabytes are installed, so one test asks everything of one page.

NEWEST_OF_ZERO_GPU = "2.11.0"

SECRETS = {"HF_TOKEN": "hf_neverToBeSeen", "DEMO_AUTH": "somebody:neverToBeSeenEither"}


def run_pip(python: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """One pip command of the new environment."""
    command = [str(python), "-m", "pip", "--disable-pip-version-check", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A new environment's, with `requirements.txt` alone: 3.12 as on a Space, where it is here."""
    folder = tmp_path_factory.mktemp("space") / "environment"
    newest = shutil.which("python3.12") or sys.executable
    made = subprocess.run([newest, "-m", "venv", str(folder)], check=False)
    if made.returncode:  # a version manager's stand-in for one that is not installed
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
    python = folder / "bin" / "python"
    tried = run_pip(python, "install", "--dry-run", "--no-deps", "structlog", "--no-cache-dir")
    if tried.returncode:
        pytest.skip(f"no package index is reachable: {tried.stderr.strip()[-200:]}")
    installed = run_pip(python, "install", "--quiet", "-r", "requirements.txt")
    assert installed.returncode == 0, installed.stderr[-2000:]
    yield python
    shutil.rmtree(folder)  # gigabytes, which pytest would keep


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository's files and nothing else."""
    folder = tmp_path_factory.mktemp("space") / "app"
    for path in tracked_files("--cached", "--others", "--exclude-standard"):
        copy = folder / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)
    return folder


@pytest.fixture
def app(python: Path, checkout: Path, tmp_path: Path) -> Iterator[App]:
    """The page as Spaces starts it, and with what its owner keeps secret."""
    with closing(start_space(python, checkout, tmp_path, **SECRETS)) as started:
        yield started


def start_space(python: Path, checkout: Path, tmp_path: Path, **more: str) -> App:
    """The page with a Space's variables, and more.

    Without the server's name, which Spaces sets as well: the page knows where to listen.
    """
    pytest.importorskip("max.engine")
    from engines.max_graph.compile_cache import cache_folder

    (tmp_path / "home").mkdir()
    variables = {
        "PATH": f"{python.parent}:/usr/local/bin:/usr/bin:/bin",
        "HOME": str(tmp_path / "home"),
        "LANG": "C.UTF-8",
        "SYSTEM": "spaces",
        "SPACE_ID": "somebody/one-clip",
        "SPACE_HOST": "somebody-one-clip.hf.space",
        "SPACE_AUTHOR_NAME": "somebody",
        "PYTHONUNBUFFERED": "1",
        "GRADIO_ALLOW_FLAGGING": "never",
        "GRADIO_NUM_PORTS": "1",
        "MAX_WHISPER_CACHE": str(cache_folder()),  # or it would compile for a minute
        **more,
    }
    return App(tmp_path, variables, python, checkout)


@pytest.mark.slow
@pytest.mark.space
@pytest.mark.max
@needs_proc
def test_the_repository_is_a_space_as_it_stands(app: App) -> None:
    """In a new environment, on every address, behind a password, every engine equal."""
    name, password = SECRETS["DEMO_AUTH"].split(":")
    assert httpx.get(app.url).status_code == 401
    answer = httpx.get(app.url.replace("127.0.0.1", "127.0.0.2"), auth=(name, password))
    assert answer.status_code == 200 and "gradio" in answer.text
    code = base64.b64encode(SECRETS["DEMO_AUTH"].encode()).decode()
    client = Client(app.url, headers={"authorization": f"Basic {code}"}, verbose=False)
    record: dict[str, Any] = client.predict(sample="jfk", api_name="/compare")
    lanes = {lane["engine"]: lane for lane in record["lanes"]}
    ours = registry.get("cpu").transcribe(load_clip("audio_samples/jfk.flac"))
    for key in ("cpu", "max_hybrid", "max_full"):
        assert lanes[key]["state"] == "done", lanes[key]
        assert lanes[key]["text"] == ours.text
    said = app.end(signal.SIGTERM)
    reloads = said.count("`spaces` package is required to run hot-reloading")  # Gradio's own wish
    assert "prepared" in said and said.count("Traceback") == reloads
    assert not [secret for secret in (password, SECRETS["HF_TOKEN"], code) if secret in said]


@pytest.mark.slow
@pytest.mark.space
def test_what_spaces_adds_fits_the_requirements(python: Path, front_matter: dict[str, Any]) -> None:
    """Spaces installs these in one go with requirements.txt; pip must find versions for all."""
    gradio = f"gradio[oauth,mcp]=={front_matter['sdk_version']}"
    added = [gradio, "uvicorn>=0.14.0", "websockets>=10.4", "spaces"]
    tried = run_pip(python, "install", "--dry-run", "-r", "requirements.txt", *added)
    assert tried.returncode == 0, tried.stderr[-2000:]


@pytest.mark.slow
@pytest.mark.space
@pytest.mark.max
@needs_proc
def test_a_comparison_runs_on_the_newest_pytorch_of_zero_gpu(
    python: Path, checkout: Path, tmp_path: Path
) -> None:
    """In calls that a stand-in for `spaces` forks as ZeroGPU does, on the processor."""
    installed = run_pip(python, "install", "--quiet", f"torch=={NEWEST_OF_ZERO_GPU}")
    assert installed.returncode == 0, installed.stderr[-2000:]
    found = subprocess.run(
        [python, "-c", "import torch; print(torch.__version__)"], capture_output=True, text=True
    )
    assert found.stdout.startswith(NEWEST_OF_ZERO_GPU), found.stderr
    lent = {"SPACES_ZERO_GPU": "true", "DEMO_GPU_ARCHITECTURE": "none"}
    stand_in = str(checkout / "tests" / "stand_in")
    with closing(start_space(python, checkout, tmp_path, PYTHONPATH=stand_in, **lent)) as app:
        client = Client(app.url, verbose=False)
        record: dict[str, Any] = client.predict(sample="jfk", api_name="/compare")
        client.close()
    ours = registry.get("cpu").transcribe(load_clip("audio_samples/jfk.flac"))
    written = {lane["engine"]: lane["text"] for lane in record["lanes"]}
    assert written == dict.fromkeys(("cpu", "max_hybrid", "max_full"), ours.text), record


@pytest.mark.parametrize(
    ("terminal", "variables", "opens"),
    [
        (True, {"DISPLAY": ":0"}, True),
        (True, {}, False),
        (False, {"DISPLAY": ":0"}, False),
        (True, {"DISPLAY": ":0", "GRADIO_SERVER_NAME": "0.0.0.0"}, False),
    ],
)
def test_a_browser_opens_only_where_somebody_sits(
    terminal: bool, variables: dict[str, str], opens: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "SPACE_ID", "GRADIO_SERVER_NAME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(server.sys, "platform", "linux")
    monkeypatch.setattr(server.sys.stdout, "isatty", lambda: terminal)
    assert server.can_open_browser() is opens
