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
from pathlib import Path
from typing import Any

import httpx
import pytest
from gradio_client import Client

from demo import limits, server
from engines import registry
from engines.audio import load_clip
from engines.checkpoints import sources
from tests.processes import needs_proc, wait_until
from tests.test_readme import front_matter
from tests.test_setup import ROOT

__all__ = ["front_matter"]

VARIABLES = ("SPACE_ID", "GRADIO_SERVER_NAME", "XDG_CACHE_HOME", "MAX_WHISPER_CACHE")


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """A Space's, without what this machine has set; put back afterwards, whoever changed it."""
    before = dict(os.environ)
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SPACE_ID", "somebody/one-clip")
    yield monkeypatch
    monkeypatch.undo()
    os.environ.clear()
    os.environ.update(before)


def test_what_is_compiled_and_downloaded_is_kept_in_persistent_storage(
    environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    server.set_environment(tmp_path)
    assert sources.whisper_folder() == tmp_path / "cache" / "whisper"
    assert os.environ["MAX_WHISPER_CACHE"] == str(tmp_path / "max-whisper")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("storage", ["absent", "a file"])
def test_without_storage_nothing_is_moved(
    storage: str, environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "a file").touch()
    server.set_environment(tmp_path / storage)
    assert not {"XDG_CACHE_HOME", "MAX_WHISPER_CACHE"} & set(os.environ)
    assert server.pick_address() == "0.0.0.0"


def test_what_the_owner_set_stays(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    environment.setenv("MAX_WHISPER_CACHE", "/elsewhere")
    environment.setenv("GRADIO_SERVER_NAME", "127.0.0.1")
    server.set_environment(tmp_path)
    assert os.environ["MAX_WHISPER_CACHE"] == "/elsewhere"
    assert server.pick_address() is None


def test_elsewhere_nothing_is_set(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    environment.delenv("SPACE_ID")
    server.set_environment(tmp_path)
    assert not set(VARIABLES) & set(os.environ)
    assert server.pick_address() is None
    assert server.is_private()


def test_a_space_is_public(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("GRADIO_SERVER_NAME", "127.0.0.1")
    assert not server.is_private()
    assert limits.read_limits(server.is_private()).a_minute


# The whole, once: some gigabytes are installed, so one test asks everything of one page.

SECRETS = {"HF_TOKEN": "hf_neverToBeSeen", "DEMO_AUTH": "somebody:neverToBeSeenEither"}


def find_python() -> str:
    """Python 3.12, which the Space has, else this one."""
    pyenv = Path.home() / ".pyenv" / "versions"
    for path in [shutil.which("python3.12"), *pyenv.glob("3.12.*/bin/python3.12")]:
        command = [str(path), "-c", "import venv, ensurepip"]
        if path and subprocess.run(command, capture_output=True, check=False).returncode == 0:
            return str(path)
    return sys.executable


def run_pip(python: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """One pip command of the new environment."""
    command = [str(python), "-m", "pip", "--disable-pip-version-check", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The Python of a new environment that `requirements.txt` alone was installed into."""
    folder = tmp_path_factory.mktemp("space") / "environment"
    subprocess.run([find_python(), "-m", "venv", str(folder)], check=True)
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
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    return folder


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def space_variables(python: Path, home: Path, port: int) -> dict[str, str]:
    """The environment in which Spaces starts `app_file`, and what its owner keeps secret.

    Without the server's name, which Spaces sets as well: the page knows where to listen.
    """
    from engines.max_graph.compile_cache import cache_folder

    return {
        "PATH": f"{python.parent}:/usr/local/bin:/usr/bin:/bin",
        "HOME": str(home),
        "LANG": "C.UTF-8",
        "SYSTEM": "spaces",
        "SPACE_ID": "somebody/one-clip",
        "SPACE_HOST": "somebody-one-clip.hf.space",
        "SPACE_AUTHOR_NAME": "somebody",
        "PYTHONUNBUFFERED": "1",
        "GRADIO_ALLOW_FLAGGING": "never",
        "GRADIO_NUM_PORTS": "1",
        "GRADIO_SERVER_PORT": str(port),
        "MAX_WHISPER_CACHE": str(cache_folder()),  # or it would compile for a minute
        **SECRETS,
    }


@pytest.fixture
def page(python: Path, checkout: Path, tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """The page's address as `python app.py` serves it on a Space, and what it printed."""
    pytest.importorskip("max.engine")
    port, printed = free_port(), tmp_path / "printed"
    (tmp_path / "home").mkdir()
    url = f"http://127.0.0.1:{port}/"
    with printed.open("w") as file:
        app = subprocess.Popen(
            [python, "app.py"],
            cwd=checkout,
            env=space_variables(python, tmp_path / "home", port),
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        wait_until(lambda: answers(f"{url}health") or app.poll() is not None, "an answer", 300)
        assert app.poll() is None, printed.read_text()[-3000:]
        yield url, printed
    finally:
        app.send_signal(signal.SIGTERM)
        try:
            app.wait(60)
        finally:
            os.killpg(app.pid, signal.SIGKILL) if app.poll() is None else None
    wait_until(lambda: not list_processes(str(python.parent)), "the end of all its processes")


def answers(url: str) -> bool:
    """Whether a page is there."""
    try:
        return httpx.get(url, timeout=10).status_code == 200
    except httpx.HTTPError:
        return False


def list_processes(folder: str) -> list[str]:
    """Command lines of the living processes whose program lies in a folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_text().replace("\0", " ")
        except OSError:
            continue
        if command.startswith(folder):
            found.append(command)
    return found


@pytest.mark.space
@pytest.mark.max
@needs_proc
def test_the_repository_is_a_space_as_it_stands(page: tuple[str, Path]) -> None:
    """In a new environment, on every address, behind a password, every engine equal."""
    url, printed = page
    name, password = SECRETS["DEMO_AUTH"].split(":")
    assert httpx.get(url).status_code == 401
    answer = httpx.get(url.replace("127.0.0.1", "127.0.0.2"), auth=(name, password))
    assert answer.status_code == 200 and "gradio" in answer.text
    code = base64.b64encode(SECRETS["DEMO_AUTH"].encode()).decode()
    client = Client(url, headers={"authorization": f"Basic {code}"}, verbose=False)
    record: dict[str, Any] = client.predict(sample="jfk", api_name="/compare")
    lanes = {lane["engine"]: lane for lane in record["lanes"]}
    assert {"cpu", "max_hybrid", "max_full"} <= set(lanes)
    ours = registry.get("cpu").transcribe(load_clip("audio_samples/jfk.flac"))
    for key in ("cpu", "max_hybrid", "max_full"):
        assert lanes[key]["state"] == "done", lanes[key]
        assert lanes[key]["text"] == ours.text
    said = printed.read_text()
    reloads = said.count("`spaces` package is required to run hot-reloading")  # Gradio's own wish
    assert "prepared" in said and said.count("Traceback") == reloads
    assert not [secret for secret in (password, SECRETS["HF_TOKEN"], code) if secret in said]


@pytest.mark.space
def test_what_spaces_adds_fits_the_requirements(python: Path, front_matter: dict[str, Any]) -> None:
    """Spaces installs these in one go with requirements.txt; pip must find versions for all."""
    gradio = f"gradio[oauth,mcp]=={front_matter['sdk_version']}"
    added = [gradio, "uvicorn>=0.14.0", "websockets>=10.4", "spaces"]
    tried = run_pip(python, "install", "--dry-run", "-r", "requirements.txt", *added)
    assert tried.returncode == 0, tried.stderr[-2000:]


@pytest.mark.parametrize(
    ("terminal", "variables", "opens"),
    [
        (True, {"DISPLAY": ":0"}, True),
        (True, {"WAYLAND_DISPLAY": "wayland-0"}, True),
        (True, {}, False),
        (False, {"DISPLAY": ":0"}, False),
        (True, {"DISPLAY": ":0", "SPACE_ID": "me/space"}, False),
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
