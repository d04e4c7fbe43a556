"""OpenAI's server and Hugging Face as sources of checkpoints, and what every source shares.

`find_…` looks on this machine and ignores damaged files; `fetch_…` downloads a checkpoint and
raises `SourceFailed`. Files whose digest is known are checked before they are opened.
"""

from __future__ import annotations

import os
import re
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import huggingface_hub
import whisper
from huggingface_hub.utils import tqdm as hub_bar

from engines.base import Listener, describe_error
from engines.checkpoints.content import READ_BYTES, digest_file
from engines.models import cache_home, is_hub_repository

TIMEOUT_SECONDS = 20.0
"""How long a server may take to answer, or to send more."""

HUB_FILES = (
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "model-*-of-*.safetensors",
)


# What every source shares


class SourceFailed(Exception):
    """A source could not deliver a checkpoint; the text says why, to follow the source's name."""


class Transfer:
    """Reports the bytes of one transfer, with the megabytes and the time left in words."""

    def __init__(self, name: str, source: str, listener: Listener) -> None:
        self._what, self._listener = f"Downloading {name} from {source}", listener
        self.total = self.done = self.done_before = 0
        self._start, self._reported = time.monotonic(), 0.0

    def add(self, n_bytes: int) -> None:
        """Count bytes, and report them a few times a second; raises `Stopped`."""
        self.done += n_bytes
        now = time.monotonic()
        if now - self._reported < 0.25 and self.done != self.total:
            return
        self._reported = now
        note = f"{self._what}: {self.done / 1e6:.0f}"
        note += f" of {self.total / 1e6:.0f} MB" if self.total else " MB"
        rate = (self.done - self.done_before) / max(now - self._start, 1e-3)
        if self.total > self.done and rate:
            note += f", {(self.total - self.done) / rate:.0f} s left"
        self._listener.report("downloading", self.done, self.total, note)


def describe(error: BaseException) -> str:
    """Return why a source failed in a few words."""
    reason = getattr(error, "reason", None)
    text = describe_error(reason if isinstance(reason, BaseException) else error)
    for pattern, words in (
        (r"name resolution|not known|resolve host|getaddrinfo|nodename", "no connection"),
        (r"[Cc]onnection refused", "the connection was refused"),
        (r"timed? ?out", "no answer in time"),
        (r"\b404\b|Repository Not Found|not found", "it is not there"),
    ):
        if re.search(pattern, text):
            return words
    return text


# OpenAI's server


def openai_file(name: str) -> Path:
    """Return the path of OpenAI's file, in the folder that the `whisper` command uses."""
    return cache_home() / "whisper" / Path(whisper._MODELS[name]).name


def _openai_digest(name: str) -> str:
    """Return the SHA-256 of OpenAI's file, which is a part of its address."""
    return str(whisper._MODELS[name].split("/")[-2])


def find_openai(name: str) -> Path | None:
    """Return OpenAI's file, if it is here and undamaged."""
    path = openai_file(name)
    return path if path.is_file() and digest_file(path) == _openai_digest(name) else None


def fetch_openai(name: str, listener: Listener) -> Path:
    """Download OpenAI's file; an interrupted download is resumed."""
    path = openai_file(name)
    part = path.with_suffix(".pt.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _download(whisper._MODELS[name], part, Transfer(name, "OpenAI's server", listener))
        if digest_file(part) != _openai_digest(name):
            part.unlink()
            raise SourceFailed("what came is not OpenAI's file: its SHA-256 differs")
        return part.replace(path)
    except OSError as error:
        raise SourceFailed(describe(error)) from error


def _download(url: str, part: Path, transfer: Transfer) -> None:
    """Download to `part`, after the bytes it has where the server can resume."""
    done = part.stat().st_size if part.is_file() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={done}-"} if done else {})
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        if error.code != 416:
            raise
        return  # the part is already as long as the file; its digest tells whether it is right
    with response, part.open("ab" if response.status == 206 else "wb") as file:
        transfer.done = transfer.done_before = file.tell()
        transfer.total = transfer.done + int(response.headers.get("Content-Length") or 0)
        while block := response.read(READ_BYTES):
            file.write(block)
            transfer.add(len(block))
    if transfer.total and transfer.done < transfer.total:
        raise SourceFailed(
            f"the connection ended after {transfer.done / 1e6:.0f} of "
            f"{transfer.total / 1e6:.0f} MB; trying again goes on from there"
        )


# Hugging Face


def hub_repository(name: str) -> str:
    """Return OpenAI's repository of an official name at Hugging Face; any other is one itself."""
    renamed = {"large": "large-v3", "large-v1": "large", "turbo": "large-v3-turbo"}
    return name if is_hub_repository(name) else f"openai/whisper-{renamed.get(name, name)}"


def find_hub(name: str) -> Path | None:
    """Return the folder of a repository in the hub's cache, if it is here and undamaged."""
    try:
        return _snapshot(hub_repository(name), local_files_only=True)
    except Exception:  # not there, or a cache that can't be read: the next source may be
        return None


def find_systran(name: str) -> Path | None:
    """Return the folder of faster-whisper's conversion in the hub's cache, if it is undamaged."""
    try:
        repository = f"Systran/faster-whisper-{name}"
        folder = Path(huggingface_hub.snapshot_download(repository, local_files_only=True))
        model = folder / "model.bin"
        return folder if model.is_file() and _matches_blob(model) else None
    except Exception:
        return None


def fetch_hub(name: str, listener: Listener) -> Path:
    """Download a repository from Hugging Face."""
    if huggingface_hub.constants.is_offline_mode():
        raise SourceFailed("HF_HUB_OFFLINE is set")
    transfer = Transfer(name, "Hugging Face", listener)

    class ReportingBar(hub_bar):
        """Reports the bytes that are written, and shows nothing itself."""

        def __init__(self, *args: Any, **options: Any) -> None:
            self._counts = options.get("name") == "huggingface_hub.snapshot_download"
            super().__init__(*args, **{**options, "disable": True})

        def update(self, n: float | None = 1) -> bool | None:
            if self._counts and n:
                transfer.total = int(self.total or 0)  # grows with every file that is begun
                transfer.add(int(n))
            return None

    try:
        return _snapshot(hub_repository(name), tqdm_class=ReportingBar)
    except SourceFailed:
        raise
    except Exception as error:  # the library passes on the errors of several others
        raise SourceFailed(describe(error)) from error


def _snapshot(repository: str, **options: Any) -> Path:
    """Return the folder of a repository; its weights are checked against their blobs' names."""
    folder = Path(
        huggingface_hub.snapshot_download(
            repository,
            allow_patterns=list(HUB_FILES),
            etag_timeout=TIMEOUT_SECONDS,
            endpoint=os.environ.get("HF_ENDPOINT") or None,
            **options,
        )
    )
    weights = sorted(folder.glob("*.safetensors"))
    if not weights or not (folder / "config.json").is_file():
        raise SourceFailed(f"{repository} has no config.json with safetensors")
    for file in weights:
        if not _matches_blob(file):
            file.resolve().unlink()
            raise SourceFailed(f"{file.name} is damaged; it was removed, so try again")
    return folder


def _matches_blob(file: Path) -> bool:
    """Return whether a file in the hub's cache is what its blob's name, a SHA-256, says."""
    name = file.resolve().name
    return not re.fullmatch(r"[0-9a-f]{64}", name) or digest_file(file) == name
